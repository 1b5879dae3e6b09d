"""Draws histories from a ``SimulatedProcess``, vectorised over the users of a block."""

import numpy as np

from jaxrec.data.oracle import slot_shares
from jaxrec.data.simulated_process import SimulatedProcess

_ROUNDS = 40
"""Proposals after which the few users left are drawn from their exact distribution instead."""

_DAY = 86_400
_EPOCH = 1_577_836_800
_SEASON = 300 * _DAY


def draw_lengths(process: SimulatedProcess, num_users: int, generator: np.random.Generator) -> np.ndarray:
    """``[num_users]`` int32: min_length + a log-normal variable with σ = 1, cut at the longest length."""
    spread = process.mean_length - process.min_length
    extra = np.exp(generator.standard_normal(num_users) - 0.5) * spread
    return np.minimum(process.min_length + np.rint(extra), process.longest).astype(np.int32)


def draw_times(lengths: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """Unix seconds, strictly increasing within a user, as one flat run: ``[Σ lengths]`` int64.

    A user starts anywhere in 300 days from 2020; the gaps are exponential with a mean of one day.
    """
    count = int(lengths.sum(dtype=np.int64))
    ends = np.cumsum(lengths, dtype=np.int64)
    starts = ends - lengths
    gaps = 1 + (-np.log1p(-generator.random(count)) * _DAY).astype(np.int64)
    gaps[starts] = 0
    running = np.cumsum(gaps)
    first = _EPOCH + (generator.random(len(lengths)) * _SEASON).astype(np.int64)
    return running + np.repeat(first - running[starts], lengths)


def draw_histories(
    process: SimulatedProcess, lengths: np.ndarray, generator: np.random.Generator
) -> np.ndarray:
    """One history for each of ``lengths`` (``[n]``, each at least 1), one after the other.

    All users take their first item, then their second, and so on; the proposals come from the process
    without its exclusion of seen items and are rejected if seen, which draws from p(j | h) exactly.

    Returns:
      ``[Σ lengths]`` int32 item ids.
    """
    order = np.argsort(-lengths, kind="stable")
    descending = -lengths[order]
    history = np.zeros((int(lengths.max()), len(lengths)), np.int32)
    for step in range(len(history)):
        active = int(np.searchsorted(descending, -step, side="left"))
        _draw_step(process, history, step, active, generator)
    rows = np.empty((len(lengths), len(history)), np.int32)
    rows[order] = history.T
    slots = rows[np.arange(len(history)) < lengths[:, None]]
    return process.tables.item_of_slot[slots]


def _draw_step(
    process: SimulatedProcess, history: np.ndarray, step: int, active: int, generator: np.random.Generator
) -> None:
    """Fills ``history[step, :active]`` (slots), given the rows above it."""
    past = history[:step, :active]
    proposed = _propose(process, past, generator)
    history[step, :active] = proposed
    if process.repeats or step == 0:
        return
    pending = np.flatnonzero((past == proposed).any(axis=0))
    for _ in range(_ROUNDS):
        if not len(pending):
            return
        past = history[:step, pending]
        proposed = _propose(process, past, generator)
        history[step, pending] = proposed
        pending = pending[(past == proposed).any(axis=0)]
    for user in pending:
        slots = history[:step, user]
        age = np.arange(step - 1, -1, -1)
        running = np.cumsum(slot_shares(process, slots, np.zeros(step, np.int64), age, 1)[0])
        place = np.searchsorted(running, generator.random() * running[-1], side="right")
        history[step, user] = place


def _propose(process: SimulatedProcess, past: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """One draw for each user from τ·T + (1 − τ)·π·q: slots ``[n]`` int32.

    Args:
      process: the process.
      past: ``[step, n]`` slots consumed so far, oldest first.
      generator: the source of three uniforms a user.
    """
    tables, (step, count) = process.tables, past.shape
    which, where, what = generator.random((3, count))
    if step == 0:
        return tables.draw_slots(tables.draw_categories(where), what).astype(np.int32)
    follows = which < process.transition
    slots = np.empty(count, np.int32)
    chosen = np.flatnonzero(follows)
    place = np.searchsorted(np.cumsum(tables.successor_weights)[:-1], where[chosen], side="right")
    slots[chosen] = tables.successors[past[-1, chosen], place]
    chosen = np.flatnonzero(~follows)
    which = (which[chosen] - process.transition) / (1.0 - process.transition)
    categories = _draw_interests(process, past, chosen, which, where[chosen])
    slots[chosen] = tables.draw_slots(categories, what[chosen])
    return slots


def _draw_interests(
    process: SimulatedProcess, past: np.ndarray, columns: np.ndarray, which: np.ndarray, where: np.ndarray
) -> np.ndarray:
    """A category for each of ``columns``, from π(h) without making π.

    The urn is a mixture: with weight κ the prior, with weight γ^age the category of the item of that
    age; so an age is drawn (a truncated geometric) and the category looked up.
    """
    tables, step = process.tables, len(past)
    faded = process.memory**step
    evidence = (1.0 - faded) / (1.0 - process.memory)
    age = (np.log1p(-where * (1.0 - faded)) / np.log(process.memory)).astype(np.int64)
    categories = tables.category[past[step - 1 - np.minimum(age, step - 1), columns]].astype(np.int64)
    fresh = np.flatnonzero(which * (process.novelty + evidence) < process.novelty)
    categories[fresh] = tables.draw_categories(where[fresh])
    return categories


__all__ = ["draw_histories", "draw_lengths", "draw_times"]

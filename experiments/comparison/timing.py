"""What a training step and a recommendation cost, of all models in turn, so that load falls on all alike."""

import dataclasses
import itertools
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import jax
import numpy as np
from benchmarks.dataset import Arrays
from benchmarks.device import environment
from benchmarks.steps import plan_of

from comparison.members import Member
from jaxrec.config import Config
from jaxrec.lists.bulk import ListRequest, recommend_histories
from jaxrec.recommender import Recommender
from jaxrec.train.optimizer import make_optimizer
from jaxrec.train.parallel import Placement

if TYPE_CHECKING:
    from jaxrec.data.splits import Split

K, USERS = 10, 1024


def time_members(members: list[Member], split: "Split", *, baseline: str, rounds: int) -> dict[str, Any]:
    """Times every trained model in each round, after a round that is not counted.

    Parameters are fresh, as times do not depend on their values. A training step is the mean over an epoch's
    length buckets, on batches that lie on the device; a recommendation is the top 10 of all items for the
    first users, their history excluded, in batches. A ratio is the median over the rounds of the model's time
    over the baseline's in the same round.

    Args:
      members: those that are not trained are left out.
      split: the data.
      baseline: name of the model that ratios are taken to.
      rounds: at least 1.

    Returns:
      ``environment``, ``rounds``, ``users`` and ``models``: by name ``step_seconds``, ``epoch_seconds`` (all
      steps of an epoch), ``recommendation_seconds`` (a user) and ``step_ratio``, ``epoch_ratio``,
      ``recommendation_ratio``.
    """
    log = split.interactions
    arrays = Arrays(log.name, log.items, log.offsets, split.train_ends, log.num_items, split)
    users = min(USERS, log.num_users)
    timers = {
        member.name: _Timer(member.config, arrays, split.train_item_counts(), users)
        for member in members
        if member.trained
    }
    measured: dict[str, list[dict[str, float]]] = {name: [] for name in timers}
    for number in range(rounds + 1):
        for name, timer in timers.items():
            times = timer.measure()
            if number:
                measured[name].append(times)
    models = {}
    for name, times in measured.items():
        models[name] = {
            f"{what}_seconds": float(np.median([one[what] for one in times])) for what in times[0]
        }
        if baseline in measured:
            pairs = list(zip(times, measured[baseline], strict=True))
            for what in times[0]:
                models[name][f"{what}_ratio"] = float(
                    np.median([own[what] / base[what] for own, base in pairs])
                )
    return {"environment": environment(), "rounds": rounds, "users": users, "models": models}


class _Timer:
    """The compiled training step and the recommendation of one model."""

    def __init__(self, config: Config, arrays: Arrays, item_counts: np.ndarray, users: int):
        recommender = dataclasses.replace(config.model, num_items=arrays.num_items)
        placement = Placement(config.parallel)
        plan = plan_of(arrays, recommender, config, placement.num_devices)
        self.steps = plan.steps
        self.calls_of_bucket = [
            bucket.num_rows / (plan.steps * bucket.rows_per_batch) for bucket in plan.buckets
        ]  # in an epoch, on average
        optimizer = make_optimizer(
            config.optimizer, steps_per_epoch=plan.calls_per_epoch * plan.steps, total_steps=10_000
        )
        self.key = jax.device_put(jax.random.key(1, impl=config.train.random_bits), placement.replicated)
        self.state = placement.create_state(recommender, optimizer, jax.random.key(0))
        self.step = placement.compile_step(recommender, optimizer, accumulate=config.train.accumulate)
        first_call = [
            next(index for index in itertools.count() if plan.call(index).bucket == bucket)
            for bucket in range(len(plan.buckets))
        ]
        self.batches = [placement.put_batches(plan.batch(arrays.items, index)) for index in first_call]
        self.users = users
        self.recommend = _recommendation(config, recommender, arrays, item_counts, users)

    def measure(self) -> dict[str, float]:
        """Seconds of a training step, of an epoch's steps, and of a recommendation for one user."""
        epoch = sum(calls * self._call_seconds(bucket) for bucket, calls in enumerate(self.calls_of_bucket))
        steps = self.steps * sum(self.calls_of_bucket)
        return {
            "step": epoch / steps,
            "epoch": epoch,
            "recommendation": _seconds(self.recommend) / self.users,
        }

    def _call_seconds(self, bucket: int) -> float:
        def run() -> None:
            self.state, metrics = self.step(self.state, self.batches[bucket], self.key)
            jax.block_until_ready(metrics)

        return _seconds(run)


def _recommendation(
    config: Config, recommender: Recommender, arrays: Arrays, item_counts: np.ndarray, users: int
) -> Callable[[], Any]:
    params = jax.jit(recommender.init)(jax.random.key(0))
    offsets = np.asarray(arrays.offsets[: users + 1])
    request = ListRequest(k=min(K, arrays.num_items), batch_size=config.evaluation.batch_size)

    def recommend() -> Any:
        return recommend_histories(
            recommender,
            params,
            arrays.items,
            offsets,
            request,
            item_counts=item_counts,
            key=jax.random.key(0),
        )

    return recommend


def _seconds(function: Callable[[], Any]) -> float:
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


__all__ = ["K", "time_members"]

"""What a run answers: questions under external ids to arrays, and arrays to frames."""

import dataclasses
import typing
import warnings
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from jaxrec.lists.bulk import ListRequest, recommend_histories, trained_items
from jaxrec.lists.pair_scores import score_pairs
from jaxrec.lists.similar import item_vectors, similar_items

if TYPE_CHECKING:
    import polars

    from jaxrec.data.histories import Histories, OnUnknown
    from jaxrec.data.items import ItemMetadata
    from jaxrec.run import Run


def titles_of(run: "Run", wanted: bool) -> "ItemMetadata | None":
    """The titles of a run's items if they are wanted; a warning where there are none."""
    if wanted and run.catalogue.metadata is None:
        warnings.warn(
            f"the items of {run.data['data']} have no titles; give them to the log before training"
            " (Interactions.with_metadata, or --data.items of train.py)",
            stacklevel=3,
        )
    return run.catalogue.metadata if wanted else None


def read_candidates(run: "Run", candidates: Any, on_unknown: "OnUnknown") -> np.ndarray | None:
    """Internal ids of the candidates of ``Run.recommend``; ``None`` is the catalogue.

    Raises:
      ValueError: none of them is known.
    """
    from jaxrec.data.histories import known_items

    if candidates is None:
        return None
    known = known_items(candidates, run.catalogue.item_ids, on_unknown=on_unknown, what="candidates")
    if not len(known):
        raise ValueError("none of the candidates is in the catalogue, so there is nothing to recommend")
    return known


def list_frame_of(
    run: "Run", histories: Any, request: ListRequest, on_unknown: "OnUnknown", with_titles: bool
) -> "polars.DataFrame":
    """See ``Run.recommend``."""
    from jaxrec.data.histories import recommendation_frame

    if request.k < 1:
        raise ValueError(f"k is {request.k}; ask for at least 1 item")
    read = _read(run, histories, on_unknown)
    lists = recommend_histories(
        run.recommender,
        run._params_on_mesh(),
        read.items,
        read.offsets,
        dataclasses.replace(request, k=min(request.k, run.catalogue.num_items)),
        item_counts=run.item_counts,
        key=run.key,
        mesh=run.mesh,
    )
    titles = titles_of(run, with_titles)
    ids = run.catalogue.item_ids
    return recommendation_frame(read.users, ids, lists.items, lists.scores, lists.valid, titles, lists.spread)


def _read(run: "Run", histories: Any, on_unknown: "OnUnknown") -> "Histories":
    from jaxrec.data.histories import read_histories

    if isinstance(histories, Mapping) and not histories:
        raise ValueError("histories is empty; give at least one user")
    return read_histories(histories, run.catalogue.item_ids, on_unknown=on_unknown)


def similar_frame_of(
    run: "Run", items: Any, k: int, on_unknown: "OnUnknown", with_titles: bool
) -> "polars.DataFrame":
    """See ``Run.similar_items``."""
    from jaxrec.data.answers import similar_frame

    if k < 1:
        raise ValueError(f"k is {k}; ask for at least 1 item")
    known = _known(run, items, on_unknown)
    known = _trained(run, known, on_unknown)
    found = similar_items(
        run.recommender,
        run._params_on_mesh(),
        known,
        k=min(k, run.catalogue.num_items),
        allowed=trained_items(run.recommender, run.item_counts),
        mesh=run.mesh,
    )
    titles = titles_of(run, with_titles)
    return similar_frame(run.catalogue.item_ids, known, found.items, found.scores, found.valid, titles)


def vectors_of(run: "Run") -> tuple["polars.Series", np.ndarray]:
    """See ``Run.item_vectors``."""
    ids = run.catalogue.item_ids.external(np.arange(run.catalogue.num_items))
    return ids.rename("item_id"), item_vectors(run.recommender, run._params_on_mesh(), run.mesh)


def score_frame_of(
    run: "Run", histories: Any, items: Any, on_unknown: "OnUnknown", num_samples: int, with_titles: bool
) -> "polars.DataFrame":
    """See ``Run.score``."""
    from jaxrec.data.answers import score_frame

    read = _read(run, histories, on_unknown)
    if isinstance(items, Mapping):
        wanted, offsets = _items_of_users(run, items, read.users.to_list(), on_unknown)
    else:
        known, users = _known(run, items, on_unknown), len(read.users)
        wanted, offsets = np.tile(known, users), np.arange(users + 1) * len(known)
    scores = score_pairs(
        run.recommender,
        run._params_on_mesh(),
        read.items,
        read.offsets,
        wanted,
        offsets,
        item_counts=run.item_counts,
        key=run.key,
        num_samples=num_samples,
        batch_size=run.config.evaluation.batch_size,
        mesh=run.mesh,
    )
    rows = np.repeat(np.arange(len(read.users)), np.diff(offsets))
    titles = titles_of(run, with_titles)
    return score_frame(read.users, run.catalogue.item_ids, rows, wanted, scores, titles)


def _known(run: "Run", items: Any, on_unknown: "OnUnknown") -> np.ndarray:
    """Internal ids ``[n]`` int32 of a list of items."""
    from jaxrec.data.histories import OnUnknown, known_items

    if on_unknown not in (words := typing.get_args(OnUnknown)):
        raise ValueError(f"on_unknown must be one of {', '.join(map(repr, words))}, got {on_unknown!r}")
    if isinstance(items, str | bytes) or not isinstance(items, Iterable):
        raise ValueError(f"items must be a list of items, got {items!r}; write [{items!r}]")
    items = items if hasattr(items, "dtype") else list(items)
    if not len(items):
        raise ValueError("items is empty; give at least one item")
    return known_items(items, run.catalogue.item_ids, on_unknown=on_unknown)


def _trained(run: "Run", items: np.ndarray, on_unknown: "OnUnknown") -> np.ndarray:
    """Those items that occur in the training part; the model has learned nothing of the others."""
    trained = run.item_counts[items] > 0
    if on_unknown != "ignore" and not trained.all():
        names = run.catalogue.item_ids.external(items[~trained] - 1).unique(maintain_order=True).to_list()
        found = f"{len(names)} of the items never occur in the training part, such as {names[0]!r}"
        if on_unknown == "raise":
            raise ValueError(f"{found}; leave them out, or pass on_unknown='ignore' or 'warn'")
        warnings.warn(f"{found}; they are left out (on_unknown='ignore' keeps this quiet)", stacklevel=4)
    return items[trained]


def _items_of_users(
    run: "Run", items: Mapping, users: list, on_unknown: "OnUnknown"
) -> tuple[np.ndarray, np.ndarray]:
    """Internal ids ``[P]`` and offsets ``[n + 1]`` of the items that each user is asked about."""
    from jaxrec.data.histories import read_histories

    missing = [user for user in users if user not in items]
    if missing:
        raise ValueError(f"items has no list for {len(missing)} of the users, such as {missing[0]!r}")
    further = len(items) - len(users)
    if further:
        raise ValueError(f"items has lists for {further} more users than the histories; give both for all")
    read = read_histories(
        {user: items[user] for user in users}, run.catalogue.item_ids, on_unknown=on_unknown
    )
    return read.items, read.offsets


__all__ = [
    "list_frame_of",
    "read_candidates",
    "score_frame_of",
    "similar_frame_of",
    "titles_of",
    "vectors_of",
]

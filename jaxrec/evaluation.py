"""From a split to an evaluation: what the metrics need to know of the data."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Literal

import jax
from jax.sharding import Mesh

from jaxrec.batch import right_align
from jaxrec.config import Config
from jaxrec.devices.sharding import available_mesh
from jaxrec.metrics import CUTOFFS
from jaxrec.metrics.diversity import CategoryTable, category_table
from jaxrec.recommender import Recommender
from jaxrec.train.evaluate import Evaluation, evaluate
from jaxrec.train.evaluation_result import means_of_users
from jaxrec.typing import Params, PRNGKey

if TYPE_CHECKING:
    import polars

    from jaxrec.data.splits import Split

DIAGNOSED_USERS = 512
"""Histories on which a model's own figures are computed at each validation."""


def split_categories(split: "Split") -> CategoryTable | None:
    """The items' categories for the metrics; ``None`` where the log has none."""
    metadata = split.interactions.metadata
    if metadata is None or not len(metadata.category_names):
        return None
    return category_table(*metadata.category_table(), count=len(metadata.category_names))


def evaluate_split(
    recommender: Recommender,
    params: Params,
    split: "Split",
    part: Literal["validation", "test"],
    *,
    exclude_seen: bool,
    key: PRNGKey,
    batch_size: int | None = None,
    num_samples: int = 1,
    cutoffs: Sequence[int] = CUTOFFS,
    mesh: Mesh | None = None,
) -> Evaluation:
    """Ranks the targets of a part among all items, with every metric of the protocol; see ``evaluate``."""
    return evaluate(
        recommender,
        params,
        split.interactions.items,
        split.targets(part),
        exclude_seen=exclude_seen,
        key=key,
        num_samples=num_samples,
        batch_size=batch_size,
        cutoffs=cutoffs,
        item_counts=split.train_item_counts(),
        categories=split_categories(split),
        mesh=mesh,
    )


def as_dict(evaluation: Evaluation, *, intervals: bool = True) -> dict[str, Any]:
    """Metrics flat, groups under ``groups``, bootstrap intervals under ``intervals``: JSON-able."""
    groups = {group.name: {"users": group.users, **group.metrics} for group in evaluation.groups}
    result: dict[str, Any] = {**evaluation.metrics, "groups": groups}
    if intervals:
        result["intervals"] = {name: list(bounds) for name, bounds in evaluation.intervals().items()}
    return result


def values_of_users(
    evaluation: Evaluation, split: "Split", part: Literal["validation", "test"]
) -> "polars.DataFrame":
    """``user_id, rank`` (from 1) and every metric that is a mean over users; of a user's targets the mean."""
    from jaxrec.data.answers import user_frame

    users, ranks = means_of_users(split.targets(part).users, {"rank": evaluation.ranks + 1.0})
    return user_frame(split.interactions.users, users, {**ranks, **evaluation.per_user})


def validation_function(
    config: Config, recommender: Recommender, split: "Split"
) -> Callable[[Params], dict[str, float]] | None:
    """What training calls to choose its checkpoint: accuracy on the validation part, without lists.

    The devices of ``config.parallel`` share the work; parameters that lie on them, split or not, stay there.
    Figures of the model's own ``diagnose`` on the first users' histories stand beside the metrics, for the log.
    ``None`` if the split has no validation targets.
    """
    if not len(split.validation):
        return None
    targets = split.targets("validation")
    key = jax.random.key(config.seed, impl="threefry2x32")
    mesh = available_mesh(config.parallel)
    diagnose = _diagnosis(recommender, split)

    def validate(params: Params) -> dict[str, float]:
        metrics = evaluate(
            recommender,
            params,
            split.interactions.items,
            targets,
            exclude_seen=config.evaluation.exclude_seen,
            key=key,
            batch_size=config.evaluation.batch_size,
            cutoffs=config.evaluation.cutoffs,
            with_lists=False,
            mesh=mesh,
        ).metrics
        return {**metrics, **diagnose(params)}

    return validate


def _diagnosis(recommender: Recommender, split: "Split") -> Callable[[Params], dict[str, float]]:
    """The model's own figures, on the histories before the first validation targets; none if it has none."""
    figures = getattr(recommender, "diagnose", None)
    if figures is None:
        return lambda params: {}
    targets, log_items = split.targets("validation"), split.interactions.items
    pairs = zip(targets.starts[:DIAGNOSED_USERS], targets.positions[:DIAGNOSED_USERS], strict=True)
    histories = [log_items[start:position] for start, position in pairs]
    items = right_align(histories, recommender.max_length)
    compiled = jax.jit(figures)
    return lambda params: {name: float(value) for name, value in compiled(params, items).items()}


__all__ = ["as_dict", "evaluate_split", "split_categories", "validation_function", "values_of_users"]

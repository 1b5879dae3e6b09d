"""The interface between models and everything else: a recommender ranks by inner product.

Training, evaluation, top-k, export and checkpoints know this protocol only; a new model is one
file in ``jaxrec/models`` that implements it, or a class of your own under ``jaxrec.register``.
"""

from typing import Literal, NamedTuple, Protocol, runtime_checkable

from jaxrec.batch import SequenceBatch
from jaxrec.typing import Array, Params, PRNGKey

TABLE_MULTIPLE = 128


class LossOutput(NamedTuple):
    """Sums over a batch, so that devices add before dividing.

    Attributes:
      total: scalar float32, the sum of the weighted losses (penalties included).
      weight: scalar float32, the sum of the weights; the loss is ``total / weight``.
      metrics: scalars float32, each again a sum to be divided by ``weight``.
    """

    total: Array
    weight: Array
    metrics: dict[str, Array]


@runtime_checkable
class Recommender(Protocol):
    """What a model must offer. Implementations are frozen, hashable dataclasses (static under jit).

    Attributes:
      num_items: items of the catalogue; their ids are 1 to ``num_items``. 0 until the data is known
        (``dataclasses.replace`` fills it in).
      max_length: the longest history that the model reads, in items.
      target_positions: ``"all"`` if the loss uses a target at every position of a window, ``"last"``
        if it uses only the last one (the input pipeline then yields one window for every prefix, and
        ``weights`` is non-zero in the last column only).
      stochastic: whether ``query`` depends on its key.
    """

    num_items: int
    max_length: int

    @property
    def target_positions(self) -> Literal["all", "last"]: ...

    @property
    def stochastic(self) -> bool: ...

    def init(self, key: PRNGKey) -> Params:
        """Draws fresh parameters (float32)."""
        ...

    def loss(
        self, params: Params, batch: SequenceBatch, key: PRNGKey, *, step: Array | int = 0
    ) -> LossOutput:
        """The training loss of a batch; ``step`` is the optimizer step, for warm-ups."""
        ...

    def query(self, params: Params, items: Array, key: PRNGKey) -> Array:
        """Where each history ``[B, L]`` points in the ranking space: ``[B, Q]`` float32.

        L is any length up to ``max_length``; a row of padding only is allowed and gives finite
        numbers. Random draws come from ``batch.row_keys(key, items)``.
        """
        ...

    def items(self, params: Params) -> Array:
        """All rows of the catalogue in the ranking space: ``[V, Q]`` float32, V = ``table_rows(num_items)``.

        The score of an item is ``query · item``; rows 0 and above ``num_items`` are never ranked.
        """
        ...


def drawing(recommender: Recommender) -> Recommender:
    """The recommender that several samples are asked of: it draws at inference all that it has learned to draw.

    A recommender that by itself answers with a mean may offer one through a method ``drawing()``.
    """
    return recommender.drawing() if hasattr(recommender, "drawing") else recommender


def constant_columns(recommender: Recommender) -> int:
    """Columns of the ranking space before those that tell what an item is like; a recommender may have them.

    They hold parts of the score, such as a norm, that would spoil the angle between two items.
    """
    return getattr(recommender, "constant_columns", 0)


def table_rows(num_items: int) -> int:
    """Rows of an item table: padding row 0, the items, and filling up to a multiple of 128."""
    return -(-(num_items + 1) // TABLE_MULTIPLE) * TABLE_MULTIPLE


__all__ = ["TABLE_MULTIPLE", "LossOutput", "Recommender", "constant_columns", "drawing", "table_rows"]

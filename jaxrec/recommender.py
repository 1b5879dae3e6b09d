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
      metrics: figures for the log by name: scalars float32, each again a sum that is divided by ``weight``.
        ``ranking_loss`` is what the model's loss function gave, without penalties.
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
        """The training loss of a batch.

        Args:
          params: parameters.
          batch: rows ``[B, L]``; under several devices, those of this device.
          key: the step's key, from which everything random in training is drawn: dropout, latent variables, noise
            and negatives. The draws of a row follow its place in the whole batch.
          step: the optimizer step, for warm-ups.

        Returns:
          Sums over the batch. ``metrics`` are parts of the loss to be logged, such as the loss without penalties and
          each penalty; they take no part in the gradient.
        """
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
    """The variant of a recommender that draws at inference, for averages over several samples; else itself.

    A recommender that answers with the mean of a distribution it has learned (V-GenAtt) offers that variant through a
    method ``drawing()``.
    """
    return recommender.drawing() if hasattr(recommender, "drawing") else recommender


def constant_columns(recommender: Recommender) -> int:
    """How many leading columns of the ranking vectors do not describe the item; 0 for most recommenders.

    They hold other parts of the score, such as the norm in STOSA's distances, and are left out where items are
    compared with each other by angle.
    """
    return getattr(recommender, "constant_columns", 0)


def table_rows(num_items: int) -> int:
    """Rows of an item table: padding row 0, the items, and filling up to a multiple of 128."""
    return -(-(num_items + 1) // TABLE_MULTIPLE) * TABLE_MULTIPLE


__all__ = ["TABLE_MULTIPLE", "LossOutput", "Recommender", "constant_columns", "drawing", "table_rows"]

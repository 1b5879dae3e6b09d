"""DiffuRec (Li, Sun, Li: TOIS 2023, arXiv 2304.00686)."""

import dataclasses
from typing import Literal

import flax.linen as nn
import jax.numpy as jnp

from jaxrec.batch import PADDING_ID
from jaxrec.diffusion import Noise, Schedule, TruncatedLinearSchedule
from jaxrec.losses import Loss, SoftmaxLoss
from jaxrec.models.checks import check_settings
from jaxrec.models.denoising import DenoisingRecommender, Objective
from jaxrec.nn.approximator import PrefixApproximator, PrefixContext
from jaxrec.nn.dropout import Dropout
from jaxrec.nn.embedding import ItemEmbedding, PositionEmbedding
from jaxrec.nn.encoder import Activation
from jaxrec.recommender import table_rows
from jaxrec.typing import Array, ComputeType


class HistoryInput(nn.Module):
    """e: item embeddings, dropout, places (optional), LayerNorm, in DiffuRec's order.

    Attributes:
      max_length: the longest history.
      positions: whether places, counted from the end, are embedded.
      dropout_rate: dropout on the embeddings, in training.
    """

    max_length: int
    positions: bool
    dropout_rate: float

    @nn.compact
    def __call__(self, embedded: Array, *, train: bool) -> Array:
        """``[B, L, D]`` to ``[B, L, D]`` float32."""
        hidden = Dropout(self.dropout_rate, deterministic=not train)(embedded)
        if self.positions:
            hidden = PositionEmbedding(self.max_length, name="positions")(hidden)
        return nn.LayerNorm(name="norm")(hidden)


class PrefixNetwork(nn.Module):
    """Item table, input and per-prefix approximator.

    Attributes:
      item_embedding: the table.
      history_input: makes e from embeddings.
      approximator: makes x̂_0 from e and the noised target.
    """

    item_embedding: ItemEmbedding
    history_input: HistoryInput
    approximator: PrefixApproximator

    def encode(self, items: Array, *, train: bool) -> PrefixContext:
        """Everything of ``items`` ``[B, L]`` that depends on no diffusion step."""
        history = self.history_input(self.item_embedding(items), train=train)
        return self.approximator.prepare(history, (items != PADDING_ID)[:, None, None, :])

    def denoise(self, context: PrefixContext, x_t, t, normal, previous, *, train: bool) -> Array:
        """See ``PrefixApproximator``."""
        return self.approximator(context, x_t, t, normal, previous, train=train)

    def __call__(self, items: Array) -> Array:
        """Touches every parameter, for ``init``; the estimate of x_0 from x_t = 0 at t = 0."""
        context = self.encode(items, train=False)
        nothing = jnp.zeros_like(context.history[:, -1:])
        normal = jnp.zeros_like(context.history)
        return self.denoise(context, nothing, jnp.int32(0), normal, nothing, train=False)


@dataclasses.dataclass(frozen=True)
class DiffuRecRecommender(DenoisingRecommender):
    """Denoises the embedding of the next item, guided by the history: 32 steps of the whole transformer.

    As published (authors' code), but padded positions are masked as keys, the padding row takes no part in
    the softmax, and losses are summed over samples, not averaged over batches. One training sample for
    every prefix.

    Attributes:
      num_items: filled from the data.
      max_length: how many items of a history are read, the newest ones.
      width: D, the width of embeddings and hidden states.
      num_layers: how many transformer blocks (pre-norm, bidirectional).
      num_heads: how many attention heads; must divide ``width``.
      feed_forward_multiplier: hidden width of the feed-forward layers, in units of ``width``.
      activation: non-linearity of the feed-forward layers.
      input_dropout_rate: share of the item embeddings dropped in training, 0 to 1.
      dropout_rate: share dropped inside the blocks in training, 0 to 1.
      positions: whether places, counted from the end, are embedded (not in the authors' code).
      embedding_stddev: standard deviation of the item table's initial values; 1 gives x_0 the scale of the noise, as
        in the authors' code.
      unit_scale: whether x_0 and the estimates take the scale of the noise whatever the table's (``Objective``).
      schedule: noise schedule of the forward process; its ``num_steps`` is T.
      uncertainty: λ, of Λ ~ Normal(λ, λ), by which each position and channel sees the noised target.
      sampler_kind: how the reverse process goes back: ``ddpm`` (draws noise at each step) or ``ddim`` (``eta`` says
        how much).
      num_inference_steps: how many reverse steps make a list, at most T; ``None`` takes all T.
      eta: share of noise of the ddim sampler: 0 draws none after the start, 1 as much as ddpm.
      loss_function: the loss that is minimised, of x̂_0 against the item table.
      dtype: type in which the network computes; parameters are always float32.
    """

    num_items: int = 0
    max_length: int = 50
    width: int = 128
    num_layers: int = 4
    num_heads: int = 4
    feed_forward_multiplier: int = 4
    activation: Activation = "gelu"
    input_dropout_rate: float = 0.3
    dropout_rate: float = 0.1
    positions: bool = False
    embedding_stddev: float = 1.0
    unit_scale: bool = False
    schedule: Schedule = dataclasses.field(default_factory=TruncatedLinearSchedule)
    uncertainty: float = 0.001
    sampler_kind: Literal["ddpm", "ddim"] = "ddpm"
    num_inference_steps: int | None = None
    eta: float = 0.0
    loss_function: Loss = dataclasses.field(default_factory=SoftmaxLoss)
    dtype: ComputeType = "float32"

    def __post_init__(self) -> None:
        check_settings(self)
        _ = self.sampler  # refuses wrong sampler settings at construction

    @property
    def target_positions(self) -> Literal["all", "last"]:
        """One target a window."""
        return "last"

    @property
    def noise(self) -> Noise:
        """Plain Gaussian noise."""
        return Noise("none")

    @property
    def objective(self) -> Objective:
        """x_0-prediction, t uniform, and nothing else."""
        return Objective(unit_scale=self.unit_scale)

    @property
    def network(self) -> PrefixNetwork:
        """The Linen module."""
        return PrefixNetwork(
            ItemEmbedding(table_rows(self.num_items), self.width, self.embedding_stddev),
            HistoryInput(self.max_length, self.positions, self.input_dropout_rate),
            PrefixApproximator(
                num_steps=self.schedule.num_steps,
                width=self.width,
                num_layers=self.num_layers,
                num_heads=self.num_heads,
                hidden_width=self.feed_forward_multiplier * self.width,
                activation=self.activation,
                dropout_rate=self.dropout_rate,
                dtype=jnp.dtype(self.dtype),
                scale=self.uncertainty,
            ),
        )


__all__ = ["DiffuRecRecommender", "HistoryInput", "PrefixNetwork"]

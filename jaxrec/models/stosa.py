"""STOSA: items and histories are Gaussians, ranked by their distance (Fan et al. 2022, arXiv 2201.06035)."""

import dataclasses
from typing import ClassVar, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxrec.batch import SequenceBatch
from jaxrec.devices.item_table import take_rows
from jaxrec.losses import Loss, SoftmaxLoss
from jaxrec.losses.negatives import draw_negatives
from jaxrec.models.checks import check_settings, sized
from jaxrec.nn.attention import attention_mask
from jaxrec.nn.embedding import ItemEmbedding
from jaxrec.nn.stochastic import Gaussian, WassersteinScores, deviation, positive
from jaxrec.nn.stochastic_encoder import DistributionalEncoder, GaussianInput
from jaxrec.recommender import LossOutput, table_rows
from jaxrec.typing import Array, ComputeType, Params, PRNGKey

CONSTANT_COLUMNS = 8
"""Columns of the ranking space before those of the points: three in use, and zeros up to a width that devices like."""


def to_points(gaussian: Gaussian) -> Array:
    """Points whose squared Euclidean distance is the squared 2-Wasserstein one: [m, √c − 1], ``[..., 2 D]``.

    The shift by 1 cancels in every difference and keeps numbers small, as covariances start near 1.
    """
    return jnp.concatenate([gaussian.mean, deviation(gaussian.covariance) - 1.0], axis=-1)


def to_queries(points: Array) -> Array:
    """[1, 1, 1, 0 …, 2u], ``[..., 8 + 2 D]``, so that query · item = −‖u − w‖² + ‖u‖², from points ``[..., 2 D]``."""
    constant = jnp.asarray([1.0] * 3 + [0.0] * (CONSTANT_COLUMNS - 3), points.dtype)
    constant = jnp.broadcast_to(constant, (*points.shape[:-1], CONSTANT_COLUMNS))
    return jnp.concatenate([constant, 2.0 * points], axis=-1)


def to_items(points: Array) -> Array:
    """[three parts of −‖w‖², 0 …, w], ``[..., 8 + 2 D]``, from points ``[..., 2 D]``.

    The parts are float32 numbers that bfloat16 holds exactly: rounded as one, numbers of this size would move whole
    items up or down in all lists of a model that computes in bfloat16, or of a TPU.
    """
    norm = -jnp.sum(jnp.square(points), axis=-1, keepdims=True)
    high = jax.lax.stop_gradient(_round_to_bfloat16(norm))
    middle = jax.lax.stop_gradient(_round_to_bfloat16(norm - high))
    zeros = jnp.zeros((*points.shape[:-1], CONSTANT_COLUMNS - 3), points.dtype)
    return jnp.concatenate([high, middle, norm - high - middle, zeros, points], axis=-1)


def _round_to_bfloat16(numbers: Array) -> Array:
    """The nearest numbers that bfloat16 holds, still float32."""
    # XLA may remove a cast to bfloat16 and back; it keeps this.
    return jax.lax.reduce_precision(numbers, exponent_bits=8, mantissa_bits=7)


@dataclasses.dataclass(frozen=True)
class DistanceLoss:
    """BPR on distances with one sampled negative a token, as STOSA is published (code).

    −log σ(d(h, neg) − d(h, pos)) + margin_weight · max(0, d(h, pos) − d(pos, neg)), d the squared
    2-Wasserstein distance, h the history, pos the target, neg the draw: any item but the target, where the published
    code leaves out all items of the user.

    Attributes:
      margin_weight: weight of the second term.
    """

    margin_weight: float = 0.005

    between_gaussians: ClassVar[bool] = True

    def __call__(
        self, query: Array, items: Array, targets: Array, weights: Array, key: PRNGKey, *, num_items: int
    ) -> tuple[Array, Array]:
        """Sums as every loss gives them, from vectors of the ranking space of this module.

        Args:
          query: ``[N, 8 + 2 D]`` from ``to_queries``.
          items: ``[V, 8 + 2 D]`` from ``to_items``.
          targets: ``[N]`` int32.
          weights: ``[N]`` float32.
          key: draws the negatives.
          num_items: how many items the catalogue has.
        """
        negatives = draw_negatives(key, targets, 1, num_items)[:, 0]
        history = 0.5 * query[:, CONSTANT_COLUMNS:]
        target, negative = (take_rows(items, ids)[:, CONSTANT_COLUMNS:] for ids in (targets, negatives))

        def distance(first: Array, second: Array) -> Array:
            return jnp.sum(jnp.square(first - second), axis=-1)

        to_target = distance(history, target)
        losses = jax.nn.softplus(to_target - distance(history, negative))
        losses += self.margin_weight * jnp.maximum(to_target - distance(target, negative), 0.0)
        return jnp.sum(jnp.where(weights > 0, losses, 0.0) * weights), jnp.sum(weights)


class StosaEncoder(nn.Module):
    """Two item tables, Gaussian input, distributional blocks: from ids ``[B, L]`` to Gaussians."""

    model: "StosaRecommender"

    def setup(self):
        model, dtype = self.model, jnp.dtype(self.model.dtype)
        rows = table_rows(model.num_items)
        self.mean_embedding = ItemEmbedding(rows, model.width)
        self.covariance_embedding = ItemEmbedding(rows, model.width)
        self.sequence_input = GaussianInput(model.max_length, model.dropout_rate, dtype)
        self.encoder = DistributionalEncoder(
            num_layers=model.num_layers,
            num_heads=model.num_heads,
            hidden_width=model.feed_forward_multiplier * model.width,
            attention=sized(model.attention, model.max_length),
            dropout_rate=model.dropout_rate,
            attention_dropout_rate=model.attention_dropout_rate,
            dtype=dtype,
        )

    def __call__(
        self, items: Array, *, train: bool, last_only: bool = False
    ) -> tuple[Gaussian, dict[str, Array]]:
        """Gaussians ``[B, L, D]`` (``[B, 1, D]`` with ``last_only``), float32, and penalties ``[B, L]``."""
        embedded = Gaussian(self.mean_embedding(items), self.covariance_embedding(items))
        hidden = self.sequence_input(embedded, train=train)
        return self.encoder(hidden, attention_mask(items, causal=True), train=train, last_only=last_only)


@dataclasses.dataclass(frozen=True)
class StosaRecommender:
    """A stochastic transformer: a history is the Gaussian of its last position, items are Gaussians.

    Items are ranked by squared 2-Wasserstein distance, which is an inner product up to a constant of the
    history. With points u = [m, √c − 1] of the history and w of the item the distance is ‖u − w‖², and

        −‖u − w‖² = −‖u‖² + 2 u · w − ‖w‖²,  so  [1, 2u] · [−‖w‖², w] = ‖u‖² − ‖u − w‖².

    The vectors in use spread −‖w‖² over three columns, and fill up with zeros to 8: queries [1, 1, 1, 0 …, 2u], items
    [three parts of −‖w‖², 0 …, w] (``to_queries``, ``to_items``). So the full softmax over −distance is the ordinary
    one, without any ``[B, V, D]``; it is the default. ``DistanceLoss`` is what was published.

    Attributes:
      num_items: filled from the data.
      max_length: how many items of a history are read, the newest ones.
      width: D, the width of means and of covariances.
      num_layers: how many transformer blocks.
      num_heads: how many attention heads; must divide ``width``.
      attention: the attention provider, over Gaussians; ``Refined(base=WassersteinScores())`` makes AWRSR.
      feed_forward_multiplier: hidden width of the feed-forward layers, in units of ``width``.
      dropout_rate: share dropped, in training, of the input and inside the blocks, 0 to 1.
      attention_dropout_rate: share of the attention weights dropped in training, 0 to 1.
      loss_function: the loss that is minimised.
      dtype: type in which the network computes; parameters, distances and the result are float32.
    """

    num_items: int = 0
    max_length: int = 50
    width: int = 128
    num_layers: int = 2
    num_heads: int = 4
    attention: nn.Module = dataclasses.field(default_factory=WassersteinScores)
    feed_forward_multiplier: int = 1
    dropout_rate: float = 0.3
    attention_dropout_rate: float = 0.0
    loss_function: Loss = dataclasses.field(default_factory=SoftmaxLoss)
    dtype: ComputeType = "float32"

    constant_columns: ClassVar[int] = CONSTANT_COLUMNS

    def __post_init__(self):
        check_settings(self, gaussian=True)

    @property
    def target_positions(self) -> Literal["all", "last"]:
        """All: attention is causal."""
        return "all"

    @property
    def stochastic(self) -> bool:
        """Representations are distributions, but nothing is drawn."""
        return False

    @property
    def module(self) -> StosaEncoder:
        """The Linen module; ``module.apply({"params": params}, items, train=False)``."""
        return StosaEncoder(self)

    def init(self, key: PRNGKey) -> Params:
        """Fresh parameters, float32."""
        items = jnp.ones((1, self.max_length), jnp.int32)
        return self.module.init(key, items, train=False)["params"]

    def loss(
        self, params: Params, batch: SequenceBatch, key: PRNGKey, *, step: Array | int = 0
    ) -> LossOutput:
        """Sums of the weighted loss over a batch.

        Raises:
          ValueError: the attention provider has a penalty; this model has no coefficients for any.
        """
        del step
        loss_key, dropout_key = jax.random.split(key)
        hidden, penalties = self.module.apply(
            {"params": params}, batch.items, train=True, rngs={"dropout": dropout_key}
        )
        if penalties:
            raise ValueError(
                f"the attention {type(self.attention).__name__} has the penalties {sorted(penalties)}, for "
                "which StosaRecommender has no coefficients; use a provider without penalties"
            )
        query = to_queries(to_points(hidden)).reshape(-1, CONSTANT_COLUMNS + 2 * self.width)
        total, weight = self.loss_function(
            query,
            self.items(params),
            batch.targets.reshape(-1),
            batch.weights.reshape(-1),
            loss_key,
            num_items=self.num_items,
        )
        return LossOutput(total, weight, {"ranking_loss": total})

    def query(self, params: Params, items: Array, key: PRNGKey) -> Array:
        """``to_queries`` of [m, √c − 1] of the last position: ``[B, 8 + 2 D]`` float32, from ``items`` ``[B, L]``."""
        del key
        hidden, _ = self.module.apply({"params": params}, items, train=False, last_only=True)
        return to_queries(to_points(hidden))[:, 0]

    def items(self, params: Params) -> Array:
        """``to_items`` of the catalogue's [m, √c − 1], c = ELU(table) + 1: ``[V, 8 + 2 D]`` float32."""
        mean = params["mean_embedding"]["table"]
        covariance = positive(params["covariance_embedding"]["table"])
        return to_items(to_points(Gaussian(mean, covariance)))


__all__ = ["DistanceLoss", "StosaEncoder", "StosaRecommender", "to_items", "to_points", "to_queries"]

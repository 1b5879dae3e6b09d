"""Losses of next-item prediction over an item table: one frozen dataclass each, one way to call them.

``loss(query, items, targets, weights, key, num_items=...)`` returns ``(total, weight)``: the sum of
weight · loss over the tokens and the sum of the weights, both float32, so that devices add before they
divide. Rows 0 and above ``num_items`` of the table are never a candidate. ``query`` is ``[..., Q]``,
``targets`` and ``weights`` have its leading shape, ``items`` is ``[V, Q]``. A token of weight 0 costs
(nearly) nothing and gets no gradient.

Logits and losses are float32. On GPUs and TPUs, products of float32 matrices in training follow
``jax_default_matmul_precision``; in ranking they are full ones.
"""

import dataclasses
from typing import NamedTuple, Protocol

import jax
import jax.numpy as jnp

from jaxrec.devices.item_table import table_axis, take_rows
from jaxrec.devices.rows import gather_rows
from jaxrec.losses.negatives import draw_negatives, negative_sampling_loss
from jaxrec.losses.softmax import Plan, softmax_cross_entropy
from jaxrec.typing import Array, ComputeType, PRNGKey


class BlockSizes(NamedTuple):
    """Sizes that suit a kind of device.

    Attributes:
      logits: cells of the largest block of logits.
      shortest: fewest tokens in a block; where they are too many against the whole table, it is cut into tiles.
      longest: most tokens in a block.
      tile: tokens and rows of a tile.
      sampled: most tokens of a block against sampled candidates.
    """

    logits: int
    shortest: int
    longest: int
    tile: tuple[int, int]
    sampled: int


CPU_BLOCKS = BlockSizes(logits=2**22, shortest=128, longest=256, tile=(256, 2048), sampled=1024)
"""Measured on 2 cores with 2 MB of second-level cache each: larger blocks leave the caches."""

ACCELERATOR_BLOCKS = BlockSizes(logits=2**27, shortest=512, longest=2**20, tile=(8192, 16384), sampled=16384)


def _block_sizes() -> BlockSizes:
    """Those of the default device."""
    return CPU_BLOCKS if jax.default_backend() == "cpu" else ACCELERATOR_BLOCKS


class Loss(Protocol):
    """What every loss of this module offers; implementations are hashable (static under jit)."""

    def __call__(
        self, query: Array, items: Array, targets: Array, weights: Array, key: PRNGKey, *, num_items: int
    ) -> tuple[Array, Array]:
        """The sum of the weighted losses and the sum of the weights; see the module's docstring."""
        ...


def _flatten(query: Array, targets: Array, weights: Array) -> tuple[Array, Array, Array]:
    """Tokens in one axis: ``[N, Q]``, ``[N]``, ``[N]`` float32."""
    if not query.shape[:-1] == targets.shape == weights.shape:
        raise ValueError(
            f"query {query.shape}, targets {targets.shape} and weights {weights.shape} must agree in all "
            "axes but the query's last"
        )
    return (
        jnp.asarray(query).reshape(-1, query.shape[-1]),
        jnp.asarray(targets).reshape(-1),
        jnp.asarray(weights, jnp.float32).reshape(-1),
    )


def _require_positive(loss: object, name: str) -> None:
    value = getattr(loss, name)
    if value is not None and value < 1:
        raise ValueError(f"{type(loss).__name__}.{name} is {value}; it must be at least 1")


@dataclasses.dataclass(frozen=True)
class SoftmaxLoss:
    """Cross-entropy of the softmax over all items: exact, and never holding all logits at once.

    Attributes:
      dtype: type of the matrix products' operands; ``bfloat16`` is fast on accelerators. Sums are always float32.
      block: how many targets are compared with the table at once; ``None`` chooses by the size of the catalogue.
      chunk: how many rows of the item table are taken at once; ``None`` chooses: the whole table if the logits of a
        block are small (three matrix products in all), else tiles (four, and bounded memory).
    """

    dtype: ComputeType = "float32"
    block: int | None = None
    chunk: int | None = None

    def __post_init__(self):
        _require_positive(self, "block")
        _require_positive(self, "chunk")

    def __call__(
        self, query: Array, items: Array, targets: Array, weights: Array, key: PRNGKey, *, num_items: int
    ) -> tuple[Array, Array]:
        """See ``Loss``; ``key`` is not used."""
        del key
        query, targets, weights = _flatten(query, targets, weights)
        plan = self.plan(query.shape[0], items.shape[0], num_items)
        return softmax_cross_entropy(plan, query, items, targets, weights), jnp.sum(weights)

    def plan(self, num_tokens: int, num_rows: int, num_items: int) -> Plan:
        """The sizes of blocks and tiles for a device's ``[num_tokens]`` tokens and ``[num_rows]`` rows of table."""
        axis = table_axis()
        if axis is not None:
            num_tokens *= jax.lax.axis_size(axis)
        sizes = _block_sizes()
        block, chunk = self.block, self.chunk
        if chunk is None and block is None and sizes.shortest * num_rows > sizes.logits:
            block, chunk = sizes.tile
        if block is None:
            fitting = sizes.logits // (chunk or num_rows) // sizes.shortest * sizes.shortest
            block = min(max(fitting, sizes.shortest), sizes.longest)
        chunk = None if chunk is None else min(chunk, num_rows)
        return Plan(num_items, min(block, num_tokens), chunk, jnp.dtype(self.dtype), axis)


@dataclasses.dataclass(frozen=True)
class SampledSoftmaxLoss:
    """Cross-entropy of the softmax over the target and a sample of items shared by the whole batch.

    With ``logq`` each sampled score is lowered by the logarithm of how often its item is expected among
    the candidates (Bengio, Senécal 2008; Yi et al. 2019), so that the sum of exponentials estimates the
    full one without bias. With ``in_batch`` the targets of the batch are candidates too (Yang et al.
    2020); given the batch their number is no chance, and the expectation is their count plus the
    uniform draws' (the balance heuristic of multiple importance sampling: our reading). A candidate
    that is the token's own target is dropped. The batch is the whole one: each device sees the targets of all.

    Attributes:
      num_negatives: how many candidates are drawn, uniformly, from the catalogue for each batch; at least 1 unless
        ``in_batch``.
      logq: whether scores are corrected for how often an item is expected among the candidates.
      in_batch: whether the batch's targets are candidates too.
      dtype: type of the matrix product's operands; sums are always float32.
      block: how many targets are compared with the candidates at once, their logits being computed again in the
        backward pass; ``None`` chooses by device and number of candidates.
    """

    num_negatives: int = 512
    logq: bool = True
    in_batch: bool = False
    dtype: ComputeType = "float32"
    block: int | None = None

    def __post_init__(self):
        _require_positive(self, "block")
        if not self.in_batch:
            _require_positive(self, "num_negatives")

    def __call__(
        self, query: Array, items: Array, targets: Array, weights: Array, key: PRNGKey, *, num_items: int
    ) -> tuple[Array, Array]:
        """See ``Loss``; ``key`` draws the candidates."""
        query, targets, weights = _flatten(query, targets, weights)
        ids, shift = self.candidates(targets, weights, key, num_items)
        rows = take_rows(items, ids).astype(self.dtype)

        def block_total(query, targets, weights):
            operand = query.astype(self.dtype)
            logits = jnp.einsum("nq,cq->nc", operand, rows, preferred_element_type=jnp.float32)
            logits = jnp.where(targets[:, None] == ids, -jnp.inf, logits + shift)
            target_rows = take_rows(items, targets).astype(self.dtype).astype(jnp.float32)
            own = jnp.sum(operand.astype(jnp.float32) * target_rows, axis=-1)
            losses = jax.nn.logsumexp(jnp.concatenate([own[:, None], logits], axis=-1), axis=-1) - own
            return jnp.sum(jnp.where(weights != 0, losses, 0.0) * weights)

        sizes = _block_sizes()
        fitting = max(sizes.logits // ids.shape[0], sizes.shortest)
        block = min(self.block or min(sizes.sampled, fitting), query.shape[0])
        blocks = [_blocks(array, block) for array in (query, targets, weights)]
        totals = jax.lax.map(lambda arrays: jax.checkpoint(block_total)(*arrays), blocks)
        return jnp.sum(totals), jnp.sum(weights)

    def candidates(self, targets: Array, weights: Array, key: PRNGKey, num_items: int) -> tuple[Array, Array]:
        """Ids ``[C]`` int32 of the candidates and what is added to their scores ``[C]`` float32."""
        ids = jax.random.randint(key, (self.num_negatives,), 1, num_items + 1, jnp.int32)
        expected = jnp.full(num_items + 1, self.num_negatives / num_items, jnp.float32)
        usable = jnp.ones(ids.shape, bool)
        if self.in_batch:
            targets, counts = gather_rows(targets), gather_rows(weights != 0)
            expected = expected.at[targets].add(counts)
            ids, usable = jnp.concatenate([ids, targets]), jnp.concatenate([usable, counts])
        shift = -jnp.log(expected[ids]) if self.logq else jnp.zeros(ids.shape, jnp.float32)
        return ids, jnp.where(usable, shift, -jnp.inf)


def _blocks(array: Array, size: int) -> Array:
    """``[blocks, size, ...]``, filled up with zeros (tokens of weight 0)."""
    filling = -array.shape[0] % size
    padded = jnp.pad(array, [(0, filling)] + [(0, 0)] * (array.ndim - 1))
    return padded.reshape(-1, size, *array.shape[1:])


@dataclasses.dataclass(frozen=True)
class _NegativeSampling:
    """Losses of a target's score against the scores of items drawn for each token.

    The draws are uniform over the items other than the token's target; items of the user's history are
    not avoided.

    Attributes:
      num_negatives: how many items are drawn for each target.
      block: how many targets have their negatives gathered at once; ``None`` chooses by memory.
    """

    num_negatives: int = 1
    block: int | None = None

    def __post_init__(self):
        _require_positive(self, "num_negatives")
        _require_positive(self, "block")

    def __call__(
        self, query: Array, items: Array, targets: Array, weights: Array, key: PRNGKey, *, num_items: int
    ) -> tuple[Array, Array]:
        """See ``Loss``; ``key`` draws the negatives."""
        query, targets, weights = _flatten(query, targets, weights)
        negatives = draw_negatives(key, targets, self.num_negatives, num_items)
        total = negative_sampling_loss(
            self, num_items, table_axis(), query, items, targets, negatives, weights
        )
        return total, jnp.sum(weights)


@dataclasses.dataclass(frozen=True)
class BinaryLoss(_NegativeSampling):
    """Binary cross-entropy with sampled negatives (SASRec: Kang, McAuley 2018, section 3.5).

    −log σ(s⁺) − Σ log(1 − σ(s⁻)), the sum over the negatives.
    """

    def from_scores(self, positive: Array, negative: Array, num_items: int) -> Array:
        """Each token's loss ``[N]`` from its scores ``[N]`` and ``[N, K]``."""
        del num_items
        return jax.nn.softplus(-positive) + jnp.sum(jax.nn.softplus(negative), axis=-1)


@dataclasses.dataclass(frozen=True)
class GeneralizedBinaryLoss(_NegativeSampling):
    """gBCE (Petrov, Macdonald 2023, "gSASRec", section 5): σ(s⁺) is raised to the power β.

    (−β log σ(s⁺) − Σ log(1 − σ(s⁻))) / (K + 1), with the sampling rate α = K / (items − 1) and
    β = α (t (1 − 1/α) + 1/α) = 1 − t (1 − α): t = 0 is binary cross-entropy (divided by K + 1),
    t = 1 undoes the overconfidence of sampling fully.

    Attributes:
      t: calibration, 0 (plain binary cross-entropy) to 1 (undoes all overconfidence).
    """

    num_negatives: int = 256
    t: float = dataclasses.field(default=0.75, kw_only=True)

    def __post_init__(self):
        super().__post_init__()
        if not 0 <= self.t <= 1:
            raise ValueError(f"GeneralizedBinaryLoss.t is {self.t}; it must lie between 0 and 1")

    def from_scores(self, positive: Array, negative: Array, num_items: int) -> Array:
        """Each token's loss ``[N]`` from its scores ``[N]`` and ``[N, K]``."""
        rate = min(1.0, self.num_negatives / (num_items - 1))
        power = 1.0 - self.t * (1.0 - rate)
        total = power * jax.nn.softplus(-positive) + jnp.sum(jax.nn.softplus(negative), axis=-1)
        return total / (self.num_negatives + 1)


@dataclasses.dataclass(frozen=True)
class PairwiseLoss(_NegativeSampling):
    """BPR (Rendle et al. 2009): −log σ(s⁺ − s⁻), the mean over the negatives."""

    def from_scores(self, positive: Array, negative: Array, num_items: int) -> Array:
        """Each token's loss ``[N]`` from its scores ``[N]`` and ``[N, K]``."""
        del num_items
        return jnp.mean(jax.nn.softplus(negative - positive[:, None]), axis=-1)


LOSSES: dict[str, type] = {
    "softmax": SoftmaxLoss,
    "sampled-softmax": SampledSoftmaxLoss,
    "bce": BinaryLoss,
    "gbce": GeneralizedBinaryLoss,
    "bpr": PairwiseLoss,
}
"""The losses of every recommender by name; ``jaxrec.loss_names`` reads the names that a person types."""

__all__ = [
    "LOSSES",
    "BinaryLoss",
    "GeneralizedBinaryLoss",
    "Loss",
    "PairwiseLoss",
    "SampledSoftmaxLoss",
    "SoftmaxLoss",
]

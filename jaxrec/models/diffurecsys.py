"""DiffuRecSys (Zolghadr, Winther, Jeha: ROEGEN at RecSys 2024, arXiv 2410.19429), in two forms."""

import dataclasses
from typing import Literal

import flax.linen as nn
import jax.numpy as jnp

from jaxrec.diffusion import Noise, Schedule, TruncatedLinearSchedule
from jaxrec.losses import Loss, SoftmaxLoss
from jaxrec.models.checks import check_settings
from jaxrec.models.denoising import DenoisingRecommender, Objective
from jaxrec.models.diffurec import HistoryInput, PrefixNetwork
from jaxrec.nn.approximator import PrefixApproximator
from jaxrec.nn.attention import DotProduct, attention_mask
from jaxrec.nn.cross_attention import CrossAttentionForm
from jaxrec.nn.embedding import ItemEmbedding
from jaxrec.nn.encoder import Activation, TransformerEncoder
from jaxrec.nn.target_approximator import TargetApproximator, TargetContext
from jaxrec.nn.target_signal import Visibility
from jaxrec.recommender import table_rows
from jaxrec.typing import Array, ComputeType


class CachedNetwork(nn.Module):
    """Item table, causal encoder of the history, and an approximator whose tokens are the targets.

    Attributes:
      item_embedding: the table.
      history_input: makes the encoder's input from embeddings.
      encoder: encodes the history, without any target.
      approximator: makes x̂_0 from the history's states and the noised targets.
    """

    item_embedding: ItemEmbedding
    history_input: HistoryInput
    encoder: TransformerEncoder
    approximator: TargetApproximator

    def encode(self, items: Array, *, train: bool) -> TargetContext:
        """The history ``[B, L]``, cached; in training with a target at every position, else at the last."""
        mask = attention_mask(items, causal=True)
        history = self.history_input(self.item_embedding(items), train=train)
        history, _ = self.encoder(history, mask, train=train)
        return self.approximator.prepare(history, mask, last_only=not train)

    def denoise(self, context: TargetContext, x_t, t, normal, previous, *, train: bool) -> Array:
        """See ``TargetApproximator``; of ``normal`` ``[B, L, D]`` the last N places are used."""
        count = context.states.shape[1]
        return self.approximator(context, x_t, t, normal[:, -count:], previous, train=train)

    def __call__(self, items: Array) -> Array:
        """Touches every parameter, for ``init``; the estimate of x_0 from x_t = 0 at t = 0."""
        context = self.encode(items, train=False)
        nothing = jnp.zeros_like(context.states)
        return self.denoise(context, nothing, jnp.int32(0), nothing, nothing, train=False)


@dataclasses.dataclass(frozen=True)
class DiffuRecSysRecommender(DenoisingRecommender):
    """DiffuRec with offset noise and a cross-attention approximator.

    ``per-prefix`` is the published form: one training sample for every prefix, the whole transformer at
    every reverse step, queries of the cross-attention from the noised target and the step (unless ``token_queries``);
    without cross-attention and offset it is DiffuRec. ``history-cached`` is our faster reading: the history is
    encoded once, causally and without the target; targets are noised at every position at once, a reverse step costs
    one token, and that token, normalised, is the query.

    Attributes:
      num_items: filled from the data.
      form: ``per-prefix`` (as published: a training sample for every prefix, the whole transformer at every reverse
        step) or ``history-cached`` (faster: the history is encoded once).
      max_length: how many items of a history are read, the newest ones.
      width: D, the width of embeddings and hidden states.
      num_layers: how many blocks the per-prefix approximator has, or the encoder of the history.
      target_layers: how many blocks the approximator has (history-cached only; per prefix it has num_layers).
      num_heads: how many attention heads; must divide ``width``.
      feed_forward_multiplier: hidden width of the feed-forward layers, in units of ``width``.
      activation: non-linearity of the feed-forward layers.
      input_dropout_rate: share of the item embeddings dropped in training, 0 to 1.
      dropout_rate: share dropped inside the blocks in training, 0 to 1.
      positions: whether places, counted from the end, are embedded.
      embedding_stddev: standard deviation of the item table's initial values; 1 gives x_0 the scale of the noise.
      cross_attention: kind of cross-attention from the noised target to the history; ``none`` leaves it out.
      token_queries: whether the queries of the cross-attention are its block's tokens, normalised, and not what is
        seen of the noised target alone (per-prefix only; the history-cached form always asks by its tokens).
      noise: noise of the forward process; the offset's published strength is 0.1, ``shared`` is our reading.
        The reverse process draws plain noise.
      schedule: noise schedule of the forward process; its ``num_steps`` is T.
      visibility: how much of the noised target is seen: ``uncertain`` (Λ ~ Normal(λ, λ), DiffuRec), ``fixed`` (λ) or
        ``learned`` (a scale for each step and channel, starting at λ).
      uncertainty: λ, how much of the noised target is seen.
      start_from_history: whether the approximator refines the history's own prediction (history-cached
        only); without it, it starts from the noised target alone.
      objective: how targets are noised in training.
      sampler_kind: how the reverse process goes back: ``ddpm`` (draws noise at each step) or ``ddim`` (``eta`` says
        how much).
      num_inference_steps: how many reverse steps make a list, at most T; ``None`` takes all T.
      eta: share of noise of the ddim sampler: 0 draws none after the start, 1 as much as ddpm.
      loss_function: the loss that is minimised, of x̂_0 against the item table.
      dtype: type in which the network computes; parameters are always float32.
    """

    num_items: int = 0
    form: Literal["per-prefix", "history-cached"] = "per-prefix"
    max_length: int = 100
    width: int = 256
    num_layers: int = 4
    target_layers: int = 1
    num_heads: int = 4
    feed_forward_multiplier: int = 4
    activation: Activation = "gelu"
    input_dropout_rate: float = 0.3
    dropout_rate: float = 0.1
    positions: bool = False
    embedding_stddev: float = 1.0
    cross_attention: CrossAttentionForm = "softmax"
    token_queries: bool = False
    noise: Noise = dataclasses.field(default_factory=lambda: Noise("shared", 0.1))
    schedule: Schedule = dataclasses.field(default_factory=TruncatedLinearSchedule)
    visibility: Visibility = "uncertain"
    uncertainty: float = 0.001
    start_from_history: bool = True
    objective: Objective = dataclasses.field(default_factory=Objective)
    sampler_kind: Literal["ddpm", "ddim"] = "ddpm"
    num_inference_steps: int | None = None
    eta: float = 0.0
    loss_function: Loss = dataclasses.field(default_factory=SoftmaxLoss)
    dtype: ComputeType = "float32"

    def __post_init__(self) -> None:
        check_settings(self)
        if self.form == "per-prefix":
            self._check_prefix_settings()
        else:
            self._check_cached_settings()
        _ = self.sampler  # refuses wrong sampler settings at construction

    def _check_prefix_settings(self) -> None:
        """Refuses what only the other form has."""
        if self.objective.history_loss:
            raise ValueError(
                "objective.history_loss needs form='history-cached': per prefix, the history has no prediction"
                " of its own; set it to 0"
            )
        if not self.start_from_history:
            raise ValueError("start_from_history=False needs form='history-cached'; leave it out")
        if self.target_layers != 1:
            raise ValueError(
                f"target_layers is {self.target_layers}, and needs form='history-cached'; per prefix, num_layers says"
                " how many blocks there are"
            )
        if self.token_queries and self.cross_attention == "none":
            raise ValueError(
                "token_queries=True needs a cross_attention, 'softmax' or 'linear', and there is none"
            )

    def _check_cached_settings(self) -> None:
        """Refuses too few blocks, and what only the other form has."""
        if self.target_layers < 1:
            raise ValueError(f"target_layers must be at least 1, got {self.target_layers}")
        if self.token_queries:
            raise ValueError(
                "token_queries=True is of form='per-prefix': the history-cached form always asks by its tokens;"
                " leave it out"
            )

    @property
    def target_positions(self) -> Literal["all", "last"]:
        """All positions at once with a cached history, else one target a window."""
        return "all" if self.form == "history-cached" else "last"

    @property
    def network(self) -> PrefixNetwork | CachedNetwork:
        """The Linen module."""
        embedding = ItemEmbedding(table_rows(self.num_items), self.width, self.embedding_stddev)
        history_input = HistoryInput(self.max_length, self.positions, self.input_dropout_rate)
        common = {
            "num_heads": self.num_heads,
            "hidden_width": self.feed_forward_multiplier * self.width,
            "activation": self.activation,
            "dropout_rate": self.dropout_rate,
            "dtype": jnp.dtype(self.dtype),
        }
        target = {
            "num_steps": self.schedule.num_steps,
            "width": self.width,
            "cross_attention": self.cross_attention,
            "visibility": self.visibility,
            "scale": self.uncertainty,
            "self_conditioning": self.objective.self_conditioning,
            **common,
        }
        if self.form == "per-prefix":
            approximator = PrefixApproximator(
                num_layers=self.num_layers, token_queries=self.token_queries, **target
            )
            return PrefixNetwork(embedding, history_input, approximator)
        encoder = TransformerEncoder(
            num_layers=self.num_layers,
            attention=DotProduct(),
            attention_dropout_rate=self.dropout_rate,
            **common,
        )
        approximator = TargetApproximator(
            num_layers=self.target_layers, start_from_history=self.start_from_history, **target
        )
        return CachedNetwork(embedding, history_input, encoder, approximator)


__all__ = ["CachedNetwork", "DiffuRecSysRecommender"]

"""SASRec and every model that differs from it in the attention alone (AWRSR, V-GenAtt, D-GenAtt)."""

import dataclasses
from typing import Any, Literal

import flax.linen as nn
import flax.traverse_util
import jax
import jax.numpy as jnp

from jaxrec.batch import PADDING_ID, SequenceBatch, row_keys
from jaxrec.losses import Loss, SoftmaxLoss
from jaxrec.models.checks import check_settings, sized
from jaxrec.nn.attention import DotProduct, attention_mask
from jaxrec.nn.embedding import ItemEmbedding, SequenceInput
from jaxrec.nn.encoder import Activation, TransformerEncoder
from jaxrec.recommender import LossOutput, table_rows
from jaxrec.typing import Array, ComputeType, Params, PRNGKey


@dataclasses.dataclass(frozen=True)
class Penalty:
    """A term that an attention provider adds to the training loss.

    Attributes:
      name: the provider's name for it (``kl``, ``denoising``).
      coefficient: the weight with which it joins the loss, once warmed up.
      warmup_steps: optimizer steps over which the weight rises linearly to ``coefficient``; the first one takes
        ``coefficient`` / ``warmup_steps``. 0: no warm-up.
    """

    name: str
    coefficient: float
    warmup_steps: int = 0

    def __post_init__(self):
        if self.coefficient < 0 or self.warmup_steps < 0:
            raise ValueError(
                f"penalty {self.name!r}: coefficient and warmup_steps must not be negative: {self}"
            )

    def weight(self, step: Array | int) -> Array:
        """The coefficient at an optimizer step."""
        progress = (jnp.asarray(step, jnp.float32) + 1.0) / max(self.warmup_steps, 1)
        return self.coefficient * jnp.minimum(progress, 1.0)


class SequenceEncoder(nn.Module):
    """Item table, input, transformer: from ids ``[B, L]`` to hidden states, next item tied to the table."""

    model: "EncoderRecommender"

    def setup(self):
        model, dtype = self.model, jnp.dtype(self.model.dtype)
        self.item_embedding = ItemEmbedding(table_rows(model.num_items), model.width)
        self.sequence_input = SequenceInput(
            max_length=model.max_length,
            positions=model.positions,
            scale=model.width**0.5 if model.scale_embedding else 1.0,
            dropout_rate=model.dropout_rate,
            dtype=dtype,
        )
        self.encoder = TransformerEncoder(
            num_layers=model.num_layers,
            num_heads=model.num_heads,
            hidden_width=model.feed_forward_multiplier * model.width,
            attention=sized(model.attention, model.max_length),
            dropout_rate=model.dropout_rate,
            attention_dropout_rate=model.attention_dropout_rate,
            activation=model.activation,
            norm_first=model.norm_first,
            dtype=dtype,
            rematerialise=model.rematerialise,
        )

    def __call__(
        self, items: Array, *, train: bool, last_only: bool = False
    ) -> tuple[Array, dict[str, Array]]:
        """Hidden states ``[B, L, D]`` float32 (``[B, 1, D]`` with ``last_only``) and penalties ``[B, L]``."""
        hidden = self.sequence_input(self.item_embedding(items), train=train)
        return self.encoder(hidden, attention_mask(items, causal=True), train=train, last_only=last_only)


@dataclasses.dataclass(frozen=True)
class EncoderRecommender:
    """A causal transformer over the history that scores items by inner product with its last state.

    With ``DotProduct`` attention this is SASRec (Kang and McAuley 2018, arXiv 1808.09781) trained with the
    loss of your choice, by default the full softmax; other providers make the other models.

    Attributes:
      num_items: filled from the data.
      max_length: how many items of a history are read, the newest ones.
      width: D, the width of embeddings and hidden states.
      num_layers: how many transformer blocks.
      num_heads: how many attention heads; must divide ``width``.
      attention: the attention provider, which makes the maps.
      feed_forward_multiplier: hidden width of the feed-forward layers, in units of ``width``.
      activation: non-linearity of the feed-forward layers.
      dropout_rate: share dropped, in training, of the input and inside the blocks, 0 to 1.
      attention_dropout_rate: share of the attention weights dropped in training, 0 to 1.
      norm_first: whether layer norms stand before each sub-layer (pre-norm) or after each residual sum (post-norm).
      positions: whether positions, counted from the end, are embedded.
      scale_embedding: whether item embeddings are multiplied by √D where they enter.
      loss_function: the loss that is minimised.
      penalties: coefficients of the attention provider's penalties; one that is missing, or too many, is an error.
      dtype: type in which the network computes; parameters are always float32.
      rematerialise: compute each block's activations again in the backward pass instead of keeping them: slower, less
        memory.
    """

    num_items: int = 0
    max_length: int = 50
    width: int = 128
    num_layers: int = 2
    num_heads: int = 2
    attention: nn.Module = DotProduct()
    feed_forward_multiplier: int = 1
    activation: Activation = "relu"
    dropout_rate: float = 0.5
    attention_dropout_rate: float = 0.0
    norm_first: bool = True
    positions: bool = True
    scale_embedding: bool = True
    loss_function: Loss = SoftmaxLoss()
    penalties: tuple[Penalty, ...] = ()
    dtype: ComputeType = "float32"
    rematerialise: bool = False

    def __post_init__(self):
        check_settings(self)
        names = [penalty.name for penalty in self.penalties]
        if len(set(names)) < len(names):
            raise ValueError(f"penalties name one penalty twice: {', '.join(names)}")

    @property
    def target_positions(self) -> Literal["all", "last"]:
        """All, unless the attention sees the whole sequence at once (the global form of GenAtt)."""
        return getattr(self.attention, "target_positions", "all")

    @property
    def stochastic(self) -> bool:
        """Whether the attention draws at inference."""
        return getattr(self.attention, "stochastic_at_inference", False)

    def drawing(self) -> "EncoderRecommender":
        """With attention that draws at inference, if it can: what several samples are asked of."""
        draws = getattr(self.attention, "drawing", None)
        return self if draws is None else dataclasses.replace(self, attention=draws())

    @property
    def module(self) -> SequenceEncoder:
        """The Linen module; ``module.apply({"params": params}, items, train=False)``."""
        return SequenceEncoder(self)

    def init(self, key: PRNGKey) -> Params:
        """Fresh parameters, float32."""
        names = ("params", "dropout", "latent", "diffusion")
        rngs = dict(zip(names, jax.random.split(key, len(names)), strict=True))
        items = jnp.ones((1, self.max_length), jnp.int32)
        return self.module.init(rngs, items, train=False)["params"]

    def loss(
        self, params: Params, batch: SequenceBatch, key: PRNGKey, *, step: Array | int = 0
    ) -> LossOutput:
        """Sums of the weighted loss over a batch; metrics hold the loss without penalties, and each penalty."""
        loss_key, *stream_keys = jax.random.split(key, 4)
        rngs = dict(zip(("dropout", "latent", "diffusion"), stream_keys, strict=True))
        last_only = self.target_positions == "last"
        hidden, penalties = self.module.apply(
            {"params": params}, batch.items, train=True, last_only=last_only, rngs=rngs
        )
        targets = batch.targets[:, -1:] if last_only else batch.targets
        weights = batch.weights[:, -1:] if last_only else batch.weights
        total, weight = self.loss_function(
            hidden.reshape(-1, self.width),
            self.items(params),
            targets.reshape(-1),
            weights.reshape(-1),
            loss_key,
            num_items=self.num_items,
        )
        weighted, sums = self._weigh_penalties(penalties, weights, step)
        return LossOutput(total + weighted, weight, {"ranking_loss": total, **sums})

    def _weigh_penalties(
        self, penalties: dict[str, Array], weights: Array, step: Array | int
    ) -> tuple[Array | float, dict[str, Array]]:
        """The penalties' part of the loss, and each penalty's sum over the positions, without its coefficient.

        Args:
          penalties: ``[B, L]`` by name.
          weights: ``[B, L]`` float32, or ``[B, 1]`` where the last position alone is trained.
          step: the optimizer step.

        Raises:
          ValueError: a penalty has no coefficient, or a coefficient no penalty.
        """
        coefficients = {penalty.name: penalty for penalty in self.penalties}
        if unknown := sorted(coefficients.keys() - penalties.keys()):
            raise ValueError(
                f"the attention {type(self.attention).__name__} does not give the penalty {unknown[0]!r}, for which the"
                f" model has a coefficient (it gives {', '.join(sorted(penalties)) or 'none'}); take it out of"
                " penalties, or turn it on in the attention"
            )
        total, sums = 0.0, {}
        for name, term in penalties.items():
            if name not in coefficients:
                raise ValueError(
                    f"the attention {type(self.attention).__name__} has the penalty {name!r}, for which the model"
                    f" has no coefficient; add Penalty({name!r}, coefficient) to its penalties"
                )
            sums[name] = jnp.sum(term[:, -weights.shape[1] :] * weights)
            total += coefficients[name].weight(step) * sums[name]
        return total, sums

    def query(self, params: Params, items: Array, key: PRNGKey) -> Array:
        """The last hidden state of each history: ``[B, D]`` float32, from ``items`` ``[B, L]``."""
        if not self.stochastic:
            hidden, _ = self.module.apply({"params": params}, items, train=False, last_only=True)
            return hidden[:, 0]

        def one_row(row: Array, row_key: PRNGKey) -> Array:
            latent, diffusion = jax.random.split(row_key)
            hidden, _ = self.module.apply(
                {"params": params},
                row[None],
                train=False,
                last_only=True,
                rngs={"latent": latent, "diffusion": diffusion},
            )
            return hidden[0, 0]

        return jax.vmap(one_row)(items, row_keys(key, items))

    def diagnose(self, params: Params, items: Array) -> dict[str, Array]:
        """Figures of the attention's inner life for the log: name and layer, such as ``active_units/0``.

        They are what the provider's ``diagnose`` makes of its intermediates; most providers have none.

        Args:
          params: parameters.
          items: ``[B, L]`` int32 histories to look at.
        """
        provider = getattr(self.attention, "diagnose", None)
        if provider is None:
            return {}
        names = ("latent", "diffusion")
        rngs = dict(zip(names, jax.random.split(jax.random.key(0), len(names)), strict=True))
        _, variables = self.module.apply(
            {"params": params}, items, train=False, rngs=rngs, mutable=["intermediates"]
        )
        sown: dict[tuple[str, ...], dict[str, Any]] = {}
        for path, value in flax.traverse_util.flatten_dict(variables["intermediates"]).items():
            sown.setdefault(path[:-1], {})[path[-1]] = value
        real = items != PADDING_ID
        layers = [
            provider(sown[path], real) for path in sorted(sown, key=lambda path: [(len(p), p) for p in path])
        ]
        figures = {}
        for number, layer in enumerate(filter(None, layers)):
            figures |= {f"{name}/{number}": value for name, value in layer.items()}
        return figures

    def items(self, params: Params) -> Array:
        """The item table ``[V, D]``."""
        return params["item_embedding"]["table"]


__all__ = ["EncoderRecommender", "Penalty", "SequenceEncoder"]

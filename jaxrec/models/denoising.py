"""What all denoising recommenders share: one noised target in, one loss; one reverse process out.

A model brings a network with two methods, ``encode(items) -> context`` (everything that depends on no
diffusion step) and ``denoise(context, x_t, t, ...) -> prediction``; training and sampling are here.
"""

import dataclasses
from collections.abc import Callable
from typing import Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxrec.batch import SequenceBatch, row_keys
from jaxrec.devices.item_table import take_rows
from jaxrec.devices.random_bits import counters, hash_normal, row_bernoulli, row_normal, row_uniform
from jaxrec.diffusion import (
    GaussianProcess,
    Noise,
    Sampler,
    Schedule,
    Trajectory,
    fold_key,
    split_key,
)
from jaxrec.losses import Loss
from jaxrec.recommender import LossOutput
from jaxrec.typing import Array, Params, PRNGKey

SMALLEST_SQUARE = 1e-12


@dataclasses.dataclass(frozen=True)
class Objective:
    """How a noised target is made in training. The defaults are DiffuRec's; the rest is our reading.

    A target that is plainly visible at small t gives the answer away: the loss looks fine and the samples are
    poor. The options are ways against it that leave the reverse process as it is.

    Attributes:
      prediction: what the network's output means: ``"x0"`` or ``"velocity"``, which wants a visible x_t. The noise
        is not offered: at the last steps x_0 from it is multiplied by 1/√ᾱ, about 1,000, and so are the logits.
      noise_power: t is drawn with probability ((t + 1)^(power + 1) − t^(power + 1)) / T^(power + 1); 0 is uniform,
        larger is noisier.
      target_dropout: share of the training targets whose x_t the network does not see (it sees 0), as the condition
        is hidden for classifier-free guidance (Ho and Salimans 2022).
      own_estimate: share of the training targets whose x_t is made from the model's own one-jump estimate
        (from N(0, I), without gradient) instead of the truth, as it is at inference. Costs one pass
        more, without gradient.
      self_conditioning: the network also sees its previous estimate of x_0; in training a first pass
        gives it half of the time (Chen et al. 2023, arXiv 2208.04202). Costs one pass more.
      history_loss: weight of the same loss on the history's own prediction, made without diffusion
        (history-cached form only).
      unit_scale: x_0, and each estimate on its way back into the process, is divided by the root mean square of its
        channels. The schedule is made for an x_0 as large as the noise. A table drawn from N(0, 1) is; the rows of a
        table that starts small and is decayed are many times smaller, and the estimates, normalised by their layer,
        many times larger than the rows: without it training sees next to nothing but noise at every step, and the
        reverse process something else.
    """

    prediction: Literal["x0", "velocity"] = "x0"
    noise_power: float = 0.0
    target_dropout: float = 0.0
    own_estimate: float = 0.0
    self_conditioning: bool = False
    history_loss: float = 0.0
    unit_scale: bool = False

    def __post_init__(self) -> None:
        if self.prediction not in ("x0", "velocity"):
            raise ValueError(f"prediction is {self.prediction!r}, but must be 'x0' or 'velocity'")
        for name in ("target_dropout", "own_estimate"):
            if not 0.0 <= getattr(self, name) <= 1.0:
                raise ValueError(f"{name} is {getattr(self, name)}, but must lie between 0 and 1")
        for name in ("noise_power", "history_loss"):
            if not 0.0 <= getattr(self, name) < float("inf"):
                raise ValueError(f"{name} is {getattr(self, name)}, but must be finite and not negative")


class DenoisingRecommender:
    """Base of the diffusion recommenders: ``init``, ``loss``, ``query`` and ``items`` of the protocol.

    A subclass is a frozen dataclass; it offers the attributes below as fields or properties.

    Attributes:
      num_items, max_length, loss_function: as in every recommender.
      target_positions: ``"last"`` (one target a window) or ``"all"``.
      schedule: of the forward process.
      sampler_kind, num_inference_steps, eta: of the reverse process, see ``Sampler``.
      noise: the forward process's ε.
      objective: how targets are noised in training.
      network: the Linen module, with ``encode`` and ``denoise``.
    """

    num_items: int
    max_length: int
    loss_function: Loss
    target_positions: Literal["all", "last"]
    schedule: Schedule
    sampler_kind: Literal["ddpm", "ddim"]
    num_inference_steps: int | None
    eta: float
    noise: Noise
    objective: Objective
    network: nn.Module

    @property
    def stochastic(self) -> bool:
        """A reverse process starts from random noise."""
        return True

    @property
    def process(self) -> GaussianProcess:
        """The forward process."""
        return GaussianProcess(self.schedule)

    @property
    def sampler(self) -> Sampler:
        """The reverse process."""
        return Sampler(self.process, self.sampler_kind, self.num_inference_steps, eta=self.eta)

    def init(self, key: PRNGKey) -> Params:
        """Fresh parameters, float32."""
        items = jnp.ones((1, self.max_length), jnp.int32)
        return self.network.init(key, items)["params"]

    def items(self, params: Params) -> Array:
        """The item table ``[V, D]``: x_0 of every item, and what the estimate is ranked by."""
        return params["item_embedding"]["table"]

    def loss(
        self, params: Params, batch: SequenceBatch, key: PRNGKey, *, step: Array | int = 0
    ) -> LossOutput:
        """Sums of the weighted loss of x̂_0 against the table; ``step`` is not used."""
        del step
        encode_key, target_key, loss_key, history_key = jax.random.split(key, 4)
        last = slice(-1, None) if self.target_positions == "last" else slice(None)
        targets, weights = batch.targets[:, last], batch.weights[:, last]
        context = self._encode(params, batch.items, encode_key)
        x0 = take_rows(self.items(params), targets)
        estimate = self._training_estimate(params, context, x0, batch.items.shape[1], target_key)

        def ranking_loss(queries: Array, ranking_key: PRNGKey) -> tuple[Array, Array]:
            return self.loss_function(
                queries, self.items(params), targets, weights, ranking_key, num_items=self.num_items
            )

        total, weight = ranking_loss(estimate, loss_key)
        metrics = {"ranking_loss": total}
        if self.objective.history_loss:
            history_total, _ = ranking_loss(context.states, history_key)
            metrics["history"] = history_total
            total += self.objective.history_loss * history_total
        return LossOutput(total, weight, metrics)

    def query(self, params: Params, items: Array, key: PRNGKey) -> Array:
        """The sampled x_0 of each history: ``[B, D]`` float32, on the scale of the process."""
        return self._reverse(self.sampler.sample, params, items, key)[:, 0]

    def trajectory(self, params: Params, items: Array, key: PRNGKey) -> Trajectory:
        """Every step of the same reverse process; ``x_t`` and ``x0_hat`` are ``[S, B, D]``."""
        steps = self._reverse(self.sampler.trajectory, params, items, key)
        return Trajectory(steps.timesteps, steps.x_t[:, :, 0], steps.x0_hat[:, :, 0])

    def _encode(self, params: Params, items: Array, key: PRNGKey | None) -> Any:
        """The network's context; in training if there is a key."""
        rngs = {} if key is None else {"dropout": key}
        arguments = {"train": key is not None, "rngs": rngs, "method": "encode"}
        return self.network.apply({"params": params}, items, **arguments)

    def _denoise(
        self, params: Params, context, x_t, t, normal, previous, key: PRNGKey | None, hidden=None
    ) -> Array:
        """The estimate of x_0 ``[B, N, D]``; in training if there is a key; the network sees no ``hidden`` x_t."""
        rngs = {} if key is None else {"dropout": key}
        seen = x_t if hidden is None else jnp.where(hidden, 0.0, x_t)
        prediction = self.network.apply(
            {"params": params},
            *(context, seen, t, normal, previous),
            train=key is not None,
            rngs=rngs,
            method="denoise",
        )
        return self.process.to_x0(prediction, x_t, t, self.objective.prediction)

    def _in_process(self, x0: Array) -> Array:
        """x_0, or an estimate of it, on the scale of the process."""
        if not self.objective.unit_scale:
            return x0
        x0 = x0.astype(jnp.float32)
        return x0 * jax.lax.rsqrt(jnp.mean(jnp.square(x0), axis=-1, keepdims=True) + SMALLEST_SQUARE)

    def _training_estimate(self, params: Params, context, x0: Array, length: int, key: PRNGKey) -> Array:
        """x̂_0 ``[B, N, D]`` of the targets ``x0`` ``[B, N, D]``, noised at random steps."""
        step_key, noise_key, hide_key, own_key, condition_key, pass_key = jax.random.split(key, 6)
        objective, (batch, count, width) = self.objective, x0.shape

        def estimate(x_t: Array, t: Array, previous: Array | None, one_key: PRNGKey, hidden=None) -> Array:
            normal_key, dropout_key = jax.random.split(one_key)
            normal = row_normal(normal_key, (batch, length, width))
            return self._denoise(params, context, x_t, t, normal, previous, dropout_key, hidden)

        x0 = self._in_process(x0)
        nothing = jnp.zeros_like(x0) if objective.self_conditioning else None
        t = self.process.draw_steps(step_key, (batch, count), objective.noise_power, draw=row_uniform)
        noise = self.noise.draw(noise_key, x0.shape, row_normal)
        if objective.own_estimate:
            noisiest = jnp.full_like(t, self.process.num_steps - 1)
            jump_key, start_key, choice_key = jax.random.split(own_key, 3)
            own = estimate(row_normal(start_key, x0.shape), noisiest, nothing, jump_key)
            chosen = row_bernoulli(choice_key, objective.own_estimate, (batch, count, 1))
            x0 = jnp.where(chosen, self._in_process(jax.lax.stop_gradient(own)), x0)
        x_t, hidden = self.process.corrupt(x0, t, noise), None
        if objective.target_dropout:
            hidden = row_bernoulli(hide_key, objective.target_dropout, (batch, count, 1))
        previous = nothing
        if objective.self_conditioning:
            first_key, choice_key = jax.random.split(condition_key)
            first = self._in_process(jax.lax.stop_gradient(estimate(x_t, t, nothing, first_key, hidden)))
            previous = jnp.where(row_bernoulli(choice_key, 0.5, (batch, count, 1)), first, nothing)
        return estimate(x_t, t, previous, pass_key, hidden)

    def _reverse(self, run: Callable[..., Any], params: Params, items: Array, key: PRNGKey) -> Any:
        """What a method of the sampler gives, one target a row; every draw is counted from the row's end."""
        sample_key, signal_key = split_key(row_keys(key, items))
        context = self._encode(params, items, None)
        width = self.items(params).shape[1]
        places = counters((items.shape[1], width))[::-1]

        def denoise(x_t: Array, t: Array, previous: Array | None = None) -> Array:
            normal = hash_normal(fold_key(signal_key, t), places)
            return self._in_process(self._denoise(params, context, x_t, t, normal, previous, None))

        conditioned = self.objective.self_conditioning
        return run(denoise, sample_key, (items.shape[0], 1, width), self_conditioning=conditioned)


__all__ = ["DenoisingRecommender", "Objective"]

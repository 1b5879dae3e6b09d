"""How close the maps of an attention provider can come to a given map (our reading of "expressive").

GenAtt (Liu et al. 2025, arXiv 2508.02050) says that generated attention is more expressive than query-key
attention; the measure used here is ours. A provider is fitted to one map with *free inputs*: the block's input
is a parameter like any other. So it is the family of maps that is measured, not what a network would learn of
it from data, nor whether the same parameters serve another history.
"""

import functools
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax

from jaxrec.nn.attention import AttentionOutput
from jaxrec.nn.attention_analysis import row_divergence
from jaxrec.nn.lags import configure
from jaxrec.nn.stochastic import Gaussian, WassersteinScores, positive
from jaxrec.typing import Array, Params, PRNGKey

NUM_HEADS = 2


class AttentionFit(NamedTuple):
    """The closest maps that were found.

    Attributes:
      weights: ``[..., L, L]`` float32.
      divergence: ``[..., L]`` float32, KL(target row || row) in nats.
    """

    weights: Array
    divergence: Array


class FreeInputs(nn.Module):
    """A provider over inputs that are parameters, for one history of L items.

    It has two heads, so that with D = 2C the queries and the keys of one head, both projections of the same
    inputs, can be any two ``[L, C]`` matrices.

    Attributes:
      provider: template of the attention provider.
      length: L.
      channels: C, of a head; the inputs are ``[1, L, 2C]``.
    """

    provider: nn.Module
    length: int
    channels: int

    @nn.compact
    def __call__(self) -> AttentionOutput:
        """The provider's output at inference, under the causal mask."""
        shape = (1, self.length, NUM_HEADS * self.channels)
        inputs = self.param("inputs", nn.initializers.normal(1.0), shape)
        if reads_gaussians(self.provider):
            covariance = self.param("covariance_inputs", nn.initializers.normal(1.0), shape)
            inputs = Gaussian(inputs, positive(covariance))
        fields = {"num_heads": NUM_HEADS, "max_length": self.length, "name": "scores", "parent": self}
        provider = configure(self.provider, **fields)
        mask = jnp.tril(jnp.ones((1, 1, self.length, self.length), bool))
        return provider(inputs, inputs, mask, train=False)


def reads_gaussians(provider: nn.Module) -> bool:
    """Whether a provider, or the base that it refines, attends between distributions."""
    return isinstance(getattr(provider, "base", provider), WassersteinScores)


def fit_attention(
    provider: nn.Module,
    targets: Array,
    *,
    channels: int,
    key: PRNGKey,
    num_steps: int = 500,
    learning_rate: float = 0.03,
) -> AttentionFit:
    """Fits a head of a provider to each of some causal maps, one apart from the other, by Adam.

    Minimises the mean of KL(target row || row); the step size falls to 0 along a cosine. A stochastic provider
    is fitted for one fixed draw. The result is a local minimum: an upper bound of how close the family comes.

    Args:
      provider: template, ``DotProduct()`` or another.
      targets: ``[..., L, L]``, each row a distribution over the keys up to itself.
      channels: C, of a head; for providers without queries and keys, 2C is the width of the inputs.
      key: draws the initial parameters and the noise of a stochastic provider.
      num_steps: how many steps Adam takes.
      learning_rate: at the start.

    Raises:
      ValueError: targets are not causal maps, or ``channels`` or ``num_steps`` is below 1.
    """
    if channels < 1 or num_steps < 1:
        raise ValueError(f"channels and num_steps must be at least 1, got {channels} and {num_steps}")
    targets = jnp.asarray(targets, jnp.float32)
    if targets.ndim < 2 or targets.shape[-1] != targets.shape[-2]:
        raise ValueError(f"targets are square maps [..., L, L], got the shape {targets.shape}")
    sums = jnp.sum(targets, axis=-1)
    if bool(jnp.any(jnp.triu(targets, 1) != 0) | jnp.any(targets < 0) | ~jnp.allclose(sums, 1.0, atol=1e-4)):
        raise ValueError("each row of a target must sum to 1 over the keys up to itself and be 0 after them")
    length = targets.shape[-1]
    module = FreeInputs(provider, length, channels)
    flat = targets.reshape(-1, length, length)
    weights = _fit(module, flat, key, num_steps, learning_rate).reshape(targets.shape)
    return AttentionFit(weights, row_divergence(targets, weights))


@functools.partial(jax.jit, static_argnums=0)
def _fit(module: FreeInputs, targets: Array, key: PRNGKey, num_steps: Array, learning_rate: Array) -> Array:
    """The fitted weights ``[N, L, L]`` of N targets."""
    optimizer = optax.adam(lambda step: 0.5 * learning_rate * (1.0 + jnp.cos(jnp.pi * step / num_steps)))
    names = ("params", "latent", "diffusion")

    def fit_one(target: Array, target_key: PRNGKey) -> Array:
        rngs = dict(zip(names, jax.random.split(target_key, len(names)), strict=True))

        def weights(params: Params) -> Array:
            return module.apply({"params": params}, rngs=rngs).weights[0, 0]

        def loss(params: Params) -> Array:
            return jnp.mean(row_divergence(target, weights(params)))

        def step(_, carry: tuple[Params, optax.OptState]) -> tuple[Params, optax.OptState]:
            params, state = carry
            updates, state = optimizer.update(jax.grad(loss)(params), state)
            return optax.apply_updates(params, updates), state

        params = module.init(rngs)["params"]
        params, _ = jax.lax.fori_loop(0, num_steps, step, (params, optimizer.init(params)))
        return weights(params)

    return jax.vmap(fit_one)(targets, jax.random.split(key, targets.shape[0]))


__all__ = ["AttentionFit", "FreeInputs", "fit_attention", "reads_gaussians"]

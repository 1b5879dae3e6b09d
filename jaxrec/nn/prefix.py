"""Summaries of prefixes: what a position knows of the items up to itself, and of nothing after them."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxrec.devices.products import dense
from jaxrec.typing import Array, Dtype, PRNGKey

LARGEST_MATRIX = 2**24
"""Numbers in the matrix of powers, for all channels together; beyond, the scan moves less memory."""
SMALLEST_REMAINDER = 1e-12


@functools.partial(jax.custom_vjp)
def linear_recurrence(decay: Array, inputs: Array) -> Array:
    """``state[i] = decay * state[i - 1] + inputs[i]`` along axis 1, from 0.

    By an associative scan; on accelerators, where its many small steps cost more than arithmetic, by a matrix of
    powers of the decay. The gradient is the same recurrence run backwards, which costs half of differentiating it.

    Args:
      decay: ``[D]``, in [0, 1].
      inputs: ``[B, L, D]``.

    Returns:
      ``[B, L, D]``.
    """
    return _run(decay, inputs, reverse=False)


def _run(decay: Array, inputs: Array, *, reverse: bool) -> Array:
    cells = inputs.shape[1] ** 2 * inputs.shape[2]
    by_matrix = jax.default_backend() != "cpu" and cells <= LARGEST_MATRIX
    return (_multiply if by_matrix else _scan)(decay, inputs, reverse=reverse)


def _multiply(decay: Array, inputs: Array, *, reverse: bool) -> Array:
    places = jnp.arange(inputs.shape[1])
    lags = places[:, None] - places[None, :]
    lags = -lags if reverse else lags
    powers = jnp.power(decay[:, None, None], jnp.maximum(lags, 0).astype(decay.dtype))
    return jnp.einsum("dlm,bmd->bld", jnp.where(lags >= 0, powers, 0.0), inputs, precision="highest")


def _scan(decay: Array, inputs: Array, *, reverse: bool) -> Array:
    def combine(left: tuple[Array, Array], right: tuple[Array, Array]) -> tuple[Array, Array]:
        return left[0] * right[0], left[1] * right[0] + right[1]

    decays = jnp.broadcast_to(decay, (1, *inputs.shape[1:]))
    return jax.lax.associative_scan(combine, (decays, inputs), reverse=reverse, axis=1)[1]


def _forward(decay: Array, inputs: Array) -> tuple[Array, tuple[Array, Array]]:
    states = _run(decay, inputs, reverse=False)
    return states, (decay, states)


def _backward(residuals: tuple[Array, Array], cotangent: Array) -> tuple[Array, Array]:
    decay, states = residuals
    inputs_cotangent = _run(decay, cotangent, reverse=True)
    return jnp.sum(inputs_cotangent[:, 1:] * states[:, :-1], axis=(0, 1)), inputs_cotangent


linear_recurrence.defvjp(_forward, _backward)


def half_life_initializer(shortest: float, longest: float):
    """Initialiser of decays as logits: half-lives between two numbers of items, evenly in the log."""

    def initialise(key: PRNGKey, shape: tuple[int, ...], dtype=jnp.float32) -> Array:
        del key
        half_lives = jnp.geomspace(shortest, longest, shape[-1], dtype=dtype)
        decay = 0.5 ** (1.0 / half_lives)
        return jnp.broadcast_to(jnp.log(decay) - jnp.log1p(-decay), shape)

    return initialise


class PrefixSummary(nn.Module):
    """The global vector of GenAtt made causal: own input, fading sum and plain mean of the prefix.

    Our reading of h_g = f(M) (GenAtt, figure; f is not published): position i gets

        h_i = W_1 x_i + √(1 − a²) Σ_j a^(i−j) W_2 x_j + mean_j W_3 x_j + b   over the items j ≤ i,

    with one learned decay a in (0, 1) a channel; the root gives independent inputs of variance 1 a fading sum
    of variance 1. Projecting first is the same as projecting the three joined, except that the decays belong
    to the channels of h, and is cheaper. Padding counts neither in the sums nor in the number of terms.

    Attributes:
      width: W, of the summary.
      shortest_half_life, longest_half_life: of the fading sum at the start, in items, over the channels.
      dtype: type of the projection and the result; the sums are float32.
    """

    width: int
    shortest_half_life: float = 1.0
    longest_half_life: float = 32.0
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, inputs: Array, real: Array) -> Array:
        """Summaries ``[B, L, W]`` of ``inputs`` ``[B, L, D]``; ``real`` ``[B, L]`` is False on padding."""
        initializer = half_life_initializer(self.shortest_half_life, self.longest_half_life)
        decay_logit = self.param("decay_logit", initializer, (self.width,))
        decay = nn.sigmoid(decay_logit)
        # 1 − a² from the logit itself: where a rounds to 1, the root of the difference has no finite gradient.
        remainder = jnp.maximum(-jnp.expm1(-2.0 * nn.softplus(-decay_logit)), SMALLEST_REMAINDER)
        bias = self.param("bias", nn.initializers.zeros, (self.width,))
        items = jnp.where(real[..., None], inputs, jnp.zeros((), inputs.dtype))
        projected = dense(3 * self.width, use_bias=False, dtype=self.dtype, name="project")(items)

        decays = jnp.concatenate([decay, jnp.ones_like(decay)])
        sums = linear_recurrence(decays, projected[..., self.width :].astype(jnp.float32))
        fading, total = jnp.split(sums, 2, axis=-1)
        counts = jnp.maximum(jnp.cumsum(real.astype(jnp.float32), axis=1), 1.0)
        summary = fading * jnp.sqrt(remainder) + total / counts[..., None] + bias
        return projected[..., : self.width] + summary.astype(self.dtype)


__all__ = ["PrefixSummary", "half_life_initializer", "linear_recurrence"]

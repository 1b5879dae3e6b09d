"""What attention maps look like: capture them from a fitted model, and measure rank, spread and divergence.

GenAtt (Liu et al. 2025, arXiv 2508.02050) claims that generated maps are more expressive than query-key maps,
being neither linear nor deterministic (published, abstract). How to put numbers to it is our reading:

* query-key logits are a product of ``[L, C]`` matrices, so no part of them has a rank above C;
* a stochastic provider has a variance over its draws;
* a family of maps comes closer or less close to a given map (``jaxrec.attention_fitting``).

N counts layers here, S samples.
"""

import functools
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import traverse_util

from jaxrec.batch import row_keys
from jaxrec.nn.lags import keys_to_profiles
from jaxrec.typing import Array, Params, PRNGKey

SMALLEST_WEIGHT = 1e-30


class AttentionMaps(NamedTuple):
    """The attention of a model for one history; samples, where drawn, are a leading axis of the last two.

    Attributes:
      items: ``[L]`` int32, the items that were read, oldest first: rows and columns of the maps.
      weights: ``[N, H, L, L]`` float32, rows over keys, zero at later items.
      logits: ``[N, H, L, L]`` float32, before mask and softmax.
    """

    items: Array
    weights: Array
    logits: Array


def capture_attention(
    recommender: Any, params: Params, history: Sequence[int], *, key: PRNGKey | None = None
) -> AttentionMaps:
    """The maps with which a fitted model reads a history, layer by layer and head by head.

    Random draws are those of ``recommender.query`` with the same key.

    Args:
      recommender: a model with a ``module`` of attention blocks, ``EncoderRecommender`` or ``StosaRecommender``.
      params: its parameters.
      history: item ids (1 to ``num_items``), oldest first; the newest ``max_length`` are read.
      key: random key, for a model that draws at inference.

    Raises:
      ValueError: the history is empty or has ids outside the catalogue, a stochastic model got no key, or the
        model has no attention.
    """
    if recommender.stochastic and key is None:
        raise ValueError(
            f"the attention {type(recommender.attention).__name__} draws at inference; pass key="
        )
    items = _checked_history(recommender, history)
    return _capture(recommender, params, items, jax.random.key(0) if key is None else key)


def sample_attention(
    recommender: Any, params: Params, history: Sequence[int], *, key: PRNGKey, num_samples: int
) -> AttentionMaps:
    """Independent draws of a stochastic model's maps: weights and logits ``[S, N, H, L, L]``.

    A model that does not draw at inference gives S times the same.

    Args:
      recommender, params, history: as in ``capture_attention``.
      key: split into one key a sample.
      num_samples: S.

    Raises:
      ValueError: as in ``capture_attention``, or ``num_samples`` is below 1.
    """
    if num_samples < 1:
        raise ValueError(f"num_samples is {num_samples}; ask for at least 1")
    items = _checked_history(recommender, history)
    keys = jax.random.split(key, num_samples)
    drawn = jax.lax.map(functools.partial(_capture, recommender, params, items), keys)
    return drawn._replace(items=jnp.asarray(items))


def _checked_history(recommender: Any, history: Sequence[int]) -> np.ndarray:
    if getattr(recommender, "module", None) is None:
        raise ValueError(f"{type(recommender).__name__} has no attention to capture")
    items = np.asarray(history, np.int32).reshape(-1)[-recommender.max_length :]
    if not len(items):
        raise ValueError("the history is empty; give at least one item")
    if items.min() < 1 or items.max() > recommender.num_items:
        raise ValueError(
            f"the history has items from {items.min()} to {items.max()}, but the catalogue's are 1 to "
            f"{recommender.num_items}; map external ids first"
        )
    return items


@functools.partial(jax.jit, static_argnames="recommender")
def _capture(recommender: Any, params: Params, items: Array, key: PRNGKey) -> AttentionMaps:
    rows = jnp.asarray(items)[None]
    latent, diffusion = jax.random.split(row_keys(key, rows)[0])
    _, variables = recommender.module.apply(
        {"params": params},
        rows,
        train=False,
        rngs={"latent": latent, "diffusion": diffusion},
        mutable=["intermediates"],
        capture_intermediates=lambda module, method: module.name == "scores" and method == "__call__",
    )
    found = traverse_util.flatten_dict(variables.get("intermediates", {}))
    outputs = {
        int(path[-4].rpartition("_")[2]): captured[0]
        for path, captured in found.items()
        if path[-3:] == ("attention", "scores", "__call__")
    }
    if not outputs:
        raise ValueError(f"{type(recommender).__name__} has no attention to capture")
    layers = [outputs[index] for index in sorted(outputs)]
    return AttentionMaps(
        items=rows[0],
        weights=jnp.concatenate([layer.weights for layer in layers]),
        logits=jnp.concatenate([layer.logits for layer in layers]),
    )


def sample_variance(samples: Array) -> Array:
    """Unbiased variance over draws: ``[...]`` from ``[S, ...]``; over the last axis of maps it adds up to
    the mean squared distance of a row from its mean.

    Raises:
      ValueError: there are fewer than 2 draws.
    """
    if samples.shape[0] < 2:
        raise ValueError(f"a variance needs at least 2 samples, got {samples.shape[0]}")
    return jnp.var(samples.astype(jnp.float32), axis=0, ddof=1)


def key_block(maps: Array) -> Array:
    """The newer half of the rows over the older half of the keys: ``[..., ⌈L/2⌉, ⌊L/2⌋]``.

    No entry of it is masked, so its rank says something: the triangle that causal attention uses has full
    rank as soon as its diagonal is not 0, whatever made it.
    """
    half = maps.shape[-1] // 2
    return maps[..., half:, :half]


def lag_block(maps: Array) -> Array:
    """The newer half of the rows over the lags that all of them have: ``[..., ⌈L/2⌉, ⌊L/2⌋]``, lag 0 last."""
    half = maps.shape[-1] // 2
    return keys_to_profiles(maps)[..., half:, maps.shape[-1] - half :]


def numeric_rank(matrices: Array, tolerance: float = 1e-4) -> Array:
    """How many singular values exceed ``tolerance`` times the largest: ``[...]`` int32 from ``[..., R, M]``.

    The default stands above the rounding of float32 products; a zero matrix has rank 0.
    """
    values = jnp.linalg.svd(matrices.astype(jnp.float32), compute_uv=False)
    return jnp.sum(values > tolerance * values[..., :1], axis=-1, dtype=jnp.int32)


def effective_rank(matrices: Array) -> Array:
    """exp of the entropy of the singular values, normalised to sum 1: ``[...]`` float32 from ``[..., R, M]``.

    Between 1 and the rank; n for n equal singular values (Roy and Vetterli 2007, "The effective rank").
    """
    values = jnp.linalg.svd(matrices.astype(jnp.float32), compute_uv=False)
    total = jnp.sum(values, axis=-1, keepdims=True)
    return jnp.exp(jnp.sum(jax.scipy.special.entr(values / jnp.where(total == 0.0, 1.0, total)), axis=-1))


def row_divergence(target: Array, weights: Array) -> Array:
    """KL(target row || row) of maps, in nats: ``[..., L]`` from two ``[..., L, L]``.

    Weights below 1e-30 count as 1e-30, so that a missed key costs much instead of everything; a row that is
    all 0 in the target (padding) gives 0.
    """
    target = target.astype(jnp.float32)
    logarithm = jnp.log(jnp.maximum(weights.astype(jnp.float32), SMALLEST_WEIGHT))
    return -jnp.sum(jax.scipy.special.entr(target) + target * logarithm, axis=-1)


__all__ = [
    "AttentionMaps",
    "capture_attention",
    "effective_rank",
    "key_block",
    "lag_block",
    "numeric_rank",
    "row_divergence",
    "sample_attention",
    "sample_variance",
]

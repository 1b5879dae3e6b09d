"""Full softmax cross-entropy over a catalogue, without ever holding every token's logits.

Two ways, both exact and both with their own gradient (``jax.custom_vjp``):

* **by tokens**, for moderate catalogues: blocks of tokens against the whole table. The gradient is
  made in the forward pass, while the block's probabilities are at hand: three matrix products.
* **by items**, for large catalogues: tiles of tokens × rows of the table. One pass finds each token's
  log-sum-exp, the backward pass makes the probabilities again: four matrix products, and memory that
  depends on neither the number of tokens nor the number of items.

Tokens of weight 0 (padding) are moved to the end and whole blocks of them are never computed.

Where the rows of the table are split over a mesh axis (``Plan.table_axis``), each device gathers the tokens of
all devices of the axis and compares them with its own rows. They exchange each token's maximum, sum and target
logit (one collective a block, or one in all by items), and the query's gradient goes back to the token's owner.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxrec.devices.item_table import add_to_owners, first_row, gather_tokens, held_rows, own_tokens
from jaxrec.devices.products import multiply_over
from jaxrec.losses.packing import Tokens, loop_blocks, pack, read_block, write_block
from jaxrec.typing import Array, Dtype


class Plan(NamedTuple):
    """How a full softmax is computed (hashable: static under jit).

    Attributes:
      num_items: rows 1 to ``num_items`` of the whole table are items, the others are masked.
      block: tokens of one block.
      chunk: rows of the table of one tile; ``None`` computes by tokens.
      dtype: type of the matrix products' operands; they are always summed in float32.
      table_axis: mesh axis over which the rows of the table are split in equal, consecutive parts.
    """

    num_items: int
    block: int
    chunk: int | None = None
    dtype: Dtype = np.float32
    table_axis: str | None = None


def _pack(plan: Plan, query: Array, targets: Array, weights: Array) -> Tokens:
    """The tokens in whole blocks: of all devices that share the table."""
    arrays = (query.astype(plan.dtype), targets, weights)
    return pack(*(gather_tokens(plan.table_axis, array) for array in arrays), plan.block, plan.dtype)


def _logits(plan: Plan, query: Array, rows: Array, first: Array | int) -> Array:
    """``[T, R]`` float32 scores of rows ``first`` and following; -inf where a row is no item."""
    ids = first + jnp.arange(rows.shape[0])
    real = (ids >= 1) & (ids <= plan.num_items)
    return jnp.where(real, multiply_over(query, rows, (1, 1)), -jnp.inf)


def _target_rows(plan: Plan, tokens: Tokens, table: Array) -> tuple[Array, Array]:
    """Rows of the targets ``[P, Q]``, zeros where another device holds them, and where they stand here."""
    rows, places = held_rows(plan.table_axis, table, tokens.targets)
    return rows.astype(plan.dtype), places


def _target_logits(plan: Plan, tokens: Tokens, table: Array) -> Array:
    """``[P]`` float32; 0 where another device holds the target."""
    rows, _ = _target_rows(plan, tokens, table)
    return jnp.sum(tokens.query.astype(jnp.float32) * rows.astype(jnp.float32), axis=-1)


def _over_all_rows(plan: Plan, peaks: Array, totals: Array, targets: Array) -> tuple[Array, Array, Array]:
    """From what this device's rows give to what the whole table gives, for tokens ``[T]``.

    Args:
      plan: names the axis.
      peaks: largest logit; -inf where no row is an item.
      totals: sum of the exponentials of logit − peak.
      targets: logit of the target, 0 if it is not here.

    Returns:
      log-sum-exps; sums of the exponentials of logit − ``peaks`` (this device's); logits of the targets. All
      are finite or, the second, +inf where this device's rows do not matter.
    """
    if plan.table_axis is None:
        return _log(totals) + _finite(peaks), totals, targets
    parts = jax.lax.all_gather(jnp.stack([peaks, totals, targets]), plan.table_axis)
    peak = jnp.max(parts[:, 0], axis=0)
    total = jnp.sum(parts[:, 1] * jnp.exp(parts[:, 0] - _finite(peak)), axis=0)
    return _log(total) + _finite(peak), total / jnp.exp(peaks - _finite(peak)), jnp.sum(parts[:, 2], axis=0)


def _finite(peaks: Array) -> Array:
    """Maxima with 0 for -inf (no item among the rows), which must not make NaN."""
    return jnp.where(jnp.isfinite(peaks), peaks, 0.0)


def _log(totals: Array) -> Array:
    """Logarithms, 0 for a sum of nothing (a token that is not used, but must be finite)."""
    return jnp.where(totals > 0, jnp.log(jnp.where(totals > 0, totals, 1.0)), 0.0)


def _subtract_targets(
    plan: Plan,
    tokens: Tokens,
    coefficients: Array,
    table: Array,
    query_gradient: Array,
    table_gradient: Array,
) -> tuple[Array, Array]:
    """The gradient of minus the targets' logits, added to that of the log-sum-exp (this device's part)."""
    rows, places = _target_rows(plan, tokens, table)
    query_gradient -= coefficients[:, None] * rows.astype(jnp.float32)
    scaled = coefficients[:, None] * tokens.query.astype(jnp.float32)
    return query_gradient, table_gradient.at[places].add(-scaled, mode="drop")


def _unpack(plan: Plan, tokens: Tokens, gradient: Array, like: Array) -> Array:
    """The query's gradient, added over the devices, in the caller's order and type."""
    return add_to_owners(plan.table_axis, gradient[tokens.places]).astype(like.dtype)


# --- by tokens -------------------------------------------------------------------------------------


def _by_tokens(
    plan: Plan, query: Array, table: Array, targets: Array, weights: Array, with_gradient: bool
) -> tuple[Array, tuple[Array, Array] | None]:
    """Each token's loss ``[N]`` and, if asked, the gradients of the weighted sum for query and table."""
    tokens = _pack(plan, query, targets, weights)
    compute_table = table.astype(plan.dtype)
    first = first_row(plan.table_axis, table)
    target_logits = _target_logits(plan, tokens, compute_table)

    def step(index, carry):
        losses, gradients = carry
        part = read_block(tokens.query, index, plan.block)
        logits = _logits(plan, part, compute_table, first)
        peak = jnp.max(logits, axis=-1)
        exponentials = jnp.exp(logits - _finite(peak)[:, None])
        own = read_block(target_logits, index, plan.block)
        log_sum, total, target = _over_all_rows(plan, peak, jnp.sum(exponentials, axis=-1), own)
        losses = write_block(losses, log_sum - target, index)
        if with_gradient:
            # The normaliser is applied to the narrow operands, never to the wide matrix.
            exponentials = exponentials.astype(plan.dtype)
            scale = (read_block(tokens.weights, index, plan.block) / total)[:, None]
            to_query = multiply_over(exponentials, compute_table, (1, 0)) * scale
            scaled = (part.astype(jnp.float32) * scale).astype(plan.dtype)
            to_table = multiply_over(exponentials, scaled, (0, 0))
            gradients = (write_block(gradients[0], to_query, index), gradients[1] + to_table)
        return losses, gradients

    zeros = jnp.zeros(tokens.weights.shape, jnp.float32)
    gradients = None
    if with_gradient:
        gradients = (jnp.zeros(tokens.query.shape, jnp.float32), jnp.zeros(table.shape, jnp.float32))
    losses, gradients = loop_blocks(tokens, step, (zeros, gradients))
    losses = own_tokens(plan.table_axis, losses[tokens.places])
    if with_gradient:
        to_query, to_table = _subtract_targets(plan, tokens, tokens.weights, compute_table, *gradients)
        gradients = (_unpack(plan, tokens, to_query, query), to_table.astype(table.dtype))
    return losses, gradients


# --- by items --------------------------------------------------------------------------------------


def _chunk_of(plan: Plan, table: Array, index: Array | int) -> tuple[Array, Array]:
    """Rows of chunk ``index`` of the table, ``[chunk, Q]`` in the plan's dtype, and the first one's place, int32.

    The last chunk is shifted back to lie inside the table; ``_chunk_logits`` turns off the rows that the chunk
    before it already covered.
    """
    start = jnp.minimum(index * plan.chunk, table.shape[0] - plan.chunk)
    rows = jax.lax.dynamic_slice_in_dim(table, start, plan.chunk).astype(plan.dtype)
    return rows, start


def _chunk_logits(plan: Plan, part: Array, table: Array, rows: Array, start: Array, index: Array) -> Array:
    """``[block, chunk]`` float32 scores of a block of tokens; -inf for rows of the chunk before, and for no items."""
    logits = _logits(plan, part, rows, first_row(plan.table_axis, table) + start)
    return jnp.where(start + jnp.arange(plan.chunk) >= index * plan.chunk, logits, -jnp.inf)


def _peaks_and_totals(plan: Plan, tokens: Tokens, table: Array) -> tuple[Array, Array]:
    """``[P]`` float32 each, by a running maximum and sum over the chunks (Milakov, Gimelshein 2018)."""

    def chunk_step(index, carry):
        rows, start = _chunk_of(plan, table, index)

        def block_step(block, carry):
            peaks, totals = carry
            logits = _chunk_logits(
                plan, read_block(tokens.query, block, plan.block), table, rows, start, index
            )
            old = read_block(peaks, block, plan.block)
            peak = jnp.maximum(old, jnp.max(logits, axis=-1))
            base = _finite(peak)
            total = read_block(totals, block, plan.block) * jnp.exp(old - base)
            total += jnp.sum(jnp.exp(logits - base[:, None]), axis=-1)
            return write_block(peaks, peak, block), write_block(totals, total, block)

        return loop_blocks(tokens, block_step, carry)

    shape = tokens.weights.shape
    carry = jnp.full(shape, -jnp.inf, jnp.float32), jnp.zeros(shape, jnp.float32)
    return jax.lax.fori_loop(0, -(-table.shape[0] // plan.chunk), chunk_step, carry)


def _gradients_by_items(
    plan: Plan, query: Array, table: Array, targets: Array, weights: Array, sums: Array, cotangent: Array
) -> tuple[Array, Array]:
    """Gradients for query and table from the log-sum-exps ``[P]``, the logits being made again."""
    tokens = _pack(plan, query, targets, weights)
    coefficients = tokens.weights * cotangent

    def chunk_step(index, carry):
        to_query, to_table = carry
        rows, start = _chunk_of(plan, table, index)

        def block_step(block, carry):
            to_query, to_rows = carry
            part = read_block(tokens.query, block, plan.block)
            logits = _chunk_logits(plan, part, table, rows, start, index)
            probabilities = jnp.exp(logits - read_block(sums, block, plan.block)[:, None]).astype(plan.dtype)
            scale = read_block(coefficients, block, plan.block)[:, None]
            scaled = (part.astype(jnp.float32) * scale).astype(plan.dtype)
            new = read_block(to_query, block, plan.block) + multiply_over(probabilities, rows, (1, 0)) * scale
            return write_block(to_query, new, block), to_rows + multiply_over(probabilities, scaled, (0, 0))

        start_rows = jax.lax.dynamic_slice_in_dim(to_table, start, plan.chunk)
        to_query, to_rows = loop_blocks(tokens, block_step, (to_query, start_rows))
        return to_query, jax.lax.dynamic_update_slice_in_dim(to_table, to_rows, start, 0)

    carry = jnp.zeros(tokens.query.shape, jnp.float32), jnp.zeros(table.shape, jnp.float32)
    carry = jax.lax.fori_loop(0, -(-table.shape[0] // plan.chunk), chunk_step, carry)
    to_query, to_table = _subtract_targets(plan, tokens, coefficients, table, *carry)
    return _unpack(plan, tokens, to_query, query), to_table.astype(table.dtype)


def _by_items(plan: Plan, query: Array, table: Array, targets: Array, weights: Array) -> tuple[Array, Array]:
    """Each token's loss ``[N]`` and the log-sum-exps ``[P]`` that the backward pass needs."""
    tokens = _pack(plan, query, targets, weights)
    peaks, totals = _peaks_and_totals(plan, tokens, table)
    sums, _, target_logits = _over_all_rows(plan, peaks, totals, _target_logits(plan, tokens, table))
    return own_tokens(plan.table_axis, (sums - target_logits)[tokens.places]), sums


# --- both ------------------------------------------------------------------------------------------


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def softmax_cross_entropy(plan: Plan, query: Array, table: Array, targets: Array, weights: Array) -> Array:
    """The sum over tokens of weight · −log softmax(query · items)[target], a float32 scalar.

    Where ``plan.table_axis`` is set, the tokens are this device's, as is their sum; its cotangent must be the
    same on all devices of the axis.

    Args:
      plan: how to compute it; ``plan.chunk`` is at most the rows of ``table``.
      query: ``[N, Q]``.
      table: ``[V, Q]``, or this device's rows of it if ``plan.table_axis`` is set.
      targets: ``[N]`` int32 ids of the whole table.
      weights: ``[N]`` float32.
    """
    return _forward(plan, query, table, targets, weights, with_gradient=False)[0]


def _forward(plan, query, table, targets, weights, with_gradient=True):
    """The weighted sum, a float32 scalar, and what ``_backward`` needs: each token's loss ``[N]`` and a residual.

    The residual is, by tokens, the gradients for query ``[N, Q]`` and table ``[V, Q]`` (``None`` without
    ``with_gradient``); by items, the arguments and the log-sum-exps ``[P]``.
    """
    if plan.chunk is None:
        losses, residual = _by_tokens(plan, query, table, targets, weights, with_gradient)
    else:
        losses, sums = _by_items(plan, query, table, targets, weights)
        residual = (query, table, targets, weights, sums)
    losses = jnp.where(weights != 0, losses, 0.0)
    return jnp.sum(weights * losses), (losses, residual)


def _backward(plan, saved, cotangent):
    """Gradients for query ``[N, Q]``, table ``[V, Q]``, targets (none) and weights ``[N]``, times a scalar."""
    losses, residual = saved
    if plan.chunk is None:
        to_query, to_table = ((gradient * cotangent).astype(gradient.dtype) for gradient in residual)
    else:
        to_query, to_table = _gradients_by_items(plan, *residual, cotangent)
    return to_query, to_table, None, losses * cotangent


softmax_cross_entropy.defvjp(_forward, _backward)

__all__ = ["Plan", "softmax_cross_entropy"]

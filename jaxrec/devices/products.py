"""Matrix products of bfloat16 operands, summed in float32, as each platform is fast at them.

GPUs and TPUs multiply bfloat16 operands and give bfloat16. XLA's CPU backend turns a product that gives bfloat16 into
one of float32; only one that gives float32 runs on the matrix units of a processor that has them (AMX), several
times as fast, and only if its left operand lies in memory row by row. So on a CPU a module that computes in
bfloat16 rounds the operands of its products and nothing else: what lies between them stays float32, which there
costs less than the conversions, and the left operands of the gradient's products are turned over first.
"""

import math
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.experimental.layout import Layout, with_layout_constraint

from jaxrec.typing import Array, Dtype


def rounds_operands(dtype: Dtype) -> bool:
    """Whether, for this compute type and device, operands are rounded and all else is float32."""
    return jnp.dtype(dtype) == jnp.bfloat16 and jax.default_backend() == "cpu"


def dense(features: int, *, dtype: Dtype, **options: Any) -> nn.Dense:
    """``flax.linen.Dense`` that computes in ``dtype``; see the module for what that means on a CPU."""
    return nn.Dense(features, **_computing_in(dtype), **options)


def dense_general(features: int | tuple[int, ...], *, dtype: Dtype, **options: Any) -> nn.DenseGeneral:
    """``flax.linen.DenseGeneral`` over trailing axes, as ``dense``."""
    return nn.DenseGeneral(features, **_computing_in(dtype), **options)


def _computing_in(dtype: Dtype) -> dict[str, Any]:
    if not rounds_operands(dtype):
        return {"dtype": dtype}
    return {"dtype": jnp.float32, "dot_general": _rounded_dot_general}


def multiply(inputs: Array, kernel: Array, dtype: Dtype) -> Array:
    """``inputs`` ``[..., K]`` times ``kernel`` ``[K, M]``, as a ``dense`` without bias."""
    if not rounds_operands(dtype):
        return inputs.astype(dtype) @ kernel.astype(dtype)
    rows = inputs.reshape(-1, inputs.shape[-1]).astype(jnp.float32)
    return _rounded_product(rows, kernel.astype(jnp.float32)).reshape(*inputs.shape[:-1], -1)


def multiply_over(left: Array, right: Array, over: tuple[int, int]) -> Array:
    """A product of two matrices of one type over the named axis (0 or 1) of each, summed in float32.

    ``[N, K]`` and ``[K, M]`` over ``(1, 0)`` give ``[N, M]`` float32; ``[K, N]`` is taken over 0, ``[M, K]`` over 1.
    """
    if over[0] == 0 and rounds_operands(left.dtype):
        left, over = _turned(left), (1, over[1])
    dimensions = (((over[0],), (over[1],)), ((), ()))
    return jax.lax.dot_general(left, right, dimensions, preferred_element_type=jnp.float32)


def _turned(matrix: Array) -> Array:
    """The transpose, lying in memory row by row: the compiler would else make it part of the product again."""
    return with_layout_constraint(matrix.T, Layout(major_to_minor=(0, 1)))


@jax.custom_vjp
def _rounded_product(left: Array, right: Array) -> Array:
    """``[N, K]`` times ``[K, M]``, float32, of operands rounded to bfloat16; so are its gradient's products."""
    return multiply_over(left.astype(jnp.bfloat16), right.astype(jnp.bfloat16), (1, 0))


def _forward(left: Array, right: Array) -> tuple[Array, tuple[Array, Array]]:
    left, right = left.astype(jnp.bfloat16), right.astype(jnp.bfloat16)
    return multiply_over(left, right, (1, 0)), (left, right)


def _backward(operands: tuple[Array, Array], gradient: Array) -> tuple[Array, Array]:
    left, right = operands
    gradient = gradient.astype(jnp.bfloat16)
    return multiply_over(gradient, right, (1, 1)), multiply_over(left, gradient, (0, 0))


_rounded_product.defvjp(_forward, _backward)


def _rounded_dot_general(inputs: Array, kernel: Array, dimensions: Any, precision: Any = None) -> Array:
    """What ``flax.linen`` asks of a product: the trailing axes of ``inputs`` with the leading ones of ``kernel``."""
    del precision
    count = len(dimensions[0][1])
    shape = (*inputs.shape[: inputs.ndim - count], *kernel.shape[count:])
    size = math.prod(kernel.shape[:count])
    return _rounded_product(inputs.reshape(-1, size), kernel.reshape(size, -1)).reshape(shape)


__all__ = ["dense", "dense_general", "multiply", "multiply_over", "rounds_operands"]

"""Matrix products in 8-bit floats, experimental: e4m3 forward, e5m2 backward, a scale a tensor.

The forward pass needs precision (e4m3: 4 significant bits, up to 448), gradients need range (e5m2:
3 significant bits, up to 57344). Each tensor is first brought to that range by a power of two,
which itself rounds nothing, and products are summed in float32. Where the device has no 8-bit
units (a CPU) the compiler widens the same 8-bit numbers, so results differ only in summation order.
"""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

Dimensions = tuple[tuple[tuple[int, ...], tuple[int, ...]], tuple[tuple[int, ...], tuple[int, ...]]]


def quantize_fp8(x: jax.Array, dtype: Any) -> tuple[jax.Array, jax.Array]:
    """Bring a tensor to the range of an 8-bit float by a power of two, and round it.

        s = 2^⌊log₂(largest/max|x|)⌋,  q = round(s·x)

    Args:
      x: any shape, a float of at least 16 bits.
      dtype: `jnp.float8_e4m3fn` or `jnp.float8_e5m2`.

    Returns:
      `(q, s)`: q in `dtype` with the shape of x, s a float32 scalar; x ≈ q/s. Numbers that are
      not finite stay so (e4m3 has only NaN), and s is then 1.
    """
    largest = float(jnp.finfo(dtype).max)
    wide = x.astype(jnp.float32)
    peak = jnp.max(jnp.abs(wide), initial=0)
    # frexp is exact where log2 may round: largest/peak = mantissa·2^exponent with ½ ≤ mantissa < 1.
    # The peak is kept at 2⁻¹⁰⁰ or above, so that neither s nor its inverse leaves float32.
    _, exponent = jnp.frexp(largest / jnp.maximum(peak, np.float32(2.0**-100)))
    usable = jnp.isfinite(peak) & (peak > 0)
    scale = jnp.where(usable, jnp.ldexp(jnp.float32(1), exponent - 1), 1.0)
    return (wide * scale).astype(dtype), scale


def fp8_dot(lhs: jax.Array, rhs: jax.Array) -> jax.Array:
    """The matrix product `lhs @ rhs` in 8-bit floats, for float arrays of the same dtype.

    Args:
      lhs: `[…, K]` float.
      rhs: `[K, M]` float of the same dtype.

    Returns:
      `[…, M]` in that dtype. Differentiable once, by reverse mode; see `fp8_dot_general`.
    """
    return fp8_dot_general(lhs, rhs, (((lhs.ndim - 1,), (0,)), ((), ())))


def fp8_dot_general(
    lhs: jax.Array,
    rhs: jax.Array,
    dimension_numbers: Any,
    precision: Any = None,
    preferred_element_type: Any = None,
    out_sharding: Any = None,
) -> jax.Array:
    """`jax.lax.dot_general` in 8-bit floats; `nn.Dense(…, dot_general=fp8_dot_general)` takes it.

    Forward: both operands in e4m3. Backward: the incoming gradient in e5m2 against the e4m3
    operands, which are what is kept between the two: one byte an entry.

    Args:
      lhs: float array of at least 16 bits.
      rhs: float array of at least 16 bits.
      dimension_numbers: `((lhs_contract, rhs_contract), (lhs_batch, rhs_batch))`.
      precision: ignored; there is only one.
      preferred_element_type: dtype of the result, by default that of `lhs`.
      out_sharding: must be `None`.

    Returns:
      As `jax.lax.dot_general`. Relative error per product is about 2⁻⁴ at most in each operand.

    Raises:
      ValueError: `out_sharding` is given.

    Reference: Paulius Micikevicius et al., "FP8 Formats for Deep Learning", 2022, for the formats
      and their places; it leaves the scales to software, and powers of two are ours.
    """
    del precision
    if out_sharding is not None:
        raise ValueError(f"fp8_dot_general: out_sharding is {out_sharding}; it must be None")
    (lhs_contract, rhs_contract), (lhs_batch, rhs_batch) = dimension_numbers
    dimensions = (
        (tuple(lhs_contract), tuple(rhs_contract)),
        (tuple(lhs_batch), tuple(rhs_batch)),
    )
    out: jax.Array = _product(lhs, rhs, dimensions)
    return out.astype(preferred_element_type or lhs.dtype)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def _product(lhs, rhs, dimensions: Dimensions) -> Any:
    """float32 product of two arrays that are rounded to e4m3."""
    return _forward(lhs, rhs, dimensions)[0]


def _forward(lhs, rhs, dimensions: Dimensions):
    left, right = quantize_fp8(lhs, jnp.float8_e4m3fn), quantize_fp8(rhs, jnp.float8_e4m3fn)
    # Empty arrays carry the operands' dtypes to the backward pass, where cotangents need them.
    dtypes = jnp.zeros((0,), lhs.dtype), jnp.zeros((0,), rhs.dtype)
    return _scaled_dot(left, right, dimensions), (left, right, dtypes)


def _backward(dimensions: Dimensions, residuals, gradient):
    left, right, (lhs_dtype, rhs_dtype) = residuals
    incoming = quantize_fp8(gradient, jnp.float8_e5m2)
    (lhs_contract, rhs_contract), (lhs_batch, rhs_batch) = dimensions
    d_lhs = _transpose(incoming, right, dimensions, left[0].ndim, gradient_first=True)
    swapped = (rhs_contract, lhs_contract), (rhs_batch, lhs_batch)
    d_rhs = _transpose(incoming, left, swapped, right[0].ndim, gradient_first=False)
    return d_lhs.astype(lhs_dtype.dtype), d_rhs.astype(rhs_dtype.dtype)


_product.defvjp(_forward, _backward)


def _transpose(gradient, other, dimensions: Dimensions, ndim: int, *, gradient_first: bool):
    """Cotangent of one operand, "this", from the result's gradient and the other operand.

    The result's axes are (batch, free axes of lhs, free axes of rhs). The other's free axes are
    summed with their place in the result; what comes out is (batch, this's free axes, the other's
    contracted axes in the other's order), and is put back into this's order.

    Args:
      gradient: `(q, s)` of the result's gradient.
      other: `(q, s)` of the other operand.
      dimensions: dimension numbers with "this" first.
      ndim: axes of this.
      gradient_first: whether this is `lhs`, whose free axes come first in the result.
    """
    (contract, other_contract), (batch, other_batch) = dimensions
    free = _remaining(ndim, contract, batch)
    other_free = _remaining(other[0].ndim, other_contract, other_batch)
    result_batch = tuple(range(len(batch)))
    start = len(batch) + (len(free) if gradient_first else 0)
    summed = tuple(range(start, start + len(other_free)))
    product = _scaled_dot(gradient, other, ((summed, other_free), (result_batch, other_batch)))
    by_other = sorted(range(len(contract)), key=lambda i: other_contract[i])
    order = (*batch, *free, *(contract[i] for i in by_other))
    return jnp.transpose(product, [order.index(axis) for axis in range(ndim)])


def _scaled_dot(left, right, dimensions: Dimensions):
    product = jax.lax.dot_general(left[0], right[0], dimensions, preferred_element_type=jnp.float32)
    return product / left[1] / right[1]


def _remaining(ndim: int, *taken: tuple[int, ...]) -> tuple[int, ...]:
    gone = {axis for axes in taken for axis in axes}
    return tuple(axis for axis in range(ndim) if axis not in gone)

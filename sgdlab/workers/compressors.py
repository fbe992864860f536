"""Compressors: what is left of a message when fewer bits may travel. Each leaf is one tensor."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from sgdlab.arguments import read_arguments
from sgdlab.workers.table import COMPRESSORS


class Compressor(NamedTuple):
    """A map C from a message to what the server decodes.

    Attributes:
      compress: `compress(message, key) -> message` with the same structure, shapes and dtypes; the
        key is consumed where the compressor draws, and may be `None` elsewhere.
      needs_key: whether it draws.
      scales: whether C(ηp) = ηC(p) for every η > 0.
    """

    compress: Callable[[Any, jax.Array | None], Any]
    needs_key: bool = False
    scales: bool = True


@read_arguments(COMPRESSORS["top_k"])
def top_k(fraction: float | None = None, k: int | None = None) -> Compressor:
    """Keep the k entries of largest magnitude in every leaf, zero the others.

    Args:
      fraction: share of a leaf's entries to keep, in (0, 1], to the nearest number; at least one.
      k: how many entries of a leaf to keep (all, where the leaf has fewer). Give exactly one.

    Returns:
      A deterministic `Compressor` that keeps exactly k positions; of equal magnitudes those that
      stand first.

    Raises:
      ValueError: both or neither are given, or the one given is out of range.

    Reference: Alham Fikri Aji and Kenneth Heafield, "Sparse Communication for Distributed Gradient
      Descent", 2017, of which its title was found, and implementations that cite it: they take the
      k largest of a tensor, as here.
    """
    if (fraction is None) == (k is None):
        raise ValueError(f"top_k: fraction is {fraction} and k is {k}; give exactly one of the two")

    def kept(size: int) -> int:
        wanted = round(fraction * size) if fraction is not None else k or 0
        return min(max(wanted, 1), size)

    def leaf(x, _):
        flat = x.reshape(-1)
        if flat.size == 0:
            return x
        _, largest = jax.lax.top_k(jnp.abs(flat), kept(flat.size))
        return jnp.zeros_like(flat).at[largest].set(flat[largest]).reshape(x.shape)

    return Compressor(lambda message, key: _map_leaves(leaf, message, key))


def sign() -> Compressor:
    """Send only the signs: C(p) = sign(p), with sign(0) = 0; what is not finite stays as it is.

    Returns:
      A deterministic `Compressor`. Biased: without error feedback it can converge to the wrong
      point however small the learning rate.

    Reference: Jeremy Bernstein et al., "signSGD: Compressed Optimisation for Non-Convex Problems",
      2018.
    """

    def leaf(p, _):
        # The sign of an overflow would pass for a gradient, and spoil the error feedback unseen.
        return jnp.where(jnp.isfinite(p), jnp.sign(p), p)

    return Compressor(lambda message, key: _map_leaves(leaf, message, key), scales=False)


def scaled_sign() -> Compressor:
    """Send the signs and one magnitude for each leaf: C(p) = (‖p‖₁/d)·sign(p), d its entries.

    Returns:
      A deterministic `Compressor`; with error feedback it converges like SGD.

    Reference: Sai Praneeth Karimireddy et al., "Error Feedback Fixes SignSGD and other Gradient
      Compression Schemes", 2019, Algorithm 1.
    """

    def leaf(p, _):
        return jnp.mean(jnp.abs(p)) * jnp.sign(p)

    return Compressor(lambda message, key: _map_leaves(leaf, message, key))


@read_arguments(COMPRESSORS["quantize"])
def quantize(bits: int) -> Compressor:
    """Round every entry at random to one of 2s + 1 levels, without bias: E[C(p)] = p.

        C(p) = (m/s)·sign(p)·⌊s|p|/m + U⌋,  U ~ Uniform[0, 1),  m = max|p| over the leaf,
        s = 2^(bits−1) − 1 (one bit is the sign)

    With 2 bits these are the three levels −m, 0, m of TernGrad.

    Args:
      bits: bits of an entry, 2 to 16.

    Returns:
      A `Compressor` that needs a key. Its error is below m/s, its variance at most (m/2s)², for
      every entry.

    Raises:
      ValueError: `bits` is not an integer from 2 to 16.

    Reference: Dan Alistarh et al., "QSGD: Communication-Efficient SGD via Gradient Quantization and
      Encoding", 2017, with the maximum in place of the Euclidean norm; Wei Wen et al., "TernGrad",
      2017.
    """
    levels = 2 ** (bits - 1) - 1

    def leaf(p, key):
        wide = p.astype(wide_dtype(p.dtype))
        largest = jnp.max(jnp.abs(wide), initial=0)
        unit = jnp.where(largest > 0, largest, 1.0) / levels
        uniform = jax.random.uniform(key, wide.shape, wide.dtype)
        magnitude = jnp.minimum(jnp.floor(jnp.abs(wide) / unit + uniform), levels)
        return (unit * jnp.sign(wide) * magnitude).astype(p.dtype)

    return Compressor(lambda message, key: _map_leaves(leaf, message, key), needs_key=True)


def _map_leaves(compress_leaf, message, key):
    """Apply `compress_leaf(leaf, key)` to every leaf, the j-th with `fold_in(key, j)`."""
    leaves, structure = jax.tree.flatten(message)
    keys = [None if key is None else jax.random.fold_in(key, j) for j in range(len(leaves))]
    return jax.tree.unflatten(structure, map(compress_leaf, leaves, keys))


def wide_dtype(dtype):
    """float32 for a 16-bit float, the dtype itself otherwise."""
    return jnp.dtype(jnp.float32) if jnp.finfo(dtype).bits < 32 else dtype

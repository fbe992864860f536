"""The noisy quadratic: the task on which theory can be checked."""

from __future__ import annotations

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from sgdlab.tasks.definition import Task
from sgdlab.tasks.losses import at_least_float32

Vector = float | Sequence[float] | np.ndarray


def quadratic(
    curvature: Vector,
    noise: float = 0.0,
    start: Vector = 1.0,
    targets: Sequence[Sequence[float]] | np.ndarray | None = None,
) -> Task:
    """A quadratic bowl with independent coordinates and Gaussian gradient noise.

        f(w) = ½ Σᵢ λᵢ (wᵢ − cᵢ)² + σ ξ·w,   ξ ~ N(0, I/B),   ∇f = λ ⊙ (w − c) + σ ξ

    so a coordinate of a minibatch gradient has variance σ²/B around its mean. The parameters are
    one array w, not a dict. c is 0, or the mean of the batch's rows of `targets`: workers that
    hold different rows then pull to different places.

    Args:
      curvature: λ, a number or `[d]`.
      noise: σ ≥ 0, the standard deviation of the gradient of one row.
      start: w₀, a number or `[d]`.
      targets: `[n, d]`, the rows of the training data, or `None`: c = 0. Row i has label i, so
        `by_label(1)` gives every worker targets of its own.

    Returns:
      A `Task`; its metric "distance" is ‖w − c‖₂, and its test loss is taken at the mean of all
      targets and has no noise.

    Raises:
      ValueError: shapes don't agree, a number is not finite, or `noise` is negative.
    """
    if not (np.isfinite(noise) and noise >= 0):
        raise ValueError(f"quadratic: noise is {noise!r}; it must be a finite number of at least 0")
    rows = np.zeros((1, 0), np.float32) if targets is None else _finite("targets", targets, 2)
    curvature_, start_ = _same_length(curvature, start, rows.shape[1] or None)

    def init(key):
        del key
        return jnp.asarray(start_)

    def loss(params, batch, key):
        w, target = at_least_float32(params), at_least_float32(batch["target"])
        from_centre = w if targets is None else w - jnp.mean(target, axis=0)
        value = jnp.sum(curvature_ * from_centre**2) / 2
        if noise and key is not None:
            xi = jax.random.normal(key, w.shape, w.dtype) / np.sqrt(target.shape[0], dtype=w.dtype)
            value += jnp.sum(noise * xi * w)
        return value, {"distance": jnp.linalg.norm(from_centre)}

    return Task(
        name="quadratic",
        init=init,
        loss=loss,
        train={"target": rows},
        test={"target": rows},
        labels=None if targets is None else np.arange(len(rows), dtype=np.int32),
        metadata={"dimensions": len(start_), "noise": float(noise)},
        directions={"distance": "down"},
    )


def _same_length(curvature: Vector, start: Vector, dimensions: int | None):
    """Both as float32 `[d]`, d from whichever of the three is a vector."""
    vectors = {"curvature": curvature, "start": start}
    arrays = {name: _finite(name, value, 1) for name, value in vectors.items()}
    lengths = {name: len(array) for name, array in arrays.items() if np.ndim(vectors[name])}
    if dimensions:
        lengths["targets"] = dimensions
    if len(set(lengths.values())) > 1:
        told = ", ".join(f"{name} has {length}" for name, length in lengths.items())
        raise ValueError(f"quadratic: {told} coordinates; these must agree")
    shape = (next(iter(lengths.values()), 1),)
    return tuple(np.broadcast_to(array, shape) for array in arrays.values())


def _finite(name: str, value, ndim: int) -> np.ndarray:
    """A float32 array of `ndim` axes; a bare number becomes one coordinate."""
    try:
        array = np.asarray(value, np.float32)
    except (TypeError, ValueError):
        raise ValueError(f"quadratic: {name} is not an array of numbers") from None
    if ndim == 1 and array.ndim == 0:
        array = array[None]
    if array.ndim != ndim or array.size == 0:
        raise ValueError(
            f"quadratic: {name} has shape {array.shape}; it needs {ndim} axes, not empty"
        )
    if not np.isfinite(array).all():
        raise ValueError(f"quadratic: {name} has numbers that are not finite in float32")
    return array

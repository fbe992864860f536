"""Measures of a run: how noisy its gradients are, and what momentum its asynchrony amounts to."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from sgdlab.tasks import Task
from sgdlab.tasks.rows import count_rows, take_rows


class NoiseScale(NamedTuple):
    """An estimate of the simple gradient noise scale.

    Attributes:
      value: B_noise = tr(Σ)/|G|², in rows: the batch size at which noise and signal are equal.
      trace: tr(Σ), the variance of one row's gradient, summed over coordinates.
      squared_norm: |G|² of the true gradient.
    """

    value: float
    trace: float
    squared_norm: float


def gradient_noise_scale(
    task: Task, params: Any, *, small: int = 16, large: int = 256, repeats: int = 64, seed: int = 0
) -> NoiseScale:
    """Estimate tr(Σ)/|G|² from the norms of gradients at two batch sizes.

    E|G_B|² = |G|² + tr(Σ)/B, so from the mean squared norms at B = small and B = large

        |G|² = (large·|G_large|² − small·|G_small|²) / (large − small)
        tr(Σ) = (|G_small|² − |G_large|²) / (1/small − 1/large)

    Args:
      task: rows are drawn with replacement from its training data.
      params: where the gradient is taken.
      small: rows in a small batch.
      large: rows in a large batch.
      repeats: gradients averaged at each size.
      seed: int in [0, 2³²).

    Returns:
      A `NoiseScale`; with few repeats |G|² can come out negative, and then so does the value.

    Raises:
      ValueError: small is not below large.

    Reference:
      McCandlish, Kaplan, Amodei et al., "An empirical model of large-batch training", 2018,
      appendix A.1.
    """
    if not 1 <= small < large:
        raise ValueError(f"small: {small} is not in [1, {large}), below large")
    norms = [
        float(_mean_squared_norm(task, size, repeats, params, jax.random.key(seed)))
        for size in (small, large)
    ]
    squared = (large * norms[1] - small * norms[0]) / (large - small)
    trace = (norms[0] - norms[1]) / (1 / small - 1 / large)
    return NoiseScale(trace / squared, trace, squared)


def _mean_squared_norm(task: Task, size: int, repeats: int, params, key) -> jax.Array:
    train = jax.tree.map(jnp.asarray, task.train)
    num_rows = count_rows(train)

    def squared_norm(key):
        rows_key, loss_key = jax.random.split(key)
        rows = jax.random.randint(rows_key, (size,), 0, num_rows)
        batch = take_rows(train, rows)
        gradient = jax.grad(lambda p: task.loss(p, batch, loss_key)[0])(params)
        return optax.tree.norm(gradient, squared=True)

    keys = jax.random.split(key, repeats)
    return jnp.mean(jax.jit(lambda keys: jax.lax.map(squared_norm, keys))(keys))


def estimate_momentum(trajectories: np.ndarray) -> float:
    """The momentum γ that the mean trajectory of runs on a one-dimensional quadratic shows.

    Under the EMA form of momentum with decay γ, the mean obeys

        w_{t+1} − w_t = γ·(w_t − w_{t−1}) − (1−γ)·h·w_t,

    linear in γ and in (1−γ)h: the least-squares solution over t is returned. Asynchrony with N
    memoryless workers shows γ = 1 − 1/N.

    Args:
      trajectories: `[R, T]`, the parameter of R runs after each update.

    Returns:
      γ.

    Raises:
      ValueError: fewer than four updates.

    Reference:
      Mitliagkas, Zhang, Hadjis and Ré, "Asynchrony begets momentum, with an application to deep
      learning", 2016, of which the abstract was read; the fit is ours.
    """
    mean = np.atleast_2d(np.asarray(trajectories, np.float64)).mean(axis=0)
    if mean.ndim != 1 or len(mean) < 4:
        raise ValueError(
            f"trajectories: shape {np.shape(trajectories)}; [runs, updates] with 4 updates or more"
        )
    steps = np.diff(mean)
    regressors = np.stack([steps[:-1], mean[1:-1]], axis=1)
    return float(np.linalg.lstsq(regressors, steps[1:], rcond=None)[0][0])

"""Delay compensation: a message corrected to first order for how far the parameters have moved.

`update` takes the current parameters and the keyword-only `stale_params`: a tree like them, the
parameters at which the message was computed.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from sgdlab.rules.arguments import transform
from sgdlab.rules.extras import moved, require


class MeanSquareState(NamedTuple):
    """MS, an average of g²: float32 or wider, shaped like the parameters, or `[N, …]`."""

    mean_square: optax.Updates


@transform
def compensate_delay(
    strength: float | jax.Array = 0.04,
    adaptive: bool = False,
    decay: float | jax.Array = 0.95,
    eps: float | jax.Array = 1e-7,
    per_worker: bool = False,
    num_workers: int | None = None,
) -> optax.GradientTransformationExtraArgs:
    """First-order delay compensation: g + λ·g⊙g⊙(w − w_read).

    g⊙g stands for the diagonal of the Hessian, so the sum approaches the gradient at w. λ is
    constant, or λ₀/√(MS + ε) element-wise with MS ← m·MS + (1−m)g⊙g, MS₀ = 0, this message in it.

    Args:
      strength: λ, or λ₀ where `adaptive` (0.04 and 2 in implementations that cite the paper); an
        array is a number for each coordinate, and broadcasts to every leaf.
      adaptive: divide by the root of the mean square.
      decay: m in [0, 1), for `adaptive`.
      eps: ε > 0, for `adaptive`.
      per_worker: an MS of each worker's own messages, as in the authors' code, in place of one over
        all messages, as in the paper; for `adaptive`.
      num_workers: N, for `per_worker`.

    Returns:
      A transform; its state is empty, or a `MeanSquareState` where `adaptive`.

    Raises:
      ValueError: `per_worker` without `adaptive` or `num_workers`; in `update`, where no
        `stale_params`, no `params` or, for `per_worker`, no `worker` is given.

    Reference:
      Zheng et al., "Asynchronous stochastic gradient descent with delay compensation", 2017
      (DC-ASGD-c and DC-ASGD-a). `per_worker` is the MS of the code that the authors released for
      Multiverso (`dcasgda_updater.h`), whose ε is 1e-7 too, and was 1e-10 in its first version.
    """
    if per_worker and not adaptive:
        raise ValueError(
            "compensate_delay: per_worker is of the mean square, which only adaptive has"
        )
    if per_worker and num_workers is None:
        raise ValueError("compensate_delay: per_worker needs num_workers, how many there are")
    workers = (num_workers,) if per_worker else ()

    def init(params):
        if not adaptive:
            return optax.EmptyState()
        return MeanSquareState(
            jax.tree.map(lambda w: jnp.zeros((*workers, *w.shape), wide(w.dtype)), params)
        )

    def update(updates, state, params=None, *, stale_params=None, worker=None, **extra_args):
        del extra_args
        gap = moved("compensate_delay", params, stale_params)
        if not adaptive:
            # g·(w − w_read) first: with no gap it is zero even where g² would overflow.
            return jax.tree.map(lambda g, d: g + strength * g * d * g, updates, gap), state
        who = require("compensate_delay", "worker", worker) if per_worker else ...
        mean = jax.tree.map(
            lambda s, g: decay * s[who] + (1 - decay) * jnp.square(g.astype(s.dtype)),
            state.mean_square,
            updates,
        )
        sent = jax.tree.map(
            lambda g, d, s: g + (strength / jnp.sqrt(s + eps)).astype(g.dtype) * g * d * g,
            updates,
            gap,
            mean,
        )
        kept = jax.tree.map(lambda s, new: s.at[who].set(new), state.mean_square, mean)
        return sent, MeanSquareState(kept)

    return optax.GradientTransformationExtraArgs(init, update)


def wide(dtype):
    """float32 for a 16-bit float, in which a slow average stalls; the dtype itself otherwise."""
    return jnp.promote_types(dtype, jnp.float32)

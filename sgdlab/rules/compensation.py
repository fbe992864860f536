"""Transforms that correct a message by how far the parameters have moved since it was read.

`update` takes the current parameters and the keyword-only `stale_params`: a tree like them, the
parameters at which the message was computed.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from sgdlab.rules.sharing import shared
from sgdlab.rules.staleness import require


class MeanSquareState(NamedTuple):
    """An average of g², shaped like the parameters, and the int32 count of messages in it."""

    count: jax.Array
    mean_square: optax.Updates


@shared
def compensate_delay(
    strength: float | jax.Array = 0.04,
    adaptive: bool = False,
    decay: float | jax.Array = 0.95,
    eps: float | jax.Array = 1e-7,
) -> optax.GradientTransformationExtraArgs:
    """First-order delay compensation: g + λ·g⊙g⊙(w − w_read).

    g⊙g stands for the diagonal of the Hessian, so the sum approaches the gradient at w. λ is
    constant, or λ₀/√(MS + ε) element-wise with MS ← m·MS + (1−m)g⊙g, MS₀ = 0.

    Args:
      strength: λ, or λ₀ where `adaptive` (the paper used 0.04 and 2).
      adaptive: divide by the root of the mean square.
      decay: m in [0, 1), for `adaptive`.
      eps: ε > 0, for `adaptive`.

    Returns:
      A transform; its state is empty, or holds MS where `adaptive`.

    Raises:
      ValueError: in `update`, where no `stale_params` or no `params` is given.

    Reference:
      Zheng et al., "Asynchronous stochastic gradient descent with delay compensation", 2017
      (DC-ASGD-c and DC-ASGD-a).
    """

    def init(params):
        return _init_mean_square(params) if adaptive else optax.EmptyState()

    def update(updates, state, params=None, *, stale_params=None, **extra_args):
        del extra_args
        moved = _moved("compensate_delay", params, stale_params)
        if not adaptive:
            # g·(w − w_read) first: with no gap it is zero even where g² would overflow.
            return jax.tree.map(lambda g, d: g + strength * g * d * g, updates, moved), state
        state = _next_mean_square(state, updates, decay)
        updates = jax.tree.map(
            lambda g, d, s: g + strength / jnp.sqrt(s + eps) * g * d * g,
            updates,
            moved,
            state.mean_square,
        )
        return updates, state

    return optax.GradientTransformationExtraArgs(init, update)


@shared
def gap_aware(
    learning_rate: float | jax.Array,
    decay: float | jax.Array = 0.999,
    eps: float | jax.Array = 1e-8,
) -> optax.GradientTransformationExtraArgs:
    """Damping by the gap, element-wise: g / (1 + |w − w_read|/C), C = η√v̂ + ε.

    v̂ is the debiased average of g² so far, this message included, so C is the size of a typical
    step and |w − w_read|/C the number of such steps the parameters are away.

    Args:
      learning_rate: η > 0, the rule's largest learning rate.
      decay: of the average of g², in [0, 1).
      eps: ε > 0.

    Returns:
      A transform whose state holds the average of g² and its count.

    Raises:
      ValueError: in `update`, where no `stale_params` or no `params` is given.

    Reference:
      Barkai, Hakimi and Schuster, "Gap-aware mitigation of gradient staleness", 2020.
    """

    def update(updates, state, params=None, *, stale_params=None, **extra_args):
        del extra_args
        moved = _moved("gap_aware", params, stale_params)
        state = _next_mean_square(state, updates, decay)
        debias = 1.0 - decay ** state.count.astype(jnp.float32)
        updates = jax.tree.map(
            lambda g, d, s: (
                g
                / (1.0 + jnp.abs(d) / (learning_rate * jnp.sqrt(s / debias.astype(s.dtype)) + eps))
            ),
            updates,
            moved,
            state.mean_square,
        )
        return updates, state

    return optax.GradientTransformationExtraArgs(_init_mean_square, update)


def _moved(transform: str, params, stale_params):
    """The tree w − w_read."""
    if params is None:
        raise ValueError(f"{transform} needs the current parameters: update(..., params, ...)")
    return jax.tree.map(jnp.subtract, params, require(transform, "stale_params", stale_params))


def _init_mean_square(params) -> MeanSquareState:
    return MeanSquareState(jnp.zeros([], jnp.int32), optax.tree.zeros_like(params))


def _next_mean_square(state: MeanSquareState, updates, decay) -> MeanSquareState:
    return MeanSquareState(
        state.count + 1,
        optax.tree.update_moment(updates, state.mean_square, decay, order=2),
    )

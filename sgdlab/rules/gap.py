"""Gap awareness: a message damped by how many typical steps the parameters have moved since."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from sgdlab.rules.arguments import transform
from sgdlab.rules.compensation import wide
from sgdlab.rules.extras import as_float, moved
from sgdlab.rules.schedules import CountedSchedule, find_rate


class GapState(NamedTuple):
    """What the server remembers of the steps so far.

    Attributes:
      count: int32, how many messages have passed.
      largest_rate: float32, the largest learning rate so far.
      velocity: v, shaped like the parameters, float32 or wider; `()` without momentum.
      mean_square: R, like them, the average of v² (of g² without momentum) over those messages.
    """

    count: jax.Array
    largest_rate: jax.Array
    velocity: Any
    mean_square: optax.Updates


@transform
def gap_aware(
    learning_rate: optax.ScalarOrSchedule | CountedSchedule,
    decay: float | jax.Array = 0.0,
    average_decay: float | jax.Array = 0.999,
    eps: float | jax.Array = 1e-8,
) -> optax.GradientTransformationExtraArgs:
    """Damping by the gap, element-wise: g / (1 + |w − w_read|/C), C = η_max(√R̂ + ε).

    C is the size of a typical step, so |w − w_read|/C is how many of them the parameters are away.
    η_max is the largest rate so far; R ← ΓR + (1−Γ)v² after each message, where v ← γv + g is the
    velocity of the messages as they are handed on, and R̂ = R/(1−Γᵗ) over the t messages before this
    one. Without momentum (γ = 0) R averages the squares of the messages as they came.

    The rate and γ are the rule's, or C is no step: `sgd(η)`, `heavy_ball(η, γ)` and
    `nesterov(η, γ)` have η and γ, `momentum(η, γ)` has η(1−γ) and γ. An experiment fills them in.
    v is the rule's velocity where every update has one message; where it has several, each of them
    is a step of v.

    Args:
      learning_rate: η: a scalar, a schedule of the message's index, or a `CountedSchedule`.
      decay: γ in [0, 1).
      average_decay: Γ in [0, 1).
      eps: ε > 0.

    Returns:
      A transform whose state is a `GapState`.

    Raises:
      ValueError: in `update`, where no `stale_params` or no `params` is given.

    Reference:
      Barkai, Hakimi and Schuster, "Gap-aware mitigation of gradient staleness", 2020. η_max, v² and
      the place of ε follow the code of the same group's later work (FTPipe, `sgd_gap_aware.py`),
      since the paper's own was not found. There t counts this message too, and R without momentum
      holds its g² already.
    """
    has_momentum = not (isinstance(decay, int | float) and decay == 0)

    def init(params):
        zeros = jax.tree.map(lambda w: jnp.zeros(w.shape, wide(w.dtype)), params)
        velocity = zeros if has_momentum else ()
        return GapState(jnp.zeros([], jnp.int32), jnp.zeros([], jnp.float32), velocity, zeros)

    def update(updates, state, params=None, *, stale_params=None, **extra_args):
        gap = moved("gap_aware", params, stale_params)
        rate = find_rate(learning_rate, state.count, extra_args)
        largest = jnp.maximum(state.largest_rate, as_float(rate))
        known = 1 - as_float(average_decay) ** state.count.astype(jnp.float32)
        # Nothing has moved before the first message, and nothing is known of a step.
        known = jnp.where(state.count > 0, known, 1.0)

        def damp(g, d, square):
            step = largest * (jnp.sqrt(square / known) + eps)
            # While the rate has been 0 nothing has moved, and 0/0 is no number of steps.
            steps = jnp.abs(d).astype(step.dtype) / jnp.where(step > 0, step, jnp.inf)
            return (g / (1 + steps)).astype(g.dtype)

        sent = jax.tree.map(damp, updates, gap, state.mean_square)
        velocity = state.velocity
        square = jax.tree.map(lambda g: jnp.square(g.astype(wide(g.dtype))), updates)
        if has_momentum:
            velocity = jax.tree.map(lambda v, g: decay * v + g, velocity, sent)
            # A decay that is swept may be 0 in one member.
            square = jax.tree.map(
                lambda v, s: jnp.where(decay > 0, jnp.square(v), s), velocity, square
            )
        mean = jax.tree.map(
            lambda r, s: average_decay * r + (1 - average_decay) * s, state.mean_square, square
        )
        return sent, GapState(state.count + 1, largest, velocity, mean)

    return optax.GradientTransformationExtraArgs(init, update)

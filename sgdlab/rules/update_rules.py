"""The update rules w ← w + u(g), built from optax's pieces where those have this mathematics.

In each formula w are the parameters, g the (averaged) message and η the learning rate: a float,
a traced scalar, an optax schedule of the update's index, or a `CountedSchedule`. Every accumulator
starts at zero.

Numbers are float32, as mapped ones are, so that a rule has the same bits however they enter: a
Python 1 − 0.9 would be rounded otherwise, and a Python ε = 10⁻⁸ beside a float16 gradient be 0.
"""

import functools
import inspect
from collections.abc import Callable
from typing import Any, ParamSpec

import jax
import jax.numpy as jnp
import numpy as np
import optax

from sgdlab.arguments import read_arguments
from sgdlab.rules.arguments import read_hyperparameter
from sgdlab.rules.schedules import CountedSchedule, scale_by_rate
from sgdlab.rules.sharing import shared
from sgdlab.rules.table import RULES

Rate = optax.ScalarOrSchedule | CountedSchedule
P = ParamSpec("P")


def _rule(make: Callable[P, Any]) -> Callable[P, Any]:
    """`shared`, with numbers as float32 and state and updates in the dtypes that they come in."""
    signature = inspect.signature(make)

    @shared
    @functools.wraps(make)
    def one(*args: Any, **kwargs: Any) -> Any:
        return _keep_dtypes(make(*args, **kwargs))

    @functools.wraps(make)
    def call(*args: P.args, **kwargs: P.kwargs) -> Any:
        bound = signature.bind(*args, **kwargs)
        bound.apply_defaults()
        return one(**{name: _as_float32(value) for name, value in bound.arguments.items()})

    return read_arguments(RULES[make.__name__], read_hyperparameter)(call)


def _keep_dtypes(rule: optax.GradientTransformation) -> optax.GradientTransformationExtraArgs:
    """The rule, whose float32 numbers widen what it computes and not what it hands on."""
    extended = optax.with_extra_args_support(rule)

    def update(updates, state, params=None, **extra):
        made = extended.update(updates, state, params, **extra)
        return jax.tree.map(lambda old, new: new.astype(old.dtype), (updates, state), made)

    return optax.GradientTransformationExtraArgs(rule.init, update)


def _as_float32(value: Any) -> Any:
    """A NumPy scalar, since no array may outlive the trace in which a rule is made."""
    return np.float32(value) if isinstance(value, float | int) else value


@_rule
def sgd(learning_rate: Rate) -> optax.GradientTransformationExtraArgs:
    """Stochastic gradient descent: w ← w − ηg.

    Args:
      learning_rate: η: a scalar, a schedule, or a `CountedSchedule`.

    Returns:
      The rule; its state holds no array, or the schedule's counter.

    Reference:
      Robbins and Monro, "A stochastic approximation method", 1951.
    """
    return optax.chain(scale_by_rate(learning_rate))


@_rule
def momentum(
    learning_rate: Rate, decay: float | jax.Array = 0.9
) -> optax.GradientTransformationExtraArgs:
    """Momentum as an average: v ← γv + (1−γ)g, w ← w − ηv.

    The average is not debiased: a constant g moves w by −ηg·[T − γ(1−γᵀ)/(1−γ)] in T steps.
    It is `heavy_ball` with the learning rate η(1−γ), so η keeps its meaning when γ changes.

    Args:
      learning_rate: η: a scalar, a schedule, or a `CountedSchedule`.
      decay: γ in [0, 1).

    Returns:
      The rule; its state holds v, shaped like the parameters.

    Reference:
      Polyak, "Some methods of speeding up the convergence of iteration methods", 1964.
    """
    # Not `optax.ema`, which counts updates for a debiasing that is not wanted here.
    average = optax.chain(optax.scale(1 - decay), optax.trace(decay))
    return optax.chain(average, scale_by_rate(learning_rate))


@_rule
def heavy_ball(
    learning_rate: Rate, decay: float | jax.Array = 0.9
) -> optax.GradientTransformationExtraArgs:
    """Momentum as a sum: v ← γv + g, w ← w − ηv.

    Args:
      learning_rate: η: a scalar, a schedule, or a `CountedSchedule`.
      decay: γ in [0, 1).

    Returns:
      The rule; its state holds v, shaped like the parameters.

    Reference:
      Polyak, "Some methods of speeding up the convergence of iteration methods", 1964.
    """
    return optax.chain(optax.trace(decay), scale_by_rate(learning_rate))


@_rule
def nesterov(
    learning_rate: Rate, decay: float | jax.Array = 0.9
) -> optax.GradientTransformationExtraArgs:
    """Momentum that looks ahead: v ← γv + g, w ← w − η(g + γv).

    Args:
      learning_rate: η: a scalar, a schedule, or a `CountedSchedule`.
      decay: γ in [0, 1).

    Returns:
      The rule; its state holds v, shaped like the parameters.

    Reference:
      Nesterov, "A method for solving the convex programming problem with convergence rate
      O(1/k²)", 1983; Sutskever, Martens, Dahl and Hinton, "On the importance of initialization and
      momentum in deep learning", 2013, where w is the point that is looked ahead to: for a constant
      η their step in that point is this one, as optax and PyTorch take it.
    """
    return optax.chain(optax.trace(decay, nesterov=True), scale_by_rate(learning_rate))


@_rule
def adagrad(
    learning_rate: Rate, eps: float | jax.Array = 1e-8
) -> optax.GradientTransformationExtraArgs:
    """A step for each coordinate by its whole past: G ← G + g², w ← w − ηg/(√G + ε).

    A constant g gives steps of size η/√t, t = 1, 2, …

    Args:
      learning_rate: η: a scalar, a schedule, or a `CountedSchedule`.
      eps: ε > 0, outside the root.

    Returns:
      The rule; its state holds G, shaped like the parameters.

    Reference:
      Duchi, Hazan and Singer, "Adaptive subgradient methods for online learning and stochastic
      optimization", 2011, as PyTorch and MLX have it.
    """

    # optax.scale_by_rss has ε inside the root, and sets the step to zero while G is zero.
    def update(updates, state, params=None):
        del params
        total = jax.tree.map(lambda g, s: s + jnp.square(g), updates, state.sum_of_squares)
        updates = jax.tree.map(lambda g, s: g / (jnp.sqrt(s) + eps), updates, total)
        return updates, optax.ScaleByRssState(sum_of_squares=total)

    def init(params):
        return optax.ScaleByRssState(sum_of_squares=optax.tree.zeros_like(params))

    return optax.chain(optax.GradientTransformation(init, update), scale_by_rate(learning_rate))


@_rule
def rmsprop(
    learning_rate: Rate,
    decay: float | jax.Array = 0.9,
    eps: float | jax.Array = 1e-8,
) -> optax.GradientTransformationExtraArgs:
    """A step for each coordinate by its recent past: s ← ρs + (1−ρ)g², w ← w − ηg/(√s + ε).

    The average is not debiased: the first step has size η/√(1−ρ).

    Args:
      learning_rate: η: a scalar, a schedule, or a `CountedSchedule`.
      decay: ρ in [0, 1).
      eps: ε > 0, outside the root.

    Returns:
      The rule; its state holds s, shaped like the parameters.

    Reference:
      Tieleman and Hinton, "Lecture 6.5-rmsprop: Divide the gradient by a running average of its
      recent magnitude", 2012, whose ρ = 0.9 MXNet's documentation quotes; ε is the libraries'.
    """
    return optax.chain(
        optax.scale_by_rms(decay=decay, eps=eps, eps_in_sqrt=False),
        scale_by_rate(learning_rate),
    )


@_rule
def adam(
    learning_rate: Rate,
    b1: float | jax.Array = 0.9,
    b2: float | jax.Array = 0.999,
    eps: float | jax.Array = 1e-8,
) -> optax.GradientTransformationExtraArgs:
    """Debiased averages of g and g²: w ← w − η m̂/(√ŝ + ε).

    m ← β₁m + (1−β₁)g and s ← β₂s + (1−β₂)g²; at step t = 1, 2, … m̂ = m/(1−β₁ᵗ) and
    ŝ = s/(1−β₂ᵗ), so the first step is η·sign(g) up to ε.

    Args:
      learning_rate: η: a scalar, a schedule, or a `CountedSchedule`.
      b1: β₁ in [0, 1).
      b2: β₂ in [0, 1).
      eps: ε > 0, outside the root.

    Returns:
      The rule; its state holds m and s, shaped like the parameters, and t.

    Reference:
      Kingma and Ba, "Adam: a method for stochastic optimization", 2015, algorithm 1.
    """
    return optax.chain(optax.scale_by_adam(b1=b1, b2=b2, eps=eps), scale_by_rate(learning_rate))


@_rule
def adamw(
    learning_rate: Rate,
    b1: float | jax.Array = 0.9,
    b2: float | jax.Array = 0.999,
    eps: float | jax.Array = 1e-8,
    weight_decay: float | jax.Array = 1e-4,
) -> optax.GradientTransformationExtraArgs:
    """Adam with the weights' own decay: w ← w − η(m̂/(√ŝ + ε) + λw).

    Args:
      learning_rate: η: a scalar, a schedule, or a `CountedSchedule`.
      b1: β₁ in [0, 1).
      b2: β₂ in [0, 1).
      eps: ε > 0, outside the root.
      weight_decay: λ ≥ 0; it is multiplied by η, as in optax and PyTorch.

    Returns:
      The rule, which needs `params`; its state holds m and s, shaped like the parameters, and t.

    Reference:
      Loshchilov and Hutter, "Decoupled weight decay regularization", 2019. In their algorithm 2,
      and in their code, λ is multiplied by the schedule alone, not by the learning rate α: their λ
      is ours times α.
    """
    return optax.chain(
        optax.scale_by_adam(b1=b1, b2=b2, eps=eps),
        optax.add_decayed_weights(weight_decay),
        scale_by_rate(learning_rate),
    )

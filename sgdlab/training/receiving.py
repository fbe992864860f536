"""What `receive` may be: a transform, or a function that makes one of hyperparameters."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import optax

from sgdlab.rules.mixing import MixModelsState
from sgdlab.timelines.plan import Plan

Receive: TypeAlias = optax.GradientTransformation | Callable[..., optax.GradientTransformation]


def as_function(receive: Receive) -> Callable[..., optax.GradientTransformation]:
    """The function, or one that gives the transform whatever the hyperparameters."""
    return receive if callable(receive) else lambda **_: receive


def check_receive(
    receive: Receive,
    make_rule: Callable[..., optax.GradientTransformation],
    points: Sequence[Mapping[str, float]],
    plans: Sequence[Plan],
    params: Any,
) -> None:
    """Refuse to mix models where the server's update would not be the mixture.

    Args:
      receive: what messages pass.
      make_rule: as for `replay_many`.
      points: the hyperparameters of the runs.
      plans: of their timelines.
      params: shapes and dtypes of the parameters.

    Raises:
      ValueError: beside `mix_models` stands another rule than w ← w − g, or an update has several
        messages.
    """
    for point in points:
        with jax.numpy_dtype_promotion("standard"):
            state = jax.eval_shape(as_function(receive)(**point).init, params)
        if not any(map(_is_mixing, jax.tree.leaves(state, is_leaf=_is_mixing))):
            continue
        if any(plan.messages_per_update != 1 or plan.has_table for plan in plans):
            raise ValueError(
                "receive: mix_models takes one model an update; allowed: a protocol that applies "
                "each message alone, as asynchronous does"
            )
        if not _subtracts(make_rule(**point)):
            raise ValueError(
                "receive: mix_models hands on a mixed model, which the rule would change; "
                "allowed: the rule sgd(1.0)"
            )


def _is_mixing(part: Any) -> bool:
    return isinstance(part, MixModelsState)


def _subtracts(rule: optax.GradientTransformation) -> bool:
    """Whether a rule is w ← w − g: it keeps nothing, and g becomes −g."""
    g = jnp.asarray([1.0, -3.0])
    if jax.tree.leaves(jax.eval_shape(rule.init, g)):
        return False
    with jax.numpy_dtype_promotion("standard"):
        update, _ = rule.update(g, rule.init(g), g)
    return bool(jnp.all(update == -g))

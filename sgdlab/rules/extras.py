"""What transforms ask of the keyword-only extra arguments of `update`."""

from typing import Any

import jax
import jax.numpy as jnp
import optax


def require(transform: str, argument: str, value: Any) -> Any:
    """`value`, or one line saying that `transform` misses an extra argument and who has it.

    Args:
      transform: the transform's public name.
      argument: the extra argument's name.
      value: what `update` was given.

    Returns:
      `value`, which is not None.

    Raises:
      ValueError: where `value` is None.
    """
    if value is None:
        where = "receive, and in rule" + (
            "" if argument == "staleness" else " where every update applies one message"
        )
        raise ValueError(f"{transform} needs {argument}=, which is available in {where}")
    return value


def moved(transform: str, params: optax.Params | None, stale_params: optax.Params | None) -> Any:
    """The tree w − w_read.

    Args:
      transform: the transform's public name.
      params: w, the current parameters.
      stale_params: w_read, those that the message was computed at.

    Returns:
      A tree like `params`.

    Raises:
      ValueError: where one of them is None.
    """
    if params is None:
        raise ValueError(f"{transform} needs the current parameters: update(..., params, ...)")
    return jax.tree.map(jnp.subtract, params, require(transform, "stale_params", stale_params))


def as_float(scalar: Any) -> jax.Array:
    """A number as a float32 scalar."""
    return jnp.asarray(scalar).astype(jnp.float32)


def scale(updates: optax.Updates, factor: jax.Array) -> optax.Updates:
    """A message times a float32 scalar, each leaf in its own dtype."""
    return jax.tree.map(lambda g: g * factor.astype(g.dtype), updates)

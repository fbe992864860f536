"""Hyperparameters as people write them; a scalar of a trace passes, and so does a schedule."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar, get_args

import jax
import jax.core
import numpy as np

from sgdlab.arguments import read_argument, read_arguments
from sgdlab.rules.sharing import shared
from sgdlab.rules.table import TRANSFORMS, LearningRate, NonNegative

P = ParamSpec("P")
T = TypeVar("T")
_LARGEST = float(np.finfo(np.float32).max)
_PER_COORDINATE = frozenset({"strength"})


def transform(make: Callable[P, T]) -> Callable[P, T]:
    """`shared`, with each argument held to the transform's row of `table.TRANSFORMS`."""
    return read_arguments(TRANSFORMS[make.__name__], read_hyperparameter)(shared(make))


def read_hyperparameter(where: str, name: str, annotation: Any, value: Any) -> Any:
    """One hyperparameter of a rule, a transform or a schedule.

    Args:
      where: whose it is.
      name: its name.
      annotation: what its table says of it.
      value: what was given.

    Returns:
      A Python number where it is one of NumPy or JAX; a traced scalar as it is; of a learning rate
      also a schedule, or a `CountedSchedule`, as it is.

    Raises:
      ValueError: names the argument and what is allowed.
    """
    if name in _PER_COORDINATE and hasattr(value, "ndim") and value.ndim:
        return value
    if isinstance(value, jax.core.Tracer):
        if value.ndim:
            raise ValueError(f"{where}: {name} has shape {value.shape}; allowed: one number")
        return value
    others = ""
    if set(get_args(LearningRate)) <= set(get_args(annotation)):
        if callable(value) or hasattr(value, "schedule"):
            return value
        annotation = NonNegative | None if type(None) in get_args(annotation) else NonNegative
        others = "a schedule"
    read = read_argument(where, name, annotation, value, others=others)
    if isinstance(read, float | int) and abs(read) > _LARGEST:
        raise ValueError(f"{where}: {name} is {read}; allowed: numbers up to {_LARGEST:.3g}")
    return read

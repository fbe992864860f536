"""Equal rules are one object: `momentum(0.1)` made twice is the same, and compiles once.

A compiled replay is found again by the rule that it was made with, and two closures never compare
equal, whatever they close over.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")
_KEPT = 256  # rules; the oldest are forgotten, and made anew when they are asked for


def shared(make: Callable[P, T]) -> Callable[P, T]:
    """Give the same object for the same arguments.

    Args:
      make: a pure function that creates no array: what it returns may outlive the trace in which it
        was called.

    Returns:
      `make`, with its signature. Arguments without a hash (arrays and traced scalars) are not
      remembered, so inside a trace every call makes its own.
    """
    signature = inspect.signature(make)
    remember = functools.lru_cache(_KEPT, typed=True)(make)

    @functools.wraps(make)
    def call(*args: P.args, **kwargs: P.kwargs) -> T:
        bound = signature.bind(*args, **kwargs)
        bound.apply_defaults()
        try:
            hash((bound.args, tuple(bound.kwargs.values())))
        except TypeError:
            return make(*args, **kwargs)
        return remember(*bound.args, **bound.kwargs)

    return call

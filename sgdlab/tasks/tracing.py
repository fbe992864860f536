"""What a function depends on, read off its trace: nobody has to say it, nobody can say it wrong."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
from jax.interpreters.partial_eval import dce_jaxpr


def draws(function: Callable[..., Any], *arguments: Any) -> bool:
    """Whether any output of `function(key, *arguments)` depends on the typed key.

    Args:
      function: traced, never computed.
      *arguments: trees of arrays, or of their shapes.
    """
    jaxpr = jax.make_jaxpr(function)(jax.random.key(0), *arguments).jaxpr
    return dce_jaxpr(jaxpr, [True] * len(jaxpr.outvars))[1][0]

"""Which operation made the first NaN: a chunk whose every operation is looked at.

JAX's own `jax_debug_nans` looks at what a compiled program hands out, and a chunk is one program,
so it would name the chunk. Here the operations inside are checked (`jax.experimental.checkify`),
which costs several times the chunk's time, and the first that made a NaN is named with its place in
the source. A loss or a parameter that overflows to infinity makes no NaN yet.
"""

from __future__ import annotations

import os
from functools import partial
from typing import Any

import jax
from jax.experimental import checkify

from sgdlab.training.loop import run_chunk
from sgdlab.training.program import Outputs, Program, State


class FoundNanError(ArithmeticError):
    """An operation of a chunk made a NaN.

    Attributes:
      state, outputs: of the chunk all the same.
    """

    def __init__(self, text: str, state: State, outputs: Outputs) -> None:
        super().__init__(text)
        self.state, self.outputs = state, outputs


def are_looked_for(program: Program) -> bool:
    """Whether `jax_debug_nans` asks for it, and the program is one device's, as checkify needs."""
    return bool(jax.config.jax_debug_nans) and program.average is None  # pyright: ignore


def step_finding_nans(program: Program, *arguments: Any) -> tuple[State, Outputs]:
    """`run_chunk`, compiled with its checks.

    Raises:
      FoundNanError: names the operation and the line that it comes from.
    """
    with jax.debug_nans(False):  # which would come first and know less
        error, (state, outputs) = _checked(program, *arguments)
        found = error.get_exception()
    if found is None:
        return state, outputs
    text = str(found).splitlines()[0].rstrip(".")
    raise FoundNanError(f"{text}{_place(found)}", state, outputs)


@partial(jax.jit, static_argnums=0)
def _checked(program: Program, *arguments: Any):
    return checkify.checkify(partial(run_chunk, program), errors=checkify.nan_checks)(*arguments)


def _place(found: Any) -> str:
    """The innermost line that is neither JAX's nor another package's."""
    for line in str(getattr(found, "traceback_info", "")).splitlines():
        if f"{os.sep}site-packages{os.sep}" not in line and os.sep in line:
            return f" at {line.strip()}"
    return ""

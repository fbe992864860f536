"""Worker programs and compressors by name, as a config names them."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

from sgdlab.workers import compressors, table
from sgdlab.workers.compression import compressed
from sgdlab.workers.compressors import Compressor
from sgdlab.workers.local import local_steps
from sgdlab.workers.program import WorkerProgram, gradient

WORKERS: dict[str, Callable[..., WorkerProgram]] = {
    "gradient": gradient,
    "local_steps": local_steps,
}
COMPRESSORS: dict[str, Callable[..., Compressor]] = {
    name: getattr(compressors, name) for name in table.COMPRESSORS
}


def make_worker(
    name: str,
    *,
    compressor: Compressor | None = None,
    error_feedback: bool = True,
    learning_rate: float | Callable[..., Any] | None = None,
    **arguments: Any,
) -> WorkerProgram:
    """The worker program of that name.

    Args:
      name: a name in `sgdlab.workers.table.WORKERS`.
      compressor: compresses the messages, or `None`.
      error_feedback: whether what compression loses is sent later.
      learning_rate: the rate inside the compression, a number or a schedule of the worker's own
        messages; by default none.
      **arguments: the program's own arguments.

    Returns:
      The `WorkerProgram`, wrapped by `compressed` where there is a compressor.

    Raises:
      ValueError: the name or an argument is unknown, an argument is missing or out of range.
    """
    program = _make("worker", WORKERS, name, arguments)
    if compressor is None:
        return program
    return compressed(program, compressor, error_feedback, learning_rate)


def make_compressor(name: str, **arguments: Any) -> Compressor:
    """The compressor of that name.

    Args:
      name: a name in `sgdlab.workers.table.COMPRESSORS`.
      **arguments: its arguments.

    Returns:
      The `Compressor`.

    Raises:
      ValueError: the name or an argument is unknown, an argument is missing or out of range.
    """
    return _make("compressor", COMPRESSORS, name, arguments)


def _make(kind: str, functions: dict[str, Callable], name: str, arguments: dict[str, Any]):
    if not isinstance(name, str) or name not in functions:
        raise ValueError(f"{kind}: the name {name!r} is unknown; it must be {_or(functions)}")
    try:
        inspect.signature(functions[name]).bind(**arguments)
    except TypeError as error:
        allowed = _or(inspect.signature(functions[name]).parameters)
        raise ValueError(f"{kind} {name}: {error}; arguments are {allowed}") from None
    return functions[name](**arguments)


def _or(names) -> str:
    return ", ".join(names) or "none"

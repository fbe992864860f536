"""The closed forms that a claim may name: those of `sgdlab.theory` that give one number."""

from __future__ import annotations

import inspect
import math
import types
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Union, get_args, get_origin

import numpy as np

from sgdlab import theory
from sgdlab.experiment.reading.problems import Problem, show, suggest

# No closed form shall take more than a moment; a delay is the degree of a polynomial.
_LARGEST, _LONGEST_DELAY = 1_000_000, 1_000


def _speaks_plainly(function: Callable[..., Any]) -> bool:
    """Whether it gives one number for arguments that a file can hold."""
    signature = inspect.signature(function, eval_str=True)
    takes = {each.annotation for each in signature.parameters.values()}
    gives = set(_parts(signature.return_annotation)) - {type(None)}
    return gives == {float} and np.ndarray not in takes


def _parts(hint: Any) -> tuple[Any, ...]:
    return get_args(hint) if get_origin(hint) in (Union, types.UnionType) else (hint,)


FUNCTIONS = {name: getattr(theory, name) for name in theory.__all__}
FUNCTIONS = {name: function for name, function in FUNCTIONS.items() if _speaks_plainly(function)}


def evaluate(function: str, arguments: Mapping[str, Any]) -> float:
    """The value of a closed form, whose arguments have been checked."""
    return float(FUNCTIONS[function](**arguments))


def check(function: str, arguments: Mapping[str, Any]) -> list[Problem]:
    """What is wrong with a closed form and its arguments; it is evaluated if nothing else is."""
    if function not in FUNCTIONS:
        text = f"unknown function {show(function)}; {suggest(function, list(FUNCTIONS))}"
        return [(("function",), text)]
    parameters = inspect.signature(FUNCTIONS[function], eval_str=True).parameters
    free = any(each.kind is each.VAR_KEYWORD for each in parameters.values())
    named = {name: each for name, each in parameters.items() if each.kind is not each.VAR_KEYWORD}
    problems: list[Problem] = []
    for name, value in arguments.items():
        if name not in named and not free:
            text = f"unknown argument; {suggest(name, list(named))}"
            problems.append((("arguments", name), text))
        elif not _fits(hint := named[name].annotation if name in named else Any, name, value):
            text = f"{show(value)} given; allowed: {_describe(hint, name)}"
            problems.append((("arguments", name), text))
    for name, each in named.items():
        if each.default is each.empty and name not in arguments:
            text = f"missing; allowed: {_describe(each.annotation, name)}"
            problems.append((("arguments", name), text))
    return problems or _try(function, arguments)


def _try(function: str, arguments: Mapping[str, Any]) -> list[Problem]:
    try:
        with np.errstate(all="ignore"):
            value = FUNCTIONS[function](**arguments)
    except (ArithmeticError, LookupError, TypeError, ValueError) as error:
        text = " ".join(f"{type(error).__name__}: {error}".split())
        return [(("arguments",), f"{function} cannot take these: {text}")]
    if value is None or math.isnan(value):
        return [(("arguments",), f"{function} knows no value for these; allowed: others")]
    return []


def _fits(hint: Any, name: str, value: Any) -> bool:
    """Whether plain data is of the kind that an annotation names."""
    kinds = hint is Any or any(_is(part, value) for part in _parts(hint))
    return kinds and _plain(value, _limit(name))


def _is(hint: Any, value: Any) -> bool:
    kind = get_origin(hint) or hint
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if kind is float:
        return number
    if kind is int:
        return number and isinstance(value, int)
    if kind in (str, bool):
        return isinstance(value, kind)
    if isinstance(kind, type) and issubclass(kind, Mapping):
        return isinstance(value, Mapping)
    if isinstance(kind, type) and issubclass(kind, Sequence):
        return isinstance(value, list)
    return value is None and kind is type(None)


def _limit(name: str) -> int:
    return _LONGEST_DELAY if name == "delay" else _LARGEST


def _plain(value: Any, limit: int) -> bool:
    if isinstance(value, Mapping):
        return all(isinstance(k, str) and _plain(item, limit) for k, item in value.items())
    if isinstance(value, list):
        return all(_plain(item, limit) for item in value)
    if isinstance(value, int | float) and not isinstance(value, bool):
        return abs(value) <= limit or value == math.inf
    return isinstance(value, str | bool) or value is None


def _describe(hint: Any, name: str) -> str:
    words = {int: "a whole number", float: "a number", str: "a text", bool: "true or false"}
    found = []
    for part in _parts(hint):
        kind = get_origin(part) or part
        if kind in words:
            found.append(words[kind])
        elif isinstance(kind, type) and issubclass(kind, Mapping):
            found.append("a mapping")
        elif isinstance(kind, type) and issubclass(kind, Sequence):
            found.append("a list of numbers")
    return f"{' or '.join(found) or 'a value'}, numbers up to {_limit(name)}"

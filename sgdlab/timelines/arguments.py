"""Arguments say in their annotation what is allowed; here they are held to it, in one line."""

import dataclasses
import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from numbers import Integral, Real
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

import numpy as np
from annotated_types import Ge, Gt, Le, Lt


class TimelineError(ValueError):
    """A timeline, a cluster or a protocol that cannot be, said in one line."""


class MayBeInfinite:
    """Marks a float argument that takes infinity as a value; every other must be finite."""


@dataclasses.dataclass(frozen=True)
class Examples:
    """Values of an argument that are worth a look: `Annotated[int, Examples(lambda n: [n, 1])]`.

    Attributes:
      of: the number of workers to the values. The first one is what the documentation draws; the
        contract that all protocols keep is tried with every one.
    """

    of: Callable[[int], Sequence[Any]]


MAX_WORKERS = 100_000
MAX_MESSAGES = 2**24  # some 200 bytes each while a timeline is made: 3.4 GB

Count = Annotated[int, Ge(1), Le(2**31 - 1)]
"""How many of something: at least one, and what 32 bits hold."""

Workers = Annotated[int, Ge(1), Le(MAX_WORKERS)]
"""How many workers."""

Updates = Annotated[int, Ge(1), Le(MAX_MESSAGES)]
"""How many updates; each uses a message at least."""

Steps = Annotated[int, Ge(1), Le(100_000)]
"""How many gradients make a message."""

Seed = Annotated[int, Ge(0), Lt(2**32)]
"""Seeds lie in [0, 2³²), where every generator in use tells them apart."""

Positive = Annotated[float, Gt(0)]
"""A finite number above zero."""

NonNegative = Annotated[float, Ge(0)]
"""A finite number, zero or above."""

Probability = Annotated[float, Ge(0), Le(1)]
"""A number in [0, 1]."""

_RELATIONS = {
    Gt: (">", "gt", lambda value, bound: value > bound),
    Ge: (">=", "ge", lambda value, bound: value >= bound),
    Lt: ("<", "lt", lambda value, bound: value < bound),
    Le: ("<=", "le", lambda value, bound: value <= bound),
}
_SHARED = ("cluster", "updates", "seconds", "gradients", "seed")  # no protocol's own
_KINDS = {int: "an integer", float: "a number", bool: "true or false", str: "a text"}


def check_fields(instance: Any, where: str) -> None:
    """Hold every constructor argument of a dataclass to its annotation.

    Args:
      instance: a dataclass whose fields carry `annotated_types` bounds.
      where: what the error line begins with.

    Raises:
      TimelineError: names the field, its value and what is allowed.
    """
    hints = get_type_hints(type(instance), include_extras=True)
    for field in dataclasses.fields(instance):
        if field.init:
            given = getattr(instance, field.name)
            value = check_argument(where, field.name, hints[field.name], given)
            object.__setattr__(instance, field.name, value)


def check_argument(where: str, name: str, annotation: Any, value: Any) -> Any:
    """Hold one argument to its annotation: a scalar type, its bounds, a literal, or a union.

    Returns:
      The value; a NumPy or JAX scalar as the Python number that it is.

    Raises:
      TimelineError: names the argument, its value and what is allowed.
    """
    value = unwrap(value)
    choices = get_args(annotation) if get_origin(annotation) in (Union, UnionType) else [annotation]
    if not any(_fits(choice, value) for choice in choices):
        allowed = " or ".join(_describe(choice, value) for choice in choices)
        raise TimelineError(f"{where}: {name} is {show(value)}; allowed: {allowed}")
    return value


def unwrap(value: Any) -> Any:
    """A scalar of NumPy or JAX, an array without an axis too, as the Python scalar that it is."""
    return value.item() if getattr(value, "ndim", None) == 0 and hasattr(value, "item") else value


def unwrap_all(values: Any) -> Any:
    """An array as the list of its scalars; anything else as it is, or unwrapped."""
    return values.tolist() if isinstance(values, np.ndarray) else unwrap(values)


def show(value: Any) -> str:
    """A value in an error: in one line, and never in more than 60 characters."""
    text = " ".join(repr(value).split())
    return text if len(text) <= 60 else f"{text[:57]}..."


def _fits(annotation: Any, value: Any) -> bool:
    if get_origin(annotation) is Literal:
        return value in get_args(annotation)
    kind, metadata = _split(annotation)
    if kind not in _KINDS:  # structured arguments are checked where they are taken apart
        return kind is not type(None) or value is None
    if not _is_kind(kind, value):
        return False
    if kind is float and not _is_finite(value):
        infinite = value == math.inf and MayBeInfinite in metadata
        return infinite and _within(metadata, value)
    return _within(metadata, value)


def _is_finite(value: Real) -> bool:
    try:
        return math.isfinite(value)
    except OverflowError:  # a whole number that no float holds
        return False


def _is_kind(kind: type, value: Any) -> bool:
    if kind in (bool, str):
        return isinstance(value, kind)
    return isinstance(value, Integral if kind is int else Real) and not isinstance(value, bool)


def _within(metadata: list[Any], value: Any) -> bool:
    bounds = [(_RELATIONS[type(bound)], bound) for bound in metadata if type(bound) in _RELATIONS]
    return all(holds(value, getattr(bound, field)) for (_, field, holds), bound in bounds)


def _split(annotation: Any) -> tuple[Any, list[Any]]:
    if get_origin(annotation) is Annotated:
        kind, *metadata = get_args(annotation)
        return kind, metadata
    return annotation, []


def is_told(bound: Any, value: Any) -> bool:
    """Whether a bound is said of a value: one that is far away is, where it is passed."""
    limit: Any = bound.le if isinstance(bound, Le) else 0
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return limit < 10_000 or (is_number and value > limit)


def _describe(annotation: Any, value: Any) -> str:
    if get_origin(annotation) is Literal:
        return " | ".join(repr(choice) for choice in get_args(annotation))
    kind, metadata = _split(annotation)
    if kind is type(None):
        return "none"
    bounds = [
        f"{_RELATIONS[type(bound)][0]} {getattr(bound, _RELATIONS[type(bound)][1])}"
        for bound in metadata
        if type(bound) in _RELATIONS and is_told(bound, value)
    ]
    infinite = ["inf too"] if MayBeInfinite in metadata else []
    name = _KINDS.get(kind, getattr(kind, "__name__", str(kind)))
    return ", ".join([" ".join([name, " and ".join(bounds)]).strip(), *infinite])


def find_examples(function: Callable, workers: int) -> list[dict[str, Any]]:
    """Arguments to try a protocol with.

    Args:
      function: a protocol. The annotations of its own arguments hold `Examples`, unless they are
        true or false.
      workers: N.

    Returns:
      At least one set of arguments, defaults included: first the flags' defaults with the i-th
      example of each argument, i = 0, 1, ..., then the same with the flags the other way round.

    Raises:
      TypeError: a required argument has no examples.
    """
    columns: dict[str, list[Any]] = {}
    flags: dict[str, bool] = {}
    for name, parameter in inspect.signature(function, eval_str=True).parameters.items():
        kind, metadata = _split(parameter.annotation)
        found = [extra.of(workers) for extra in metadata if isinstance(extra, Examples)]
        if kind is bool:
            flags[name] = parameter.default
        elif found:
            columns[name] = list(found[0])
        elif parameter.default is parameter.empty and name not in _SHARED:
            raise TypeError(f"{function.__name__}: argument {name} has no Examples")
    count = max(map(len, columns.values()), default=1)
    rows = [{name: c[min(row, len(c) - 1)] for name, c in columns.items()} for row in range(count)]
    choices = [flags, {name: not value for name, value in flags.items()}] if flags else [{}]
    return [row | chosen for chosen in choices for row in rows]


def plain(value: Any) -> Any:
    """The value as strict JSON can hold it: NumPy scalars unwrapped, infinity as text."""
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    value = unwrap_all(value)
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, bool | str) or value is None:
        return value
    if isinstance(value, Integral):
        return int(value)
    if isinstance(value, Real):
        return float(value) if math.isfinite(value) else str(float(value))
    return str(value)

"""Arguments say in their annotation what is allowed; here they are held to it, in one line.

What NumPy and JAX have for a number is one, an array without an axis too, and an array is a list.
NumPy alone is known here, so that every room may ask.
"""

import functools
import inspect
import math
from collections.abc import Callable, Mapping
from numbers import Integral, Real
from types import UnionType
from typing import Annotated, Any, Literal, ParamSpec, TypeVar, Union, get_args, get_origin

from annotated_types import Ge, Gt, Le, Lt

P = ParamSpec("P")
T = TypeVar("T")


class MayBeInfinite:
    """Marks a float argument that takes infinity as a value; every other must be finite."""


_RELATIONS = {
    Gt: (">", "gt", lambda value, bound: value > bound),
    Ge: (">=", "ge", lambda value, bound: value >= bound),
    Lt: ("<", "lt", lambda value, bound: value < bound),
    Le: ("<=", "le", lambda value, bound: value <= bound),
}
_KINDS = {int: "an integer", float: "a number", bool: "true or false", str: "a text"}


def read_argument(
    where: str,
    name: str,
    annotation: Any,
    value: Any,
    *,
    others: str = "",
    error: type[ValueError] = ValueError,
) -> Any:
    """Hold one argument to its annotation: a scalar type, its bounds, a literal, a list, a union.

    Args:
      where: the function that takes it.
      name: its name.
      annotation: a type, with `annotated_types` bounds.
      value: what was given.
      others: what else is allowed that no annotation says, for the error.
      error: its type.

    Returns:
      The value; a NumPy or JAX scalar as the Python number that it is, an array as a list of them.

    Raises:
      ValueError: names the argument, its value and what is allowed.
    """
    value = unwrap(value)
    is_union = get_origin(annotation) in (Union, UnionType)
    choices = get_args(annotation) if is_union else [annotation]
    for choice in choices:
        items = _items(choice, value)
        if items is not None:
            return items
        if not _is_list(choice) and _fits(choice, value):
            return value
    told = [*(_describe(choice, value) for choice in choices), others]
    allowed = " or ".join(filter(None, told))
    raise error(f"{where}: {name} is {show(value)}; allowed: {allowed}")


def read_arguments(
    row: Mapping[str, tuple[Any, Any]], read: Callable[..., Any] = read_argument
) -> Callable[[Callable[P, T]], Callable[P, T]]:
    """Hold a function's arguments to its row of a table, as a config's are.

    Args:
      row: argument to (annotation, default); arguments without one are the function's own business.
      read: `read(where, name, annotation, value)` gives what the function takes.

    Returns:
      A decorator.
    """

    def decorate(function: Callable[P, T]) -> Callable[P, T]:
        signature = inspect.signature(function)

        @functools.wraps(function)
        def call(*args: P.args, **kwargs: P.kwargs) -> T:
            bound = signature.bind(*args, **kwargs)
            for name, value in bound.arguments.items():
                if name in row:
                    annotation = row[name][0]
                    bound.arguments[name] = read(function.__name__, name, annotation, value)
            return function(*bound.args, **bound.kwargs)

        return call

    return decorate


def unwrap(value: Any) -> Any:
    """A scalar of NumPy or JAX, an array without an axis too, as the Python scalar that it is."""
    return value.item() if getattr(value, "ndim", None) == 0 and hasattr(value, "item") else value


def unwrap_all(values: Any) -> Any:
    """An array as the list of its scalars; anything else as it is, or unwrapped."""
    return values.tolist() if hasattr(values, "tolist") else unwrap(values)


def show(value: Any) -> str:
    """A value in an error: in one line, and never in more than 60 characters."""
    text = " ".join(repr(value).split())
    return text if len(text) <= 60 else f"{text[:57]}..."


def _is_list(annotation: Any) -> bool:
    """Whether it says a list of scalars."""
    return get_origin(annotation) is list and split_annotation(get_args(annotation)[0])[0] in _KINDS


def _items(annotation: Any, values: Any) -> list[Any] | None:
    """What was given as a list of scalars, if the annotation says one and each is allowed."""
    values = unwrap_all(values)
    if not _is_list(annotation) or not isinstance(values, list | tuple | range):
        return None
    items = [unwrap(value) for value in values]
    return items if all(_fits(get_args(annotation)[0], item) for item in items) else None


def _fits(annotation: Any, value: Any) -> bool:
    if get_origin(annotation) is Literal:
        return value in get_args(annotation)
    kind, metadata = split_annotation(annotation)
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


def split_annotation(annotation: Any) -> tuple[Any, list[Any]]:
    """The type that an annotation names, and what it says of it."""
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
    if _is_list(annotation):
        return f"a list, each {_describe(get_args(annotation)[0], value)}"
    if get_origin(annotation) is Literal:
        return " | ".join(repr(choice) for choice in get_args(annotation))
    kind, metadata = split_annotation(annotation)
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

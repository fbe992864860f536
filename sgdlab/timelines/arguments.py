"""What the arguments of clusters and protocols may be."""

import dataclasses
import functools
import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from numbers import Integral, Real
from typing import Annotated, Any, get_type_hints

from annotated_types import Ge, Gt, Le, Lt

from sgdlab.arguments import read_argument, split_annotation, unwrap_all


class TimelineError(ValueError):
    """A timeline, a cluster or a protocol that cannot be, said in one line."""


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

_SHARED = ("cluster", "updates", "seconds", "gradients", "seed")  # no protocol's own


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


check_argument = functools.partial(read_argument, error=TimelineError)
"""`read_argument` of this room: what is wrong is a `TimelineError`."""


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
        kind, metadata = split_annotation(parameter.annotation)
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

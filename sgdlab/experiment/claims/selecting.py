"""Which points of a sweep a quantity speaks of."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sgdlab.experiment.config.experiment import Point

_MANY = 12  # labels that a line names
MISSING = object()


def select(of: str | Mapping[str, Any] | None, points: Sequence[Point]) -> list[int]:
    """The places of the points that a label, or values in their configs, choose.

    Args:
      of: a label; or dotted paths and values; or None for all of them. A mapping matches what
        holds at least its keys, a text what has that name.
      points: of the sweep.

    Returns:
      Their places.

    Raises:
      ValueError: there is none; says which there are.
    """
    if isinstance(of, str):
        found = [index for index, point in enumerate(points) if point.label == of]
        problem = f"no point is called {of!r}"
    else:
        wanted = dict(of or {})
        found = [i for i, point in enumerate(points) if _matches_all(point, wanted)]
        unknown = [p for p in wanted if all(look_up(point, p) is MISSING for point in points)]
        problem = f"no point has the key {unknown[0]}" if unknown else "no point matches"
    if not found:
        raise ValueError(f"{problem}; allowed: {_labels(points)}")
    return found


def look_up(point: Point, path: str) -> Any:
    """The value at a dotted path of a point's config; `MISSING` where there is none."""
    value: Any = point.plain
    for part in path.split("."):
        if isinstance(value, Mapping) and part in value:
            value = value[part]
        elif isinstance(value, list) and part.isdecimal() and int(part) < len(value):
            value = value[int(part)]
        else:
            return MISSING
    return value


def differs_elsewhere(points: Sequence[Point], path: str) -> bool:
    """Whether points differ in more than the value at a path."""
    rest = [sorted((p, str(v)) for p, v in leaves("", x.plain) if p != path) for x in points]
    return any(each != rest[0] for each in rest)


def leaves(path: str, value: Any) -> Iterator[tuple[str, Any]]:
    """Every value below a value, with its dotted path."""
    items = value.items() if isinstance(value, Mapping) else enumerate(value)
    for key, item in items:
        below = f"{path}.{key}" if path else str(key)
        if isinstance(item, Mapping | list) and item:
            yield from leaves(below, item)
        else:
            yield below, item


def _matches_all(point: Point, wanted: Mapping[str, Any]) -> bool:
    return all(_matches(look_up(point, path), value) for path, value in wanted.items())


def _matches(found: Any, wanted: Any) -> bool:
    if found is MISSING:
        return False
    if isinstance(wanted, str) and isinstance(found, Mapping):
        return found.get("name") == wanted
    if isinstance(wanted, Mapping):
        return isinstance(found, Mapping) and all(
            _matches(found.get(key, MISSING), value) for key, value in wanted.items()
        )
    if isinstance(wanted, list):
        return (
            isinstance(found, list)
            and len(found) == len(wanted)
            and all(map(_matches, found, wanted))
        )
    return isinstance(found, bool) == isinstance(wanted, bool) and found == wanted


def _labels(points: Sequence[Point]) -> str:
    labels = [point.label for point in points[:_MANY] if point.label]
    more = f" and {len(points) - _MANY} more" if len(points) > _MANY else ""
    return f"the labels {', '.join(map(repr, labels))}{more}" if labels else "the only point"

"""What a compiled program sends: its collectives and their bytes, read from its own text.

A claim about communication is checked against what the compiler made, not against what was asked
for. Loops count: a collective in the body of a loop with a known trip count is sent that often.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass

KINDS = ("all-reduce", "all-gather", "reduce-scatter", "all-to-all", "collective-permute")

_ARRAY = re.compile(r"\b(pred|[suf]\d+|bf16|f8\w+|c\d+)\[([\d,]*)\]")
_COMPUTATION = re.compile(r"^(?:ENTRY )?%?([\w.\-]+) \(.*\{$")
_OPERATION = re.compile(r"^\s*(?:ROOT )?%?[\w.\-]+ = (.*?) ([a-z][a-z\-]*)\(")
_WHILE = re.compile(r"body=%?([\w.\-]+)")
_CALLED = re.compile(
    r"(?:to_apply|calls|called_computations=\{|branch_computations=\{)=?%?([\w.\-]+)"
)
_TRIPS = re.compile(r'known_trip_count[^}]*?"n":\s*"(\d+)"')


@dataclass(frozen=True)
class Collective:
    """One collective of a program, as each device sees it.

    Attributes:
      kind: one of `KINDS`.
      arrays: `(dtype, shape)` of each array that it yields on a device.
      group: how many devices take part together.
      times: how often it is sent when the program runs once.
    """

    kind: str
    arrays: tuple[tuple[str, tuple[int, ...]], ...]
    group: int
    times: int

    @property
    def result_bytes(self) -> int:
        """Bytes of the arrays that it yields on a device, once."""
        return sum(_width(dtype) * math.prod(shape) for dtype, shape in self.arrays)

    @property
    def sent_bytes(self) -> float:
        """Bytes that a device sends in all, by the ring algorithm.

        With S bytes yielded and n devices: all-reduce 2S(n − 1)/n, all-gather and all-to-all
        S(n − 1)/n, reduce-scatter S(n − 1), collective-permute S.

        Reference: Pitch Patarasuk and Xin Yuan, "Bandwidth Optimal All-reduce Algorithms for
        Clusters of Workstations", 2009.
        """
        n, size = self.group, self.result_bytes * self.times
        share = (n - 1) / n
        factor = {
            "all-reduce": 2 * share,
            "all-gather": share,
            "all-to-all": share,
            "reduce-scatter": n - 1,
            "collective-permute": 1,
        }
        return factor[self.kind] * size


def find_collectives(text: str) -> list[Collective]:
    """The collectives of a compiled program.

    Args:
      text: `compiled.as_text()`.

    Returns:
      Them, in the order of the text, those of a loop's body with the loop's trips.
    """
    bodies = dict(_computations(text))
    times = _times(bodies)
    found = []
    for name, lines in bodies.items():
        for line in lines:
            match = _OPERATION.match(line)
            kind = match[2].removesuffix("-start") if match else None
            if match and kind in KINDS:
                group = _group(line, text)
                found.append(Collective(kind, _arrays(match[1]), group, times[name]))
    return found


def find_copies(text: str) -> list[tuple[str, tuple[int, ...]]]:
    """`(dtype, shape)` of each array that a compiled program copies, loops counted once."""
    matches = map(_OPERATION.match, text.splitlines())
    types = [match[1] for match in matches if match and match[2] in ("copy", "copy-start")]
    return [array for each in types for array in _arrays(each)]


def _computations(text: str) -> Iterator[tuple[str, list[str]]]:
    name, lines = None, []
    for line in text.splitlines():
        start = _COMPUTATION.match(line)
        if start:
            name, lines = start[1], []
        elif line.startswith("}") and name is not None:
            yield name, lines
            name = None
        else:
            lines.append(line)


def _times(bodies: dict[str, list[str]]) -> dict[str, int]:
    """How often each computation runs, from the trip counts of the loops around it."""
    callers: dict[str, tuple[str, int]] = {}
    for name, lines in bodies.items():
        for line in lines:
            trips = _TRIPS.search(line)
            for called in _WHILE.findall(line):
                callers[called] = name, int(trips[1]) if trips else 1
            for called in _CALLED.findall(line):
                callers.setdefault(called, (name, 1))

    def count(name: str) -> int:
        if name not in callers:
            return 1
        caller, trips = callers[name]
        return trips * count(caller)

    return {name: count(name) for name in bodies}


def _arrays(types: str) -> tuple[tuple[str, tuple[int, ...]], ...]:
    return tuple(
        (dtype, tuple(int(d) for d in shape.split(",") if d))
        for dtype, shape in _ARRAY.findall(types)
    )


def _group(line: str, text: str) -> int:
    """The size of a group, from any of the three ways in which groups are written."""
    if lists := re.search(r"replica_groups=\{\{([\d,]+)\}", line):
        return lists[1].count(",") + 1
    if iota := re.search(r"replica_groups=\[\d+,(\d+)\]", line):
        return int(iota[1])
    if named := re.search(r"replica_groups=mesh\[(.*?)\] \{(.*?)\}", line):
        sizes = dict(re.findall(r"'(\w+)'=(\d+)", named[1]))
        return math.prod(int(sizes[axis]) for axis in re.findall(r"'(\w+)'", named[2]))
    parts = re.search(r"num_partitions=(\d+)", text)
    return int(parts[1]) if parts else 1


def _width(dtype: str) -> int:
    bits = re.search(r"\d+", dtype)
    return max(int(bits[0]) // 8, 1) if bits else 1

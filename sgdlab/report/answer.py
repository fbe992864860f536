"""The answer in a few words, where members race to one goal."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from sgdlab.report.entries import Comparison, Entry
from sgdlab.report.markup import Markup, join, tag

_MOST = 5
"""More members than this are counted."""


def answer(comparison: Comparison) -> Markup:
    """Who is first, who is within the first one's spread, who comes later, and who never does.

    Of every group its best member races, with the median of its replicates. Medians that read
    alike are a tie.
    """
    if not comparison.goal or len(comparison.entries) < 2:
        return Markup("")
    racers = sorted(map(comparison.best, comparison.groups), key=comparison.rank)
    arrived = [entry for entry in racers if np.isfinite(_median(entry))]
    if not arrived:
        text = f"None reaches {comparison.goal} in half of its replicates."
        return tag("p", text, class_="answer")
    first = [entry for entry in arrived if _seconds(entry) == _seconds(arrived[0])]
    low, high = min(e.times.min() for e in first), max(e.times.max() for e in first)
    level = [e for e in arrived if e not in first and _median(e) <= high]
    later = [e for e in arrived if e not in first and _median(e) > high]
    each = {1: "", 2: "both "}.get(len(first), "each ")
    parts = [
        join(
            [f"First to {comparison.goal}: ", _listed(_names(first)), f" {each}{_after(first[0])}"]
        ),
        _part(f"Within {'their' if each else 'its'} spread of {_span(low, high)}", _timed(level)),
        _part("Later", _timed(later, _median(first[0]))),
        _part("Not in half of the replicates", _names([e for e in racers if e not in arrived])),
    ]
    return tag("p", *(Markup(f"{part}. ") for part in parts if part), class_="answer")


def _median(entry: Entry) -> float:
    return float(np.median(entry.times)) if len(entry.times) else np.inf


def _seconds(entry: Entry) -> str:
    return f"{_median(entry):,.3g}\u00a0s"


def _after(entry: Entry) -> str:
    return f"after {_seconds(entry)}"


def _span(low: float, high: float) -> str:
    last = f"{high:,.3g}\u00a0s" if np.isfinite(high) else "never"
    return f"{low:,.3g}\u00a0s to {last}"


def _names(entries: Sequence[Entry]) -> list[Markup]:
    return [tag("strong", entry.label) for entry in entries]


def _timed(entries: Sequence[Entry], first: float | None = None) -> list[Markup]:
    """Names with their times, and how many times as long as the first one's that is."""
    factors = [f" ({_median(entry) / first:.2g}×)" if first else "" for entry in entries]
    return [
        join([name, f" {_after(entry)}{factor}"])
        for name, entry, factor in zip(_names(entries), entries, factors, strict=True)
    ]


def _part(title: str, items: Sequence[Markup]) -> Markup:
    return join([f"{title}: ", _listed(items)]) if items else Markup("")


def _listed(items: Sequence[Markup]) -> Markup:
    """`a, b and c`; what is too many is counted."""
    shown: list[str] = list(items)
    if len(items) > _MOST:
        shown = [*items[: _MOST - 1], f"{len(items) - _MOST + 1} more"]
    return join([join(shown[:-1], ", "), *([" and "] if shown[1:] else []), shown[-1]])

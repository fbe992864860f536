"""The answer in a few words, where members race to one goal."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from sgdlab.report.entries import Comparison
from sgdlab.report.markup import Markup, join, tag
from sgdlab.report.ranking import Racer, race

_MOST = 5
"""More members than this are counted."""


def answer(comparison: Comparison) -> Markup:
    """Who is first, who comes later, and who never does; what is not told apart is a tie.

    Of every group its best member races, with the median of its replicates.
    """
    if not comparison.goal or len(comparison.entries) < 2:
        return Markup("")
    tiers = race(comparison)
    arrived = [tier for tier in tiers if np.isfinite(tier[0].time)]
    never = [racer for tier in tiers[len(arrived) :] for racer in tier]
    absent = [entry.label for entry in comparison.entries if not len(entry.times)]
    if not arrived:
        first = [Markup(f"None reaches {comparison.goal} in half of its replicates")]
        parts = [*first, _part("Not run to the end", _bold(absent))]
    else:
        parts = [
            _first(comparison, arrived[0]),
            _later(arrived[1:], arrived[0][0].time),
            _part("Not in half of the replicates", _names(never)),
            _part("Not run to the end", _bold(absent)),
            _ground(arrived),
        ]
    return tag("p", *(Markup(f"{part}. ") for part in parts if part), class_="answer")


def _first(comparison: Comparison, tier: Sequence[Racer]) -> Markup:
    return join([f"First to {comparison.goal}: ", _tied(tier)])


def _later(tiers: Sequence[Sequence[Racer]], first: float) -> Markup:
    """Tier behind tier, each as many times as long as the first one's."""
    shown, left = list(tiers), 0
    while len(shown) > 1 and sum(map(len, shown)) > _MOST:
        left += len(shown.pop())
    texts = [_tied(tier, first) for tier in shown]
    if left:
        texts.append(Markup(f"{left} more"))
    return join(["Later: ", join(texts, "; ")]) if texts else Markup("")


def _tied(tier: Sequence[Racer], first: float | None = None) -> Markup:
    names = [_timed(racer, first) for racer in tier]
    return join([_listed(names), ", a tie" if len(tier) > 1 else ""])


def _ground(arrived: Sequence[Sequence[Racer]]) -> Markup:
    """What the order rests on."""
    sizes = {len(racer.entry.times) for tier in arrived for racer in tier}
    if sizes == {1}:
        several = sum(map(len, arrived)) > 1
        return Markup("One replicate each: how much of it is luck is not known" * several)
    if all(len(tier) == 1 for tier in arrived):
        return Markup("")
    return Markup("A tie is what a paired bootstrap over seeds and clocks doesn't tell apart")


def _seconds(time: float) -> str:
    return f"{time:,.3g}\u00a0s"


def _bold(names: Sequence[str]) -> list[Markup]:
    return [tag("strong", name) for name in names]


def _names(racers: Sequence[Racer]) -> list[Markup]:
    return _bold([racer.entry.label for racer in racers])


def _timed(racer: Racer, first: float | None = None) -> Markup:
    """A name with its time, and how many times as long as the first one's that is."""
    if not np.isfinite(racer.time):
        return join([*_names([racer]), " (not in half of its replicates)"])
    factor = f" ({racer.time / first:.2g}×)" if first else ""
    return join([*_names([racer]), f" after {_seconds(racer.time)}{factor}"])


def _part(title: str, items: Sequence[Markup]) -> Markup:
    return join([f"{title}: ", _listed(items)]) if items else Markup("")


def _listed(items: Sequence[Markup]) -> Markup:
    """`a, b and c`; what is too many is counted."""
    shown: list[str] = list(items)
    if len(items) > _MOST:
        shown = [*items[: _MOST - 1], f"{len(items) - _MOST + 1} more"]
    return join([join(shown[:-1], ", "), *([" and "] if shown[1:] else []), shown[-1]])

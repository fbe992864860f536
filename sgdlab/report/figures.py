"""The figures of a report, and those of progress: metrics against time and against updates."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from sgdlab import plots
from sgdlab.plots import Series
from sgdlab.report.entries import Comparison, Entry
from sgdlab.statistics import with_worst

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MAX_GROUPS = 8
"""More groups than this are left to the table."""
WIDE = 30.0
"""Values that are as many times apart need a logarithmic axis."""
ENDED = ("done", "aborted")
"""The status of a member whose replicates have all come to an end."""
_CLOCKS = {"time": "simulated seconds", "update": "updates"}


@dataclass(frozen=True, eq=False)
class Exhibit:
    """A figure, its heading, its caption, and the name of the data set that it draws."""

    figure: Figure
    title: str
    caption: str
    data: str


def progress(comparison: Comparison) -> Iterator[Exhibit]:
    """The metric and the loss against simulated time and against updates."""
    metrics = dict.fromkeys([comparison.metric, "loss"])
    for metric in metrics:
        entries = [e for e in comparison.entries if e.replicates and metric in e.member.evaluations]
        for clock in _CLOCKS if entries else ():
            yield _curves(comparison, entries, metric, clock)


def _curves(comparison: Comparison, entries: Sequence[Entry], metric: str, clock: str) -> Exhibit:
    log_y, y_limits = _vertical(entries, metric)
    lines = {e: _line(e, clock, metric, log_y) for e in entries}
    shown = _shown(comparison)
    series = [
        Series(
            entry.label if len(entries) > 1 else "",
            *lines[entry],
            colour=entry.colour,
            faint=entry not in shown,
        )
        for entry in sorted(entries, key=lambda e: (e.colour, e not in shown))
    ]
    goal = comparison.goal
    rows = [y for _, y in lines.values()]
    if goal and goal.metric == metric and goal.upward:
        y_limits = _near_target(rows, goal.value)
    log_x = clock == "update" and spread([x[-1] for x, _ in lines.values() if len(x)]) > 12
    figure = plots.curves(
        [_positive(item) for item in series] if log_x else series,
        x_label=_CLOCKS[clock],
        y_label=f"{metric} on held-out data",
        log_x=log_x,
        log_y=log_y,
        y_limits=y_limits,
        target=goal.value if goal and goal.metric == metric else None,
    )
    replicates = max(len(entry.replicates) for entry in entries)
    caption = f"{capital(plots.band_name(replicates))}."
    if any(entry.member.status not in ENDED for entry in entries):
        caption += " Some have not ended: a line goes as far as all of its replicates that began."
    if any(item.faint for item in series):
        caption += " Strong: the member of each group with the best median; pale: the others."
    if y_limits:
        below = not all(goes_down(entry, metric) for entry in entries)
        cut = f"below {y_limits[0]:.2g}" if below else f"above {y_limits[1]:.3g}"
        caption += f" Values {cut} are cut off."
    title = f"{capital(metric)} against {_CLOCKS[clock]}"
    return Exhibit(figure, title, caption, "evaluations")


def _line(entry: Entry, clock: str, metric: str, log: bool) -> tuple[np.ndarray, np.ndarray]:
    places, values = (
        [table[name].to_numpy(float) for table in entry.replicates.values()]
        for name in (clock, metric)
    )
    lost = float(with_worst(np.nan, metric, entry.directions))
    ended = entry.member.status in ENDED
    return plots.resample(places, values, log=log, lost=lost, ended=ended)


def _shown(comparison: Comparison) -> set[Entry]:
    """The members that are drawn in full: all, or the best of the best groups."""
    if not comparison.grouped and len(comparison.entries) <= MAX_GROUPS:
        return set(comparison.entries)
    best = [comparison.best(group) for group in comparison.groups]
    return set(sorted(best, key=comparison.rank)[:MAX_GROUPS])


def _positive(item: Series) -> Series:
    keep = item.x > 0
    return Series(item.label, item.x[keep], item.y[:, keep], item.colour, item.faint)


def spread(values: Sequence[float] | np.ndarray) -> float:
    """How many times the smallest the largest is, of those above zero."""
    positive = [value for value in values if value > 0]
    return max(positive) / min(positive) if positive else 1.0


def _vertical(entries: Sequence[Entry], metric: str) -> tuple[bool, tuple[float, float] | None]:
    """Whether the axis is logarithmic, and its range where a diverged run would set it."""
    values = _evaluated(entries, metric)
    if not len(values) or not all(goes_down(entry, metric) for entry in entries):
        return False, None
    top = ceiling(entries, metric)
    low, high = float(values.min()), float(values.max())
    log = low > 0 and min(high, top) / low > WIDE
    bottom = 0.8 * low if log else min(low, 0.0)
    return log, (bottom, top) if high > top else None


def goes_down(entry: Entry, metric: str) -> bool:
    """Whether less of a metric is better, as its task says."""
    return bool(with_worst(np.nan, metric, entry.directions) == np.inf)


def _evaluated(entries: Sequence[Entry], metric: str, end: int | None = None) -> np.ndarray:
    """The finite values of a metric in all evaluations, or in the first `end` of each replicate."""
    tables = [table for entry in entries for table in entry.replicates.values() if metric in table]
    values = np.concatenate([np.empty(0), *(t[metric].iloc[:end].to_numpy(float) for t in tables)])
    return values[np.isfinite(values)]


def ceiling(entries: Sequence[Entry], metric: str) -> float:
    """What should fall has diverged above it: twice the largest value at the start.

    Or twice the median of all evaluations, where runs start so low that most rise above that.
    """
    falls = all(goes_down(entry, metric) for entry in entries)
    if not falls or not len(values := _evaluated(entries, metric)):
        return np.inf
    starts = _evaluated(entries, metric, end=1)
    level = max(starts.max(initial=0.0), np.median(values))
    return 2.0 * float(level) if level > 0 else np.inf


def _near_target(rows: Sequence[np.ndarray], target: float) -> tuple[float, float] | None:
    """The range of what ends at 1 in which lines cross a target close to it, if there is more."""
    finite = np.concatenate([y[np.isfinite(y)] for y in rows])
    bottom = target - 6 * (1 - target)
    above = sum(bool((y >= bottom).any()) for y in rows) == len(rows)
    if not len(finite) or target >= 1 or finite.max() > 1 or not above or bottom <= finite.min():
        return None
    return bottom, 1.0 + 0.02 * (1 - bottom)


def capital(text: str) -> str:
    """The text with a capital letter in front."""
    return text[:1].upper() + text[1:]

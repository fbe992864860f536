"""What came out: time to the goal and the final metric, of each member or against an axis."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from sgdlab import plots
from sgdlab.plots import Series
from sgdlab.report.entries import Comparison, Entry, short_names
from sgdlab.report.figures import MAX_GROUPS, WIDE, Exhibit, ceiling, goes_down, spread

MAX_ROWS = 24
_LOST = {"never": "never got there", "diverged": "diverged"}


@dataclass(frozen=True, eq=False)
class _Result:
    """A number for every replicate of every member.

    Attributes:
      title, unit: what it is.
      values: per member `[S]` float; inf or −inf, the worst there is, where there is no number.
      missing: why there is none.
      log: whether it needs a logarithmic axis.
      from_zero: whether ratios count.
      remark: ends the caption.
    """

    title: str
    unit: str
    values: dict[Entry, np.ndarray]
    missing: str
    log: bool
    from_zero: bool
    remark: str = ""


def outcomes(comparison: Comparison) -> Iterator[Exhibit]:
    """Time to the goal, and the metric in the end."""
    entries = comparison.entries
    if len(entries) < 2:
        return
    draw = _against if comparison.numeric else _rows
    if comparison.goal and any(len(entry.times) for entry in entries):
        yield draw(comparison, _times(comparison))
    if any(len(entry.final(comparison.metric)) for entry in entries):
        yield draw(comparison, _finals(comparison))


def _times(comparison: Comparison) -> _Result:
    values = {entry: entry.times for entry in comparison.entries}
    unit = f"simulated seconds to {comparison.goal}"
    log = bool(comparison.numeric) and spread(_finite(values)) > 8
    return _Result("Time to the target", unit, values, "never", log, from_zero=True)


def _finals(comparison: Comparison) -> _Result:
    """A value above the ceiling has diverged, whether or not it is a number still."""
    metric = comparison.metric
    top = ceiling(comparison.entries, metric)
    given = {entry: entry.final(metric) for entry in comparison.entries}
    values = {e: np.where(np.isnan(v) | (v > top), np.inf, v) for e, v in given.items()}
    known = _finite(values)
    falls = all(goes_down(entry, metric) for entry in comparison.entries)
    log = falls and bool((known > 0).all()) and spread(known) > WIDE
    far = bool((_finite(given) > top).any())
    remark = f" Diverged: not finite, or above {top:.3g}." if far else ""
    title, unit = f"Final {metric}", f"{metric} at the end"
    return _Result(title, unit, values, "diverged", log, from_zero=False, remark=remark)


def _finite(values: dict[Entry, np.ndarray]) -> np.ndarray:
    together = np.concatenate(list(values.values()))
    return together[np.isfinite(together)]


def _against(comparison: Comparison, result: _Result) -> Exhibit:
    """Against the numeric axis, a line per group."""
    axis = comparison.numeric or ""
    ranked = sorted(comparison.groups, key=lambda g: comparison.rank(comparison.best(g)))
    chosen = [group for group in comparison.groups if group in ranked[:MAX_GROUPS]]
    series = [
        _series(group, [e for e in comparison.entries if e.group == group], result)
        for group in chosen
    ]
    positions = np.concatenate([item.x for item in series])
    name = short_names([axis])[axis]
    figure = plots.sweep(
        series,
        x_label=name,
        y_label=result.unit,
        log_x=positions.min() > 0 and spread(positions) >= 8,
        log_y=result.log,
        missing=result.missing,
    )
    caption = f"Dots: replicates; line: their median. {_crosses(result)}{result.remark}".rstrip()
    if len(chosen) < len(ranked):
        caption += f" The {len(chosen)} of {len(ranked)} groups with the best medians."
    caption += _unknown(result)
    return Exhibit(figure, f"{result.title} against {name}", caption, "outcomes")


def _crosses(result: _Result) -> str:
    """What crosses stand for, where there are any."""
    if not any(np.isinf(values).any() for values in result.values.values()):
        return ""
    return (
        f"Crosses: replicates that {_LOST[result.missing]}, how many of how many; in the median "
        "they count as the worst. Pale where it is finite still."
    )


def _unknown(result: _Result) -> str:
    """How many members have nothing to draw."""
    missing = sum(not len(values) for values in result.values.values())
    return f" {missing} more {'has' if missing == 1 else 'have'} not ended." if missing else ""


def _series(group: str, entries: Sequence[Entry], result: _Result) -> Series:
    entries = sorted(entries, key=lambda entry: entry.position or 0.0)
    columns = [result.values[entry] for entry in entries]
    y = np.full((max(map(len, columns)), len(columns)), np.nan)
    for index, column in enumerate(columns):
        y[: len(column), index] = column
    x = np.asarray([entry.position for entry in entries], float)
    return Series(group, x, y, colour=entries[0].colour)


def _rows(comparison: Comparison, result: _Result) -> Exhibit:
    """A row per member, the best first."""
    known = [entry for entry in comparison.entries if len(result.values[entry])]
    entries = sorted(known, key=comparison.rank)[:MAX_ROWS]
    figure = plots.comparison(
        [entry.label for entry in entries],
        [result.values[entry] for entry in entries],
        x_label=result.unit,
        colours=[entry.colour for entry in entries],
        missing=result.missing,
        from_zero=result.from_zero,
        log=result.log,
    )
    caption = f"Dots: replicates; upright bar: their median.{result.remark}"
    if len(entries) < len(known):
        caption += f" The {len(entries)} of {len(known)} members with the best medians."
    caption += _unknown(result)
    return Exhibit(figure, result.title, caption, "outcomes")

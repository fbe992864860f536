"""Members side by side: points per replicate, busy workers."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from sgdlab.plots import theme

_ROW = 31.0
_WITH_COLUMN = 1.24
"""The axis's length, in spans of the values, where a column for what is not finite follows."""


def comparison(
    labels: Sequence[str],
    values: Sequence[np.ndarray],
    *,
    x_label: str,
    colours: Sequence[int] | None = None,
    missing: str = "never",
    from_zero: bool = True,
    log: bool = False,
) -> Figure:
    """A row per member: a dot per replicate, a bar at the median of all replicates.

    Args:
      labels: names, one per row.
      values: per row `[S]` float; what is not finite stands in a column of its own at the right,
        and counts in the median: −inf below all others, inf and NaN above.
      x_label: name and unit of the values.
      colours: index of each row's category; by default its place.
      missing: heads the column of values that are not finite.
      from_zero: begin the axis at zero, for values whose ratios count.
      log: a logarithmic axis, for values above zero; it does not begin at zero.

    Returns:
      The figure.
    """
    height = _ROW * len(labels)
    figure = theme.new_figure(height + 54)
    axes = theme.add_axes(figure, 10, 16, theme.WIDTH - 20, height)
    finite = [np.asarray(v, float)[np.isfinite(v)] for v in values]
    lost = [len(given) - len(here) for here, given in zip(finite, values, strict=True)]
    low, high = _range(np.concatenate(finite), from_zero, log)
    for row, (label, given) in enumerate(zip(labels, values, strict=True)):
        category = row if colours is None else colours[row]
        _draw_row(axes, row, np.asarray(given, float), theme.series_colour(category))
        style = {"va": "center", "fontsize": theme.TEXT, "color": theme.INK, "parse_math": False}
        level = axes.get_yaxis_transform()
        axes.text(0, row - 0.22, theme.shorten(label), transform=level, **style)
    axes.set_ylim(len(labels) - 0.38, -0.55)
    axes.set_yticks([])
    theme.number_axis(axes, "x", log=log)
    _set_range(axes, low, high, (_WITH_COLUMN if any(lost) else 1.04), log)
    if any(lost):
        _draw_column(axes, missing, lost, [len(given) for given in values])
    axes.set_xticks([tick for tick in axes.get_xticks() if low <= tick <= high])
    theme.x_title(axes, x_label)
    return figure


def _range(values: np.ndarray, from_zero: bool, log: bool) -> tuple[float, float]:
    """What the axis spans."""
    if not len(values):
        return (0.1, 1.0) if log else (0.0, 1.0)
    low, high = float(np.min(values)), float(np.max(values))
    if log:
        return low / (high / low) ** 0.06, high if high > low else 10 * low
    low = min(low, 0.0) if from_zero else low - 0.06 * (high - low or abs(high) or 1.0)
    return (low, high) if high > low else (low, low + 1.0)


def _set_range(axes: Axes, low: float, high: float, reach: float, log: bool) -> None:
    """From low to `reach` times as far as high."""
    last = low * (high / low) ** reach if log else low + reach * (high - low)
    axes.set_xlim(low, last)


def _draw_column(axes: Axes, name: str, lost: Sequence[int], replicates: Sequence[int]) -> None:
    """At the right, behind a rule: how many replicates of each row have no finite value."""
    level = axes.get_yaxis_transform()
    place = [1.06 / _WITH_COLUMN] * 2
    axes.plot(place, [0, 1], color=theme.RULE, linewidth=0.8, transform=axes.transAxes)
    style = {"ha": "center", "fontsize": theme.SMALL, "transform": level, "parse_math": False}
    middle = 1.15 / _WITH_COLUMN
    axes.text(middle, -0.55, theme.printable(name), va="bottom", color=theme.MUTED, **style)
    for row, (count, every) in enumerate(zip(lost, replicates, strict=True)):
        if count:
            text = f"{count} of {every}"
            axes.text(middle, row + 0.25, text, va="center", color=theme.INK, **style)


def _draw_row(axes: Axes, row: int, values: np.ndarray, colour: str) -> None:
    level = row + 0.25
    axes.axhline(level, color=theme.RULE, linewidth=0.8, zorder=0)
    here = values[np.isfinite(values)]
    if not len(here):
        return
    axes.plot([here.min(), here.max()], [level, level], color=colour, linewidth=1.2, alpha=0.6)
    style = {"color": colour, "alpha": 0.5, "markersize": 5.5, "markeredgewidth": 0}
    axes.plot(here, np.full(len(here), level), "o", clip_on=False, **style)
    middle = np.median(np.where(np.isnan(values), np.inf, values))
    if np.isfinite(middle):
        axes.plot(middle, level, "|", color=colour, markersize=10, markeredgewidth=2.4)


def utilisation(
    shares: Sequence[np.ndarray],
    *,
    labels: Sequence[str],
    colours: Sequence[int] | None = None,
) -> Figure:
    """A panel per timeline, a bar per worker: the share of time it was busy, the rest waiting.

    Args:
      shares: per timeline `[N]` float in [0, 1].
      labels: a name per timeline.
      colours: index of each timeline's category; by default its place.

    Returns:
      The figure.
    """
    columns = min(3, len(shares))
    rows = -(-len(shares) // columns)
    workers = max(len(share) for share in shares)
    bar = float(np.clip(150 / workers, 1.2, 14.0))
    height, head, gap = bar * workers, 32.0, 14.0
    figure = theme.new_figure(rows * (head + height + 22) + 18)
    width = (theme.WIDTH - 28 - gap * (columns - 1) - 8) / columns
    for index, (share, label) in enumerate(zip(shares, labels, strict=True)):
        left = 28 + (index % columns) * (width + gap)
        top = (index // columns) * (head + height + 22) + head
        axes = theme.add_axes(figure, left, top, width, height)
        colour = theme.series_colour(index if colours is None else colours[index])
        text = theme.shorten(label, int(width / 5.6))
        _draw_panel(axes, np.asarray(share), workers, text, colour)
        if index % columns:
            axes.set_yticks([])
    title = "share of the time that each worker was busy (pale: waiting)"
    style = {"ha": "center", "va": "bottom", "fontsize": theme.TEXT, "color": theme.INK}
    figure.text(0.5, 4 / (figure.get_size_inches()[1] * 72), title, **style)
    return figure


def _draw_panel(axes: Axes, share: np.ndarray, workers: int, label: str, colour: str) -> None:
    """A worker stands at the same height in every panel, however many there are in this one."""
    rows = np.arange(workers)
    height = 0.8 if workers <= 40 else 1.0
    axes.barh(rows[: len(share)], np.ones(len(share)), height, color=theme.RULE)
    axes.barh(rows[: len(share)], share, height, color=colour)
    axes.set_ylim(workers - 0.5, -0.5)
    axes.set_xlim(0, 1)
    axes.set_xticks([0, 0.5, 1], ["0", "50", "100%"])
    axes.get_xticklabels()[-1].set_horizontalalignment("right")
    spacing = next((s for s in (1, 2, 5, 10, 20, 50, 100) if workers / s <= 20), 500)
    axes.set_yticks(rows[::spacing], [str(row) for row in rows[::spacing]])
    theme.note(axes, 0, 17, label)
    style = {"fontsize": theme.SMALL, "color": theme.MUTED}
    theme.note(axes, 0, 5, f"mean {share.mean():.0%}", **style)

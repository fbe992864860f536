"""Members side by side: points per replicate, a numeric axis of a sweep, busy workers."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.transforms import ScaledTranslation

from sgdlab.plots import theme
from sgdlab.plots.lines import Series, add_legend, legend_height

_ROW = 31.0


def comparison(
    labels: Sequence[str],
    values: Sequence[np.ndarray],
    *,
    x_label: str,
    colours: Sequence[int] | None = None,
    missing: str = "never",
    from_zero: bool = True,
) -> Figure:
    """A row per member: a dot per replicate, a bar at the median.

    Args:
      labels: names, one per row.
      values: per row `[S]` float; what is not finite stands in a column of its own at the right.
      x_label: name and unit of the values.
      colours: index of each row's category; by default its place.
      missing: heads the column of values that are not finite.
      from_zero: begin the axis at zero, for values whose ratios count.

    Returns:
      The figure.
    """
    height = _ROW * len(labels)
    figure = theme.new_figure(height + 54)
    axes = theme.add_axes(figure, 10, 16, theme.WIDTH - 20, height)
    finite = [np.asarray(v, float)[np.isfinite(v)] for v in values]
    never = any(len(f) < len(v) for f, v in zip(finite, values, strict=True))
    low, high = _range(np.concatenate(finite), from_zero)
    span = high - low
    for row, (label, here, given) in enumerate(zip(labels, finite, values, strict=True)):
        category = row if colours is None else colours[row]
        _draw_row(axes, row, here, theme.series_colour(category))
        style = {"va": "center", "fontsize": theme.TEXT, "color": theme.INK, "parse_math": False}
        axes.text(low, row - 0.22, theme.shorten(label), **style)
        if len(here) < len(given):
            text = f"{len(given) - len(here)} of {len(given)}"
            style = {"va": "center", "ha": "center", "fontsize": theme.SMALL, "color": theme.INK}
            axes.text(low + 1.15 * span, row + 0.25, text, **style)
    if never:
        axes.axvline(low + 1.06 * span, color=theme.RULE, linewidth=0.8)
        style = {"va": "bottom", "ha": "center", "fontsize": theme.SMALL, "color": theme.MUTED}
        axes.text(low + 1.15 * span, -0.55, missing, **style)
    axes.set_ylim(len(labels) - 0.38, -0.55)
    axes.set_xlim(low, low + (1.24 if never else 1.04) * span)
    axes.set_yticks([])
    theme.number_axis(axes, "x")
    axes.set_xticks([tick for tick in axes.get_xticks() if low <= tick <= low + 1.02 * span])
    theme.x_title(axes, x_label)
    return figure


def _range(values: np.ndarray, from_zero: bool) -> tuple[float, float]:
    low, high = float(np.min(values, initial=np.inf)), float(np.max(values, initial=-np.inf))
    if not len(values):
        return 0.0, 1.0
    low = min(low, 0.0) if from_zero else low - 0.06 * (high - low or abs(high) or 1.0)
    return (low, high) if high > low else (low, low + 1.0)


def _draw_row(axes: Axes, row: int, values: np.ndarray, colour: str) -> None:
    level = row + 0.25
    axes.axhline(level, color=theme.RULE, linewidth=0.8, zorder=0)
    if not len(values):
        return
    axes.plot([values.min(), values.max()], [level, level], color=colour, linewidth=1.2, alpha=0.6)
    style = {"color": colour, "alpha": 0.5, "markersize": 5.5, "markeredgewidth": 0}
    axes.plot(values, np.full(len(values), level), "o", clip_on=False, **style)
    axes.plot(np.median(values), level, "|", color=colour, markersize=10, markeredgewidth=2.4)


def sweep(
    series: Sequence[Series],
    *,
    x_label: str,
    y_label: str,
    log_x: bool = False,
    log_y: bool = False,
    missing: str = "never",
) -> Figure:
    """A result against a numeric axis of a sweep: the median as a line, replicates as dots.

    Args:
      series: a line each; x `[K]` are the values of the axis, y `[S, K]` the results of replicates.
        Where the median is not finite a cross stands in a strip above the axes, and the line ends.
      x_label, y_label: names and units.
      log_x, log_y: logarithmic axes.
      missing: names the strip.

    Returns:
      The figure.
    """
    labels = [theme.shorten(item.label) for item in series if item.label]
    absent = any(_lost(item).any() for item in series)
    top = legend_height(labels) + 27 + (25 if absent else 0)
    figure = theme.new_figure(top + 180 + 38)
    axes = theme.add_axes(figure, 46, top, theme.WIDTH - 60, 180)
    handles = []
    for index, item in enumerate(series):
        category = index if item.colour is None else item.colour
        offset = (index - (len(series) - 1) / 2) * 2.6
        style = {"color": theme.series_colour(category)}
        _draw_points(axes, item, offset, style)
        handles.append(Line2D([], [], marker="o", markersize=4, color=style["color"]))
    axes.margins(x=0.06, y=0.08)
    theme.number_axis(axes, "x", log=log_x)
    if log_x or len(series[0].x) <= 7:
        places = np.unique(np.concatenate([item.x for item in series]))
        axes.set_xticks(places[:: -(-len(places) // 8)])
    theme.number_axis(axes, "y", log=log_y)
    theme.x_title(axes, x_label)
    theme.note(axes, 0, 35 if absent else 10, y_label, left_edge=True)
    if absent:
        style = {"fontsize": theme.SMALL, "color": theme.MUTED}
        theme.note(axes, 0, 15, missing, left_edge=True, **style)  # above the crosses
    add_legend(figure, handles, labels)
    return figure


def _lost(item: Series) -> np.ndarray:
    """`[K]` bool: where half of the replicates or more have no finite value."""
    y = np.atleast_2d(item.y)
    return 2 * np.isfinite(y).sum(axis=0) <= len(y)


def _draw_points(axes: Axes, item: Series, offset: float, style: dict) -> None:
    """Neighbouring series are moved apart by a few points, so that dots don't hide one another."""
    figure = theme.figure_of(axes)
    shift = ScaledTranslation(offset / 72, 0, figure.dpi_scale_trans)
    y, lost = np.atleast_2d(item.y), _lost(item)
    known = np.where(np.isfinite(y), y, np.nan)
    middle = np.where(lost, np.nan, np.median(np.where(np.isfinite(y), y, np.inf), axis=0))
    moved = axes.transData + shift
    dots = {"markersize": 3.6, "alpha": 0.45, "markeredgewidth": 0, "transform": moved}
    places = np.broadcast_to(item.x, y.shape).ravel()
    axes.plot(places, known.ravel(), "o", **dots, **style)
    axes.update_datalim(np.stack([places, known.ravel()], axis=1))
    everywhere = np.stack([item.x, np.zeros(len(item.x))], axis=1)
    axes.update_datalim(everywhere, updatey=False)
    axes.plot(item.x, middle, "-", linewidth=1.6, transform=moved, **style)
    axes.plot(item.x, middle, "_", markersize=8, markeredgewidth=2, transform=moved, **style)
    above = axes.get_xaxis_transform() + ScaledTranslation(
        offset / 72, 6 / 72, figure.dpi_scale_trans
    )
    cross = {"markersize": 5, "markeredgewidth": 1.4, "clip_on": False, "transform": above}
    axes.plot(item.x[lost], np.ones(lost.sum()), "x", **cross, **style)


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
        _draw_panel(axes, np.asarray(share), theme.shorten(label, int(width / 5.6)), colour)
        if index % columns:
            axes.set_yticks([])
    text = "share of the time that each worker was busy (pale: waiting)"
    style = {"ha": "center", "va": "bottom", "fontsize": theme.TEXT, "color": theme.INK}
    figure.text(0.5, 4 / (figure.get_size_inches()[1] * 72), text, **style)
    return figure


def _draw_panel(axes: Axes, share: np.ndarray, label: str, colour: str) -> None:
    rows = np.arange(len(share))
    height = 0.8 if len(share) <= 40 else 1.0
    axes.barh(rows, np.ones(len(share)), height, color=theme.RULE)
    axes.barh(rows, share, height, color=colour)
    axes.set_ylim(len(share) - 0.5, -0.5)
    axes.set_xlim(0, 1)
    axes.set_xticks([0, 0.5, 1], ["0", "50", "100%"])
    axes.get_xticklabels()[-1].set_horizontalalignment("right")
    spacing = next((s for s in (1, 2, 5, 10, 20, 50, 100) if len(share) / s <= 20), 500)
    axes.set_yticks(rows[::spacing], [str(row) for row in rows[::spacing]])
    theme.note(axes, 0, 17, label)
    style = {"fontsize": theme.SMALL, "color": theme.MUTED}
    theme.note(axes, 0, 5, f"mean {share.mean():.0%}", **style)

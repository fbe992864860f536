"""Labelled lines with a band over their replicates."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from sgdlab.plots import theme

_FEW = 4
"""At so few places a line shows where it was known."""


@dataclass(frozen=True, eq=False)
class Series:
    """One line of a figure.

    Attributes:
      label: its name in the legend; "" leaves it out.
      x: `[K]` float, increasing.
      y: `[S, K]` float, a row per replicate (a seed, a draw of the clocks); `[K]` is one replicate.
        NaN where a value is not known, inf or −inf where it is lost, above or below all.
      colour: index of its category, which sets colour and dashes; by default its place in the list.
      faint: draw it thin and pale, without band and legend: context for the others.
    """

    label: str
    x: np.ndarray
    y: np.ndarray
    colour: int | None = None
    faint: bool = False


def band(y: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Low edge, median and high edge over replicates.

    The edges are the smallest and the largest value of fewer than ten replicates, else the 10th and
    the 90th percentile, and reach no further than finite values do. The median is of all
    replicates, the lost ones above or below all others; it is NaN where half of them or more are
    lost, or where the value of one is not known.

    Args:
      y: `[S, K]` float; inf and −inf are lost, NaN is not known.

    Returns:
      Three `[K]` float64 arrays; NaN where nothing is known.
    """
    y = np.asarray(y, float)
    finite = np.isfinite(y)
    known = finite.sum(axis=0)
    low, middle, high = (np.full(y.shape[1], np.nan) for _ in range(3))
    half = 2 * known > len(y)
    middle[half] = np.median(y[:, half], axis=0)
    some, here = y[:, known > 0], finite[:, known > 0]
    least = np.min(some, axis=0, where=here, initial=np.inf)
    most = np.max(some, axis=0, where=here, initial=-np.inf)
    edges = (0, 100) if len(y) < 10 else (10, 90)
    low[known > 0], high[known > 0] = np.nanpercentile(np.clip(some, least, most), edges, axis=0)
    return low, middle, high


def band_name(replicates: int) -> str:
    """What `band` draws, in words."""
    if replicates < 2:
        return "one replicate"
    edges = "all values" if replicates < 10 else "10th to 90th percentile"
    return f"line: median of {replicates} replicates; band: {edges}"


def curves(
    series: Sequence[Series],
    *,
    x_label: str,
    y_label: str,
    log_x: bool = False,
    log_y: bool = False,
    target: float | None = None,
    y_limits: tuple[float, float] | None = None,
    axes: Axes | None = None,
) -> Figure:
    """Lines in one set of axes: the median over replicates, inside a band.

    Args:
      series: what to draw, in the order of the legend.
      x_label: name and unit of x.
      y_label: name and unit of y; it stands above the axis.
      log_x, log_y: logarithmic axes; values that are not positive are left out.
      target: a level of y to mark.
      y_limits: the range of y to show; by default all of it.
      axes: draw here; by default in a new figure.

    Returns:
      The figure.
    """
    named = [(index, item) for index, item in enumerate(series) if item.label and not item.faint]
    axes = axes or _room_for(named, target)
    for index, item in enumerate(series):
        _draw(axes, item, index, log_y)
    if target is not None:
        _mark(axes, target)
    axes.margins(x=0.01)
    if y_limits is not None:
        axes.set_ylim(*y_limits)
    theme.number_axis(axes, "x", log=log_x)
    theme.number_axis(axes, "y", log=log_y)
    if y_limits is not None:
        axes.set_ylim(*y_limits)
    theme.axis_titles(axes, x_label, y_label)
    return theme.figure_of(axes)


def _draw(axes: Axes, item: Series, index: int, log_y: bool) -> None:
    category = index if item.colour is None else item.colour
    colour = theme.series_colour(category)
    low, middle, high = band(np.atleast_2d(item.y))
    if log_y:
        low, middle, high = (np.where(edge > 0, edge, np.nan) for edge in (low, middle, high))
    if item.faint:
        axes.plot(item.x, middle, color=colour, linewidth=0.9, alpha=0.35, zorder=2)
        return
    if len(np.atleast_2d(item.y)) > 1:
        axes.fill_between(item.x, low, high, color=colour, alpha=0.18, linewidth=0, zorder=3)
    style = {"color": colour, "linestyle": theme.series_dash(category), "linewidth": 1.8}
    axes.plot(item.x, middle, zorder=4, solid_capstyle="round", **style)
    if len(item.x) <= _FEW:
        axes.plot(item.x, middle, "o", color=colour, markersize=4, zorder=4)


def _mark(axes: Axes, target: float) -> None:
    axes.axhline(target, color=theme.INK, linewidth=0.9, linestyle=(0, (2, 2)), zorder=1)
    axes.annotate(
        f"target\n{theme.plain(target)}",
        (1, target),
        xycoords=("axes fraction", "data"),
        xytext=(4, 0),
        textcoords="offset points",
        va="center",
        fontsize=theme.SMALL,
        color=theme.INK,
        annotation_clip=False,
    )


def _room_for(named: list[tuple[int, Series]], target: float | None) -> Axes:
    """Axes in a figure of their own, below a legend that takes as many rows as it needs."""
    handles, labels = [], []
    for index, item in named:
        category = index if item.colour is None else item.colour
        style = {"color": theme.series_colour(category), "linestyle": theme.series_dash(category)}
        handles.append(Line2D([], [], linewidth=1.8, **style))
        labels.append(theme.shorten(item.label))
    top = legend_height(labels) + 27
    figure = theme.new_figure(top + 190 + 38)
    right = 48 if target is not None else 14
    axes = theme.add_axes(figure, 46, top, theme.WIDTH - 46 - right, 190)
    add_legend(figure, handles, labels)
    return axes


def legend_columns(labels: Sequence[str], width: float = theme.WIDTH) -> int:
    """How many columns of a legend fit beside one another."""
    for columns in range(len(labels), 1, -1):
        longest = [max(map(len, labels[column::columns])) for column in range(columns)]
        if 5.9 * sum(longest) + 42 * columns <= width:
            return columns
    return 1


def legend_height(labels: Sequence[str], width: float = theme.WIDTH) -> float:
    """Height of a legend in points."""
    return 15.0 * math.ceil(len(labels) / legend_columns(labels, width)) if labels else 0.0


def add_legend(figure: Figure, handles: Sequence, labels: Sequence[str]) -> None:
    """A legend along the upper edge of a figure, row by row."""
    if not labels:
        return
    columns = legend_columns(labels, figure.get_size_inches()[0] * 72)
    rows = math.ceil(len(labels) / columns)
    # matplotlib fills a legend column by column; people read row by row
    order = [r * columns + c for c in range(columns) for r in range(rows)]
    order = [index for index in order if index < len(labels)]
    height = figure.get_size_inches()[1] * 72
    # names are put in afterwards: a legend drops those that begin with "_" and reads "$" as math
    legend = figure.legend(
        [handles[index] for index in order],
        ["x"] * len(order),
        loc="upper left",
        bbox_to_anchor=(0.0, 1 - 2 / height),
        ncols=columns,
        frameon=False,
        fontsize=theme.TEXT,
        labelcolor=theme.INK,
        handlelength=2.2,
        handletextpad=0.6,
        columnspacing=1.6,
        borderpad=0.3,
        labelspacing=0.35,
    )
    for text, index in zip(legend.get_texts(), order, strict=True):
        text.set_parse_math(False)
        text.set_text(labels[index])

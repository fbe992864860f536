"""A result against a numeric axis of a sweep."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import NullFormatter
from matplotlib.transforms import ScaledTranslation

from sgdlab.plots import theme
from sgdlab.plots.lines import Series, add_legend, legend_height

_HEIGHT = 180.0
_CROSSES, _NAME = 9.0, 20.0  # heights in points: a row of crosses, the strip's name
_PALE = 0.45  # of dots, and of crosses where the median is finite
_DIGIT = 5.9  # width of a digit of a tick label in points


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
      series: a line each; x `[K]` are the values of the axis, y `[S, K]` the results of
        replicates: inf or −inf of one that is lost, NaN where there is none. Where some are lost a
        cross stands in a strip above the axes, and how many they are; it is pale where the median
        of all, the lost ones among them, is finite still. Where it is not the line ends.
      x_label, y_label: names and units.
      log_x, log_y: logarithmic axes.
      missing: names the strip.

    Returns:
      The figure.
    """
    labels = [theme.shorten(item.label) for item in series if item.label]
    colours = [index if item.colour is None else item.colour for index, item in enumerate(series)]
    absent = [index for index, item in enumerate(series) if _count_lost(item).any()]
    strip = _CROSSES * len(absent) + _NAME if absent else 0.0
    top = legend_height(labels) + 27 + strip
    figure = theme.new_figure(top + _HEIGHT + 38)
    axes = theme.add_axes(figure, 46, top, theme.WIDTH - 60, _HEIGHT)
    for index, item in enumerate(series):
        offset = (index - (len(series) - 1) / 2) * 2.6
        _draw_points(axes, item, offset, theme.series_colour(colours[index]))
    for row, index in enumerate(reversed(absent)):
        _draw_crosses(axes, series[index], row, theme.series_colour(colours[index]))
    axes.margins(x=0.06, y=0.08)
    theme.number_axis(axes, "x", log=log_x)
    if log_x or len(series[0].x) <= 7:
        _mark_places(axes, np.unique(np.concatenate([item.x for item in series])))
    theme.number_axis(axes, "y", log=log_y)
    theme.x_title(axes, x_label)
    theme.note(axes, 0, 10 + strip, y_label, left_edge=True)
    if absent:
        style = {"fontsize": theme.SMALL, "color": theme.MUTED}
        theme.note(axes, 0, strip - 10, missing, left_edge=True, **style)
        rule = {"color": theme.MUTED, "linewidth": 0.8, "linestyle": (0, (1, 2))}
        axes.plot([0, 1], [1, 1], transform=axes.transAxes, clip_on=False, **rule)
    lines = [theme.series_colour(colours[k]) for k, item in enumerate(series) if item.label]
    add_legend(figure, [Line2D([], [], marker="o", markersize=4, color=c) for c in lines], labels)
    return figure


def _count_lost(item: Series) -> np.ndarray:
    """`[K]` how many replicates are lost."""
    return np.isinf(np.atleast_2d(item.y)).sum(axis=0)


def _middle(item: Series) -> np.ndarray:
    """`[K]` the median of all replicates; NaN where it is not finite, or there is none."""
    y = np.atleast_2d(item.y)
    columns = [column[~np.isnan(column)] for column in y.T]
    found = np.array([np.median(column) if len(column) else np.nan for column in columns])
    return np.where(np.isfinite(found), found, np.nan)


def _draw_points(axes: Axes, item: Series, offset: float, colour: str) -> None:
    """Neighbouring series are moved apart by a few points, so that dots don't hide one another."""
    shift = ScaledTranslation(offset / 72, 0, theme.figure_of(axes).dpi_scale_trans)
    y, middle = np.atleast_2d(item.y), _middle(item)
    known = np.where(np.isfinite(y), y, np.nan)
    style = {"color": colour, "transform": axes.transData + shift}
    dots = {"markersize": 3.6, "alpha": _PALE, "markeredgewidth": 0}
    places = np.broadcast_to(item.x, y.shape).ravel()
    axes.plot(places, known.ravel(), "o", **dots, **style)
    axes.update_datalim(np.stack([places, known.ravel()], axis=1))
    everywhere = np.stack([item.x, np.zeros(len(item.x))], axis=1)
    axes.update_datalim(everywhere, updatey=False)
    axes.plot(item.x, middle, "-", linewidth=1.6, **style)
    axes.plot(item.x, middle, "_", markersize=8, markeredgewidth=2, **style)


def _draw_crosses(axes: Axes, item: Series, row: int, colour: str) -> None:
    """Above the axes, in a row of the series' own: where replicates are lost, and how many."""
    up = ScaledTranslation(0, (6 + _CROSSES * row) / 72, theme.figure_of(axes).dpi_scale_trans)
    lost, no_median = _count_lost(item), np.isnan(_middle(item))
    style = {"markersize": 5, "markeredgewidth": 1.4, "clip_on": False, "color": colour}
    above = axes.get_xaxis_transform() + up
    for places, alpha in (((lost > 0) & no_median, 1.0), ((lost > 0) & ~no_median, _PALE)):
        if places.any():
            ones = np.ones(places.sum())
            axes.plot(item.x[places], ones, "x", transform=above, alpha=alpha, **style)
    every = (~np.isnan(np.atleast_2d(item.y))).sum(axis=0)
    beside = above + ScaledTranslation(4 / 72, 0, theme.figure_of(axes).dpi_scale_trans)
    text = {"fontsize": theme.SMALL, "color": colour, "va": "center", "clip_on": False}
    for x, count, of in zip(item.x, lost, every, strict=True):
        if 0 < count < of:
            axes.text(x, 1.0, f"{count}/{of}", transform=beside, **text)


def _mark_places(axes: Axes, places: np.ndarray) -> None:
    """A tick at every place of the axis, labelled where there is room."""
    middle = axes.transData.transform(np.stack([places, np.zeros(len(places))], axis=1))[:, 0]
    labelled, end = [], -np.inf
    for place, x in zip(places, middle * 72 / theme.figure_of(axes).dpi, strict=True):
        half = _DIGIT * len(theme.plain(place)) / 2
        if x - half > end + _DIGIT:
            labelled.append(place)
            end = x + half
    axes.set_xticks(labelled)
    axes.set_xticks(places, minor=True)
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.tick_params(axis="x", which="minor", color=theme.MUTED, length=3, width=0.8)

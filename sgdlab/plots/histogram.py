"""How stale the messages were: a histogram, and what theory says of it."""

from __future__ import annotations

import math

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from sgdlab.plots import theme
from sgdlab.plots.scale import staleness_scale

HISTOGRAM_HEIGHT = 176.0
"""Height in points, with labels."""
_MAX_BARS = 72
_SHOWN, _ROOM = 0.995, 1.25
"""The axis ends a quarter beyond what this share of the messages reaches, if the rest goes far."""


def staleness_histogram(
    counts: np.ndarray, *, predicted: np.ndarray | None = None, axes: Axes | None = None
) -> Figure:
    """The share of used messages at each staleness, in the colours of the Gantt chart.

    Args:
      counts: `[max + 1]` int, how many used messages had staleness 0, 1, …, max.
      predicted: `[P]` float, the probability of staleness 0, 1, …, P − 1 in theory.
      axes: draw here; by default in a new figure.

    Returns:
      The figure.
    """
    axes = axes or theme.add_axes(
        theme.new_figure(HISTOGRAM_HEIGHT), 42, 34, theme.WIDTH - 50, HISTOGRAM_HEIGHT - 70
    )
    counts = np.asarray(counts, float) if len(counts) else np.zeros(1)
    end = _end(counts)
    width = -(-end // _MAX_BARS)
    _draw_bars(axes, counts, end, width)
    if predicted is not None:
        _draw_prediction(axes, np.asarray(predicted, float)[:end], width)
    axes.set_xlim(-0.5 - 0.02 * max(end, 8), max(end, 8) - 0.5)
    axes.set_ylim(bottom=0)
    theme.number_axis(axes, "x", whole=True)
    theme.number_axis(axes, "y")
    theme.axis_titles(axes, "staleness, in updates", "% of the used messages")
    _summarise(axes, counts, end, predicted is not None)
    return theme.figure_of(axes)


def _end(counts: np.ndarray) -> int:
    """How many values of staleness are drawn: all, unless a few messages take up half of them."""
    if not counts.any():
        return len(counts)
    typical = int(np.searchsorted(np.cumsum(counts), _SHOWN * counts.sum()))
    end = math.ceil(_ROOM * typical) + 8
    return end if 2 * end < len(counts) else len(counts)


def _grouped(values: np.ndarray, width: int) -> np.ndarray:
    """Sums over groups of `width` neighbours, the last one padded with zeros."""
    return np.pad(values, (0, -len(values) % width)).reshape(-1, width).sum(axis=1)


def _draw_bars(axes: Axes, counts: np.ndarray, end: int, width: int) -> None:
    share = 100 * _grouped(counts[:end], width) / max(counts.sum(), 1)
    left = width * np.arange(len(share))
    scale = staleness_scale(counts)
    # a bar of several values is stale: only staleness 0 alone is fresh
    colours = [scale.colours[k] for k in scale.classes(np.maximum(left, width > 1))]
    edge = {"edgecolor": theme.PAPER, "linewidth": 0.5 if len(share) > 30 else 1.0}
    axes.bar(left - 0.5, share, width=width, align="edge", color=colours, **edge)


def _draw_prediction(axes: Axes, predicted: np.ndarray, width: int) -> None:
    share = 100 * _grouped(predicted, width)
    middle = width * np.arange(len(share)) + (width - 1) / 2
    style = {"color": theme.INK, "linewidth": 1.0, "markersize": 2.6, "zorder": 4}
    axes.plot(middle, share, "-o", **style)


def _summarise(axes: Axes, counts: np.ndarray, end: int, theory: bool) -> None:
    """Mean and largest at the right end of the title's line; below it what else is to be known."""
    total = counts.sum()
    mean = float(counts @ np.arange(len(counts)) / total) if total else 0.0
    text = f"mean {mean:.3g}, largest {len(counts) - 1:,}" if total else "no message was used"
    width = axes.get_position().width * theme.figure_of(axes).get_size_inches()[0] * 72
    style = {"ha": "right", "fontsize": theme.SMALL, "color": theme.MUTED}
    theme.note(axes, width, 10, text, **style)
    remarks = ["line with dots: theory"] if theory else []
    if end < len(counts):
        remarks.append(f"{100 * counts[end:].sum() / total:.2g} % beyond the axis")
    theme.note(axes, width, -1, "; ".join(remarks), **style)

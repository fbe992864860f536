"""The workers' Gantt chart: who computed when, how stale it was, and when the server updated."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import PathPatch
from matplotlib.path import Path

from sgdlab.plots import theme
from sgdlab.plots.histogram import HISTOGRAM_HEIGHT, staleness_histogram
from sgdlab.plots.scale import StalenessScale, staleness_scale

MAX_WORKERS = 64
"""More workers than this are sampled."""
MAX_MESSAGES = 5_000
"""More messages than this are cut to their first seconds."""
_LEFT, _RIGHT, _BELOW = 42.0, 8.0, 34.0
_KEY, _STATES, _TICKS = 37.0, 16.0, 14.0
_SHORTEST_BAR = 7.0

DROPPED, IN_FLIGHT, CANCELLED = -1, -2, -3
_STATE_NAMES = {
    "update": "update",
    "network": "network",
    "dropped": "dropped",
    "in flight": "unfinished",
    "cancelled": "cancelled",
}


@dataclass(frozen=True, eq=False)
class _Excerpt:
    """What is drawn: some workers as rows, and the seconds from 0 to `end`."""

    workers: np.ndarray
    end: float
    remark: str


def gantt(
    *,
    worker: np.ndarray,
    start_time: np.ndarray,
    compute_end: np.ndarray,
    arrival_time: np.ndarray,
    update: np.ndarray,
    staleness: np.ndarray,
    apply_time: np.ndarray,
    num_workers: int,
    seconds: float | None = None,
    axes: Axes | None = None,
) -> Figure:
    """Workers as rows, messages as bars coloured by staleness, updates as ticks along the top.

    Full colour is computing, pale colour the network, an empty row waiting. Long timelines, and
    those of many workers, are drawn as an excerpt that says so.

    Args:
      worker: `[M]` int, who computed each message.
      start_time, compute_end, arrival_time: `[M]` float, seconds; inf if never.
      update: `[M]` int, the update that used it; −1 dropped, −2 in flight, −3 cancelled.
      staleness: `[M]` int, in updates; read where `update` ≥ 0.
      apply_time: `[T]` float, seconds, when each update happened.
      num_workers: N.
      seconds: when the timeline ends; by default its last finite time.
      axes: draw here; its neighbours above must leave 70 points. By default in a new figure.

    Returns:
      The figure.
    """
    arrays = [np.asarray(a) for a in (worker, start_time, compute_end, arrival_time, update)]
    worker, start_time, compute_end, arrival_time, update = arrays
    seconds = (
        _end(start_time, compute_end, arrival_time, apply_time) if seconds is None else seconds
    )
    excerpt = _excerpt(worker, start_time, np.minimum(arrival_time, seconds), num_workers, seconds)
    used = update >= 0
    scale = staleness_scale(np.bincount(np.asarray(staleness)[used]) if used.any() else np.zeros(1))
    shown = np.isin(worker, excerpt.workers) & (start_time < excerpt.end)
    row = np.searchsorted(excerpt.workers, worker[shown])
    times = [np.minimum(t[shown], excerpt.end) for t in (start_time, compute_end, arrival_time)]
    states = _states(update[shown], times)
    axes = axes or _room_for(len(excerpt.workers))
    _draw_bars(axes, row, times, update[shown], scale.classes(np.asarray(staleness)[shown]), scale)
    _draw_updates(axes, np.asarray(apply_time), excerpt.end)
    _draw_key(axes, scale, states, excerpt.remark)
    _finish(axes, excerpt)
    return theme.figure_of(axes)


def timeline(*, counts: np.ndarray, predicted: np.ndarray | None = None, **arrays) -> Figure:
    """The Gantt chart above the histogram of staleness, in the same colours.

    Args:
      counts: `[max + 1]` int, messages of each staleness.
      predicted: `[P]` float, the probability of each staleness in theory, to be drawn over it.
      **arrays: as `gantt` takes them, without `axes`.

    Returns:
      The figure.
    """
    rows = min(int(arrays["num_workers"]), MAX_WORKERS)
    top, height = _KEY + _STATES + _TICKS, _row_height(rows) * rows
    figure = theme.new_figure(top + height + _BELOW + HISTOGRAM_HEIGHT)
    size = (_LEFT, top, theme.WIDTH - _LEFT - _RIGHT, height)
    gantt(**arrays, axes=theme.add_axes(figure, *size))
    below = theme.add_axes(
        figure, _LEFT, top + height + _BELOW + 34, size[2], HISTOGRAM_HEIGHT - 70
    )
    return staleness_histogram(counts, predicted=predicted, axes=below)


def _end(*times: np.ndarray) -> float:
    return max(float(np.max(t, where=np.isfinite(t), initial=0.0)) for t in map(np.asarray, times))


def _excerpt(
    worker: np.ndarray, start: np.ndarray, stop: np.ndarray, num_workers: int, seconds: float
) -> _Excerpt:
    """Every worker and second where bars stay readable, else fewer of either."""
    workers = np.arange(num_workers)
    if num_workers > MAX_WORKERS:
        workers = np.unique(np.linspace(0, num_workers - 1, MAX_WORKERS).round().astype(int))
    typical = float(np.median((stop - start)[np.isfinite(stop)])) if len(worker) else seconds
    bars = (theme.WIDTH - _LEFT - _RIGHT) / _SHORTEST_BAR
    end = min(seconds, bars * typical) if typical > 0 else seconds
    shown = np.sort(start[np.isin(worker, workers)])
    if len(shown) > MAX_MESSAGES:
        end = min(end, float(shown[MAX_MESSAGES]))
    # nearly the whole is better whole
    end = seconds if end > 0.8 * seconds and len(shown) <= MAX_MESSAGES else end
    parts = []
    if len(workers) < num_workers:
        parts.append(f"{len(workers)} of {num_workers:,} workers")
    if end < seconds:
        whole = theme.plain(float(f"{seconds:.4g}"))
        parts.append(f"the first {end:.3g} of {whole} s")
    return _Excerpt(workers, end, f"excerpt: {', '.join(parts)}" if parts else "")


def _states(update: np.ndarray, times: Sequence[np.ndarray]) -> list[str]:
    """What the legend must explain, beside the colours of staleness."""
    present = {
        "update": True,
        "network": bool(np.any((times[2] > times[1]) & (update >= 0))),
        "dropped": bool(np.any(update == DROPPED)),
        "in flight": bool(np.any(update == IN_FLIGHT)),
        "cancelled": bool(np.any(update == CANCELLED)),
    }
    return [name for name, there in present.items() if there]


def _row_height(rows: int) -> float:
    return float(np.clip(208 / max(rows, 1), 6.0, 18.0))


def _room_for(rows: int) -> Axes:
    top, height = _KEY + _STATES + _TICKS, _row_height(rows) * rows
    figure = theme.new_figure(top + height + _BELOW)
    return theme.add_axes(figure, _LEFT, top, theme.WIDTH - _LEFT - _RIGHT, height)


def _boxes(left: np.ndarray, right: np.ndarray, row: np.ndarray, half: float) -> Path:
    """Many rectangles as one path: a figure of few elements."""
    low, high = row - half, row + half
    corners = [(left, low), (right, low), (right, high), (left, high), (left, low)]
    vertices = np.stack([np.stack(c, axis=-1) for c in corners], axis=1).reshape(-1, 2)
    codes = [Path.MOVETO, Path.LINETO, Path.LINETO, Path.LINETO, Path.CLOSEPOLY]
    return Path(vertices, np.tile(np.asarray(codes, np.uint8), len(left)))


def _add(axes: Axes, left: np.ndarray, right: np.ndarray, row: np.ndarray, half: float, **style):
    wide = right > left
    if wide.any():
        path = _boxes(left[wide], right[wide], row[wide], half)
        axes.add_artist(PathPatch(path, **{"linewidth": 0.0, **style}))


def _draw_bars(
    axes: Axes,
    row: np.ndarray,
    times: Sequence[np.ndarray],
    update: np.ndarray,
    classes: np.ndarray,
    scale: StalenessScale,
) -> None:
    """One path per class of staleness for computing, one for the network, one per other state."""
    start, computed, arrived = times
    # a hairline of background keeps a worker's consecutive messages apart
    edge = {"edgecolor": theme.PAPER, "linewidth": 0.7}
    for index, colour in enumerate(scale.colours):
        here = (update >= 0) & (classes == index)
        network = (computed[here], arrived[here], row[here], 0.40)
        _add(axes, *network, facecolor=colour, alpha=0.38)
        _add(axes, start[here], computed[here], row[here], 0.40, facecolor=colour, **edge)
    here = update == DROPPED
    _add(axes, start[here], arrived[here], row[here], 0.40, facecolor=theme.IDLE, **edge)
    axes.plot(arrived[here], row[here], "x", color=theme.INK, markersize=3.2, markeredgewidth=0.9)
    here = update == CANCELLED
    _add(axes, start[here], arrived[here], row[here], 0.13, facecolor=theme.IDLE)
    here = update == IN_FLIGHT
    outline = {"facecolor": "none", "edgecolor": theme.MUTED, "linewidth": 0.7}
    _add(axes, start[here], arrived[here], row[here], 0.34, **outline)


def _draw_updates(axes: Axes, apply_time: np.ndarray, end: float) -> None:
    """A thin tick per update above the rows."""
    shown = apply_time[apply_time <= end]
    mixed = axes.get_xaxis_transform()
    height = 7 / (axes.get_position().height * theme.figure_of(axes).get_size_inches()[1] * 72)
    codes = np.tile(np.asarray([Path.MOVETO, Path.LINETO], np.uint8), len(shown))
    low, high = np.full(len(shown), 1 + 0.25 * height), np.full(len(shown), 1 + 1.25 * height)
    ticks = np.stack([np.stack([shown, low], -1), np.stack([shown, high], -1)], 1).reshape(-1, 2)
    if len(shown):
        style = {"edgecolor": theme.INK, "linewidth": 0.6, "facecolor": "none", "clip_on": False}
        axes.add_artist(PathPatch(Path(ticks, codes), transform=mixed, **style))
    theme.note(axes, -4, 2, "worker", ha="right", fontsize=theme.SMALL, color=theme.MUTED)


def _draw_key(axes: Axes, scale: StalenessScale, states: list[str], remark: str) -> None:
    """Above the rows: the colour bar, and below it the other marks."""
    base = _TICKS + _STATES
    theme.note(axes, 0, base + 22, "staleness of the message, in updates", left_edge=True)
    if remark:
        width = axes.get_position().width * theme.figure_of(axes).get_size_inches()[0] * 72
        note = {"ha": "right", "fontsize": theme.SMALL, "color": theme.MUTED, "style": "italic"}
        theme.note(axes, width, base + 22, remark, **note)
    _colour_bar(axes, scale, base)
    left = 0.0
    for state in states:
        _swatch(axes, left, _TICKS + 2, state)
        name = _STATE_NAMES[state]
        style = {"fontsize": theme.SMALL, "color": theme.MUTED}
        theme.note(axes, left + 18, _TICKS + 3, name, **style)
        left += 30 + 4.9 * len(name)


def _colour_bar(axes: Axes, scale: StalenessScale, base: float) -> None:
    """Adjoining cells, one per class, with their labels below; fresh stands apart."""
    style = {"fontsize": theme.SMALL, "color": theme.MUTED, "ha": "center"}
    longest = max(map(len, scale.labels))
    cell = min(max(30.0, 5.4 * longest + 6), 355 / len(scale.labels))
    for index, (colour, label) in enumerate(zip(scale.colours, scale.labels, strict=True)):
        left = index * cell + (4 if index else 0)
        _cell(axes, left, base + 10.5, cell, 5.5, facecolor=colour)
        theme.note(axes, left + cell / 2, base + 2, label, **style)


def _cell(axes: Axes, left: float, low: float, width: float, height: float, **style) -> None:
    edges, row = (np.asarray([left]), np.asarray([left + width])), np.asarray([low + height / 2])
    path = _boxes(*edges, row, height / 2)
    style = {"linewidth": 0.0, "transform": theme.corner(axes), "clip_on": False, **style}
    axes.add_artist(PathPatch(path, **style))


def _swatch(axes: Axes, left: float, low: float, state: str) -> None:
    if state == "update":
        for x in (2, 7, 12):
            _cell(axes, left + x, low, 0.7, 8, facecolor=theme.INK)
    elif state == "network":
        _cell(axes, left, low, 14, 8, facecolor=theme.STALE[2], alpha=0.38)
    elif state == "in flight":
        outline = {"facecolor": "none", "edgecolor": theme.MUTED, "linewidth": 0.7}
        _cell(axes, left + 0.5, low + 0.5, 13, 7, **outline)
    elif state == "cancelled":
        _cell(axes, left, low + 2.7, 14, 2.6, facecolor=theme.IDLE)
    else:
        _cell(axes, left, low, 14, 8, facecolor=theme.IDLE)
        mark = {"color": theme.INK, "markersize": 3.2, "markeredgewidth": 0.9, "clip_on": False}
        axes.plot([left + 13], [low + 4], "x", transform=theme.corner(axes), **mark)


def _finish(axes: Axes, excerpt: _Excerpt) -> None:
    rows = len(excerpt.workers)
    axes.set_ylim(rows - 0.5, -0.5)
    axes.set_xlim(0, excerpt.end or 1.0)
    theme.number_axis(axes, "x")
    spacing = next(s for s in (1, 2, 5, 10, 20) if rows / s <= 20)
    axes.set_yticks(np.arange(0, rows, spacing), [str(w) for w in excerpt.workers[::spacing]])
    theme.x_title(axes, "simulated seconds")

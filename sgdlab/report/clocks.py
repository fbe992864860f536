"""When it happened: the distinct timelines of a comparison, their staleness and their workers."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from sgdlab import plots, theory
from sgdlab.report.digits import count
from sgdlab.report.entries import Comparison, Entry
from sgdlab.report.figures import Exhibit, capital

if TYPE_CHECKING:
    from sgdlab.timelines import Timeline

MAX_TIMELINES = 12


def distinct_timelines(comparison: Comparison) -> dict[str, tuple[str, Timeline, int]]:
    """The first draw of every distinct timeline: digest to names of its members, itself, colour."""
    found: dict[str, tuple[list[Entry], Timeline]] = {}
    for entry in comparison.entries:
        if entry.member.timelines:
            timeline = entry.member.timelines[0]
            found.setdefault(_digest(timeline), ([], timeline))[0].append(entry)
    result = {}
    for digest, (entries, timeline) in found.items():
        groups = list(dict.fromkeys(entry.group for entry in entries))
        names = "; ".join(groups[:3]) + (f" and {len(groups) - 3} more" if len(groups) > 3 else "")
        result[digest] = (names, timeline, entries[0].colour)
    return result


def _digest(timeline: Timeline) -> str:
    arrays = (timeline.worker, timeline.start_time, timeline.update, timeline.apply_time)
    digest = hashlib.sha256(str(timeline.num_workers).encode())
    for array in arrays:
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


def clocks(comparison: Comparison) -> Iterator[Exhibit]:
    """Gantt chart and staleness of every distinct timeline, and how busy its workers were."""
    every = list(distinct_timelines(comparison).items())
    timelines = every[:MAX_TIMELINES]
    for digest, (names, timeline, _) in timelines:
        if timeline.num_messages:
            yield _timeline(names, timeline, f"messages-{digest[:8]}")
    shares = [timeline.utilisation() for _, (_, timeline, _) in timelines]
    if shares:
        figure = plots.utilisation(
            shares,
            labels=[names for _, (names, _, _) in timelines],
            colours=[colour for _, (_, _, colour) in timelines],
        )
        caption = "First draw of the clocks."
        if len(every) > len(timelines):
            caption += f" The first {len(timelines)} of {len(every)} timelines."
        yield Exhibit(figure, "Utilisation", caption, "utilisation")


def _timeline(names: str, timeline: Timeline, data: str) -> Exhibit:
    counts = timeline.staleness_histogram()
    predicted, mean, pace = _theory(timeline, len(counts))
    fields = ("worker", "start_time", "compute_end", "arrival_time", "update", "staleness")
    arrays = {name: getattr(timeline, name) for name in (*fields, "apply_time", "num_workers")}
    figure = plots.timeline(**arrays, seconds=timeline.seconds, counts=counts, predicted=predicted)
    facts = [
        count(timeline.num_workers, "worker"),
        count(timeline.num_updates, "update"),
        count(timeline.num_messages, "message"),
    ]
    caption = f"{', '.join(facts)} in {timeline.seconds:,.5g} simulated seconds."
    said = [] if mean is None else [f"mean staleness {mean:.4g}"]
    if pace and timeline.num_updates:
        measured = timeline.apply_time[-1] / timeline.num_updates
        said.append(f"{pace:.4g} s an update (here {measured:.4g})")
    caption += f" Theory: {', '.join(said)}." if said else ""
    return Exhibit(figure, capital(names), caption, data)


def _theory(timeline: Timeline, size: int) -> tuple[np.ndarray | None, float | None, float | None]:
    """What closed forms predict for this protocol and cluster, each where one does.

    The distribution of staleness, its mean, and the mean seconds between updates.
    """
    protocol = timeline.metadata.get("protocol")
    cluster = timeline.metadata.get("cluster") or {}
    unusual = ("network", "failures", "stragglers", "joins", "leaves")
    compute = cluster.get("compute")
    plain = not any(cluster.get(key) for key in unusual) and isinstance(compute, dict)
    several = cluster.get("gradients_per_message", 1) != 1
    if not protocol or (cluster and (not plain or several)):
        return None, None, None
    parameters = dict(timeline.metadata.get("parameters") or {})
    given = (protocol, timeline.num_workers, compute)
    try:
        return (
            theory.staleness_distribution(*given, size=size, **parameters),
            theory.mean_staleness(*given, **parameters),
            theory.mean_update_time(protocol, timeline.num_workers, compute, **parameters)
            if isinstance(compute, dict)
            else None,
        )
    except (KeyError, TypeError, ValueError):  # a recorded timeline may name what we don't know
        return None, None, None

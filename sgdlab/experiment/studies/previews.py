"""What a timeline is like, beside what theory predicts of it; no training, no JAX."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from sgdlab import theory
from sgdlab.experiment.config.building import build_cluster, draw_timelines
from sgdlab.experiment.config.experiment import Experiment, Point, protocol_arguments
from sgdlab.experiment.reading.files import make_error
from sgdlab.timelines import Timeline, TimelineError


@dataclass(frozen=True)
class Preview:
    """A timeline of an experiment, measured.

    Attributes:
      label: of the first point that has it.
      timeline: the first draw.
      row: name to value, `predicted ...` beside what is measured; None where nothing is known.
      staleness: `[P]` float64, the predicted probability of each staleness; None if unknown.
    """

    label: str
    timeline: Timeline
    row: dict[str, Any]
    staleness: np.ndarray | None


def preview(experiment: Experiment) -> list[Preview]:
    """The different timelines of an experiment, each once.

    Raises:
      ConfigError: a protocol refuses its arguments.
    """
    seen: dict[str, Preview] = {}
    keys = {"cluster", "protocol", "updates", "seconds", "gradients", "seed"}
    for point in experiment.points:
        steps = point.config.worker.arguments().get("steps")
        key = f"{point.config.model_dump(include=keys)} {steps}"
        if key not in seen:
            seen[key] = _preview(experiment, point)
    return list(seen.values())


def _preview(experiment: Experiment, point: Point) -> Preview:
    try:
        timeline = draw_timelines(point.config)[0]
    except TimelineError as error:
        label = f"{point.label}: " if point.label else ""
        line = f"{experiment.source}: {label}protocol: {error}"
        raise make_error([line], [str(error)], point.config.model_dump()) from error
    counts = timeline.staleness_histogram()
    shared, staleness, pace = _known(point)
    name, parameters = point.config.protocol.name, point.config.protocol.arguments()
    workers = timeline.num_workers
    predicted = theory.mean_staleness(name, workers, shared, **parameters) if staleness else None
    law = None
    if staleness:
        law = theory.staleness_distribution(
            name, workers, shared, size=max(1, len(counts)), **parameters
        )
    row = {
        "point": point.label or name,
        "workers": workers,
        "updates": timeline.num_updates,
        "messages": timeline.num_messages,
        "mean staleness": _mean(counts),
        "predicted staleness": predicted,
        "max staleness": len(counts) - 1 if len(counts) else None,
        "utilisation": float(timeline.utilisation().mean()),
        "updates/s": timeline.throughput(),
        "predicted updates/s": _throughput(point, shared) if pace else None,
    }
    return Preview(point.label or name, timeline, row, law)


def _known(point: Point) -> tuple[Mapping[str, Any] | None, bool, bool]:
    """The compute model that all workers share, and what theory may speak of: staleness, pace."""
    if "cluster" not in protocol_arguments(point.config.protocol.name):
        queue = point.config.protocol.name != "from_trace"
        return None, queue, False
    cluster = build_cluster(point.config)
    alike = not cluster.stragglers and not isinstance(cluster.compute, tuple)
    shared = cluster.to_dict()["compute"] if alike else None
    return shared, cluster.is_plain, cluster.is_plain


def _throughput(point: Point, shared: Mapping[str, Any] | None) -> float | None:
    cluster = build_cluster(point.config)
    name, parameters = point.config.protocol.name, point.config.protocol.arguments()
    if name == "asynchronous":
        seconds = cluster.mean_seconds * cluster.gradients_per_message
        return theory.asynchronous_throughput(seconds)
    if shared is None or cluster.gradients_per_message > 1:
        return None
    seconds = theory.mean_update_time(name, cluster.workers, shared, **parameters)
    return 1 / seconds if seconds else None


def _mean(counts: np.ndarray) -> float:
    total = counts.sum()
    return float(np.arange(len(counts)) @ counts / total) if total else 0.0

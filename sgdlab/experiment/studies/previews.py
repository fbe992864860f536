"""What a timeline is like, beside what theory predicts of it; no training, no JAX."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from sgdlab import theory
from sgdlab.experiment.config.building import build_cluster, draw_timelines, say_where
from sgdlab.experiment.config.experiment import Experiment, Point, protocol_arguments
from sgdlab.experiment.errors import ConfigError
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
    return [_preview(point, _draw(experiment, point)[0]) for point in _distinct(experiment)]


def check_timelines(experiment: Experiment) -> None:
    """Draw every timeline of an experiment, and keep none.

    Raises:
      ConfigError: a protocol refuses its arguments, or no update happens.
    """
    for point in _distinct(experiment):
        if not all(timeline.num_updates for timeline in _draw(experiment, point)):
            line = f"{_where(experiment, point)}no update happens; allowed: a longer horizon"
            raise ConfigError([line])


def _distinct(experiment: Experiment) -> list[Point]:
    """The first point of each set that shares its timelines."""
    seen: dict[str, Point] = {}
    keys = {"cluster", "protocol", "updates", "seconds", "gradients", "seed", "timelines"}
    for point in experiment.points:
        steps = point.config.worker.arguments().get("steps")
        seen.setdefault(f"{point.config.model_dump(include=keys)} {steps}", point)
    return list(seen.values())


def _where(experiment: Experiment, point: Point) -> str:
    return f"{experiment.source}: {f'{point.label}: ' if point.label else ''}"


def _draw(experiment: Experiment, point: Point) -> tuple[Timeline, ...]:
    try:
        return draw_timelines(point.config)
    except TimelineError as error:
        line = f"{_where(experiment, point)}{say_where(error)}"
        raise make_error([line], [str(error)], point.config.model_dump()) from error


def _preview(point: Point, timeline: Timeline) -> Preview:
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

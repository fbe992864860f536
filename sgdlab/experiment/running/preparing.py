"""What can be found wrong with an experiment before anything is written."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from sgdlab.experiment.config.building import say_where
from sgdlab.experiment.config.experiment import Experiment, Point
from sgdlab.experiment.config.numbers import check_replicates
from sgdlab.experiment.config.schema import Devices
from sgdlab.experiment.errors import ConfigError
from sgdlab.experiment.reading.files import make_error, name_key
from sgdlab.experiment.reading.problems import suggest
from sgdlab.experiment.running.making import evaluate_every
from sgdlab.experiment.running.work import Work
from sgdlab.experiment.running.workshop import Workshop
from sgdlab.tasks import DataError
from sgdlab.timelines import Timeline, TimelineError
from sgdlab.training import replaying
from sgdlab.training.chunks import choose_length
from sgdlab.training.memory import check_batch_size


def prepare(
    experiment: Experiment, workshop: Workshop, points: Sequence[Point] | None = None
) -> list[Work]:
    """Build what can fail before anything is written.

    Args:
      experiment: a checked one.
      workshop: where what it names is built.
      points: only these; by default all.

    Returns:
      The points, ready to be made.

    Raises:
      ConfigError, DataFileError, DataError: a point cannot be made.
    """
    works = []
    single = len(experiment.points) == 1
    for point in experiment.points if points is None else points:
        prefix = f"{experiment.source}: {f'{point.label}: ' if point.label else ''}"
        try:
            timelines = workshop.timelines(point.config)
        except TimelineError as error:
            line = f"{prefix}{say_where(error)}"
            raise make_error([line], [str(error)], point.config.model_dump()) from error
        if not all(timeline.num_updates for timeline in timelines):
            raise ConfigError([f"{prefix}no update happens; allowed: a longer horizon"])
        longest = max(timeline.num_updates for timeline in timelines)
        for path, text in check_replicates(point.config, longest):
            raise ConfigError([f"{prefix}{'.'.join(path)}: {text}"])
        try:
            _build(point, timelines, workshop)
        except ValueError as error:
            if isinstance(error, DataError):
                line = name_key(str(error), point.config.model_dump())
                raise DataError(f"{prefix}{line}") from error
            if type(error) is not ValueError:
                raise
            raise ConfigError([f"{prefix}{error}"]) from error
        _check_goals(point, workshop, prefix)
        parts = () if single else ("members", str(point.index))
        directions = workshop.task(point.config).directions
        works.append(Work(point, timelines, parts, directions=directions))
        try:
            _check_memory(works[-1], workshop)
        except ValueError as error:
            raise ConfigError([f"{prefix}{error}"]) from error
    return works


def _build(point: Point, timelines: tuple[Timeline, ...], workshop: Workshop) -> None:
    """Every part of a point once, so that what a part refuses is known now."""
    config = point.config
    workshop.task(config)
    workshop.partition(config, timelines[0].num_workers)
    workshop.rule(config, point.mapped)(**point.mapped)
    workshop.receive(config, point.mapped, timelines[0])
    workshop.loss_scale(config)
    computes = workshop.worker(config).gradients_per_message
    for timeline in timelines:
        if timeline.gradients_per_message != computes:
            found = timeline.gradients_per_message
            raise ValueError(
                f"protocol: messages of {found} gradients; allowed: {computes}, as the worker sends"
            )
    # What can't be spread, or mixed, is found where the program is chosen.
    if config.devices != Devices() or any(link.name == "mix_models" for link in config.receive):
        points = {name: [value] for name, value in point.mapped.items()}
        replaying.prepare(
            **workshop.arguments(config, point.mapped, timelines), hyperparameters=points
        )
    else:
        workshop.mesh(config)


def _check_memory(work: Work, workshop: Workshop) -> None:
    """Whether there is room for a chunk's minibatches."""
    timelines, config = work.timelines, work.point.config
    size, gradients = config.worker.arguments()["batch_size"], timelines[0].gradients_per_message
    messages = max(math.ceil(np.sum(t.update >= 0) / max(t.num_updates, 1)) for t in timelines)
    every = choose_length(1, max(messages * gradients * size, 1), evaluate_every(work))
    messages = max(int(np.sum((t.update >= 0) & (t.update < every))) for t in timelines)
    check_batch_size(size, workshop.task(config).train, messages * gradients)


def _check_goals(point: Point, workshop: Workshop, prefix: str) -> None:
    """The metrics that a target or a stop names are the task's."""
    for key in ("target", "stop"):
        goal = getattr(point.config, key)
        known = workshop.metrics(point.config) if goal is not None else ()
        if goal is not None and goal.metric not in known:
            text = f"unknown metric {goal.metric!r}; {suggest(goal.metric, list(known))}"
            raise ConfigError([f"{prefix}{key}.metric: {text}"])

"""The points of a run made in this process, program by program."""

from __future__ import annotations

import itertools
import traceback as tracebacks
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from sgdlab import training
from sgdlab.experiment.config.experiment import Experiment
from sgdlab.experiment.errors import ConfigError, OutputError
from sgdlab.experiment.folders.folder import RunFolder
from sgdlab.experiment.folders.loading import timeline_name
from sgdlab.experiment.running.continuing import describe_point
from sgdlab.experiment.running.work import PointLog, ReplicateLog, Work, finish
from sgdlab.experiment.running.workshop import Workshop
from sgdlab.tasks import DataError
from sgdlab.timelines import TimelineError

DEFAULT_EVALUATIONS = 50
_CHECKPOINTS = 4  # in a run, where the config says nothing: each costs some ten milliseconds
# What would fail in every other program too, and what is no failure.
_ENDING = (training.RunInterrupted, training.CheckpointError, OSError, DataError)


@dataclass(frozen=True)
class Progress:
    """How far an experiment is.

    Attributes:
      updates: made so far, over all runs.
      total_updates: of all runs.
      loss: the mean training loss of the runs that reported last.
      time: their simulated seconds.
      label: of their point.
    """

    updates: int
    total_updates: int
    loss: float
    time: float
    label: str


@dataclass(frozen=True)
class Making:
    """What all points of a run share while they are made.

    Attributes:
      folder: the run's.
      experiment: what is run.
      works: its points, in order.
      workshop: what their configs name.
      progress: called as results come in.
      interrupt: asked after each chunk; once true, everything is saved and the run ends.
      resume: whether points go on from their checkpoints.
    """

    folder: RunFolder
    experiment: Experiment
    works: list[Work]
    workshop: Workshop
    progress: Callable[[Progress], None] | None
    interrupt: Callable[[], bool]
    resume: bool


def make_points(making: Making, tell: Callable[[], None]) -> None:
    """Make every point that has not finished, program by program.

    A program that fails takes its own points with it; the others are made all the same.

    Args:
      making: the run.
      tell: called when points have finished.

    Raises:
      RunInterrupted: `interrupt` asked for it; all is saved.
      Exception: what the run's only program failed with, or what would fail in every other one:
        a checkpoint or another file that cannot be written or read.
    """
    with ExitStack() as files:
        for work in making.works:
            if work.entry is None and making.folder.writes:
                files.callback(open_point(making.folder, work).close)
        tell()
        for batch, axes in find_batches(making.experiment, making.works):
            if making.interrupt():
                raise training.RunInterrupted
            if all(work.entry is not None for work in batch):
                continue
            failure = make_batch(making, batch, axes)
            if failure is not None and len(batch) == len(making.works):
                raise failure
            tell()


def make_batch(
    making: Making,
    batch: list[Work],
    axes: Mapping[str, Sequence[float]],
    *,
    name: str = "",
) -> Exception | None:
    """Make the points of one program, and write what they brought or why they failed.

    Args:
      making: the run.
      batch: the points, all of one program.
      axes: the numbers that tell them apart.
      name: of the folder of their checkpoints; by default the first one's index.

    Returns:
      What the program failed with, if it did.
    """
    name = name or str(batch[0].point.index)
    plan = _plan_checkpoints(making.folder.directory("checkpoints", name), batch, making.interrupt)
    try:
        histories = _replay(batch, axes, making, plan)
    except _ENDING:
        raise
    except Exception as error:
        tracebacks.clear_frames(error.__traceback__)  # which hold the memory that was too little
        for work in batch:
            work.fail(describe_failure(error))
        return error
    for (work, _), history in zip(_owners(batch), histories, strict=True):
        work.histories.append(history)
    for work in batch:
        finish(making.folder, work)
    return None


def describe_failure(error: BaseException) -> str:
    """What a program failed with, in one line."""
    text = " ".join(str(error).split())
    if isinstance(error, MemoryError) or "RESOURCE_EXHAUSTED" in text:
        return f"out of memory: {text or 'the system gave no more'}"
    return text if isinstance(error, ConfigError) else f"{type(error).__name__}: {text}"


def open_point(folder: RunFolder, work: Work) -> PointLog:
    """A point's folder, with its timelines and its open metrics file."""
    directory = folder.directory(*work.parts)
    for draw, timeline in enumerate(work.timelines):
        try:
            timeline.save(directory / timeline_name(draw))
        except TimelineError as error:
            raise OutputError(str(error)) from error
    work.log = PointLog(directory / "metrics.jsonl")
    return work.log


def find_batches(
    experiment: Experiment, works: list[Work]
) -> Iterator[tuple[list[Work], Mapping[str, Sequence[float]]]]:
    """The points of each program: at once where they are a full product, else one by one."""
    for group in experiment.groups:
        axes = _find_axes([point.mapped for point in group])
        if axes is not None:
            yield [works[point.index] for point in group], axes
            continue
        for point in group:
            yield [works[point.index]], {key: [value] for key, value in point.mapped.items()}


def _find_axes(points: list[dict[str, float]]) -> dict[str, list[float]] | None:
    """The axes whose product, the last one fastest, is just these points; else None."""
    axes = {name: list(dict.fromkeys(point[name] for point in points)) for name in points[0]}
    product = [dict(zip(axes, values, strict=True)) for values in itertools.product(*axes.values())]
    return axes if product == points else None


def _plan_checkpoints(
    directory: Path, batch: list[Work], interrupt: Callable[[], bool]
) -> training.CheckpointPlan:
    """Where and how often the points of one program save themselves."""
    first = batch[0]
    owners, seeds = _owners(batch), first.point.config.run_seeds
    for index, (work, _) in enumerate(owners):
        work.checkpoints.append(directory / str(index))
    updates = max(timeline.num_updates for timeline in first.timelines)
    chunks = -(-updates // evaluate_every(first))
    config = first.point.config
    return training.CheckpointPlan(
        directory,
        every=config.checkpoint_every or -(-chunks // _CHECKPOINTS),
        program=describe_point(config.model_dump(mode="json"), first.point.mapped),
        logs={
            index: ReplicateLog(work.log, seeds[index % len(seeds)], draw)
            for index, (work, draw) in enumerate(owners)
            if work.log is not None
        },
        interrupt=interrupt,
    )


def _owners(batch: list[Work]) -> list[tuple[Work, int]]:
    """The point and the draw of each member, in the order product(draws, points, seeds)."""
    seeds = batch[0].point.config.run_seeds
    return [(w, d) for d in range(len(batch[0].timelines)) for w in batch for _ in seeds]


def _replay(
    works: list[Work],
    axes: Mapping[str, Sequence[float]],
    making: Making,
    plan: training.CheckpointPlan,
) -> training.Histories:
    """One call of `replay_many`."""
    config = works[0].point.config
    try:
        return training.replay_many(
            **making.workshop.arguments(config, works[0].point.mapped, works[0].timelines),
            hyperparameters=axes,
            evaluate_every=evaluate_every(works[0]),
            stop=None if config.stop is None else config.stop.model_dump(exclude_none=True),
            callback=_Meter(making.works, works, making.progress).take,
            checkpoint=plan,
            resume=making.resume,
        )
    except ValueError as error:
        if type(error) is not ValueError:
            raise
        raise ConfigError([" ".join(str(error).splitlines())]) from error


def evaluate_every(work: Work) -> int:
    """Updates from one evaluation to the next, which are a chunk."""
    config = work.point.config
    if config.evaluate_every is not None:
        return config.evaluate_every
    updates = max(timeline.num_updates for timeline in work.timelines)
    return max(1, -(-updates // (config.evaluations or DEFAULT_EVALUATIONS)))


class _Meter:
    """Writes evaluations as they come, and tells the caller how far everything is."""

    def __init__(
        self,
        works: list[Work],
        batch: list[Work],
        progress: Callable[[Progress], None] | None,
    ) -> None:
        self.owners, self.seeds = _owners(batch), batch[0].point.config.run_seeds
        self.progress = progress
        self.total = sum(work.num_updates for work in works)
        self.before = sum(work.num_updates for work in works if work.entry is not None)
        self.made: dict[int, int] = {}

    def take(self, chunk: training.ChunkReport) -> None:
        for row in chunk.evaluations:
            work, draw = self.owners[row["member"]]
            rest = {key: value for key, value in row.items() if key != "member"}
            seed = self.seeds[row["member"] % len(self.seeds)]
            work.write_line({"seed": seed, "timeline": draw, **rest})
        for member in chunk.members:
            self.made[member] = chunk.update
        if self.progress is not None:
            label = self.owners[chunk.members[0]][0].point.label
            done = self.before + sum(self.made.values())
            loss = float(np.mean(chunk.loss))
            self.progress(Progress(done, self.total, loss, chunk.time, label))

"""Running an experiment: from its config to a run folder, at once or with interruptions."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from sgdlab import training
from sgdlab.experiment.config import Devices
from sgdlab.experiment.continuing import (
    Kept,
    check_same,
    describe_point,
    read_summary,
    take_finished,
)
from sgdlab.experiment.environment import describe_environment
from sgdlab.experiment.errors import AbortError, ConfigError, OutputError, StoppedError
from sgdlab.experiment.experiment import Experiment, Point, load_experiment
from sgdlab.experiment.files import make_error
from sgdlab.experiment.folder import RunFolder, create_folder, find_config, open_folder, to_json
from sgdlab.experiment.hosts import announce, follow
from sgdlab.experiment.problems import suggest
from sgdlab.experiment.reading import dump
from sgdlab.experiment.record import Record
from sgdlab.experiment.runs import Run, load_run, read_json, timeline_name
from sgdlab.experiment.work import PointLog, Work, finish
from sgdlab.experiment.workshop import Workshop
from sgdlab.timelines import Timeline, TimelineError
from sgdlab.training import checkpoints
from sgdlab.training.replaying import prepare

DEFAULT_EVALUATIONS = 50
_CHECKPOINTS = 4  # in a run, where the config says nothing: each costs some ten milliseconds


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


def run_experiment(
    config: str | Path | Mapping[str, Any] | Experiment,
    *,
    root: str | Path = "runs",
    overrides: Sequence[str] = (),
    run_id: str | None = None,
    progress: Callable[[Progress], None] | None = None,
    interrupt: Callable[[], bool] = lambda: False,
) -> Run:
    """Run an experiment, its sweep included, into a new folder below the root.

    Everything that can be found wrong beforehand is found before anything is written: the config,
    the timelines and the data.

    Args:
      config: a YAML file, the data of one, or a checked experiment.
      root: where runs lie.
      overrides: `key.path=value`, where the config is not checked yet.
      run_id: the folder's name; by default a new one.
      progress: called as results come in, from the threads that bring them.
      interrupt: asked after each chunk; once true, everything is saved and the run ends.

    Returns:
      The `Run`. Points that diverged say so in their status.

    Raises:
      ConfigError: the config cannot be run.
      DataFileError, DataError: a data file is missing or damaged.
      BusyError, OutputError, CheckpointError: the folder is held by another process, or cannot be
        written.
      AbortError: every point met a value that is not finite.
      StoppedError: `interrupt` asked for it.
    """
    experiment = config if isinstance(config, Experiment) else load_experiment(config, overrides)
    workshop = Workshop()
    works = _prepare(experiment, workshop)
    with create_folder(root, experiment.name, run_id) as folder:
        record = Record(experiment, folder, works, {})
        folder.write_text(dump(experiment.config), "config.yaml")
        _note_environment(folder, workshop)
        announce(folder, works)
        _run(folder, experiment, works, workshop, record, progress, interrupt)
    return _read_back(folder, works)


def resume_run(
    path: str | Path,
    config: str | Path | Mapping[str, Any] | Experiment | None = None,
    *,
    overrides: Sequence[str] = (),
    progress: Callable[[Progress], None] | None = None,
    interrupt: Callable[[], bool] = lambda: False,
) -> Run:
    """Go on with a run that was ended early, or over a longer horizon than it had.

    Points that have finished are not run again; the others go on from their newest sound
    checkpoint, or begin where there is none. The files are then those of a run that was never
    ended, byte for byte, but for the wall time.

    Args:
      path: the run folder.
      config: as for `run_experiment`; by default the folder's own.
      overrides: `key.path=value`: the horizon, larger than it was, and how often the run evaluates
        and saves itself.
      progress: as for `run_experiment`.
      interrupt: as for `run_experiment`.

    Returns:
      The `Run`.

    Raises:
      ConfigError, ResumeError: it would be another run; names the key and both values.
      OutputError: the folder is no run.
      CheckpointError: there are checkpoints and none is sound.
      BusyError, DataError, AbortError, StoppedError: as for `run_experiment`.
    """
    path = Path(path)
    own = find_config(path)
    with open_folder(path) as folder:
        old, source = load_experiment(own), own if config is None else config
        new = source if isinstance(source, Experiment) else load_experiment(source, overrides)
        check_same(old, new)
        summary, workshop = read_summary(path), Workshop()
        works = _prepare(new, workshop)
        take_finished(works, summary)
        announce(folder, works)
        kept, record = Kept(folder, works), Record(new, folder, works, summary)
        try:
            folder.write_text(dump(new.config), "config.yaml")
            _note_environment(folder, workshop)
            _run(folder, new, works, workshop, record, progress, interrupt, resume=True)
        except training.ResumeError:
            kept.put_back()
            raise
    return _read_back(folder, works)


def follow_run(
    experiment: Experiment, *, resume: bool = False, interrupt: Callable[[], bool] = lambda: False
) -> None:
    """The same on every other process of a distributed run: it computes, and writes nothing.

    Args:
      experiment: as for `run_experiment`, or of the run that is gone on with.
      resume: whether process 0 calls `resume_run`; the run folder must be seen from here.
      interrupt: as for `run_experiment`.

    Raises:
      ConfigError, DataError, ResumeError, CheckpointError, StoppedError: as for `resume_run`.
    """
    workshop = Workshop()
    works = _prepare(experiment, workshop)
    folder = follow(works)
    record = Record(experiment, folder, works, {})
    _run(folder, experiment, works, workshop, record, None, interrupt, resume=resume)


def _run(
    folder: RunFolder,
    experiment: Experiment,
    works: list[Work],
    workshop: Workshop,
    record: Record,
    progress: Callable[[Progress], None] | None,
    interrupt: Callable[[], bool],
    *,
    resume: bool = False,
) -> None:
    """Run every point that has not finished, program by program."""
    with ExitStack() as files:
        try:
            for work in works:
                if work.entry is None and folder.writes:
                    _open(folder, work, files)
            record.write()
            for batch, axes in _batches(experiment, works):
                if interrupt():
                    raise training.RunInterrupted
                if all(work.entry is not None for work in batch):
                    continue
                meter = _Meter(works, batch, progress)
                plan = _plan_checkpoints(folder, batch, interrupt)
                _replay(batch, axes, workshop, meter, plan, resume)
                for work in batch:
                    finish(folder, work)
                record.write()
            record.write(done=True)
        except training.RunInterrupted as error:
            record.interrupt()
            raise StoppedError(folder.path) from error
        except BaseException:
            record.interrupt()
            raise


def _read_back(folder: RunFolder, works: list[Work]) -> Run:
    run = load_run(folder.path)
    if all(work.status == "aborted" for work in works):
        error = run.members[0].summary["errors"][0]
        raise AbortError(f"{folder.path}: {error}; {_last_good(works[0])}", run)
    return run


def _last_good(work: Work) -> str:
    """The newest checkpoint of the first replicate that aborted."""
    for history, folder in zip(work.histories, work.checkpoints, strict=True):
        found = checkpoints.find(folder) if history.error else []
        if found:
            return f"the last good checkpoint is {found[0]}"
    return "there is no checkpoint from before"


def _note_environment(folder: RunFolder, workshop: Workshop) -> None:
    """What this part of the run is made on, unless an earlier part was made on the same."""
    environment = to_json({**describe_environment(), "data": workshop.data})
    for number in itertools.count():
        name = f"environment-{number}.json" if number else "environment.json"
        if not (folder.path / name).exists():
            folder.write_json(environment, name)
            return
        if read_json(folder.path / name) == environment:
            return


def _prepare(experiment: Experiment, workshop: Workshop) -> list[Work]:
    """Build what can fail before anything is written."""
    works = []
    single = len(experiment.points) == 1
    for point in experiment.points:
        prefix = f"{experiment.source}: {f'{point.label}: ' if point.label else ''}"
        try:
            timelines = workshop.timelines(point.config)
        except TimelineError as error:
            line = f"{prefix}protocol: {error}"
            raise make_error([line], [str(error)], point.config.model_dump()) from error
        if not all(timeline.num_updates for timeline in timelines):
            raise ConfigError([f"{prefix}no update happens; allowed: a longer horizon"])
        try:
            _build(point, timelines, workshop)
        except ValueError as error:
            if type(error) is not ValueError:  # a DataError says itself what is wrong
                raise
            raise ConfigError([f"{prefix}{error}"]) from error
        _check_goals(point, workshop, prefix)
        parts = () if single else ("members", str(point.index))
        works.append(Work(point, timelines, parts))
    return works


def _build(point: Point, timelines: tuple[Timeline, ...], workshop: Workshop) -> None:
    """Every part of a point once, so that what a part refuses is known now."""
    config = point.config
    workshop.task(config)
    workshop.partition(config, timelines[0].num_workers)
    workshop.rule(config, point.mapped)(**point.mapped)
    workshop.receive(config, timelines[0])
    workshop.loss_scale(config)
    computes = workshop.worker(config).gradients_per_message
    for timeline in timelines:
        if timeline.gradients_per_message != computes:
            found = timeline.gradients_per_message
            raise ValueError(
                f"protocol: messages of {found} gradients; allowed: {computes}, as the worker sends"
            )
    if config.devices != Devices():  # what can't be spread is found where the program is chosen
        points = {name: [value] for name, value in point.mapped.items()}
        prepare(**workshop.arguments(config, point.mapped, timelines), hyperparameters=points)
    else:
        workshop.mesh(config)


def _check_goals(point: Point, workshop: Workshop, prefix: str) -> None:
    """The metrics that a target or a stop names are the task's."""
    for key in ("target", "stop"):
        goal = getattr(point.config, key)
        known = workshop.metrics(point.config) if goal is not None else ()
        if goal is not None and goal.metric not in known:
            text = f"unknown metric {goal.metric!r}; {suggest(goal.metric, list(known))}"
            raise ConfigError([f"{prefix}{key}.metric: {text}"])


def _open(folder: RunFolder, work: Work, files: ExitStack) -> None:
    """A point's folder, with its timelines and its open metrics file."""
    directory = folder.directory(*work.parts)
    for draw, timeline in enumerate(work.timelines):
        try:
            timeline.save(directory / timeline_name(draw))
        except TimelineError as error:
            raise OutputError(str(error)) from error
    work.log = PointLog(directory / "metrics.jsonl")
    files.callback(work.log.close)


def _batches(
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
    folder: RunFolder, batch: list[Work], interrupt: Callable[[], bool]
) -> training.CheckpointPlan:
    """Where and how often the points of one program save themselves."""
    first = batch[0]
    directory = folder.directory("checkpoints", str(first.point.index))
    owners = _owners(batch)
    for index, (work, _) in enumerate(owners):
        work.checkpoints.append(directory / str(index))
    updates = max(timeline.num_updates for timeline in first.timelines)
    chunks = -(-updates // _evaluate_every(first))
    config = first.point.config
    return training.CheckpointPlan(
        directory,
        every=config.checkpoint_every or -(-chunks // _CHECKPOINTS),
        program=describe_point(config.model_dump(mode="json"), first.point.mapped),
        logs={index: work.log for index, (work, _) in enumerate(owners) if work.log is not None},
        interrupt=interrupt,
    )


def _owners(batch: list[Work]) -> list[tuple[Work, int]]:
    """The point and the draw of each member, in the order product(draws, points, seeds)."""
    seeds = batch[0].point.config.run_seeds
    return [(w, d) for d in range(len(batch[0].timelines)) for w in batch for _ in seeds]


def _replay(
    works: list[Work],
    axes: Mapping[str, Sequence[float]],
    workshop: Workshop,
    meter: _Meter,
    plan: training.CheckpointPlan,
    resume: bool,
) -> None:
    """One call of `replay_many`, its members given to their points."""
    config = works[0].point.config
    try:
        histories = training.replay_many(
            **workshop.arguments(config, works[0].point.mapped, works[0].timelines),
            hyperparameters=axes,
            evaluate_every=_evaluate_every(works[0]),
            stop=None if config.stop is None else config.stop.model_dump(exclude_none=True),
            callback=meter.take,
            checkpoint=plan,
            resume=resume,
        )
    except ValueError as error:
        if type(error) is not ValueError:
            raise
        raise ConfigError([" ".join(str(error).splitlines())]) from error
    for (work, _), history in zip(_owners(works), histories, strict=True):
        work.histories.append(history)


def _evaluate_every(work: Work) -> int:
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

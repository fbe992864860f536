"""Running an experiment: from its config to a run folder, at once or with interruptions."""

from __future__ import annotations

import itertools
import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sgdlab import training
from sgdlab.experiment.config.experiment import Experiment, load_experiment
from sgdlab.experiment.errors import AbortError, FailedError, StoppedError
from sgdlab.experiment.folders.files import read_json
from sgdlab.experiment.folders.folder import (
    RunFolder,
    create_folder,
    find_config,
    open_folder,
    to_json,
)
from sgdlab.experiment.folders.run import Run
from sgdlab.experiment.folders.seal import write_summary
from sgdlab.experiment.folders.settling import settle
from sgdlab.experiment.reading.parsing import dump
from sgdlab.experiment.running.continuing import (
    Kept,
    check_same,
    clear_unfinished,
    mend_own,
    take_finished,
    take_summary,
)
from sgdlab.experiment.running.environment import describe_environment
from sgdlab.experiment.running.hosts import announce, follow
from sgdlab.experiment.running.isolating import make_apart
from sgdlab.experiment.running.isolation import Isolation
from sgdlab.experiment.running.making import Making, Progress, make_points
from sgdlab.experiment.running.preparing import prepare
from sgdlab.experiment.running.record import Record
from sgdlab.experiment.running.whole import telling_what_is_whole
from sgdlab.experiment.running.workshop import Workshop
from sgdlab.training.interrupts import interruptible

_NONE = "there is no checkpoint from before"


def run_experiment(
    config: str | Path | Mapping[str, Any] | Experiment,
    *,
    root: str | Path = "runs",
    overrides: Sequence[str] = (),
    run_id: str | None = None,
    progress: Callable[[Progress], None] | None = None,
    interrupt: Callable[[], bool] = lambda: False,
    isolate: Isolation | None = None,
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
      isolate: give each point a process of its own, which may fail alone; by default none has.

    Returns:
      The `Run`. Points that diverged say so in their status.

    Raises:
      ConfigError: the config cannot be run.
      DataFileError, DataError: a data file is missing or damaged.
      BusyError, OutputError, CheckpointError: the folder is held by another process, or cannot be
        written.
      AbortError: every point met a value that is not finite.
      FailedError: points failed; the others were made.
      StoppedError: `interrupt` asked for it.
      KeyboardInterrupt: Ctrl-C did; the run is interrupted, and can be gone on with.
    """
    with _asking(interrupt) as asked:
        experiment = _load(config, overrides)
        workshop = Workshop()
        works = prepare(experiment, workshop)
        with (
            create_folder(root, experiment.name, run_id) as folder,
            telling_what_is_whole(folder.path, works),
        ):
            record = Record(experiment, folder, works, {})
            folder.write_text(dump(experiment.config), "config.yaml")
            _note_environment(folder, workshop)
            record.write()
            announce(folder, works)
            making = Making(folder, experiment, works, workshop, progress, asked, resume=False)
            _run(making, record, isolate)
            run = settle(folder, experiment)
    return _check_end(run)


def resume_run(
    path: str | Path,
    config: str | Path | Mapping[str, Any] | Experiment | None = None,
    *,
    overrides: Sequence[str] = (),
    progress: Callable[[Progress], None] | None = None,
    interrupt: Callable[[], bool] = lambda: False,
    isolate: Isolation | None = None,
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
      isolate: as for `run_experiment`. Points that were begun in the other way begin anew.

    Returns:
      The `Run`.

    Raises:
      ConfigError, ResumeError: it would be another run; names the key and both values.
      OutputError: the folder is no run.
      CheckpointError: there are checkpoints and none is sound.
      BusyError, DataError, AbortError, FailedError, StoppedError: as for `run_experiment`.
    """
    path = Path(path)
    own = find_config(path)
    with _asking(interrupt) as asked, open_folder(path) as folder:
        summary = take_summary(path)
        old, new = load_experiment(own), _load(own if config is None else config, overrides)
        check_same(old, new)
        workshop = Workshop()
        works = prepare(new, workshop)
        take_finished(path, works, summary)
        announce(folder, works)
        kept, record = Kept(folder, works), Record(new, folder, works, summary)
        with telling_what_is_whole(path, works), kept.unless_refused():
            if summary:
                write_summary(folder, {**summary, "status": "running"})  # which unseals it
            clear_unfinished(folder)
            mend_own(folder, summary)
            folder.write_text(dump(new.config), "config.yaml")
            _note_environment(folder, workshop)
            making = Making(folder, new, works, workshop, progress, asked, resume=True)
            _run(making, record, isolate)
            run = settle(folder, new)
    return _check_end(run)


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
    works = prepare(experiment, workshop)
    folder = follow(works)
    record = Record(experiment, folder, works, {})
    making = Making(folder, experiment, works, workshop, None, interrupt, resume=resume)
    _run(making, record, None)


def _load(
    config: str | Path | Mapping[str, Any] | Experiment, overrides: Sequence[str]
) -> Experiment:
    return config if isinstance(config, Experiment) else load_experiment(config, overrides)


@contextmanager
def _asking(interrupt: Callable[[], bool]) -> Iterator[Callable[[], bool]]:
    """`interrupt`, or Ctrl-C where nobody else has taken it, which is `KeyboardInterrupt`."""
    with interruptible() as came:
        try:
            yield lambda: interrupt() or came()
        except StoppedError as error:
            if came():
                raise KeyboardInterrupt(str(error)) from error
            raise


def _run(making: Making, record: Record, isolation: Isolation | None) -> None:
    """Make every point that has not finished."""
    try:
        if isolation is None:
            make_points(making, record.write)
        else:
            make_apart(making, isolation, record.write)
        record.write(done=True)
    except training.RunInterrupted as error:
        record.interrupt()
        raise StoppedError(making.folder.path, isolated=isolation is not None) from error
    except BaseException as error:
        record.interrupt(" ".join(str(error).split()) if isinstance(error, Exception) else None)
        raise


def _check_end(run: Run) -> Run:
    """The run, or the error that says which points did not come through."""
    failed = [member for member in run.members if member.status == "failed"]
    if failed:
        first, of = failed[0], f"{len(failed)} of {len(run.members)} points failed"
        where = f"{run.path}: {of}: {first.label}: {first.summary['errors'][0]}"
        hint = f"run them again with: sgdlab run --resume {shlex.quote(str(run.path))}"
        raise FailedError(f"{where}; {hint}", run)
    if all(member.status == "aborted" for member in run.members):
        summary = run.members[0].summary
        found = summary.get("last_good")
        good = f"the last good checkpoint is {run.path / found}" if found else _NONE
        raise AbortError(f"{run.path}: {summary['errors'][0]}; {good}", run)
    return run


def _note_environment(folder: RunFolder, workshop: Workshop) -> Path | None:
    """What this part of the run is made on, unless an earlier part was made on the same.

    Returns:
      The file, if there is a new one.
    """
    environment = to_json({**describe_environment(), "data": workshop.data})
    for number in itertools.count():
        name = f"environment-{number}.json" if number else "environment.json"
        if not (folder.path / name).exists():
            folder.write_json(environment, name)
            return folder.path / name
        if read_json(folder.path / name) == environment:
            break
    return None

"""`sgdlab run`: an experiment made, or gone on with, and its report written."""

from __future__ import annotations

import functools
import shlex
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sgdlab.cli.folders import write_report
from sgdlab.cli.options import (
    Coordinator,
    Distributed,
    NumProcesses,
    Overrides,
    ProcessId,
    Root,
    Simulate,
)
from sgdlab.experiment.errors import OutputError, in_one_line
from sgdlab.experiment.running.isolation import Isolation
from sgdlab.experiment.running.signals import Signals

if TYPE_CHECKING:
    from sgdlab.experiment import Experiment, Follower, Run


def run(
    context: typer.Context,
    file: Annotated[str | None, typer.Argument(help="An experiment, in YAML.")] = None,
    overrides: Overrides = None,
    resume: Annotated[
        Path | None, typer.Option(metavar="RUN_FOLDER", help="Go on with a run that was ended.")
    ] = None,
    root: Root = Path("runs"),
    seed: Annotated[int | None, typer.Option(help="The same as seed=...")] = None,
    run_id: Annotated[
        str | None, typer.Option("--id", help="The run's folder name; by default a new one.")
    ] = None,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print the report's path.")] = False,
    dry_run: Annotated[bool, typer.Option(help="Say what would be run, and stop.")] = False,
    debug_nans: Annotated[
        bool, typer.Option("--debug-nans", help="Name the operation that makes a NaN; slow.")
    ] = False,
    isolate: Annotated[
        bool, typer.Option("--isolate", help="Give each point a process of its own.")
    ] = False,
    member_timeout: Annotated[
        float | None,
        typer.Option(metavar="SECONDS", help="Give up an isolated point without progress."),
    ] = None,
    member_memory: Annotated[
        int | None, typer.Option(metavar="BYTES", help="The address space of an isolated point.")
    ] = None,
    simulate_devices: Simulate = None,
    distributed: Distributed = False,
    coordinator: Coordinator = None,
    num_processes: NumProcesses = None,
    process_id: ProcessId = None,
    tensorboard: Annotated[
        bool, typer.Option("--tensorboard", help="Write event files into the run folder.")
    ] = False,
    wandb: Annotated[
        bool, typer.Option("--wandb", help="Write runs of Weights & Biases; offline by default.")
    ] = False,
) -> None:
    """Run an experiment, its sweep included, and write its report."""
    from sgdlab.experiment import check_outlets, find_config, load_experiment
    from sgdlab.experiment.running import hosts

    file, given = _read_source(file, overrides, seed, resume, run_id)
    several = distributed or num_processes is not None
    isolation = _read_isolation(isolate, member_timeout, member_memory, several)
    own = None if resume is None else find_config(resume)
    outlets = ["tensorboard"] * tensorboard + ["wandb"] * wandb
    check_outlets(outlets)
    experiment = load_experiment(file or own or "", given)
    if not dry_run:
        hosts.start(simulate_devices, distributed, coordinator, num_processes, process_id)
    if not quiet and hosts.is_leader():
        print(in_one_line(f"{experiment.name}: {experiment.describe()}"))
    if dry_run:
        from sgdlab.experiment import check_timelines

        check_timelines(experiment)
        _print_points(experiment)
        return
    from sgdlab.experiment import Follower, look_for_nans, open_outlets

    if debug_nans:  # on every process, or their programs would differ
        look_for_nans()
    if not hosts.is_leader():
        _follow(experiment, context.obj, resume)
        return
    path, make = _choose_run(experiment, resume, root, run_id, isolation)
    with Follower(path, experiment, open_outlets(outlets, path)) as follower:
        _make_and_report(make, context.obj, quiet, follower)


def _read_source(
    file: str | None,
    overrides: Sequence[str] | None,
    seed: int | None,
    resume: Path | None,
    run_id: str | None,
) -> tuple[str | None, list[str]]:
    """The file, if one was named, and all that is put over it.

    Raises:
      BadParameter: there is nothing to run, or two answers to which run it is.
    """
    given = list(overrides or ()) + ([f"seed={seed}"] if seed is not None else [])
    if resume is not None and file is not None and "=" in file:
        file, given = None, [file, *given]  # the config is the run's own
    if resume is None and file is None:
        raise typer.BadParameter("missing FILE: an experiment, or --resume RUN_FOLDER")
    if resume is not None and run_id is not None:
        raise typer.BadParameter("--id: a resumed run has one already; allowed: none")
    return file, given


def _read_isolation(
    isolate: bool, timeout: float | None, memory: int | None, several: bool
) -> Isolation | None:
    """What isolated points may take; None where none is isolated.

    Raises:
      BadParameter: limits without isolation, limits that leave nothing, or several processes.
    """
    if not isolate:
        if (timeout, memory) != (None, None):
            raise typer.BadParameter("--member-timeout, --member-memory: only with --isolate")
        return None
    try:
        isolation = Isolation(timeout, memory)
    except ValueError as error:
        allowed = "--member-timeout, --member-memory: allowed: more than 0"
        raise typer.BadParameter(allowed) from error
    if several:
        raise typer.BadParameter("--isolate: not with several processes; allowed: on one host")
    return isolation


def _follow(experiment: Experiment, signals: Signals, resume: Path | None) -> None:
    """Compute beside process 0, which writes."""
    from sgdlab.experiment import follow_run
    from sgdlab.experiment.running import hosts

    with signals.patient():
        follow_run(experiment, resume=resume is not None, interrupt=hosts.agree(signals))


def _choose_run(
    experiment: Experiment,
    resume: Path | None,
    root: Path,
    run_id: str | None,
    isolation: Isolation | None,
) -> tuple[Path, Callable[..., Run]]:
    """Where the run is to lie, and what makes it: a new one, or one that is gone on with."""
    from sgdlab.experiment import new_id, resume_run, run_experiment

    if resume is not None:
        return resume, functools.partial(resume_run, resume, experiment, isolate=isolation)
    run_id = run_id or new_id()
    make = functools.partial(run_experiment, experiment, root=root, run_id=run_id)
    return root / experiment.name / run_id, functools.partial(make, isolate=isolation)


def _make_and_report(
    make: Callable[..., Run], signals: Signals, quiet: bool, follower: Follower
) -> None:
    """Make a run, and its report, which one that did not come through has too."""
    from sgdlab.experiment import IncompleteError, prepare_backend
    from sgdlab.experiment.folders.edges import describe_edges
    from sgdlab.experiment.running import hosts
    from sgdlab.experiment.terminal.display import Bar, print_frame
    from sgdlab.experiment.terminal.verdicts import print_claims

    prepare_backend()
    failure = None
    with Bar(quiet) as bar, signals.patient():
        try:
            progress = follower.beside(bar.update)
            made = make(progress=progress, interrupt=hosts.agree(signals))
        except IncompleteError as error:
            if error.run is None:
                raise
            failure, made = error, error.run
        follower.finish(made)
    try:
        page = write_report([made], made.path / "report.html")
    except OutputError as error:
        how = f"sgdlab report {shlex.quote(str(made.path))}"
        error.add_note(f"whole: the run; once the cause is gone, write its report with: {how}")
        raise
    if not quiet:
        print_frame(made.table())
        for line in describe_edges(made.members):
            print(line)
        print_claims(made.claims)
    print(page)
    if failure is not None:
        raise failure


def _print_points(experiment: Experiment) -> None:
    from sgdlab.experiment.reading.parsing import dump

    for point in experiment.points:
        print(in_one_line(f"{point.index}: {point.label or 'the only point'}"))
    print(dump(experiment.config), end="")

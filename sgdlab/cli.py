"""The command line: what a person types. Thin: every command hands on to a room.

Nothing heavy is imported before a command needs it, so that help and a config's problems come at
once.
"""

from __future__ import annotations

import functools
import os
import signal
import sys
import traceback as tracebacks
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

from sgdlab.experiment.running.signals import Signals, Stopped

if TYPE_CHECKING:
    from sgdlab.experiment import Experiment, Follower, Run

EXIT_USAGE, EXIT_OUTPUT = 2, 6
# By name, since importing the rooms that these come from would import jax.
_EXITS = {"FloatingPointError": 5, "DataError": 3, "ResumeError": 2, "CheckpointError": 6}

app = typer.Typer(
    name="sgdlab",
    help="A laboratory for distributed SGD: a timeline says when, a replay says what.",
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)

File = Annotated[Path, typer.Argument(help="An experiment, in YAML.")]
Overrides = Annotated[
    list[str] | None, typer.Argument(help="key.path=value, put over what the file says.")
]
Simulate = Annotated[
    int | None, typer.Option("--simulate-devices", metavar="N", help="N devices on the CPU.")
]
Distributed = Annotated[
    bool, typer.Option("--distributed", help="One process of several: those of the scheduler, or")
]
Coordinator = Annotated[
    str | None, typer.Option(metavar="HOST:PORT", help="where process 0 is to be found,")
]
NumProcesses = Annotated[int | None, typer.Option(metavar="N", help="how many there are,")]
ProcessId = Annotated[int | None, typer.Option(metavar="I", help="and which one this is, from 0.")]
Root = Annotated[Path, typer.Option(help="The folder that runs lie in.")]


def main(arguments: list[str] | None = None) -> NoReturn:
    """Run a command; every failure is one line on the standard error.

    Args:
      arguments: of the command line; by default the process's own.

    Raises:
      SystemExit: always, with 0 done, 1 points that failed or a fault of ours, 2 usage or config,
        3 data, 4 busy, 5 numerical abort, 6 checkpoint or output, 130 or 143 a signal.
    """
    given = list(sys.argv[1:] if arguments is None else arguments)
    # Wherever it stands: one wants it after the command has failed.
    explain = "--traceback" in given
    given = [argument for argument in given if argument != "--traceback"]
    with warnings.catch_warnings(), Signals() as signals:
        warnings.showwarning = _show_warning(warnings.showwarning)
        try:
            code = app(given, prog_name="sgdlab", standalone_mode=False, obj=signals)
        except (Exception, KeyboardInterrupt, Stopped) as error:
            if explain:
                tracebacks.print_exc()
            from sgdlab.experiment.running import hosts

            hosts.end_if_peer_lost(error)
            code, lines = _fail(error, signals)
            for line in lines if hosts.tells(error) else ():
                print(line, file=sys.stderr)
            hosts.leave(error, code)
    sys.exit(code or 0)


def _show_warning(otherwise: Callable[..., None]) -> Callable[..., None]:
    """What a checkpoint warns of is a line; what else there is, as it was."""

    def show(message: Warning | str, category: type[Warning], *where: Any, **more: Any) -> None:
        if category.__name__ == "CheckpointWarning":
            print(f"sgdlab: {' '.join(str(message).split())}", file=sys.stderr)
        elif "persistent compilation cache" not in str(message):  # which a run can do without
            otherwise(message, category, *where, **more)

    return show


def _fail(error: BaseException, signals: Signals) -> tuple[int, list[str]]:
    """The exit code of a failure and the lines that tell of it."""
    if isinstance(error, Stopped):
        name = signal.Signals(error.number).name
        return 128 + error.number, [f"sgdlab: stopped by {name}; what was written stays"]
    if isinstance(error, BrokenPipeError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0, []
    if hasattr(error, "format_message"):  # what typer says of a wrong option or argument
        return EXIT_USAGE, [f"sgdlab: {' '.join(str(error.format_message()).split())}"]  # pyright: ignore
    from sgdlab.experiment import ExperimentError, StoppedError

    text = " ".join(str(error).split())
    if isinstance(error, StoppedError):
        return 128 + signals.number, [text]
    if isinstance(error, ExperimentError):
        return error.exit_code, list(getattr(error, "problems", ())) or [text]
    for kind in type(error).__mro__:
        if kind.__name__ in _EXITS:
            return _EXITS[kind.__name__], [f"sgdlab: {text}"]
    if isinstance(error, OSError):
        return EXIT_OUTPUT, [f"sgdlab: {text}"]
    return 1, [f"sgdlab: {type(error).__name__}: {text}; --traceback shows where"]


@app.callback()
def _root(
    traceback: Annotated[
        bool, typer.Option("--traceback", help="Show where a failure came from.")
    ] = False,
) -> None:
    del traceback  # taken out of the arguments before they are read


@app.command()
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
    from sgdlab.experiment import check_outlets, find_config, load_experiment, new_id

    given = list(overrides or ()) + ([f"seed={seed}"] if seed is not None else [])
    if resume is not None and file is not None and "=" in file:
        file, given = None, [file, *given]  # the config is the run's own
    if resume is None and file is None:
        raise typer.BadParameter("missing FILE: an experiment, or --resume RUN_FOLDER")
    if resume is not None and run_id is not None:
        raise typer.BadParameter("--id: a resumed run has one already; allowed: none")
    if not isolate and (member_timeout, member_memory) != (None, None):
        raise typer.BadParameter("--member-timeout, --member-memory: only with --isolate")
    if any(limit is not None and not limit > 0 for limit in (member_timeout, member_memory)):
        raise typer.BadParameter("--member-timeout, --member-memory: allowed: more than 0")
    if isolate and (distributed or num_processes is not None):
        raise typer.BadParameter("--isolate: not with several processes; allowed: on one host")
    own = None if resume is None else find_config(resume)
    outlets = ["tensorboard"] * tensorboard + ["wandb"] * wandb
    check_outlets(outlets)
    experiment = load_experiment(file or own or "", given)
    from sgdlab.experiment.running import hosts

    if not dry_run:
        hosts.start(simulate_devices, distributed, coordinator, num_processes, process_id)
    if not quiet and hosts.is_leader():
        print(f"{experiment.name}: {experiment.describe()}")
    if dry_run:
        _print_points(experiment)
        return
    from sgdlab.experiment import (
        Follower,
        Isolation,
        follow_run,
        look_for_nans,
        open_outlets,
        resume_run,
        run_experiment,
    )

    if debug_nans:  # on every process, or their programs would differ
        look_for_nans()
    if not hosts.is_leader():
        with context.obj.patient():
            follow_run(experiment, resume=resume is not None, interrupt=hosts.agree(context.obj))
        return
    apart = Isolation(member_timeout, member_memory) if isolate else None
    run_id = run_id or new_id()
    path = resume or root / experiment.name / run_id
    if resume is None:
        make = functools.partial(run_experiment, experiment, root=root, run_id=run_id)
    else:
        make = functools.partial(resume_run, resume, experiment)
    make = functools.partial(make, isolate=apart)
    with Follower(path, experiment, open_outlets(outlets, path)) as follower:
        _run(make, context.obj, quiet, follower)


def _run(make: Callable[..., Run], signals: Signals, quiet: bool, follower: Follower) -> None:
    """Make a run, and its report."""
    from sgdlab.experiment import IncompleteError, prepare_backend
    from sgdlab.experiment.running import hosts
    from sgdlab.experiment.terminal.display import Bar, print_table
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
    page = _write_report([made], made.path / "report.html")
    if not quiet:
        table: Any = made.table()
        print_table(table.astype(object).where(table.notna(), None).to_dict("records"))
        print_claims(made.claims)
    print(page)
    if failure is not None:
        raise failure


@app.command()
def verify(
    context: typer.Context,
    given: Annotated[
        list[str],
        typer.Argument(metavar="FILE|FOLDER... [key=value...]", help="Experiments with claims."),
    ],
    tag: Annotated[str | None, typer.Option("-m", "--tag", help="Only those with it.")] = None,
    root: Root = Path("runs"),
    simulate_devices: Simulate = None,
) -> int:
    """Run experiments, or find their runs again, and say whether their claims hold."""
    from sgdlab.experiment import find_experiments, prepare_backend

    overrides = [each for each in given if "=" in each and not Path(each).exists()]
    paths = [Path(each) for each in given if each not in overrides]
    experiments = find_experiments(paths, overrides, tag)
    from sgdlab.experiment.running import hosts
    from sgdlab.experiment.terminal.verdicts import verify_all

    hosts.start(simulate_devices)
    prepare_backend()
    signals: Signals = context.obj
    with signals.patient():
        return verify_all(
            experiments,
            root,
            interrupt=signals.asked,
            finish=lambda run: _write_report([run], run.path / "report.html"),
            explain=lambda error: _fail(error, signals),
        )


@app.command()
def timeline(
    file: File,
    overrides: Overrides = None,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="The picture: .svg, .png or .pdf.")
    ] = None,
) -> None:
    """Draw who computes when and how stale it is; no training."""
    from sgdlab.experiment import load_experiment, preview
    from sgdlab.experiment.terminal.display import print_table, save_figure

    experiment = load_experiment(file, list(overrides or ()))
    found = preview(experiment)
    print_table([each.row for each in found])
    output = output or Path(f"{experiment.name}-timeline.svg")
    for index, each in enumerate(found):
        name = output if len(found) == 1 else output.with_stem(f"{output.stem}-{index}")
        print(save_figure(each.timeline.plot(), name, title=each.label))


@app.command()
def calibrate(
    file: File,
    overrides: Overrides = None,
    repeats: Annotated[int, typer.Option(help="How many gradients are timed.", min=2)] = 300,
) -> None:
    """Measure a gradient on this machine; print the compute block to paste into a config."""
    from sgdlab.experiment import calibrate_experiment, load_experiment, prepare_backend

    experiment = load_experiment(file, list(overrides or ()))
    prepare_backend()
    print(calibrate_experiment(experiment, repeats=repeats), end="")


@app.command()
def precision(
    file: File,
    overrides: Overrides = None,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="The picture: .svg, .png or .pdf.")
    ] = None,
) -> None:
    """Run an experiment under each precision: what it loses and what it saves."""
    from sgdlab.experiment import choose_policies, load_experiment, prepare_backend, study_precision
    from sgdlab.experiment.terminal.precision_tables import draw_exponents, print_study

    experiment = load_experiment(file, list(overrides or ()))
    policies = choose_policies(experiment)
    prepare_backend()
    study = study_precision(experiment, policies)
    print_study(study)
    print(draw_exponents(study, output or Path(f"{experiment.name}-exponents.svg")))


@app.command()
def report(
    runs: Annotated[list[Path], typer.Argument(help="Run folders.")],
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="The page; in the run folder, if one.")
    ] = None,
) -> None:
    """Write one self-contained page about one run or several."""
    from sgdlab.experiment import load_run

    loaded = [load_run(path) for path in runs]
    where = runs[0] / "report.html" if len(runs) == 1 else Path("report.html")
    print(_write_report(loaded, output or where))


@app.command("list")
def list_runs(
    names: Annotated[list[str] | None, typer.Argument(help="Only names that hold these.")] = None,
    root: Root = Path("runs"),
    status: Annotated[str | None, typer.Option(help="Only runs of this status.")] = None,
    sort: Annotated[str, typer.Option(help="The column to sort by.")] = "id",
    reverse: Annotated[bool, typer.Option(help="The other way round.")] = False,
) -> None:
    """List the runs below a root, the newest first."""
    from sgdlab.experiment import load_runs
    from sgdlab.experiment.terminal.display import print_table

    table: Any = load_runs(root)
    if sort not in table:
        allowed = ", ".join(str(column) for column in table)
        raise typer.BadParameter(f"--sort: unknown column {sort!r}; allowed: {allowed}")
    for name in names or ():
        table = table[table["name"].str.contains(name, regex=False)]
    if status is not None:
        table = table[table["status"] == status]
    # Newest, or largest, first.
    table = table.sort_values(sort, ascending=reverse, kind="stable")
    print_table(table.astype(object).where(table.notna(), None).to_dict("records"))


@app.command()
def schema() -> None:
    """Print the JSON schema of an experiment file."""
    import json

    from sgdlab.experiment import config_schema

    print(json.dumps(config_schema(), indent=1))


def _print_points(experiment: Experiment) -> None:
    from sgdlab.experiment.reading.parsing import dump

    for point in experiment.points:
        print(f"{point.index}: {point.label or 'the only point'}")
    print(dump(experiment.config), end="")


def _write_report(runs: list[Run], path: Path) -> Any:
    import sgdlab.report

    # The room's functions are loaded by name, which a type checker can't see.
    write_report: Any = sgdlab.report.write_report
    return write_report(runs, path)

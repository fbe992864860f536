"""`sgdlab verify`: do the claims of experiments hold?"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from sgdlab.cli.failures import explain_failure
from sgdlab.cli.folders import write_report
from sgdlab.cli.options import Root, Simulate
from sgdlab.experiment.running.signals import Signals


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
            finish=lambda run: write_report([run], run.path / "report.html"),
            explain=lambda error: explain_failure(error, signals),
        )

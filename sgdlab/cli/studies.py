"""What a file is asked without making a run: its timeline, its cost, its precisions, its keys."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from sgdlab.cli.options import File, Overrides, Picture


def timeline(file: File, overrides: Overrides = None, output: Picture = None) -> None:
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


def precision(file: File, overrides: Overrides = None, output: Picture = None) -> None:
    """Run an experiment under each precision: what it loses and what it saves."""
    from sgdlab.experiment import choose_policies, load_experiment, prepare_backend, study_precision
    from sgdlab.experiment.terminal.precision_tables import draw_exponents, print_study

    experiment = load_experiment(file, list(overrides or ()))
    policies = choose_policies(experiment)
    prepare_backend()
    study = study_precision(experiment, policies)
    print_study(study)
    print(draw_exponents(study, output or Path(f"{experiment.name}-exponents.svg")))


def schema() -> None:
    """Print the JSON schema of an experiment file."""
    import json

    from sgdlab.experiment import config_schema

    print(json.dumps(config_schema(), indent=1))

"""What a finished run says of its claims, kept in its folder."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from sgdlab.experiment.claims.judging import Judgement, judge
from sgdlab.experiment.config.experiment import Experiment, load_experiment
from sgdlab.experiment.folders.folder import RunFolder
from sgdlab.experiment.folders.loading import load_run
from sgdlab.experiment.folders.run import Run
from sgdlab.experiment.folders.seal import seal, unseal
from sgdlab.experiment.reading.parsing import dump

if TYPE_CHECKING:
    import pandas

FILE = "claims.json"


def settle(folder: RunFolder, experiment: Experiment) -> Run:
    """Judge the claims of an experiment by a run, write down what came of them, and seal the run.

    Args:
      folder: of the run, which has ended.
      experiment: which it is a run of; its claims may be newer than those in the folder.

    Returns:
      The `Run`, its claims judged.
    """
    run = load_run(folder.path)
    if experiment.claims or run.claims:
        judged = judge(experiment.claims, experiment.points, run.members)
        unseal(folder)
        folder.write_json({"claims": [each.to_dict() for each in judged]}, FILE)
        if run.config != experiment.config:
            folder.write_text(dump(experiment.config), "config.yaml")
        run = dataclasses.replace(run, config=experiment.config, claims=tuple(judged))
    seal(folder)
    return run


def check_claims(run: Run) -> pandas.DataFrame:
    """Judge the claims that a run's config holds.

    Args:
      run: a run that has ended.

    Returns:
      A row per claim: claim, asked, left, right, kind, measured, low, high, replicates, verdict,
      note, expected; see `Judgement`.
    """
    import pandas

    experiment = load_experiment(run.config)
    judged = judge(experiment.claims, experiment.points, run.members)
    fields = [field.name for field in dataclasses.fields(Judgement)]
    return pandas.DataFrame([dataclasses.asdict(each) for each in judged], columns=fields)

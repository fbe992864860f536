"""A run that has ended, handed on."""

from __future__ import annotations

from collections.abc import Sequence

from sgdlab.experiment.config.experiment import load_experiment
from sgdlab.experiment.folders.run import Run
from sgdlab.experiment.outlets.choosing import open_outlets
from sgdlab.experiment.outlets.following import Follower


def export_run(run: Run, outlets: Sequence[str] = ("tensorboard",)) -> None:
    """Hand a run's metrics to TensorBoard or Weights & Biases, as if it had been followed.

    Every evaluation is `held-out/...`, and the training loss, the staleness and the measures of
    each update are `training/...`, thinned out evenly to 10,000 updates of a replicate.

    Args:
      run: what `load_run` gave.
      outlets: "tensorboard", into `tensorboard/` of its folder; "wandb", into `wandb/` of it.

    Raises:
      ConfigError: no such outlet, or its package is not installed.
    """
    experiment = load_experiment(run.config)
    with Follower(run.path, experiment, open_outlets(outlets, run.path)) as follower:
        follower.finish(run)

"""Runs made by hand: points of a sweep, and what they brought, known by arithmetic."""

import numpy as np
import pandas as pd

from sgdlab.experiment import Member, load_experiment
from sgdlab.timelines import Cluster, constant, fixed_delay, synchronous

BASE = {
    "name": "made",
    "task": {"name": "digits"},
    "rule": {"name": "sgd", "learning_rate": 0.1},
    "protocol": "synchronous",
    "updates": 2,
}
COLUMNS = ("seed", "timeline", "update", "time", "loss", "accuracy")
# Two workers, of one and two seconds: an update every two seconds, which both messages make.
ROUNDS = synchronous(Cluster(workers=2, compute=[constant(1.0), constant(2.0)]), updates=4)


def points(claims=(), **config):
    return load_experiment({**BASE, "claims": list(claims), **config})


def member(losses, *, label="", accuracies=None, draws=1, timeline=ROUNDS, **more):
    """A point whose losses are `[D·S, evaluations]`, one a version from 0 on, two seconds apart."""
    losses = np.asarray(losses, float)
    seeds = len(losses) // draws
    rows = [
        {
            "seed": index % seeds,
            "timeline": index // seeds,
            "update": update,
            "time": 2.0 * update,
            "loss": loss,
            "accuracy": 1.0 - loss if accuracies is None else accuracies[index][update],
        }
        for index, values in enumerate(losses)
        for update, loss in enumerate(values)
    ]
    given = {"status": "done", "config": {}, "point": {}, "histories": (), **more}
    given.setdefault("summary", {"directions": {"accuracy": "up"}})
    evaluations = pd.DataFrame(rows, columns=list(COLUMNS))
    return Member(label=label, timelines=(timeline,) * draws, evaluations=evaluations, **given)


DELAYED = fixed_delay(1, updates=4)

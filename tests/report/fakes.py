"""Runs as `sgdlab.experiment` describes them, from real timelines and made-up learning curves."""

import itertools
import math
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from sgdlab import timelines
from sgdlab.timelines import Cluster, exponential, lognormal

PROTOCOLS = {
    "synchronous": {},
    "window": {"wait": 0.5},
    "asynchronous": {},
}


@dataclass(frozen=True)
class Member:
    label: str
    point: dict[str, Any]
    config: dict
    status: str
    timelines: tuple
    evaluations: pd.DataFrame
    histories: tuple
    summary: dict


@dataclass(frozen=True)
class Run:
    path: Path
    name: str
    id: str
    config: dict
    environment: dict
    summary: dict
    members: tuple
    claims: tuple = ()


ENVIRONMENT = {
    "python": "3.11.9",
    "cores": 2,
    "versions": {"jax": "0.10.2", "numpy": "2.4.6"},
    "devices": ["cpu"],
}


@cache
def draw(protocol, index, seconds=120.0, workers=16, equal=False):
    """A draw of the clocks; the last two workers are four times slower."""
    normal, slow = lognormal(mean=1.0, sigma=0.5), lognormal(mean=4.0, sigma=0.5)
    compute = exponential(1.0) if equal else [normal] * (workers - 2) + [slow] * 2
    function = getattr(timelines, protocol)
    cluster = Cluster(workers=workers, compute=compute)
    return function(cluster, seconds=seconds, seed=index, **PROTOCOLS[protocol])


def learn(timeline, seed, rate=0.1, evaluations=25):
    """Evaluations of one replicate: more gradients and a higher rate help, staleness hurts."""
    random = np.random.default_rng([seed, timeline.num_updates])
    updates = np.unique(np.linspace(0, timeline.num_updates, evaluations).round().astype(int))
    time = np.concatenate([[0.0], timeline.apply_time])[updates]
    used = timeline.update >= 0
    stale = float(timeline.staleness[used].mean())
    gradients = np.searchsorted(np.sort(timeline.update[used]), updates)
    diverges = rate * (1 + stale) > 6
    progress = 0.035 * rate * gradients / (1 + 0.03 * stale) / (1 + (3 * rate) ** 2)
    loss = 2.3 * np.exp(-progress) + 0.07 + random.normal(0, 0.004, len(updates))
    if diverges:
        loss = 2.3 * np.exp(np.minimum(0.02 * rate * updates, 600.0))
    accuracy = np.clip(1 - 0.39 * np.maximum(loss, 0) + random.normal(0, 0.003, len(loss)), 0.1, 1)
    columns = {"update": updates, "time": time, "loss": loss, "accuracy": accuracy}
    return pd.DataFrame(columns)


def member(point, protocol, *, rate=0.1, seeds=4, draws=2, label=None, goal=0.95, **cluster):
    clocks = tuple(draw(protocol, index, **cluster) for index in range(draws))
    replicates = list(itertools.product(range(draws), range(seeds)))
    tables = [learn(clocks[d], s, rate).assign(seed=s, timeline=d) for d, s in replicates]
    config = {
        "protocol": {"name": protocol, **PROTOCOLS[protocol]},
        "rule": {"learning_rate": rate},
    }
    if goal is not None:
        config["target"] = {"metric": "accuracy", "at_least": goal}
    times = [t["time"][t["accuracy"] >= (goal or 2)].min() for t in tables]
    final = {m: [float(t[m].iloc[-1]) for t in tables] for m in ("loss", "accuracy")}
    first = clocks[0]
    summary = {
        "directions": {"accuracy": "up"},
        "time_to_target": [None if math.isnan(t) else float(t) for t in times] if goal else [],
        "final": final,
        "mean_staleness": float(first.staleness[first.update >= 0].mean()),
        "utilisation": float(first.utilisation().mean()),
        "updates": first.num_updates,
        "seconds": first.seconds,
    }
    made = ", ".join(f"{key}={value}" for key, value in point.items())
    columns = ["seed", "timeline", "update", "time", "loss", "accuracy"]
    evaluations = pd.concat(tables, ignore_index=True)[columns]
    history = ({},) * draws
    label = made if label is None else label
    return Member(label, point, config, "done", clocks, evaluations, history, summary)


def run(members, name="quickstart", description="", **config):
    config = {"name": name, "description": description, "seeds": 4, **config}
    path = Path("runs") / name / "20250101T000000-abc123"
    return Run(path, name, path.name, config, ENVIRONMENT, {}, tuple(members))


def three_protocols(**options):
    """What the quickstart compares."""
    members = [member({"protocol.name": name}, name, **options) for name in PROTOCOLS]
    question = "With two stragglers among 16 workers, who reaches 95 % first?"
    return run(members, description=question)


def many_rates(rates=(0.01, 0.03, 0.1, 0.3, 1.0), **options):
    """Three protocols times five learning rates."""
    members = [
        member({"protocol.name": name, "rule.learning_rate": rate}, name, rate=rate, **options)
        for name in PROTOCOLS
        for rate in rates
    ]
    return run(members, "rates", "Which learning rate does each protocol stand?")


def single(**options):
    """A run without a sweep."""
    return run([member({}, "asynchronous", label="", **options)], "single")

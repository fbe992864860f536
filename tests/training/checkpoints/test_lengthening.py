"""A run over a longer horizon ends in the bytes of the run that was as long from the start."""

import json

import numpy as np
import pytest

from sgdlab import precision, rules, tasks, timelines, training, workers
from sgdlab.timelines import PROTOCOLS, Cluster, Failures, Network, gamma
from sgdlab.training.checkpoints import find
from sgdlab.training.checkpoints.metrics_log import MetricsLog
from sgdlab.training.checkpoints.resuming import CheckpointPlan
from tests.training.test_protocols_replay import CASES as PROTOCOLS_REPLAYED, QUEUES

WORKERS, EVERY = 4, 6
QUADRATIC = tasks.quadratic([1.0, 0.3, 2.0], noise=0.5)
DIGITS = tasks.digits(hidden=[8])
FAST_AND_SLOW = [gamma(mean=mean, shape=4.0) for mean in (0.5, 0.7, 1.0, 3.0)]
CLUSTERS = {
    "plain": {},
    "unreliable": {
        "network": Network(latency=0.05, service_time=0.02),
        "failures": Failures(mtbf=5.0, repair=0.6),
    },
    "changing": {"joins": {1: 2.3}, "leaves": {0: 9.1}},
}
CASES = {**PROTOCOLS_REPLAYED, **{name: (name, rest) for name, rest in QUEUES.items()}}
del CASES["from_trace"]  # which is as long as it is


def draw(case, steps=1, cluster="plain", **horizon):
    name, arguments = CASES[case]
    if name in QUEUES:
        return PROTOCOLS[name](**arguments, **horizon)
    made = Cluster(
        workers=WORKERS, compute=FAST_AND_SLOW, gradients_per_message=steps, **CLUSTERS[cluster]
    )
    return PROTOCOLS[name](made, seed=2, **arguments, **horizon)


def run(folder, timeline, *, resume=False, every=EVERY, **options):
    folder.mkdir(exist_ok=True)
    with MetricsLog(folder / "metrics.jsonl") as log:
        return training.replay(
            options.pop("task", QUADRATIC),
            options.pop("rule", rules.momentum(0.05, decay=0.9)),
            timeline,
            checkpoint=CheckpointPlan(folder / "checkpoints", logs={0: log}),
            callback=lambda chunk: [log.append(json.dumps(row)) for row in chunk.evaluations],
            resume=resume,
            **{"batch_size": 4, "seed": 3, "evaluate_every": every, **options},
        )


def everything(folder, history):
    """The last checkpoint (the whole state and all records) and the history, as bytes."""
    newest = find(folder / "checkpoints" / "0")[0]
    arrays = [history.loss, history.time, history.staleness, history.skipped]
    kept = [np.asarray(array).tobytes() for array in arrays]
    return newest.name, newest.read_bytes(), kept, history.evaluations.to_json()


def assert_lengthened(folder, short, long, **options):
    """Run the one, go on over the other, and compare with the other at once."""
    run(folder / "cut", short, **options)
    resumed = run(folder / "cut", long, resume=True, **options)
    whole = run(folder / "whole", long, **options)
    assert everything(folder / "cut", resumed) == everything(folder / "whole", whole)


@pytest.mark.parametrize("cluster", CLUSTERS)
@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("horizon", ["updates", "seconds", "gradients"])
def test_a_timeline_is_the_beginning_of_the_longer_one(case, cluster, horizon, tmp_path):
    if case in QUEUES and (horizon != "updates" or cluster != "plain"):
        pytest.skip("a queue has updates alone")
    lengths = {"updates": (23, 60), "seconds": (11.3, 31.0), "gradients": (47, 150)}[horizon]
    short, long = (draw(case, cluster=cluster, **{horizon: length}) for length in lengths)
    updates = short.num_updates
    assert 0 < updates < long.num_updates
    np.testing.assert_array_equal(short.apply_time, long.apply_time[:updates])
    # A message is told by its worker and its number among that worker's.
    number = {key: m for m, key in enumerate(zip(long.worker, long.local_index, strict=True))}
    same = np.array([number[key] for key in zip(short.worker, short.local_index, strict=True)], int)
    for name in ("read_version", "start_time"):
        np.testing.assert_array_equal(getattr(short, name), getattr(long, name)[same])
    decided = short.update != timelines.IN_FLIGHT
    np.testing.assert_array_equal(short.update[decided], long.update[same][decided])
    later = long.update[same][~decided]
    assert np.all((later >= updates) | (later < 0))


@pytest.mark.parametrize("case", CASES)
def test_every_protocol_goes_on_to_the_longer_runs_bytes(case, tmp_path):
    """Half-way is no evaluation of the longer run: 20 is no multiple of 6."""
    short, long = draw(case, updates=20), draw(case, updates=40)
    assert_lengthened(tmp_path, short, long)


PROGRAMS = {
    "Local SGD": {"worker": workers.local_steps(2, rules.sgd(0.05))},
    "error feedback": {
        "worker": workers.compressed(workers.gradient(), workers.top_k(0.4), error_feedback=True)
    },
    "a loss scale": {
        "precision": "mixed_float16",
        "loss_scale": precision.DynamicLossScale(2.0**24, period=5),
    },
    "measures": {"measures": ["distance", "cosine"]},
    "transforms": {"receive": rules.compensate_delay(0.04)},
    "early": {"task": DIGITS},
}


@pytest.mark.slow
@pytest.mark.parametrize("cluster", ["unreliable", "changing"])
@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("program", PROGRAMS)
@pytest.mark.filterwarnings("ignore:.*begun anew")
def test_every_program_goes_on_under_every_protocol(program, case, cluster, tmp_path):
    options = PROGRAMS[program]
    steps = getattr(options.get("worker"), "gradients_per_message", 1)
    if case in QUEUES and steps > 1:
        pytest.skip("a queue's messages have one gradient")
    short, long = (draw(case, steps, cluster, updates=updates) for updates in (125, 200))
    assert_lengthened(tmp_path, short, long, **options)


def test_a_finished_run_goes_on_to_itself(tmp_path):
    """Its end lies between two evaluations; what was measured there stays."""
    timeline = draw("synchronous", updates=10)
    done = run(tmp_path / "run", timeline)
    lines = (tmp_path / "run" / "metrics.jsonl").read_text()
    again = run(tmp_path / "run", timeline, resume=True)
    assert again.evaluations["update"].tolist() == [0, 6, 10]
    assert everything(tmp_path / "run", again) == everything(tmp_path / "run", done)
    assert (tmp_path / "run" / "metrics.jsonl").read_text() == lines


def test_messages_that_wait_computed_are_not_computed_again(tmp_path):
    """Four workers' messages are computed early from 25 · 4 updates on."""
    short, long = (draw("asynchronous", updates=updates) for updates in (101, 130))
    assert_lengthened(tmp_path, short, long, task=DIGITS)

"""Local SGD: eight local steps a message, on the digits."""

from __future__ import annotations

from benchmarks.contest import Benchmark, Contestant, Run

STEPS, INNER, UPDATES = 8, 0.05, 448


def problem(updates: int = UPDATES):
    from benchmarks.problems import make_problem
    from sgdlab import tasks
    from sgdlab.timelines import Cluster, asynchronous, gamma

    cluster = Cluster(workers=16, compute=gamma(mean=1.0, shape=4.0), gradients_per_message=STEPS)
    return make_problem(tasks.digits(), asynchronous(cluster, updates=updates, seed=0))


def loop() -> Run:
    from benchmarks import replays
    from sgdlab import rules, workers

    worker = workers.local_steps(STEPS, rules.sgd(INNER))
    return replays.loop(problem(), worker=worker, rule=rules.sgd(1.0))


def floor() -> Run:
    from benchmarks import floors

    return floors.local_loop(problem(), floors.mlp_loss, INNER)


BENCHMARKS = (
    Benchmark(
        "local-sgd",
        "Local SGD, H = 8, digits, N = 16, gamma times",
        (
            Contestant("floor: two scans, no staleness", floor),
            Contestant("replay, the loop", loop),
        ),
        note="An update is a message of 8 local steps.",
    ),
)

"""Digits MLP 64-128-10, batch 32, momentum: asynchronous workers, few to many."""

from __future__ import annotations

from functools import partial

from benchmarks.contest import Benchmark, Contestant, Run, Target

UPDATES = 4096  # four chunks


def problem(workers: int = 16, times: str = "gamma", updates: int = UPDATES):
    """The digits with N asynchronous workers."""
    from benchmarks.problems import make_problem
    from sgdlab import tasks

    return make_problem(tasks.digits(), make_timeline(workers, times, updates))


def make_timeline(workers: int, times: str, updates: int):
    """N asynchronous workers with gamma (shape 4) or exponential times of mean 1 s."""
    from sgdlab.timelines import Cluster, asynchronous, exponential, gamma

    compute = gamma(mean=1.0, shape=4.0) if times == "gamma" else exponential(1.0)
    return asynchronous(Cluster(workers=workers, compute=compute), updates=updates, seed=0)


def loop(workers: int, times: str, **options) -> Run:
    from benchmarks import replays

    updates = max(UPDATES, 32 * workers)  # what a run of so many workers has
    return replays.loop(problem(workers, times, updates), skip=1, **options)


def floor(workers: int = 16, times: str = "gamma") -> Run:
    from benchmarks import floors

    return floors.scan_loop(problem(workers, times, updates=1024), floors.mlp_loss)


def whole(workers: int, times: str, with_timeline: bool) -> Run:
    from benchmarks import replays

    timeline = partial(make_timeline, workers, times, 4 * UPDATES) if with_timeline else None
    return replays.end_to_end(problem(workers, times, 4 * UPDATES), timeline)


def jitted(workers: int, times: str, updates: int = 256) -> Run:
    from benchmarks import floors, peers

    return peers.jitted_gradient_loop(problem(workers, times, updates), floors.mlp_loss)


def torch(kind: str, workers: int, times: str, updates: int = 256) -> Run:
    from benchmarks import torch_peers

    loop = torch_peers.slot_loop if kind == "slot" else torch_peers.deque_loop
    return loop(problem(workers, times, updates), torch_peers.mlp)


def _benchmark(workers: int, times: str, *, peers: bool, targets: tuple[Target, ...]) -> Benchmark:
    contestants = [
        Contestant("floor: scan, no staleness", floor),
        Contestant("replay, the loop", partial(loop, workers, times)),
    ]
    if peers:
        contestants += [
            Contestant(
                'replay, on_nonfinite="skip"', partial(loop, workers, times, on_nonfinite="skip")
            ),
            Contestant("replay, waves of 8", partial(loop, workers, times, width=8)),
            Contestant("PyTorch, slot swap", partial(torch, "slot", workers, times)),
            Contestant("PyTorch, deque", partial(torch, "deque", workers, times)),
            Contestant("Python loop, jitted gradient", partial(jitted, workers, times)),
        ]
    return Benchmark(
        f"digits-{workers}-{times}",
        f"Digits MLP 64-128-10, batch 32, N = {workers}, {times} times",
        tuple(contestants),
        targets,
    )


LOOP, FLOOR = "replay, the loop", "floor: scan, no staleness"

BENCHMARKS = (
    _benchmark(4, "gamma", peers=False, targets=()),
    _benchmark(
        16,
        "gamma",
        peers=True,
        targets=(
            Target(LOOP, FLOOR, 0.97),
            Target(LOOP, "PyTorch, slot swap", 8.5),
            Target(LOOP, "PyTorch, deque", 14.0),
        ),
    ),
    _benchmark(64, "exponential", peers=False, targets=()),
    _benchmark(256, "gamma", peers=False, targets=()),
    _benchmark(256, "exponential", peers=False, targets=(Target(LOOP, FLOOR, 0.90),)),
    Benchmark(
        "end-to-end",
        "Digits, N = 16, gamma: all of a warm replay against its loop",
        (
            Contestant(LOOP, partial(loop, 16, "gamma")),
            Contestant("replay", partial(whole, 16, "gamma", False)),
            Contestant("timeline and replay", partial(whole, 16, "gamma", True)),
        ),
        (Target("timeline and replay", LOOP, 0.97), Target("replay", LOOP, 0.97)),
        note=f"{4 * UPDATES:,} updates a run, with plan, minibatches, history and two evaluations.",
    ),
)

"""A small CNN on the digits: 3×3 convolutions of 16 and 32 channels, batch 32."""

from __future__ import annotations

from functools import partial

from benchmarks.contest import Benchmark, Contestant, Run, Target

CHUNK, UPDATES = 64, 448


def problem(updates: int = CHUNK):
    from benchmarks.problems import make_problem
    from benchmarks.workloads.digits import make_timeline
    from sgdlab import tasks

    return make_problem(tasks.digits(model="cnn"), make_timeline(16, "gamma", updates))


def loop() -> Run:
    from benchmarks import replays

    return replays.loop(problem(UPDATES), skip=1, evaluate_every=CHUNK)


def floor() -> Run:
    from benchmarks import floors

    return floors.scan_loop(problem())


def torch(kind: str) -> Run:
    from benchmarks import torch_peers

    run = torch_peers.slot_loop if kind == "slot" else torch_peers.deque_loop
    return run(problem(), torch_peers.cnn)


BENCHMARKS = (
    Benchmark(
        "cnn",
        "CNN on the digits, batch 32, N = 16, gamma times",
        (
            Contestant("floor: scan, no staleness", floor),
            Contestant("replay, the loop", loop),
            Contestant("PyTorch, slot swap", partial(torch, "slot")),
            Contestant("PyTorch, deque", partial(torch, "deque")),
        ),
        (Target("replay, the loop", ("PyTorch, slot swap", "PyTorch, deque"), 1.2),),
        note="The floor has the task's own model, whose convolutions are matrix products.",
    ),
)

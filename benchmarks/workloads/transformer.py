"""A Transformer of two layers, width 112, 64 bytes of context, batch 8."""

from __future__ import annotations

from benchmarks.contest import Benchmark, Contestant, Run, Target

CHUNK, UPDATES = 8, 448


def problem(updates: int = CHUNK):
    from benchmarks.problems import make_problem, transformer
    from benchmarks.workloads.digits import make_timeline

    return make_problem(transformer(), make_timeline(16, "gamma", updates), batch_size=8)


def loop() -> Run:
    from benchmarks import replays

    return replays.loop(problem(UPDATES), skip=2, evaluate_every=CHUNK)


def floor() -> Run:
    from benchmarks import floors

    return floors.scan_loop(problem())


BENCHMARKS = (
    Benchmark(
        "transformer",
        "Transformer, 2 layers, 0.3 M parameters, batch 8 × 64 bytes, N = 16, gamma times",
        (
            Contestant("floor: scan, no staleness", floor),
            Contestant("replay, the loop", loop),
        ),
        (Target("replay, the loop", "floor: scan, no staleness", 0.97),),
        note="The floor has the task's own model.",
    ),
)

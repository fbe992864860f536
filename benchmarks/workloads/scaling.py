"""How the cost of an update grows with the workers, the parameters and the updates."""

from __future__ import annotations

import time
from functools import partial

from benchmarks.contest import Run, Survey

ROUNDS = 7


def by_workers(workers: int) -> list:
    """An update of the digits MLP against the floor, with N workers' versions alive."""
    from benchmarks.workloads import digits

    chunks = 2 + 2 * workers // 1024
    problem = digits.problem(workers, "exponential", max(1024 * chunks, 32 * workers))
    loop, floor = _loop(problem, skip=chunks - 2, evaluate_every=1024), digits.floor()
    ratio, rate = _compare(loop, floor)
    slots = problem.timeline.peak_live_versions()
    return [f"{workers:,}", f"{slots:,}", f"{slots * 9610 * 4 / 2**20:.1f}", *_cells(ratio, rate)]


def by_parameters(width: int) -> list:
    """An update of an MLP of three layers against its floor, N = 4, batch 32."""
    from benchmarks import floors, problems
    from benchmarks.workloads import digits

    size = 64 * width + width + width * width + width + 10 * width + 10
    chunk = min(max(4_000_000 // size, 8), 1024)
    task = problems.wide((64, width, width, 10), rows=256)
    problem = problems.make_problem(task, digits.make_timeline(4, "gamma", max(2 * chunk, 128)))
    loop = _loop(problem, skip=1, evaluate_every=chunk)
    ratio, rate = _compare(loop, floors.scan_loop(problem, floors.mlp_loss))
    return [f"{size:,}", f"{6 * size * 4 / 2**20:.1f}", *_cells(ratio, rate)]


def by_updates(updates: int) -> list:
    """Timeline, plan and replay of T updates of the digits, warm."""
    from benchmarks import replays
    from benchmarks.workloads import digits
    from sgdlab.timelines.plan import plan

    problem = digits.problem(16, "gamma", updates)
    positional, named = replays.arguments(problem)
    from sgdlab.training import replay

    replay(*positional, **named)
    seconds = [
        _seconds(lambda: digits.make_timeline(16, "gamma", updates)),
        _seconds(lambda: plan(problem.timeline)),
        _seconds(lambda: replay(*positional, **named)),
    ]
    return [f"{updates:,}", *(f"{1e6 * each / updates:.2f}" for each in seconds)]


def _loop(problem, **options) -> Run:
    from benchmarks import replays

    return replays.loop(problem, **options)


def _seconds(work) -> float:
    began = time.process_time()
    work()
    return time.process_time() - began


def _compare(ours: Run, theirs: Run) -> tuple[float, float]:
    """The median ratio of two rates over interleaved turns, and the median rate of the first."""
    import numpy as np

    rates = []
    for run in (ours, theirs):
        run.work()
    for _ in range(ROUNDS):
        pair = []
        for run in (ours, theirs):
            began = time.process_time()
            pair.append(run.work() / (time.process_time() - began))
        rates.append(pair)
    rates = np.array(rates)
    return float(np.median(rates[:, 0] / rates[:, 1])), float(np.median(rates[:, 0]))


def _cells(ratio: float, rate: float) -> list[str]:
    return [f"{rate:,.0f}", f"{ratio:.2f}"]


BENCHMARKS = (
    Survey(
        "scaling-workers",
        "Against the number of workers: digits MLP (P = 9,610), exponential times",
        ("N", "versions alive", "slots, MiB", "updates/s", "/ floor"),
        tuple(partial(by_workers, workers) for workers in (4, 16, 64, 256, 1024, 4096, 10_000)),
        note="By the processor's clock. The ratio falls where the slots leave the caches.",
    ),
    Survey(
        "scaling-parameters",
        "Against the number of parameters: MLP 64-w-w-10, batch 32, N = 4, gamma times",
        ("P", "state, MiB", "updates/s", "/ floor"),
        tuple(partial(by_parameters, width) for width in (64, 128, 256, 512, 1024, 2048, 3136)),
        note="By the processor's clock.",
    ),
    Survey(
        "scaling-updates",
        "Against the number of updates: digits MLP, N = 16, gamma times, microseconds an update",
        ("T", "timeline", "plan", "replay (plan included)"),
        tuple(partial(by_updates, updates) for updates in (1_000, 10_000, 100_000)),
        note="By the processor's clock.",
    ),
)

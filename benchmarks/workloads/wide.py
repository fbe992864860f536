"""MLP 784-1024-1024-10, 1.9 M parameters: where staleness costs memory traffic."""

from __future__ import annotations

from functools import partial

from benchmarks.contest import Benchmark, Contestant, Run, Target

CHUNK, UPDATES = 32, 448


def problem(batch_size: int, updates: int = 16):
    from benchmarks.problems import make_problem, wide
    from benchmarks.workloads.digits import make_timeline

    return make_problem(wide(), make_timeline(16, "gamma", updates), batch_size=batch_size)


def loop(batch_size: int, **options) -> Run:
    from benchmarks import replays

    return replays.loop(problem(batch_size, UPDATES), skip=1, evaluate_every=CHUNK, **options)


def floor(batch_size: int, narrow: bool = False) -> Run:
    from benchmarks import floors

    loss = floors.in_bfloat16(floors.mlp_loss) if narrow else floors.mlp_loss
    return floors.scan_loop(problem(batch_size, CHUNK), loss)


def torch(batch_size: int) -> Run:
    from benchmarks import torch_peers

    return torch_peers.slot_loop(problem(batch_size, CHUNK), torch_peers.mlp)


def _benchmark(batch_size: int, at_least: float) -> Benchmark:
    return Benchmark(
        f"wide-{batch_size}",
        f"MLP 784-1024-1024-10, batch {batch_size}, N = 16, float32",
        (
            Contestant("floor: scan, no staleness", partial(floor, batch_size)),
            Contestant("replay, the loop", partial(loop, batch_size)),
            Contestant("PyTorch, slot swap", partial(torch, batch_size)),
        ),
        (Target("replay, the loop", "floor: scan, no staleness", at_least),),
    )


BENCHMARKS = (
    _benchmark(32, 0.88),
    Benchmark(
        "wide-32-bfloat16",
        "The same in mixed_bfloat16: stale versions in 16 bits",
        (
            Contestant("floor: mixed scan, no staleness", partial(floor, 32, True)),
            Contestant("replay, the loop", partial(loop, 32, precision="mixed_bfloat16")),
        ),
        (Target("replay, the loop", "floor: mixed scan, no staleness", 0.94),),
        note="The floor has float32 master weights and computes in bfloat16 too.",
    ),
    _benchmark(128, 0.95),
)

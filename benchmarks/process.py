"""The process of one contestant: `python -m benchmarks.process BENCHMARK INDEX`.

It sets itself up, says so, and then works for as many seconds as each line of its input says.
Every answer is one line of JSON.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable

from benchmarks.contest import Benchmark
from benchmarks.registry import BENCHMARKS


def main(name: str, index: int) -> None:
    benchmark = BENCHMARKS[name]
    began = time.perf_counter()
    alone = benchmark.contestants[index] if isinstance(benchmark, Benchmark) else benchmark
    if alone.threads == 1:
        # Flags and settings are kept by some of a library's parts and not by others.
        os.sched_setaffinity(0, [max(os.sched_getaffinity(0))])
    if not isinstance(benchmark, Benchmark):
        _answer(row=benchmark.points[index]())
        return
    work = benchmark.contestants[index].setup().work
    work()
    _answer(setup=time.perf_counter() - began)
    for line in sys.stdin:
        _answer(**_time(work, float(line)))


def _time(work: Callable[[], int], seconds: float) -> dict[str, float]:
    """Updates made in at least so many seconds, on the wall's clock and on the processor's."""
    updates, wall, cpu = 0, time.perf_counter(), time.process_time()
    while True:
        updates += work()
        elapsed = time.perf_counter() - wall
        if elapsed >= seconds:
            return {"updates": updates, "wall": elapsed, "cpu": time.process_time() - cpu}


def _answer(**values) -> None:
    print("\n" + json.dumps(values), flush=True)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))

"""What a process holds does not grow with the programs that it has finished with."""

import subprocess
import sys

import pytest

from sgdlab import rules, tasks, training
from sgdlab.timelines import fixed_delay
from sgdlab.training import members

HOLDING = """
import os, sys
from sgdlab import rules, tasks, timelines, training

def held():
    pages = int(open("/proc/self/statm").read().split()[1])
    return len(open("/proc/self/maps").readlines()), pages * os.sysconf("SC_PAGE_SIZE")

line = timelines.fixed_delay(1, updates=4)
for made in range(1, 101):
    task = tasks.quadratic([1.0] * made, noise=0.1)
    training.replay(task, rules.sgd(0.1), line)
    if made in (20, 100):
        print(*held())
"""


def test_a_program_is_compiled_once_and_many_are_let_go(monkeypatch):
    held = members._init_state._cache_size()
    monkeypatch.setattr(members, "_PROGRAMS", held + 2)
    line, rule = fixed_delay(0, updates=2), rules.sgd(0.1)
    sizes = []
    for width in (1, 2, 3):
        task = tasks.quadratic([1.0] * width)
        training.replay(task, rule, line)
        sizes.append(members._init_state._cache_size())
    assert sizes == [held + 1, held + 2, 1]


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="/proc tells it")
def test_a_process_of_a_hundred_programs_holds_no_more_than_one_of_twenty():
    done = subprocess.run(
        [sys.executable, "-c", HOLDING], capture_output=True, text=True, timeout=1200, check=True
    )
    (few_maps, few_bytes), (many_maps, many_bytes) = (
        map(int, line.split()) for line in done.stdout.splitlines()
    )
    assert many_bytes <= 1.1 * few_bytes
    # The number let go of at once comes on top: both were counted where some were held.
    assert many_maps <= few_maps + 100 * members._PROGRAMS

"""A run that is killed at any moment and goes on elsewhere ends in the bytes of a whole one."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from sgdlab.training.checkpoints import find, read_header
from tests.training.checkpoints.killable import CHUNK

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[3]
PROGRAM = Path(__file__).with_name("killable.py")
SIGNALS = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT)
DEVICES = (1, 2, 4)
EACH = 12  # chunks that the run has for each kill, which are more than it lets pass


def start(folder, devices, updates):
    folder.mkdir(exist_ok=True)
    # Fully optimised, since what a compiler contracts is what canonical sums must guard against.
    environ = {name: text for name, text in os.environ.items() if name != "XLA_FLAGS"}
    return subprocess.Popen(
        [sys.executable, str(PROGRAM), str(folder), str(devices), str(updates)],
        env={**environ, "PYTHONPATH": str(ROOT)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(process):
    _, err = process.communicate(timeout=120)
    assert (process.returncode, err) == (0, "")


def test_kills_on_changing_devices_change_no_byte(tmp_path, long_form):
    kills, rng = 50 if long_form else 6, random.Random(8)
    updates = kills * EACH * CHUNK
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    finish(start(whole, 1, updates))
    reached = 0
    for kill in range(kills):
        number, devices = SIGNALS[kill % 3], rng.choice(DEVICES)
        process = start(cut, devices, updates)
        early = rng.random() < 0.2
        for _ in range(0 if early else rng.randrange(1, EACH // 2)):
            assert process.stdout.readline(), process.communicate()
            print(file=process.stdin, flush=True)
        # In a chunk, in a save, or, where nothing was waited for, in the start or in a restore.
        time.sleep(rng.uniform(0.0, 1.2 if early else 0.01))
        process.send_signal(number)
        _, err = process.communicate(timeout=60)
        assert process.returncode, f"{number.name} was lost, {early=}: {err}"
        if number == signal.SIGKILL or not early:
            expected = -number if number == signal.SIGKILL else 128 + number
            assert process.returncode == expected, err
        reached = max(reached, *(newest(cut)[:1] or [0]))
    assert CHUNK * kills < reached < updates  # they hit a run on its way
    finish(start(cut, rng.choice(DEVICES), updates))
    assert (cut / "metrics.jsonl").read_bytes() == (whole / "metrics.jsonl").read_bytes()
    assert newest(cut) == newest(whole)
    check_is_the_run_that_was_meant(whole, updates)


def test_a_run_repeats_itself_under_load_bit_for_bit(tmp_path, long_form):
    """Another process takes the cores away at other moments each time."""
    busy = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    try:
        ends = set()
        for repeat in range(20 if long_form else 3):
            folder = tmp_path / str(repeat)
            finish(start(folder, DEVICES[repeat % 3], 50 * CHUNK))
            ends.add(((folder / "metrics.jsonl").read_bytes(), *newest(folder)))
    finally:
        busy.kill()
        busy.wait()
    assert len(ends) == 1


def newest(folder):
    """(update, the bytes) of the last checkpoint: parameters, rule, slots, loss scale, records."""
    found = find(folder / "checkpoints" / "0")
    return [read_header(found[0]).update, found[0].read_bytes()] if found else []


def check_is_the_run_that_was_meant(folder, updates):
    """Every update stands once, stale versions were kept, and the loss scale had its overflows."""
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert [line["update"] for line in lines] == list(range(0, updates + 1, CHUNK))
    path = find(folder / "checkpoints" / "0")[0]
    leaves = {leaf.path: leaf for leaf in read_header(path).leaves}
    payload = path.read_bytes()[-read_header(path).payload :]

    def read(name, dtype):
        leaf = leaves[name]
        return np.frombuffer(payload, dtype, int(np.prod(leaf.shape)), leaf.offset)

    assert len(read("records/0/updates/loss", np.float32)) == updates
    assert read("records/0/updates/skipped", np.int32).sum() > 0
    assert any(name.startswith("state/slots/") for name in leaves)
    assert any(name.startswith("state/rule/") for name in leaves)
    assert any(name.startswith("state/loss_scale/") for name in leaves)

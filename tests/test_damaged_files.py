"""A thousand damaged data files under a 2 GiB limit: each is read, or named in one line."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
# In a process of its own, which has 2 GiB of address space for everything.
PROGRAM = r"""
import collections, gzip, json, pathlib, random, resource, struct, sys, tracemalloc
resource.setrlimit(resource.RLIMIT_AS, (2**31, 2**31))
import numpy as np
from sgdlab.tasks.datasets import DataError, load_cifar, load_libsvm, load_npz, read_idx, read_npz
from sgdlab.timelines import (
    Cluster, Timeline, TimelineError, asynchronous, exponential, from_trace, trace
)

folder, count, rng = pathlib.Path(sys.argv[1]), int(sys.argv[2]), random.Random(0)
values = np.random.default_rng(0)
pixels, labels = values.integers(0, 256, (30, 8, 8), np.uint8), np.arange(30) % 3


def write(name, content):
    (folder / name).write_bytes(gzip.compress(content, mtime=0) if name.endswith("gz") else content)
    return len(content)


idx = struct.pack(">BBBB3I", 0, 0, 8, 3, *pixels.shape) + pixels.tobytes()
rows = "".join(
    f"{y} " + " ".join(f"{i + 1}:{v:.4f}" for i, v in enumerate(row)) + "\n"
    for y, row in zip(labels, values.normal(size=(30, 6)))
).encode()
honest = {name: write(name, idx) for name in ("a.idx", "b.idx.gz")}
honest |= {name: write(name, rows) for name in ("c.svm", "d.svm.gz")}
for name, save in {"e.npz": np.savez, "f.npz": np.savez_compressed}.items():
    save(folder / name, x=pixels, y=labels)
    honest[name] = pixels.nbytes + labels.nbytes
timeline = asynchronous(Cluster(workers=4, compute=exponential(1.0)), updates=60, seed=1)
timeline.save(folder / "g.npz")
timeline.to_dataframe().to_csv(folder / "h.csv", index=False)
times = "".join(f"{time:.6f}\n" for time in values.exponential(size=80))
honest["i.csv"] = write("i.csv", times.encode())
(folder / "cifar").mkdir()
batch = np.concatenate([np.full((3, 1), 1), values.integers(0, 256, (3, 3072))], axis=1)
for part in ("data_batch_1.bin", "test_batch.bin"):
    honest[f"cifar/{part}"] = write(f"cifar/{part}", batch.astype(np.uint8).tobytes())

readers = {
    "a.idx": read_idx, "b.idx.gz": read_idx, "c.svm": load_libsvm, "d.svm.gz": load_libsvm,
    "e.npz": load_npz, "f.npz": read_npz, "g.npz": Timeline.load, "h.csv": from_trace,
    "i.csv": lambda path: trace(path),
    "cifar/data_batch_1.bin": lambda path: load_cifar(path.parent),
}


def damage(content):
    data, at = bytearray(content), rng.randrange(len(content))
    kind = rng.choice(["flip", "flip", "head", "cut", "zero", "digits", "large", "grow", "double"])
    if kind in ("flip", "head"):
        data[at if kind == "flip" else at % 64] ^= 1 << rng.randrange(8)
    elif kind == "cut":
        del data[at:]
    elif kind == "zero":
        data[at : at + 64] = bytes(len(data[at : at + 64]))
    elif kind == "digits":  # a number of a text, or a length of a header, becomes a large one
        data[at:at] = b"99999999"
    elif kind == "large":
        data[at : at + 4] = b"\xff\xff\xff\x7f"
    elif kind == "grow":
        data += rng.randbytes(100)
    else:
        data[at:at] = data[at : at + 64]
    return bytes(data)


for name, read in readers.items():  # what loading costs once, such as an import, is not the file's
    read(folder / name)
tracemalloc.start()
seen, faults = collections.Counter(), []
for trial in range(count):
    name = list(readers)[trial % len(readers)]
    path, sound = folder / name, (folder / name).read_bytes()
    path.write_bytes(damage(sound))
    tracemalloc.reset_peak()
    before = tracemalloc.get_traced_memory()[0]
    try:
        readers[name](path)
        seen["read"] += 1
    except (DataError, TimelineError) as error:
        text = str(error)
        seen["refused"] += 1
        seen["placed"] += any(word in text for word in ("offset", "line ", "row ", "array ", "["))
        where = str(path.parent if "cifar" in name and str(path) not in text else path)
        if len(text.splitlines()) != 1 or not text.startswith(where):
            faults.append([name, text])
    except BaseException as error:
        faults.append([name, f"{type(error).__name__}: {error}"])
    peak = tracemalloc.get_traced_memory()[1] - before
    allowed = 2**21 + 64 * max(honest.get(name, 0), len(sound))
    if peak > allowed:
        faults.append([name, f"{peak} bytes for {len(sound)}"])
    path.write_bytes(sound)
print(json.dumps([seen, faults[:20]]))
"""


@pytest.mark.slow
def test_damaged_files_are_read_or_named_and_take_no_memory(tmp_path, long_form):
    count = 1000 if long_form else 300
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(tmp_path), str(count)],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    seen, faults = json.loads(done.stdout)
    assert faults == []
    assert seen["read"] + seen["refused"] == count
    assert min(seen["read"], seen["refused"]) > count // 10

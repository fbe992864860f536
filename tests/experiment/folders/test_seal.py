"""A run that has ended is sealed: whatever becomes of its files is told by name, or mended."""

import json
import os
import random
import shutil
import warnings

import pytest

from sgdlab.experiment import (
    OutputError,
    StoppedError,
    load_run,
    load_runs,
    open_folder,
    resume_run,
    run_experiment,
)
from sgdlab.experiment.folders.folder import RunFolder, create_folder
from sgdlab.experiment.folders.seal import seal
from sgdlab.experiment.folders.summary import read_summary
from sgdlab.report import build_report
from sgdlab.training import CheckpointError, CheckpointWarning

CONFIG = {
    "name": "sealed",
    "description": "a run to be damaged",
    "task": {"name": "quadratic", "curvature": [1.0, 0.1], "noise": 0.1},
    "rule": {"name": "momentum", "learning_rate": 0.05},
    "cluster": {"workers": 3},
    "protocol": "asynchronous",
    "updates": 24,
    "target": {"metric": "loss", "at_most": 0.3},
    "evaluate_every": 4,
    "checkpoint_every": 1,
    "seeds": 2,
    "claims": [
        {
            "claim": "It ends below nine.",
            "left": {"name": "final", "metric": "loss"},
            "is": "<",
            "right": 9.0,
        }
    ],
}
MUTABLE = ["metrics.jsonl", "summary.json", "history.npz", "config.yaml"]
SEALED = [*MUTABLE, "timeline.npz", "environment.json", "claims.json"]
APART = ("started", "wall_seconds", "digest", "files")


class After:
    """Says yes from the n-th time on that it is asked."""

    def __init__(self, asked):
        self.left = asked

    def __call__(self):
        self.left -= 1
        return self.left < 0


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    return run_experiment(CONFIG, root=tmp_path_factory.mktemp("done"), run_id="one").path


@pytest.fixture(scope="module")
def cut(tmp_path_factory):
    root = tmp_path_factory.mktemp("cut")
    with pytest.raises(StoppedError):
        run_experiment(CONFIG, root=root, run_id="one", interrupt=After(5))
    return root / "sealed" / "one"


@pytest.fixture
def copy(tmp_path):
    """A copy of a run folder that a test may damage."""

    def make(path):
        to = tmp_path / "sealed" / "one"
        shutil.rmtree(to, ignore_errors=True)
        return shutil.copytree(path, to)

    return make


def content(path):
    """What must be the same however a run came to its end."""
    found = {name: (path / name).read_bytes() for name in SEALED if name != "environment.json"}
    summary = json.loads(found["summary.json"])
    return found | {"summary.json": {k: v for k, v in summary.items() if k not in APART}}


def told(call, path):
    """What a call says of a folder; "" where it finds nothing wrong with it."""
    said = ""
    try:
        call(path)
    except (OutputError, CheckpointError) as error:
        said = str(error)
    assert len(said.splitlines()) <= 1
    return said


def row(path):
    (found,) = load_runs(path.parent.parent).to_dict("records")
    return found


def test_a_run_that_has_ended_is_sealed_and_sound(done, cut):
    for path, status in ((done, "done"), (cut, "interrupted")):
        summary = read_summary(path)
        there = {name for name in SEALED if (path / name).exists()} - {"summary.json"}
        assert set(summary["files"]) == there
        assert load_run(path).summary["status"] == row(path)["status"] == status
        assert row(path)["error"] == ""
    assert there == {"metrics.jsonl", "config.yaml", "timeline.npz", "environment.json"}


DAMAGE = {
    "emptied": lambda path: path.write_bytes(b""),
    "cut": lambda path: path.write_bytes(path.read_bytes()[:-3]),
    "removed": lambda path: path.unlink(),
    "longer": lambda path: path.write_bytes(path.read_bytes() + b"\n"),
    "a bit": lambda path: path.write_bytes(flip(path.read_bytes(), len(path.read_bytes()) // 2)),
    "a link": lambda path: link(path),
    "a pipe": lambda path: pipe(path),
}


def flip(data, place):
    return data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :]


def link(path):
    path.rename(path.with_suffix(".elsewhere"))
    path.symlink_to(path.with_suffix(".elsewhere").name)


def pipe(path):
    path.unlink()
    os.mkfifo(path)


@pytest.mark.parametrize("name", SEALED)
@pytest.mark.parametrize("kind", DAMAGE)
def test_damage_of_a_sealed_file_is_told_by_name_and_mended_by_a_resume(copy, done, kind, name):
    path = copy(done)
    DAMAGE[kind](path / name)
    if (name, kind) != ("summary.json", "longer"):  # a line's end is no part of what JSON says
        assert str(path / name) in told(load_run, path)
        if kind != "a bit" or name == "summary.json":  # which a list doesn't look for
            assert (row(path)["status"], name in row(path)["error"]) == ("damaged", True)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", CheckpointWarning)
        said = told(resume_run, path)
    if name == "config.yaml":
        assert str(path / name) in said or "no run folder" in said
        return
    if name == "metrics.jsonl" and kind in ("a link", "a pipe"):
        assert str(path / name) in said
        return
    assert said == ""
    if (name, kind) not in {("summary.json", "longer"), ("summary.json", "removed")}:
        assert any(name in str(each.message) for each in caught)
    assert content(path) == content(done)
    assert not (path / name).is_symlink()
    assert told(load_run, path) == ""


def test_a_run_without_a_seal_is_not_sealed_and_not_damaged(copy, done):
    path = copy(done)
    summary = json.loads((path / "summary.json").read_text())
    (path / "summary.json").write_text(
        json.dumps({key: value for key, value in summary.items() if key not in ("digest", "files")})
    )
    assert load_run(path).summary["status"] == "done"
    assert (row(path)["status"], row(path)["error"]) == ("done", "not sealed")
    resume_run(path)
    assert row(path)["error"] == ""
    assert content(path) == content(done)


def test_reports_and_what_a_person_adds_are_not_sealed(copy, done):
    path = copy(done)
    (path / "report.html").write_text("a page")
    (path / "notes.txt").write_text("mine")
    (path / "tensorboard").mkdir()
    assert told(load_run, path) == ""


def test_a_run_that_is_being_written_is_not_compared(copy, done):
    path = copy(done)
    with open_folder(path) as folder:
        folder.write_text("name: another\n", "config.yaml")
        assert row(path)["status"] == "done"
    assert row(path)["status"] == "damaged"


def test_a_run_that_has_only_just_begun_is_not_damaged(tmp_path):
    with create_folder(tmp_path, "sealed", "one") as folder:
        folder.write_text("name: sealed\n", "config.yaml")
        assert (row(folder.path)["status"], row(folder.path)["error"]) == ("running", "")
    assert row(folder.path)["status"] == "interrupted"
    (folder.path / "history.npz").write_bytes(b"")
    assert row(folder.path)["status"] == "damaged"


def test_a_run_that_is_killed_while_it_is_sealed_is_not_damaged(copy, done, monkeypatch):
    path, write = copy(done), RunFolder.write_text
    for kill in range(1, 8):
        left = [kill]

        def write_or_die(folder, text, *parts, left=left):
            left[0] -= 1
            if left[0] < 0:
                raise KeyboardInterrupt
            return write(folder, text, *parts)

        monkeypatch.setattr(RunFolder, "write_text", write_or_die)
        try:
            resume_run(path)
        except KeyboardInterrupt:
            assert told(load_run, path) == ""
            continue
        break
    assert kill > 4
    assert content(path) == content(done)


def mutate(data, rng):
    """A flipped byte, a cut, a piece left out or put in twice, JSON or YAML of another kind."""
    kind, place = rng.randrange(6), rng.randrange(len(data))
    end = min(len(data), place + rng.randrange(1, 40))
    if kind == 0:
        return flip(data, place)
    if kind == 1:
        return data[:place]
    if kind == 2:
        return data[:place] + data[end:]
    if kind == 3:
        return data[:end] + data[place:]
    if kind == 4:
        return rng.choice([b"", b"[]", b"{}", b"null\n", b"0", b'"text"', b"[" * 9000, b"a: 1\n"])
    return data[:place] + rng.choice([b"null", b"[]", b"9e999", b"\x00", b"\xff"]) + data[end:]


@pytest.mark.parametrize("name", MUTABLE)
@pytest.mark.parametrize("which", ["done", "cut"])
def test_every_mutation_is_told_or_mended(which, name, request, copy, done, long_form):
    original = request.getfixturevalue(which)
    if not (original / name).exists():
        pytest.skip("a run of one point that was cut has no history yet")
    rng, before = random.Random(f"{which} {name}"), (original / name).read_bytes()
    count, mended = 100 if long_form else 6, 0
    for _ in range(count):
        path, changed = copy(original), mutate(before, rng)
        (path / name).write_bytes(changed)
        says = told(load_run, path)
        assert says or same(name, before, changed)
        assert not says or name in says
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", CheckpointWarning)
            resumed = told(resume_run, path)
        if resumed:
            assert name in resumed
            continue
        mended += 1
        assert content(path) == content(done)
    assert mended == count or name == "config.yaml"


def same(name, before, changed):
    """Whether a mutation changed nothing that a file says: a blank of JSON."""
    return changed == before or (
        name == "summary.json" and json.loads(changed) == json.loads(before)
    )


LEAVES = [
    None,
    True,
    -1,
    10**30,
    1e308,
    "x",
    "\x1b[31m",
    "[/b]",
    [],
    {},
    [[]],
    {"a": 1},
    "../..",
    "nan",
]


def replaced(data, rng):
    """The same JSON, one value of it another one, or gone."""
    data = json.loads(json.dumps(data))
    at, key = data, None
    while True:
        keys = list(at) if isinstance(at, dict) else list(range(len(at)))
        if not keys:
            return data
        key = rng.choice(keys)
        if not isinstance(at[key], dict | list) or not at[key] or rng.random() < 0.2:
            break
        at = at[key]
    if rng.random() < 0.15:
        del at[key]
    else:
        at[key] = rng.choice(LEAVES)
    return data


@pytest.mark.parametrize("name", ["summary.json", "environment.json", "claims.json"])
def test_whatever_json_stands_there_ends_in_rows_and_lines(name, copy, done, long_form):
    path, rng = copy(done), random.Random(name)
    summary = json.loads((path / "summary.json").read_text())
    del summary["digest"], summary["files"]  # so that nothing is refused for its checksum
    (path / "summary.json").write_text(json.dumps(summary))
    original = json.loads((path / name).read_text())
    built = 0
    for _ in range(400 if long_form else 25):
        (path / name).write_text(json.dumps(replaced(original, rng)))
        assert isinstance(row(path)["error"], str)
        if told(load_run, path):
            continue
        run = load_run(path)
        build_report([run])
        run.table()
        built += 1
    assert built


def test_a_sealed_run_is_sealed_again_to_the_same_bytes(copy, done):
    path = copy(done)
    before = (path / "summary.json").read_bytes()
    with open_folder(path) as folder:
        seal(folder)
    assert (path / "summary.json").read_bytes() == before

"""A checkpoint comes back bit for bit, or not at all; the last good one is always there."""

import ast
import dataclasses
import errno
import hashlib
import os
import random
import re
import resource
import warnings
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import optax
import pytest
from hypothesis import given, settings, strategies as st
from hypothesis.extra import numpy as arrays

import sgdlab
from sgdlab import precision
from sgdlab.training.checkpoints import (
    CheckpointError,
    CheckpointWarning,
    DamagedError,
    MismatchError,
    find,
    latest,
    load,
    read_header,
    save,
)
from sgdlab.training.program import State


@jax.tree_util.register_dataclass
@dataclasses.dataclass
class Pair:
    left: Any
    right: Any


class Named(NamedTuple):
    first: Any
    second: Any


def bits(leaf):
    """dtype, shape and bytes, which tell NaNs and zeros apart."""
    if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        return str(leaf.dtype), leaf.shape, np.asarray(jax.random.key_data(leaf)).tobytes()
    array = np.asarray(leaf)
    return array.dtype.name, array.shape, array.tobytes()


def same_bits(left, right):
    assert jax.tree.structure(left) == jax.tree.structure(right)
    return [bits(x) for x in jax.tree.leaves(left)] == [bits(x) for x in jax.tree.leaves(right)]


def make_state():
    """A state with every kind of leaf that a replay carries."""
    params = {"dense": {"kernel": jnp.arange(6.0).reshape(2, 3), "bias": jnp.zeros(0)}}
    rule = optax.chain(optax.clip(1.0), optax.adam(0.1))
    scale = precision.DynamicLossScale(2.0**10)
    return State(
        params=params,
        rule=rule.init(params),
        receive=optax.EmptyState(),
        worker={"key": jax.random.split(jax.random.key(7), 3), "error": jnp.ones((3, 2))},
        loss_scale=jax.tree.map(lambda leaf: jnp.stack([leaf] * 3), scale),
        slots={"half": jnp.ones((2, 4), jnp.bfloat16), "packed": jnp.ones((2, 4), jnp.uint16)},
        table=(),
    )


ODD = {
    "float32 NaNs with payloads": np.array([0x7FC00001, 0xFFA00002], np.uint32).view(np.float32),
    "signed zeros and infinities": np.array([0.0, -0.0, np.inf, -np.inf], np.float32),
    "bfloat16 NaNs": np.array([0x7FC1, 0xFF82, 0x8000], np.uint16).view(ml_dtypes.bfloat16),
    "float16 NaNs": np.array([0x7E01, 0xFC01, 0x8000], np.uint16).view(np.float16),
    "float8": np.arange(256, dtype=np.uint8).view(ml_dtypes.float8_e4m3fn),
    "float64": np.array([0x7FF8000000000001, 1], np.uint64).view(np.float64),
    "booleans": np.array([[True], [False]]),
    "0-d": np.int32(-7),
    "0-d bool": np.bool_(True),
    "empty": np.zeros((0, 3), np.float32),
    "complex": np.array([1 - 2j], np.complex64),
    "int4": np.arange(-8, 8).astype(ml_dtypes.int4),
    "big-endian": np.array([1.5, -2.0], ">f4"),
    "a column of a table": np.arange(12, dtype=np.int16).reshape(3, 4)[:, 1],
    "typed key": jax.random.key(3),
    "keys of another kind": jax.random.split(jax.random.key(3, impl="rbg"), 2),
    "no keys at all": jax.random.split(jax.random.key(3), 0),
}


@pytest.mark.parametrize("name", sorted(ODD))
def test_every_kind_of_leaf_comes_back_bit_for_bit(name, tmp_path):
    leaf = ODD[name]
    back = load(save(tmp_path, leaf, update=0), leaf).state
    if name == "big-endian":
        np.testing.assert_array_equal(back, leaf)
    else:
        assert bits(back) == bits(leaf)


@pytest.mark.parametrize("kind", ["concrete", "abstract", "from the header"])
def test_a_replays_state_comes_back_whole(kind, tmp_path):
    state = make_state()
    metadata = {"hash": "abc", "offset": 17, "text": "naïve √"}
    save(tmp_path, state, update=12, metadata=metadata)
    abstract = jax.eval_shape(lambda: state)
    like = {"concrete": state, "abstract": abstract, "from the header": lambda header: abstract}
    found = latest(tmp_path, like[kind])
    assert (found.update, found.metadata) == (12, metadata)
    assert same_bits(found.state, state)


def test_containers_come_back_as_they_were(tmp_path):
    tree = {"b": Pair(np.int8(1), [np.int8(2), ()]), "a": Named(np.int8(3), (None, np.int8(4)))}
    back = load(save(tmp_path, tree, update=0), tree).state
    assert same_bits(back, tree)
    assert isinstance(back["b"], Pair)
    assert isinstance(back["a"], Named)


LEAVES = st.sampled_from(["?", "i1", "i4", "u2", "u8", "f2", "f4", "f8", "c8"]).flatmap(
    lambda dtype: arrays.arrays(dtype, arrays.array_shapes(min_dims=0, max_dims=3, min_side=0))
)
TREES = st.recursive(
    LEAVES,
    lambda inner: (
        st.dictionaries(st.text(max_size=4), inner, max_size=3)
        | st.lists(inner, max_size=3)
        | st.tuples(inner, inner).map(tuple)
        | st.builds(Named, inner, inner)
        | st.builds(Pair, inner, inner)
    ),
    max_leaves=6,
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("drawn")


@settings(deadline=None, max_examples=60)
@given(tree=TREES, update=st.integers(0, 10**12 - 1))
def test_any_tree_comes_back_bit_for_bit(folder, tree, update):
    path = save(folder, tree, update=update)
    back = load(path, tree)
    os.unlink(path)
    assert back.update == update
    assert same_bits(back.state, tree)


def test_the_same_state_makes_the_same_file(tmp_path):
    one = save(tmp_path / "a", make_state(), update=3, metadata={"x": 1})
    other = save(tmp_path / "b", make_state(), update=3, metadata={"x": 1})
    assert one.read_bytes() == other.read_bytes()


def test_a_file_is_its_header_and_its_leaves_and_no_more(tmp_path):
    tree = [np.zeros(1000, np.float32), np.zeros(3, np.int8)]
    path = save(tmp_path, tree, update=1)
    header = read_header(path)
    assert header.payload == 4003
    assert [(leaf.path, leaf.offset) for leaf in header.leaves] == [("0", 0), ("1", 4000)]
    length = int.from_bytes(path.read_bytes()[8:16], "little")
    assert path.stat().st_size == 48 + length + 4003


def test_a_file_holds_no_names_of_classes(tmp_path):
    content = save(tmp_path, make_state(), update=1).read_bytes()
    for word in (b"numpy", b"sgdlab.", b"ScaleByAdamState", b"DynamicLossScale"):
        assert word not in content


def forbidden(source):
    """What in a program could run what it reads."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from {alias.name for alias in node.names} & {"pickle", "marshal", "shelve"}
        elif isinstance(node, ast.ImportFrom) and node.module in ("pickle", "marshal", "shelve"):
            yield node.module
        elif isinstance(node, ast.Call):
            name = ast.unparse(node.func)
            yield from {name} & {"eval", "exec", "yaml.load", "yaml.unsafe_load", "os.system"}
            given = {word.arg: ast.unparse(word.value) for word in node.keywords}
            yield from {w for w in ("shell", "allow_pickle") if given.get(w, "False") != "False"}


def test_the_package_runs_nothing_that_it_reads():
    package = Path(sgdlab.__file__).parent
    found = {str(path): [*forbidden(path.read_text())] for path in package.rglob("*.py")}
    assert len(found) > 20
    assert {path: words for path, words in found.items() if words} == {}


@pytest.mark.parametrize(
    "source",
    [
        "import pickle",
        "from marshal import loads",
        "eval('1')",
        "yaml.load(x)",
        "run(x, shell=True)",
        "np.load(x, allow_pickle=yes)",
    ],
)
def test_what_would_run_it_would_be_seen(source):
    assert [*forbidden(source)]


def test_the_first_example_of_the_documentation_runs():
    text = (Path(__file__).parents[3] / "docs" / "reliability.md").read_text()
    exec(re.findall(r"```python\n(.*?)```", text, re.DOTALL)[0], {})


# --- What does not fit ---


@pytest.mark.parametrize(
    ("like", "says"),
    [
        ({"w": np.zeros(3, np.float16)}, "w: float32[3] in the checkpoint, float16[3] in this"),
        ({"w": np.zeros((3, 1), np.float32)}, "w: float32[3] in the checkpoint, float32[3, 1] in"),
        ({"v": np.zeros(3, np.float32)}, "v: not in the checkpoint"),
        ({}, "w: in the checkpoint, not in this program"),
        ({"w": jax.random.key(0)}, "w: float32[3] in the checkpoint, key<fry>[] in this program"),
        ({"w": {"x": np.zeros(3, np.float32)}}, "w/x: not in the checkpoint"),
    ],
)
def test_another_structure_shape_or_dtype_is_refused_by_path(like, says, tmp_path):
    save(tmp_path, {"w": np.zeros(3, np.float32)}, update=1)
    with pytest.raises(MismatchError) as error:
        latest(tmp_path, like)  # it is sound, so no older one is looked for
    assert says in str(error.value)
    assert "\n" not in str(error.value)


def test_keys_of_another_kind_are_refused(tmp_path):
    path = save(tmp_path, jax.random.key(0), update=1)
    with pytest.raises(MismatchError, match=r"key<fry>\[\] in the checkpoint, key<rbg>\[\]"):
        load(path, jax.random.key(0, impl="rbg"))


@pytest.mark.parametrize("leaf", ["text", np.array(["text"]), np.array([{}], object)])
def test_what_is_no_number_is_not_kept(leaf, tmp_path):
    with pytest.raises(CheckpointError, match=r"a: .* cannot be kept"):
        save(tmp_path, {"a": leaf}, update=0)
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("metadata", [{"x": object()}, {"x": float("nan")}])
def test_metadata_are_json(metadata, tmp_path):
    with pytest.raises(CheckpointError, match="metadata"):
        save(tmp_path, 1.0, update=0, metadata=metadata)


@pytest.mark.parametrize("wrong", [{"update": -1}, {"update": 10**12}, {"update": 1, "keep": 1}])
def test_arguments_out_of_range_are_refused(wrong, tmp_path):
    with pytest.raises(ValueError, match="out of range|too few"):
        save(tmp_path, 1.0, **wrong)


# --- What is damaged ---


def mutate(content, rng):
    """Damage as disks and people do it; never the content itself."""
    kind = rng.choice(["flip", "flip", "header", "cut", "zero", "swap", "grow", "double"])
    at = rng.randrange(len(content))
    damaged = bytearray(content)
    if kind in ("flip", "header"):
        damaged[at if kind == "flip" else at % 600] ^= 1 << rng.randrange(8)
    elif kind == "cut":
        del damaged[at:]
    elif kind == "zero":
        damaged[at : at + 512] = bytes(len(damaged[at : at + 512]))
    elif kind == "swap":
        damaged[at:] = damaged[at:][::-1]
    elif kind == "grow":
        damaged += bytes(rng.randrange(1, 100))
    else:
        damaged[at:at] = damaged[at : at + 64]
    return None if bytes(damaged) == content else bytes(damaged)


def test_no_damage_loads_and_the_one_before_is_used_with_one_warning(tmp_path):
    state, like, rng = make_state(), jax.eval_shape(make_state), random.Random(0)
    old = save(tmp_path, state, update=1)
    new = save(tmp_path, jax.tree.map(lambda leaf: leaf, state), update=2)
    content, seen = new.read_bytes(), 0
    for _ in range(2000):
        damaged = mutate(content, rng)
        if damaged is None:
            continue
        new.write_bytes(damaged)
        with pytest.raises(DamagedError):
            load(new, like)
        seen += 1
        if seen % 100 == 0:
            with pytest.warns(CheckpointWarning, match=new.name) as caught:
                found = latest(tmp_path, like)
            assert len(caught) == 1
            assert (found.path, found.update) == (old, 1)
            assert same_bits(found.state, state)
    assert seen > 1800
    new.unlink()
    assert latest(tmp_path, like).update == 1


def test_any_single_bit_of_a_small_file_matters(tmp_path):
    like = np.float32([1.5, 2.5])
    path = save(tmp_path, like, update=1)
    content = path.read_bytes()
    for bit in range(8 * len(content)):
        damaged = bytearray(content)
        damaged[bit // 8] ^= 1 << bit % 8
        path.write_bytes(damaged)
        with pytest.raises(CheckpointError):
            load(path, like)


def test_none_sound_is_one_line_that_names_each(tmp_path):
    for update in (1, 2):
        save(tmp_path, np.zeros(4), update=update).write_bytes(b"rubbish")
    with pytest.raises(CheckpointError) as error:
        latest(tmp_path, np.zeros(4))
    assert "checkpoint-000000000001.ckpt" in str(error.value)
    assert "checkpoint-000000000002.ckpt" in str(error.value)
    assert "\n" not in str(error.value)


def test_no_checkpoint_yet_is_none(tmp_path):
    assert latest(tmp_path, 1.0) is None
    assert latest(tmp_path / "missing", 1.0) is None


def test_a_checkpoint_under_another_name_is_damaged(tmp_path):
    save(tmp_path, 1.0, update=1)
    save(tmp_path, 2.0, update=2).rename(tmp_path / "checkpoint-000000000009.ckpt")
    with pytest.warns(CheckpointWarning, match="holds update 2"):
        assert latest(tmp_path, 1.0).update == 1


@pytest.mark.parametrize("kind", ["link", "pipe", "folder"])
def test_only_a_regular_file_is_read(kind, tmp_path):
    path = tmp_path / "checkpoint-000000000002.ckpt"
    elsewhere = save(tmp_path / "elsewhere", 1.0, update=2)
    save(tmp_path, 1.0, update=1)
    {
        "link": lambda: path.symlink_to(elsewhere),
        "pipe": lambda: os.mkfifo(path),
        "folder": path.mkdir,
    }[kind]()
    with pytest.warns(CheckpointWarning, match=path.name):
        assert latest(tmp_path, 1.0).update == 1


def test_a_claimed_size_takes_no_memory(tmp_path):
    """A header, its checksum right, that claims 2⁵⁰ bytes in a file of few."""
    path = save(tmp_path, np.zeros(4, np.uint8), update=1)
    content = path.read_bytes()
    length = int.from_bytes(content[8:16], "little")
    text = content[48 : 48 + length].replace(b"[4]", b"[%d]" % 2**50)
    text = text.replace(b'"payload": 4', b'"payload": %d' % 2**50)
    digest = hashlib.sha256(text).digest()
    path.write_bytes(content[:8] + len(text).to_bytes(8, "little") + digest + text + b"abcd")
    with pytest.raises(DamagedError, match="were written"):
        load(path, jax.ShapeDtypeStruct((2**50,), np.uint8))
    path.write_bytes(content[:8] + (2**60).to_bytes(8, "little") + content[16:])
    with pytest.raises(DamagedError, match="a header of 1152921504606846976 bytes"):
        load(path, np.zeros(4, np.uint8))


def test_a_newer_schema_is_not_taken_for_damage(tmp_path, monkeypatch):
    monkeypatch.setattr("sgdlab.training.checkpoints.archive.SCHEMA", 2)
    save(tmp_path, 1.0, update=1)
    monkeypatch.undo()
    with pytest.raises(CheckpointError, match="schema 2; this version of sgdlab reads 1"):
        latest(tmp_path, 1.0)


# --- How it is written ---


def test_the_newest_are_kept(tmp_path):
    for update in (10, 20, 30, 40):
        save(tmp_path, float(update), update=update, keep=3)
    assert [path.name[-7:-5] for path in find(tmp_path)] == ["40", "30", "20"]


def test_a_newer_damaged_one_does_not_push_out_the_good_ones(tmp_path):
    save(tmp_path, 1.0, update=10)
    save(tmp_path, 1.0, update=30).write_bytes(b"")
    save(tmp_path, 1.0, update=20)
    with pytest.warns(CheckpointWarning):
        assert latest(tmp_path, 1.0).update == 20
    assert len(find(tmp_path)) == 3


CALLS = ["open", "write", "fsync", "close", "replace", "unlink", "listdir"]


class Crash(BaseException):
    """The process ends here: nothing after it runs, clean-up included."""


def count_calls(monkeypatch, action, *, crash_at=None):
    """Run an action and count its calls into the system; from the chosen one on all fail."""
    made = []

    def wrap(name):
        true = getattr(os, name)

        def call(*arguments, **keywords):
            made.append(name)
            if crash_at is not None and len(made) > crash_at:
                if name == "write" and len(made) == crash_at + 1:
                    true(arguments[0], arguments[1][: len(arguments[1]) // 2])  # half of it
                raise Crash
            return true(*arguments, **keywords)

        return call

    with monkeypatch.context() as patch:
        for name in CALLS:
            patch.setattr(os, name, wrap(name))
        try:
            action()
        except Crash:
            return made, True
    return made, False


@pytest.mark.parametrize("existing", [0, 1, 2], ids=["first", "second", "third"])
def test_a_crash_at_any_step_leaves_the_old_or_the_new_one(existing, tmp_path, monkeypatch):
    def prepare(name):
        for update in range(existing):
            save(tmp_path / name, np.full(5, float(update)), update=update)
        return tmp_path / name

    def write(folder):
        save(folder, np.full(5, float(existing)), update=existing)

    whole = prepare("whole")
    steps = len(count_calls(monkeypatch, lambda: write(whole))[0])
    assert steps > 8
    outcomes = set()
    for step in range(steps):
        folder = prepare(f"step{step}")
        assert count_calls(monkeypatch, lambda f=folder: write(f), crash_at=step)[1]
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            found = latest(folder, np.zeros(5))
        update = -1 if found is None else found.update
        assert update in (existing - 1, existing)
        assert found is None or np.all(found.state == update)
        outcomes.add(update)
        write(folder)  # and the next run saves as if nothing had happened
        assert latest(folder, np.zeros(5)).update == existing
        assert not any("tmp" in name for name in os.listdir(folder))
    assert outcomes == {existing - 1, existing}


def test_a_crash_during_writing_never_shows_under_the_final_name(tmp_path, monkeypatch):
    """All is synced before the rename; the folder after it, before anything is removed."""
    for update in range(2):
        save(tmp_path, 1.0, update=update)
    calls, _ = count_calls(monkeypatch, lambda: save(tmp_path, 1.0, update=2))
    rename = calls.index("replace")
    assert calls[rename - 2 : rename] == ["fsync", "close"]
    assert "write" in calls[: rename - 2]
    assert calls.index("fsync", rename) < calls.index("unlink", rename)
    assert "write" not in calls[rename:]


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EROFS, errno.EDQUOT, errno.EIO])
def test_a_failing_disk_is_one_line_and_the_last_good_one_stays(code, tmp_path, monkeypatch):
    save(tmp_path, np.zeros(5), update=1)

    def write(file, data):
        raise OSError(code, os.strerror(code))

    with monkeypatch.context() as patch:
        patch.setattr(os, "write", write)
        with pytest.raises(CheckpointError) as error:
            save(tmp_path, np.zeros(5), update=2)
    assert os.strerror(code) in str(error.value)
    assert "\n" not in str(error.value)
    assert latest(tmp_path, np.zeros(5)).update == 1
    assert len(os.listdir(tmp_path)) == 1


def test_a_file_size_limit_is_one_line_and_the_last_good_one_stays(tmp_path):
    save(tmp_path, np.zeros(5), update=1)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, hard))
    try:
        with pytest.raises(CheckpointError, match="File too large"):
            save(tmp_path, np.zeros(5000), update=2)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert latest(tmp_path, np.zeros(5)).update == 1
    assert len(os.listdir(tmp_path)) == 1


@pytest.mark.parametrize("where", ["file", "below a file", "/proc", "/dev/full", "long"])
def test_a_place_that_cannot_hold_files_is_one_line(where, tmp_path):
    """/proc refuses new files even to root, who may write into any read-only folder."""
    taken = tmp_path / "taken"
    taken.write_text("a file")
    folder = {
        "file": taken,
        "below a file": taken / "runs",
        "/proc": "/proc/checkpoints",
        "/dev/full": "/dev/full",
        "long": tmp_path / ("x" * 300),
    }[where]
    with pytest.raises(CheckpointError) as error:
        save(folder, 1.0, update=1)
    assert str(folder) in str(error.value)
    assert "\n" not in str(error.value)
    assert taken.read_text() == "a file"

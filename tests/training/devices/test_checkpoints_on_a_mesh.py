"""A state that is spread over devices: saved in parts, checked by file, read onto another mesh."""

import os
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sgdlab import precision, rules, tasks, timelines, training
from sgdlab.training import checkpoints
from sgdlab.training.checkpoints import CheckpointError, DamagedError, MismatchError
from sgdlab.training.devices.mesh import make_mesh
from sgdlab.training.devices.sharding import device_bytes, shard_like, shard_params, total_bytes

pytestmark = pytest.mark.slow

SHAPES = {"kernel": (128, 64), "half": (64, 128), "bias": (64,)}


def make(seed):
    draw = np.random.default_rng(seed).standard_normal
    params = {name: draw(shape).astype(np.float32) for name, shape in SHAPES.items()}
    params["half"] = params["half"].astype(jnp.bfloat16)
    state = {"mu": params, "count": np.int32(seed), "key": jax.random.key(seed)}
    return {"params": params, "state": state, "losses": draw(5)}


def place(tree, mesh):
    """Arrays spread over a mesh; the losses stay on the host."""
    params, state = tree["params"], tree["state"]
    lie = shard_params(params, mesh)
    where = {"params": lie, "state": shard_like(state, params, lie)}
    return {**tree, **jax.device_put({"params": params, "state": state}, where)}


def like(mesh):
    """What `place` gives, without its values."""

    def keep(leaf):
        sharding = leaf.sharding if isinstance(leaf, jax.Array) else None
        return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding)

    return jax.tree.map(keep, place(make(0), mesh))


def bits(tree):
    def words(leaf):
        is_key = jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)
        return jax.random.key_data(leaf) if is_key else leaf

    return [np.asarray(words(leaf)).tobytes() for leaf in jax.tree.leaves(tree)]


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    folder = tmp_path_factory.mktemp("saved")
    for seed in (1, 2, 3):
        tree = place(make(seed), make_mesh(fsdp=8))
        checkpoints.save(folder, tree, update=seed, metadata={"seed": seed})
    return folder


def test_a_spread_state_is_a_folder_and_a_whole_one_a_file(saved, tmp_path):
    assert [path.name for path in checkpoints.find(saved)] == [
        "checkpoint-000000000003.shards",
        "checkpoint-000000000002.shards",
    ]
    assert sorted(os.listdir(saved)) == sorted(path.name for path in checkpoints.find(saved))
    whole = checkpoints.save(tmp_path, place(make(1), make_mesh(data=8)), update=1)
    assert whole.suffix == ".ckpt"
    assert checkpoints.read_header(checkpoints.find(saved)[0]).metadata == {"seed": 3}


@pytest.mark.parametrize("sizes", [(1, 8), (2, 4), (4, 2), (1, 2), (8, 1), (1, 1)])
def test_it_is_read_onto_any_mesh_with_the_same_bits(saved, sizes):
    mesh = make_mesh(*sizes)
    wanted = like(mesh)
    found = checkpoints.latest(saved, wanted)
    assert (found.update, found.metadata) == (3, {"seed": 3})
    assert bits(found.state) == bits(make(3))
    kernel = found.state["params"]["kernel"]
    assert kernel.sharding.is_equivalent_to(wanted["params"]["kernel"].sharding, 2)
    assert device_bytes(kernel) == total_bytes(kernel) // sizes[1]


def files(folder):
    return sorted(p for p in folder.rglob("*") if p.is_file() and p.stat().st_size)


def test_a_flipped_bit_in_any_file_is_found_and_the_older_one_is_used(saved, tmp_path):
    folder = tmp_path / "copy"
    shutil.copytree(saved, folder)
    newest = checkpoints.find(folder)[0]
    wanted = like(make_mesh(fsdp=8))
    assert len(files(newest)) > 5
    for path in files(newest):
        content = path.read_bytes()
        for place_of in (0, len(content) // 2, len(content) - 1):
            changed = bytearray(content)
            changed[place_of] ^= 1
            path.write_bytes(changed)
            with pytest.raises(DamagedError):
                checkpoints.load(newest, wanted)
        path.write_bytes(content)
    assert bits(checkpoints.load(newest, wanted).state) == bits(make(3))
    path = max(files(newest), key=lambda p: p.stat().st_size)
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.warns(checkpoints.CheckpointWarning, match=f"{path.name}: has .* written"):
        found = checkpoints.latest(folder, wanted)
    assert bits(found.state) == bits(make(2))


def test_a_file_too_few_or_too_many_is_damage(saved, tmp_path):
    folder = tmp_path / "copy"
    shutil.copytree(saved, folder)
    newest, older = checkpoints.find(folder)
    (newest / "arrays" / "extra").write_text("x")
    files(older / "arrays")[0].unlink()
    for path, says in ((newest, "extra: not its own"), (older, "missing")):
        with pytest.raises(DamagedError, match=says):
            checkpoints.load(path, like(make_mesh(fsdp=8)))
    with pytest.raises(CheckpointError, match="no checkpoint is sound"):
        checkpoints.latest(folder, like(make_mesh(fsdp=8)))


def test_a_link_or_a_pipe_in_the_place_of_a_part_is_damage(saved, tmp_path):
    folder = tmp_path / "copy"
    shutil.copytree(saved, folder)
    newest, older = checkpoints.find(folder)
    first, second = files(newest / "arrays")[:2]
    os.rename(first, tmp_path / "elsewhere")
    first.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(DamagedError, match="is no regular file"):
        checkpoints.load(newest, like(make_mesh(fsdp=8)))
    first.unlink()
    os.rename(tmp_path / "elsewhere", first)
    second.unlink()
    os.mkfifo(second)
    with pytest.raises(DamagedError, match="is no regular file"):
        checkpoints.load(newest, like(make_mesh(fsdp=8)))
    os.rename(older / "arrays", tmp_path / "arrays")
    (older / "arrays").symlink_to(tmp_path / "arrays")
    with pytest.raises(DamagedError, match="is a symbolic link"):
        checkpoints.load(older, like(make_mesh(fsdp=8)))


def test_another_program_is_refused_by_leaf_and_both_shapes(saved):
    wanted = like(make_mesh(fsdp=8))
    wanted["params"]["kernel"] = jax.ShapeDtypeStruct((64, 64), jnp.float32)
    says = r"params/kernel: float32\[128, 64\] in the checkpoint, float32\[64, 64\] in this"
    with pytest.raises(MismatchError, match=says):
        checkpoints.latest(saved, wanted)
    del wanted["params"]["kernel"]
    with pytest.raises(MismatchError, match="params/kernel: in the checkpoint, not in this"):
        checkpoints.latest(saved, wanted)


@pytest.mark.parametrize("at", ["orbax", "manifest", "rename"])
def test_a_save_that_is_cut_off_anywhere_leaves_the_one_before_it(saved, tmp_path, monkeypatch, at):
    from sgdlab.training.checkpoints import sharded

    class Cut(BaseException):
        pass

    def fail(*_, **__):
        raise Cut

    folder = tmp_path / "copy"
    shutil.copytree(saved, folder)
    mesh = make_mesh(fsdp=8)
    with monkeypatch.context() as patch:
        if at == "orbax":
            patch.setattr(sharded, "_list_files", fail)
        elif at == "manifest":
            patch.setattr(sharded, "write_file", fail)
        else:
            patch.setattr(sharded.os, "replace", fail)
        with pytest.raises(Cut):
            checkpoints.save(folder, place(make(4), mesh), update=4)
    assert checkpoints.latest(folder, like(mesh)).update == 3
    checkpoints.save(folder, place(make(5), mesh), update=5)
    assert bits(checkpoints.latest(folder, like(mesh)).state) == bits(make(5))
    assert [path.name[11:23].lstrip("0") for path in checkpoints.find(folder)] == ["5", "3"]
    assert len(os.listdir(folder)) == 2


def test_a_disk_that_is_full_is_one_line(tmp_path, monkeypatch):
    from orbax.checkpoint.experimental import v1

    def fail(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(v1, "save", fail)
    with pytest.raises(CheckpointError, match="cannot be written: .*No space left") as caught:
        checkpoints.save(tmp_path, place(make(1), make_mesh(fsdp=8)), update=1)
    assert "\n" not in str(caught.value)
    assert checkpoints.find(tmp_path) == []


class Killed(Exception):
    pass


CLUSTER = timelines.Cluster(workers=4, compute=timelines.gamma(mean=1.0, shape=2.0))
TIMELINE = timelines.asynchronous(CLUSTER, updates=24, seed=1)


def run(task, folder, mesh, *, timeline=TIMELINE, kill_at=None, resume=False, **options):
    def tell(chunk):
        if chunk.update == kill_at:
            raise Killed

    return training.replay(
        task,
        rules.momentum(0.2, decay=0.5),
        timeline,
        batch_size=16,
        evaluate_every=4,
        mesh=mesh,
        checkpoint=training.CheckpointPlan(folder),
        callback=tell,
        resume=resume,
        **options,
    )


@pytest.mark.parametrize("policy", ["float32", "mixed_bfloat16"])
def test_a_run_killed_on_2_by_2_goes_on_on_1_by_4_on_8_and_on_one_device(tmp_path, policy):
    task = tasks.digits(hidden=[64])
    loss_scale = precision.DynamicLossScale(2.0**10, period=5)
    options = {"precision": policy, "loss_scale": loss_scale}
    whole = run(task, tmp_path / "whole", make_mesh(2, 2), **options)
    cut = tmp_path / "cut"
    with pytest.raises(Killed):
        run(task, cut, make_mesh(2, 2), kill_at=8, **options)
    for mesh, kill_at in ((make_mesh(1, 4), 12), (make_mesh(1, 8), 16), (None, 20)):
        with pytest.raises(Killed):
            run(task, cut, mesh, kill_at=kill_at, resume=True, **options)
    resumed = run(task, cut, make_mesh(2, 4), resume=True, **options)
    suffixes = [path.suffix for path in checkpoints.find(cut / "0")]
    assert suffixes == [".shards", ".ckpt"] or suffixes == [".shards", ".shards"]
    np.testing.assert_array_equal(resumed.loss[:4], whole.loss[:4])
    # Another mesh sums a minibatch's 16 rows in another order: rounding of the compute dtype.
    tolerance = {"float32": 1e-5, "mixed_bfloat16": 2.0**-5}[policy]
    np.testing.assert_allclose(resumed.loss, whole.loss, rtol=tolerance)
    assert list(resumed.evaluations["update"]) == list(whole.evaluations["update"])


@pytest.mark.parametrize("shape", [(4, 1), (2, 2)], ids=["whole", "spread"])
def test_a_run_on_a_mesh_goes_on_over_a_longer_horizon_bit_for_bit(tmp_path, shape):
    """Stale versions are kept to the end on a mesh too; 10 updates end between evaluations."""
    task, mesh = tasks.digits(hidden=[64]), make_mesh(*shape)
    short = timelines.asynchronous(CLUSTER, updates=10, seed=1)
    whole = run(task, tmp_path / "whole", mesh)
    run(task, tmp_path / "cut", mesh, timeline=short)
    resumed = run(task, tmp_path / "cut", mesh, resume=True)
    np.testing.assert_array_equal(resumed.loss, whole.loss)
    assert resumed.evaluations.equals(whole.evaluations)
    pairs = zip(jax.tree.leaves(resumed.params), jax.tree.leaves(whole.params), strict=True)
    assert all(np.array_equal(one, other) for one, other in pairs)

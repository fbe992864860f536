"""Structural facts of the benchmarks: equal work, complete tables, no copy. No timing."""

import math
import re
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from benchmarks import floors, peers, problems, replays, results
from benchmarks.contest import Benchmark, Contestant, Target
from benchmarks.harness import ratio
from benchmarks.registry import BENCHMARKS
from sgdlab import rules, tasks, workers
from sgdlab.timelines import (
    Cluster,
    asynchronous,
    exponential,
    fixed_delay,
    k_batch_async,
    ringleader,
    synchronous,
)
from sgdlab.training import replay
from sgdlab.training.devices.traffic import find_copies

pytestmark = pytest.mark.slow

# Two ways to sum the same float32 terms differ by about 1e-6 relatively; a step of this problem
# multiplies a difference by at most about 1.1, and 1.1²⁴ ≈ 10.
SAME = {"rtol": 2e-5, "atol": 2e-6}
UPDATES = 24


@pytest.fixture(scope="module")
def stale():
    """The digits MLP with four workers, so that most messages are stale."""
    timeline = asynchronous(Cluster(workers=4, compute=exponential(1.0)), updates=UPDATES, seed=1)
    assert timeline.staleness.max() > 2
    return problems.make_problem(tasks.digits(), timeline, batch_size=8)


@pytest.fixture(scope="module")
def stale_losses(stale):
    return replays.loop(stale).losses()


def test_the_jitted_gradient_loop_makes_the_replays_trajectory(stale, stale_losses):
    run = peers.jitted_gradient_loop(stale, floors.mlp_loss)
    np.testing.assert_allclose(run.losses(), stale_losses, **SAME)


@pytest.mark.parametrize("loop", ["slot_loop", "deque_loop"])
def test_the_pytorch_loops_make_the_replays_trajectory(loop, stale, stale_losses):
    torch_peers = _torch_peers()
    run = getattr(torch_peers, loop)(stale, torch_peers.mlp)
    np.testing.assert_allclose(run.losses(), stale_losses, **SAME)


def test_the_pytorch_network_is_the_tasks_convolutional_network():
    torch_peers = _torch_peers()
    task = tasks.digits(model="cnn", channels=[4, 8], hidden=[16])
    problem = problems.make_problem(task, fixed_delay(0, updates=1), batch_size=4)
    theirs = torch_peers.slot_loop(problem, torch_peers.cnn).losses()
    batch = {name: column[problem.rows[0, 0]] for name, column in task.train.items()}
    ours, _ = task.loss(problem.params, batch, None)
    np.testing.assert_allclose(theirs, [ours], **SAME)


def test_the_floor_is_the_replay_without_staleness():
    problem = problems.make_problem(tasks.digits(), fixed_delay(0, updates=UPDATES), batch_size=8)
    ours = replays.loop(problem).losses()
    np.testing.assert_allclose(floors.scan_loop(problem, floors.mlp_loss).losses(), ours, **SAME)


def test_the_data_parallel_floor_is_the_synchronous_replay():
    timeline = synchronous(Cluster(workers=3, compute=exponential(1.0)), updates=UPDATES, seed=0)
    problem = problems.make_problem(tasks.digits(), timeline, batch_size=4)
    floor = floors.scan_loop(problem, floors.mlp_loss, fuse=3)
    np.testing.assert_allclose(floor.losses(), replays.loop(problem).losses(), **SAME)


def test_the_local_floor_is_local_sgd_of_one_worker():
    cluster = Cluster(workers=1, compute=exponential(1.0), gradients_per_message=3)
    timeline = asynchronous(cluster, updates=8, seed=0)
    problem = problems.make_problem(tasks.digits(), timeline, batch_size=8)
    worker = workers.local_steps(3, rules.sgd(0.05))
    ours = replays.loop(problem, worker=worker, rule=rules.sgd(1.0)).losses()
    floor = floors.local_loop(problem, floors.mlp_loss, 0.05)
    np.testing.assert_allclose(floor.losses(), ours, **SAME)


def test_the_heap_simulator_descends():
    curvature = np.array([0.5, 1.0])
    run = peers.heap_loop(curvature, 0.0, 4, 400, 0.05, 0.9)
    assert run.losses()[-1] < 1e-2 * run.losses()[0]


def copies(text, at_least):
    """The arrays of at least so many entries that a program copies."""
    return [shape for _, shape in find_copies(text) if math.prod(shape) >= at_least]


def catch_loop(problem):
    positional, named = replays.arguments(problem)
    return replays.catch_step(lambda: replay(*positional, **named))


@pytest.mark.parametrize(
    ("make", "task", "form"),
    [
        (lambda cluster: asynchronous(cluster, updates=16), tasks.digits(hidden=[32]), "single"),
        (lambda cluster: asynchronous(cluster, updates=160), tasks.digits(hidden=[32]), "early"),
        (
            lambda cluster: k_batch_async(cluster, k=3, updates=16),
            tasks.quadratic(np.ones(2048)),
            "walk",
        ),
        (lambda cluster: ringleader(cluster, updates=16), tasks.quadratic(np.ones(2048)), "walk"),
    ],
    ids=["one message an update", "computed early", "several", "a table"],
)
def test_no_slot_sized_copy_stands_in_the_compiled_loop(make, task, form):
    timeline = make(Cluster(workers=6, compute=exponential(1.0)))
    problem = problems.make_problem(task, timeline, batch_size=1)
    largest = max(leaf.size for leaf in jax.tree.leaves(problem.params))
    step = catch_loop(problem)
    assert step.program.form == form
    assert copies(step.compile().as_text(), 2 * largest) == []


def test_reading_before_storing_would_copy_the_slots():
    """The control of the test above: in the other order XLA has to keep the old slots."""

    def body(_, carry):
        slots, w, total = carry
        read = jax.lax.dynamic_index_in_dim(slots, 1, 0, keepdims=False)
        slots = jax.lax.dynamic_update_index_in_dim(slots, w + total, 0, 0)
        return slots, w + jnp.tanh(read @ read), total + jnp.sum(read)

    @jax.jit
    def run(slots, w, n):
        return jax.lax.fori_loop(0, n, body, (slots, w, jnp.float32(0)))

    text = run.lower(jnp.zeros((4, 32, 32)), jnp.zeros((32, 32)), 3).compile().as_text()
    assert copies(text, 4 * 32 * 32)


@pytest.mark.parametrize(("updates", "form"), [(16, "single"), (160, "early")])
def test_memory_stays_below_the_slots_and_three_copies(updates, form):
    """(N + 3)·P floats and 3 %: N versions, the current one, momentum and a gradient."""
    timeline = asynchronous(Cluster(workers=5, compute=exponential(1.0)), updates=updates, seed=0)
    task = problems.wide((784, 1024, 10), rows=8)
    problem = problems.make_problem(task, timeline, batch_size=1)
    size = sum(leaf.size for leaf in jax.tree.leaves(problem.params))
    step = catch_loop(problem)
    assert step.program.form == form
    planned = step.compile().memory_analysis()
    total = (
        planned.argument_size_in_bytes
        + planned.output_size_in_bytes
        - planned.alias_size_in_bytes
        + planned.temp_size_in_bytes
    )
    assert total <= 1.03 * (5 + 3) * 4 * size


def test_every_target_names_contestants_of_its_benchmark():
    for benchmark in BENCHMARKS.values():
        if isinstance(benchmark, Benchmark):
            names = [each.name for each in benchmark.contestants]
            assert len(set(names)) == len(names)
            for target in benchmark.targets:
                over = [target.over] if isinstance(target.over, str) else target.over
                assert {target.contestant, *over} <= set(names)


def test_results_list_what_the_registry_lists():
    text = (Path(results.FOLDER) / "RESULTS.md").read_text()
    assert re.findall(r"^`python -m benchmarks (\S+)`$", text, re.M) == list(BENCHMARKS)
    for benchmark in BENCHMARKS.values():
        assert f"\n## {benchmark.title}\n" in text


def test_a_ratio_compares_turns_of_one_round_with_the_fastest_of_the_others():
    rates = {"a": {"wall": [4.0, 8.0]}, "b": {"wall": [2.0, 4.0]}, "c": {"wall": [1.0, 1.0]}}
    measured = {"rates": rates, "missing": {}}
    np.testing.assert_array_equal(ratio(measured, Target("a", ("c", "b"), 1), "wall"), [2, 2])
    assert ratio(measured, Target("a", "absent", 1), "wall") is None


def test_a_contestant_that_cannot_be_set_up_is_told_in_the_table():
    contestants = (Contestant("a", lambda: None), Contestant("b", lambda: None))
    benchmark = Benchmark("x", "X", contestants)
    measured = {"rates": {"a": {"wall": [1.0], "cpu": [1.0]}}, "missing": {"b": "no module"}}
    assert "| b | no module |" in results.rates(benchmark, measured)


def test_listing_imports_neither_jax_nor_torch():
    code = (
        "import sys, benchmarks.registry, benchmarks.results;"
        "assert not {'jax', 'torch', 'sklearn'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=results.FOLDER.parent)


def _torch_peers():
    pytest.importorskip("torch")
    from benchmarks import torch_peers

    return torch_peers


def test_the_language_models_contestants_do_the_same_work():
    from benchmarks import language_model

    setting = language_model.Setting("0.3M", rows=2, length=16, updates=2, policy="float32")
    contestants, difference = language_model.make_contestants(setting)
    assert difference <= 1e-5  # two updates in float32
    assert [each.name for each in contestants] == ["replay", "hand-written"]
    for each in contestants:
        assert each.run() > 0
        assert each.peak > 3 * 4 * 300_000  # parameters and Adam's two moments


def test_the_model_flops_are_six_a_matrix_entry_and_token():
    from benchmarks.language_model import Setting, flops_per_token

    params = jax.eval_shape(tasks.text(size="0.3M", length=16).init, jax.random.key(0))
    # every leaf but the scales of the normalisations is a matrix; the tied embedding is the head
    entries = sum(
        leaf.size
        for path, leaf in jax.tree_util.tree_leaves_with_path(params)
        if "scale" not in jax.tree_util.keystr(path)
    )
    attention = 12 * 2 * 112 * 16  # layers, width, length
    assert flops_per_token(Setting("0.3M", length=16)) == 6 * entries + attention

"""Gradients that are computed together make the updates that they make one by one."""

import jax
import numpy as np
import optax
import pytest

from sgdlab import precision, rules, tasks, timelines, training, workers
from sgdlab.training.inspecting import ChunkProgram
from sgdlab.training.program import FixedRule

CLUSTER = timelines.Cluster(workers=6, compute=timelines.gamma(mean=1.0, shape=2.0))
TIMELINES = {
    "asynchronous": lambda: timelines.asynchronous(CLUSTER, updates=90, seed=1),
    "fixed_delay": lambda: timelines.fixed_delay(5, updates=90),
    "random_delay": lambda: timelines.random_delay([0.1, 0.1, 0.1, 0.7], updates=90, seed=1),
}
PROGRAMS = {
    "gradient": {},
    "a chain that remembers": {
        "receive": optax.chain(
            rules.scale_by_worker_delay(num_workers=6), rules.compensate_delay(0.04)
        )
    },
    "error feedback": {
        "worker": workers.compressed(workers.gradient(), workers.top_k(fraction=0.2))
    },
    "a loss scale that finds its value": {
        "precision": "mixed_float16",
        "loss_scale": precision.DynamicLossScale(loss_scale=2.0**24),
    },
    "measures": {"measures": ["distance", "cosine"]},
}


@pytest.mark.parametrize(
    ("name", "program"),
    [*((t, "gradient") for t in TIMELINES), *(("asynchronous", p) for p in PROGRAMS)][1:],
)
def test_waves_change_rounding_and_nothing_else(name, program):
    task, timeline, options = tasks.digits(hidden=[8]), TIMELINES[name](), PROGRAMS[program]
    options = {"evaluate_every": 20, "batch_size": 8, **options}  # 20 cuts waves in two
    alone = training.replay(task, rules.momentum(0.1), timeline, **options)
    together = training.replay(task, rules.momentum(0.1), timeline, width=4, **options)
    # Gradients of size one, rounded otherwise by a few units in the last place of the compute
    # dtype (sums of 64 and 8 products, added in a wider one), 90 times with rate 0.1.
    half = "float16" in str(options.get("precision"))
    tolerance = 90 * 0.1 * 8 * np.finfo(np.float16 if half else np.float32).eps
    np.testing.assert_allclose(together.loss, alone.loss, atol=tolerance)
    for one, other in zip(
        jax.tree.leaves(alone.params), jax.tree.leaves(together.params), strict=True
    ):
        np.testing.assert_allclose(other, one, atol=tolerance)
    np.testing.assert_array_equal(together.skipped, alone.skipped)
    for measure in options.get("measures", ()):
        np.testing.assert_allclose(
            together.measures[measure], alone.measures[measure], atol=tolerance
        )


def test_waves_are_cut_where_chunks_end_without_a_trace():
    task, timeline = tasks.quadratic([1.0, 0.3]), TIMELINES["asynchronous"]()
    whole = training.replay(task, rules.sgd(0.1), timeline, width=4)
    cut = training.replay(task, rules.sgd(0.1), timeline, width=4, evaluate_every=7)
    np.testing.assert_allclose(cut.params, whole.params, rtol=1e-6)


def test_a_worker_that_remembers_has_one_message_in_a_wave(handmade):
    # Worker 0's first two messages read version 0; the second needs the error of the first.
    timeline = handmade([0, 0, 0, 1], [0, 0, 1, 1], [0, 1, 2, 3])
    assert timelines.plan(timeline, width=4).wave.tolist() == [0, 2, 4]
    worker = workers.compressed(workers.gradient(), workers.top_k(fraction=0.5))
    task = tasks.quadratic([1.0, 0.3, 2.0, 0.7], start=1.0)
    alone = training.replay(task, rules.sgd(0.1), timeline, worker=worker)
    together = training.replay(task, rules.sgd(0.1), timeline, worker=worker, width=4)
    np.testing.assert_allclose(together.params, alone.params, rtol=1e-6)


def test_a_chunk_of_waves_makes_the_updates_of_a_replay():
    task, timeline = tasks.quadratic([1.0, 0.3]), TIMELINES["asynchronous"]()
    options = {"width": 4, "evaluate_every": 60}
    chunk = ChunkProgram(task, FixedRule(rules.sgd(0.1)), timeline, **options)
    assert chunk.program.form == "waves"
    chunk.run()
    whole = training.replay(task, rules.sgd(0.1), timeline, record=lambda w: {"w": w}, **options)
    np.testing.assert_allclose(chunk.state.params, whole.records["w"][59], rtol=1e-6)


def test_waves_on_a_mesh_are_refused():
    mesh = training.make_mesh(data=1)
    with pytest.raises(ValueError, match="width: 2 on a mesh; allowed: 1"):
        training.replay(
            tasks.quadratic([1.0]), rules.sgd(0.1), TIMELINES["fixed_delay"](), mesh=mesh, width=2
        )

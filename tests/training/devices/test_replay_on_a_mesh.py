"""What a replay on a mesh refuses, draws and compiles."""

import pytest

from sgdlab import rules, tasks, timelines, training
from sgdlab.training import replaying
from sgdlab.training.devices.mesh import make_mesh

pytestmark = pytest.mark.slow

CLUSTER = timelines.Cluster(workers=6, compute=timelines.gamma(mean=1.0, shape=2.0))
TIMELINE = timelines.asynchronous(CLUSTER, updates=40, seed=1)
RULE = rules.momentum(0.1, decay=0.9)


@pytest.fixture(scope="module")
def digits():
    return tasks.digits(hidden=[128])


def test_the_chunks_of_a_run_on_a_mesh_share_a_compile(digits, monkeypatch):
    from sgdlab.training import members

    monkeypatch.setattr(members, "_PROGRAMS", 10**6)  # none is let go of in between
    before = members._step._cache_size()
    training.replay(digits, RULE, TIMELINE, mesh=make_mesh(2, 2, 2), evaluate_every=10)
    assert members._step._cache_size() == before + 1


def test_a_minibatch_that_does_not_divide_is_refused(digits):
    with pytest.raises(ValueError, match="30 rows can't be spread over 8 devices"):
        training.replay(digits, RULE, TIMELINE, batch_size=30, mesh=make_mesh())


def test_a_task_that_draws_from_its_key_is_partitioned_by_jit_alone(relative_error):
    task = tasks.quadratic([1.0, 0.3], noise=0.5)
    expected = training.replay(task, RULE, TIMELINE)
    history = training.replay(task, RULE, TIMELINE, mesh=make_mesh())
    assert relative_error(history.params, expected.params) <= 1e-6
    with pytest.raises(ValueError, match='allowed: collective="jit", .* reduction="canonical"'):
        training.replay(task, RULE, TIMELINE, mesh=make_mesh(), collective="pmap")


@pytest.mark.parametrize("collective", ["jit", "shard_map", "pmap"])
def test_messages_computed_early_lie_on_the_mesh_as_parameters_do(collective, relative_error):
    timeline = timelines.asynchronous(CLUSTER, updates=160, seed=1)
    task, rule = tasks.digits(hidden=[64]), rules.momentum(0.02, decay=0.9)
    mesh = make_mesh(4, 2) if collective == "jit" else make_mesh()
    make_rule = replaying.FixedRule(rule)
    prepared = replaying.prepare(task, make_rule, timeline, seeds=[0], mesh=mesh)
    assert prepared.program.form == "early"
    expected = training.replay(task, rule, timeline)
    history = training.replay(task, rule, timeline, mesh=mesh, collective=collective)
    # Some hundred roundings of float32 in a slow descent, which does not amplify them.
    assert relative_error(history.params, expected.params) <= 1e-5


def test_messages_computed_early_have_the_bits_of_any_number_of_devices():
    timeline = timelines.asynchronous(CLUSTER, updates=160, seed=1)
    runs = [
        training.replay(
            tasks.digits(hidden=[64]), RULE, timeline, mesh=make_mesh(n), reduction="canonical"
        )
        for n in (1, 4)
    ]
    assert runs[0].loss.tobytes() == runs[1].loss.tobytes()

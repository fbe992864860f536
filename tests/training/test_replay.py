"""Replay does the arithmetic that the timeline says, and nothing else."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from sgdlab import rules, tasks, timelines, training, workers
from sgdlab.training.batches import draw_rows, make_shards
from tests.training.reference import walk_quadratic

CURVATURE = [1.0, 0.3, 2.0]
GAMMA = timelines.Cluster(workers=6, compute=timelines.gamma(mean=1.0, shape=2.0))

PROTOCOLS = {
    "asynchronous": lambda: timelines.asynchronous(GAMMA, updates=70, seed=1),
    "synchronous": lambda: timelines.synchronous(GAMMA, updates=30, seed=1),
    "window": lambda: timelines.window(GAMMA, wait=0.5, updates=50, seed=1),
    "wait_for_all": lambda: timelines.wait_for_all(GAMMA, updates=40, seed=1),
    "fixed_delay": lambda: timelines.fixed_delay(3, updates=50),
    "random_delay": lambda: timelines.random_delay([0.5, 0.2, 0.3], updates=50, seed=1),
}


def same_bits(left, right):
    leaves = zip(jax.tree.leaves(left), jax.tree.leaves(right), strict=True)
    return all(np.array_equal(np.asarray(a), np.asarray(b)) for a, b in leaves)


@pytest.mark.parametrize("name", sorted(PROTOCOLS))
def test_replay_equals_a_plain_walk_of_the_timeline(name):
    timeline = PROTOCOLS[name]()
    history = training.replay(tasks.quadratic(CURVATURE), optax.sgd(0.1), timeline)
    versions = walk_quadratic(timeline, CURVATURE, 1.0, 0.1)
    np.testing.assert_allclose(history.params, versions[-1], rtol=2e-4, atol=1e-6)
    np.testing.assert_array_equal(history.time, timeline.apply_time)


TABLES = {
    "messages": ([0, 1, 0, 1], [0, 0, 1, 1], [0, 1, 2, 3], [1, 1, 3, 3]),
    "workers": ([0, 0, 1, 0, 1], [0, 0, 0, 2, 1], [0, 0, 1, 2, 3], [1, 1, 1, 3, 3]),
}


@pytest.mark.parametrize("average", sorted(TABLES))
def test_a_table_of_messages_equals_a_plain_walk(average, handmade):
    worker, read, update, last = TABLES[average]
    timeline = handmade(worker, read, update, last=last, average=average)
    history = training.replay(tasks.quadratic(CURVATURE), optax.sgd(0.2), timeline)
    versions = walk_quadratic(timeline, CURVATURE, 1.0, 0.2)
    np.testing.assert_allclose(history.params, versions[-1], rtol=2e-6)


@pytest.mark.parametrize(
    ("name", "lengths"), [("asynchronous", [1, 30]), ("window", [7]), ("synchronous", [7])]
)
def test_the_same_bits_whatever_the_chunks(name, lengths):
    task, rule, timeline = tasks.digits(hidden=[]), rules.momentum(0.1), PROTOCOLS[name]()
    whole = training.replay(task, rule, timeline, seed=1)
    for every in lengths:
        cut = training.replay(task, rule, timeline, seed=1, evaluate_every=every)
        assert same_bits(cut.params, whole.params)
        assert same_bits(cut.loss, whole.loss)
        assert len(cut.evaluations) == 1 + -(-timeline.num_updates // every)


def test_each_member_is_its_own_single_run():
    task, timeline = tasks.digits(hidden=[16]), PROTOCOLS["asynchronous"]()
    many = training.replay_many(
        task,
        rules.momentum,
        timeline,
        seeds=[0, 5],
        hyperparameters={"learning_rate": [0.05, 0.2], "decay": [0.5, 0.9]},
    )
    assert [m["seed"] for m in many.members] == [0, 5] * 4
    assert many.members[2] == {"learning_rate": 0.05, "decay": 0.9, "seed": 0, "timeline": 0}
    for index in (0, 3, 6):
        member = dict(many.members[index])
        seed = member.pop("seed")
        member.pop("timeline")
        single = training.replay_many(
            task,
            rules.momentum,
            timeline,
            seeds=[seed],
            hyperparameters={name: [value] for name, value in member.items()},
        )[0]
        assert same_bits(single.params, many[index].params)
        assert same_bits(single.loss, many[index].loss)


def test_several_timelines_run_in_one_program():
    task = tasks.quadratic(CURVATURE)
    draws = [timelines.asynchronous(GAMMA, seconds=20.0, seed=seed) for seed in (0, 1)]
    assert draws[0].num_updates != draws[1].num_updates
    many = training.replay_many(
        task, optax.sgd, draws, seeds=[0], hyperparameters={"learning_rate": [0.1]}
    )
    for timeline, history in zip(draws, many, strict=True):
        versions = walk_quadratic(timeline, CURVATURE, 1.0, 0.1)
        np.testing.assert_allclose(history.params, versions[-1], rtol=2e-4, atol=1e-6)


@pytest.mark.parametrize("name", ["asynchronous", "window"])
def test_members_side_by_side_equal_members_one_by_one_to_rounding(name):
    task, rates = tasks.quadratic(CURVATURE, noise=0.1), {"learning_rate": [0.05, 0.2]}
    options = {"seeds": [0, 1], "hyperparameters": rates, "evaluate_every": 20}
    threads, mapped = (
        training.replay_many(task, optax.sgd, PROTOCOLS[name](), members=members, **options)
        for members in ("threads", "vmap")
    )
    assert threads.members == mapped.members
    for one, other in zip(threads, mapped, strict=True):
        np.testing.assert_allclose(one.loss, other.loss, rtol=1e-4, atol=1e-6)
        np.testing.assert_allclose(one.params, other.params, rtol=1e-4, atol=1e-6)
        np.testing.assert_allclose(one.evaluations, other.evaluations, rtol=1e-4, atol=1e-6)


def test_a_member_that_stops_early_keeps_the_parameters_it_stopped_with():
    timeline = timelines.fixed_delay(0, updates=200)
    options = {"evaluate_every": 10, "stop": {"metric": "loss", "at_most": 1e-3}, "seeds": [0]}
    rates = {"learning_rate": [0.1, 0.2]}
    slow, fast = training.replay_many(
        tasks.quadratic([1.0]),
        optax.sgd,
        timeline,
        hyperparameters=rates,
        members="vmap",
        **options,
    )
    # ½·(1−h)²ᵗ ≤ 10⁻³ first holds at t = 30 and t = 20 among the multiples of ten
    np.testing.assert_allclose(slow.params, [0.9**30], rtol=1e-5)
    np.testing.assert_allclose(fast.params, [0.8**20], rtol=1e-5)


def counted(task):
    """The task, and a list that grows whenever its loss is traced."""
    traces = []

    def loss(params, batch, key):
        traces.append(None)
        return task.loss(params, batch, key)

    return tasks.Task(task.name, task.init, loss, task.train, task.test, task.labels), traces


@pytest.mark.parametrize("name", ["asynchronous", "window"])
def test_a_second_chunk_and_a_second_seed_set_do_not_retrace(name):
    task, traces = counted(tasks.digits(hidden=[8]))
    timeline, rates = PROTOCOLS[name](), {"learning_rate": [0.1]}
    options = {"evaluate_every": 9, "hyperparameters": rates}
    training.replay_many(task, optax.sgd, timeline, seeds=[0], **options)
    first = len(traces)
    training.replay_many(task, optax.sgd, timeline, seeds=[1, 2, 3], **options)
    other = {"evaluate_every": 9, "hyperparameters": {"learning_rate": [0.3, 0.01]}}
    training.replay_many(task, optax.sgd, timeline, seeds=[0], **other)
    assert len(traces) == first


def test_an_equal_rule_made_again_does_not_retrace():
    task, traces = counted(tasks.quadratic([1.0]))
    timeline = timelines.fixed_delay(1, updates=4)
    training.replay(task, rules.momentum(0.1, decay=0.9), timeline)
    first = len(traces)
    training.replay(task, rules.momentum(0.1), timeline)
    assert len(traces) == first
    training.replay(task, rules.momentum(0.2), timeline)
    assert len(traces) > first


@pytest.mark.parametrize("delay", [1, 4, 16])
def test_the_delay_stability_limit_is_met_from_both_sides(delay):
    limit = 2 * np.sin(np.pi / (2 * (2 * delay + 1)))
    timeline = timelines.fixed_delay(delay, updates=8000)
    rates = {"learning_rate": [0.97 * limit, 1.03 * limit]}
    below, above = training.replay_many(
        tasks.quadratic([1.0]), optax.sgd, timeline, seeds=[0], hyperparameters=rates
    )
    assert abs(below.params[0]) < 1e-2
    assert above.error is not None or abs(above.params[0]) > 1e2


def test_every_message_meets_receive_with_its_own_staleness(handmade):
    timeline = handmade([0, 1, 2, 0], [0, 0, 0, 1], [0, 0, 1, 1])
    task, start, rate = tasks.quadratic([1.0]), 1.0, 0.1
    receive = rules.scale_by_staleness(power=1.0)
    history = training.replay(task, optax.sgd(rate), timeline, receive=receive)
    first = start - rate * start
    second = first - rate * (start / 2 + first) / 2  # the stale one is halved before the mean
    np.testing.assert_allclose(history.params, [second], rtol=1e-6)


def test_a_rule_sees_the_mean_staleness_of_its_update(handmade):
    timeline = handmade([0, 1, 2, 0], [0, 0, 0, 1], [0, 0, 1, 1])
    rule = optax.chain(rules.scale_by_staleness(power=1.0), optax.sgd(0.1))
    history = training.replay(tasks.quadratic([1.0]), rule, timeline)
    first = 1.0 - 0.1
    second = first - 0.1 * (1.0 + first) / 2 / (1 + 0.5)
    np.testing.assert_allclose(history.params, [second], rtol=1e-6)
    np.testing.assert_allclose(history.staleness, [0.0, 0.5])


def test_a_rule_may_not_ask_for_one_messages_parameters_where_there_are_several(handmade):
    several = handmade([0, 1, 2, 0], [0, 0, 0, 1], [0, 0, 1, 1])
    rule = optax.chain(rules.compensate_delay(0.1), optax.sgd(0.1))
    with pytest.raises(ValueError, match="stale_params"):
        training.replay(tasks.quadratic([1.0]), rule, several)
    single = timelines.fixed_delay(2, updates=5)
    assert np.isfinite(training.replay(tasks.quadratic([1.0]), rule, single).loss).all()


def test_each_worker_learns_from_its_own_shard(handmade):
    targets = np.array([[1.0], [1.0], [5.0], [5.0]], np.float32)
    task = tasks.quadratic([1.0], start=0.0, targets=targets)
    timeline = handmade([0, 1], [0, 1], [0, 1])
    shards = [np.array([0, 1]), np.array([2, 3])]
    history = training.replay(task, optax.sgd(1.0), timeline, partition=shards, batch_size=3)
    np.testing.assert_allclose(history.params, [5.0])
    first = training.replay(
        task, optax.sgd(1.0), handmade([0], [0], [0], workers=2), partition=shards, batch_size=3
    )
    np.testing.assert_allclose(first.params, [1.0])


def test_adding_a_worker_changes_nobody_elses_batches():
    few, many = (make_shards(None, 100, workers) for workers in (2, 9))
    key = jax.random.key(0)
    draw = [draw_rows(key, shards, jnp.int32(1), jnp.int32(4), (2, 8)) for shards in (few, many)]
    np.testing.assert_array_equal(*draw)


def test_fresh_messages_fused_mapped_or_walked_give_one_update():
    task, timeline = tasks.digits(hidden=[16]), PROTOCOLS["synchronous"]()
    rule = optax.sgd(0.1)
    fused = training.replay(task, rule, timeline)
    renamed = workers.gradient()._replace(compute=lambda *a: workers.gradient().compute(*a))
    mapped = training.replay(task, rule, timeline, worker=renamed)
    untouched = optax.stateless(lambda updates, params: jax.tree.map(lambda u: u * 1.0, updates))
    walked = training.replay(task, rule, timeline, receive=untouched)
    # 30 updates of rate 0.1; each sums 192 rows in another order: relative rounding 30·√192·2⁻²⁴
    for other in (mapped, walked):
        for a, b in zip(jax.tree.leaves(fused.params), jax.tree.leaves(other.params), strict=True):
            np.testing.assert_allclose(a, b, atol=2e-5)


def test_a_value_that_is_not_finite_stops_the_run_and_names_update_and_parameter():
    timeline = timelines.fixed_delay(0, updates=2000)
    with pytest.raises(training.NumericalError, match=r"update \d+: .*parameters") as caught:
        training.replay(tasks.quadratic([1.0]), optax.sgd(3.0), timeline, evaluate_every=100)
    # |1 − h| = 2 doubles w at every update, and w² leaves float32, 2¹²⁸, at the 64th
    history = caught.value.history
    assert any(f"update {u}:" in str(caught.value) for u in (64, 65))
    assert len(history.loss) == 100


def test_a_diverged_member_leaves_the_others_alone():
    timeline = timelines.fixed_delay(0, updates=2000)
    many = training.replay_many(
        tasks.quadratic([1.0]),
        optax.sgd,
        timeline,
        seeds=[0],
        hyperparameters={"learning_rate": [3.0, 0.5]},
    )
    assert many[0].error
    assert many[1].error is None
    np.testing.assert_allclose(many[1].params, [0.0], atol=1e-30)


def test_skip_leaves_a_message_that_is_not_finite_out_of_the_mean(handmade):
    targets = np.array([[1.0], [3e38], [3.0]], np.float32)  # 4·3e38 overflows float32
    task = tasks.quadratic([4.0], start=0.0, targets=targets)
    shards = [np.array([i]) for i in range(3)]
    timeline = handmade([0, 1, 2, 1], [0, 0, 0, 1], [0, 0, 0, 1])
    history = training.replay(
        task, optax.sgd(0.25), timeline, partition=shards, batch_size=2, on_nonfinite="skip"
    )
    # the mean of the two finite messages moves w to 2; then the only message is not finite
    np.testing.assert_array_equal(history.params, [2.0])
    np.testing.assert_array_equal(history.skipped, [1, 1])


def test_skip_leaves_a_message_that_is_not_finite_out_of_its_row_of_a_table(handmade):
    """Two rounds of two workers; in the second one worker 0 sends nothing that is finite."""
    timeline = handmade(
        [0, 1, 1, 0, 1, 0],
        [0, 0, 1, 2, 2, 3],
        [0, 0, 1, 2, 2, 3],
        last=[1, 1, 1, 3, 3, 3],
        average="workers",
    )
    gradient = workers.gradient()

    def compute(value_and_grad, params, sent, batches, key):
        message, _, info = gradient.compute(value_and_grad, params, (), batches, key)
        spoilt = (batches["target"][0, 0, 0] == 1.0) & (sent == 1)
        return jnp.where(spoilt, jnp.inf, message), sent + 1, info

    spoiling = gradient._replace(init=lambda params: jnp.int32(0), compute=compute)
    history = training.replay(
        tasks.quadratic([1.0], start=0.0, targets=[[1.0], [2.0]]),
        optax.sgd(0.1),
        timeline,
        worker=spoiling,
        partition=[np.array([0]), np.array([1])],
        on_nonfinite="skip",
        batch_size=1,
        record=lambda params: {"w": params[0]},
    )
    w = np.concatenate([[0.0], history.records["w"]])
    # worker i's gradient at v is v − (i + 1); its row is the mean over what it sent in the round
    first = [w[0] - 1, w[0] - 2]
    second = [w[0] - 1, (w[0] - 2 + w[1] - 2) / 2]
    expected = [w[0] - 0.1 * np.mean(first), w[1] - 0.1 * np.mean(second)]
    expected += [w[2] - 0.1 * (w[2] - 2), w[3] - 0.1 * (w[2] - 2)]  # worker 1's row alone
    np.testing.assert_allclose(w[1:], expected, rtol=1e-6)
    np.testing.assert_array_equal(history.skipped, [0, 0, 1, 1])


def test_a_message_of_another_dtype_is_refused_with_both_named():
    gradient = workers.gradient()

    def compute(*arguments):
        message, state, info = gradient.compute(*arguments)
        return jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16), message), state, info

    with pytest.raises(ValueError, match=r"bfloat16\[3\].*float32\[3\]"):
        training.replay(
            tasks.quadratic(CURVATURE),
            optax.sgd(0.1),
            timelines.fixed_delay(1, updates=3),
            worker=gradient._replace(compute=compute),
        )


def test_a_run_stops_where_its_target_is_reached():
    timeline = timelines.fixed_delay(0, updates=200)
    options = {"evaluate_every": 10, "stop": {"metric": "loss", "at_most": 1e-3}}
    history = training.replay(tasks.quadratic([1.0]), optax.sgd(0.1), timeline, **options)
    # ½·0.81ᵗ ≤ 10⁻³ first holds at t = 30 among the multiples of ten
    assert len(history.loss) == 30
    assert history.time_to("loss", 1e-3) == timeline.apply_time[29]
    assert history.time_to("loss", 0.0) == np.inf
    np.testing.assert_allclose(history.params, [0.9**30], rtol=1e-5)


def declared(metrics, **directions):
    """The quadratic, with these metrics of its parameters and their directions."""
    task = tasks.quadratic([1.0])

    def loss(params, batch, key):
        return task.loss(params, batch, key)[0], metrics(params)

    return dataclasses.replace(task, loss=loss, directions=directions)


def test_the_time_to_a_value_goes_by_the_direction_that_the_task_declares():
    """w = 0.9ᵗ: it is first at most ½ at t = 7, and 1 − w at least ½ there too."""

    def metrics(params):
        return {"cross_entropy": params[0], "error": 1 - params[0], "norm": params[0]}

    task = declared(metrics, cross_entropy="down", error="up")
    timeline = timelines.fixed_delay(0, updates=20)
    history = training.replay(task, optax.sgd(0.1), timeline, evaluate_every=1)
    assert history.time_to("cross_entropy", 0.5) == timeline.apply_time[6]
    assert history.time_to("error", 0.5) == timeline.apply_time[6]
    assert history.time_to("cross_entropy", 0.0) == np.inf
    with pytest.raises(ValueError, match=r"metric 'norm' has no direction; allowed: loss, cross_"):
        history.time_to("norm", 0.5)
    with pytest.raises(ValueError, match=r"metric 'accuracy' is unknown; this run has cross_"):
        history.time_to("accuracy", 0.5)
    stop = {"metric": "norm", "at_most": 0.5}  # a bound says itself from where it is reached
    stopped = training.replay(task, optax.sgd(0.1), timeline, evaluate_every=1, stop=stop)
    assert len(stopped.loss) == 7


@pytest.mark.parametrize("members", ["threads", "vmap"])
def test_a_member_that_has_reached_its_goal_records_nothing_more(members):
    """The loss is (1 − η)²ᵘ/2: at η = 1/2 it is 1/32 at version 2; at 0.1, 0.81⁸ < 1/5 < 0.81⁷."""
    timeline = timelines.synchronous(timelines.Cluster(workers=1), updates=12)
    fast, slow = training.replay_many(
        tasks.quadratic(1.0, start=1.0),
        rules.sgd,
        timeline,
        seeds=[0],
        hyperparameters={"learning_rate": [0.5, 0.1]},
        evaluate_every=1,
        stop={"metric": "loss", "at_most": 0.1},
        members=members,
    )
    for history, last in ((fast, 2), (slow, 8)):
        assert history.evaluations["update"].tolist() == list(range(last + 1))
        assert len(history.loss) == last
    np.testing.assert_array_equal(fast.params, [0.25])


def test_nothing_is_known_of_where_a_run_failed():
    """From w = 1 a rate of 3 overshoots w⁴ until it overflows; "sign" would be 1 of NaN."""
    task = tasks.quadratic([1.0])

    def loss(params, batch, key):
        value = jnp.sum(params**4)
        return value, {"sign": jnp.where(params[0] == params[0], 0.0, 1.0)}

    task = dataclasses.replace(task, loss=loss, directions={"sign": "up"})
    timeline = timelines.fixed_delay(0, updates=40)
    for options in ({"evaluate_every": 5}, {}):
        (history,) = training.replay_many(
            task, lambda: optax.sgd(3.0), timeline, seeds=[0], **options
        )
        assert history.error is not None
        assert history.evaluations["update"].iloc[-1] == len(history.loss)
        assert history.evaluations[["loss", "sign"]].iloc[-1].isna().all()
        assert history.time_to("sign", 1.0) == np.inf


def test_reports_arrive_once_a_chunk_and_in_order():
    reports = []
    timeline = timelines.fixed_delay(1, updates=25)
    training.replay(
        tasks.quadratic([1.0]), optax.sgd(0.1), timeline, evaluate_every=10, callback=reports.append
    )
    assert [report.update for report in reports] == [0, 10, 20, 25]
    assert [row["update"] for report in reports for row in report.evaluations] == [0, 10, 20, 25]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_size": 0}, "batch_size: 0"),
        ({"seed": 2**32}, "seed: 4294967296"),
        ({"seed": -1}, "seed: -1"),
        ({"evaluate_every": 0}, "evaluate_every: 0"),
        ({"on_nonfinite": "ignore"}, 'allowed: "stop", "skip"'),
        ({"stop": {"metric": "loss"}}, "stop: "),
        ({"partition": [np.arange(1)] * 2}, "2 shards for 1 workers"),
        ({"partition": [np.arange(0)]}, "worker 0 has no row"),
        ({"partition": [np.array([7])]}, "row 7 does not exist"),
    ],
)
def test_arguments_out_of_range_are_refused_in_one_line(options, message):
    timeline = timelines.fixed_delay(0, updates=3)
    with pytest.raises(ValueError, match=".") as caught:
        training.replay(tasks.quadratic([1.0]), optax.sgd(0.1), timeline, **options)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)

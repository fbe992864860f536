"""Precision inside a replay: what 16 bits lose, and what keeps it."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from sgdlab import rules, tasks, timelines, training
from sgdlab.precision import (
    DynamicLossScale,
    NoOpLossScale,
    StaticLossScale,
    kahan,
    stochastic_rounding,
)
from sgdlab.training.inspecting import ChunkProgram
from sgdlab.training.program import FixedRule

TINY = 2.0**-26  # rounds to 0 in float16, whose smallest number is 2⁻²⁴


def fresh(updates):
    return timelines.fixed_delay(0, updates=updates)


def make_chunk(task, rule, timeline, **options):
    return ChunkProgram(task, FixedRule(rule), timeline, **options)


@pytest.fixture(scope="module")
def digits():
    return tasks.digits(hidden=[16])


@pytest.mark.parametrize(
    ("scale", "gradient"), [(NoOpLossScale(), 0.0), (StaticLossScale(1024.0), TINY)]
)
def test_a_gradient_of_two_to_the_minus_26_needs_a_loss_scale(scale, gradient):
    """One update with the learning rate 2²⁰ from w = 1 moves w by 2²⁰ times the gradient."""
    history = training.replay(
        tasks.quadratic(curvature=TINY),
        rules.sgd(2.0**20),
        fresh(1),
        precision="mixed_float16",
        loss_scale=scale,
    )
    assert history.params[0] == 1.0 - 2.0**20 * gradient


@pytest.mark.slow
def test_an_absurd_first_scale_recovers(digits):
    def train(**options):
        rule = rules.momentum(0.5, decay=0.9)
        return training.replay(digits, rule, fresh(300), evaluate_every=300, **options)

    scaled = train(precision="mixed_float16", loss_scale=DynamicLossScale(2.0**24))
    expected = train().evaluations["loss"].iloc[-1]
    assert scaled.skipped[0] == 1
    assert scaled.loss_scale.loss_scale == 2.0 ** (24 - scaled.skipped.sum())
    history = 2.0 ** (24 - np.cumsum(scaled.skipped))
    np.testing.assert_array_equal(scaled.measures["loss_scale"], history)
    assert abs(scaled.evaluations["loss"].iloc[-1] - expected) <= 0.1 * expected


@pytest.mark.parametrize("protocol", [timelines.synchronous, timelines.asynchronous])
def test_every_worker_has_a_loss_scale_of_its_own(protocol):
    cluster = timelines.Cluster(workers=3, compute=timelines.exponential(1.0))
    chunk = make_chunk(
        tasks.quadratic(curvature=1.0),
        rules.sgd(0.1),
        protocol(cluster, updates=4),
        precision="mixed_float16",
        loss_scale=DynamicLossScale(),
    )
    assert {leaf.shape for leaf in jax.tree.leaves(chunk.state.loss_scale)} == {(3,)}


def test_a_finite_fused_gradient_counts_as_a_finite_message_of_each_worker():
    """At w = 0 and S = 2¹¹ worker 1's own gradient, −60·S, is out of float16's range, and the mean
    with worker 0's, −(0.5 + 60)/2·S = −61,952, is not: nobody's scale falls."""
    history = training.replay(
        tasks.quadratic(curvature=1.0, start=0.0, targets=[[0.5], [60.0]]),
        rules.sgd(0.25),
        timelines.synchronous(timelines.Cluster(workers=2), updates=1),
        partition=[np.array([0]), np.array([1])],
        batch_size=1,
        precision="mixed_float16",
        loss_scale=DynamicLossScale(2.0**11),
    )
    np.testing.assert_array_equal(history.skipped, [0])
    np.testing.assert_array_equal(history.loss_scale.loss_scale, [2.0**11, 2.0**11])
    np.testing.assert_array_equal(history.loss_scale.counter, [1, 1])
    np.testing.assert_array_equal(history.params, [0.25 * (0.5 + 60.0) / 2])


def test_where_scales_differ_each_message_is_judged_at_its_own():
    """Worker 0's gradient, 60·S, fits from S = 2¹⁰ down; one gradient of both, at the scale that it
    has after one halving, would fit already: (60 + 0.5)/2·2¹¹ < 65504."""
    history = training.replay(
        tasks.quadratic(curvature=1.0, start=0.0, targets=[[60.0], [0.5]]),
        rules.sgd(1e-6),
        timelines.synchronous(timelines.Cluster(workers=2), updates=3),
        partition=[np.array([0]), np.array([1])],
        batch_size=1,
        precision="mixed_float16",
        loss_scale=DynamicLossScale(2.0**12),
    )
    np.testing.assert_array_equal(history.skipped, [1, 1, 0])
    np.testing.assert_array_equal(history.loss_scale.loss_scale, [2.0**10, 2.0**12])
    np.testing.assert_array_equal(history.loss_scale.counter, [1, 3])


def test_a_worker_that_overflows_lowers_its_own_scale_alone():
    """With targets 0.5 and 60 the scaled gradients are about 0.5·S and 60·S.

    The largest S = 2ᵏ with 60·S ≤ 65504 is 2¹⁰: worker 1 halves its 2¹⁵ five times. Worker 0 has
    2¹⁴ at most. The learning rate is too small to change any of that.
    """
    history = training.replay(
        tasks.quadratic(curvature=1.0, start=0.0, targets=[[0.5], [60.0]]),
        rules.sgd(1e-5),
        timelines.asynchronous(timelines.Cluster(workers=2), updates=40),
        partition=[np.array([0]), np.array([1])],
        batch_size=1,
        precision="mixed_float16",
        loss_scale=DynamicLossScale(),
    )
    np.testing.assert_array_equal(history.loss_scale.loss_scale, [2.0**15, 2.0**10])
    np.testing.assert_array_equal(history.loss_scale.counter, [20, 15])
    assert history.skipped.sum() == 5


@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 3])  # updates of one message, and of three fused ones
def test_without_a_finite_message_not_a_bit_changes(workers):
    """A static scale of 2²⁴ takes a gradient of 1 out of float16's range in every message."""
    cluster = timelines.Cluster(workers=workers)
    chunk = make_chunk(
        tasks.quadratic(curvature=[1.0, 2.0]),
        rules.adam(0.1),
        timelines.synchronous(cluster, updates=5),
        precision="mixed_float16",
        loss_scale=StaticLossScale(2.0**24),
        on_nonfinite="skip",
    )
    before = jax.device_get((chunk.state.params, chunk.state.rule))
    chunk.run()
    after = jax.device_get((chunk.state.params, chunk.state.rule))
    same = jax.tree.map(lambda a, b: a.tobytes() == b.tobytes(), before, after)
    assert all(jax.tree.leaves(same))


def test_a_non_finite_message_is_left_out_of_its_mean_and_counted(handmade):
    """Worker 1's target, 10⁶, is beyond float16: update 1 is left with the message of worker 0."""
    history = training.replay(
        tasks.quadratic(curvature=1.0, start=0.0, targets=[[0.5], [1e6]]),
        rules.sgd(0.25),
        handmade([0, 0, 1], [0, 0, 1], [0, 1, 1]),
        partition=[np.array([0]), np.array([1])],
        batch_size=1,
        precision="mixed_float16",
        on_nonfinite="skip",
    )
    # Both messages of worker 0 are 0 − 0.5, computed at version 0.
    np.testing.assert_array_equal(history.params, [0.25 * 0.5 + 0.25 * 0.5])
    np.testing.assert_array_equal(history.skipped, [0, 1])
    assert np.isfinite(history.loss).all()


def matrix_products(lowered):
    """The element types of the two operands of every matrix product in StableHLO."""
    lines = [line for line in lowered.as_text().splitlines() if "stablehlo.dot_general" in line]
    operands = [re.search(r": \(tensor<([^>]*)>, tensor<([^>]*)>\)", line) for line in lines]
    return [tuple(kind.split("x")[-1] for kind in found.groups()) for found in operands if found]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "policy", "kind"),
    [
        ("digits", "float32", "f32"),
        ("digits", "mixed_bfloat16", "bf16"),
        ("digits", "mixed_float16", "f16"),
        ("text", "mixed_bfloat16", "bf16"),
        ("text", "mixed_float16", "f16"),
    ],
)
def test_every_matrix_product_takes_inputs_of_the_compute_dtype(name, policy, kind, digits):
    """The products of the forward and backward pass and of the evaluation, before XLA's passes."""
    task = digits if name == "digits" else tasks.text(length=8, width=16, layers=1, heads=2)
    chunk = make_chunk(task, rules.sgd(0.1), fresh(2), batch_size=4, precision=policy)
    products = matrix_products(chunk.lowered)
    # digits: two layers forward, their two weights and one input backward, two in the evaluation.
    assert len(products) >= 7
    assert set(products) == {(kind, kind)}


@pytest.mark.slow
@pytest.mark.parametrize("wide", ["Linear_0", "head"])
def test_a_layer_of_its_own_policy_keeps_it_and_its_neighbour_stays_narrow(digits, wide):
    """The promotion of a narrow layer behind a wide one would show as a product of float32."""
    chunk = make_chunk(
        digits,
        rules.sgd(0.1),
        fresh(2),
        precision={"*": "mixed_bfloat16", f"{wide}/*": "float32"},
    )
    kinds = matrix_products(chunk.lowered)
    # The head has three products in a step, the first layer two; each has one in the evaluation.
    narrow = {"Linear_0": 4, "head": 3}[wide]
    assert sorted(kinds) == [("bf16", "bf16")] * narrow + [("f32", "f32")] * (7 - narrow)
    chunk.run()
    assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(chunk.state.params))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("policy", "scale"), [("bfloat16", StaticLossScale(8.0)), ("float16", DynamicLossScale(8.0))]
)
def test_parameters_of_16_bits_train_under_a_loss_scale(digits, policy, scale):
    history = training.replay(digits, rules.sgd(0.5), fresh(60), precision=policy, loss_scale=scale)
    assert {leaf.dtype for leaf in jax.tree.leaves(history.params)} == {jnp.dtype(policy)}
    assert history.evaluations["loss"].iloc[-1] < 0.7 * history.evaluations["loss"].iloc[0]
    assert history.skipped.sum() == 0


def test_a_mapped_learning_rate_leaves_the_rule_state_in_16_bits():
    """It enters as a float32 array, whose product with a bfloat16 gradient is float32."""
    chunk = ChunkProgram(
        tasks.quadratic(curvature=1.0),
        lambda learning_rate: rules.momentum(learning_rate),
        fresh(3),
        hyperparameters={"learning_rate": [0.25]},
        precision="bfloat16",
    )
    chunk.run()
    assert {leaf.dtype for leaf in jax.tree.leaves(chunk.state.rule)} == {jnp.dtype("bfloat16")}


@pytest.mark.slow
def test_rounding_rules_move_parameters_that_plain_bfloat16_cannot():
    """From w = 1 each update asks for −2⁻¹⁰·w, and bfloat16's spacing below 1 is 2⁻⁸: rounded away.

    In exact arithmetic w_T = (1 − 2⁻¹⁰)ᵀ, which is also the expectation under stochastic rounding.
    There a step has a variance of at most p(1 − p)·2⁻¹⁶ with p = 2⁻¹⁰/2⁻⁸, so the mean of d weights
    after T steps has a standard deviation of √(T·p(1 − p)/d)·2⁻⁸. Kahan's w is off by one rounding
    of the result and, through the gradient taken at a rounded w, by less than another: 2⁻⁸.
    """
    d, updates, rate = 2000, 300, 2.0**-10

    def train(wrap):
        history = training.replay(
            tasks.quadratic(curvature=1.0, start=[1.0] * d),
            wrap(optax.sgd(rate)),
            fresh(updates),
            precision="bfloat16",
        )
        assert history.params.dtype == jnp.bfloat16
        return np.asarray(history.params, np.float64)

    exact = (1 - rate) ** updates
    deviation = np.sqrt(updates * 0.25 * 0.75 / d) * 2.0**-8
    np.testing.assert_array_equal(train(lambda rule: rule), 1.0)
    assert abs(train(stochastic_rounding).mean() - exact) <= 5 * deviation
    assert np.abs(train(kahan) - exact).max() <= 2.0**-8

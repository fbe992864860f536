"""Loss scales: how they move, that they survive transformations, and that they agree with jmp."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from sgdlab.precision import (
    DynamicLossScale,
    NoOpLossScale,
    StaticLossScale,
    all_finite,
    make_loss_scale,
    parse_policy,
    select_tree,
    table,
)

YES, NO = jnp.array(True), jnp.array(False)
SCALES = {
    "none": NoOpLossScale(),
    "static": StaticLossScale(128.0),
    "dynamic": DynamicLossScale(256.0, period=2, min_loss_scale=64.0),
}


def numbers(scale):
    return [np.asarray(leaf).tolist() for leaf in jax.tree.leaves(scale)]


def test_defaults_are_those_of_the_table():
    scale = DynamicLossScale()
    assert numbers(scale) == [2.0**15, 0, 1.0]
    assert (scale.period, scale.factor) == (2000, 2)
    for name, row in table.LOSS_SCALES.items():
        required = {argument: 4.0 for argument, (_, default) in row.items() if default is ...}
        made = make_loss_scale(name, **required)
        for argument, (_, default) in row.items():
            assert getattr(made, argument) == (4.0 if default is ... else default)


def test_the_scale_doubles_after_a_period_of_finite_steps_and_halves_on_a_bad_one():
    scale, seen = DynamicLossScale(8.0, period=3), []
    for finite in [YES, YES, YES, YES, NO, YES, YES, YES, NO, NO]:
        scale = scale.adjust(finite)
        seen.append((float(scale.loss_scale), int(scale.counter)))
    assert seen == [
        (8, 1), (8, 2), (16, 0), (16, 1), (8, 0), (8, 1), (8, 2), (16, 0), (8, 0), (4, 0)
    ]  # fmt: skip


def test_the_scale_never_overflows_and_unscales_exactly_at_its_largest():
    scale = DynamicLossScale(2.0**126, period=1)
    for _ in range(4):
        scale = scale.adjust(YES)
    assert float(scale.loss_scale) == 2.0**127
    assert float(scale.unscale(jnp.float32(2.0**120))) == 2.0**-7


def test_the_minimum_survives_jit_scan_vmap_and_flattening():
    start = DynamicLossScale(256.0, min_loss_scale=64.0)
    down = jax.jit(lambda scale: scale.adjust(NO))
    scale = start
    for _ in range(5):
        scale = down(scale)
    assert numbers(scale) == [64.0, 0, 64.0]
    scanned, _ = jax.lax.scan(lambda scale, _: (scale.adjust(NO), None), start, length=5)
    assert numbers(scanned) == [64.0, 0, 64.0]
    stacked = jax.tree.map(lambda leaf: jnp.stack([jnp.asarray(leaf)] * 2), start)
    mapped = jax.vmap(lambda scale, finite: scale.adjust(finite))(stacked, jnp.array([True, False]))
    assert numbers(mapped) == [[256.0, 128.0], [1, 0], [64.0, 64.0]]
    leaves, structure = jax.tree.flatten(start)
    assert jax.tree.unflatten(structure, leaves) == start


@pytest.mark.parametrize("name", SCALES)
@jax.check_tracer_leaks(False)  # which traces again each time
def test_a_step_keeps_structure_and_types_so_that_nothing_is_traced_twice(name):
    traces = []

    @jax.jit
    def step(scale, finite):
        traces.append(finite)
        return scale.adjust(finite)

    scale = step(step(SCALES[name], YES), NO)
    assert len(traces) == 1
    assert jax.tree.structure(scale) == jax.tree.structure(SCALES[name])
    hash(jax.tree.structure(scale))


@pytest.mark.parametrize("name", SCALES)
def test_unscale_undoes_scale_and_only_floats_are_touched(name):
    scale = SCALES[name]
    tree = {"x": jnp.array([1.5, -3.0]), "n": jnp.arange(2), "key": jax.random.key(0), "none": None}
    scaled = scale.scale(tree)
    np.testing.assert_array_equal(scaled["x"], tree["x"] * scale.loss_scale)
    assert scaled["n"] is tree["n"]
    assert scaled["key"] is tree["key"]
    np.testing.assert_array_equal(scale.unscale(scaled)["x"], tree["x"])


@pytest.mark.parametrize("dtype", [jnp.float16, jnp.bfloat16])
def test_16_bit_numbers_are_scaled_and_unscaled_in_the_wider_dtype(dtype):
    scale = DynamicLossScale(2.0**15)
    assert scale.scale(dtype(2.0)).dtype == jnp.float32
    assert float(scale.scale(dtype(2.0))) == 2.0**16  # float16 would have overflowed
    assert float(scale.unscale(dtype(2.0**-14))) == 2.0**-29  # float16 would have flushed it


def test_a_float16_scale_keeps_its_dtype_under_strict_promotion():
    scale = DynamicLossScale(jnp.float16(4.0), period=1)
    assert scale.adjust(YES).loss_scale.dtype == jnp.float16
    assert [float(scale.adjust(finite).loss_scale) for finite in (YES, NO)] == [8.0, 2.0]
    assert scale.scale(jnp.float16(3.0)).dtype == jnp.float16


@pytest.mark.parametrize(
    ("make", "pattern"),
    [
        (lambda: DynamicLossScale(jnp.int32(4)), r"^DynamicLossScale: loss_scale is int32; "),
        (lambda: DynamicLossScale(min_loss_scale=np.int32(4)), r"min_loss_scale is int32; "),
        (lambda: StaticLossScale(0), r"^StaticLossScale: loss_scale is 0; .*positive$"),
        (lambda: DynamicLossScale().adjust(jnp.ones(2)), r"^adjust: .* float32\[2\]; .*bool"),
        (lambda: make_loss_scale("auto"), r"'auto' is unknown; .*none, static, dynamic$"),
    ],
)
def test_wrong_arguments_are_refused_in_one_line(make, pattern):
    with pytest.raises(ValueError, match=pattern) as caught:
        make()
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("bad", [np.inf, -np.inf, np.nan])
def test_all_finite_sees_one_bad_number_anywhere(bad):
    tree = {"a": jnp.ones(3), "n": jnp.arange(3), "key": jax.random.key(0), "none": None}
    assert bool(all_finite(tree))
    assert bool(all_finite({}))
    for dtype in (jnp.float32, jnp.float16, jnp.bfloat16):
        assert not bool(all_finite({**tree, "b": jnp.array([0.0, bad], dtype)}))


@jax.debug_key_reuse(False)  # a key is chosen, not drawn from
def test_select_tree_takes_one_tree_whole():
    one = {"x": jnp.float32(np.nan), "n": jnp.arange(2), "key": jax.random.key(1)}
    two = {"x": jnp.float32(2.0), "n": jnp.arange(2) + 5, "key": jax.random.key(2)}
    chosen = jax.jit(select_tree)(NO, one, two)
    assert float(chosen["x"]) == 2.0
    np.testing.assert_array_equal(chosen["n"], [5, 6])
    np.testing.assert_array_equal(
        jax.random.key_data(chosen["key"]), jax.random.key_data(two["key"])
    )
    assert np.isnan(jax.jit(select_tree)(YES, one, two)["x"])
    with pytest.raises(ValueError, match=r"^select_tree: pred is bool\[1\]; .*bool scalar$"):
        select_tree(jnp.array([True]), one, two)


def descend(loss_scale, policy, updates=300, rate=0.1):
    """Gradient descent on ½|w − c|² in a policy's compute dtype, leaving out non-finite steps."""
    goal = jnp.linspace(-1.0, 1.0, 8)
    rule = optax.sgd(rate)

    def step(carry, _):
        w, state, scale = carry

        def scaled(w):
            residual = (w - policy.cast_to_compute(goal)).astype(jnp.float32)
            return scale.scale(0.5 * jnp.sum(residual**2))

        gradient = jax.grad(scaled)(policy.cast_to_compute(w))
        gradient = policy.cast_to_param(scale.unscale(policy.cast_to_reduce(gradient)))
        finite = all_finite(gradient)
        moves, new_state = rule.update(gradient, state, w)
        new = optax.apply_updates(w, moves)
        w, state = select_tree(finite, (new, new_state), (w, state))
        return (w, state, scale.adjust(finite)), (finite, scale.loss_scale)

    start = jnp.full(8, 3.0)
    run = jax.jit(lambda: jax.lax.scan(step, (start, rule.init(start), loss_scale), length=updates))
    (w, _, _), (finite, scales) = run()
    return float(0.5 * jnp.sum((w - goal) ** 2)), np.asarray(finite), np.asarray(scales)


def test_an_absurd_scale_recovers_and_the_run_ends_like_float32():
    """S = 2²⁴: the first gradients (up to 4) overflow until S·4 < 65504, that is S ≤ 2¹³."""
    loss, finite, scales = descend(DynamicLossScale(2.0**24), parse_policy("mixed_float16"), 15)
    reference, _, _ = descend(NoOpLossScale(), parse_policy("float32"), 15 - (24 - 13))
    assert finite.tolist() == [False] * 11 + [True] * 4
    assert scales.tolist() == [2.0**s for s in range(24, 13, -1)] + [2.0**13] * 4
    # float16 rounds each residual to 2⁻¹¹ of a number below 4: the losses agree to about 1e-3.
    assert loss == pytest.approx(reference, rel=1e-2)


def test_a_non_finite_step_leaves_everything_but_the_scale_as_it_was():
    _, finite, scales = descend(StaticLossScale(2.0**24), parse_policy("mixed_float16"), 5)
    assert not finite.any()
    assert scales.tolist() == [2.0**24] * 5


@pytest.mark.parametrize(("period", "factor"), [(1, 4), (3, 2)])
def test_dynamic_scale_agrees_with_jmp(period, factor):
    jmp = pytest.importorskip("jmp")
    ours = DynamicLossScale(2.0**10, period=period, factor=factor, min_loss_scale=0.25)
    theirs = jmp.DynamicLossScale(
        jnp.float32(2.0**10), jnp.int32(0), period, factor, jnp.float32(0.25)
    )
    pattern = np.random.default_rng(0).random(30) < 0.6
    tree = {"x": jnp.array([1.0, -2.5]), "half": jnp.array([3.0], jnp.float16)}
    with jax.numpy_dtype_promotion("standard"):
        for finite in pattern:
            assert ours.loss_scale == theirs.loss_scale
            assert ours.counter == theirs.counter
            for method in ("scale", "unscale"):
                jax.tree.map(
                    np.testing.assert_array_equal,
                    getattr(ours, method)(tree),
                    getattr(theirs, method)(tree),
                )
            ours, theirs = ours.adjust(jnp.array(finite)), theirs.adjust(jnp.array(finite))


def test_where_jmp_is_wrong_we_are_not():
    jmp = pytest.importorskip("jmp")
    arguments = jnp.float32(256.0), jnp.int32(0), 2000, 2, jnp.float32(64.0)
    identity = jax.jit(lambda scale: scale)
    assert float(identity(jmp.DynamicLossScale(*arguments)).min_loss_scale) == 1.0
    assert float(identity(DynamicLossScale(*arguments)).min_loss_scale) == 64.0
    half = jnp.float16(4.0)
    with pytest.raises(jax.dtypes.TypePromotionError):
        jmp.DynamicLossScale(half).adjust(NO)
    assert float(DynamicLossScale(half).adjust(NO).loss_scale) == 2.0


@pytest.mark.parametrize(
    "text",
    ["f32", "full", "half", "bf16", "float16", "c=f16", "p=f16,c=bf16", "p=bf16", "c=bf16,o=f32"],
)
def test_policies_agree_with_jmp(text):
    jmp = pytest.importorskip("jmp")
    ours, theirs = parse_policy(text), jmp.get_policy(text)
    tree = {"x": jnp.array([0.1, 7e4]), "n": jnp.arange(3), "b": jnp.array([True])}
    for cast in ("cast_to_param", "cast_to_compute", "cast_to_output"):
        left, right = getattr(ours, cast)(tree), getattr(theirs, cast)(tree)
        for a, b in zip(jax.tree.leaves(left), jax.tree.leaves(right), strict=True):
            assert a.dtype == b.dtype
            np.testing.assert_array_equal(a, b)
    assert parse_policy(str(theirs) + ",r=f32").compute_dtype == theirs.compute_dtype

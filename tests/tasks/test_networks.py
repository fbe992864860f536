"""Convolution by patches against XLA's own; the split and the networks of the image tasks."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from sgdlab.tasks import CNN, MLP, Convolution, classifier, digits, max_pool, text
from sgdlab.tasks.splits import stratified_split


def whole_numbers(rng, *shape):
    return jnp.asarray(rng.integers(-4, 5, shape), jnp.float32)


@pytest.mark.parametrize(("size", "channels"), [(1, 3), (2, 3), (3, 1), (5, 3)])
def test_patches_are_lax_conv_in_value_and_gradient(size, channels):
    rng = np.random.default_rng(size)
    x = whole_numbers(rng, 2, 6, 5, channels)
    weights = whole_numbers(rng, 2, 6, 5, 4)
    params = {"kernel": whole_numbers(rng, size, size, channels, 4), "bias": whole_numbers(rng, 4)}

    def run(implementation):
        layer = Convolution(4, size, implementation)

        @jax.jit
        def value_and_pullback(params, x):
            y, pullback = jax.vjp(lambda p, x: layer.apply({"params": p}, x), params, x)
            return y, pullback(weights)

        return value_and_pullback(params, x)

    # Sums of small whole numbers are exact in float32, whatever their order.
    jax.tree.map(np.testing.assert_array_equal, run("patches"), run("lax"))


def test_patches_lower_to_no_convolution():
    layer = Convolution(4, 3, "patches")
    x = jnp.ones((2, 8, 8, 3))
    params = layer.init(jax.random.key(0), x)
    lowered = jax.jit(jax.grad(lambda p: jnp.sum(layer.apply(p, x)))).lower(params).as_text()
    assert "stablehlo.convolution" not in lowered
    assert "stablehlo.dot_general" in lowered


@pytest.mark.parametrize(("height", "width"), [(4, 6), (5, 7)])
def test_max_pool_is_the_maximum_of_each_block(height, width):
    x = np.random.default_rng(0).permutation(2 * height * width * 3).astype(np.float32)
    x = x.reshape(2, height, width, 3)
    pooled = max_pool(jnp.asarray(x))
    assert pooled.shape == (2, height // 2, width // 2, 3)
    for i in range(height // 2):
        for j in range(width // 2):
            block = x[:, 2 * i : 2 * i + 2, 2 * j : 2 * j + 2].max((1, 2))
            np.testing.assert_array_equal(pooled[:, i, j], block)


def test_mlp_is_its_formula():
    params = {
        "Linear_0": {"kernel": jnp.array([[1.0, -1.0], [2.0, 0.0]]), "bias": jnp.array([0.0, 1.0])},
        "head": {"kernel": jnp.array([[1.0], [3.0]]), "bias": jnp.array([-1.0])},
    }
    y = MLP([2], 1).apply({"params": params}, jnp.array([[1.0, 1.0], [-1.0, -1.0]]))
    # relu([3, 0])·[1, 3] − 1 and relu([−3, 2])·[1, 3] − 1
    np.testing.assert_array_equal(y, [[2.0], [5.0]])


def dot_operands(lowered):
    """The operand types of all matrix products in a StableHLO text."""
    return re.findall(r"stablehlo\.dot_general.* : \(tensor<(\S+)>, tensor<(\S+)>\)", lowered)


@pytest.mark.parametrize(
    "build",
    [
        lambda path: digits(hidden=[16]),
        lambda path: digits("cnn", hidden=[16], channels=[4]),
        lambda path: text(path, length=8, width=16, layers=2, heads=2),
    ],
)
def test_bfloat16_parameters_mean_bfloat16_products_and_float32_softmax(build, tmp_path):
    (tmp_path / "text").write_bytes(bytes(range(256)) * 4)
    task = build(tmp_path / "text")
    params = jax.eval_shape(task.init, jax.random.key(0))
    params = jax.tree.map(lambda w: jax.ShapeDtypeStruct(w.shape, jnp.bfloat16), params)
    batch = {name: array[:4] for name, array in task.train.items()}
    lowered = jax.jit(lambda p: task.loss(p, batch, None)[0]).lower(params).as_text()
    operands = dot_operands(lowered)
    assert len(operands) >= 2
    assert all(each.endswith("bf16") for pair in operands for each in pair)
    exponentials = re.findall(r"stablehlo\.exponential .*tensor<(\S+)>", lowered)
    assert exponentials
    assert all(each.endswith("f32") and not each.endswith("bf16") for each in exponentials)


@given(
    sizes=st.lists(st.integers(1, 40), min_size=1, max_size=5),
    fraction=st.floats(0.05, 0.95),
    seed=st.integers(0, 2**32 - 1),
)
@settings(deadline=None, max_examples=60)
def test_the_split_is_stratified_within_one_row_of_each_class(sizes, fraction, seed):
    labels = np.random.default_rng(seed).permutation(np.repeat(np.arange(len(sizes)), sizes))
    if not 0 < int(fraction * len(labels)) < len(labels):
        with pytest.raises(ValueError, match="test_fraction"):
            stratified_split(labels, fraction, seed)
        return
    train, test = stratified_split(labels, fraction, seed)
    assert sorted([*train, *test]) == list(range(len(labels)))
    held = np.bincount(labels[test], minlength=len(sizes))
    assert np.all(held < sizes)  # each class keeps a training row, given back where it had none
    given_back = int(fraction * len(labels)) - len(test)
    assert 0 <= given_back <= np.sum(held == np.array(sizes) - 1)
    assert np.all(np.abs(held - fraction * np.array(sizes)) <= 1)


def test_the_split_is_a_function_of_its_seed():
    first, same, other = (digits(split_seed=seed).test["input"] for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, same)
    assert not np.array_equal(first, other)


def test_a_users_network_makes_a_task():
    rng = np.random.default_rng(0)
    data = {"input": rng.normal(size=(6, 4)).astype(np.float32), "label": np.arange(6) % 3}
    task = classifier(MLP([5], 3), data, data, name="mine")
    loss, metrics = jax.jit(task.loss)(task.init(jax.random.key(0)), data, None)
    assert task.name == "mine"
    assert jnp.isfinite(loss)
    assert 0 <= metrics["accuracy"] <= 1


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ({"model": "resnet"}, "model is 'resnet'; allowed: 'mlp' | 'cnn'"),
        ({"hidden": [0]}, r"hidden is \[0\]"),
        ({"model": "cnn", "channels": [2] * 4}, "4 poolings for images of 8×8; at most 3 fit"),
        ({"test_fraction": 1.5}, "test_fraction is 1.5; allowed: a number > 0 and < 1"),
    ],
)
def test_wrong_arguments_are_told_in_one_line(arguments, told):
    with pytest.raises(ValueError, match=told) as caught:
        digits(**arguments)
    assert "\n" not in str(caught.value)


def test_as_many_poolings_as_are_allowed_do_run():
    x = jax.ShapeDtypeStruct((1, 8, 8, 1), jnp.float32)
    network = CNN([2, 2, 2], [], 3)
    logits, _ = jax.eval_shape(network.init_with_output, jax.random.key(0), x)
    assert logits.shape == (1, 3)

"""Flax modules become losses that train with their dropout on, or are refused in one line."""

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from sgdlab.rules import sgd
from sgdlab.tasks import Task, classifier, quadratic
from sgdlab.timelines import fixed_delay
from sgdlab.training import replay

RNG = np.random.default_rng(0)
ROWS = {
    "input": RNG.normal(size=(64, 5)).astype(np.float32),
    "label": RNG.integers(0, 3, 64).astype(np.int32),
}
KEY = jax.random.key(3)


class ByTrain(nn.Module):
    @nn.compact
    def __call__(self, x, train=False):
        return nn.Dense(3)(nn.Dropout(0.5, deterministic=not train)(nn.Dense(16)(x)))


class ByDeterministic(nn.Module):
    @nn.compact
    def __call__(self, x, deterministic):
        return nn.Dense(3)(nn.Dropout(0.5)(nn.Dense(16)(x), deterministic=deterministic))


class ByAttribute(nn.Module):
    training: bool = False

    @nn.compact
    def __call__(self, x):
        return nn.Dense(3)(nn.Dropout(0.5, deterministic=not self.training)(nn.Dense(16)(x)))


class OwnStream(nn.Module):
    @nn.compact
    def __call__(self, x, train=False):
        noise = jax.random.normal(self.make_rng("noise"), x.shape) if train else 0.0
        return nn.Dense(3)(x + noise)


class Plain(nn.Module):
    @nn.compact
    def __call__(self, x):
        return nn.Dense(3)(nn.tanh(nn.Dense(16)(x)))


class NnxDropout(nnx.Module):
    def __init__(self, rngs, width=16):
        self.layers = nnx.List([nnx.Linear(5, width, rngs=rngs), nnx.Linear(width, 3, rngs=rngs)])
        self.drop = nnx.Dropout(0.5, rngs=rngs)

    def __call__(self, x):
        return self.layers[1](self.drop(self.layers[0](x)))


class NnxByArgument(nnx.Module):
    def __init__(self, rngs):
        self.first, self.second = nnx.Linear(5, 16, rngs=rngs), nnx.Linear(16, 3, rngs=rngs)
        self.drop = nnx.Dropout(0.5)

    def __call__(self, x, deterministic, rngs=None):
        return self.second(self.drop(self.first(x), deterministic=deterministic, rngs=rngs))


DRAWING = {
    "train=False": ByTrain,
    "deterministic": ByDeterministic,
    "an attribute": ByAttribute,
    "a stream of its own name": OwnStream,
    "NNX": lambda: NnxDropout(nnx.Rngs(0)),
    "NNX by an argument": lambda: NnxByArgument(nnx.Rngs(0)),
    "a function to NNX": lambda: NnxDropout,
}


@pytest.mark.parametrize("name", DRAWING)
def test_dropout_is_on_in_training_and_off_in_evaluation(name):
    task = classifier(DRAWING[name](), ROWS, ROWS)
    params, loss = task.init(KEY), jax.jit(lambda params, key: task.loss(params, ROWS, key)[0])
    assert task.needs_key
    drawn = [float(loss(params, jax.random.key(seed))) for seed in (0, 0, 1)]
    evaluated = [float(loss(params, None)) for _ in range(2)]
    assert drawn[0] == drawn[1]
    assert evaluated[0] == evaluated[1]
    assert len({*drawn, *evaluated}) == 3


def test_an_nnx_module_is_the_linen_module_of_the_same_parameters():
    params = {"a": {"kernel": jnp.ones((5, 3)) * 0.1, "bias": jnp.arange(3.0)}}
    linen = nn.Dense(3)
    module = nnx.Linear(5, 3, rngs=nnx.Rngs(0))
    task = classifier(module, ROWS, ROWS)
    # Every seed starts at the module's own parameters.
    for seed in (0, 1):
        np.testing.assert_array_equal(task.init(jax.random.key(seed))["kernel"], module.kernel[...])
    mine, metrics = task.loss(params["a"], ROWS, None)
    logits = linen.apply({"params": params["a"]}, ROWS["input"])
    theirs = optax.softmax_cross_entropy_with_integer_labels(logits, ROWS["label"]).mean()
    np.testing.assert_allclose(mine, theirs, rtol=1e-6)
    assert metrics["accuracy"] == np.mean(np.argmax(logits, 1) == ROWS["label"])


def test_a_function_to_an_nnx_module_draws_anew_for_each_seed():
    task = classifier(NnxDropout, ROWS, ROWS)
    first, same, other = (task.init(jax.random.key(seed)) for seed in (0, 0, 1))
    kernels = [tree["layers"]["0"]["kernel"] for tree in (first, same, other)]
    np.testing.assert_array_equal(kernels[0], kernels[1])
    assert not np.allclose(kernels[0], kernels[2])


def test_an_nnx_module_of_the_caller_stays_as_it_was():
    module = NnxDropout(nnx.Rngs(0))
    before = jax.tree.map(np.asarray, nnx.to_pure_dict(nnx.state(module, nnx.Param)))
    task = classifier(module, ROWS, ROWS)
    replay(task, sgd(0.1), fixed_delay(0, updates=3))
    after = nnx.to_pure_dict(nnx.state(module, nnx.Param))
    jax.tree.map(np.testing.assert_array_equal, before, after)
    assert not module.drop.deterministic


def test_a_network_without_dropout_needs_no_key():
    assert not classifier(Plain(), ROWS, ROWS).needs_key
    assert not classifier(nnx.Linear(5, 3, rngs=nnx.Rngs(0)), ROWS, ROWS).needs_key


class BatchNormed(nn.Module):
    @nn.compact
    def __call__(self, x, train=False):
        return nn.Dense(3)(nn.BatchNorm(use_running_average=not train)(x))


class NnxBatchNormed(nnx.Module):
    def __init__(self, rngs):
        self.norm, self.out = nnx.BatchNorm(5, rngs=rngs), nnx.Linear(5, 3, rngs=rngs)

    def __call__(self, x):
        return self.out(self.norm(x))


class AlwaysOff(nn.Module):
    @nn.compact
    def __call__(self, x, dropping=False):
        return nn.Dense(3)(nn.Dropout(0.5, deterministic=not dropping)(x))


class AlwaysOn(nn.Module):
    @nn.compact
    def __call__(self, x):
        return nn.Dense(3)(nn.Dropout(0.5, deterministic=False)(x))


class NnxAlwaysOn(nnx.Module):
    def __init__(self, rngs):
        self.out, self.drop = nnx.Linear(5, 3, rngs=rngs), nnx.Dropout(0.5, rngs=rngs)

    def __call__(self, x):
        return self.out(self.drop(x, deterministic=False))


class Counting(nn.Module):
    @nn.compact
    def __call__(self, x):
        count = self.variable("counts", "calls", lambda: jnp.zeros(()))
        return nn.Dense(3)(x) + count.value


@pytest.mark.parametrize(
    ("network", "told"),
    [
        (BatchNormed(), "keeps a state in 'batch_stats'"),
        (lambda rngs: NnxBatchNormed(rngs), "keeps a state in 'BatchStat'"),
        (Counting(), "keeps a state in 'counts'"),
        (AlwaysOff(), "dropout Dropout_0 stays off in training"),
        (AlwaysOn(), "draws random numbers in evaluation"),
        (lambda rngs: NnxAlwaysOn(rngs), "draws random numbers in evaluation"),
        (lambda rngs: "no module", "network makes str"),
        ("no module", "network is str"),
    ],
)
def test_what_cannot_be_trained_is_refused_in_one_line(network, told):
    with pytest.raises(ValueError, match=told) as caught:
        classifier(network, ROWS, ROWS)
    assert "\n" not in str(caught.value)
    assert str(caught.value).startswith("classifier: network" if "is str" in told else "classifier")


def noisy(params, batch, key):
    """The quadratic's loss, and σ·ξ·w with σ = 1 where there is a key."""
    value = jnp.sum(params**2) / 2
    if key is not None:
        value += jnp.sum(jax.random.normal(key, params.shape) * params)
    return value, {}


def test_a_loss_put_in_place_of_another_gets_its_key():
    """w₁ = w₀ − η(w₀ + ξ): without a key every seed would end at w₀(1 − η)."""
    plain = quadratic(1.0)
    assert not plain.needs_key
    task = dataclasses.replace(plain, loss=noisy)
    assert task.needs_key
    assert not dataclasses.replace(task, loss=plain.loss).needs_key
    ends = [
        float(replay(task, sgd(0.1), fixed_delay(0, updates=1), seed=seed).params[0])
        for seed in range(3)
    ]
    assert len(set(ends)) == 3
    assert all(end != pytest.approx(0.9) for end in ends)


def test_a_key_that_is_taken_and_not_used_is_not_needed():
    @jax.jit
    def loss(params, batch, key):
        del key
        return jnp.sum(params**2), {}

    rows = {"x": np.zeros((4, 0), np.float32)}
    assert not Task("plain", lambda key: jnp.ones(1), loss, rows, rows).needs_key

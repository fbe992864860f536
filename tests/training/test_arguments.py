"""What a NumPy user hands to a replay is taken for what it is, or refused by its name."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from sgdlab import precision, rules, tasks, timelines, training, workers
from sgdlab.training.batches import make_shards

replay: Any = training.replay  # what a type checker would tell, before the call is made
TIMELINE = timelines.fixed_delay(0, updates=3)
BOWL = tasks.quadratic([1.0, 0.5], noise=0.1)


def many(task=BOWL, make_rule=rules.sgd, timeline=TIMELINE, **options):
    given = {"seeds": [0], "hyperparameters": {"learning_rate": [0.1]}, **options}
    return training.replay_many(task, make_rule, timeline, **given)


@pytest.mark.parametrize(
    "seeds",
    [np.arange(2), np.arange(2, dtype=np.uint8), range(2), (0, 1), [np.int64(0), np.array(1)],
     jnp.arange(2)],
)  # fmt: skip
def test_seeds_in_any_sequence_of_whole_numbers_are_those_seeds(seeds):
    expected = many(seeds=[0, 1])
    made = many(seeds=seeds)
    assert [history.member["seed"] for history in made] == [0, 1]
    for one, other in zip(made, expected, strict=True):
        np.testing.assert_array_equal(one.params, other.params)


@pytest.mark.parametrize(
    "rates", [np.array([0.1, 0.2]), (0.1, 0.2), [np.float64(0.1), np.array(0.2)], {0.1: 0, 0.2: 0}]
)
def test_rates_in_any_sequence_of_numbers_are_those_rates(rates):
    rates = rates if not isinstance(rates, dict) else rates.keys()
    made = many(hyperparameters={"learning_rate": rates})
    for one, other in zip(made, many(hyperparameters={"learning_rate": [0.1, 0.2]}), strict=True):
        np.testing.assert_array_equal(one.params, other.params)


def test_a_mask_selects_the_rows_where_it_is_true():
    mask = np.array([True, False, True, False, False])
    for partition in ([mask, ~mask], np.stack([mask, ~mask]), [mask.tolist(), [1, 3, 4]]):
        shards = make_shards(partition, 5, 2)
        np.testing.assert_array_equal(shards.rows, [0, 2, 1, 3, 4])
        np.testing.assert_array_equal(shards.size, [2, 3])


def test_rows_of_a_matrix_are_the_workers_rows():
    shards = make_shards(np.arange(6).reshape(3, 2), 6, 3)
    np.testing.assert_array_equal(shards.rows, range(6))
    np.testing.assert_array_equal(shards.size, [2, 2, 2])


REFUSED = {
    "a mask of another length": ({"partition": [[True, False, True]]}, "worker 0 has bool[3]"),
    "rows as floats": ({"partition": [[0.9, 1.2]]}, "worker 0 has float64[2]"),
    "rows as a column": ({"partition": [np.zeros((2, 1), int)]}, "worker 0 has int64[2, 1]"),
    "text as a partition": ({"partition": "iid"}, "partition: str given"),
    "a way of dealing": ({"partition": tasks.dirichlet(0.5)}, " given; allowed: one array of row"),
    "no list of seeds": ({"seeds": 2}, "seeds: 2 given"),
    "no seed": ({"seeds": []}, "seeds: none"),
    "an empty array": ({"seeds": np.arange(0)}, "seeds: none"),
    "a seed between two": ({"seeds": [0.5, 1.9]}, "seed: 0.5 given"),
    "a seed that is a flag": ({"seeds": [True]}, "seed: True given"),
    "seeds in two dimensions": ({"seeds": np.eye(2, dtype=int)}, "seed: [1, 0] given"),
    "a seed that is too large": ({"seeds": np.array([2**32])}, "seed: 4294967296"),
    "seeds by name": ({"seeds": "01"}, "seeds: '01' given"),
    "a bare rate": ({"hyperparameters": {"learning_rate": 0.1}}, "learning_rate: 0.1 given"),
    "no rate": ({"hyperparameters": {"learning_rate": []}}, "learning_rate has no value"),
    "a rate in words": ({"hyperparameters": {"learning_rate": ["0.1"]}}, "'0.1' given"),
    "rates without a name": ({"hyperparameters": [0.1]}, "hyperparameters: [0.1] given"),
    "a rate that is none": ({"hyperparameters": {"learning_rate": [np.nan]}}, "nan given"),
    "a rate above float32": ({"hyperparameters": {"learning_rate": [1e39]}}, "1e+39 given"),
    "rates as a matrix": ({"hyperparameters": {"learning_rate": np.eye(2)}}, "[1.0, 0.0] given"),
    "another's name": ({"hyperparameters": {"decay": [0.1]}}, "allowed: what make_rule takes"),
    "a missing rate": ({"hyperparameters": None}, "missing a required argument: 'learning_rate'"),
    "a name of ours": ({"hyperparameters": {"seed": [1.0]}}, "'seed' is no name"),
    "a rule": ({"make_rule": rules.sgd(0.1)}, "make_rule: a rule is given"),
    "a number as a rule": ({"make_rule": 0.1}, "make_rule: 0.1 is given"),
    "a cluster": ({"timeline": timelines.Cluster()}, "timeline: a Cluster is given"),
    "a protocol": ({"timeline": timelines.synchronous}, "timeline: "),
    "no timeline": ({"timeline": []}, "timeline: none"),
    "other things": ({"timeline": [TIMELINE, 3]}, "timeline: 3 given"),
    "a task's function": ({"task": tasks.digits}, "task: the function digits given"),
    "a worker's function": ({"worker": workers.gradient}, "worker: the function gradient given"),
    "a list of transforms": ({"receive": [rules.drop_stale(bound=2)]}, "receive: "),
    "half a minibatch": ({"batch_size": 2.5}, "batch_size: 2.5 given"),
    "minibatches": ({"batch_size": np.array([2, 3])}, "batch_size: array([2, 3]) given"),
    "text": ({"evaluate_every": "10"}, "evaluate_every: '10' given"),
    "a number as a scale": ({"loss_scale": 1024.0}, "loss_scale: 1024.0 given"),
    "devices as a mesh": ({"mesh": 2}, "mesh: 2 given"),
    "a bare goal": ({"stop": 0.5}, "stop: 0.5"),
    "a goal in words": ({"stop": {"metric": "loss", "at_most": "1"}}, "stop: at_most is '1'"),
    "an unknown measure": ({"measures": "angle"}, "measures: 'angle'"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_means_something_else_is_refused_in_one_line(case):
    options, line = REFUSED[case]
    with pytest.raises(ValueError, match="allowed|needs one|none|seeds lie") as caught:
        many(**options)
    assert line in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_factory_is_no_rule():
    for rule in (rules.sgd, 0.1):
        with pytest.raises(ValueError, match=r"^rule: .*; allowed: an optax transform"):
            replay(BOWL, rule, TIMELINE)


def test_numpy_numbers_are_numbers_everywhere():
    options = {"batch_size": 8, "seed": 3, "evaluate_every": 2, "width": 1, "microbatches": 2}
    expected = replay(BOWL, rules.sgd(0.1), TIMELINE, **options)
    for number in (np.int64, np.uint16, np.array, jnp.int32):
        given = {name: number(value) for name, value in options.items()}
        made = replay(BOWL, rules.sgd(0.1), TIMELINE, **given)
        np.testing.assert_array_equal(made.params, expected.params)
    stop = {"metric": "loss", "at_most": np.float32(1e9)}
    assert len(replay(BOWL, rules.sgd(0.1), TIMELINE, stop=stop).loss) == 0


def loss_of(task):
    return lambda params, batch, key: task.loss(params, batch, key)[0]


@pytest.mark.parametrize(
    ("loss", "line"),
    [
        (loss_of(BOWL), "task: its loss gives an array of float32[]"),
        (lambda params, batch: (params[0], {}), "task: its loss takes (params, batch)"),
        (lambda params, batch, key: (params, {}), "task: its loss is an array of float32[2]"),
        (lambda params, batch, key: (params[0], params), "task: its loss gives tuple of"),
        (lambda params, batch, key: (params[0], {"all": params}), "task: its metric all is"),
        (lambda params, batch, key: (jnp.int32(1), {}), "task: its loss is an array of int32[]"),
    ],
)  # fmt: skip
def test_a_loss_that_breaks_its_contract_is_told_what_it_is(loss, line):
    task = dataclasses.replace(BOWL, loss=loss)
    with pytest.raises(ValueError, match=r"allowed: ") as caught:
        replay(task, rules.sgd(0.1), TIMELINE)
    assert str(caught.value).startswith(line)


def test_a_loss_that_is_never_finite_is_not_blamed_on_the_rate():
    task = dataclasses.replace(BOWL, loss=lambda p, batch, key: (jnp.log(-1 - p[0] ** 2), {}))
    with pytest.raises(training.NumericalError, match="before any update; look at the data"):
        replay(task, rules.sgd(0.1), TIMELINE)
    with pytest.raises(training.NumericalError, match="try a smaller learning rate"):
        replay(BOWL, optax.sgd(1e30), timelines.fixed_delay(0, updates=50))


def test_what_is_a_part_is_taken():
    scale = precision.StaticLossScale(jnp.float32(8))
    made = many(loss_scale=scale, worker=workers.gradient(), receive=optax.identity())
    assert len(made) == 1
    assert jax.tree.leaves(made[0].params)[0].shape == (2,)

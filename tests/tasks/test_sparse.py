"""Sparse rows give what the dense table gives, in the memory of their entries."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.sparse
from sklearn.datasets import dump_svmlight_file

from sgdlab.rules import sgd
from sgdlab.tasks import SparseRows, Task, iid, logistic, partition, take_rows
from sgdlab.tasks.rows import row_bytes
from sgdlab.timelines import Cluster, asynchronous, synchronous
from sgdlab.training import replay, replay_many

WIDTH, COUNT = 47_236, 60


def make_table(classes=2, seed=0):
    """Rows of 0 to 12 entries that are told apart by their first column, and their labels."""
    rng = np.random.default_rng(seed)
    table = scipy.sparse.lil_array((COUNT, WIDTH), dtype=np.float32)
    labels = np.arange(COUNT) % classes
    for row, label in enumerate(labels[:-1]):
        table[row, label] = 1 + label
        columns = rng.choice(WIDTH - 50, row % 12, replace=False) + 50
        table[row, columns] = rng.normal(size=len(columns)).astype(np.float32)
    table[0, WIDTH - 1] = 1.5
    return table.tocsr(), labels


def write(path, classes=2, **options):
    table, labels = make_table(classes)
    dump_svmlight_file(table, labels, str(path), zero_based=False, **options)
    return path


@pytest.fixture(scope="module", params=[2, 3])
def task(request, tmp_path_factory):
    return logistic(write(tmp_path_factory.mktemp("a") / "wide.svm", request.param), l2=0.01)


def dense(part):
    """The table that sparse rows stand for."""
    rows = part["input"]
    arrays = (np.asarray(rows.value), np.asarray(rows.index), np.asarray(rows.start))
    return scipy.sparse.csr_array(arrays, shape=rows.shape).toarray()


def test_rows_are_those_of_the_file(tmp_path):
    table, labels = make_table()
    path = write(tmp_path / "a.svm")
    task = logistic(path, test=path)
    np.testing.assert_array_equal(dense(task.train), table.toarray())
    np.testing.assert_array_equal(dense(task.test), table.toarray())
    np.testing.assert_array_equal(task.train["label"], labels)
    assert task.metadata["features"] == WIDTH
    assert task.metadata["entries"] == table.nnz


def test_taken_rows_are_padded_with_zeros(task):
    rows, numbers = task.train["input"], np.array([[3, 0], [3, 40]])
    taken = rows[numbers]
    assert taken["index"].shape == (2, 2, rows.widest)
    back = np.zeros((2, 2, WIDTH), np.float32)
    for place in np.ndindex(2, 2):
        np.add.at(back[place], np.asarray(taken["index"][place]), np.asarray(taken["value"][place]))
    np.testing.assert_array_equal(back, dense(task.train)[numbers])


def reference(weight, bias, x, label, l2):
    """Loss and gradient of the multinomial or binary logistic regression, in float64."""
    x, weight = x.astype(np.float64), weight.astype(np.float64)
    z = x @ weight + bias
    if z.shape[1] == 1:
        p = 1 / (1 + np.exp(-z[:, 0]))
        loss = -np.mean(np.log(np.where(label == 1, p, 1 - p)))
        error = (p - label)[:, None]
    else:
        p = np.exp(z) / np.exp(z).sum(1, keepdims=True)
        loss = -np.mean(np.log(p[np.arange(len(x)), label]))
        error = p - np.eye(z.shape[1])[label]
    loss += l2 / 2 * np.sum(weight**2)
    return loss, x.T @ error / len(x) + l2 * weight, error.mean(0)


def test_loss_and_gradient_are_those_of_the_dense_table(task):
    rng = np.random.default_rng(1)
    params = jax.tree.map(
        lambda w: rng.normal(size=w.shape).astype(np.float32), task.init(jax.random.key(0))
    )
    rows = np.array([5, 0, 5, 47, 12])
    batch = take_rows(task.train, rows)
    (loss, _), gradient = jax.value_and_grad(task.loss, has_aux=True)(params, batch, None)
    x, label = dense(task.train)[rows], task.train["label"][rows]
    expected = reference(params["weight"], params["bias"], x, label, 0.01)
    np.testing.assert_allclose(loss, expected[0], rtol=1e-5)
    np.testing.assert_allclose(gradient["weight"], expected[1], rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(gradient["bias"], expected[2], rtol=1e-4, atol=1e-6)


def as_dense_task(task):
    """The same task with dense rows, by a loss of its own."""

    def loss(params, batch, key):
        z = batch["input"] @ params["weight"] + params["bias"].reshape(1, -1)
        if z.shape[1] == 1:
            z = jnp.concatenate([jnp.zeros_like(z), z], 1)
        losses = -jax.nn.log_softmax(z)[jnp.arange(len(z)), batch["label"]]
        right = jnp.argmax(z, 1) == batch["label"]
        penalty = 0.005 * jnp.sum(params["weight"] ** 2)
        return jnp.mean(losses) + penalty, {"accuracy": jnp.mean(right.astype(jnp.float32))}

    parts = [{**part, "input": dense(part)} for part in (task.train, task.test)]
    return Task("dense", task.init, loss, *parts, labels=task.labels)


@pytest.mark.parametrize("draw", [synchronous, asynchronous])
def test_a_replay_is_that_of_the_dense_table(task, draw):
    timeline = draw(Cluster(workers=3), updates=12)
    shares = partition(task.labels, 3, iid(), seed=1)
    ends = [
        replay(each, sgd(0.5), timeline, partition=shares, batch_size=4, evaluate_every=6)
        for each in (task, as_dense_task(task))
    ]
    # Sums over at most 13 entries in another order.
    np.testing.assert_allclose(ends[0].loss, ends[1].loss, rtol=1e-5)
    np.testing.assert_allclose(
        ends[0].params["weight"], ends[1].params["weight"], rtol=1e-4, atol=1e-6
    )
    for name in ("loss", "accuracy"):
        np.testing.assert_allclose(ends[0].evaluations[name], ends[1].evaluations[name], rtol=1e-5)


def test_members_are_their_single_runs(task):
    timeline = synchronous(Cluster(workers=2), updates=5)
    rates = [0.1, 1.0]
    many = replay_many(
        task, sgd, timeline, seeds=[0], hyperparameters={"learning_rate": rates}, batch_size=4
    )
    for rate, member in zip(rates, many, strict=True):
        alone = replay(task, sgd(jnp.float32(rate)), timeline, batch_size=4)
        np.testing.assert_allclose(alone.params["weight"], member.params["weight"], rtol=1e-6)


def test_rows_take_the_memory_of_their_entries(task):
    entries = task.metadata["entries"]
    rows = task.train["input"]
    assert rows.nbytes == 8 * entries + 4 * (len(rows) + 1)
    assert sum(leaf.nbytes for leaf in jax.tree.leaves(task.train)) < 2 * rows.nbytes


def test_sparse_rows_are_a_pytree_of_three_arrays():
    rows = SparseRows.from_scipy(scipy.sparse.csr_array(np.eye(3, 5)))
    leaves, structure = jax.tree.flatten(rows)
    assert [leaf.dtype for leaf in leaves] == ["int32", "float32", "int32"]
    assert jax.tree.unflatten(structure, leaves).shape == (3, 5)


def test_a_small_or_well_filled_table_stays_dense(tmp_path):
    (tmp_path / "a.svm").write_bytes(b"1 1:1\n0 2:1\n" * 9)
    assert isinstance(logistic(tmp_path / "a.svm").train["input"], np.ndarray)


def test_a_row_of_a_batch_is_as_large_as_its_parts(task):
    rows = task.train["input"]
    assert row_bytes(task.train) == rows.widest * (4 + 4) + 4
    assert row_bytes({"x": np.zeros((3, 5), np.uint8), "y": np.zeros(3, np.int32)}) == 5 + 4

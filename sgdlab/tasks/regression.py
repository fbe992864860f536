"""Logistic regression: the convex classifier whose optimum an independent solver can find."""

from __future__ import annotations

from os import PathLike

import jax.numpy as jnp
import numpy as np
import optax

from sgdlab.tasks.classification import split
from sgdlab.tasks.datasets.opening import load_table
from sgdlab.tasks.definition import RowLoss, Task
from sgdlab.tasks.losses import Measures, at_least_float32, fingerprint, means, measure_logits
from sgdlab.tasks.rows import SparseRows, is_sparse


def logistic(
    dataset: str | PathLike[str] = "breast_cancer",
    l2: float = 0.0,
    test_fraction: float = 0.2,
    split_seed: int = 0,
    test: str | PathLike[str] | None = None,
) -> Task:
    """Logistic regression with an L2 penalty on the weights, not on the bias.

        f(W, b) = mean over rows of −log softmax(xᵀW + b)[y] + (l2/2)·‖W‖²

    Two classes have one logit z = xᵀw + b and the loss log(1 + exp(∓z)). Features are standardised
    with the mean and standard deviation of the training rows. Parameters start at zero.

    A LIBSVM file of more than 2²⁰ values, fewer than a tenth of them set, stays sparse: its rows
    are taken as they are, for a standardised zero is none, and a minibatch holds each row's
    entries, padded to the widest row's. w is dense. On accelerators the gradient's sum over the
    entries of a feature has no fixed order, so there a run isn't repeatable bit for bit.

    Args:
      dataset: "breast_cancer" (569 rows, 30 features, 2 classes), "wine" (178, 13, 3), "iris"
        (150, 4, 3), "digits" (1,797, 64, 10); else the path of a LIBSVM file, an `.npz`, or a
        saved Hugging Face dataset.
      l2: strength of the penalty, at least 0; strong convexity in W.
      test_fraction: share of rows held out, stratified by class, where the data has no test set
        of its own.
      split_seed: which rows those are.
      test: the path of the test rows, where they are a LIBSVM file of their own.

    Returns:
      A `Task`: "input" `[n, d]` float32 or `SparseRows`, "label" `[n]` int32; metrics "accuracy"
      and, without the penalty, "cross_entropy".

    Raises:
      DataError: a file is missing or damaged.
      ValueError: an argument is out of range.
    """
    if not (np.isfinite(l2) and l2 >= 0):
        raise ValueError(f"logistic: l2 is {l2!r}; it must be a finite number of at least 0")
    data = load_table(dataset, test)
    train, held, classes = split(data, test_fraction, split_seed)
    sparse = not isinstance(train["input"], np.ndarray)
    train, held = (_sparse(train), _sparse(held)) if sparse else _standardise(train, held)
    shape = train["input"].shape[1], 1 if classes <= 2 else classes

    def init(key):
        del key
        return {"weight": jnp.zeros(shape, jnp.float32), "bias": jnp.zeros(shape[1], jnp.float32)}

    def measure(params, batch, key):
        del key
        weight = params["weight"]
        logits = at_least_float32(_product(batch["input"], weight))
        logits += at_least_float32(params["bias"]).reshape(1, -1)
        return (_binary if shape[1] == 1 else measure_logits)(logits, batch["label"])

    def summarise(params, rows):
        value, accuracy = means(rows)
        penalty = l2 / 2 * jnp.sum(at_least_float32(params["weight"]) ** 2)
        return value + penalty, {"accuracy": accuracy, "cross_entropy": value}

    facts = {"source": data.source, "classes": classes, "rows": len(train["label"])}
    facts["sha256"] = fingerprint(train)
    loss = RowLoss(measure, summarise)
    if sparse:
        facts |= {"features": shape[0], "entries": len(train["input"].value)}
    return Task(
        "logistic",
        init,
        loss,
        train,
        held,
        labels=train["label"],
        metadata=facts,
        directions={"accuracy": "up", "cross_entropy": "down"},
    )


def _product(rows, weight):
    """xᵀW in the dtype of W, `[B, C]`, of dense rows `[B, d]` or of sparse ones `[B, entries]`."""
    if is_sparse(rows):
        rows = rows[:]
    if not isinstance(rows, dict):
        return rows.astype(weight.dtype) @ weight
    return jnp.einsum("bk,bkc->bc", rows["value"].astype(weight.dtype), weight[rows["index"]])


def _sparse(part):
    return {**part, "input": SparseRows.from_scipy(part["input"])}


def _binary(logits, label):
    z = logits[:, 0]
    losses = optax.sigmoid_binary_cross_entropy(z, label.astype(z.dtype))
    return Measures(losses, ((z > 0) == (label > 0)) & ~jnp.isnan(z))


def _standardise(train, test):
    rows = train["input"].astype(np.float64)
    mean, deviation = rows.mean(0), rows.std(0)
    deviation[deviation == 0] = 1.0  # a constant feature stays zero

    def apply(data):
        scaled = ((data["input"] - mean) / deviation).astype(np.float32)
        return {"input": scaled, "label": data["label"]}

    return apply(train), apply(test)

"""Image classifiers: the digits that scikit-learn carries, and images from a path."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from os import PathLike
from typing import Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from sgdlab.arguments import read_arguments
from sgdlab.tasks.datasets.dataset import Dataset
from sgdlab.tasks.datasets.embedded import load_digits
from sgdlab.tasks.datasets.opening import load_images
from sgdlab.tasks.definition import RowLoss, Task
from sgdlab.tasks.examples import check_labels, read_rows
from sgdlab.tasks.losses import fingerprint, means, measure_logits
from sgdlab.tasks.modules import purify
from sgdlab.tasks.networks import CNN, MLP
from sgdlab.tasks.splits import stratified_split
from sgdlab.tasks.table import TASKS

Model = Literal["mlp", "cnn"]


def classifier(
    network: Any,
    train: Any,
    test: Any,
    *,
    name: str = "classifier",
    prepare: Callable[[jax.Array], jax.Array] | None = None,
    metadata: Mapping[str, Any] | None = None,
) -> Task:
    """Classification with any Flax network: mean cross-entropy in nats, and accuracy.

    Args:
      network: from x to `[B, C]` logits: a Flax Linen module; an NNX module, where every run then
        starts at its own parameters; or a function from `nnx.Rngs` to an NNX module. An argument
        `train` or `deterministic` (or `training`, `is_training`) of its `__call__`, or an attribute
        of that name, says in training that it trains: dropout then draws from the loss's key.
      train: {"input": `[n, …]`, "label": `[n]`}, arrays or lists; a pair of the two; or a data
        frame with a column "label".
      test: the same for held-out rows.
      name: the task's name.
      prepare: what turns a batch of "input" into the network's x, such as a normalisation of
        uint8 pixels; the identity where `None`.
      metadata: further facts; the SHA-256 of the training data is added.

    Returns:
      A `Task` with the metric "accuracy".

    Raises:
      ValueError: an input is not finite, or a label is none of the network's; the network keeps
        a state besides its parameters (BatchNorm), draws in evaluation,
        or has a dropout that stays off in training.
    """
    prepare = prepare or (lambda x: x)
    train, test = read_rows("train", train), read_rows("test", test)
    pure = purify(network, prepare(jnp.asarray(train["input"][:1])))

    def measure(params, batch, key):
        logits = pure.apply(params, prepare(batch["input"]), key)
        return measure_logits(jnp.asarray(logits), batch["label"])

    def summarise(params, rows):
        del params
        value, accuracy = means(rows)
        return value, {"accuracy": accuracy}

    facts = {**(metadata or {}), "rows": len(train["label"]), "sha256": fingerprint(train)}
    loss = RowLoss(measure, summarise)
    # Op by op, Flax would compile the whole forward pass for nothing.
    init = jax.jit(pure.init)
    first = train["input"][:1]
    key = jax.random.key(0)
    logits = jax.eval_shape(lambda key: pure.apply(init(key), prepare(first), None), key)
    for part, rows in (("train", train), ("test", test)):
        check_labels(part, rows["label"], logits.shape[-1])
    return Task(
        name,
        init,
        loss,
        train,
        test,
        labels=train["label"],
        metadata=facts,
        directions={"accuracy": "up"},
    )


@read_arguments(TASKS["digits"])
def digits(
    model: Model = "mlp",
    hidden: Sequence[int] = (128,),
    channels: Sequence[int] = (16, 32),
    test_fraction: float = 0.2,
    split_seed: int = 0,
) -> Task:
    """Handwritten digits: 1,797 images of 8×8 pixels in 10 classes, carried by scikit-learn.

    Args:
      model: "mlp", or "cnn" with 3×3 convolutions before the linear layers.
      hidden: widths of the hidden linear layers.
      channels: channels of the convolutions, each followed by 2×2 pooling; "cnn" only.
      test_fraction: share of rows held out, stratified by class.
      split_seed: which rows those are.

    Returns:
      A `Task`: "input" `[n, 8, 8, 1]` float32 in [0, 1], "label" `[n]` int32; "accuracy".

    Raises:
      ValueError: an argument is out of range.

    Reference: E. Alpaydin, C. Kaynak, "Optical Recognition of Handwritten Digits", UCI Machine
      Learning Repository, 1998.
    """
    return _image_task("digits", load_digits(), model, hidden, channels, test_fraction, split_seed)


@read_arguments({name: row for name, row in TASKS["images"].items() if name != "path"})
def images(
    path: str | PathLike[str],
    model: Model = "cnn",
    hidden: Sequence[int] = (128,),
    channels: Sequence[int] = (32, 64),
    test_fraction: float = 0.2,
    split_seed: int = 0,
) -> Task:
    """Images from a path: MNIST's IDX files, CIFAR's binaries, an `.npz`, a saved dataset.

    Whole numbers of 0…255, whatever dtype holds them, are pixels: uint8 in memory and normalised in
    the loss, by the mean and standard deviation of each channel over the training images. So are
    all others, as float32, but for floats in [−1, 1], which are taken as they are.

    Args:
      path: what `sgdlab.tasks.datasets.load_images` reads.
      model: "mlp", or "cnn" with 3×3 convolutions before the linear layers.
      hidden: widths of the hidden linear layers.
      channels: channels of the convolutions, each followed by 2×2 pooling; "cnn" only.
      test_fraction: share of rows held out, stratified by class, where the data has no test set
        of its own.
      split_seed: which rows those are.

    Returns:
      A `Task`: "input" `[n, H, W, C]` uint8 or float32, "label" `[n]` int32; "accuracy".

    Raises:
      DataError: a file is missing or damaged.
      ValueError: an argument is out of range.
    """
    data = load_images(path)
    return _image_task("images", data, model, hidden, channels, test_fraction, split_seed)


def _image_task(
    name: str, data: Dataset, model: str, hidden, channels, test_fraction: float, split_seed: int
) -> Task:
    train, test, classes = split(data, test_fraction, split_seed)
    network = _network(name, model, hidden, channels, train["input"].shape[1:], classes)
    # Floats in [−1, 1] have been scaled by whoever made them.
    pixels = train["input"].dtype == np.uint8 or np.abs(train["input"]).max() > 1
    prepare = _normalisation(train["input"]) if pixels else None
    facts = {"source": data.source, "classes": classes}
    return classifier(network, train, test, name=name, prepare=prepare, metadata=facts)


def split(data: Dataset, test_fraction: float, split_seed: int):
    """Training rows, test rows, and the number of classes.

    Returns:
      `(train, test, classes)`; the data's own test set where it has one, else a stratified part.
    """
    if data.test is not None:
        return data.train, data.test, data.classes
    kept, held = stratified_split(data.train["label"], test_fraction, split_seed)
    train = {name: array[kept] for name, array in data.train.items()}
    return train, {name: array[held] for name, array in data.train.items()}, data.classes


def _network(name: str, model: str, hidden, channels, shape, classes: int) -> nn.Module:
    if model == "mlp":
        return MLP(tuple(hidden), classes)
    if min(shape[:2]) >> len(channels) == 0:
        raise ValueError(
            f"{name}: channels has {len(channels)} poolings for images of {shape[0]}×{shape[1]}; "
            f"at most {min(shape[:2]).bit_length() - 1} fit"
        )
    return CNN(tuple(channels), tuple(hidden), classes)


def _normalisation(pixels: np.ndarray) -> Callable[[jax.Array], jax.Array]:
    axes = tuple(range(pixels.ndim - 1))
    mean = pixels.mean(axes, dtype=np.float64).astype(np.float32)
    least = 1.0 if pixels.dtype == np.uint8 else float(np.abs(pixels).max()) / 255
    scale = (1 / np.maximum(pixels.std(axes, dtype=np.float64), least)).astype(np.float32)

    def normalise(x):
        shape = (1,) * (x.ndim - 1) + (-1,)
        return (x.astype(jnp.float32) - mean.reshape(shape)) * scale.reshape(shape)

    return normalise

"""Byte-level language modelling on the documentation text that Python carries, or any file."""

from __future__ import annotations

import dataclasses
import hashlib
from os import PathLike, fspath
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from sgdlab.tasks.datasets.embedded import load_documentation
from sgdlab.tasks.datasets.plain import load_text
from sgdlab.tasks.datasets.saved import load_saved_text
from sgdlab.tasks.definition import RowLoss, Task
from sgdlab.tasks.losses import means, measure_logits
from sgdlab.tasks.transformer import (
    SIZES,
    Backend,
    Transformer,
    TransformerConfig,
    logical_axes,
)

# Into how many consecutive parts the training text is labelled, for partitions over workers.
PARTS = 16


def text(
    path: str | PathLike[str] | None = None,
    size: str = "0.3M",
    length: int = 128,
    width: int | None = None,
    layers: int | None = None,
    heads: int | None = None,
    tied: bool = True,
    rematerialise: bool = False,
    dropout: float = 0.0,
    attention: Backend = "xla",
    test_fraction: float = 0.1,
) -> Task:
    """A Transformer learns to predict the next byte of a text.

    The text is cut into windows of `length` + 1 bytes that overlap by one, so that every byte is
    predicted once. The last part of the text is held out: neighbours of a training window are no
    fair test.

    Args:
      path: a text file (gzip, bzip2, xz too), or a Hugging Face dataset saved to disk with a column
        "text"; `None`: the English documentation that CPython carries, which differs by Python
        version.
      size: a configuration in `SIZES`, "0.3M" to "1B" parameters.
      length: bytes a window predicts.
      width: in place of the size's.
      layers: in place of the size's.
      heads: in place of the size's.
      tied: whether the head is the transposed embedding.
      rematerialise: whether blocks are computed again in the backward pass.
      dropout: share of entries zeroed in training; above 0 the loss needs a key.
      attention: "xla", or "cudnn" for 16-bit parameters on NVIDIA devices.
      test_fraction: share of the windows held out.

    Returns:
      A `Task`: "tokens" `[n, length + 1]` uint8; the loss in nats a byte, metrics "accuracy",
      "perplexity" (of a byte) and "bits_per_byte". `labels` say in which of 16 consecutive parts of
      the training text a window lies. `metadata` has the text's "sha256" and "bytes".

    Raises:
      DataError: the file is missing or too short.
      ValueError: an argument is out of range.
    """
    config = _config(size, width=width, layers=layers, heads=heads)
    config = dataclasses.replace(
        config, tied=tied, rematerialise=rematerialise, dropout=dropout, attention=attention
    )
    content, source = _content(path)
    facts = {
        "source": source,
        "bytes": len(content),
        "sha256": hashlib.sha256(content).hexdigest(),
        "size": size,
    }
    train, test = _windows(content, length, test_fraction, source)
    return language_model(config, train, test, name="text", metadata=facts)


def language_model(
    config: TransformerConfig,
    train: np.ndarray,
    test: np.ndarray,
    *,
    name: str = "language_model",
    metadata: dict[str, Any] | None = None,
) -> Task:
    """Next-token prediction by a Transformer on windows of tokens.

    Args:
      config: its shape; `config.vocabulary` bounds the tokens.
      train: `[n, L + 1]` integer tokens.
      test: the same for held-out windows.
      name: the task's name.
      metadata: further facts.

    Returns:
      A `Task` as `text` describes it.
    """
    model = Transformer(config)

    @jax.jit  # op by op, Flax would compile the whole forward pass for nothing
    def init(key):
        return model.init(key, jnp.asarray(train[:1, :-1]))["params"]

    def measure(params, batch, key):
        tokens = batch["tokens"].astype(jnp.int32)
        rngs = {} if key is None or config.dropout == 0 else {"dropout": key}
        logits = model.apply({"params": params}, tokens[:, :-1], not rngs, rngs=rngs)
        return measure_logits(jnp.asarray(logits), tokens[:, 1:])

    def summarise(params, rows):
        del params
        value, accuracy = means(rows)
        measures = {
            "perplexity": jnp.exp(value),
            "bits_per_byte": value / np.log(2).astype(value.dtype),
        }
        return value, {"accuracy": accuracy, **measures}

    return Task(
        name=name,
        init=init,
        loss=RowLoss(measure, summarise),
        train={"tokens": train},
        test={"tokens": test},
        labels=(np.arange(len(train)) * PARTS // len(train)).astype(np.int32),
        logical_axes=logical_axes(jax.eval_shape(init, jax.random.key(0))),
        metadata=metadata or {},
        directions={"accuracy": "up", "perplexity": "down", "bits_per_byte": "down"},
    )


def _config(size: str, **changes: int | None) -> TransformerConfig:
    if size not in SIZES:
        raise ValueError(f"text: size is {size!r}; it must be one of {', '.join(SIZES)}")
    given = {name: value for name, value in changes.items() if value is not None}
    return dataclasses.replace(SIZES[size], **given)


def _content(path: str | PathLike[str] | None) -> tuple[bytes, str]:
    if path is None:
        return load_documentation(), "CPython documentation"
    load = load_saved_text if Path(path).is_dir() else load_text
    return load(path), fspath(path)


def _windows(content: bytes, length: int, test_fraction: float, source: str):
    """Training and test windows, `[n, length + 1]` uint8; the text's last part is the test's."""
    if length < 1:
        raise ValueError(f"text: length is {length}; it must be at least 1")
    count = (len(content) - 1) // length
    held = int(count * test_fraction)
    if not 0 < test_fraction < 1 or not 0 < held < count:
        raise ValueError(
            f"text: test_fraction {test_fraction} of the {count} windows of {length} bytes in "
            f"{source}; it must lie between 0 and 1 and leave windows on both sides"
        )
    stream = np.frombuffer(content, np.uint8)
    windows = np.lib.stride_tricks.sliding_window_view(stream, length + 1)[::length]  # no copy
    return windows[:-held], windows[-held:]

"""Data that scikit-learn and CPython carry: nothing to download."""

from __future__ import annotations

import dataclasses
import importlib

import numpy as np

from sgdlab.tasks.datasets.dataset import DataError, Dataset

EMBEDDED = ("breast_cancer", "digits", "iris", "wine")


def load_embedded(name: str) -> Dataset:
    """A table that scikit-learn carries.

    Args:
      name: one of `EMBEDDED`.

    Returns:
      A `Dataset` with "input" `[n, d]` float32, in the table's own units.

    Raises:
      DataError: no such table.
    """
    if name not in EMBEDDED:
        raise DataError(f"{name}: no embedded table of that name; there are {', '.join(EMBEDDED)}")
    # Importing scikit-learn's datasets takes a second: only those who need it pay.
    loaders = importlib.import_module("sklearn.datasets")
    features, labels = getattr(loaders, f"load_{name}")(return_X_y=True)
    train = {"input": features.astype(np.float32), "label": labels.astype(np.int32)}
    classes = int(train["label"].max()) + 1
    return Dataset(train, None, f"scikit-learn {name}", classes)


def load_digits() -> Dataset:
    """The handwritten digits as images: "input" `[1797, 8, 8, 1]` float32 in [0, 1]."""
    table = load_embedded("digits")
    pixels = table.train["input"].reshape(-1, 8, 8, 1) / np.float32(16)
    return dataclasses.replace(table, train={**table.train, "input": pixels})


def load_documentation() -> bytes:
    """The documentation text that CPython carries for `help()`: English, about half a megabyte.

    Each Python version has its own edition, so whoever uses it records its SHA-256.

    Returns:
      The topics in alphabetical order, UTF-8.

    Raises:
      DataError: this Python was packaged without it.
    """
    try:
        topics = importlib.import_module("pydoc_data.topics").topics
    except ImportError:
        raise DataError(
            "pydoc_data.topics: this Python carries no documentation text; give the path of a file"
        ) from None
    return "\n\n".join(topics[name] for name in sorted(topics)).encode()

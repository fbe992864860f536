"""Rows of a classifier as people hand them over: lists, tuples and data frames, as two arrays."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np


def read_rows(name: str, given: Any) -> dict[str, np.ndarray]:
    """Inputs and labels, each as one array.

    Args:
      name: "train" or "test", for an error.
      given: a mapping or a data frame with "input" and "label", or a pair of the two.

    Returns:
      {"input": `[n, …]`, floats as float32, "label": `[n]` int32}.

    Raises:
      ValueError: it is neither, the lengths differ, an input is not finite, or a label is no whole
        number of at least 0; in one line.
    """
    parts: Any = given
    if isinstance(given, tuple | list) and len(given) == 2:
        parts = dict(zip(("input", "label"), given, strict=True))
    elif "label" in getattr(given, "columns", ()) and "input" not in parts.columns:
        parts = {"input": parts.drop(columns="label"), "label": parts["label"]}
    if not isinstance(parts, Mapping) or set(parts) != {"input", "label"}:
        allowed = '{"input": [n, ...], "label": [n]}, a pair of them, or a data frame with "label"'
        raise ValueError(f"{name}: {type(given).__name__} given; allowed: {allowed}")
    rows, labels = np.asarray(parts["input"]), np.asarray(parts["label"])
    if rows.dtype.kind not in "biuf" or rows.ndim < 2 or not len(rows):
        found = f"{rows.dtype}{list(rows.shape)}"
        raise ValueError(f"{name}: input is {found}; allowed: numbers [n, ...], one row at least")
    if labels.shape != (len(rows),) or labels.dtype.kind not in "biuf":
        found = f"{labels.dtype}{list(labels.shape)}"
        raise ValueError(f"{name}: label is {found}; allowed: whole numbers [{len(rows)}]")
    wrong = (labels < 0) | (labels != np.floor(labels))
    if wrong.any():
        row = int(np.argmax(wrong))
        raise ValueError(f"{name}: label {labels[row]} of row {row}; allowed: 0, 1, 2, ...")
    if rows.dtype.kind == "f":
        rows = rows if rows.dtype.itemsize == 4 else rows.astype(np.float32)
        fine = np.isfinite(rows.reshape(len(rows), -1)).all(1)
        if not fine.all():
            row = int(np.argmin(fine))
            raise ValueError(f"{name}: input of row {row} is not finite; allowed: finite numbers")
    return {"input": rows, "label": labels.astype(np.int32)}


def check_labels(name: str, labels: np.ndarray, classes: int) -> None:
    """Whether a network of so many outputs knows every label.

    Raises:
      ValueError: names the row.
    """
    if labels.max() >= classes:
        row = int(np.argmax(labels >= classes))
        allowed = f"0 to {classes - 1}, as the network has {classes} outputs"
        raise ValueError(f"{name}: label {labels[row]} of row {row}; allowed: {allowed}")

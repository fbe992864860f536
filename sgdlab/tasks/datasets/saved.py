"""Hugging Face datasets that were saved to disk; needs the extra `sgdlab[data]`."""

from __future__ import annotations

import importlib
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np

from sgdlab.tasks.datasets.dataset import DataError, Dataset, Found, Rows, make_dataset
from sgdlab.tasks.datasets.decoding import decode_images

_INPUTS = ("image", "img", "input", "x", "features", "pixels")
_LABELS = ("label", "labels", "y", "fine_label", "target")


def load_saved(directory: str | PathLike[str]) -> Dataset:
    """A saved `datasets.Dataset`, or a `DatasetDict` with "train" and perhaps "test".

    Args:
      directory: what `save_to_disk` wrote. The input column is one of image, img, input, x,
        features, pixels; the label column one of label, labels, y, fine_label, target.

    Returns:
      A `Dataset` with "input" as stored if uint8, else float32. Labels that are a `ClassLabel` are
      class numbers already, of as many classes as it names.

    Raises:
      DataError: the directory is missing or damaged, a column is missing, or the extra is not
        installed.
    """
    return make_dataset(read_saved(directory))


def read_saved(directory: str | PathLike[str]) -> Found:
    """What `load_saved` checks."""
    directory = Path(directory)
    parts = _parts(directory)
    classes = _classes(parts["train"])
    try:
        rows = {name: _rows(parts[name], directory) for name in ("train", "test") if name in parts}
    except DataError:
        raise
    except Exception as error:  # rows of different shapes, images that don't decode
        raise DataError(f"{directory}: {' '.join(str(error).split())}") from None
    return Found(directory, rows["train"], rows.get("test"), classes)


def load_saved_text(directory: str | PathLike[str]) -> bytes:
    """The column "text" of a saved dataset (its "train" part), rows joined by empty lines.

    Args:
      directory: what `save_to_disk` wrote.

    Returns:
      The text as UTF-8.

    Raises:
      DataError: as `load_saved`.
    """
    directory = Path(directory)
    train = _parts(directory)["train"]
    if "text" not in train.column_names:
        raise DataError(
            f"{directory}: columns are {', '.join(train.column_names)}; 'text' is needed"
        )
    content = "\n\n".join(row for row in train["text"] if row).encode()
    if not content:
        raise DataError(f"{directory}: column 'text' is empty")
    return content


def is_saved(directory: Path) -> bool:
    """Whether a directory was written by `save_to_disk`."""
    return any((directory / name).is_file() for name in ("state.json", "dataset_dict.json"))


def _parts(directory: Path) -> dict[str, Any]:
    if not directory.is_dir() or not is_saved(directory):
        raise DataError(f"{directory}: is no directory that datasets.save_to_disk wrote")
    try:
        library = importlib.import_module("datasets")
    except ImportError:
        raise DataError(
            f"{directory}: reading it needs the extra: pip install sgdlab[data]"
        ) from None
    try:
        loaded = library.load_from_disk(str(directory))
    except Exception as error:  # the library promises no set of exceptions
        raise DataError(f"{directory}: {' '.join(str(error).split())}") from None
    parts = dict(loaded) if isinstance(loaded, dict) else {"train": loaded}
    if "train" not in parts:
        raise DataError(f"{directory}: parts are {', '.join(map(str, parts))}; 'train' is needed")
    return {str(name): part for name, part in parts.items()}


def _name(part: Any, wanted: tuple[str, ...], directory: Path) -> str:
    found = next((name for name in wanted if name in part.column_names), None)
    if found is None:
        raise DataError(
            f"{directory}: columns are {', '.join(part.column_names)}; one of "
            f"{', '.join(wanted)} is needed"
        )
    return found


def _classes(part: Any) -> int | None:
    """How many classes there are, where the labels' column says so."""
    names = (name for name in _LABELS if name in part.column_names)
    return next((getattr(part.features[name], "num_classes", None) for name in names), None)


def _rows(part: Any, directory: Path) -> Rows:
    inputs, labels = (_name(part, wanted, directory) for wanted in (_INPUTS, _LABELS))
    rows = part.select_columns([inputs, labels]).with_format("arrow")[:]
    numbers = _to_array(rows[labels], labels)
    if type(part.features[inputs]).__name__ == "Image":
        return Rows(decode_images(rows[inputs], directory), numbers)
    return Rows(_to_array(rows[inputs], inputs), numbers)


def _to_array(column: Any, name: str) -> np.ndarray:
    """A column of numbers, or of lists of numbers of one shape, in the dtype of its feature."""
    import pyarrow as pa

    array, shape = column.combine_chunks(), [len(column)]
    array = pa.concat_arrays(array.chunks) if isinstance(array, pa.ChunkedArray) else array
    while True:
        if array.null_count:
            raise ValueError(f"column {name!r} has rows without a value")
        if isinstance(array, pa.ExtensionArray):  # Array2D … Array5D
            array = array.storage
        elif pa.types.is_fixed_size_list(array.type):
            shape.append(array.type.list_size)
            array = array.flatten()
        elif pa.types.is_list(array.type) or pa.types.is_large_list(array.type):
            lengths = set(array.value_lengths().unique().to_pylist())
            if len(lengths) != 1:
                raise ValueError(f"column {name!r} has rows of different lengths")
            shape.append(lengths.pop())
            array = array.flatten()
        else:
            break
    values = array.to_numpy(zero_copy_only=False)
    if values.dtype.kind not in "biuf":
        raise ValueError(f"column {name!r} holds no numbers")
    return values.reshape(shape)

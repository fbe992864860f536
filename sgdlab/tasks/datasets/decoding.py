"""Encoded images (PNG, JPEG, …) as one array, whose size is checked before it is taken."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np

from sgdlab.files import open_regular
from sgdlab.tasks.datasets.dataset import LARGEST_ARRAY, DataError

_GREY = {"1", "L"}
_KEPT = {"L": np.uint8, "RGB": np.uint8, "RGBA": np.uint8, "I;16": np.uint16, "F": np.float32}


def decode_images(column: Any, place: Any) -> np.ndarray:
    """Images `[n, H, W, C]`, or `[n, H, W]` where they are grey.

    Grey ones stay grey, 16 bits stay 16 bits; palettes and mixtures become RGB.

    Args:
      column: a column of `{"bytes": …, "path": …}`, as a saved dataset keeps its images.
      place: named in errors.

    Raises:
      DataError: an image is missing or damaged, or is of another size than the first.
    """
    from PIL import Image

    sizes, modes = set(), set()
    for row, value in enumerate(column):
        with _open(Image, value.as_py(), place) as image:
            sizes.add(image.size)
            modes.add(image.mode)
        if len(sizes) > 1:
            told = " and ".join(f"{height}×{width}" for width, height in sorted(sizes))
            raise DataError(f"{place}: image of row {row}: sizes {told}; all images need one size")
    (width, height), mode = sizes.pop(), _choose(modes)
    channels = len(Image.new(mode, (1, 1)).getbands())
    shape = (len(column), height, width, *((channels,) if channels > 1 else ()))
    count = int(np.prod(shape, dtype=object)) * np.dtype(_KEPT[mode]).itemsize
    if count > LARGEST_ARRAY:
        raise DataError(
            f"{place}: images of {shape} need {count:,} bytes; at most {LARGEST_ARRAY:,}"
        )
    pixels = np.empty(shape, _KEPT[mode])
    for row, value in enumerate(column):
        with _open(Image, value.as_py(), place) as image:
            pixels[row] = np.asarray(image if image.mode == mode else image.convert(mode))
    return pixels


def _open(library: Any, value: Any, place: Any) -> Any:
    if not value or not (value.get("bytes") or value.get("path")):
        raise DataError(f"{place}: a row has no image")
    if value.get("bytes"):
        return library.open(io.BytesIO(value["bytes"]))
    with open_regular(Path(value["path"])) as file:
        return library.open(io.BytesIO(file.read()))


def _choose(modes: set[str]) -> str:
    """The mode that all images are turned into."""
    if modes <= _GREY:
        return "L"
    return next(iter(modes)) if len(modes) == 1 and modes <= set(_KEPT) else "RGB"

"""Images are pixels whatever numbers hold them: the same values of any dtype, the same images."""

from __future__ import annotations

from typing import Any

import numpy as np

from sgdlab.tasks.datasets.dataset import DataError, finite_features

_CHANNELS = (1, 3, 4)


def to_pixels(path: Any, *parts: np.ndarray) -> tuple[np.ndarray, ...]:
    """Images `[n, H, W, C]` as uint8 where they hold whole numbers of 0…255, else as float32.

    Args:
      path: named in errors.
      *parts: training images, and test images if there are any: `[n, H, W]` or `[n, H, W, C]`,
        integers of at least 0, or finite floats.

    Returns:
      As many arrays, all of one dtype.

    Raises:
      DataError: they are no images, have their channels first, are negative whole numbers, or the
        test images are on another scale than the training images.
    """
    ends = [_ends(part, path) for part in parts]
    _check_scale(ends, path)
    whole = all(low >= 0 and high <= 255 for low, high in ends) and all(map(_is_whole, parts))
    # In [0, 1] a float is a share of full brightness, also where all are 0 or 1.
    whole &= all(part.dtype.kind != "f" for part in parts) or max(high for _, high in ends) > 1
    made = (part.astype(np.uint8) if whole else finite_features(part, path) for part in parts)
    return tuple(part.reshape(_shape(part, path)) for part in made)


def _ends(part: np.ndarray, path: Any) -> tuple[float, float]:
    """The smallest and the largest value."""
    low, high = float(part.min()), float(part.max())
    if not (np.isfinite(low) and np.isfinite(high)):
        finite_features(part, path)  # says which row
    if part.dtype.kind in "iu" and low < 0:
        raise DataError(
            f"{path}: pixels are {part.dtype} from {low:g} to {high:g}; whole numbers must not be "
            "negative (0 to 255 are 8-bit pixels)"
        )
    return low, high


def _check_scale(ends: list[tuple[float, float]], path: Any) -> None:
    """Training and test images on one scale: not the one of 0…1 and the other of 0…255."""
    reach = [max(-low, high) for low, high in ends]
    if min(reach) <= 1 and max(reach) > 2:
        told = " and ".join(f"from {low:g} to {high:g}" for low, high in ends)
        raise DataError(f"{path}: pixels of train and test go {told}; one scale is needed")


def _is_whole(part: np.ndarray) -> bool:
    return part.dtype.kind != "f" or bool(np.all(part == np.round(part)))


def _shape(part: np.ndarray, path: Any) -> tuple[int, ...]:
    shape = part.shape[1:]
    if len(shape) not in (2, 3):
        raise DataError(f"{path}: rows have shape {shape}; images are [H, W] or [H, W, C]")
    if len(shape) == 3 and shape[0] in _CHANNELS and shape[-1] not in _CHANNELS:
        raise DataError(
            f"{path}: rows have shape {shape}, channels first; needed is [H, W, C], as "
            "np.moveaxis(x, 1, -1) makes it"
        )
    return (len(part), *shape) if len(shape) == 3 else (len(part), *shape, 1)

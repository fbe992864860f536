"""Which rows are held out: a fixed, seeded split in which every class has its share."""

from __future__ import annotations

import numpy as np


def stratified_split(
    labels: np.ndarray, test_fraction: float, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Training and test rows; ⌊fraction·n⌋ rows are held out, of each class its share within one.

    Rows are shuffled, sorted by class, and held out at even distances along that order. But a class
    keeps one training row at least: nobody could predict one that only test rows have.

    Args:
      labels: `[n]` class numbers.
      test_fraction: share of rows held out, in (0, 1).
      seed: of the shuffle, in [0, 2³²).

    Returns:
      `(train, test)`: two sorted int64 arrays of row numbers, disjoint and together all rows.

    Raises:
      ValueError: the fraction leaves one of the two empty.
    """
    n = len(labels)
    if not 0 < test_fraction < 1 or not 0 < int(test_fraction * n) < n:
        raise ValueError(
            f"test_fraction: {test_fraction!r} of {n} rows; it must lie between 0 and 1 "
            "and leave rows on both sides"
        )
    order = np.random.default_rng(seed).permutation(n)
    order = order[np.argsort(labels[order], kind="stable")]
    held = np.diff(np.floor(test_fraction * np.arange(n + 1)), append=0)[:n] > 0
    starts = np.flatnonzero(np.diff(labels[order], prepend=-1))
    held[starts[np.logical_and.reduceat(held, starts)]] = False
    return np.sort(order[~held]), np.sort(order[held])

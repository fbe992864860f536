"""Replicates taken with replacement: how far luck may have moved a number.

Replicates are a table of draws of the clocks by seeds. A resample takes draws with replacement and
seeds with replacement, and all numbers that are compared take the same ones: the comparison is
paired. Whatever chooses among points (the best rate, a limit) is done anew in each resample, so
that its luck is in the interval too.

Reference:
  Efron and Tibshirani, "An Introduction to the Bootstrap", 1993, chapter 13 (percentile interval).
  Owen, "The pigeonhole bootstrap", 2007 (rows and columns resampled independently).
"""

from __future__ import annotations

import math

import numpy as np

RESAMPLES = 2000
_SEED = 20160105  # of the resamples: a verdict is the same each time
_OUTSIDE = 0.025  # of the resamples, on either side of the interval


class Resamples:
    """Draws and seeds, taken with replacement; the first resample is what was measured itself.

    Args:
      draws: D of them.
      seeds: S of them.
      stream: resamples of another one are independent of these.
    """

    def __init__(self, draws: int, seeds: int, *, stream: int = 0) -> None:
        random = np.random.default_rng([_SEED, stream] if stream else _SEED)
        self._draws = _with_all(random.integers(draws, size=(RESAMPLES, draws)))
        self._seeds = _with_all(random.integers(seeds, size=(RESAMPLES, seeds)))

    def combine(self, values: np.ndarray, how: str) -> np.ndarray:
        """The replicates of one point, combined.

        Args:
          values: `[D, S]`; a length of 1 stands for all.
          how: "mean", "median" or "max".

        Returns:
          `[1 + RESAMPLES]` float64.
        """
        draws = self._draws if values.shape[0] > 1 else self._draws[:, :1] * 0
        seeds = self._seeds if values.shape[1] > 1 else self._seeds[:, :1] * 0
        taken = values[draws[:, :, None], seeds[:, None, :]].reshape(len(draws), -1)
        return {"mean": np.mean, "median": np.median, "max": np.max}[how](taken, axis=1)


def interval(values: np.ndarray, against: float) -> tuple[float, float]:
    """The 95 % percentile interval of resamples.

    Args:
      values: `[B]`, the number in each resample.
      against: what stands for a value that is missing, NaN.

    Returns:
      The low and the high end.
    """
    ordered = np.sort(np.where(np.isnan(values), against, values))
    last = len(ordered) - 1
    low, high = math.floor(_OUTSIDE * last), math.ceil((1 - _OUTSIDE) * last)
    return float(ordered[low]), float(ordered[high])


def _with_all(drawn: np.ndarray) -> np.ndarray:
    return np.concatenate([np.arange(drawn.shape[1])[None], drawn])

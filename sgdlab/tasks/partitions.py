"""Which training rows each worker holds: equal shares, skewed classes, few classes, skewed sizes.

Every worker gets at least one row and no row goes to two workers.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Literal

import numpy as np

from sgdlab.arguments import read_arguments, show
from sgdlab.tasks.table import PARTITIONS, Count, Seed

# From labels [n] as class numbers 0…K−1, the number of workers N and a generator to N row arrays.
How = Callable[[np.ndarray, int, np.random.Generator], list[np.ndarray]]


@read_arguments({"workers": (Count, ...), "seed": (Seed, 0)})
def partition(labels: np.ndarray, workers: int, how: How, seed: int = 0) -> tuple[np.ndarray, ...]:
    """Deal rows to workers.

    Args:
      labels: `[n]` the class of each row, any values that NumPy can sort.
      workers: N.
      how: `iid()`, `dirichlet(alpha, sizes)`, `by_label(labels_per_worker)` or `quantity(alpha)`.
      seed: of the deal, in [0, 2³²).

    Returns:
      N sorted int32 arrays of row numbers, none empty, pairwise disjoint. All rows are dealt,
      except where `by_label` has more classes than the workers may hold together.

    Raises:
      ValueError: there is no worker, or fewer rows than workers.
    """
    labels = np.asarray(labels)
    if labels.ndim != 1:
        raise ValueError(f"partition: labels have shape {labels.shape}; one axis is needed")
    if not 1 <= workers <= len(labels):
        raise ValueError(
            f"partition: {workers} workers for {len(labels)} rows; "
            f"between 1 and {len(labels)} workers get a row each"
        )
    if not callable(how) or how in (iid, dirichlet, by_label, quantity):
        raise ValueError(f"partition: how is {show(how)}; allowed: a way to deal, as iid()")
    _, classes = np.unique(labels, return_inverse=True)
    shares = how(classes, workers, np.random.default_rng(seed))
    return tuple(np.sort(share).astype(np.int32) for share in _fill_empty(shares))


def iid() -> How:
    """Rows dealt at random; sizes differ by at most one."""

    def deal(labels, workers, rng):
        return np.array_split(rng.permutation(len(labels)), workers)

    return deal


@read_arguments(PARTITIONS["dirichlet"])
def dirichlet(alpha: float, sizes: Literal["drawn", "equal"] = "drawn") -> How:
    """Skewed classes, by one draw of a Dirichlet distribution for each class or for each worker.

    - `sizes="drawn"`: each class is divided over the workers by its own p ~ Dir(α, …, α), so that
      sizes differ too. Small α: a class sits with few workers.
    - `sizes="equal"`: each worker draws its own mix of classes q ~ Dir(α·prior), the prior being
      the shares of the classes, and n/N rows by it, to within one. Where a class has run out, q
      goes on without it; so the last workers, whose order is random, hold what is left. Small α:
      a worker sees few classes.

    Large α: shares that look like the whole.

    Args:
      alpha: α > 0.
      sizes: whether the workers' numbers of rows are drawn or equal.

    Raises:
      ValueError: α is not a finite number above 0, or `sizes` is something else.

    Reference: "drawn" is the draw of Mikhail Yurochkin et al., "Bayesian Nonparametric Federated
      Learning of Neural Networks", 2019, without what the code in use after it adds, a cap at n/N
      rows and a least size; "equal" that of Tzu-Ming Harry Hsu, Hang Qi, Matthew Brown, "Measuring
      the Effects of Non-Identical Data Distribution for Federated Visual Classification", 2019,
      without replacement as Flower implements it.
    """
    deals = {"drawn": _deal_by_class, "equal": _deal_by_worker}
    return partial(deals[sizes], alpha)


def _deal_by_class(
    alpha: float, labels: np.ndarray, workers: int, rng: np.random.Generator
) -> list[np.ndarray]:
    shares = [[] for _ in range(workers)]
    for rows in _rows_by_class(labels, rng):
        cuts = np.cumsum(_proportions(alpha, np.ones(workers), rng))[:-1] * len(rows)
        for share, part in zip(shares, np.split(rows, np.round(cuts).astype(int)), strict=True):
            share.append(part)
    return [np.concatenate(share) for share in shares]


def _deal_by_worker(
    alpha: float, labels: np.ndarray, workers: int, rng: np.random.Generator
) -> list[np.ndarray]:
    groups = _rows_by_class(labels, rng)
    left = np.array([len(rows) for rows in groups])
    prior = left / len(labels)
    shares: list[np.ndarray] = [np.empty(0, int)] * workers
    for index, worker in enumerate(rng.permutation(workers)):
        size = len(labels) // workers + (index < len(labels) % workers)
        taken = _draw_counts(size, _proportions(alpha, prior, rng), left, rng)
        left = left - taken
        parts = [rows[rest : rest + k] for rows, rest, k in zip(groups, left, taken, strict=True)]
        shares[worker] = np.concatenate(parts)
    return shares


def _draw_counts(
    size: int, mix: np.ndarray, left: np.ndarray, rng: np.random.Generator
) -> np.ndarray:
    """How many rows of each class `size` draws from the mix give, one that has run out left out.

    What is drawn of a class beyond its rows is drawn again: the law of drawing one by one.
    """
    taken = np.zeros_like(left)
    while (missing := size - taken.sum()) > 0:
        chances = np.where(taken < left, mix, 0.0)
        if not chances.any():  # the mix has nothing of what is left
            chances = (left - taken).astype(np.float64)
        taken = np.minimum(taken + rng.multinomial(missing, chances / chances.sum()), left)
    return taken


@read_arguments(PARTITIONS["by_label"])
def by_label(labels_per_worker: int) -> How:
    """No worker sees more than L classes.

    The N·L places are given to classes in proportion to their rows, each class at least one and at
    most N or as many as it has rows; a class is divided equally among its places.

    Args:
      labels_per_worker: L ≥ 1. Where N·L is below the number of classes, the smallest classes
        have no place and their rows are left out.

    Raises:
      ValueError: L is not an integer above 0.

    Reference: the pathological split of H. Brendan McMahan et al., "Communication-Efficient
      Learning of Deep Networks from Decentralized Data", 2017, here with an exact bound on classes.
    """

    def deal(labels, workers, rng):
        groups = _rows_by_class(labels, rng)
        sizes = np.array([len(rows) for rows in groups])
        places = _places(sizes, np.minimum(sizes, workers), workers * labels_per_worker)
        numbering = rng.permutation(workers)
        shares = [[] for _ in range(workers)]
        # Consecutive places go to consecutive workers, and a class has at most N places: so no
        # worker gets two places of one class, and each gets at most L.
        place = 0
        for index in rng.permutation(len(groups)):
            if places[index]:
                for part in np.array_split(groups[index], places[index]):
                    shares[numbering[place % workers]].append(part)
                    place += 1
        return [np.concatenate(share) for share in shares]

    return deal


@read_arguments(PARTITIONS["quantity"])
def quantity(alpha: float) -> How:
    """Rows at random, but unequally many: sizes follow one draw of Dirichlet(α, …, α).

    Args:
      alpha: α > 0; small: few workers hold nearly everything.

    Raises:
      ValueError: α is not a finite number above 0.
    """

    def deal(labels, workers, rng):
        sizes = _proportions(alpha, np.ones(workers), rng)
        cuts = np.cumsum(sizes)[:-1] * (len(labels) - workers)
        # One row each beforehand, so that nobody goes empty.
        cuts = np.round(cuts).astype(int) + np.arange(1, workers)
        return np.split(rng.permutation(len(labels)), cuts)

    return deal


def _proportions(alpha: float, weights: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A draw of Dirichlet(α·weights); its limits where α is too small or large for floats."""
    if alpha < 1e-8:
        return np.eye(len(weights))[rng.choice(len(weights), p=weights / weights.sum())]
    return rng.dirichlet(min(alpha, 1e16) * weights)


def _rows_by_class(labels: np.ndarray, rng: np.random.Generator) -> list[np.ndarray]:
    return [rng.permutation(np.flatnonzero(labels == label)) for label in range(labels.max() + 1)]


def _places(sizes: np.ndarray, most: np.ndarray, total: int) -> np.ndarray:
    """How many workers share each class: one each, then always where rows per place are most."""
    places = np.zeros(len(sizes), int)
    places[np.argsort(-sizes, kind="stable")[:total]] = 1
    for _ in range(min(total, int(most.sum())) - int(places.sum())):
        rows_per_place = np.where((places > 0) & (places < most), sizes / np.maximum(places, 1), 0)
        if not rows_per_place.any():
            break
        places[np.argmax(rows_per_place)] += 1
    return places


def _fill_empty(shares: list[np.ndarray]) -> list[np.ndarray]:
    """Give each worker without rows one row of the worker that has most."""
    shares = list(shares)
    for index, share in enumerate(shares):
        if len(share) == 0:
            largest = max(range(len(shares)), key=lambda i: len(shares[i]))
            shares[index], shares[largest] = shares[largest][-1:], shares[largest][:-1]
    return shares

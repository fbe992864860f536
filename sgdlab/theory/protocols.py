"""What a protocol does with N workers: how stale its messages are, how often it updates.

N workers are always busy or made to wait by the protocol, none fails, and the start is forgotten.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from sgdlab.theory.durations import (
    harmonic_number,
    mean_backup_time,
    mean_order_statistic,
    mean_time,
)


def implicit_momentum(workers: int) -> float:
    """The decay of the momentum that asynchrony adds: γ = 1 − 1/N.

    With memoryless, equally fast workers and each message applied alone, E[w] on a quadratic
    follows the EMA form of momentum with this γ and the same η, its buffer started at ∇f(w₀).

    Args:
      workers: N ≥ 1.

    Returns:
      γ.

    Reference:
      Mitliagkas, Zhang, Hadjis and Ré, "Asynchrony begets momentum, with an application to deep
      learning", 2016, of which the abstract was read; on the quadratic it is derived here.
    """
    return 1.0 - 1.0 / workers


def memoryless_staleness(rate: float, size: int) -> np.ndarray:
    """The geometric law P(τ = l) = p(1−p)^l.

    Asynchronous SGD with N memoryless, equally fast workers has p = 1/N: whichever update comes
    next, the message at hand is it with probability 1/N.

    Args:
      rate: p in (0, 1].
      size: how many probabilities, from τ = 0 on.

    Returns:
      `[size]` float64; the tail beyond has mass (1−p)^size.

    Reference:
      Mitliagkas, Zhang, Hadjis and Ré, "Asynchrony begets momentum, with an application to deep
      learning", 2016.
    """
    return rate * (1.0 - rate) ** np.arange(size)


def mean_staleness(
    protocol: str, workers: int, compute: Mapping[str, Any] | None = None, **parameters: Any
) -> float | None:
    """The mean staleness of the used messages, in updates, where it is known.

    Each update ages by one every message that it leaves outstanding, so the mean is the number
    of those over the number of messages that it uses, whatever the speeds:
    N − 1 (`asynchronous`), (N−1)/K (`k_batch_async`), (N−K)/K (`k_async`). An update of
    `wait_for_all` uses N·H_N messages on average where times are exponential, N where they are
    constant, and leaves N − 1. In each round of `bounded_staleness` at bound 0 the staleness goes
    from 0 to N−1. The synchronous protocols have none, the queues what they were told.

    Args:
      protocol: its name in `sgdlab.timelines`.
      workers: N ≥ 1.
      compute: the compute model that all workers share, `{"name": ..., ...}`.
      **parameters: the protocol's own; others are ignored.

    Returns:
      The mean, or None where nothing is known.

    Reference:
      Little, "A proof for the queuing formula: L = λW", 1961.
    """
    form = _same_staleness(protocol, workers, parameters)
    known = {
        "synchronous": lambda: 0.0,
        "asynchronous": lambda: workers - 1.0,
        "k_async": lambda: workers / parameters["k"] - 1.0,
        "k_batch_async": lambda: (workers - 1.0) / parameters["k"],
        "wait_for_all": lambda: _left_over_used(workers, _name(compute)),
        "barrier": lambda: (workers - 1.0) / 2.0,
        "fixed_delay": lambda: float(parameters["delay"]),
        "random_delay": lambda: float(
            np.dot(parameters["probabilities"], np.arange(len(parameters["probabilities"])))
        ),
    }
    return known[form]() if form in known else None


def staleness_distribution(
    protocol: str,
    workers: int,
    compute: Mapping[str, Any] | None = None,
    *,
    size: int,
    **parameters: Any,
) -> np.ndarray | None:
    """P(τ = 0), …, P(τ = size−1) of the used messages, where it is known.

    With equal exponential times all workers look alike after any event:

    - `asynchronous` is `memoryless_staleness` with p = 1/N, `k_async` with p = K/N;
    - `k_batch_async`: τ = ⌊(R + A)/K⌋, A geometric with p = 1/N the arrivals of others meanwhile
      and R uniform on 0 … K−1 the messages already held.

    With equal constant times `asynchronous` has τ = N−1. Whatever the times, the synchronous
    protocols have τ = 0, `bounded_staleness` at bound 0 has each of 0 … N−1 once a round, and the
    queues have what they were told.

    Args:
      protocol: its name in `sgdlab.timelines`.
      workers: N ≥ 1.
      compute: the compute model that all workers share, `{"name": ..., ...}`.
      size: how many probabilities.
      **parameters: the protocol's own; others are ignored.

    Returns:
      `[size]` float64, or None where nothing is known.

    Reference:
      Mitliagkas, Zhang, Hadjis and Ré, "Asynchrony begets momentum, with an application to deep
      learning", 2016, for `asynchronous`.
    """
    form, name = _same_staleness(protocol, workers, parameters), _name(compute)
    known = {
        ("synchronous", None): lambda: _point(0, size),
        ("barrier", None): lambda: (np.arange(size) < workers) / workers,
        ("fixed_delay", None): lambda: _point(parameters["delay"], size),
        ("random_delay", None): lambda: _padded(parameters["probabilities"], size),
        ("asynchronous", "constant"): lambda: _point(workers - 1, size),
        ("asynchronous", "exponential"): lambda: memoryless_staleness(1 / workers, size),
        ("k_async", "exponential"): lambda: memoryless_staleness(parameters["k"] / workers, size),
        ("k_batch_async", "exponential"): lambda: _buffered(workers, parameters["k"], size),
    }
    formula = known.get((form, None)) or known.get((form, name))
    return formula() if formula else None


def mean_update_time(
    protocol: str, workers: int, compute: Mapping[str, Any], **parameters: Any
) -> float | None:
    """The mean seconds between updates in the long run, where it is known.

    With T the mean time and X₍k₎ the k-th smallest of N: `synchronous` E[X₍N₎], `k_sync` E[X₍K₎],
    `bounded_staleness` at bound 0 E[X₍N₎]/N; `asynchronous` T/N and `k_batch_async` K·T/N
    (renewals, any times). With exponential times also `k_async` E[X₍K₎], `k_sync` with stop=False
    T·`mean_backup_time`, `k_batch_sync` with stop=True K·T/N, and `wait_for_all` T·H_N. `malenia`
    with stop=True waits for each one's first message, E[X₍N₎], where S < N, and takes T(⌊S/N⌋ + 1)
    where times are constant.

    Args:
      protocol: its name in `sgdlab.timelines`.
      workers: N ≥ 1, without network or failures.
      compute: the compute model that all workers share, `{"name": ..., ...}`, in seconds a message.
      **parameters: the protocol's own; others are ignored.

    Returns:
      Seconds, or None where nothing is known.

    Reference:
      Dutta, Joshi, Ghosh, Dube and Nagpurkar, "Slow and stale gradients can win the race", 2018.
    """
    form, name = _same_pace(protocol, workers, parameters), _name(compute)
    mean, k = mean_time(compute), parameters.get("k", workers)
    if mean is None:
        return None
    known = {
        ("synchronous", None): lambda: mean_order_statistic(compute, workers, workers),
        ("k_sync", None): lambda: mean_order_statistic(compute, workers, k),
        ("backup", "exponential"): lambda: mean * mean_backup_time(workers, k),
        ("k_batch_sync, stopping", "exponential"): lambda: mean * k / workers,
        ("malenia, stopping", "constant"): lambda: mean * (parameters["samples"] // workers + 1),
        ("k_async", "exponential"): lambda: mean_order_statistic(compute, workers, k),
        ("k_batch_async", None): lambda: mean * k / workers,
        ("asynchronous", None): lambda: mean / workers,
        ("wait_for_all", "exponential"): lambda: mean * harmonic_number(workers),
        ("barrier", None): lambda: _share(mean_order_statistic(compute, workers, workers), workers),
    }
    formula = known.get((form, None)) or known.get((form, name))
    return formula() if formula else None


def _same_staleness(protocol: str, workers: int, parameters: Mapping[str, Any]) -> str:
    """The plainest protocol whose messages are as stale as this one's with these parameters."""
    only_fresh = protocol in ("k_sync", "k_batch_sync", "malenia") or (
        protocol == "ringmaster" and parameters.get("threshold") == 1
    )
    return "synchronous" if only_fresh else _same_pace(protocol, workers, parameters)


def _same_pace(protocol: str, workers: int, parameters: Mapping[str, Any]) -> str:
    """The plainest protocol that behaves as this one does, in time as well as in staleness.

    Three forms are no protocol's name: "barrier" is `bounded_staleness` at bound 0, "backup"
    `k_sync` with stop=False, and a protocol that runs on by default may be "…, stopping".
    """
    forms = {
        "window": ("wait", {0: "asynchronous", math.inf: "synchronous"}),
        "ringmaster": ("threshold", {math.inf: "asynchronous"}),
        "bounded_staleness": ("bound", {0: "barrier"}),
        "k_async": ("k", {workers: "synchronous"}),
        "k_sync": ("k", {workers: "synchronous"}),
    }
    parameter, names = forms.get(protocol, ("", {}))
    form = names.get(parameters.get(parameter), protocol)
    if form == "k_sync":
        return form if parameters.get("stop", True) else "backup"
    if form in ("k_batch_sync", "malenia") and parameters.get("stop"):
        one_of_each = form == "malenia" and parameters["samples"] < workers
        return "synchronous" if one_of_each else f"{form}, stopping"
    return form


def _name(compute: Mapping[str, Any] | None) -> str | None:
    return compute["name"] if compute else None


def _share(time: float | None, workers: int) -> float | None:
    return None if time is None else time / workers


def _left_over_used(workers: int, compute: str | None) -> float | None:
    """(N − 1)/E[messages an update]: the coupon collector's N·H_N, or N."""
    if compute == "exponential":
        return (workers - 1.0) / (workers * harmonic_number(workers))
    return (workers - 1.0) / workers if compute == "constant" else None


def _point(value: int, size: int) -> np.ndarray:
    return (np.arange(size) == value).astype(np.float64)


def _padded(probabilities: Sequence[float], size: int) -> np.ndarray:
    return np.pad(np.asarray(probabilities, np.float64), (0, size))[:size]


def _buffered(workers: int, k: int, size: int) -> np.ndarray:
    """The law of ⌊(R + A)/K⌋, R uniform on 0 … K−1 and A geometric."""
    arrivals = memoryless_staleness(1 / workers, size * k)
    return np.convolve(arrivals, np.full(k, 1 / k))[: size * k].reshape(size, k).sum(axis=1)

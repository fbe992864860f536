"""How long work takes, in seconds: order statistics of compute times, bounds and rates."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np


def harmonic_number(n: int) -> float:
    """H_n = 1 + 1/2 + … + 1/n, and H₀ = 0.

    Args:
      n: n ≥ 0.

    Returns:
      The sum, added from its small end.
    """
    return math.fsum(1.0 / k for k in range(1, n + 1))


def mean_order_statistic(compute: Mapping[str, Any], workers: int, k: int) -> float | None:
    """The mean of the k-th smallest of N independent times, where it has a closed form.

    - `constant`: the constant;
    - `exponential` of mean μ: μ(H_N − H_{N−k});
    - `shifted_exponential` of mean μ, shift Δ: Δ + (μ−Δ)(H_N − H_{N−k});
    - `uniform` on [low, high]: low + (high − low)·k/(N+1);
    - `pareto` of shape a, smallest value m = mean·(a−1)/a:
      m·Γ(N+1)Γ(N−k+1−1/a) / (Γ(N+1−1/a)Γ(N−k+1)).

    With k = N it is the round of synchronous SGD, with k = K the step of `k_sync`.

    Args:
      compute: a compute model of `sgdlab.timelines`, `{"name": ..., ...}`, times in seconds.
      workers: N ≥ 1.
      k: 1 ≤ k ≤ N.

    Returns:
      Seconds, or None for other compute models.

    Reference:
      Dutta, Joshi, Ghosh, Dube and Nagpurkar, "Slow and stale gradients can win the race", 2018,
      for the exponentials; David and Nagaraja, "Order statistics", 2003, is the book on the
      others, not read: uniform and Pareto times follow from the beta law of the k-th of N uniforms.
    """
    gap = harmonic_number(workers) - harmonic_number(workers - k)
    match dict(compute):
        case {"name": "constant", "mean": mean}:
            return float(mean)
        case {"name": "exponential", "mean": mean}:
            return mean * gap
        case {"name": "shifted_exponential", "mean": mean, "shift": shift}:
            return shift + (mean - shift) * gap
        case {"name": "uniform", "low": low, "high": high}:
            return low + (high - low) * k / (workers + 1)
        case {"name": "pareto", "mean": mean, "shape": shape}:
            return mean * (shape - 1) / shape * _pareto_factor(workers, k, 1 / shape)
    return None


def mean_time(compute: Mapping[str, Any]) -> float | None:
    """The mean of one compute time.

    Args:
      compute: a compute model of `sgdlab.timelines`, `{"name": ..., ...}`, times in seconds.

    Returns:
      Seconds, or None where the model doesn't state it.
    """
    known = ("constant", "exponential", "shifted_exponential", "lognormal", "gamma", "pareto")
    if compute["name"] == "uniform":
        return (compute["low"] + compute["high"]) / 2
    return float(compute["mean"]) if compute["name"] in known else None


def mean_backup_time(workers: int, k: int) -> float:
    """The mean update time of backup workers that run on, in mean times of a message.

    An update finds K workers that read afresh and N − K that still compute at an older version.
    With memoryless times the update comes as the K-th smallest of N independent times, of which K
    are exponential of mean 1 and N − K the sum of two such. With c in and l late among the N − c at
    work, the next to finish is any of them alike: a late one becomes a fresh one, a fresh one
    is in.

    Args:
      workers: N ≥ 1.
      k: 1 ≤ k ≤ N.

    Returns:
      The mean, in units of the mean time of one message; H_N where K = N.

    Reference:
      The protocol: Chen, Pan, Monga, Bengio and Jozefowicz, "Revisiting distributed synchronous
      SGD", 2016; the recursion is ours.
    """
    left = [0.0] * (workers - k + 1)  # the mean time left, by how many are late
    for busy in range(workers - k + 1, workers + 1):
        before = 0.0
        for late, then in enumerate(left):
            left[late] = before = (1.0 + late * before + (busy - late) * then) / busy
    return left[-1]


def malenia_time_bound(times: Sequence[float] | np.ndarray, samples: int) -> float:
    """The longest that an update of Malenia SGD takes: max(h, 2·h̄·S/N).

    h is the slowest and h̄ the mean time. After t ≥ h seconds worker i has brought
    ⌊t/hᵢ⌋ > t/(2hᵢ) messages, whose harmonic mean exceeds t/(2h̄). The bound holds when all start
    afresh, and twice it when each must first finish a stale gradient.

    Args:
      times: `[N]` seconds per gradient, fixed, in any order.
      samples: S ≥ 1.

    Returns:
      Seconds.

    Reference:
      The protocol: Tyurin and Richtárik, "Optimal time complexities of parallel stochastic
      optimization methods under a fixed computation model", 2023; the bound is ours, of the order
      of theirs, h + h̄·S/N.
    """
    seconds = np.asarray(times, np.float64)
    return float(max(seconds.max(), 2.0 * seconds.mean() * samples / len(seconds)))


def rennala_time_bound(times: Sequence[float] | np.ndarray, batch: int) -> float:
    """The longest that B gradients at one version take: min over m of (B+m) / Σ_{i≤m} 1/hᵢ.

    Workers are sorted by speed, h₁ ≤ h₂ ≤ …; the bound holds when all start afresh, and twice it
    when each must first finish a stale gradient.

    Args:
      times: `[N]` seconds per gradient, fixed, in any order.
      batch: B ≥ 1.

    Returns:
      Seconds.

    Reference:
      Tyurin and Richtárik, "Optimal time complexities of parallel stochastic optimization
      methods under a fixed computation model", 2023, whose time complexity has this form, as later
      papers of Tyurin restate it; it holds since Σ⌊t/hᵢ⌋ > Σt/hᵢ − m.
    """
    rates = np.cumsum(1.0 / np.sort(np.asarray(times, np.float64)))
    return float(np.min((batch + np.arange(1, len(rates) + 1)) / rates))


def asynchronous_throughput(mean_times: Sequence[float] | np.ndarray) -> float:
    """Updates per second of asynchronous SGD in the long run: Σ 1/T_i, whatever the laws.

    Args:
      mean_times: `[N]` seconds, each worker's mean time for one message.

    Returns:
      Updates per second.

    Reference:
      The elementary renewal theorem, worker by worker.
    """
    return float(np.sum(1.0 / np.asarray(mean_times, np.float64)))


def _pareto_factor(workers: int, k: int, inverse_shape: float) -> float:
    above = workers - k + 1
    return math.exp(
        math.lgamma(workers + 1)
        - math.lgamma(workers + 1 - inverse_shape)
        + math.lgamma(above - inverse_shape)
        - math.lgamma(above)
    )

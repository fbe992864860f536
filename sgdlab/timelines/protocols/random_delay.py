"""The queue of stale gradients with a delay drawn for every update.

Reference: Mitliagkas, Zhang, Hadjis and Ré, "Asynchrony begets Momentum, with an Application to
Deep Learning", 2016, where the delays of memoryless workers are geometric.
"""

import math
from collections.abc import Sequence
from typing import Annotated, Any

import numpy as np

from sgdlab.arguments import show, unwrap_all
from sgdlab.timelines.arguments import (
    Examples,
    Probability,
    Seed,
    TimelineError,
    Updates,
    check_argument,
)
from sgdlab.timelines.timeline import IN_FLIGHT, Timeline

Probabilities = Annotated[Sequence[Probability], Examples(lambda n: [[0.4, 0.2, 0.2, 0.1, 0.1]])]


def random_delay(probabilities: Probabilities, *, updates: Updates, seed: Seed = 0) -> Timeline:
    """Update t uses the gradient at version max(0, t − dₜ), with P(dₜ = l) given; no cluster.

    Args:
      probabilities: P(d = 0), P(d = 1), ..., summing to 1.
      updates: T.
      seed: of the delays.

    Returns:
      The timeline: one update a second; message t is worker t mod N's, N the number of
      probabilities.

    Raises:
      TimelineError: the probabilities are none, or an argument is out of range.
    """
    probabilities = _check(probabilities)
    updates = check_argument("random_delay", "updates", Updates, updates)
    seed = check_argument("random_delay", "seed", Seed, seed)
    largest = len(probabilities) - 1
    chances = np.random.default_rng(seed).random(updates + largest + 1)
    steps = np.cumsum(np.asarray(probabilities, np.float64))
    delays = np.minimum(np.searchsorted(steps, chances, side="right"), largest)
    parameters = {"probabilities": [float(p) for p in probabilities]}
    metadata = {"protocol": "random_delay", "parameters": parameters, "seed": int(seed)}
    return queue(delays, largest, updates, metadata)


def queue(delays: np.ndarray, largest: int, updates: int, metadata: dict[str, Any]) -> Timeline:
    """The timeline in which update t comes at second t + 1 and uses what was read at t − delay.

    Args:
      delays: `[updates + largest + 1]` int64, of the applied messages and of those begun after.
      largest: the largest possible delay; there is one worker more.
      updates: T.
      metadata: of the timeline, without cluster and seconds.
    """
    message = np.arange(len(delays))
    read = np.maximum(0, message - delays)
    begun = (message < updates) | (read <= updates)
    message, read = message[begun], read[begun]
    applied = message < updates
    finish = np.where(applied, message + 1.0, np.inf)
    return Timeline(
        num_workers=largest + 1,
        worker=message % (largest + 1),
        read_version=read,
        start_time=read.astype(np.float64),
        compute_end=finish,
        arrival_time=finish,
        update=np.where(applied, message, IN_FLIGHT),
        apply_time=np.arange(1.0, updates + 1),
        metadata=metadata | {"cluster": None, "seconds": float(updates)},
    )


def _check(given: Sequence[float]) -> list[float]:
    given = unwrap_all(given)
    if not isinstance(given, list | tuple) or not given:
        raise TimelineError(f"random_delay: probabilities is {show(given)}; allowed: a list")
    probabilities = [
        check_argument("random_delay", f"probabilities[{index}]", Probability, probability)
        for index, probability in enumerate(given)
    ]
    total = math.fsum(probabilities)
    if abs(total - 1) > 1e-6 or not probabilities[-1] > 0:
        raise TimelineError(
            f"random_delay: probabilities sum to {total} and end with {probabilities[-1]}; "
            "allowed: a sum of 1 and a last one > 0"
        )
    return probabilities

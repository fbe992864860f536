"""How long a timeline may become: told before it is drawn where that can be known, else meanwhile.

Clocks whose times vanish beside the time of day (an addition that changes nothing) never come to an
end, and nor do those at infinity; both are found where a message is begun.
"""

from __future__ import annotations

from typing import Any, NoReturn

import numpy as np

from sgdlab.timelines.arguments import MAX_MESSAGES, TimelineError
from sgdlab.timelines.cluster import Cluster

_MAX_TRIES = 1e6  # mean times to a failure within a message's mean time
_MAX_GRADIENTS = 2**30  # compute times drawn, some ten nanoseconds each


def most_messages(cluster: Cluster) -> int:
    """How many messages a timeline of this cluster may have."""
    return min(MAX_MESSAGES, _MAX_GRADIENTS // cluster.gradients_per_message)


def fewest_messages(cluster: Cluster, seconds: float) -> float:
    """About how many messages so many seconds bring under every protocol, at the least.

    Where all wait for one another, the slowest worker says how many rounds there are. The law of
    large numbers is all that this rests on, so it is held against limits that are far away. 0 where
    machines fail, come or go, for then nothing is said.
    """
    if cluster.failures or cluster.joins or cluster.leaves:
        return 0.0
    network, slowest = cluster.network, float(cluster.mean_seconds.max())
    each = slowest * cluster.gradients_per_message
    if network is not None:
        around = 2 * network.transfer_seconds + network.collective_seconds(cluster.workers)
        each += around + network.service_time * cluster.workers
    return seconds / each if each > 0 else np.inf


def check_length(cluster: Cluster, per_update: int = 1, **horizon: Any) -> None:
    """Refuse a horizon that asks for more messages than a timeline may have.

    Args:
      cluster: the machines.
      per_update: how many messages an update needs at the least.
      **horizon: `updates`, `seconds` or `gradients`.

    Raises:
      TimelineError: names the horizon, and how many messages it makes.
    """
    fastest = float(cluster.mean_seconds.min()) * cluster.gradients_per_message
    if cluster.failures and fastest > _MAX_TRIES * cluster.failures.mtbf:
        raise TimelineError(
            f"failures: mtbf is {cluster.failures.mtbf}; allowed: enough to finish messages of "
            f"{fastest:.3g} s"
        )
    limit = most_messages(cluster)
    found = {name: value for name, value in horizon.items() if value is not None}
    for name, value in found.items():
        messages = value * per_update
        if name == "seconds":
            messages = fewest_messages(cluster, value)
        elif name == "gradients":
            messages = value / cluster.gradients_per_message
        if messages > limit:
            raise TimelineError(
                f"{name}: {value} make {messages:.3g} messages; allowed: {limit:,}, with compute "
                f"times in seconds (their mean is {float(cluster.mean_seconds.mean()):.3g} s)"
            )


def refuse_length(now: float, limit: int) -> NoReturn:
    """What is said of a timeline that has become too long while it was drawn."""
    raise TimelineError(
        f"timeline: {limit:,} messages by {now:.6g} s; allowed: so many at the most: an earlier "
        "end, fewer workers, or longer compute times"
    )


def refuse_standing(worker: int, now: float) -> NoReturn:
    """What is said of a clock that stands still."""
    raise TimelineError(
        f"compute: worker {worker}'s clock stands still at {now:.6g} s, its times vanish beside "
        "that; allowed: times that a float64 can add up"
    )


def refuse_infinity(worker: int, now: float) -> NoReturn:
    """What is said of a clock whose next time is no number."""
    raise TimelineError(
        f"compute: worker {worker}'s message begun at {now:.6g} s ends at infinity; allowed: times "
        "that a float64 can add up"
    )

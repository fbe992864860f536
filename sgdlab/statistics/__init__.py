"""What replicates say: directions of metrics, times to a target, resamples. NumPy only.

A replicate that failed is never left out of a statistic: one that never reached its target took
forever, one whose metric is not finite ended worst.
"""

from sgdlab.statistics.bootstrap import RESAMPLES, Resamples, interval
from sgdlab.statistics.metrics import (
    Direction,
    check_directions,
    direction_of,
    first_reaching,
    headline,
    median,
    read_times,
    standing,
    time_to,
    with_worst,
)

__all__ = [
    "RESAMPLES",
    "Direction",
    "Resamples",
    "check_directions",
    "direction_of",
    "first_reaching",
    "headline",
    "interval",
    "median",
    "read_times",
    "standing",
    "time_to",
    "with_worst",
]

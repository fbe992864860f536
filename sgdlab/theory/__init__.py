"""What the papers predict: closed forms of delay, staleness, time and batch size, in NumPy."""

from sgdlab.theory.batches import (
    best_step,
    gradient_noise_scale,
    linear_scaling_variance,
    simple_noise_scale,
)
from sgdlab.theory.durations import (
    asynchronous_throughput,
    harmonic_number,
    malenia_time_bound,
    mean_backup_time,
    mean_order_statistic,
    mean_time,
    rennala_time_bound,
)
from sgdlab.theory.protocols import (
    implicit_momentum,
    mean_staleness,
    mean_update_time,
    memoryless_staleness,
    staleness_distribution,
)
from sgdlab.theory.quadratic import (
    best_delayed_step,
    characteristic_polynomial,
    contraction,
    stability_limit,
    stationary_variance,
)

__all__ = [
    "asynchronous_throughput",
    "best_delayed_step",
    "best_step",
    "characteristic_polynomial",
    "contraction",
    "gradient_noise_scale",
    "harmonic_number",
    "implicit_momentum",
    "linear_scaling_variance",
    "malenia_time_bound",
    "mean_backup_time",
    "mean_order_statistic",
    "mean_staleness",
    "mean_time",
    "mean_update_time",
    "memoryless_staleness",
    "rennala_time_bound",
    "simple_noise_scale",
    "stability_limit",
    "staleness_distribution",
    "stationary_variance",
]

"""How long a gradient takes here: measured, and fitted by a compute model of the cluster."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from sgdlab.experiment.config.experiment import Experiment, load_experiment
from sgdlab.experiment.config.schema import Config
from sgdlab.experiment.running.workshop import Workshop
from sgdlab.precision import get_policy
from sgdlab.tasks.rows import count_rows, take_rows
from sgdlab.training.gradients import make_value_and_grad

REPEATS = 300
_WARM = 10  # runs that are not counted: the first compiles, the next find their memory
_DIGITS = 4  # what so many repeats can tell


class Calibration(NamedTuple):
    """One gradient, timed again and again.

    Attributes:
      compute: the compute model, as a config writes it: `{"name": ..., "mean": ..., ...}`.
      seconds: `[repeats]` float64, the measured times in their order.
      log_likelihood: name of each model that was fitted to its mean log-likelihood, nats a time.
      task: the task's name.
      batch_size: rows in the minibatch.
      policy: the precision policy, as the config says it.
      device: where it ran.
    """

    compute: dict[str, Any]
    seconds: np.ndarray
    log_likelihood: dict[str, float]
    task: str
    batch_size: int
    policy: Any
    device: str


def calibrate_experiment(
    source: Experiment | Config | str | Path | Mapping[str, Any], *, repeats: int = REPEATS
) -> str:
    """The `compute:` block of an experiment on this machine, to paste into its config.

    Args:
      source: an experiment, one point of it, or its file or data; of a sweep the first point.
      repeats: how many gradients are timed.

    Returns:
      YAML text.

    Raises:
      ConfigError: the config cannot be run.
      DataError: a data file is missing or damaged.
      ValueError: `repeats` is below 2.
    """
    return format_block(calibrate(source, repeats=repeats))


def calibrate(
    source: Experiment | Config | str | Path | Mapping[str, Any], *, repeats: int = REPEATS
) -> Calibration:
    """Time one gradient of an experiment's task at its batch size and precision.

    A gradient is the program that a worker runs: it gathers its minibatch from the training rows
    and differentiates the loss under the precision policy. Compiling is not counted, and each run
    is waited for. A time holds the machine's own overhead and whatever else runs on it meanwhile.

    Args:
      source: an experiment, one point of it, or its file or data; of a sweep the first point.
      repeats: how many gradients are timed.

    Returns:
      The `Calibration`, its model the likelier one of log-normal and gamma.

    Raises:
      ConfigError: the config cannot be run.
      DataError: a data file is missing or damaged.
      ValueError: `repeats` is below 2.
    """
    if repeats < 2:
        raise ValueError(f"calibrate: repeats is {repeats}; allowed: an integer >= 2")
    config = _config(source)
    workshop = Workshop()
    seconds = _time_gradients(config, workshop, repeats)
    compute, log_likelihood = fit_times(seconds)
    device = jax.devices()[0]
    return Calibration(
        compute=compute,
        seconds=seconds,
        log_likelihood=log_likelihood,
        task=workshop.task(config).name,
        batch_size=config.worker.arguments()["batch_size"],
        policy=config.precision.policy,
        device=f"{device.platform} ({device.device_kind})",
    )


def fit_times(seconds: np.ndarray) -> tuple[dict[str, Any], dict[str, float]]:
    """The likelier of a log-normal and a gamma distribution, each at its maximum likelihood.

    Log-normal: σ² is the variance of log t, and the mean exp(E[log t] + σ²/2). Gamma: its mean is
    that of t, and its shape k solves log k − ψ(k) = log E[t] − E[log t].

    Args:
      seconds: `[n]` float64 > 0, n ≥ 2.

    Returns:
      `(compute, log_likelihood)`: the model as a config writes it, and for each model its mean
      log-likelihood in nats a time. Times that are all equal are `constant`.

    Reference:
      Minka, "Estimating a Gamma distribution", 2002, for the shape.
    """
    seconds = np.asarray(seconds, np.float64)
    logs, mean = np.log(seconds), float(seconds.mean())
    sigma = float(logs.std())
    gap = math.log(mean) - float(logs.mean())
    if sigma < 1e-6:  # below, the gap that gives the gamma's shape is lost in rounding
        return {"name": "constant", "mean": mean}, {"constant": math.inf}
    shape = _gamma_shape(gap)
    lognormal_mean = math.exp(float(logs.mean()) + sigma**2 / 2)
    models = {
        "lognormal": {"name": "lognormal", "mean": lognormal_mean, "sigma": sigma},
        "gamma": {"name": "gamma", "mean": mean, "shape": shape},
    }
    rate, average = shape / mean, float(logs.mean())
    log_likelihood = {
        "lognormal": -average - math.log(sigma * math.sqrt(2 * math.pi)) - 0.5,
        "gamma": shape * math.log(rate) - math.lgamma(shape) + (shape - 1) * average - shape,
    }
    return models[max(log_likelihood, key=log_likelihood.__getitem__)], log_likelihood


def format_block(calibration: Calibration) -> str:
    """The calibration as YAML to paste into a config, with a comment that says where it is from."""
    seconds, policy = calibration.seconds, calibration.policy
    low, middle, high = (_plain(q) for q in np.quantile(seconds, [0.05, 0.5, 0.95]))
    numbers = "in mixed precisions" if isinstance(policy, Mapping) else f"in {policy}"
    compute = ", ".join(
        f"{name}: {value if isinstance(value, str) else _plain(value)}"
        for name, value in calibration.compute.items()
    )
    return (
        f"# One gradient of {calibration.task}: {calibration.batch_size} rows {numbers} on "
        f"{calibration.device},\n"
        f"# timed {len(seconds)} times: median {middle} s, nine in ten within {low} to {high} s.\n"
        f"cluster:\n  compute: {{{compute}}}\n"
    )


def _config(source: Any) -> Config:
    if isinstance(source, Config):
        return source
    experiment = source if isinstance(source, Experiment) else load_experiment(source)
    return experiment.points[0].config


def _time_gradients(config: Config, workshop: Workshop, repeats: int) -> np.ndarray:
    """`[repeats]` float64 seconds, one minibatch after another."""
    task, scale = workshop.task(config), workshop.loss_scale(config)
    policy = get_policy(config.precision.policy)
    value_and_grad = make_value_and_grad(task, policy, scale)
    key = jax.random.key(config.seed)
    train = jax.tree.map(jnp.asarray, task.train)
    params = policy.cast_to_param(jax.jit(task.init)(key))
    shape = (config.worker.arguments()["batch_size"],)
    size = count_rows(train)
    rng = np.random.default_rng(config.seed)

    @jax.jit
    def gradient(params, train, rows, key):
        batch = take_rows(train, rows)
        (loss, _), message = value_and_grad(params, batch, key)
        return loss, message

    seconds = np.empty(_WARM + repeats)
    for index in range(len(seconds)):
        rows = jnp.asarray(rng.integers(size, size=shape), jnp.int32)
        own = jax.random.fold_in(key, index) if task.needs_key else None
        jax.block_until_ready((rows, own))
        start = time.perf_counter()
        jax.block_until_ready(gradient(params, train, rows, own))
        seconds[index] = time.perf_counter() - start
    return seconds[_WARM:]


def _gamma_shape(gap: float) -> float:
    """k with log k − ψ(k) = gap, by Newton's method on 1/k from a start within 2 %."""
    from scipy.special import digamma, polygamma

    shape = (3 - gap + math.sqrt((gap - 3) ** 2 + 24 * gap)) / (12 * gap)
    for _ in range(8):
        miss = math.log(shape) - float(digamma(shape)) - gap
        minus_slope = shape - shape**2 * float(polygamma(1, shape))  # −d miss/d(1/k)
        shape = 1 / (1 / shape + miss / minus_slope)
    return shape


def _plain(value: float) -> str:
    """A number without an exponent, which YAML readers disagree about."""
    return np.format_float_positional(value, precision=_DIGITS, fractional=False, trim="-")

"""A config's cluster and timelines; NumPy only."""

from __future__ import annotations

import inspect
from typing import Any

from sgdlab.experiment.config.schema import HORIZONS, Config
from sgdlab.timelines import PROTOCOLS, Cluster, Timeline, TimelineError


def say_where(error: TimelineError) -> str:
    """An error of a timeline, with the key that it is about; a protocol's where it is none's."""
    text = str(error)
    first = text.partition(":")[0]
    if first in ("compute", "failures", "network"):
        return f"cluster.{text}"
    return text if first in (*HORIZONS, "cluster") else f"protocol: {text}"


def build_cluster(config: Config) -> Cluster:
    """The cluster of a config, its messages as long as the worker program makes them.

    Raises:
      TimelineError: the parts don't fit one another.
    """
    arguments = {} if config.cluster is None else config.cluster.model_dump()
    steps = config.worker.arguments().get("steps", 1)
    return Cluster(**arguments, gradients_per_message=steps)


def draw_timelines(config: Config) -> tuple[Timeline, ...]:
    """The timelines of a config, one for each draw of the clocks; draw d has seed `seed + d`.

    Raises:
      TimelineError: the protocol refuses its arguments, or there is too little memory.
    """
    function = PROTOCOLS[config.protocol.name]
    takes = inspect.signature(function).parameters
    arguments: dict[str, Any] = config.protocol.arguments()
    for key in HORIZONS:
        if getattr(config, key) is not None:
            arguments[key] = getattr(config, key)
    if "cluster" in takes:
        arguments["cluster"] = build_cluster(config)
    seeds = range(config.seed, config.seed + config.timelines)
    each = [{"seed": seed} for seed in seeds] if "seed" in takes else [{}]
    try:
        return tuple(function(**arguments, **seed) for seed in each)
    except MemoryError:
        horizon = next((key for key in HORIZONS if key in arguments), "protocol")
        raise TimelineError(f"{horizon}: too little memory for so long a timeline") from None

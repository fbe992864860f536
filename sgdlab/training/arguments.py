"""What a replay is given, as a NumPy user writes it: taken as plain values, or refused in one line.

Each function takes one argument, gives it back in the one form that the rest of the room knows, and
names it where it can't.
"""

from __future__ import annotations

import functools
import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh

from sgdlab.arguments import show, unwrap, unwrap_all
from sgdlab.tasks import Task
from sgdlab.tasks.rows import take_rows
from sgdlab.timelines import Cluster, Timeline
from sgdlab.workers import WorkerProgram

_RESERVED = ("seed", "timeline", "update", "time")


def read_count(name: str, value: Any, *, optional: bool = False) -> Any:
    """A whole number of at least 1, or `None` where it may be left out."""
    value = unwrap(value)
    if optional and value is None:
        return None
    if not _is_whole(value):
        allowed = "a whole number" + (", or None" if optional else "")
        raise ValueError(f"{name}: {show(value)} given; allowed: {allowed}")
    if value < 1:
        more = ", or None" if optional else ""
        raise ValueError(f"{name}: {value} is too small; at least 1{more}")
    if value >= 2**31:
        raise ValueError(f"{name}: {value} is too large; at most {2**31 - 1}")
    return value


def read_seed(value: Any) -> int:
    """A seed in [0, 2³²)."""
    value = unwrap(value)
    if not _is_whole(value):
        raise ValueError(f"seed: {show(value)} given; allowed: a whole number in [0, 2**32)")
    if not 0 <= value < 2**32:
        raise ValueError(f"seed: {value} is out of range; seeds lie in [0, 2**32)")
    return value


def read_seeds(values: Any) -> list[int]:
    """A list of seeds; an array or a range is one."""
    allowed = "a list of whole numbers in [0, 2**32), such as range(5)"
    seeds = _read_list("seeds", values, allowed)
    if not seeds:
        raise ValueError(f"seeds: none was given; allowed: {allowed}")
    return [read_seed(seed) for seed in seeds]


def read_axes(hyperparameters: Any, make_rule: Callable) -> dict[str, list[float]]:
    """Each hyperparameter's values as a list of numbers that float32 can hold."""
    if hyperparameters is None:
        hyperparameters = {}
    if not isinstance(hyperparameters, Mapping):
        raise ValueError(
            f"hyperparameters: {show(hyperparameters)} given; allowed: a mapping from arguments of "
            'make_rule to lists of values, such as {"learning_rate": [0.1, 0.2]}'
        )
    for name in hyperparameters:
        if not isinstance(name, str) or name in _RESERVED:
            allowed = f"an argument of make_rule, not {', '.join(_RESERVED)}"
            raise ValueError(f"hyperparameters: {show(name)} is no name; allowed: {allowed}")
    _check_names(make_rule, list(hyperparameters))
    return {name: _read_axis(name, values) for name, values in hyperparameters.items()}


def read_timelines(given: Any) -> list[Timeline]:
    """One timeline or several, as a list."""
    if isinstance(given, Timeline):
        return [given]
    if isinstance(given, Cluster):
        raise ValueError(
            "timeline: a Cluster is given; allowed: a Timeline, which a protocol makes of it, as "
            "asynchronous(cluster, updates=1000)"
        )
    allowed = "a Timeline, or a list of them"
    timelines = _read_list("timeline", given, allowed)
    if not timelines:
        raise ValueError(f"timeline: none was given; allowed: {allowed}")
    for each in timelines:
        if not isinstance(each, Timeline):
            raise ValueError(f"timeline: {show(each)} given; allowed: {allowed}")
    return timelines


def read_measures(given: Any) -> frozenset[str]:
    """The names of measures; one alone will do."""
    names = [given] if isinstance(given, str) else list(given)
    for name in names:
        if name not in ("distance", "cosine"):
            raise ValueError(f"measures: {show(name)} is unknown; allowed: distance, cosine")
    return frozenset(names)


def check_rule(rule: Any) -> None:
    """A rule itself, not what makes one."""
    if not isinstance(rule, optax.GradientTransformation):
        made = "is a function that makes one" if callable(rule) else "is none"
        raise ValueError(
            f"rule: {_name(rule)} {made}; allowed: an optax transform, such as rules.sgd(0.1)"
        )


def check_make_rule(make_rule: Any) -> None:
    """What makes rules, not a rule."""
    if isinstance(make_rule, optax.GradientTransformation) or not callable(make_rule):
        made = "a rule" if isinstance(make_rule, optax.GradientTransformation) else show(make_rule)
        raise ValueError(
            f"make_rule: {made} is given; allowed: a function of the hyperparameters that makes "
            'one, such as rules.sgd with hyperparameters={"learning_rate": [0.1]}'
        )


def check_parts(worker: Any, receive: Any, loss_scale: Any, mesh: Any) -> None:
    """What else has a type of its own."""
    if not isinstance(worker, WorkerProgram):
        hint = "workers.gradient() or workers.local_steps(4, rules.sgd(0.1))"
        raise ValueError(f"worker: {_name(worker)} given; allowed: a worker program, as {hint}")
    is_transform = isinstance(receive, optax.GradientTransformation) or callable(receive)
    if receive is not None and not is_transform:
        hint = "rules.scale_by_staleness(1.0); several by optax.chain"
        raise ValueError(f"receive: {_name(receive)} given; allowed: a transform, such as {hint}")
    if loss_scale is not None and not hasattr(loss_scale, "adjust"):
        hint = "None, StaticLossScale(1024.0) or DynamicLossScale()"
        raise ValueError(f"loss_scale: {_name(loss_scale)} given; allowed: {hint}")
    if mesh is not None and not isinstance(mesh, Mesh):
        raise ValueError(f"mesh: {_name(mesh)} given; allowed: what make_mesh gives, or None")


@functools.lru_cache(64)
def check_task(task: Any) -> None:
    """A task whose loss keeps the contract, by its signature and its trace.

    Raises:
      ValueError: what is no task, or a loss that takes or gives something else.
    """
    if not isinstance(task, Task):
        hint = "a Task, such as tasks.digits()"
        raise ValueError(f"task: {_name(task)} given; allowed: {hint}")
    contract = "loss(params, batch, key) -> (loss, metrics)"
    try:
        inspect.signature(task.loss).bind(None, None, None)
    except TypeError:
        found = ", ".join(inspect.signature(task.loss).parameters)
        raise ValueError(f"task: its loss takes ({found}); allowed: {contract}") from None
    params = jax.eval_shape(task.init, jax.random.key(0))
    batch = take_rows(task.train, np.arange(1))
    given = jax.eval_shape(task.loss, params, batch, jax.random.key(0))
    if not isinstance(given, tuple) or len(given) != 2 or not isinstance(given[1], Mapping):
        raise ValueError(f"task: its loss gives {_describe(given)}; allowed: {contract}")
    value, metrics = given
    if getattr(value, "shape", None) != () or not jnp.issubdtype(value.dtype, jnp.floating):
        raise ValueError(
            f"task: its loss is {_describe(value)}; allowed: a scalar, the batch's mean"
        )
    for name, metric in metrics.items():
        if getattr(metric, "shape", None) != ():
            text = f"task: its metric {name} is {_describe(metric)}; allowed: scalars"
            raise ValueError(text)


def _read_list(name: str, values: Any, allowed: str) -> list[Any]:
    values = unwrap_all(values)
    if isinstance(values, str | Mapping) or not hasattr(values, "__iter__"):
        raise ValueError(f"{name}: {show(values)} given; allowed: {allowed}")
    return [unwrap(value) for value in values]


def _read_axis(name: str, given: Any) -> list[float]:
    allowed = "a list of numbers, such as [0.1, 0.2]"
    values = _read_list(f"hyperparameters: {name}", given, allowed)
    if not values:
        raise ValueError(f"hyperparameters: {name} has no value; allowed: {allowed}")
    for value in values:
        if isinstance(value, bool) or not isinstance(value, int | float):
            text = f"hyperparameters: {name}: {show(value)} given; allowed: numbers"
            raise ValueError(text)
        largest = float(np.finfo(np.float32).max)
        if not math.isfinite(value) or abs(value) > largest:
            text = f"{value} given; allowed: finite numbers up to {largest:.3g}"
            raise ValueError(f"hyperparameters: {name}: {text}")
    return values


def _check_names(make_rule: Callable, names: Sequence[str]) -> None:
    """Whether a function of these names can be called."""
    try:
        signature = inspect.signature(make_rule)
    except (TypeError, ValueError):  # some callables of C have none
        return
    try:
        signature.bind(**dict.fromkeys(names))
    except TypeError as error:
        takes = ", ".join(signature.parameters) or "nothing"
        raise ValueError(
            f"hyperparameters: {error}; allowed: what make_rule takes, {takes}"
        ) from None


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _name(value: Any) -> str:
    """What somebody gave: a function by its name, anything else as it shows itself."""
    return f"the function {value.__name__}" if inspect.isfunction(value) else show(value)


def _describe(given: Any) -> str:
    """Shapes in place of values."""
    leaves = [f"{leaf.dtype}{list(leaf.shape)}" for leaf in jax.tree.leaves(given)]
    kind = type(given).__name__ if isinstance(given, tuple | list | Mapping) else "an array"
    return f"{kind} of {', '.join(leaves[:4]) or 'nothing'}"

"""Reading off a timeline's arrays and a program's trace in which form it can be computed."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.extend.core import Var

from sgdlab.precision import Policy
from sgdlab.tasks import Task
from sgdlab.timelines import Timeline
from sgdlab.timelines.early import count_first_readers, reads_in_turn
from sgdlab.timelines.plan import Plan
from sgdlab.training.program import Form
from sgdlab.training.receiving import Receive, as_function
from sgdlab.workers import WorkerProgram, gradient

# The extra arguments of a rule's update, as it is traced; `stale_params` are like the parameters.
EXTRAS = {
    "staleness": np.float32(0),
    "worker": np.int32(0),
    "seconds": np.float32(0),
    "gradients": np.int32(0),
}


class Traits(NamedTuple):
    """What the traces of a program's parts say.

    Attributes:
      params: shapes and dtypes of the parameters.
      receives_untouched: whether `receive` hands every message on as it is.
      has_worker_state: whether a worker keeps anything between messages.
      rule_reads: of `EXTRAS` those that the rule looks at.
      receive_reads: those that `receive` looks at.
      computes_narrower: whether parameters in the compute dtype are narrower than they are kept.
    """

    params: Any
    receives_untouched: bool
    has_worker_state: bool
    rule_reads: frozenset[str]
    receive_reads: frozenset[str]
    computes_narrower: bool


@functools.lru_cache(16)  # a trace takes milliseconds, a warm replay of a small model not many
def find_traits(
    task: Task,
    make_rule: Callable,
    hyperparameters: tuple[str, ...],
    worker: WorkerProgram,
    receive: Receive,
    policy: Policy,
) -> Traits:
    """Trace the parts of a program, the rule with its hyperparameters by name."""
    params = jax.eval_shape(task.init, jax.random.key(0))
    make_receive = as_function(receive)
    kept = jax.eval_shape(policy.cast_to_param, params)
    computed = jax.eval_shape(policy.cast_to_compute, kept)
    return Traits(
        params,
        is_identity(make_receive(**dict.fromkeys(hyperparameters, jnp.float32(0))), params),
        has_state(worker.init, params),
        find_reads(make_rule, hyperparameters, params),
        find_reads(make_receive, hyperparameters, params),
        _count_bytes(computed) < _count_bytes(kept),
    )


def choose_form(
    task: Task,
    worker: WorkerProgram,
    traits: Traits,
    stateful: bool,
    branches: bool,
    timelines: list[Timeline],
    plans: list[Plan],
) -> Form:
    """The form of a replay: read off the arrays, never from a protocol's name.

    Args:
      task: "fused" asks that its loss draws nothing, for a draw belongs to one message.
      worker: "fused" asks for the plain gradient.
      traits: of the program's parts.
      stateful: whether a worker's next message depends on its last, by its state or its loss scale.
      branches: whether an update may be computed in one of two ways: not where members are mapped,
        which would compute both.
      timelines: all that share the program.
      plans: theirs.

    Returns:
      The `Form`.
    """
    count = common([each.messages_per_update for each in plans])
    walk = "walk"
    if count == 1 and not any(each.has_table for each in plans):
        walk = "waves" if _go_in_waves(timelines, plans, stateful) else "single"
    uniform = all(each.is_uniform for each in plans)
    if count is None or not traits.receives_untouched or not uniform:
        return walk
    distinct = not stateful or all(
        _has_distinct_workers(*pair, count) for pair in zip(timelines, plans, strict=True)
    )
    if not distinct:
        return walk
    if worker == gradient() and not task.needs_key and (branches or count == 1):
        return "fused"
    return "mapped" if count > 1 else walk


def can_go_early(traits: Traits, stateful: bool, timelines: list[Timeline]) -> bool:
    """Whether single messages can be computed as soon as their workers have read, to any profit.

    They can where nothing but the message depends on the version that was read. It may pay on a CPU
    where parameters enter matrix products, which take whole buffers only, so that a stale version
    must be copied out of its slot (a message is read where it lies), and where a message is no
    wider than a version in its slot.

    Args:
      traits: of the program's parts.
      stateful: whether a worker's next message depends on its last.
      timelines: all that share the program.

    Returns:
      Whether.
    """
    if stateful or "stale_params" in traits.rule_reads | traits.receive_reads:
        return False
    has_matrix = any(leaf.ndim >= 2 for leaf in jax.tree.leaves(traits.params))
    return has_matrix and not traits.computes_narrower and all(map(reads_in_turn, timelines))


def pays_early(timelines: list[Timeline]) -> bool:
    """Whether a copy less makes up for the messages still under way at the end, nobody's use.

    A copy is some 4 % of an update, as `benchmarks/` has measured.
    """
    return all(25 * count_first_readers(each) <= each.num_updates for each in timelines)


def _count_bytes(shapes: Any) -> int:
    return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(shapes))


def _has_distinct_workers(timeline: Timeline, plan: Plan, count: int) -> bool:
    workers = np.sort(timeline.worker[plan.message].reshape(-1, count), axis=1)
    return not bool(np.any(workers[:, 1:] == workers[:, :-1]))


def _go_in_waves(timelines: list[Timeline], plans: list[Plan], stateful: bool) -> bool:
    """Whether the plans have waves, and no worker two messages in one that depend on each other."""
    if all(len(plan.wave) > plan.num_updates for plan in plans):
        return False
    return not stateful or all(map(_has_distinct_workers_in_waves, timelines, plans))


def _has_distinct_workers_in_waves(timeline: Timeline, plan: Plan) -> bool:
    wave = np.repeat(np.arange(len(plan.wave) - 1), np.diff(plan.wave))
    pairs = wave * timeline.num_workers + timeline.worker[plan.message]
    return len(np.unique(pairs)) == len(pairs)


def find_reads(
    make_rule: Callable, hyperparameters: tuple[str, ...], params: Any
) -> frozenset[str]:
    """Which of the extra arguments, `EXTRAS`, a rule looks at."""

    def update(extra, params, point):
        rule = optax.with_extra_args_support(make_rule(**point))
        return rule.update(params, rule.init(params), params, **extra)[0]

    extra = {**EXTRAS, "stale_params": params}
    point = dict.fromkeys(hyperparameters, jnp.float32(0))
    with jax.numpy_dtype_promotion("standard"):
        jaxpr = jax.make_jaxpr(update)(extra, params, point).jaxpr
    used = {var for eqn in jaxpr.eqns for var in eqn.invars if isinstance(var, Var)}
    used |= {var for var in jaxpr.outvars if isinstance(var, Var)}
    names = [path[0].key for path, _ in jax.tree_util.tree_leaves_with_path(extra)]
    return frozenset(name for name, var in zip(names, jaxpr.invars, strict=False) if var in used)


def is_identity(transform: optax.GradientTransformation, params: Any) -> bool:
    """Whether a transform hands every update through untouched and keeps no state."""

    def update(updates, params):
        extended = optax.with_extra_args_support(transform)
        extra = {**EXTRAS, "stale_params": params, "staleness": np.int32(0)}
        return extended.update(updates, transform.init(params), params, **extra)[0]

    if has_state(transform.init, params):
        return False
    with jax.numpy_dtype_promotion("standard"):
        jaxpr = jax.make_jaxpr(update)(params, params).jaxpr
    return not jaxpr.eqns and jaxpr.outvars == jaxpr.invars[: len(jaxpr.outvars)]


def has_state(init: Callable, params: Any) -> bool:
    """Whether a state made by `init(params)` holds any array."""
    return bool(jax.tree.leaves(jax.eval_shape(init, params)))


def common(values: list[int | None]) -> int | None:
    """The value that all share, or `None`."""
    return values[0] if len(set(values)) == 1 else None

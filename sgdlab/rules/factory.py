"""Rules, transforms and schedules by name: what a config's text becomes.

Names are ours (`table.RULES`, `table.TRANSFORMS`) or optax's (`table.OPTAX_RULES`,
`table.SCHEDULES`); arguments go to the function of that name.
"""

import difflib
import inspect
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import jax
import numpy as np
import optax
import optax.contrib

from sgdlab.arguments import show
from sgdlab.rules import compensation, gap, mixing, staleness, update_rules
from sgdlab.rules.arguments import read_hyperparameter
from sgdlab.rules.fitting import check_fit
from sgdlab.rules.schedules import CountedSchedule, scale_by_rate, split_rate
from sgdlab.rules.table import OPTAX_RULES, RULE_FILLED, RULES, SCHEDULES, TRANSFORMS

_TRANSFORMS = {
    name: getattr(module, name)
    for module in (staleness, compensation, gap, mixing)
    for name in TRANSFORMS
    if hasattr(module, name)
}


def make_rule(name: str, **hyperparameters: Any) -> optax.GradientTransformationExtraArgs:
    """The update rule of that name: one of ours, else optax's.

    Args:
      name: a row of `table.RULES` or `table.OPTAX_RULES`.
      **hyperparameters: the rule's own arguments; numbers may be traced scalars. A learning rate
        may also be a schedule, a `CountedSchedule`, or a mapping that `make_schedule` takes.

    Returns:
      The rule; its `update` accepts and ignores extra arguments it has no use for.

    Raises:
      ValueError: no such rule, not an argument of it, or a learning rate that counts what it can't.
    """
    if not isinstance(name, str):
        raise ValueError(f"rule: {show(name)} given; allowed: a name, such as 'sgd'")
    if name in RULES:
        function = getattr(update_rules, name)
    elif name in OPTAX_RULES:
        function = _from_optax(name)
    else:
        raise ValueError(f"rule {name!r} is unknown: {_allowed(name, [*RULES, *OPTAX_RULES])}")
    arguments = {
        key: make_schedule(value) if _is_specification(key, value) else value
        for key, value in hyperparameters.items()
    }
    rate = None if name in RULES else split_rate(name, arguments)
    if rate is not None:  # optax has it count updates; multiplied by −η, what it makes of −1 is u
        arguments["learning_rate"] = 1.0
        unit = _call("rule", name, function, arguments)
        return optax.chain(unit, optax.scale(-1.0), scale_by_rate(rate))
    return optax.with_extra_args_support(_call("rule", name, function, arguments))


def make_receive(
    transforms: Sequence[Mapping[str, Any]],
    *,
    rule: Mapping[str, Any] | None = None,
    **filled: Any,
) -> optax.GradientTransformationExtraArgs:
    """The chain of staleness-aware transforms that a list of `{name: ..., ...}` describes.

    Args:
      transforms: each with a `name` of `table.TRANSFORMS` and that transform's arguments.
      rule: the rule beside them, its `name` and arguments as for `make_rule`; the transforms that
        need its rate or momentum (`table.RULE_FILLED`) take them from it.
      **filled: what the runner knows of the cluster (`table.RUNNER_FILLED`); each goes to the
        transforms that have such an argument and were not given it.

    Returns:
      The chain; the identity for an empty list.

    Raises:
      ValueError: no such transform, not an argument of it, or not for this rule.
    """
    if isinstance(transforms, str | Mapping) or not all(isinstance(t, Mapping) for t in transforms):
        raise ValueError(
            f"receive: {show(transforms)} given; allowed: a list of {{name: ..., ...}}, such as "
            '[{"name": "drop_stale", "bound": 4}]'
        )
    links = [_make_transform(rule=rule, filled=filled, **each) for each in transforms]
    return optax.chain(*links) if links else optax.with_extra_args_support(optax.identity())


def make_schedule(specification: Mapping[str, Any]) -> optax.Schedule | CountedSchedule:
    """The optax schedule that `{name: ..., ...}` describes.

    Args:
      specification: `name`, a row of `table.SCHEDULES`, and its arguments, which may themselves
        be specifications (`schedules` of `join_schedules`); and `count`, what it counts.

    Returns:
      A function from the update's index, an int32 scalar, to the learning rate; a `CountedSchedule`
      where it counts something else.

    Raises:
      ValueError: no such schedule, or not an argument of it.
    """
    if not isinstance(specification, Mapping):
        raise ValueError(f"schedule: {show(specification)} given; allowed: {{name: ..., ...}}")
    arguments = dict(specification)
    name, count = arguments.pop("name", None), arguments.pop("count", "updates")
    if not isinstance(name, str) or name not in SCHEDULES:
        raise ValueError(f"schedule {name!r} is unknown: {_allowed(name, SCHEDULES)}")
    if "schedules" in arguments:
        arguments["schedules"] = [_make_part(each) for each in arguments["schedules"]]
    schedule = _call("schedule", name, getattr(optax.schedules, name), arguments)
    return schedule if count == "updates" else CountedSchedule(schedule, count)


def _make_part(part: Any) -> optax.Schedule:
    made = make_schedule(part) if isinstance(part, Mapping) else part
    if isinstance(made, CountedSchedule):
        raise ValueError(f"schedule: a part counts {made.count}; allowed: count beside schedules")
    return made


def evaluation_params(state: optax.OptState, params: optax.Params) -> optax.Params:
    """The parameters at which a model trained by a rule is judged.

    Schedule-free rules take gradients at y = (1−β₁)z + β₁x and are judged at the average
    x = (y − (1−β₁)z)/β₁; every other rule is judged where it trains.

    Args:
      state: the state of any rule, chained or not.
      params: the current parameters (y).

    Returns:
      A tree like `params`; `params` itself unless `state` holds a schedule-free state.

    Reference:
      Defazio et al., "The road less scheduled", 2024.
    """
    found = [
        part
        for part in jax.tree.leaves(state, is_leaf=_is_schedule_free)
        if _is_schedule_free(part)
    ]
    return optax.contrib.schedule_free_eval_params(found[0], params) if found else params


def _is_specification(argument: str, value: Any) -> bool:
    # Other mappings are optax's own business: a mask, for one.
    return argument.endswith("learning_rate") and isinstance(value, Mapping)


def _is_schedule_free(part: Any) -> bool:
    return isinstance(part, optax.contrib.ScheduleFreeState)


def _from_optax(name: str) -> Callable[..., optax.GradientTransformation]:
    return getattr(optax, name, None) or getattr(optax.contrib, name)


def _make_transform(
    *,
    rule: Mapping[str, Any] | None,
    filled: Mapping[str, Any],
    name: str | None = None,
    **arguments: Any,
) -> optax.GradientTransformation:
    if not isinstance(name, str) or name not in TRANSFORMS:
        raise ValueError(f"transform {name!r} is unknown: {_allowed(name, TRANSFORMS)}")
    known = {key: value for key, value in filled.items() if key in TRANSFORMS[name]}
    if name in RULE_FILLED and rule is not None:
        check_fit(name, rule)
        known |= _find_step(**rule)
    return _call("transform", name, _TRANSFORMS[name], {**known, **arguments})


def _find_step(name: str, learning_rate: Any, decay: Any = None) -> dict[str, Any]:
    """The rate η and the decay γ of a rule that steps by η times the velocity v ← γv + g."""
    if _is_specification("learning_rate", learning_rate):
        learning_rate = make_schedule(learning_rate)
    if name == "sgd":
        return {"learning_rate": learning_rate, "decay": 0.0}
    decay = RULES[name]["decay"][1] if decay is None else decay
    if name != "momentum":
        return {"learning_rate": learning_rate, "decay": decay}
    share = 1 - decay  # its velocity is an average
    if isinstance(learning_rate, CountedSchedule):
        scaled = _Scaled(learning_rate.schedule, share)
        return {"learning_rate": replace(learning_rate, schedule=scaled), "decay": decay}
    if callable(learning_rate):
        return {"learning_rate": _Scaled(learning_rate, share), "decay": decay}
    return {"learning_rate": learning_rate * share, "decay": decay}


class _Scaled(NamedTuple):
    """A schedule times a factor; it has no hash where the factor belongs to a trace."""

    schedule: Callable[..., Any]
    factor: Any

    def __call__(self, count: jax.Array) -> Any:
        return self.factor * self.schedule(count)


def _call(kind: str, name: str, function: Callable, arguments: Mapping[str, Any]) -> Any:
    """`function(**arguments)`, with wrong or missing arguments told in one line."""
    parameters = inspect.signature(function).parameters
    for key in arguments:
        if key not in parameters:
            raise ValueError(f"{kind} {name} has no argument {key!r}: {_allowed(key, parameters)}")
    for key, parameter in parameters.items():
        if parameter.default is parameter.empty and key not in arguments:
            raise ValueError(f"{kind} {name} needs the argument {key!r}")
    row = {"rule": OPTAX_RULES, "schedule": SCHEDULES}.get(kind, {}).get(name, {})
    return function(**{key: _read(f"{kind} {name}", row, key, arguments[key]) for key in arguments})


def _read(where: str, row: Mapping[str, tuple[Any, Any]], key: str, value: Any) -> Any:
    # From Python optax takes functions, dtypes and trees too, of which a config knows nothing.
    if key not in row or callable(value) or isinstance(value, np.dtype | Mapping):
        return value
    return read_hyperparameter(where, key, row[key][0], value)


def _allowed(wrong: Any, names: Collection[str]) -> str:
    near = difflib.get_close_matches(str(wrong), names, n=1)
    return f"did you mean {near[0]!r}?" if near else f"allowed are {', '.join(names)}"

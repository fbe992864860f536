"""Learning rates that follow something else than the number of updates.

Over equal seconds one protocol makes many times the updates of another, so a schedule that counts
updates ends early under the one and hardly begins under the other.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import optax

from sgdlab.arguments import show
from sgdlab.rules.table import COUNTS, RATE_WITHIN


@dataclass(frozen=True)
class CountedSchedule:
    """A learning rate η(c), where c is what has been counted when the update is made.

    The count comes as a keyword-only extra argument of the rule's `update`, as `staleness` does:

    - `seconds`: float32 scalar, the simulated time at which the update happens. It is rounded once
      from the timeline's float64, so it is exact to 6e-8 of itself: half a second at 10⁷ s.
    - `gradients`: int32 scalar, how many gradients entered the updates before this one, exact; a
      message that serves several updates counts once. Where every update takes one, this is
      "updates".

    Attributes:
      schedule: an optax schedule, a function of c.
      count: "updates", "gradients" or "seconds".

    Raises:
      ValueError: `schedule` is no function, or `count` is none of the three.
    """

    schedule: optax.Schedule
    count: str

    def __post_init__(self) -> None:
        if not callable(self.schedule):
            raise ValueError(
                f"schedule: {show(self.schedule)} given; allowed: a function of what is counted"
            )
        if self.count not in COUNTS:
            raise ValueError(
                f"schedule: count is {self.count!r}; allowed are {', '.join(map(repr, COUNTS))}"
            )


def scale_by_rate(
    learning_rate: optax.ScalarOrSchedule | CountedSchedule,
) -> optax.GradientTransformationExtraArgs:
    """The last factor of a rule: u ← −ηu.

    Args:
      learning_rate: η: a scalar, an optax schedule of the update's index, or a `CountedSchedule`.

    Returns:
      The transform; its state holds no array, or the schedule's counter of updates.

    Raises:
      ValueError: in `update`, where what a `CountedSchedule` counts is not given.
    """
    if not isinstance(learning_rate, CountedSchedule):
        return optax.with_extra_args_support(optax.scale_by_learning_rate(learning_rate))
    if learning_rate.count == "updates":
        return optax.with_extra_args_support(optax.scale_by_learning_rate(learning_rate.schedule))

    def update(updates, state, params=None, **extra):
        del params
        rate = -find_rate(learning_rate, None, extra)
        return jax.tree.map(lambda g: jnp.asarray(rate, g.dtype) * g, updates), state

    return optax.GradientTransformationExtraArgs(optax.init_empty_state, update)


def find_rate(
    learning_rate: optax.ScalarOrSchedule | CountedSchedule, index: Any, extra: Mapping[str, Any]
) -> Any:
    """The learning rate now.

    Args:
      learning_rate: a scalar, a schedule, or a `CountedSchedule`.
      index: how many updates, or messages, there were.
      extra: the extra arguments of `update`.

    Returns:
      A scalar.

    Raises:
      ValueError: what a `CountedSchedule` counts is not given.
    """
    if not isinstance(learning_rate, CountedSchedule):
        return learning_rate(index) if callable(learning_rate) else learning_rate
    name = learning_rate.count
    if name == "updates":
        return learning_rate.schedule(index)
    if name not in extra:
        raise ValueError(
            f"learning_rate: its schedule counts {name}, and needs {name}=, which the rule of "
            "a replay is given and an inner rule is not; allowed there: count: updates"
        )
    return learning_rate.schedule(extra[name])


def split_rate(name: str, arguments: Mapping[str, Any]) -> CountedSchedule | None:
    """The schedule that one of optax's rules has to be multiplied by, if it has one of ours.

    Args:
      name: a row of `table.OPTAX_RULES`.
      arguments: of the rule.

    Returns:
      The `CountedSchedule` that stands for its learning rate; `None` where there is none.

    Raises:
      ValueError: the rule is not linear in its learning rate, or has another one besides.
    """
    counted = [key for key, value in arguments.items() if isinstance(value, CountedSchedule)]
    if not counted:
        return None
    rates = [
        key for key in arguments if key.endswith("learning_rate") and arguments[key] is not None
    ]
    schedule = arguments[counted[0]]
    if name in RATE_WITHIN or rates != ["learning_rate"]:
        reason = (
            "is no last factor of its update" if name in RATE_WITHIN else f"is one of {len(rates)}"
        )
        raise ValueError(
            f"rule {name}: {counted[0]} {reason}, so its schedule cannot count {schedule.count}; "
            "allowed: count: updates, or another rule"
        )
    return schedule

"""What transforms ask of the rule beside them. Nothing here imports jax."""

from collections.abc import Mapping
from typing import Any

# Their step is a rate times a velocity v ← γv + g, or times (1−γ) of one: see `gap_aware`.
WITH_VELOCITY = ("sgd", "momentum", "heavy_ball", "nesterov")


def check_fit(transform: str, rule: Mapping[str, Any]) -> None:
    """Refuse a transform beside a rule for which it was not made.

    Args:
      transform: a name in `table.TRANSFORMS`.
      rule: `{name: ..., learning_rate: ..., ...}`.

    Raises:
      ValueError: it doesn't fit, in one line.
    """
    name = rule["name"]
    if transform == "gap_aware" and name not in WITH_VELOCITY:
        raise ValueError(
            f"gap_aware doesn't know the size of a step of the rule {name}; "
            f"allowed: {', '.join(WITH_VELOCITY)}"
        )
    if transform == "mix_models" and (name != "sgd" or rule["learning_rate"] != 1.0):
        given = f"{name} with learning_rate {rule['learning_rate']}" if name == "sgd" else name
        raise ValueError(
            f"mix_models hands on a mixed model, which the rule {given} would change; "
            "allowed: sgd with learning_rate 1.0"
        )

"""What makes two runs the same run, so that one may continue the other's checkpoint.

Everything that decides a number counts: model, rule, precision, data, seed. How far the run goes,
how often it looks and on how many devices it runs does not.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator, Mapping
from typing import Any

from sgdlab.training.checkpoints.archive import CheckpointError

# Keys of a config that a resumed run may change.
FREE = frozenset(
    {
        "name",
        "description",
        "claims",
        "tags",
        "sweep",
        "updates",
        "seconds",
        "gradients",
        "evaluate_every",
        "evaluations",
        "target",
        "seeds",
        "timelines",
        "devices.data",
        "devices.fsdp",
        "devices.tensor",
        "devices.collective",
    }
)


class ResumeError(CheckpointError):
    """A checkpoint belongs to a run that this one does not continue."""


def describe_program(config: Mapping[str, Any]) -> dict[str, Any]:
    """What of a config decides the run's numbers.

    Args:
      config: a resolved config, as plain data.

    Returns:
      Dotted path to value, such as `rule.learning_rate`: 0.1, without the keys in `FREE`.
    """
    return {
        path: value
        for path, value in _flatten("", config)
        if not any(path == free or path.startswith(f"{free}.") for free in FREE)
    }


def hash_program(description: Mapping[str, Any]) -> str:
    """SHA-256, in hexadecimal, of what `describe_program` gives, whatever the order of its keys."""
    text = json.dumps(dict(description), sort_keys=True, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def check_resume(old: Mapping[str, Any], new: Mapping[str, Any]) -> None:
    """Refuse to continue another run.

    Args:
      old: the description in the checkpoint.
      new: the description of the run that would continue it.

    Raises:
      ResumeError: naming the first key that differs and both values; a name before what follows
        from it.
    """
    for key in sorted({*old, *new}, key=lambda key: (not key.endswith(".name"), key)):
        then, now = (_show(side, key) for side in (old, new))
        if then != now:
            raise ResumeError(
                f"resume: {key}: {then} in the checkpoint, {now} in this run; "
                "allowed: another horizon, other evaluations, another number of devices"
            )


def _flatten(prefix: str, value: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping) and value:
        items = [(str(key), item) for key, item in value.items()]
    elif isinstance(value, list | tuple) and value:
        items = [(str(index), item) for index, item in enumerate(value)]
    else:
        finite = not isinstance(value, float) or math.isfinite(value)
        yield prefix, value if finite else str(value)  # JSON knows no infinity
        return
    for key, item in items:
        yield from _flatten(f"{prefix}.{key}" if prefix else key, item)


def _show(description: Mapping[str, Any], key: str) -> str:
    """The value as JSON, so that what was read back compares as what was written."""
    return json.dumps(description[key]) if key in description else "nothing"

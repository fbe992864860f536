"""What a replay can see of itself that decides its numbers, large arrays as their hashes."""

from __future__ import annotations

import hashlib
from typing import Any

import jax
import numpy as np

from sgdlab.timelines import Timeline
from sgdlab.timelines.plan import Plan
from sgdlab.training.checkpoints.settings import describe_settings
from sgdlab.training.program import Data, Program


def describe_replay(program: Program, data: Data, loss_scale: Any, stop: Any) -> dict[str, Any]:
    """What a replay can see of itself that decides its numbers, whichever members it runs."""
    return {
        **describe_settings(),
        "replay.task": program.task.name,
        "replay.data": _hash(jax.tree.leaves((data.train, data.test))),
        "replay.partition": _hash(data.shards),
        "replay.batch_size": program.batch_size,
        "replay.precision": str(program.policy),
        "replay.loss_scale": " ".join(repr(loss_scale).split()),
        "replay.on_nonfinite": "skip" if program.guard else "stop",
        "replay.measures": ", ".join(sorted(program.measures)),
        "replay.stop": None if stop is None else str(dict(stop)),
        "replay.reduction": _reduction(program),
    }


def describe_form(program: Program) -> str:
    """In which form a replay computes, as far as that can change how its numbers are rounded.

    It is read off the timeline, so a longer horizon may ask for another.
    """
    parts = [program.form]
    if program.form in ("fused", "mapped"):
        parts.append(f"{program.messages_per_update} messages an update")
    has = {"slots": program.num_slots, "a table": program.has_table}
    parts += [name for name, there in has.items() if there]
    return ", ".join([*parts, "refused messages"] if program.has_refused else parts)


def _reduction(program: Program) -> str:
    """How sums are ordered; never the mesh: a canonical run keeps its bits on any other one."""
    if program.average is not None and program.average.reduction == "canonical":
        return f"canonical, {program.average.microbatches} microbatches"
    return f"fast, {program.microbatches} microbatches" if program.microbatches > 1 else "fast"


def hash_beginning(timeline: Timeline, plan: Plan, update: int) -> str:
    """SHA-256 of all that the first updates take from the timeline."""
    walked = plan.start[update]
    message = plan.message[:walked]
    columns = [
        plan.start[: update + 1],
        *(c[message] for c in (timeline.worker, timeline.read_version, timeline.local_index)),
        *(c[:walked] for c in (plan.weight, plan.keep)),
        *(c[:update] for c in (plan.staleness, timeline.apply_time)),
    ]
    return _hash(columns if plan.row_weight is None else [*columns, plan.row_weight[:update]])


def _hash(arrays: Any) -> str:
    digest = hashlib.sha256()
    for array in map(np.ascontiguousarray, arrays):
        digest.update(f"{array.dtype.name}{array.shape}".encode())
        digest.update(array.reshape(-1).view(np.uint8).data)
    return digest.hexdigest()

"""A replay that was killed goes on from its last checkpoint and ends in the same bits.

A minibatch depends on the seed, the worker and the message alone, so a replay's whole memory is its
`State`, how many updates were made, and what was recorded of them. All of it goes into every
checkpoint. One folder holds the members that advance together: one on a CPU, those of one timeline
where members run under `vmap`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from sgdlab.timelines import Timeline
from sgdlab.timelines.plan import Plan
from sgdlab.training.checkpoints.archive import CheckpointError, Header
from sgdlab.training.checkpoints.files import find, latest, read_header, save
from sgdlab.training.checkpoints.fingerprint import EARLY, hash_beginning
from sgdlab.training.checkpoints.identity import ResumeError, check_resume, hash_program
from sgdlab.training.checkpoints.layout import (
    Record,
    as_saved,
    fill_record,
    like_record,
    place_leaf,
    resize_slots,
    to_tree,
)
from sgdlab.training.checkpoints.metrics_log import MetricsLog
from sgdlab.training.program import State


class RunInterrupted(Exception):
    """A replay was asked to end early; its last chunk is in a checkpoint."""


@dataclass(frozen=True)
class CheckpointPlan:
    """Where and how often a replay saves itself.

    Attributes:
      folder: of the checkpoints; members of a sweep get a folder each in it, named by their index.
      every: chunks from one checkpoint to the next.
      keep: how many are kept, at least 2.
      program: from `describe_program(config)`: what a run must share to continue this one. The
        replay adds what it can see itself; it cannot look into a rule or a worker program.
      logs: a member's index to its metrics file. The callback writes to it; it is synced before
        each checkpoint and cut back to it on resume.
      interrupt: asked after each chunk; once true, the replay saves itself and raises
        `RunInterrupted`.
    """

    folder: str | Path
    every: int = 1
    keep: int = 2
    program: Mapping[str, Any] = field(default_factory=dict)
    logs: Mapping[int, MetricsLog] = field(default_factory=dict)
    interrupt: Callable[[], bool] = lambda: False

    def __post_init__(self) -> None:
        if self.every < 1:
            raise ValueError(f"checkpoint: every is {self.every}; at least 1 chunk")
        if self.keep < 2:
            raise ValueError(f"checkpoint: keep is {self.keep}; at least 2")


class Keeper:
    """Saves and restores the members that advance together."""

    def __init__(
        self,
        checkpoint: CheckpointPlan,
        description: Mapping[str, Any],
        members: Mapping[int, Mapping[str, Any]],
        timeline: Timeline,
        plan: Plan,
        num_slots: int,
    ) -> None:
        """Say what is kept.

        Args:
          checkpoint: where and how often.
          description: from `describe_replay`.
          members: index to seed, timeline and hyperparameters.
          timeline: theirs.
          plan: theirs.
          num_slots: S, of the program.
        """
        self.folder = Path(checkpoint.folder, str(min(members)))
        self._checkpoint, self._timeline, self._plan = checkpoint, timeline, plan
        self._num_slots = num_slots
        self._logs = [checkpoint.logs.get(index) for index in members]
        points = {
            f"replay.member.{place}.{key}": value
            for place, point in enumerate(members.values())
            for key, value in point.items()
        }
        self._description = {**checkpoint.program, **description, **points}
        self._saved, self._asked = 0, False

    def is_due(self, update: int, every: int) -> bool:
        """Whether to save after this many updates, in chunks of `every`."""
        self._asked = self._checkpoint.interrupt()
        return self._asked or update - self._saved >= every * self._checkpoint.every

    def end_if_asked(self) -> None:
        """Raise `RunInterrupted` if the run was asked to end when `is_due` looked."""
        if self._asked:
            raise RunInterrupted(f"{self.folder}: interrupted; update {self._saved} is saved")

    def start(self) -> None:
        """Begin anew.

        Raises:
          CheckpointError: there are checkpoints, which a new run would mix with its own.
        """
        if found := find(self.folder):
            raise CheckpointError(
                f"{self.folder}: holds {found[0].name} of an earlier run; "
                "allowed: to resume it, or another folder"
            )

    def save(self, update: int, state: State, records: Sequence[Record]) -> None:
        """Make everything up to this update durable: the metrics first, then the checkpoint.

        Where every member met a non-finite value nothing is saved: the last checkpoint is good.

        Raises:
          CheckpointError: it cannot be written.
        """
        if all(record.error for record in records) or update == self._saved:
            return
        offsets = [0 if log is None else log.sync() for log in self._logs]
        members = [
            {
                "made": record.update,
                "rows": len(record.rows),
                "done": record.done,
                "error": record.error,
                "offset": offset,
            }
            for record, offset in zip(records, offsets, strict=True)
        ]
        metadata = {
            "hash": hash_program(self._description),
            "description": self._description,
            "timeline": hash_beginning(self._timeline, self._plan, update),
            "slots": self._held(update).tolist(),
            "members": members,
        }
        tree = {"state": state, "records": [to_tree(record) for record in records]}
        keep = self._checkpoint.keep
        save(self.folder, tree, update=update, metadata=metadata, keep=keep)
        self._saved = update

    def restore(
        self, state: State, records: Sequence[Record], metrics: Sequence[str], updates: Any
    ) -> tuple[int, State]:
        """Go back to the newest sound checkpoint, and cut the metrics files back to it.

        Args:
          state: the state at version 0, whose structure the checkpoint must have.
          records: empty; filled here.
          metrics: the names in an evaluation.
          updates: what is recorded of updates, as abstract leaves `[C, …]`; `[members, C, …]` where
            there are several.

        Returns:
          `(update, state)`: how many updates were made, and the state after them; 0 and `state`
          where there is no checkpoint yet.

        Raises:
          CheckpointError: there are checkpoints and none is sound, or a metrics file is not the one
            that was written beside it.
          ResumeError: the checkpoint belongs to another run; names the key and both values.
        """
        axis = 0 if len(records) == 1 else 1

        def wanted(metadata: Mapping[str, Any]) -> dict[str, Any]:
            slots = resize_slots(state.slots, len(metadata["slots"]), axis)
            return {
                "state": state._replace(slots=slots),
                "records": [
                    like_record(facts, place, state.params, metrics, updates, axis)
                    for place, facts in enumerate(metadata["members"])
                ],
            }

        def like(header: Header) -> dict[str, Any]:
            self._check(header)
            return as_saved(wanted(header.metadata), header)

        found = latest(self.folder, like)
        members = [{"offset": 0}] * len(records) if found is None else found.metadata["members"]
        for log, facts in zip(self._logs, members, strict=True):
            if log is not None:
                log.truncate(facts["offset"])
        if found is None:
            return 0, state
        placed = jax.tree.map(place_leaf, found.state, wanted(found.metadata))
        for record, facts, tree in zip(records, members, placed["records"], strict=True):
            fill_record(record, facts, tree, ["update", "time", *metrics])
        self._saved = found.update
        restored: State = placed["state"]
        held = found.metadata["slots"]
        slots = self._move(restored.slots if held else state.slots, found.update, held, axis)
        return found.update, restored._replace(slots=slots)

    def _check(self, header: Header) -> None:
        """Whether this run continues the one that wrote the checkpoint."""
        metadata, update = header.metadata, header.update
        if not {"description", "timeline", "slots", "members"} <= set(metadata):
            raise ResumeError(f"{self.folder}: update {update}: is no replay's checkpoint")
        check_resume(metadata["description"], self._description)
        if update > self._plan.num_updates:
            raise ResumeError(
                f"resume: horizon: {update} updates in the checkpoint, {self._plan.num_updates} in "
                "this run; allowed: at least as many"
            )
        if metadata["timeline"] != hash_beginning(self._timeline, self._plan, update):
            raise ResumeError(
                f"resume: timeline: its first {update} updates are not those of the checkpoint; "
                "allowed: the same cluster, protocol and seed, or a longer horizon of them"
            )

    def _held(self, update: int) -> np.ndarray:
        """`[S]` what lies in each slot of the program; one timeline may need fewer than another."""
        held = self._plan.held(update)
        return np.concatenate([held, np.full(self._num_slots - len(held), -1)])

    def _move(self, slots: Any, update: int, held: list[int], axis: int) -> Any:
        """What waits in slots into the slots that this run's plan gives it.

        A longer horizon can have another plan, in which the same versions live elsewhere.
        """
        if held == self._held(update).tolist():
            return slots
        source = np.full(self._num_slots, -1)
        for step in self._plan.needed(update).tolist():
            if step not in held:
                raise ResumeError(
                    f"resume: timeline: after update {update} the longer horizon reads version "
                    f"{step}, which the shorter one had no use for; allowed: to run it anew"
                )
            source[self._plan.write_slot[step]] = held.index(step)

        def leaf(rows):
            kept = jnp.take(rows, jnp.maximum(source, 0), axis=axis)
            shape = [1] * rows.ndim
            shape[axis] = -1
            return jnp.where((source >= 0).reshape(shape), kept, jnp.zeros_like(kept))

        return jax.tree.map(leaf, slots)


def went_early(checkpoint: CheckpointPlan) -> bool | None:
    """Whether the messages of the run that is resumed are computed early; `None`: there is none.

    Which order pays depends on the horizon, and a longer one has to go on in that of the shorter.
    """
    folder = Path(checkpoint.folder)
    for path in [path for member in sorted(folder.glob("*")) for path in find(member)]:
        try:
            description = read_header(path).metadata["description"]
        except (CheckpointError, KeyError, TypeError):
            continue  # what is damaged is told of where it is restored
        return description.get(EARLY) is not None
    return None

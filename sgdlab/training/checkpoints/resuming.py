"""A replay that was killed goes on from its last checkpoint and ends in the same bits.

A minibatch depends on the seed, the worker and the message alone, so a replay's whole memory is its
`State`, how many updates were made, and what was recorded of them. All of it goes into every
checkpoint. One folder holds the members that advance together: one on a CPU, those of one timeline
where members run under `vmap`.

A longer horizon goes on from the end of a shorter one to the bits of the run asked for at once:
what messages under way have read, or computed, is kept to the end. Where the longer timeline asks
for another form of computing, whose numbers would be rounded otherwise, it begins anew.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jax

from sgdlab.timelines import Timeline
from sgdlab.timelines.plan import Plan
from sgdlab.training.checkpoints.archive import Checkpoint, CheckpointError, Header
from sgdlab.training.checkpoints.files import CheckpointWarning, find, latest, read_header, save
from sgdlab.training.checkpoints.fingerprint import hash_beginning
from sgdlab.training.checkpoints.identity import ResumeError, check_resume, hash_program
from sgdlab.training.checkpoints.layout import (
    Record,
    as_saved,
    fill_record,
    forget_end,
    like_record,
    like_rows,
    place_leaf,
    put_rows,
    take_rows,
    to_tree,
)
from sgdlab.training.checkpoints.metrics_log import Log
from sgdlab.training.program import State

_FACTS = frozenset(
    {"description", "timeline", "horizon", "evaluate_every", "form", "slots", "members"}
)


class RunInterrupted(Exception):
    """A replay was asked to end early; its last chunk is in a checkpoint."""


class _OtherForm(Exception):
    """A longer horizon is computed in another form than the shorter one, so it begins anew."""


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
    logs: Mapping[int, Log] = field(default_factory=dict)
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
        form: str,
        evaluate_every: int | None,
    ) -> None:
        """Say what is kept.

        Args:
          checkpoint: where and how often.
          description: from `describe_replay`.
          members: index to seed, timeline and hyperparameters.
          timeline: theirs.
          plan: theirs.
          form: from `describe_form`.
          evaluate_every: updates from one evaluation to the next; `None`: only at both ends.
        """
        self.folder = Path(checkpoint.folder, str(min(members)))
        if self.folder.is_symlink():
            raise CheckpointError(f"{self.folder}: is a symbolic link; allowed: a folder")
        self._checkpoint, self._timeline, self._plan = checkpoint, timeline, plan
        self._form, self._evaluate_every = form, evaluate_every
        self._logs = [checkpoint.logs.get(index) for index in members]
        points = {
            f"replay.member.{place}.{key}": value
            for place, point in enumerate(members.values())
            for key, value in point.items()
        }
        self._description = {**checkpoint.program, **description, **points}
        self._saved, self._asked, self._anew = 0, False, False
        self._before_end: list[int] | None = None

    def is_due(self, update: int, every: int) -> bool:
        """Whether to save after this many updates, in chunks of `every`."""
        self._asked = self._checkpoint.interrupt()
        return self._asked or update - self._saved >= every * self._checkpoint.every

    def end_if_asked(self) -> None:
        """Raise `RunInterrupted` if the run was asked to end when `is_due` looked."""
        if self._asked:
            raise RunInterrupted(f"{self.folder}: interrupted; update {self._saved} is saved")

    def expect(self, update: int) -> None:
        """Note where the metrics files end before an evaluation that a longer run wouldn't make."""
        if update == self._plan.num_updates and self._is_off_beat(update, self._evaluate_every):
            self._before_end = self._sync()

    def _sync(self) -> list[int]:
        return [0 if log is None else log.sync() for log in self._logs]

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
        offsets = self._sync()
        members = [
            {
                "made": record.update,
                "rows": len(record.rows),
                "done": record.done,
                "error": record.error,
                "offset": offset,
                "before_end": before,
            }
            for record, offset, before in zip(
                records, offsets, self._before_end or offsets, strict=True
            )
        ]
        steps = self._plan.needed(update)
        metadata = {
            "hash": hash_program(self._description),
            "description": self._description,
            "timeline": hash_beginning(self._timeline, self._plan, update),
            "horizon": self._plan.num_updates,
            "evaluate_every": self._evaluate_every,
            "form": self._form,
            "slots": steps.tolist(),
            "members": members,
        }
        slots = take_rows(state.slots, self._plan.write_slot[steps], _axis(records))
        tree = {
            "state": state._replace(slots=slots),
            "records": [to_tree(record) for record in records],
        }
        keep, anew = self._checkpoint.keep, self._anew
        save(self.folder, tree, update=update, metadata=metadata, keep=keep, anew=anew)
        self._saved, self._anew = update, False

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
        axis = _axis(records)

        def wanted(metadata: Mapping[str, Any]) -> dict[str, Any]:
            slots = [like_rows(state.slots, axis)] * len(metadata["slots"])
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

        try:
            found = latest(self.folder, like)
        except _OtherForm as reason:
            warnings.warn(f"{self.folder}: begun anew: {reason}", CheckpointWarning, stacklevel=2)
            found, self._anew = None, True
        self._cut_logs(found)
        if found is None:
            return 0, state
        members = found.metadata["members"]
        placed = jax.tree.map(place_leaf, found.state, wanted(found.metadata))
        for record, facts, tree in zip(records, members, placed["records"], strict=True):
            fill_record(record, facts, tree, ["update", "time", *metrics])
            if self._goes_on_off_beat(found):
                forget_end(record, found.update)
        for log, record in zip(self._logs, records, strict=True):
            if log is not None:
                log.restore(record.rows)
        self._saved = found.update
        restored: State = placed["state"]
        places = {
            int(self._plan.write_slot[step]): row
            for step, row in zip(found.metadata["slots"], restored.slots, strict=True)
            if step in self._plan.needed(found.update)
        }
        return found.update, restored._replace(slots=put_rows(state.slots, places, axis))

    def _check(self, header: Header) -> None:
        """Whether this run continues the one that wrote the checkpoint."""
        metadata, update = header.metadata, header.update
        if not set(metadata) >= _FACTS:
            raise ResumeError(
                f"{self.folder}: update {update}: is no checkpoint of a replay by this version"
            )
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

        if metadata["form"] != self._form:
            raise _OtherForm(
                f"{self._plan.num_updates} updates are computed as {self._form}, "
                f"{metadata['horizon']} were as {metadata['form']}"
            )
        if not {*self._plan.needed(update).tolist()} <= {*metadata["slots"]}:
            raise _OtherForm(
                f"the longer horizon reads versions that {metadata['horizon']} updates had no use "
                "for"
            )

    def _cut_logs(self, found: Checkpoint | None) -> None:
        key = "before_end" if found is not None and self._goes_on_off_beat(found) else "offset"
        for place, log in enumerate(self._logs):
            if log is not None:
                log.truncate(0 if found is None else found.metadata["members"][place][key])

    def _goes_on_off_beat(self, found: Checkpoint) -> bool:
        """Whether the shorter run evaluated there only because it ended there."""
        ended = found.update == found.metadata["horizon"] < self._plan.num_updates
        return ended and self._is_off_beat(found.update, found.metadata["evaluate_every"])

    def _is_off_beat(self, update: int, every: int | None) -> bool:
        return every is None or update % every != 0


def went_early(checkpoint: CheckpointPlan, horizons: Sequence[int]) -> bool | None:
    """Whether the messages of the run that is resumed are computed early.

    Args:
      checkpoint: where it was saved.
      horizons: how many updates each timeline has now.

    Returns:
      `None` where the horizon decides: nothing was saved, or a longer one may choose anew.
    """
    folder = Path(checkpoint.folder)
    for path in [path for member in sorted(folder.glob("*")) for path in find(member)]:
        try:
            metadata = read_header(path).metadata
            early = metadata["form"].startswith("early")
            horizon = horizons[metadata["description"]["replay.member.0.timeline"]]
            return early if early or metadata["horizon"] == horizon else None
        except (CheckpointError, LookupError, TypeError, AttributeError):
            continue  # what is damaged is told of where it is restored
    return None


def _axis(records: Sequence[Record]) -> int:
    """Of the slots, behind that of members that advance together."""
    return 0 if len(records) == 1 else 1

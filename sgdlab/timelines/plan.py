"""The plan of a replay: which stale version lives in which slot, and in what order messages go.

A compiler that knows the whole program assigns registers by liveness; a replay knows the whole
timeline, so it can do the same with stale versions of the parameters. Version v is *live* from
update v, when it is the current one, until the last update that still reads it. Versions whose
lives don't overlap share a slot, and the number of slots is the largest number of versions alive
at once: at most one a worker under most protocols, whatever the largest staleness. What a message
that is under way at the end has read is kept to the end, so that a longer horizon can go on from
there: it would have been alive there in any case.

Gradients of successive updates don't depend on one another while none of them reads a version that
the others make. Such a stretch of updates is a *wave*, whose gradients may be computed together.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from sgdlab.timelines.timeline import DROPPED, IN_FLIGHT, TimelineError

if TYPE_CHECKING:
    from sgdlab.timelines.timeline import Timeline


@dataclass(frozen=True, eq=False)
class Plan:
    """The order of a replay and the home of every version. W messages are walked, in T updates.

    In an early plan (`sgdlab.timelines.early`) the slots are homes of messages: `num_slots`,
    `write_slot`, `[lead + T]`, and `read_slot` are theirs.

    Attributes:
      num_slots: how many stale versions are stored at once; 0 where every message is fresh. Those
        that only messages under way at the end have read are at most one a message.
      write_slot: `[T]` int32, where update u stores version u before its messages are computed.
      start: `[T + 1]` int64; update u walks the messages `start[u]:start[u + 1]`.
      message: `[W]` int64, index of each walked message in the timeline.
      read_slot: `[W]` int32, where the version that the message was computed at is found.
      weight: `[W]` float32, the message's share of its update's mean; 0 for a refused message.
        Under a table, its share of its worker's row instead.
      keep: `[W]` float32, by how much the worker's row is scaled before the message is added.
      row_weight: `[T, N]` float32, each row's share of update u; `None` without a table.
      staleness: `[T]` float32, the mean over the messages that update u uses of u − read_version.
      messages_per_update: the number of messages in every update, or `None` where it varies.
      wave: `[V + 1]` int64; the messages of the updates `wave[v]:wave[v + 1]` read version
        `wave[v]` or an older one, so they may be computed together.
      source: `[W]` int64, the step that stores what the message needs: its version's update.
      waiting: int64, the steps that store what messages under way at the end need.
      lead: how many steps come before update 0; none but in an early plan.
      computed: `[lead + T]` int64, the message that each step of an early plan computes, else
        `None`: messages are computed by the updates that walk them.
    """

    num_slots: int
    write_slot: np.ndarray
    start: np.ndarray
    message: np.ndarray
    read_slot: np.ndarray
    weight: np.ndarray
    keep: np.ndarray
    row_weight: np.ndarray | None
    staleness: np.ndarray
    messages_per_update: int | None
    wave: np.ndarray
    source: np.ndarray
    waiting: np.ndarray
    lead: int = 0
    computed: np.ndarray | None = None

    @property
    def num_updates(self) -> int:
        """T, how many updates are replayed."""
        return len(self.start) - 1

    @property
    def has_table(self) -> bool:
        """Whether a row per worker is kept, as where a message serves several updates."""
        return self.row_weight is not None

    @property
    def is_uniform(self) -> bool:
        """Whether every update is the plain mean of equally many fresh messages."""
        return self.num_slots == 0 and self.messages_per_update is not None and not self.has_table

    def needed(self, update: int) -> np.ndarray:
        """The steps so far whose versions or messages are still needed after so many updates."""
        source = np.unique(np.concatenate([self.source[self.start[update] :], self.waiting]))
        return source[source < self.lead + update]


def plan(
    timeline: Timeline,
    *,
    include_dropped: bool = False,
    width: int = 1,
    table: bool = False,
) -> Plan:
    """Plan the replay of a timeline: order, weights and slots.

    Slots are assigned by first-in-first-out interval colouring. Version v lives through the updates
    [v, e_v], so S = max_u #{v ≤ u ≤ e_v} slots are necessary; the j-th version to be stored takes
    the slot of the (j − S)-th version to die, which has died by then, so S also suffice.

    Args:
      timeline: any timeline.
      include_dropped: also walk the messages that the server refused, with weight zero. A worker
        program with a state computes them, since its state advances as if they had been used.
      width: how many messages a wave holds at the most, unless one update alone has more. Each wave
        takes as many updates as it can, which makes the fewest waves.
      table: keep a row per worker though no message serves several updates.

    Returns:
      The `Plan`.

    Raises:
      ValueError: `width` is below 1.
      TimelineError: an update has no message of its own, or a worker's row in a table protocol
        would have to lose one message and keep another.
    """
    if width < 1:
        raise ValueError(f"width: {width} is too small; at least 1")
    message, group, under_way = _walk(timeline, include_dropped)
    num_updates = timeline.num_updates
    counts = np.bincount(group, minlength=num_updates)
    start = np.concatenate([[0], np.cumsum(counts)])
    used = timeline.update[message] >= 0
    _check_every_update_is_fed(group[used], num_updates)
    has_table = table or needs_table(timeline)
    weight = _weights(timeline, message, group, used)
    keep = np.ones_like(weight)
    row_weight = None
    if has_table:
        weight, keep, row_weight = _table(timeline, message, used)
    read = timeline.read_version[message]
    fresh = bool(np.all(read == group))
    waiting = np.unique(timeline.read_version[under_way]).astype(np.int64)
    waiting = waiting[: 0 if fresh else np.searchsorted(waiting, num_updates)]
    num_slots, slot = (0, np.zeros(num_updates, np.int32))
    if not fresh:
        num_slots, slot = _color(read, group, waiting)
    uniform = num_updates > 0 and counts.min() == counts.max() and bool(used.all())
    uniform = uniform and bool(np.all(weight == weight[0]))
    return Plan(
        num_slots=num_slots,
        write_slot=slot,
        start=start,
        message=message,
        read_slot=slot[read],
        weight=weight,
        keep=keep,
        row_weight=row_weight,
        staleness=_mean_staleness(timeline),
        messages_per_update=int(counts[0]) if uniform else None,
        wave=_waves(read, start, width),
        source=read.astype(np.int64),
        waiting=waiting,
    )


def needs_table(timeline: Timeline, *, leaves_out: bool = False) -> bool:
    """Whether the mean of an update needs a row per worker.

    Args:
      timeline: any timeline.
      leaves_out: whether a message may prove not to count. Then a mean per worker needs the
        worker's row, since the weights of its messages are not known beforehand.

    Returns:
      Whether a message serves several updates, or there may be such a mean.
    """
    serves_several = (timeline.last_update != timeline.update) & (timeline.update >= 0)
    return bool(np.any(serves_several)) or (leaves_out and timeline.average == "workers")


def _walk(timeline: Timeline, include_dropped: bool) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Indices of the walked messages by (update, arrival), and the update that walks each.

    Returns:
      `(message, update, under_way)`; `under_way` are the messages that only a longer horizon walks.
    """
    group = timeline.update.astype(np.int64)
    group[group == IN_FLIGHT] = timeline.num_updates
    if include_dropped:
        current = np.searchsorted(timeline.apply_time, timeline.arrival_time, side="right")
        group = np.where(group == DROPPED, current, group)
    message = np.flatnonzero((group >= 0) & (group < timeline.num_updates))
    message = message[np.argsort(group[message], kind="stable")]
    return message, group[message], np.flatnonzero(group >= timeline.num_updates)


def _check_every_update_is_fed(group: np.ndarray, num_updates: int) -> None:
    fed = np.bincount(group, minlength=num_updates) > 0
    if not fed.all():
        raise TimelineError(
            f"update {int(np.argmin(fed))}: no message enters it; "
            "every update needs at least one message of its own"
        )


def _weights(
    timeline: Timeline, message: np.ndarray, group: np.ndarray, used: np.ndarray
) -> np.ndarray:
    """Each message's share of its update's mean, over messages or over workers."""
    if timeline.average == "messages":
        share = 1.0 / np.bincount(group[used], minlength=timeline.num_updates)[group]
        return np.where(used, share, 0.0).astype(np.float32)
    pair = group * timeline.num_workers + timeline.worker[message]
    pairs, inverse, counts = np.unique(pair[used], return_inverse=True, return_counts=True)
    present = np.bincount(pairs // timeline.num_workers, minlength=timeline.num_updates)
    weight = np.zeros(len(message), np.float32)
    weight[used] = 1.0 / (counts[inverse] * present[group[used]])
    return weight


def _table(
    timeline: Timeline, message: np.ndarray, used: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Recurrence row ← keep·row + weight·message of every worker, and the rows' shares.

    Messages of one worker that expire together form a *round* of its row. Under
    `average="workers"` the row is the running mean of its round, else its running sum.
    """
    worker, first = timeline.worker[message], timeline.update[message]
    last = timeline.last_update[message]
    weight = np.zeros(len(message), np.float32)
    keep = np.ones(len(message), np.float32)
    rows = np.zeros((timeline.num_updates + 1, timeline.num_workers))
    by_worker = np.flatnonzero(used)[np.argsort(worker[used], kind="stable")]
    new_round = np.ones(len(by_worker), bool)
    same = worker[by_worker[1:]] == worker[by_worker[:-1]]
    new_round[1:] = ~same | (last[by_worker[1:]] != last[by_worker[:-1]])
    overlap = same & new_round[1:] & (first[by_worker[1:]] <= last[by_worker[:-1]])
    if overlap.any():
        index = int(message[by_worker[1:][overlap][0]])
        raise TimelineError(
            f"message {index}: it enters while an earlier message of worker "
            f"{int(timeline.worker[index])} with another last_update is still in use; "
            "a worker's messages in use must leave together"
        )
    position = np.arange(len(by_worker))
    count = position - np.maximum.accumulate(np.where(new_round, position, 0)) + 1
    if timeline.average == "workers":
        weight[by_worker] = 1.0 / count
        keep[by_worker] = (count - 1.0) / count
        entering = by_worker[new_round]
    else:
        weight[by_worker] = 1.0
        keep[by_worker] = ~new_round
        entering = by_worker
    np.add.at(rows, (first[entering], worker[entering]), 1.0)
    np.add.at(rows, (last[entering] + 1, worker[entering]), -1.0)
    live = np.cumsum(rows, axis=0)[:-1]
    total = live.sum(axis=1, keepdims=True)
    return weight, keep, ((live > 0) / total).astype(np.float32)


def _color(read: np.ndarray, group: np.ndarray, waiting: np.ndarray) -> tuple[int, np.ndarray]:
    end = np.arange(int(group[-1]) + 1)
    np.maximum.at(end, read, group)
    end[waiting] = len(end) - 1
    return color(end)


def color(end: np.ndarray) -> tuple[int, np.ndarray]:
    """The fewest slots for things of which one is born a step, and the slot of each.

    Args:
      end: `[E]` int, the last step at which the thing born at each step is still needed.

    Returns:
      `(num_slots, slot)`, `slot` `[E]` int32.
    """
    steps = np.arange(len(end))
    died_before = np.concatenate([[0], np.cumsum(np.bincount(end, minlength=len(end)))[:-1]])
    num_slots = int(np.max(steps + 1 - died_before))
    heir = np.argsort(end, kind="stable")
    parent = np.where(steps < num_slots, steps, heir[steps - num_slots])
    while parent.max(initial=0) >= num_slots:  # pointer jumping: log₂ of the longest chain
        parent = parent[parent]
    return num_slots, parent.astype(np.int32)


def _waves(read: np.ndarray, start: np.ndarray, width: int) -> np.ndarray:
    """Where each wave begins, and the end."""
    num_updates = len(start) - 1
    if width == 1 or num_updates == 0:
        return np.arange(num_updates + 1)
    newest = np.maximum.reduceat(read, start[:-1])
    first = np.arange(num_updates)
    beyond = first + 1  # the first update that does not fit behind each
    for ahead in range(1, width):
        last = np.minimum(first + ahead, num_updates - 1)
        fits = (newest[last] <= first) & (start[last + 1] - start[first] <= width)
        beyond += fits & (beyond == first + ahead) & (first + ahead < num_updates)
    return _follow(np.append(beyond, num_updates))


def _follow(after: np.ndarray) -> np.ndarray:
    """The places reached from 0, the last one being its own successor; by doubling."""
    found, end = np.array([0]), len(after) - 1
    while found[-1] < end:
        found = np.concatenate([found, after[found]])
        after = after[after]
    return np.unique(found)


def _mean_staleness(timeline: Timeline) -> np.ndarray:
    """`[T]` mean of u − read_version over the messages that update u uses."""
    used = timeline.update >= 0
    first, last = timeline.update[used], timeline.last_update[used]
    size = timeline.num_updates + 1
    count = np.bincount(first, minlength=size) - np.bincount(last + 1, minlength=size)
    read = timeline.read_version[used].astype(np.float64)
    entering = np.bincount(first, weights=read, minlength=size)
    leaving = np.bincount(last + 1, weights=read, minlength=size)
    count, total = np.cumsum(count)[:-1], np.cumsum(entering - leaving)[:-1]
    return (np.arange(timeline.num_updates) - total / np.maximum(count, 1)).astype(np.float32)

"""Cutting a planned timeline into chunks of one capacity, so that all share one compile."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from sgdlab.timelines import Timeline
from sgdlab.timelines.plan import Plan
from sgdlab.training.program import Chunk, EarlySteps


@dataclass(frozen=True)
class Capacity:
    """The array sizes that every chunk of a set of timelines fits into.

    Attributes:
      updates: C.
      messages: M.
      waves: whether updates come in waves.
    """

    updates: int
    messages: int
    waves: bool = False


def choose_length(num_params: int, rows: int, evaluate_every: int | None = None) -> int:
    """How many updates a chunk has at the most.

    Small models in long chunks, so that what a chunk costs the host is little beside its updates;
    large ones in short chunks, so that progress shows and a kill costs little.

    Args:
      num_params: P.
      rows: of data that an update draws, on average.
      evaluate_every: updates from one evaluation to the next; `None`: only at both ends.

    Returns:
      A number that draws no more than 2²⁰ rows unless a single update has more: evaluations apart,
      or an equal part of that; without any, a power of two from 1 to 4096, about a tenth of a
      second to a second on one core.
    """
    by_rows = max(2**20 // rows, 1)
    if evaluate_every is not None:
        return math.ceil(evaluate_every / math.ceil(evaluate_every / by_rows))
    by_size = min(max(2**25 // num_params, 32), 4096)
    return 2 ** (min(by_size, by_rows).bit_length() - 1)


def bounds(
    num_updates: int, every: int, evaluate_every: int | None = None, made: int = 0
) -> list[tuple[int, int]]:
    """The updates `[first, last)` of each chunk that is left after so many; none goes on over an
    evaluation."""
    stretch = evaluate_every or max(num_updates, 1)
    firsts = [
        first
        for begin in range(0, num_updates, stretch)
        for first in range(begin, min(begin + stretch, num_updates), every)
    ]
    whole = zip(firsts, [*firsts[1:], num_updates], strict=False)
    return [(max(first, made), last) for first, last in whole if last > made]


def find_capacity(
    plans: list[Plan], every: int, evaluate_every: int | None, *, waves: bool = False
) -> Capacity:
    """The fewest messages that hold any chunk of any of the plans."""
    longest = max(plan.num_updates for plan in plans)
    messages = max(
        int(plan.start[last] - plan.start[first])
        for plan in plans
        for first, last in bounds(plan.num_updates, every, evaluate_every)
    )
    return Capacity(min(every, longest), messages, waves)


def cut(
    timeline: Timeline,
    plan: Plan,
    every: int,
    capacity: Capacity,
    evaluate_every: int | None,
    made: int = 0,
) -> Iterator[Chunk]:
    """Yield the chunks after so many updates as host arrays; the last one always evaluates."""
    share, gradients = _shares(timeline, plan), timeline.gradients_before
    for first, last in bounds(plan.num_updates, every, evaluate_every, made):
        begin, end = plan.start[first], plan.start[last]
        message = plan.message[begin:end]
        messages = _padded(capacity.messages)
        updates = _padded(capacity.updates)
        yield Chunk(
            num_updates=np.uint32(last - first),
            evaluate=np.bool_(
                last == plan.num_updates
                or (evaluate_every is not None and last % evaluate_every == 0)
            ),
            start=_padded(capacity.updates + 1)(plan.start[first : last + 1] - begin, np.uint32),
            write_slot=updates(plan.write_slot[first:last], np.uint32),
            staleness=updates(plan.staleness[first:last], np.float32),
            seconds=updates(timeline.apply_time[first:last], np.float32),
            gradients=updates(gradients[first:last], np.int32),
            row_weight=None
            if plan.row_weight is None
            else updates(plan.row_weight[first:last], np.float32),
            rows_are_means=None
            if plan.row_weight is None
            else np.bool_(timeline.average == "workers"),
            worker=messages(timeline.worker[message], np.int32),
            local_index=messages(timeline.local_index[message], np.int32),
            message_staleness=messages(timeline.staleness[message], np.int32),
            read_slot=messages(plan.read_slot[begin:end], np.uint32),
            weight=messages(plan.weight[begin:end], np.float32),
            keep=messages(plan.keep[begin:end], np.float32),
            share=messages(share[begin:end], np.float32),
            early=_early(timeline, plan, first, last, capacity),
            **_waves(plan, first, last, capacity) if capacity.waves else {},
        )


def cut_lead(timeline: Timeline, plan: Plan, capacity: Capacity) -> Iterator[Chunk]:
    """Yield the chunks of an early plan that come before update 0, and make no update."""
    whole = next(cut(timeline, plan, capacity.updates, capacity, None))
    for first, last in bounds(plan.lead, capacity.updates):
        early = _early(timeline, plan, first - plan.lead, last - plan.lead, capacity)
        yield whole._replace(num_updates=np.uint32(0), evaluate=np.bool_(False), early=early)


def _early(
    timeline: Timeline, plan: Plan, first: int, last: int, capacity: Capacity
) -> EarlySteps | None:
    """The steps that compute messages early and make these updates, none before update 0."""
    if plan.computed is None:
        return None
    steps = slice(plan.lead + first, plan.lead + last)
    padded, message = _padded(capacity.updates), plan.computed[steps]
    return EarlySteps(
        num_steps=np.uint32(last - first),
        due=np.bool_(first >= 0),
        worker=padded(timeline.worker[message], np.int32),
        local_index=padded(timeline.local_index[message], np.int32),
        write_slot=padded(plan.write_slot[steps], np.uint32),
    )


def _waves(plan: Plan, first: int, last: int, capacity: Capacity) -> dict[str, Any]:
    """The waves of a chunk; one that the chunk's end cuts is two."""
    within = plan.wave[(plan.wave > first) & (plan.wave < last)]
    edges = np.concatenate([[first], within, [last]]) - first
    return {
        "num_waves": np.uint32(len(edges) - 1),
        "wave": _padded(capacity.updates + 1)(edges, np.uint32),
    }


def _padded(size: int):
    def pad(column: np.ndarray, dtype) -> np.ndarray:
        out = np.zeros((size, *column.shape[1:]), dtype)
        out[: len(column)] = column
        return out

    return pad


def _shares(timeline: Timeline, plan: Plan) -> np.ndarray:
    """`[W]` each message's share of the mean loss of the update that it enters."""
    used = timeline.update[plan.message] >= 0
    group = np.repeat(np.arange(plan.num_updates), np.diff(plan.start))
    count = np.bincount(group[used], minlength=plan.num_updates)
    return np.where(used, 1.0 / count[group], 0.0)

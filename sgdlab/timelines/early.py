"""A plan in which every message is computed as soon as its worker has read the parameters.

A message is a function of the version that was read and of a minibatch. It may be computed when
its turn comes, from a copy of a version that is old by then; or while that version is still the
current one, and then the message waits in a slot. The first way copies a stale version twice, into
its slot and out of it, and the second a message once.

It pays where each update is followed by one worker that reads what it made, as under plain
asynchronous SGD: then each step computes one message and makes one update.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from sgdlab.timelines.plan import Plan, color
from sgdlab.timelines.timeline import IN_FLIGHT, Timeline


def reads_in_turn(timeline: Timeline) -> bool:
    """Whether every version but the first is read by exactly one message, and none is in vain.

    A message that is under way at the end is not in vain: a longer horizon would use it.
    """
    began = timeline.read_version < timeline.num_updates
    in_vain = (timeline.update < 0) & (timeline.update != IN_FLIGHT)
    if np.any(began & in_vain):
        return False
    readers = np.bincount(timeline.read_version[began], minlength=timeline.num_updates)
    return bool(readers[0] > 0 and np.all(readers[1:] == 1))


def count_first_readers(timeline: Timeline) -> int:
    """How many messages read version 0."""
    return int(np.count_nonzero(timeline.read_version == 0))


def go_early(timeline: Timeline, plan: Plan) -> Plan:
    """The same replay, each message computed as soon as its worker has read.

    Step e computes the message `computed[e]` and puts it into `write_slot[e]`; from e = lead on it
    then makes update e − lead, whose message waits in `read_slot[e − lead]`. The messages that read
    version 0 are computed first, in the order of workers, which no horizon changes.

    Args:
      timeline: one that `reads_in_turn`.
      plan: its plan, each update of one message.

    Returns:
      The early plan, whose slots hold messages.
    """
    read, num_updates = timeline.read_version, timeline.num_updates
    first = np.flatnonzero(read == 0)
    first = first[np.lexsort((timeline.local_index[first], timeline.worker[first]))]
    lead = len(first) - 1
    computed = np.zeros(lead + num_updates, np.int64)
    computed[: lead + 1] = first
    later = np.flatnonzero((read > 0) & (read < num_updates))
    computed[lead + read[later]] = later
    step = np.zeros(timeline.num_messages, np.int64)
    step[computed] = np.arange(len(computed))
    source = step[plan.message]
    waiting = np.flatnonzero(timeline.update[computed] == IN_FLIGHT)
    end = np.full(len(computed), len(computed) - 1)
    end[source] = lead + np.arange(num_updates)
    num_slots, slot = color(end)
    return replace(
        plan,
        num_slots=num_slots,
        write_slot=slot,
        read_slot=slot[source],
        source=source,
        waiting=waiting,
        lead=lead,
        computed=computed,
    )

"""A plain walk of a timeline in float64: every message as its worker would send it, in order."""

import numpy as np

from sgdlab.timelines import DROPPED


def walk(timeline, start, send, learning_rate, receive=None):
    """SGD, message by message in the order of their arrival, with nothing planned.

    Args:
      timeline: any timeline.
      start: `[d]`, version 0.
      send: `send(worker, index, w) -> message`, the worker's index-th message, computed at w; it is
        asked for the messages that arrive, the refused ones too, and may keep state of its own;
        `None` for one that is not finite, which is left out of its mean.
      learning_rate: η.
      receive: `receive(message, staleness) -> message`.

    Returns:
      `[T + 1, d]` float64: every version.
    """
    versions, sent = [np.asarray(start, np.float64)], {}
    arrived = np.flatnonzero((timeline.update >= 0) | (timeline.update == DROPPED))
    for m in arrived:
        while len(versions) <= timeline.read_version[m]:
            versions.append(_update(timeline, versions, sent, learning_rate))
        read = versions[timeline.read_version[m]]
        message = send(int(timeline.worker[m]), int(timeline.local_index[m]), read)
        if message is not None:
            sent[m] = message if receive is None else receive(message, timeline.staleness[m])
    while len(versions) <= timeline.num_updates:
        versions.append(_update(timeline, versions, sent, learning_rate))
    return np.stack(versions)


def _update(timeline, versions, sent, learning_rate):
    """The next version, from the mean over the messages in use or over their workers' means."""
    update = len(versions) - 1
    used = np.flatnonzero((timeline.update >= 0) & (timeline.update <= update))
    used = used[timeline.last_update[used] >= update]
    used = used[[m in sent for m in used]]
    if not len(used):
        return versions[-1]
    if timeline.average == "messages":
        mean = np.mean([sent[m] for m in used], axis=0)
    else:
        rows = [used[timeline.worker[used] == i] for i in np.unique(timeline.worker[used])]
        mean = np.mean([np.mean([sent[m] for m in row], axis=0) for row in rows], axis=0)
    return versions[-1] - learning_rate * mean

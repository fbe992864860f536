"""Plain references: a NumPy walk of a timeline, and the liveness of its versions, as written."""

import numpy as np

from sgdlab.timelines import IN_FLIGHT


def walk_quadratic(timeline, curvature, start, learning_rate):
    """SGD on ½Σλw² in float64, message by message, with nothing planned.

    Returns `[T + 1, d]`: every version.
    """
    curvature = np.asarray(curvature, np.float64)
    versions = [np.full(len(curvature), start, np.float64)]
    for update in range(timeline.num_updates):
        used = np.flatnonzero((timeline.update <= update) & (update <= timeline.last_update))
        used = used[timeline.update[used] >= 0]
        gradients = {m: curvature * versions[timeline.read_version[m]] for m in used}
        if timeline.average == "messages":
            mean = np.mean([gradients[m] for m in used], axis=0)
        else:
            rows = [
                np.mean([gradients[m] for m in used if timeline.worker[m] == i], axis=0)
                for i in sorted(set(timeline.worker[used]))
            ]
            mean = np.mean(rows, axis=0)
        versions.append(versions[-1] - learning_rate * mean)
    return np.stack(versions)


def most_versions_alive(timeline):
    """The most versions that are the current one or still to be read stale, at any update.

    What is under way at the end may be read later still.
    """
    most = 0
    for update in range(timeline.num_updates):
        later = (timeline.update >= update) | (timeline.update == IN_FLIGHT)
        alive = set(timeline.read_version[later & (timeline.read_version <= update)]) | {update}
        most = max(most, len(alive))
    return most

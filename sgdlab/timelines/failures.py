"""Machines that fail and are repaired, each on a clock of its own."""

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from sgdlab.timelines.arguments import (
    NonNegative,
    Positive,
    TimelineError,
    check_fields,
    plain,
)

_MAX_FAILURES = 2**20


@dataclass(frozen=True)
class Failures:
    """How often machines fail and how long they stay away.

    A worker is up for an exponential time with mean `mtbf`, then down for `repair` seconds. What
    it was computing or sending is lost; when it is up again, it reads afresh. What the server
    already has is safe, and a worker that fails while it waits loses nothing but time.

    Attributes:
      mtbf: mean time between failures: from a repair to the next failure, seconds.
      repair: seconds from a failure until the worker reads again.
    """

    mtbf: Positive
    repair: NonNegative

    def __post_init__(self) -> None:
        check_fields(self, "failures")

    def to_dict(self) -> dict[str, Any]:
        """The arguments, JSON-serialisable."""
        return plain(dataclasses.asdict(self))


class FailureClock:
    """When one worker is down: up for a random time, down for `repair` seconds, and again.

    The clock runs whether the worker is busy or not, so it is the same under every protocol.

    Attributes:
      next_failure: the first failure whose repair isn't over, seconds.
    """

    def __init__(self, uptimes: Iterator[float], repair: float) -> None:
        self._uptimes = uptimes
        self._repair = repair
        self._count = 0
        self.next_failure = next(uptimes)

    def down_until(self, now: float) -> float:
        """When the worker will be up again; 0 if it is up. `now` never decreases."""
        while self.next_failure <= now:
            repaired = self.next_failure + self._repair
            if repaired > now:
                return repaired
            self._count += 1
            self.next_failure = repaired + next(self._uptimes)
            if self._count > _MAX_FAILURES or self.next_failure == repaired:
                raise TimelineError(
                    f"failures: {self._count} of one worker by {now:.6g} s, and no end; "
                    "allowed: an mtbf and a repair that are nearer to the compute times"
                )
        return 0.0

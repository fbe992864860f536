"""What lies between workers and server: transfers that take time."""

import dataclasses
import math
from dataclasses import dataclass
from typing import Any, Literal

from sgdlab.timelines.arguments import NonNegative, Positive, check_fields, plain


@dataclass(frozen=True)
class Network:
    """The α-β model: moving m bytes takes α + m/β seconds.

    A worker spends one transfer to read the parameters and one to send its message. The version
    it gets is the one that is current when it asks. A server with a service time handles one
    message at a time in the order of their coming, so it saturates at 1/`service_time` messages a
    second, however many workers there are.

    Where `collective` is "ring" or "tree", the `synchronous` protocol has no server: when the last
    worker has its gradient, an all-reduce leaves the new parameters with everyone. With N workers

        ring: 2(N − 1)·(α + m/(Nβ)),    tree: 2⌈log₂ N⌉·(α + m/β).

    Attributes:
      latency: α, seconds.
      bandwidth: β, bytes a second; `None` for a wire without limit.
      message_bytes: m, the size of the parameters and of a message alike.
      service_time: seconds that the server spends on each message.
      collective: how a synchronous update is averaged; other protocols always use the server.

    Reference: Thakur, Rabenseifner and Gropp, "Optimization of Collective Communication Operations
      in MPICH", 2005, with the costs that MPICH's source gives a binomial reduce and broadcast;
      Patarasuk and Yuan, "Bandwidth Optimal All-reduce Algorithms for Clusters of Workstations",
      2009, for the ring.
    """

    latency: NonNegative = 0.0
    bandwidth: Positive | None = None
    message_bytes: NonNegative = 0.0
    service_time: NonNegative = 0.0
    collective: Literal["server", "ring", "tree"] = "server"

    def __post_init__(self) -> None:
        check_fields(self, "network")

    @property
    def transfer_seconds(self) -> float:
        """Seconds for one read, or for one message."""
        return self.latency + self._wire_seconds(self.message_bytes)

    def collective_seconds(self, workers: int) -> float:
        """Seconds that one all-reduce between so many workers takes; 0 through the server."""
        if self.collective == "server" or workers < 2:
            return 0.0
        if self.collective == "ring":
            chunk = self._wire_seconds(self.message_bytes / workers)
            return 2 * (workers - 1) * (self.latency + chunk)
        return 2 * math.ceil(math.log2(workers)) * self.transfer_seconds

    def to_dict(self) -> dict[str, Any]:
        """The arguments, JSON-serialisable."""
        return plain(dataclasses.asdict(self))

    def _wire_seconds(self, size: float) -> float:
        return 0.0 if self.bandwidth is None else size / self.bandwidth

"""What a protocol is: a small policy that an event engine asks what to do next."""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

from sgdlab.timelines.arguments import TimelineError, plain

if TYPE_CHECKING:
    from sgdlab.timelines.cluster import Cluster
    from sgdlab.timelines.engine import Engine


class Policy(ABC):
    """When the server updates and whom it sends on: one object decides for one run.

    Make it a dataclass: its constructor arguments are the protocol's parameters, checked against
    their annotations, and its other fields (`init=False`) the state of the run. The engine calls
    the methods below; each may call the engine's `apply`, `drop`, `start`, `stop`, `restart`,
    `restart_everyone` and `wake`, and applies at most one update.

    Attributes:
      name: the protocol's name.
      average: how the messages of an update are averaged, "messages" or "workers".
      collective: whether an update is the mean over all workers, so that `Network.collective`
        may replace the server.
    """

    name: ClassVar[str]
    average: ClassVar[str] = "messages"
    collective: ClassVar[bool] = False

    @abstractmethod
    def arrive(self, engine: Engine, worker: int, message: int) -> None:
        """The server has a message; its worker is idle until it is started again."""

    def wake(self, engine: Engine, token: int) -> None:
        """A time asked for with `engine.wake(time, token)` has come."""
        return

    def join(self, engine: Engine, worker: int) -> None:
        """A worker is there: at the start of the timeline or later."""
        engine.start(worker)

    def leave(self, engine: Engine, worker: int) -> None:
        """A worker has left for good; whoever waits for all waits for one fewer."""
        return

    def check(self, cluster: Cluster) -> None:
        """Refuse a cluster that the protocol cannot serve.

        Raises:
          TimelineError: in one line.
        """
        return

    @property
    def parameters(self) -> dict[str, Any]:
        """The protocol's parameters, JSON-serialisable."""
        fields = dataclasses.fields(self) if dataclasses.is_dataclass(self) else ()
        return plain({item.name: getattr(self, item.name) for item in fields if item.init})


@dataclass
class Gathering(Policy):
    """A policy whose workers wait from their message's arrival until an update uses it.

    Attributes:
      held: the messages that have come in.
      waiting: the present workers that wait.
    """

    held: list[int] = field(default_factory=list, init=False)
    waiting: set[int] = field(default_factory=set, init=False)

    @abstractmethod
    def is_complete(self, engine: Engine) -> bool:
        """Whether what has come in is enough for an update."""

    def arrive(self, engine: Engine, worker: int, message: int) -> None:
        """Hold the message, and update if that completes it."""
        self.held.append(message)
        self.waiting.add(worker)
        self.update_if_complete(engine)

    def leave(self, engine: Engine, worker: int) -> None:
        """Update if the worker that left was the last to be waited for."""
        self.waiting.discard(worker)
        self.update_if_complete(engine)

    def update_if_complete(self, engine: Engine) -> None:
        """Update if what has come in is enough."""
        if self.held and self.is_complete(engine):
            self.release(engine)

    def all_wait(self, engine: Engine) -> bool:
        """Whether every present worker waits."""
        return len(self.waiting) == engine.num_present

    def release(self, engine: Engine) -> None:
        """Apply what is held as one update, and send those who wait on."""
        held, waiting = self.held, sorted(self.waiting)
        self.held, self.waiting = [], set()
        engine.apply(held)
        for worker in waiting:
            engine.start(worker)


@dataclass
class FreshBatch(Policy):
    """A policy that collects messages computed at the current version; workers read on at once.

    Attributes:
      stop: at an update, stop what the others compute and start everyone; else they run on, and
        what they bring is refused as stale.
      held: the messages that have come in.
    """

    stop: bool = field(default=False, kw_only=True)
    held: list[int] = field(default_factory=list, init=False)

    @abstractmethod
    def is_complete(self, engine: Engine) -> bool:
        """Whether what has come in is enough for an update."""

    def take(self, worker: int, message: int) -> None:
        """Hold a fresh message."""
        self.held.append(message)

    def arrive(self, engine: Engine, worker: int, message: int) -> None:
        """Hold a fresh message, and update if that completes it; refuse a stale one."""
        if engine.staleness(message) > 0:
            engine.drop(message)
        else:
            self.take(worker, message)
        if not (self.update_if_complete(engine) and self.stop):
            engine.start(worker)

    def update_if_complete(self, engine: Engine) -> bool:
        """Update if what has come in is enough.

        Returns:
          Whether there was an update.
        """
        complete = bool(self.held) and self.is_complete(engine)
        if complete:
            self.release(engine)
        return complete

    def release(self, engine: Engine) -> None:
        """Apply what is held as one update, and stop the others if so asked."""
        held, self.held = self.held, []
        engine.apply(held)
        if self.stop:
            engine.restart_everyone()


def check_at_most_workers(policy: Policy, name: str, cluster: Cluster) -> None:
    """Refuse a number of distinct workers that the cluster doesn't have.

    Raises:
      TimelineError: names the protocol, the parameter and its value.
    """
    value = getattr(policy, name)
    if value > cluster.workers:
        allowed = f"<= the cluster's {cluster.workers} workers"
        raise TimelineError(f"{policy.name}: {name} is {value}; allowed: {allowed}")

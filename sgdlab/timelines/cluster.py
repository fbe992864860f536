"""The machines: how many workers, how fast, over what network, how reliable."""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from sgdlab.arguments import show, unwrap, unwrap_all
from sgdlab.timelines.arguments import (
    Count,
    NonNegative,
    Positive,
    Steps,
    TimelineError,
    Workers,
    check_argument,
    check_fields,
    plain,
)
from sgdlab.timelines.compute import ComputeModel, Sampler, constant, make_compute, slowed
from sgdlab.timelines.failures import Failures
from sgdlab.timelines.network import Network

_DRAWN_AT_ONCE = 2**20
_COMPUTE, _FAILURES = (), (1,)  # spawn keys after the worker's index: one stream for each purpose


@dataclass(frozen=True)
class Stragglers:
    """Some workers that are `factor` times slower than their compute model says.

    Attributes:
      factor: by how much their times are multiplied.
      count: the last so many workers are slow.
      workers: or: which ones, by index.
    """

    factor: Positive
    count: Count | None = None
    workers: Sequence[int] | None = None

    def __post_init__(self) -> None:
        _replace(self, "workers", unwrap_all(self.workers))
        check_fields(self, "stragglers")
        if (self.count is None) == (self.workers is None):
            raise TimelineError("stragglers: give exactly one of count and workers")

    def indices(self, num_workers: int) -> frozenset[int]:
        """Which of so many workers are slow.

        Raises:
          TimelineError: more of them, or others, than there are.
        """
        if self.workers is None:
            check = f"an integer <= the {num_workers} workers"
            if self.count is not None and self.count > num_workers:
                raise TimelineError(f"stragglers: count is {self.count}; allowed: {check}")
            return frozenset(range(num_workers - (self.count or 0), num_workers))
        if not isinstance(self.workers, list | tuple):
            found = show(self.workers)
            raise TimelineError(f"stragglers: workers is {found}; allowed: a list of workers")
        which = [
            _check_worker("stragglers: workers", worker, num_workers) for worker in self.workers
        ]
        return frozenset(which)


@dataclass(frozen=True)
class Cluster:
    """N workers and what connects them. Plain values in a config do for every argument.

    Attributes:
      workers: N.
      compute: the model of the seconds per gradient, for all workers or a list with one for each.
      network: transfer times; `None` for an instant network.
      failures: machine failures; `None` for machines that never fail.
      gradients_per_message: H; a message takes the sum of H compute times.
      stragglers: workers slowed by a factor, `{"count": 2, "factor": 10.0}` (the last two) or
        `{"workers": [0, 3], "factor": 10.0}`.
      joins: worker index -> the second at which it joins; the others are there from the start.
      leaves: worker index -> the second at which it leaves for good; its unfinished work is lost.

    Raises:
      TimelineError: an argument out of range, in one line.

    Worker i's times come from a stream that depends on the seed and on i alone, so adding a worker
    changes nobody else's.
    """

    workers: Workers = 16
    compute: ComputeModel | Sequence[ComputeModel] = field(default_factory=lambda: constant(1.0))
    network: Network | None = None
    failures: Failures | None = None
    gradients_per_message: Steps = 1
    stragglers: Stragglers | None = None
    joins: Mapping[int, float] = field(default_factory=dict)
    leaves: Mapping[int, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_fields(self, "cluster")
        _replace(self, "compute", _make_models(self.compute, self.workers))
        _replace(self, "network", _make("network", Network, self.network))
        _replace(self, "failures", _make("failures", Failures, self.failures))
        _replace(self, "stragglers", _make("stragglers", Stragglers, self.stragglers))
        _replace(self, "joins", _make_times("joins", self.joins, self.workers))
        _replace(self, "leaves", _make_times("leaves", self.leaves, self.workers))
        slow = self.stragglers.indices(self.workers) if self.stragglers else frozenset()
        for worker, time in self.leaves.items():
            if time <= self.joins.get(worker, 0.0):
                raise TimelineError(
                    f"cluster: worker {worker} leaves at {time} s; allowed: after it has joined"
                )
        compute: Any = self.compute
        models = compute if isinstance(compute, tuple) else (compute,) * self.workers
        factor = self.stragglers.factor if self.stragglers else 1.0
        own = (model.of_worker(i, self.workers) for i, model in enumerate(models))
        per_worker = (slowed(m, factor) if i in slow else m for i, m in enumerate(own))
        _replace(self, "_models", tuple(per_worker))

    @property
    def models(self) -> tuple[ComputeModel, ...]:
        """The compute model of every worker, stragglers slowed."""
        return self.__dict__["_models"]

    @property
    def mean_seconds(self) -> np.ndarray:
        """`[N]` float64, each worker's mean seconds per gradient."""
        return np.array([model.mean for model in self.models], np.float64)

    @property
    def is_plain(self) -> bool:
        """Whether only compute times matter: no network, no failures, nobody comes or goes."""
        return not (self.network or self.failures or self.joins or self.leaves)

    def message_times(self, worker: int, seed: int) -> Sampler:
        """Worker's stream of compute seconds per message: n -> `[n]` float64, the next n.

        Raises:
          TimelineError: when called, if the model draws what is no time.
        """
        model, gradients = self.models[worker], self.gradients_per_message
        draw = _checked(model, model.sampler(_generator(seed, worker, _COMPUTE)))
        if gradients == 1:
            return draw
        at_once = max(1, _DRAWN_AT_ONCE // gradients)  # the stream is the same however it is cut

        def draw_messages(count: int) -> np.ndarray:
            sizes = [min(at_once, count - done) for done in range(0, count, at_once)]
            sums = [draw(size * gradients).reshape(size, gradients).sum(axis=1) for size in sizes]
            return np.concatenate(sums)

        return draw_messages

    def uptimes(self, worker: int, seed: int) -> Iterator[float]:
        """Worker's successive times from a repair (or the start) to the next failure, seconds."""
        mtbf = self.failures.mtbf if self.failures else np.inf
        rng = _generator(seed, worker, _FAILURES)
        while True:
            yield float(rng.exponential(mtbf)) if self.failures else mtbf

    def to_dict(self) -> dict[str, Any]:
        """The arguments, JSON-serialisable; `Cluster.from_dict` makes an equal cluster of them."""
        compute = self.compute
        several = isinstance(compute, Sequence)
        parts = (self.network, self.failures, self.stragglers)
        network, failures, stragglers = (part and dataclasses.asdict(part) for part in parts)
        return plain(
            {
                "workers": self.workers,
                "compute": [m.to_dict() for m in compute] if several else compute.to_dict(),
                "network": network,
                "failures": failures,
                "gradients_per_message": self.gradients_per_message,
                "stragglers": stragglers,
                "joins": self.joins,
                "leaves": self.leaves,
            }
        )

    @classmethod
    def from_dict(cls, config: Mapping[str, Any]) -> "Cluster":
        """The cluster of a config.

        Raises:
          TimelineError: an unknown argument, or one out of range.
        """
        return _make("cluster", cls, config)


def _generator(seed: int, worker: int, purpose: tuple[int, ...]) -> np.random.Generator:
    return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(worker, *purpose)))


def _replace(instance: Any, name: str, value: Any) -> None:
    object.__setattr__(instance, name, value)


def _make(where: str, kind: type, config: Any) -> Any:
    """The dataclass of a config; itself and `None` pass through."""
    if config is None or isinstance(config, kind):
        return config
    allowed = [item.name for item in dataclasses.fields(kind)]
    if not isinstance(config, Mapping):
        raise TimelineError(f"{where}: {show(config)} given; allowed: {', '.join(allowed)} by name")
    for name in config:
        if name not in allowed:
            raise TimelineError(f"{where}: unknown {name!r}; allowed: {', '.join(allowed)}")
    for item in dataclasses.fields(kind):
        required = item.default is item.default_factory is dataclasses.MISSING
        if required and item.name not in config:
            raise TimelineError(f"{where}: {item.name} is missing; allowed: a value for it")
    return kind(**config)


def _make_models(compute: Any, workers: int) -> ComputeModel | tuple[ComputeModel, ...]:
    compute = unwrap_all(compute)
    if isinstance(compute, ComputeModel | Mapping):
        return make_compute(compute)
    if not isinstance(compute, Sequence) or isinstance(compute, str):
        found = show(compute)
        raise TimelineError(f"cluster: compute is {found}; allowed: a model, or one per worker")
    if len(compute) != workers:
        raise TimelineError(
            f"cluster: compute lists {len(compute)} models; allowed: {workers}, one per worker"
        )
    return tuple(make_compute(model) for model in compute)


def _make_times(name: str, times: Any, workers: int) -> dict[int, float]:
    if not isinstance(times, Mapping):
        raise TimelineError(f"cluster: {name} is {show(times)}; allowed: {{worker: seconds, ...}}")
    clean: dict[int, float] = {}
    for key, time in times.items():
        worker = int(key) if isinstance(key, str) and key.isdecimal() else key
        worker = _check_worker(f"cluster: {name}", worker, workers)
        clean[worker] = float(check_argument("cluster", f"{name}[{worker}]", NonNegative, time))
    return clean


def _check_worker(where: str, worker: Any, num_workers: int) -> int:
    worker = unwrap(worker)
    is_whole = isinstance(worker, int) and not isinstance(worker, bool)
    if not is_whole or not 0 <= worker < num_workers:
        allowed = f"a worker 0 ... {num_workers - 1}"
        raise TimelineError(f"{where} names {show(worker)}; allowed: {allowed}")
    return worker


def _checked(model: ComputeModel, draw: Sampler) -> Sampler:
    """The sampler, its times looked at: a float64 ends where a parameter is extreme."""

    def draw_times(count: int) -> np.ndarray:
        with np.errstate(all="ignore"):
            times = np.asarray(draw(count), np.float64)
        if times.shape != (count,) or not (times >= 0).all():
            which = times[~(times >= 0)] if times.shape == (count,) else times
            raise TimelineError(
                f"compute: {model.name} draws {show(which.tolist())}; allowed: {count} times >= 0"
            )
        return times

    return draw_times

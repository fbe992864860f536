"""How long a gradient takes: distributions of compute time, in seconds per gradient.

A model is a frozen dataclass, named in lower case because it is used like a function:
`lognormal(mean=1.0, sigma=0.5)`. Wherever a model has an argument `mean`, it is the mean of the
time itself. To add one, write the class and its row in `COMPUTE_MODELS`.
"""

import copy
import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Any, Literal

import numpy as np
from annotated_types import Ge, Gt, Le

from sgdlab.arguments import show
from sgdlab.timelines.arguments import (
    NonNegative,
    Positive,
    Probability,
    TimelineError,
    check_fields,
    plain,
)
from sgdlab.timelines.tables import read_numbers

Sampler = Callable[[int], np.ndarray]
"""The next n times of one worker: n -> `[n]` float64, seconds."""


class ComputeModel:
    """A distribution of the time that one gradient takes.

    Attributes:
      mean: the long-run mean of the time, seconds; may be infinite or unknown only if it truly is.
    """

    mean: float

    def __post_init__(self) -> None:
        check_fields(self, self.name)

    @property
    def name(self) -> str:
        """The model's name in configs."""
        return type(self).__name__

    def sample(self, rng: np.random.Generator, size: int) -> np.ndarray:
        """`[size]` float64 times in seconds, drawn one after the other from `rng`."""
        raise NotImplementedError

    def sampler(self, rng: np.random.Generator) -> Sampler:
        """The worker's stream of times: calls follow on from one another, however they are cut."""
        return partial(self.sample, rng)

    def of_worker(self, worker: int, workers: int) -> "ComputeModel":
        """The model of one of so many workers; itself, where all are alike."""
        del worker, workers
        return self

    def to_dict(self) -> dict[str, Any]:
        """The config that `make_compute` turns into this model again."""
        fields = [field.name for field in dataclasses.fields(self) if field.init]  # pyright: ignore[reportArgumentType]
        return plain({"name": self.name} | {name: getattr(self, name) for name in fields})


@dataclass(frozen=True)
class constant(ComputeModel):
    """Every gradient takes the same time."""

    mean: Positive

    def sample(self, rng: np.random.Generator, size: int) -> np.ndarray:
        """`[size]` times, all equal."""
        return np.full(size, float(self.mean))


@dataclass(frozen=True)
class exponential(ComputeModel):
    """Memoryless times: P(time > t) = exp(−t/mean)."""

    mean: Positive

    def sample(self, rng: np.random.Generator, size: int) -> np.ndarray:
        """`[size]` exponential times."""
        return rng.exponential(self.mean, size)


@dataclass(frozen=True)
class shifted_exponential(ComputeModel):
    """A fixed part and a memoryless one: shift + Exp(mean − shift)."""

    mean: Positive
    shift: NonNegative

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.shift >= self.mean:
            raise TimelineError(f"{self.name}: shift is {self.shift}; allowed: < mean {self.mean}")

    def sample(self, rng: np.random.Generator, size: int) -> np.ndarray:
        """`[size]` shifted exponential times."""
        return self.shift + rng.exponential(self.mean - self.shift, size)


@dataclass(frozen=True)
class lognormal(ComputeModel):
    """exp(N(log mean − σ²/2, σ²)): `mean` is of the time, `sigma` is the spread of its log."""

    mean: Positive
    sigma: Annotated[float, Ge(0), Le(100)]

    def sample(self, rng: np.random.Generator, size: int) -> np.ndarray:
        """`[size]` log-normal times."""
        return rng.lognormal(np.log(self.mean) - self.sigma**2 / 2, self.sigma, size)


@dataclass(frozen=True)
class gamma(ComputeModel):
    """Gamma times, with standard deviation mean/√shape: shape 1 is exponential, ∞ constant."""

    mean: Positive
    shape: Positive

    def sample(self, rng: np.random.Generator, size: int) -> np.ndarray:
        """`[size]` gamma times."""
        return rng.gamma(self.shape, self.mean / self.shape, size)


@dataclass(frozen=True)
class pareto(ComputeModel):
    """Heavy tails: P(time > t) = (m/t)^shape for t ≥ m = mean·(shape − 1)/shape."""

    mean: Positive
    shape: Annotated[float, Gt(1)]

    def sample(self, rng: np.random.Generator, size: int) -> np.ndarray:
        """`[size]` Pareto times."""
        smallest = self.mean * (self.shape - 1) / self.shape
        return smallest * (1 + rng.pareto(self.shape, size))


@dataclass(frozen=True)
class uniform(ComputeModel):
    """Any time between `low` and `high` seconds, equally likely."""

    low: NonNegative
    high: Positive

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.high < self.low:
            raise TimelineError(f"{self.name}: high is {self.high}; allowed: >= low {self.low}")

    @property
    def mean(self) -> float:
        """(low + high)/2."""
        return (self.low + self.high) / 2

    def sample(self, rng: np.random.Generator, size: int) -> np.ndarray:
        """`[size]` uniform times."""
        return rng.uniform(self.low, self.high, size)


@dataclass(frozen=True)
class markov(ComputeModel):
    """A worker with good and bad spells: a two-state chain, one step a gradient.

    A gradient takes `fast` or `slow` seconds. After each, a fast worker turns slow with
    probability `to_slow` and a slow one fast with probability `to_fast`. The first state is drawn
    from the stationary law, P(slow) = to_slow/(to_slow + to_fast).
    """

    fast: Positive
    slow: Positive
    to_slow: Probability
    to_fast: Probability

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.to_slow + self.to_fast == 0:
            raise TimelineError(f"{self.name}: to_slow and to_fast are 0; allowed: one of them > 0")

    @property
    def share_slow(self) -> float:
        """The share of gradients that are slow in the long run."""
        return self.to_slow / (self.to_slow + self.to_fast)

    @property
    def mean(self) -> float:
        """The stationary mean time, seconds."""
        return self.fast + (self.slow - self.fast) * self.share_slow

    def sample(self, rng: np.random.Generator, size: int) -> np.ndarray:
        """`[size]` times of a worker that starts now."""
        return self.sampler(rng)(size)

    def sampler(self, rng: np.random.Generator) -> Sampler:
        """The worker's stream of times; its state lives on from call to call."""
        probability = self.share_slow

        def draw(size: int) -> np.ndarray:
            nonlocal probability
            slow = np.empty(size, bool)
            for index, chance in enumerate(rng.random(size).tolist()):
                slow[index] = chance < probability
                probability = 1 - self.to_fast if slow[index] else self.to_slow
            return np.where(slow, float(self.slow), float(self.fast))

        return draw


@dataclass(frozen=True)
class trace(ComputeModel):
    """Measured times from a CSV or Parquet file, one column of positive numbers.

    Args:
      path: the file; it is read as data and never executed.
      column: which column; may be left out where there is only one.
      by: the column of hosts: worker i draws from the times of the i-th of them, in alphabetical
        order, of which there must be as many as workers; "all" draws everybody's from all of them,
        which is refused where it isn't said of a file that has such a column.
      order: "sampled" draws times with replacement; "recorded" plays them in their order, each
        worker from an offset of its own and round again at the end, which keeps slow spells whole.
    """

    path: str
    column: str | None = None
    by: str | None = None
    order: Literal["sampled", "recorded"] = "sampled"
    seconds: np.ndarray = dataclasses.field(init=False, repr=False, compare=False)
    of_host: dict[str, np.ndarray] = dataclasses.field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "path", str(self.path))
        super().__post_init__()
        seconds, of_host = read_numbers(self.path, self.column, self.by)
        object.__setattr__(self, "seconds", seconds)
        object.__setattr__(self, "of_host", of_host)

    def of_worker(self, worker: int, workers: int) -> ComputeModel:
        """The same, with the times of the worker's own host."""
        if not self.of_host:
            return self
        if len(self.of_host) != workers:
            raise TimelineError(
                f"{self.path}: {len(self.of_host)} different {self.by}; allowed: {workers}, one "
                "for each worker"
            )
        own = copy.copy(self)
        object.__setattr__(own, "seconds", list(self.of_host.values())[worker])
        return own

    @property
    def mean(self) -> float:
        """The mean of the recorded times, seconds."""
        return float(self.seconds.mean())

    def sample(self, rng: np.random.Generator, size: int) -> np.ndarray:
        """`[size]` recorded times."""
        return self.sampler(rng)(size)

    def sampler(self, rng: np.random.Generator) -> Sampler:
        """The worker's stream of recorded times."""
        if self.order == "sampled":
            return lambda size: self.seconds[rng.integers(len(self.seconds), size=size)]
        position = int(rng.integers(len(self.seconds)))

        def play(size: int) -> np.ndarray:
            nonlocal position
            index = np.arange(position, position + size) % len(self.seconds)
            position += size
            return self.seconds[index]

        return play


@dataclass(frozen=True)
class slowed(ComputeModel):
    """A model whose every time is multiplied by `factor`: the same worker on a slower machine."""

    model: ComputeModel
    factor: Positive

    def __post_init__(self) -> None:
        object.__setattr__(self, "model", make_compute(self.model))
        super().__post_init__()

    @property
    def mean(self) -> float:
        """factor × the model's mean, seconds."""
        return self.factor * self.model.mean

    def of_worker(self, worker: int, workers: int) -> ComputeModel:
        """The worker's own model, slowed."""
        return dataclasses.replace(self, model=self.model.of_worker(worker, workers))

    def sample(self, rng: np.random.Generator, size: int) -> np.ndarray:
        """`[size]` times of the model, slowed."""
        return self.factor * self.model.sample(rng, size)

    def sampler(self, rng: np.random.Generator) -> Sampler:
        """The model's own stream, slowed."""
        draw = self.model.sampler(rng)
        return lambda size: self.factor * draw(size)

    def to_dict(self) -> dict[str, Any]:
        """The config, with the model's config inside."""
        return {"name": self.name, "model": self.model.to_dict(), "factor": plain(self.factor)}


COMPUTE_MODELS: dict[str, type[ComputeModel]] = {
    "constant": constant,
    "exponential": exponential,
    "shifted_exponential": shifted_exponential,
    "lognormal": lognormal,
    "gamma": gamma,
    "pareto": pareto,
    "uniform": uniform,
    "markov": markov,
    "trace": trace,
}
"""Every model that a config can name with plain values; its signature is its argument table."""


def make_compute(config: ComputeModel | Mapping[str, Any]) -> ComputeModel:
    """A compute-time model from its config, such as `{name: lognormal, mean: 1.0, sigma: 0.5}`.

    Raises:
      TimelineError: an unknown name, a missing or unknown argument, or a value out of range.
    """
    if isinstance(config, ComputeModel):
        return config
    if not isinstance(config, Mapping) or "name" not in config:
        raise TimelineError(
            f"compute: {show(config)} is no compute-time model; allowed: {{name: ...}}"
        )
    arguments = dict(config)
    name = arguments.pop("name")
    models = COMPUTE_MODELS | {"slowed": slowed}
    if not isinstance(name, str) or name not in models:
        raise TimelineError(f"compute: name is {show(name)}; allowed: {', '.join(models)}")
    try:
        return models[name](**arguments)
    except TypeError as error:
        fields = [field.name for field in dataclasses.fields(models[name]) if field.init]  # pyright: ignore[reportArgumentType]
        given = ", ".join(map(str, arguments)) or "nothing"
        raise TimelineError(f"{name}: given {given}; allowed: {', '.join(fields)}") from error

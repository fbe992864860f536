"""What a benchmark is: contestants that do the same work, and the ratios that must hold."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Run:
    """A contestant at work.

    Attributes:
      work: does some updates, waits until they are done, and returns how many they were.
      losses: `[T]` float32, the training losses of a run from version 0; for tests.
    """

    work: Callable[[], int]
    losses: Callable[[], Any]


@dataclass(frozen=True)
class Contestant:
    """One way to do a benchmark's work.

    Attributes:
      name: what the table calls it.
      setup: builds everything and returns a `Run`. Heavy imports happen inside.
      threads: how many threads it may compute with.
    """

    name: str
    setup: Callable[[], Run]
    threads: int = 1


@dataclass(frozen=True)
class Target:
    """A ratio of two contestants' rates.

    Attributes:
      contestant: the numerator.
      over: the denominator, or several: then the fastest of them.
      at_least: what is aimed at.
    """

    contestant: str
    over: str | tuple[str, ...]
    at_least: float


@dataclass(frozen=True)
class Benchmark:
    """Contestants side by side.

    Attributes:
      name: what the command line calls it.
      title: what RESULTS.md calls it.
      contestants: the first is the one that the others are divided by.
      targets: what must hold.
      note: what a reader must know to judge the figures.
    """

    name: str
    title: str
    contestants: tuple[Contestant, ...]
    targets: tuple[Target, ...] = ()
    note: str = ""


@dataclass(frozen=True)
class Survey:
    """A table that one process fills by itself: memory, compile time, scaling.

    Attributes:
      name: what the command line calls it.
      title: what RESULTS.md calls it.
      columns: heads of the table.
      points: a function for each row, run in a fresh process; returns the row's cells.
      note: what a reader must know to judge the figures.
      threads: how many threads a row may compute with.
    """

    name: str
    title: str
    columns: tuple[str, ...]
    points: tuple[Callable[[], list], ...] = field(default=())
    note: str = ""
    threads: int = 1

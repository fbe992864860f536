"""From a file and overrides to an experiment that has been checked as a whole."""

from __future__ import annotations

import functools
import inspect
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from os import PathLike, fspath
from pathlib import Path as FilePath
from typing import Any

from pydantic import ValidationError

from sgdlab.experiment.claims.checking import check_claims_of, read_claims
from sgdlab.experiment.claims.vocabulary import Claim
from sgdlab.experiment.config.notebook import show_experiment
from sgdlab.experiment.config.numbers import check_numbers
from sgdlab.experiment.config.rates import check_rates
from sgdlab.experiment.config.schema import CLUSTER, HORIZONS, Config
from sgdlab.experiment.config.sweep import Setting, apply, make_label, read_sweep
from sgdlab.experiment.errors import ConfigError
from sgdlab.experiment.reading.files import make_error, resolve_paths
from sgdlab.experiment.reading.parsing import MAX_BYTES, parse
from sgdlab.experiment.reading.paths import Path, apply_overrides
from sgdlab.experiment.reading.problems import Problem, explain, wrong_kind
from sgdlab.files import open_regular
from sgdlab.rules.fitting import check_fit
from sgdlab.rules.table import RULES
from sgdlab.timelines import PROTOCOLS, Cluster, TimelineError


@dataclass(frozen=True)
class Point:
    """One point of a sweep; an experiment without a sweep has one.

    Attributes:
      index: its place in the sweep.
      label: what tells it from the others; "" without a sweep.
      values: path to value, what the sweep sets.
      config: the whole config at this point.
    """

    index: int
    label: str
    values: dict[str, Any]
    config: Config

    @property
    def mapped(self) -> dict[str, float]:
        """The rule's numbers that enter its program as data, so that they share a compile.

        Of optax's own rules that is the learning rate alone: others branch on their arguments.
        """
        arguments = self.config.rule.arguments()
        names = RULES.get(self.config.rule.name, {"learning_rate": None})
        return {
            name: value
            for name, value in arguments.items()
            if name in names and isinstance(value, float)
        }

    @functools.cached_property
    def plain(self) -> dict[str, Any]:
        """The config as plain data, without what is not set."""
        return self.config.model_dump(exclude_none=True)

    @property
    def program(self) -> str:
        """Points with the same text are one program over the same timelines."""
        data = self.config.model_dump(mode="json")
        data["rule"] = {k: v for k, v in data["rule"].items() if k not in self.mapped}
        return json.dumps(data, sort_keys=True, default=str)


@dataclass(frozen=True)
class Experiment:
    """A checked experiment.

    Attributes:
      source: where it was read from.
      config: the resolved config as plain data, the sweep in it.
      points: the points of the sweep.
      claims: what is said to come out.
      tags: words to choose it by.
    """

    source: str
    config: dict[str, Any]
    points: tuple[Point, ...]
    claims: tuple[Claim, ...] = ()
    tags: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """The name of the experiment."""
        return self.points[0].config.name

    @functools.cached_property
    def groups(self) -> list[list[Point]]:
        """The points by program, in order."""
        groups: dict[str, list[Point]] = {}
        for point in self.points:
            groups.setdefault(point.program, []).append(point)
        return list(groups.values())

    @property
    def num_runs(self) -> int:
        """Replicates of every point: seeds times draws of the clocks."""
        return sum(len(p.config.run_seeds) * p.config.timelines for p in self.points)

    def describe(self) -> str:
        """How much work it is, in a line: `48 runs, 3 programs`."""
        parts = [_count(self.num_runs, "run"), _count(len(self.groups), "program")]
        if len(self.points) > 1:
            parts.insert(1, _count(len(self.points), "point"))
        return ", ".join(parts)

    def _repr_html_(self) -> str:
        return show_experiment(self)


def load_experiment(
    source: str | FilePath | Mapping[str, Any], overrides: Sequence[str] = ()
) -> Experiment:
    """Read and check an experiment.

    Args:
      source: a YAML file, or the data of one. Paths of data files in it are relative to its folder;
        in data they are to the working folder.
      overrides: `key.path=value`, each put over what the source says; paths in them are relative to
        the working folder.

    Returns:
      The `Experiment`.

    Raises:
      ConfigError: with every problem there is, each one line.
    """
    where, data = _read(source)
    if not isinstance(data, Mapping):
        raise ConfigError([f"{where}: {wrong_kind(data, 'a mapping of keys')}"])
    # In a file paths are relative to its folder, elsewhere to the folder that one is in.
    folder = "." if isinstance(source, Mapping) else FilePath(source).parent
    data, overridden, unread = apply_overrides(resolve_paths(data, folder), list(overrides))
    data = resolve_paths(data, ".")
    points, labels, problems = read_sweep(data.get("sweep"))
    problems += _find_conflicts(points, overridden)
    configs, found = _check_points(data, points)
    stated, wrong = read_claims(data)
    found += wrong
    lines = unread + [_line(where, problem, overridden) for problem in [*problems, *found]]
    if lines:
        texts = unread + [text for _, text in [*problems, *found]]
        raise make_error(list(dict.fromkeys(lines)), texts, data)
    checked = tuple(
        Point(i, label or make_label(settings), {k: s.value for k, s in settings.items()}, config)
        for i, (settings, label, config) in enumerate(zip(points, labels, configs, strict=True))
    )
    if unmeasurable := check_claims_of(stated.claims, checked):
        if not any(path[0] == "sweep" for path in overridden):
            raise ConfigError([_line(where, problem, overridden) for problem in unmeasurable])
        # They speak of points of the file's own sweep, which somebody has put another over.
        data, stated = {**data, "claims": []}, stated.model_copy(update={"claims": []})
    return Experiment(
        where, _resolve(data), checked, tuple(stated.claims), tuple(dict.fromkeys(stated.tags))
    )


def _read(source: str | FilePath | Mapping[str, Any]) -> tuple[str, Any]:
    if isinstance(source, Mapping):
        return "config", to_plain(source)
    try:
        with open_regular(source) as file:
            content = file.read(MAX_BYTES + 1)
        return str(source), parse(content.decode("utf-8-sig"), str(source))
    except OSError as error:
        raise ConfigError([f"{source}: cannot be read: {error.strerror}"]) from error
    except UnicodeDecodeError as error:
        raise ConfigError([f"{source}: byte {error.start} is no UTF-8; allowed: text"]) from error


def to_plain(data: Any) -> Any:
    """Data as a file would hold them: NumPy's numbers and arrays as numbers and lists."""
    if isinstance(data, Mapping):
        return {to_plain(key): to_plain(value) for key, value in data.items()}
    if isinstance(data, tuple | list):
        return [to_plain(value) for value in data]
    if isinstance(data, PathLike):
        return fspath(data)
    return data.tolist() if hasattr(data, "tolist") else data


def _check_points(
    data: Mapping[str, Any], points: list[dict[str, Setting]]
) -> tuple[list[Config], list[Problem]]:
    """The config of every point, and the problems, those of a sweep's values at their values."""
    configs: list[Config] = []
    problems: list[Problem] = []
    for settings in points or [{}]:
        try:
            raw = apply(data, settings)
        except ValueError as error:
            problems.append((("sweep",), f"{make_label(settings)}: {error}"))
            continue
        config, found = check(raw)
        problems += [_locate(problem, settings) for problem in found]
        if config is not None:
            configs.append(config)
    return configs, problems


def check(raw: Mapping[str, Any]) -> tuple[Config | None, list[Problem]]:
    """One config, or its problems."""
    problems = []
    config = None
    try:
        config = Config.model_validate(dict(raw))
    except ValidationError as error:
        problems = explain(error, Config)
    problems += _check_choices(raw)
    if config is not None:
        problems += _check_receive(config)
        problems += check_rates(config)
        problems += _check_compression(config)
    if not any(path[0] in ("cluster", "protocol") for path, _ in problems):
        problems += _check_cluster(raw)
    if config is not None and not problems:
        problems = check_numbers(config)
    return (None if problems else config), problems


def _check_choices(raw: Mapping[str, Any]) -> list[Problem]:
    """Keys that need or exclude one another; known before any value is."""
    problems: list[Problem] = []
    given = {key for key, value in raw.items() if value is not None}
    takes = protocol_arguments(raw.get("protocol"))
    allowed = [key for key in HORIZONS if key in takes]
    ends = [key for key in HORIZONS if key in given]
    if not set(ends) <= set(allowed):
        wrong = next(key for key in ends if key not in allowed)
        problems.append(((wrong,), f"not for this protocol; allowed: {_or(allowed)}"))
    elif len(ends) != min(1, len(allowed)):
        which = " and ".join(ends) or "none"
        problems.append(
            (tuple(ends[:1]) or ("seconds",), f"{which} given; allowed: {_one(allowed)}")
        )
    if "cluster" in given and "cluster" not in takes:
        problems.append((("cluster",), "this protocol has no cluster; allowed: none"))
    if raw.get("timelines") not in (None, 1) and "seed" not in takes:
        problems.append((("timelines",), "this protocol draws nothing; allowed: 1"))
    if {"evaluate_every", "evaluations"} <= given:
        problems.append(
            (("evaluations",), f"both given; allowed: {_one(['evaluate_every', 'evaluations'])}")
        )
    for key in ("target", "stop"):
        goal = raw.get(key)
        if isinstance(goal, Mapping) and ("at_least" in goal) == ("at_most" in goal):
            which = "both" if "at_least" in goal else "none"
            allows = _one(["at_least", "at_most"])
            problems.append(((key,), f"{which} given; allowed: {allows}"))
    return problems


def _check_receive(config: Config) -> list[Problem]:
    """Transforms that don't fit the rule beside them."""
    problems: list[Problem] = []
    for index, link in enumerate(config.receive):
        try:
            check_fit(link.name, config.rule.model_dump())
        except ValueError as error:
            problems.append((("receive", str(index)), str(error)))
    return problems


def _check_compression(config: Config) -> list[Problem]:
    """A rate inside the compression is the worker's, who knows no clock and no other's count."""
    rate = (config.worker.arguments().get("compress") or {}).get("learning_rate")
    count = rate.get("count", "updates") if isinstance(rate, Mapping) else "updates"
    if count == "updates":
        return []
    line = f"{count} given; allowed: updates, since a worker counts its own messages"
    return [(("worker", "compress", "learning_rate", "count"), line)]


def protocol_arguments(protocol: Any) -> set[str]:
    """What a protocol takes; everything, where it is unknown."""
    name = protocol.get("name") if isinstance(protocol, Mapping) else protocol
    if not isinstance(name, str) or name not in PROTOCOLS:
        return {*HORIZONS, "cluster", "seed"}
    return set(inspect.signature(PROTOCOLS[name]).parameters)


def _check_cluster(raw: Mapping[str, Any]) -> list[Problem]:
    """Whether the parts of the cluster fit one another; each of them is fine."""
    try:
        Cluster(**CLUSTER.model_validate(raw.get("cluster") or {}).model_dump())
    except TimelineError as error:
        return [(("cluster",), str(error).removeprefix("cluster: "))]
    return []


def _find_conflicts(points: list[dict[str, Setting]], overridden: list[Path]) -> list[Problem]:
    """Overrides that the sweep would undo."""
    axes = {setting.path: text for point in points for text, setting in point.items()}
    return [
        (path, f"the sweep sets {text} anyway; allowed: sweep.{text}=[...]")
        for path in overridden
        for axis, text in axes.items()
        if path[: len(axis)] == axis
    ]


def _locate(problem: Problem, settings: Mapping[str, Setting]) -> Problem:
    """The problem at the value of the sweep that it comes from, if it does."""
    path, text = problem
    for setting in sorted(settings.values(), key=lambda s: -len(s.path)):
        if path[: len(setting.path)] == setting.path:
            return (*setting.origin, *path[len(setting.path) :]), text
    return problem


def _line(where: str, problem: Problem, overridden: list[Path]) -> str:
    """A problem in one line; an override is its own source."""
    path, text = problem
    if any(path[: len(each)] == each for each in overridden):
        where = "override"
    key = ".".join(path)
    return " ".join(f"{where}: {key}: {text}".splitlines())


def _resolve(data: Mapping[str, Any]) -> dict[str, Any]:
    """The config with its defaults, where it stands without its sweep; else as it was given."""
    base = {key: value for key, value in data.items() if key != "sweep"}
    config, problems = check(base)
    resolved = base if config is None or problems else config.model_dump(exclude_none=True)
    return {**resolved, "sweep": data["sweep"]} if data.get("sweep") else resolved


def _one(keys: Sequence[str]) -> str:
    return f"exactly one of {', '.join(keys)}" if keys else "none"


def _or(keys: Sequence[str]) -> str:
    return " or ".join(keys) or "none"


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"

"""What a learning rate's schedule counts, and whether its rule can follow it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from sgdlab.experiment.config.schema import Config
from sgdlab.experiment.reading.problems import Problem, show
from sgdlab.rules.optax_table import Count
from sgdlab.rules.table import RATE_WITHIN, SCHEDULES, Wait

_INNER = "an inner rule counts its own steps"


def check_rates(config: Config) -> list[Problem]:
    """Schedules that count what their rule cannot follow, and parts of an update or a gradient."""
    problems: list[Problem] = []
    rules: dict[tuple[str, ...], dict[str, Any]] = {("rule",): config.rule.model_dump()}
    if isinstance(inner := config.worker.arguments().get("rule"), Mapping):
        rules["worker", "rule"] = dict(inner)
    for path, rule in rules.items():
        rates = [key for key in rule if key.endswith("learning_rate") and rule[key] is not None]
        for key in rates:
            if not isinstance(rule[key], Mapping):
                continue
            count = rule[key]["count"]
            reason = _INNER if len(path) > 1 else _find_reason(rule["name"], rates)
            if count != "updates" and reason:
                line = f"{count} given; allowed: updates, since {reason}"
                problems.append(((*path, key, "count"), line))
            problems += _find_parts((*path, key), rule[key], count)
    return problems


def _find_reason(name: str, rates: list[str]) -> str:
    """Why a rule's rate cannot count anything but updates; empty where it can."""
    if name in RATE_WITHIN:
        return f"the learning rate of {name} is no last factor of its update"
    return f"{name} has {' and '.join(rates)}" if len(rates) > 1 else ""


def _find_parts(
    path: tuple[str, ...], schedule: Mapping[str, Any], count: str
) -> Iterator[Problem]:
    """Spans that are not whole, where something is counted one by one or optax rounds them."""
    name = schedule["name"]
    rounded = name.endswith("onecycle_schedule")
    if count == "seconds" and not rounded:
        return
    allowed = "a whole number" if rounded else "a whole number, or count: seconds"
    for key, (hint, _) in SCHEDULES[name].items():
        value = schedule[key]
        if key == "schedules":
            for index, part in enumerate(value):
                yield from _find_parts((*path, key, str(index)), part, count)
        elif hint in (Count, Wait, list[Count]):
            for span in value if isinstance(value, list) else (value,):
                if not float(span).is_integer():
                    yield (*path, key), f"{show(span)} given; allowed: {allowed}"

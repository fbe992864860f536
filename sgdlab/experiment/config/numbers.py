"""Numbers that are each of the right kind and can't be used all the same, found without jax.

The arithmetic is float32 and int32, a schedule has an order, and memory and time end: what would be
rounded to zero or to infinity, what runs past its own end, and what no machine holds is refused at
its key, before anything is made.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from sgdlab.experiment.config.building import build_cluster, say_where
from sgdlab.experiment.reading.problems import Problem, show
from sgdlab.rules.table import SCHEDULES
from sgdlab.tasks.table import count_weights
from sgdlab.timelines import TimelineError
from sgdlab.timelines.limits import check_length

if TYPE_CHECKING:
    from sgdlab.experiment.config.schema import Config

_SMALLEST, _LARGEST = 2.0**-126, 2.0**128 * (1 - 2.0**-24)  # of float32's normal numbers
_MAX_WEIGHTS = 2**32
_MAX_ROWS = 2**28  # row numbers of a message, 4 bytes each
_MAX_VALUES = 2**28  # losses of a point's replicates, 4 bytes each

# Where floats enter float32 programs, and where whole numbers enter int32 ones too.
_FLOATS = ("task", "rule", "receive", "worker", "precision")
_INTEGERS = ("rule", "receive", "worker", "precision")
_EXEMPT = ("key", "split_seed", "batch_size")  # seeds, and what has a limit of its own


def check_numbers(config: Config) -> list[Problem]:
    """What is wrong with the numbers of a config whose every key is fine by itself."""
    data = config.model_dump()
    problems = [
        *_check_formats(data),
        *_check_schedules(data["rule"], ("rule",)),
        *_check_schedules(data["receive"], ("receive",)),
        *_check_schedules(data["worker"], ("worker",)),
        *_check_seeds(config),
        *_check_sizes(config, data),
    ]
    if not problems and config.protocol.name != "from_trace":
        problems += _check_horizon(config)
    return problems


def check_replicates(config: Config, num_updates: int) -> list[Problem]:
    """Whether the losses of all replicates of a point can be kept."""
    runs = len(config.run_seeds) * config.timelines
    if runs * num_updates <= _MAX_VALUES:
        return []
    key = "timelines" if config.timelines > len(config.run_seeds) else "seeds"
    text = f"{runs} runs of {num_updates} updates; allowed: {_MAX_VALUES:,} updates in all"
    return [((key,), text)]


def _walk(data: Any, path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Every value with its path, whole numbers that are keys too."""
    if isinstance(data, Mapping):
        for key, value in data.items():
            if isinstance(key, int):
                yield (*path, str(key)), key
            yield from _walk(value, (*path, str(key)))
    elif isinstance(data, list | tuple):
        for index, value in enumerate(data):
            yield from _walk(value, (*path, str(index)))
    else:
        yield path, data


def _check_formats(data: Mapping[str, Any]) -> Iterator[Problem]:
    for section in _FLOATS:
        for path, value in _walk(data[section], (section,)):
            if isinstance(value, float) and value and not _SMALLEST <= abs(value) <= _LARGEST:
                kind = "zero" if abs(value) < 1 else "infinity"
                allowed = f"0, or a size from {_SMALLEST:.3g} to {_LARGEST:.3g}"
                yield path, f"{value} given, which is {kind} in float32; allowed: {allowed}"
            elif section in _INTEGERS and path[-1] not in _EXEMPT and _is_long(value):
                yield path, f"{show(value)} given; allowed: what 32 bits hold, up to 2147483647"


def _is_long(value: Any) -> bool:
    return isinstance(value, int) and not -(2**31) <= value < 2**31


def _check_schedules(data: Any, path: tuple[str, ...]) -> Iterator[Problem]:
    """Schedules, wherever one stands."""
    if isinstance(data, Mapping):
        if data.get("name") in SCHEDULES:
            yield from _check_schedule(data, path)
        for key, value in data.items():
            yield from _check_schedules(value, (*path, str(key)))
    elif isinstance(data, list | tuple):
        for index, value in enumerate(data):
            yield from _check_schedules(value, (*path, str(index)))


def _check_schedule(schedule: Mapping[str, Any], path: tuple[str, ...]) -> Iterator[Problem]:
    """Whether its parts lie in their order."""
    if {"warmup_steps", "decay_steps"} <= set(schedule):
        warm, end = schedule["warmup_steps"], schedule["decay_steps"]
        if warm >= end:
            yield (*path, "warmup_steps"), f"{warm} given; allowed: < decay_steps, {end}"
    if "pct_final" in schedule and schedule["pct_final"] <= schedule["pct_start"]:
        first = schedule["pct_start"]
        yield (*path, "pct_final"), f"{schedule['pct_final']} given; allowed: > pct_start, {first}"
    if "schedules" in schedule:
        bounds, parts = schedule["boundaries"], len(schedule["schedules"])
        if len(bounds) != parts - 1:
            text = f"{len(bounds)} given; allowed: {parts - 1}, one between two schedules"
            yield (*path, "boundaries"), text
        elif sorted(set(bounds)) != list(bounds):
            yield (*path, "boundaries"), f"{show(bounds)} given; allowed: each above the one before"


def _check_seeds(config: Config) -> Iterator[Problem]:
    """A range of seeds lies in [0, 2³²) as each seed does; in a longer one 2³² would be 0 again."""
    if isinstance(config.seeds, int) and config.seed + config.seeds > 2**32:
        room = 2**32 - config.seed
        text = f"{config.seeds} from seed {config.seed} on; allowed: {room}, seeds being < 2**32"
        yield ("seeds",), text
    if config.timelines > 2**32 - config.seed:
        room = 2**32 - config.seed
        text = f"{config.timelines} from seed {config.seed} on; allowed: {room}"
        yield ("timelines",), f"{text}, seeds being < 2**32"


def _check_sizes(config: Config, data: Mapping[str, Any]) -> Iterator[Problem]:
    key, weights = count_weights(**data["task"])
    if weights > _MAX_WEIGHTS:
        text = f"{weights:.3g} weights; allowed: {_MAX_WEIGHTS:,}"
        yield ("task", key), f"{show(data['task'][key])} given, {text}"
    steps, rows = data["worker"].get("steps", 1), data["worker"]["batch_size"]
    if steps * rows > _MAX_ROWS:
        text = f"{rows} rows take at least {4e-9 * steps * rows:,.0f} GB as numbers alone"
        room = f"there are {4e-9 * _MAX_ROWS:.0f} for those; allowed: at most {_MAX_ROWS // steps}"
        yield ("worker", "batch_size"), f"{text}, and {room}"
    if config.updates is not None:
        yield from check_replicates(config, config.updates)


def _check_horizon(config: Config) -> list[Problem]:
    """Whether the horizon is one that a timeline can reach, as far as means tell."""
    horizon = {key: getattr(config, key) for key in ("updates", "seconds", "gradients")}
    try:
        cluster = build_cluster(config)
        check_length(cluster, config.protocol.arguments().get("k", 1), **horizon)
    except TimelineError as error:
        key, _, text = say_where(error).partition(": ")
        return [((key,), text)]
    return []

"""The config of an experiment: every key, its type, its default.

What can be chosen by name comes from the rooms' own tables and signatures, so a new rule, task,
protocol or compute-time model is known here as soon as it has its row. Nothing here imports jax.
"""

from typing import Annotated, Any, Literal

from annotated_types import Ge, Gt, Le, MinLen
from pydantic import AfterValidator, BeforeValidator, Field, create_model

from sgdlab.experiment.claims.vocabulary import CLAIM, TAG, Claim
from sgdlab.experiment.config.notebook import show_config
from sgdlab.experiment.reading.unions import (
    Chosen,
    Named,
    Strict,
    by_kind,
    read_row,
    refine,
    replace_rows,
    tagged,
)
from sgdlab.precision.table import LOSS_SCALES, ROUNDINGS, check_policy
from sgdlab.rules import optax_table, table
from sgdlab.rules.table import (
    COUNTS,
    OPTAX_RULES,
    RULE_FILLED,
    RULES,
    RUNNER_FILLED,
    SCHEDULES,
    TRANSFORMS,
)
from sgdlab.tasks.table import PARTITIONS, TASKS
from sgdlab.timelines import COMPUTE_MODELS, PROTOCOLS, Cluster, Failures, Network, Stragglers
from sgdlab.timelines.arguments import Count, Positive, Seed, Updates
from sgdlab.workers.table import COMPRESSION, COMPRESSORS, WORKERS

HORIZONS = ("updates", "seconds", "gradients")
RunName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]


def _as_written(number: float) -> float:
    return int(number) if number.is_integer() else number


# Of a schedule: whole where it counts one by one, which `rates` checks.
_SPAN = Annotated[float, Gt(0), AfterValidator(_as_written)]
_WAIT = Annotated[float, Ge(0), AfterValidator(_as_written)]
_SPEC = dict[str, Any]  # how the tables write an argument that is again {name: ..., ...}


def _schedules() -> Any:
    """A learning-rate schedule; the parts of a joined one are schedules that join nothing."""
    rows = replace_rows(replace_rows(SCHEDULES, optax_table.Count, _SPAN), table.Wait, _WAIT)
    simple = {name: row for name, row in rows.items() if name != "join_schedules"}
    part = tagged("schedule part", simple)
    count = (Literal[COUNTS], COUNTS[0])
    return tagged("schedule", replace_rows(rows, _SPEC, part), count=count)


def _fillable(rows: Any) -> Any:
    """Arguments that the runner knows may be left out of a config, those of the rule must be."""

    def fill(name: str, key: str, hint: Any, value: Any) -> tuple[Any, Any]:
        if key in RULE_FILLED.get(name, ()):
            return Annotated[None, BeforeValidator(_refuse_own)], None
        return (hint | None, None) if key in RUNNER_FILLED else (hint, value)

    return {
        name: {key: fill(name, key, *argument) for key, argument in row.items()}
        for name, row in rows.items()
    }


def _refuse_own(value: Any) -> None:
    if value is not None:
        raise ValueError("it is the rule's, and taken from there; allowed: none of its own")


SCHEDULE = _schedules()
RULE = tagged("rule", replace_rows({**OPTAX_RULES, **RULES}, _SPEC, SCHEDULE), default="sgd")
TRANSFORM = tagged("transform", replace_rows(_fillable(TRANSFORMS), _SPEC, SCHEDULE))
COMPRESSOR = tagged(
    "compressor",
    COMPRESSORS,
    error_feedback=COMPRESSION["error_feedback"],
    learning_rate=replace_rows({"": COMPRESSION}, _SPEC, SCHEDULE)[""]["learning_rate"],
)
WORKER = tagged(
    "worker",
    replace_rows(WORKERS, _SPEC, RULE),
    default="gradient",
    batch_size=(Annotated[int, Ge(1)], 32),
    compress=(COMPRESSOR | None, None),
)
TASK = tagged("task", TASKS)
PARTITION = tagged("partition", PARTITIONS)
LOSS_SCALE = tagged("loss scale", LOSS_SCALES, default="none")
ROUNDING = tagged("rounding", ROUNDINGS)
PROTOCOL = tagged(
    "protocol",
    {
        name: read_row(function, skip=("cluster", *HORIZONS, "seed"))
        for name, function in PROTOCOLS.items()
    },
)
COMPUTE = tagged(
    "compute",
    {name: read_row(model) for name, model in COMPUTE_MODELS.items()},
    default="constant",
)


def _model(name: str, dataclass: type, **replaced: Any) -> type[Strict]:
    """A model with the fields of a dataclass, some of them replaced or (None) left out."""
    row = {**read_row(dataclass), **replaced}
    fields: Any = {key: (refine(value[0]), value[1]) for key, value in row.items() if value}
    return create_model(name, __base__=Strict, __doc__=dataclass.__doc__, **fields)


NETWORK = _model("network", Network)
FAILURES = _model("failures", Failures)
STRAGGLERS = _model("stragglers", Stragglers)
CLUSTER = _model(
    "cluster",
    Cluster,
    compute=(by_kind(COMPUTE, list[COMPUTE]), {"name": "constant", "mean": 1.0}),
    network=(NETWORK | None, None),
    failures=(FAILURES | None, None),
    stragglers=(STRAGGLERS | None, None),
    joins=(dict[int, float], {}),
    leaves=(dict[int, float], {}),
    gradients_per_message=None,  # the worker program says it
)


def _check_policy(policy: Any) -> Any:
    check_policy(policy)
    return policy


_POLICY = Annotated[by_kind(str, dict[str, str]), AfterValidator(_check_policy)]
Replicates = Annotated[int, Ge(1), Le(10_000)]
_SEEDS = by_kind(Replicates, Annotated[list[Seed], MinLen(1)])
_SHARE = by_kind(Count, Literal["all"])

_NO_SCALE: Any = {"name": "none"}
_GRADIENT: Any = {"name": "gradient"}


class Precision(Strict, use_attribute_docstrings=True):
    """In which numbers."""

    policy: Annotated[str | dict[str, str], Chosen(_POLICY)] = "float32"
    """A policy's name or string, or a mapping from parameter paths to them."""
    loss_scale: Annotated[Named, Chosen(LOSS_SCALE)] = _NO_SCALE
    """What the loss is multiplied by before it is differentiated."""
    on_nonfinite: Literal["stop", "skip"] | None = None
    """End at a value that is not finite, or leave such messages out (under a dynamic scale)."""
    rounding: Annotated[Named, Chosen(ROUNDING)] | None = None
    """What keeps 16-bit parameters from stalling."""


class Devices(Strict, use_attribute_docstrings=True):
    """On which devices the arithmetic happens; by default on one."""

    data: Annotated[int | str, Chosen(_SHARE)] = 1
    """Into how many parts the batch is split; `all` is as many as there are devices left."""
    fsdp: Count = 1
    """Over how many the batch, the parameters, the gradient and the rule's state are spread."""
    tensor: Count = 1
    """Over how many the heads and widths of each layer are spread."""
    collective: Literal["jit", "shard_map", "pmap"] = "jit"
    """Who writes the mean over the devices."""
    reduction: Literal["fast", "canonical"] = "fast"
    """In any order, or in one that gives the same bits on any number of devices."""
    microbatches: Count | None = None
    """In how many parts each gradient is computed, one after another: 1, or 8 if canonical."""

    @property
    def size(self) -> int | None:
        """How many devices are asked for; None where it is all of them."""
        return None if isinstance(self.data, str) else self.data * self.fsdp * self.tensor


class Goal(Strict, use_attribute_docstrings=True):
    """A metric and the value that it should reach; one of the two."""

    metric: str
    """A metric of the task's evaluation: loss, accuracy."""
    at_least: float | None = None
    """Reached from below."""
    at_most: float | None = None
    """Reached from above."""


class Config(Strict, use_attribute_docstrings=True):
    """One experiment, or one point of its sweep."""

    name: RunName
    """The folder below the root that its runs go into."""
    description: str = ""
    """The question, in a sentence."""
    task: Annotated[Named, Chosen(TASK)]
    """What is learned."""
    partition: Annotated[Named, Chosen(PARTITION)] | None = None
    """How the training set is dealt to the workers; by default all sample all of it."""
    rule: Annotated[Named, Chosen(RULE)]
    """How the server updates the parameters."""
    receive: Annotated[list[Named], Chosen(list[TRANSFORM])] = Field([])
    """What each message passes, with its own staleness, before messages are averaged."""
    worker: Annotated[Named, Chosen(WORKER)] = _GRADIENT
    """What a worker sends."""
    precision: Precision = Precision()
    """In which numbers."""
    devices: Devices = Devices()
    """Where the arithmetic happens."""
    cluster: Annotated[Strict, Chosen(CLUSTER)] | None = None
    """The machines; by default 16 equal ones."""
    protocol: Annotated[Named, Chosen(PROTOCOL)]
    """When the server updates."""
    updates: Updates | None = None
    """The horizon: so many updates,"""
    seconds: Positive | None = None
    """or so many simulated seconds,"""
    gradients: Count | None = None
    """or so many gradients at the server."""
    evaluate_every: Count | None = None
    """Held-out metrics every so many updates;"""
    evaluations: Count | None = None
    """or so many times over the run, evenly; 50 where neither is said."""
    measures: list[Literal["distance", "cosine"]] = Field([])
    """Of each message: how far the parameters have moved since it was read; its cosine with a
    fresh one, which costs a second gradient."""
    checkpoint_every: Count | None = None
    """A checkpoint every so many evaluations; by default four in a run."""
    target: Goal | None = None
    """What the report measures the time to; by default `stop`."""
    stop: Goal | None = None
    """A run ends when it gets there."""
    seeds: Annotated[int | list[int], Chosen(_SEEDS)] = 1
    """How many, from `seed` on, or which ones."""
    seed: Seed = 0
    """The first seed of the runs and of the cluster's clocks."""
    timelines: Replicates = 1
    """Independent draws of the cluster's clocks."""
    tags: list[TAG] = Field([])
    """Words to choose experiments by: `sgdlab verify -m fast`."""
    claims: Annotated[list[Claim], Chosen(list[CLAIM])] = Field([])
    """What will come out; `sgdlab verify` says whether it did."""

    @property
    def run_seeds(self) -> list[int]:
        """The seeds of the runs."""
        if isinstance(self.seeds, list):
            return self.seeds
        return [self.seed + index for index in range(self.seeds)]

    def _repr_html_(self) -> str:
        return show_config(self.model_dump(mode="json", exclude_none=True))

    @property
    def goal(self) -> Goal | None:
        """What the time is measured to."""
        return self.target or self.stop


def config_schema() -> dict[str, Any]:
    """The JSON schema of a config file, the sweep included."""
    schema = Config.model_json_schema()
    path = {"type": "string", "description": "A dotted path, such as rule.learning_rate."}
    axes = {"type": "object", "propertyNames": path}
    schema["properties"]["sweep"] = {
        "description": "The product of axes, {path: [value, ...]}, or a list of points.",
        "anyOf": [
            {**axes, "additionalProperties": {"type": "array", "minItems": 1}},
            {"type": "array", "items": axes, "minItems": 1},
        ],
    }
    schema["$schema"] = "https://json-schema.org/draft/2020-12/schema"
    return schema

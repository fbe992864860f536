"""What a config may say of rules, schedules and transforms: names, arguments, types, defaults.

Each table is `name -> {argument: (annotation, default)}`, the keyword form of
`pydantic.create_model`; a default of `...` means required. Nothing here imports jax.
"""

from typing import Annotated, Any

from annotated_types import Ge, Gt, Le, Lt, MinLen

from sgdlab.rules.optax_table import (
    OPTAX_RULES,
    RATE_WITHIN,
    Argument,
    Count,
    Decay,
    LearningRate,
    NonNegative,
    Positive,
)

__all__ = [
    "COUNTS",
    "OPTAX_RULES",
    "RATE_WITHIN",
    "RULES",
    "RULE_FILLED",
    "RUNNER_FILLED",
    "SCHEDULES",
    "TRANSFORMS",
]

# What a schedule may count.
COUNTS: tuple[str, ...] = ("updates", "gradients", "seconds")

Wait: Any = Annotated[int, Ge(0)]
Share: Any = Annotated[float, Gt(0), Lt(1)]
Scales: Any = dict[Count, NonNegative]

_adam: dict[str, Argument] = {
    "learning_rate": (LearningRate, ...),
    "b1": (Decay, 0.9),
    "b2": (Decay, 0.999),
    "eps": (Positive, 1e-8),
}
_momentum: dict[str, Argument] = {"learning_rate": (LearningRate, ...), "decay": (Decay, 0.9)}

RULES: dict[str, dict[str, Argument]] = {
    "sgd": {"learning_rate": (LearningRate, ...)},
    "momentum": _momentum,
    "heavy_ball": _momentum,
    "nesterov": _momentum,
    "adagrad": {"learning_rate": (LearningRate, ...), "eps": (Positive, 1e-8)},
    "rmsprop": {**_momentum, "eps": (Positive, 1e-8)},
    "adam": _adam,
    "adamw": {**_adam, "weight_decay": (NonNegative, 1e-4)},
}

TRANSFORMS: dict[str, dict[str, Argument]] = {
    "scale_by_staleness": {"power": (NonNegative, 1.0)},
    "divide_by_staleness": {},
    "hinge_staleness": {"a": (NonNegative, 10.0), "b": (NonNegative, 4.0)},
    "clip_by_delay": {"concurrency": (Positive, ...), "drop": (bool, False)},
    "drop_stale": {"bound": (NonNegative, ...)},
    "compensate_delay": {
        "strength": (NonNegative, 0.04),
        "adaptive": (bool, False),
        "decay": (Decay, 0.95),
        "eps": (Positive, 1e-7),
        "per_worker": (bool, False),
        "num_workers": (Count | None, None),
    },
    "gap_aware": {
        "learning_rate": (LearningRate, ...),
        "decay": (Decay, 0.0),
        "average_decay": (Decay, 0.999),
        "eps": (Positive, 1e-8),
    },
    "mix_models": {
        "alpha": (Annotated[float, Gt(0), Le(1)], 0.6),
        "power": (NonNegative, 0.5),
    },
    "scale_by_worker_delay": {
        "num_workers": (Count, ...),
        "power": (NonNegative, 1.0),
    },
}

# The runner knows these from the cluster; a config may leave them out.
RUNNER_FILLED: frozenset[str] = frozenset({"num_workers", "concurrency"})
# These are the rule's; a config must leave them out.
RULE_FILLED: dict[str, frozenset[str]] = {"gap_aware": frozenset({"learning_rate", "decay"})}

_onecycle: dict[str, Argument] = {
    "transition_steps": (Count, ...),
    "peak_value": (NonNegative, ...),
    "pct_start": (Share, 0.3),
}
_divisors: dict[str, Argument] = {
    "div_factor": (Positive, 25.0),
    "final_div_factor": (Positive, 10000.0),
}
_warmup: dict[str, Argument] = {
    "init_value": (NonNegative, ...),
    "peak_value": (NonNegative, ...),
    "warmup_steps": (Count, ...),
}
_cosine: dict[str, Argument] = {
    "init_value": (NonNegative, ...),
    "decay_steps": (Count, ...),
    "alpha": (Annotated[float, Ge(0), Le(1)], 0.0),
    "exponent": (Positive, 1.0),
}

# Each may also say `count`, one of COUNTS: by default the schedule counts updates.
SCHEDULES: dict[str, dict[str, Argument]] = {
    "constant_schedule": {"value": (NonNegative, ...)},
    "cosine_decay_schedule": _cosine,
    "cosine_onecycle_schedule": {**_onecycle, **_divisors},
    "exponential_decay": {
        "init_value": (NonNegative, ...),
        "transition_steps": (Count, ...),
        "decay_rate": (Positive, ...),
        "transition_begin": (Wait, 0),
        "staircase": (bool, False),
        "end_value": (NonNegative | None, None),
    },
    "join_schedules": {
        # Each is again {name: ..., ...}.
        "schedules": (Annotated[list[dict[str, Any]], MinLen(1)], ...),
        "boundaries": (list[Count], ...),
    },
    "linear_onecycle_schedule": {**_onecycle, "pct_final": (Share, 0.85), **_divisors},
    "linear_schedule": {
        "init_value": (NonNegative, ...),
        "end_value": (NonNegative, ...),
        "transition_steps": (Count, ...),
        "transition_begin": (Wait, 0),
    },
    "piecewise_constant_schedule": {
        "init_value": (NonNegative, ...),
        "boundaries_and_scales": (Scales | None, None),
    },
    "polynomial_schedule": {
        "init_value": (NonNegative, ...),
        "end_value": (NonNegative, ...),
        "power": (Positive, ...),
        "transition_steps": (Count, ...),
        "transition_begin": (Wait, 0),
    },
    "warmup_constant_schedule": _warmup,
    "warmup_cosine_decay_schedule": {
        **_warmup,
        "decay_steps": (Count, ...),
        "end_value": (NonNegative, 0.0),
        "exponent": (Positive, 1.0),
    },
    "warmup_exponential_decay_schedule": {
        **_warmup,
        "transition_steps": (Count, ...),
        "decay_rate": (Positive, ...),
        "transition_begin": (Wait, 0),
        "staircase": (bool, False),
        "end_value": (NonNegative | None, None),
    },
}

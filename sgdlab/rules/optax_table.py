"""The optax optimizers that a rule may name, with the arguments and defaults that optax gives them.

Here stands every optimizer of optax 0.2.8 and optax.contrib whose update needs only
(updates, state, params) and whose name is not one of ours. Left out:

- ours by the same name: adagrad, adam, adamw, rmsprop, sgd;
- those whose update wants the loss or its function: lbfgs, polyak_sgd, momo, momo_adam, sophia;
- dpsgd, which wants the gradient of each example;
- noisy_sgd, whose noise comes from its own key, so that every seed of a run would draw the same;
- optimistic_adam, deprecated in favour of optimistic_adam_v2;
- wrappers of another optimizer: lookahead, mechanize, sam, schedule_free, reduce_on_plateau.

Arguments that are functions, masks, dtypes that YAML cannot write or other optimizers are left out
too; `make_rule` takes them from Python.
"""

from typing import Annotated, Any, Literal

from annotated_types import Ge, Gt, Le, Lt

Argument = tuple[Any, Any]

# Annotations are values here, to be read by a config's checker: hence Any.
NonNegative: Any = Annotated[float, Ge(0)]
Positive: Any = Annotated[float, Gt(0)]
Count: Any = Annotated[int, Gt(0)]
Decay: Any = Annotated[float, Ge(0), Lt(1)]
LearningRate: Any = NonNegative | dict[str, Any]  # a row of table.SCHEDULES with its name
MomentDtype: Any = Literal["float32", "bfloat16"] | None

_required: dict[str, Argument] = {"learning_rate": (LearningRate, ...)}
_optional: dict[str, Argument] = {"learning_rate": (LearningRate | None, None)}
_unit: dict[str, Argument] = {"learning_rate": (LearningRate, 1.0)}


def _moments(b1: float, b2: float, eps: float, **others: Argument) -> dict[str, Argument]:
    """A learning rate, two decays and an epsilon: what most rows begin with."""
    return {
        **_required,
        "b1": (Decay, b1),
        "b2": (Decay, b2),
        "eps": (NonNegative, eps),
        **others,
    }


def _root(eps_root: float) -> dict[str, Argument]:
    return {"eps_root": (NonNegative, eps_root)}


def _weight_decay(weight_decay: float) -> dict[str, Argument]:
    return {"weight_decay": (NonNegative, weight_decay)}


_mu_dtype: dict[str, Argument] = {"mu_dtype": (MomentDtype, None)}
_nesterov: dict[str, Argument] = {"nesterov": (bool, False)}

OPTAX_RULES: dict[str, dict[str, Argument]] = {
    "acprop": _moments(0.9, 0.999, 1e-16, **_root(1e-16), **_weight_decay(0.0)),
    "adabelief": _moments(0.9, 0.999, 1e-16, **_root(1e-16), **_nesterov),
    "adadelta": {
        **_optional,
        "rho": (Decay, 0.9),
        "eps": (Positive, 1e-6),
        **_weight_decay(0.0),
    },
    "adafactor": {
        **_optional,
        "min_dim_size_to_factor": (Count, 128),
        "decay_rate": (Positive, 0.8),
        "decay_offset": (Annotated[int, Ge(0)], 0),
        "multiply_by_parameter_scale": (bool, True),
        "clipping_threshold": (Positive | None, 1.0),
        "momentum": (Decay | None, None),
        "weight_decay_rate": (NonNegative | None, None),
        "eps": (Positive, 1e-30),
        "factored": (bool, True),
    },
    "adamax": _moments(0.9, 0.999, 1e-8),
    "adamaxw": _moments(0.9, 0.999, 1e-8, **_weight_decay(1e-4)),
    "adan": {
        **_moments(0.98, 0.92, 1e-8, **_root(1e-8), **_weight_decay(0.0)),
        "b3": (Decay, 0.99),
    },
    "ademamix": {
        **_moments(0.9, 0.999, 1e-8, **_root(0.0), **_mu_dtype, **_weight_decay(0.0)),
        "b3": (Decay, 0.9999),
        "alpha": (NonNegative, 5.0),
    },
    "adopt": _moments(0.9, 0.9999, 1e-6, **_mu_dtype, **_nesterov, use_clipping=(bool, True)),
    "amsgrad": _moments(
        0.9,
        0.999,
        1e-8,
        **_root(0.0),
        **_mu_dtype,
        bias_correction_mu=(bool, True),
        bias_correction_nu=(bool, True),
    ),
    "cocob": {**_unit, "alpha": (Positive, 100.0), "eps": (Positive, 1e-8), **_weight_decay(0.0)},
    "dadapt_adamw": {
        **_unit,
        "betas": (tuple[Decay, Decay], (0.9, 0.999)),
        "eps": (Positive, 1e-8),
        "estim_lr0": (Positive, 1e-6),
        **_weight_decay(0.0),
    },
    "dog": {
        **_unit,
        "init_step": (
            tuple[Literal["distance", "learning_rate", "heuristic"], Positive],
            ("heuristic", 1e-6),
        ),
        "eps": (Positive, 1e-8),
        "weight_decay": (NonNegative | None, None),
    },
    "dowg": {
        **_unit,
        "init_estim_sq_dist": (Positive | None, None),
        "eps": (Positive, 1e-4),
        "weight_decay": (NonNegative | None, None),
    },
    "fromage": {**_required, "min_norm": (NonNegative, 1e-6)},
    "galore": {
        **_required,
        "rank": (Count, 128),
        "update_proj_gap": (Count, 200),
        "scale": (Positive, 1.0),
        **_weight_decay(0.0),
    },
    "lamb": _moments(0.9, 0.999, 1e-6, **_root(0.0), **_weight_decay(0.0)),
    "lars": {
        **_required,
        **_weight_decay(0.0),
        "trust_coefficient": (Positive, 1e-3),
        "eps": (NonNegative, 0.0),
        "momentum": (Decay, 0.9),
        **_nesterov,
    },
    "lion": {
        **_required,
        "b1": (Decay, 0.9),
        "b2": (Decay, 0.99),
        **_mu_dtype,
        **_weight_decay(1e-3),
    },
    "madgrad": {
        **_required,
        "momentum": (Decay, 0.9),
        **_weight_decay(0.0),
        "eps": (Positive, 1e-6),
    },
    "muon": {
        **_required,
        "ns_coeffs": (tuple[float, float, float], (3.4445, -4.775, 2.0315)),
        "ns_steps": (Count, 5),
        "beta": (Decay, 0.95),
        "eps": (Positive, 1e-8),
        **_weight_decay(0.0),
        **_mu_dtype,
        "nesterov": (bool, True),
        "adaptive": (bool, False),
        "preconditioning": (Literal["frobenius", "spectral", "aol", "schatten"], "frobenius"),
        "adam_b1": (Decay, 0.9),
        "adam_b2": (Decay, 0.999),
        "adam_eps_root": (NonNegative, 0.0),
        "adam_weight_decay": (NonNegative, 0.0),
        "adam_learning_rate": (LearningRate | None, None),
        "consistent_rms": (Positive | None, None),
    },
    "novograd": _moments(0.9, 0.25, 1e-6, **_root(0.0), **_weight_decay(0.0)),
    "optimistic_adam_v2": {
        **_moments(0.9, 0.999, 1e-8, **_root(0.0), **_mu_dtype),
        "alpha": (NonNegative, 1.0),
        "beta": (NonNegative, 1.0),
        "nesterov": (bool, True),
    },
    "optimistic_gradient_descent": {
        **_required,
        "alpha": (NonNegative, 1.0),
        "beta": (NonNegative, 1.0),
    },
    "prodigy": {
        **_unit,
        "betas": (tuple[Decay, Decay], (0.9, 0.999)),
        "beta3": (Decay | None, None),
        "eps": (Positive, 1e-8),
        "estim_lr0": (Positive, 1e-6),
        "estim_lr_coef": (Positive, 1.0),
        **_weight_decay(0.0),
        "safeguard_warmup": (bool, False),
    },
    "radam": _moments(0.9, 0.999, 1e-8, **_root(0.0), threshold=(Positive, 5.0), **_nesterov),
    "rprop": {
        "learning_rate": (Positive, ...),
        "eta_minus": (Annotated[float, Gt(0), Lt(1)], 0.5),
        "eta_plus": (Annotated[float, Gt(1)], 1.2),
        "min_step_size": (Positive, 1e-6),
        "max_step_size": (Positive, 50.0),
    },
    "schedule_free_adamw": {
        "learning_rate": (LearningRate, 0.0025),
        "warmup_steps": (Count | None, None),
        # The parameters of evaluation divide by b1.
        "b1": (Annotated[float, Gt(0), Le(1)], 0.9),
        "b2": (Decay, 0.999),
        "eps": (Positive, 1e-8),
        **_weight_decay(0.0),
        "weight_lr_power": (NonNegative, 2.0),
        "state_dtype": (MomentDtype, None),
    },
    "schedule_free_sgd": {
        **_unit,
        "warmup_steps": (Count | None, None),
        "b1": (Annotated[float, Gt(0), Le(1)], 0.9),
        "weight_decay": (NonNegative | None, None),
        "weight_lr_power": (NonNegative, 2.0),
        "state_dtype": (MomentDtype, None),
    },
    "sign_sgd": _required,
    "signum": {**_required, "beta": (Decay, 0.9)},
    "simplified_ademamix": {
        **_moments(0.99, 0.95, 1e-8, **_root(0.0), **_weight_decay(0.0)),
        "alpha": (NonNegative, 0.0),
    },
    "sm3": {"learning_rate": (NonNegative, ...), "momentum": (Decay, 0.9)},
    "yogi": _moments(0.9, 0.999, 1e-3),
}

# Those whose learning rate is no last factor of the update: a state holds it, or it enters twice.
RATE_WITHIN: frozenset[str] = frozenset(
    {
        "adafactor",
        "cocob",
        "dadapt_adamw",
        "fromage",
        "lars",
        "madgrad",
        "prodigy",
        "rprop",
        "schedule_free_adamw",
        "schedule_free_sgd",
    }
)

"""Names of policies, dtypes and loss scales, and the grammar of a policy string, without JAX.

    policy := name | dtype | key=dtype[,key=dtype…]

A dtype alone stands for all four places. Of keys left out `params` is float32, `compute` follows
`params`, `output` follows `compute`, and `reduce` follows `params`: what is summed over workers is
as precise as what it is added to.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from annotated_types import Ge, Gt, Lt

# Where a policy says a dtype, in the order of `Policy`'s fields, with the short form.
KEYS: dict[str, str] = {"params": "p", "compute": "c", "reduce": "r", "output": "o"}

# Spelling to dtype; "half" is the device's own: bfloat16 on a TPU, float16 elsewhere.
DTYPES: dict[str, str] = {
    **dict.fromkeys(["float32", "f32", "full"], "float32"),
    **dict.fromkeys(["bfloat16", "bf16"], "bfloat16"),
    **dict.fromkeys(["float16", "f16"], "float16"),
    **dict.fromkeys(["float64", "f64"], "float64"),
    "half": "half",
}

# Name to the dtypes of params, compute, reduce and output.
POLICIES: dict[str, tuple[str, ...]] = {
    "float32": ("float32",) * 4,
    "bfloat16": ("bfloat16",) * 4,
    "mixed_bfloat16": ("float32", "bfloat16", "float32", "float32"),
    "float16": ("float16",) * 4,
    "mixed_float16": ("float32", "float16", "float32", "float32"),
}

# Loss scales as `pydantic.create_model` takes them: argument: (annotation, default).
LOSS_SCALES: dict[str, dict[str, Any]] = {
    "none": {},
    "static": {"loss_scale": (Annotated[float, Gt(0)], ...)},
    "dynamic": {
        "loss_scale": (Annotated[float, Gt(0)], 2.0**15),
        "period": (Annotated[int, Ge(1)], 2000),
        "factor": (Annotated[float, Gt(1)], 2),
        "min_loss_scale": (Annotated[float, Gt(0)], 1.0),
    },
}

# Transforms that wrap a rule so that bfloat16 parameters don't stall.
ROUNDINGS: dict[str, dict[str, Any]] = {
    "stochastic_rounding": {"key": (Annotated[int, Ge(0), Lt(2**32)], 0)},
    "kahan": {},
}


def check_policy(policy: str | Mapping[str, str]) -> None:
    """Check a policy string, or a mapping from parameter paths to policy strings.

    Args:
      policy: such as `"mixed_bfloat16"`, `"p=f32,c=bf16"` or
        `{"*": "mixed_bfloat16", "head/*": "float32"}`.

    Raises:
      ValueError: in one line, what is unknown and what is allowed.
    """
    if isinstance(policy, Mapping):
        for pattern, text in policy.items():
            if not isinstance(pattern, str) or not pattern:
                raise ValueError(f"precision: the pattern {pattern!r} must be a path like 'head/*'")
            try:
                policy_dtypes(text)
            except ValueError as error:
                raise ValueError(f"{error} (at the pattern {pattern!r})") from None
    else:
        policy_dtypes(policy)


def policy_dtypes(text: str) -> tuple[str, ...]:
    """The dtype names of params, compute, reduce and output that a policy string stands for.

    Args:
      text: a policy string.

    Returns:
      Four values of `DTYPES`; "half" is left for the device to decide.

    Raises:
      ValueError: in one line, what is unknown and what is allowed.
    """
    if not isinstance(text, str):
        raise ValueError(
            f"precision: {text!r} is no policy; it must be a string like 'p=f32,c=bf16'"
        )
    name = text.strip()
    if name in POLICIES:
        return POLICIES[name]
    if "=" not in name:
        if name not in DTYPES:
            raise ValueError(
                f"precision: the policy {text!r} is unknown; it must be {_or(POLICIES)}, a dtype "
                f"({_or(DTYPES)}) or key=dtype pairs like 'p=f32,c=bf16'"
            )
        return (DTYPES[name],) * 4
    given = _parse_pairs(text)
    params = given.get("params", "float32")
    compute = given.get("compute", params)
    return params, compute, given.get("reduce", params), given.get("output", compute)


def _parse_pairs(text: str) -> dict[str, str]:
    given: dict[str, str] = {}
    for part in text.split(","):
        key, _, value = (piece.strip() for piece in part.partition("="))
        full = next((long for long, short in KEYS.items() if key in (long, short)), None)
        if full is None:
            allowed = _or(f"{long} ({short})" for long, short in KEYS.items())
            raise ValueError(f"precision: the key {key!r} in {text!r} must be {allowed}")
        if full in given:
            raise ValueError(f"precision: {full!r} stands twice in {text!r}; once is allowed")
        if value not in DTYPES:
            raise ValueError(f"precision: the dtype {value!r} in {text!r} must be {_or(DTYPES)}")
        given[full] = DTYPES[value]
    return given


def _or(names) -> str:
    return ", ".join(names)

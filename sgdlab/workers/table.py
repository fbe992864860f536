"""Names and arguments of worker programs and compressors: what checks a config, without JAX.

Each row is `argument: (annotation, default)`, as `pydantic.create_model` takes it; `...` stands for
"required". A newcomer adds a function and a row.
"""

from typing import Annotated, Any, TypeAlias

from annotated_types import Ge, Gt, Le

# A rule or a compressor stands in a config as {name: …, argument: …}: the runner builds the object.
Spec: TypeAlias = dict[str, Any]
MaybeSpec: TypeAlias = Spec | None
NonNegative: Any = Annotated[float, Ge(0)]
MaybeFraction: TypeAlias = Annotated[float, Gt(0), Le(1)] | None
MaybeCount: TypeAlias = Annotated[int, Ge(1)] | None

WORKERS: dict[str, dict[str, Any]] = {
    "gradient": {},
    "local_steps": {
        "steps": (Annotated[int, Ge(1), Le(100_000)], ...),
        "rule": (Spec, ...),
        "keep_state": (bool, False),
    },
}

COMPRESSORS: dict[str, dict[str, Any]] = {
    "top_k": {
        "fraction": (MaybeFraction, None),
        "k": (MaybeCount, None),
    },
    "sign": {},
    "scaled_sign": {},
    "quantize": {"bits": (Annotated[int, Ge(2), Le(16)], ...)},
}

# Arguments that every worker program takes besides its own (see `make_worker`).
COMPRESSION: dict[str, Any] = {
    "compressor": (MaybeSpec, None),
    "error_feedback": (bool, True),
    "learning_rate": (NonNegative | Spec | None, None),
}

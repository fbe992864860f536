"""Names and arguments of tasks and partitions: what checks a config, without JAX.

Each row is `argument: (annotation, default)`, as `pydantic.create_model` takes it; `...` stands for
"required". A newcomer adds a function and a row.
"""

from typing import Annotated, Any, Literal, TypeAlias

from annotated_types import Ge, Gt, Lt

from sgdlab.statistics import Direction

Row: TypeAlias = dict[str, tuple[Any, Any]]
Count: TypeAlias = Annotated[int, Ge(1)]
NonNegative: TypeAlias = Annotated[float, Ge(0)]
Fraction: TypeAlias = Annotated[float, Gt(0), Lt(1)]
Seed: TypeAlias = Annotated[int, Ge(0), Lt(2**32)]
MaybeCount: TypeAlias = Count | None
Vector: TypeAlias = float | list[float]

_SPLIT: Row = {"test_fraction": (Fraction, 0.2), "split_seed": (Seed, 0)}

TASKS: dict[str, Row] = {
    "quadratic": {
        "curvature": (Vector, ...),
        "noise": (NonNegative, 0.0),
        "start": (Vector, 1.0),
        "targets": (list[list[float]] | None, None),
    },
    "logistic": {
        "dataset": (str, "breast_cancer"),
        "l2": (NonNegative, 0.0),
        **_SPLIT,
    },
    "digits": {
        "model": (Literal["mlp", "cnn"], "mlp"),
        "hidden": (list[Count], [128]),
        "channels": (list[Count], [16, 32]),
        **_SPLIT,
    },
    "images": {
        "path": (str, ...),
        "model": (Literal["mlp", "cnn"], "cnn"),
        "hidden": (list[Count], [128]),
        "channels": (list[Count], [32, 64]),
        **_SPLIT,
    },
    "text": {
        "path": (str | None, None),
        "size": (Literal["0.3M", "1M", "3M", "10M", "30M", "100M", "300M", "1B"], "0.3M"),
        "length": (Annotated[int, Ge(1)], 128),
        "width": (MaybeCount, None),
        "layers": (MaybeCount, None),
        "heads": (MaybeCount, None),
        "tied": (bool, True),
        "rematerialise": (bool, False),
        "dropout": (Annotated[float, Ge(0), Lt(1)], 0.0),
        "attention": (Literal["xla", "cudnn"], "xla"),
        "test_fraction": (Fraction, 0.1),
    },
}

_CLASSES: dict[str, Direction] = {"loss": "down", "accuracy": "up"}
METRICS: dict[str, dict[str, Direction]] = {
    "quadratic": {"loss": "down", "distance": "down"},
    "logistic": {**_CLASSES, "cross_entropy": "down"},
    "digits": _CLASSES,
    "images": _CLASSES,
    "text": {**_CLASSES, "perplexity": "down", "bits_per_byte": "down"},
}
"""What an evaluation gives, and which way it improves, known before the task is made."""

PARTITIONS: dict[str, Row] = {
    "iid": {},
    "dirichlet": {
        "alpha": (Annotated[float, Gt(0)], ...),
        "sizes": (Literal["drawn", "equal"], "drawn"),
    },
    "by_label": {"labels_per_worker": (Count, ...)},
    "quantity": {"alpha": (Annotated[float, Gt(0)], ...)},
}

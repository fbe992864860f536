"""Names and arguments of tasks and partitions: what checks a config, without JAX.

Each row is `argument: (annotation, default)`, as `pydantic.create_model` takes it; `...` stands for
"required". A newcomer adds a function and a row.
"""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeAlias

from annotated_types import Ge, Gt, Le, Lt

if TYPE_CHECKING:
    from sgdlab.statistics import Direction

Row: TypeAlias = dict[str, tuple[Any, Any]]
Count: TypeAlias = Annotated[int, Ge(1), Le(2**31 - 1)]
Width: TypeAlias = Annotated[int, Ge(1), Le(2**20)]
NonNegative: TypeAlias = Annotated[float, Ge(0)]
Fraction: TypeAlias = Annotated[float, Gt(0), Lt(1)]
Seed: TypeAlias = Annotated[int, Ge(0), Lt(2**32)]
MaybeWidth: TypeAlias = Width | None
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
        "test": (str | None, None),
    },
    "digits": {
        "model": (Literal["mlp", "cnn"], "mlp"),
        "hidden": (list[Width], [128]),
        "channels": (list[Width], [16, 32]),
        **_SPLIT,
    },
    "images": {
        "path": (str, ...),
        "model": (Literal["mlp", "cnn"], "cnn"),
        "hidden": (list[Width], [128]),
        "channels": (list[Width], [32, 64]),
        **_SPLIT,
    },
    "text": {
        "path": (str | None, None),
        "size": (Literal["0.3M", "1M", "3M", "10M", "30M", "100M", "300M", "1B"], "0.3M"),
        "length": (Width, 128),
        "width": (MaybeWidth, None),
        "layers": (MaybeWidth, None),
        "heads": (MaybeWidth, None),
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


def count_weights(name: str, **arguments: Any) -> tuple[str, int]:
    """About how many weights a task's arguments ask for, at the least.

    Args:
      name: a row of `TASKS`, or a task of somebody else's, of which nothing is known.
      **arguments: of the task.

    Returns:
      The argument that asks for most, and how many: between layers of these widths, between
      channels under a 3×3 filter, and in a transformer 12 width² a layer.
    """
    hidden, channels = arguments.get("hidden") or (), arguments.get("channels") or ()
    found = {"hidden": sum(a * b for a, b in pairwise(hidden))}
    if arguments.get("model") == "cnn":
        found["channels"] = 9 * sum(a * b for a, b in pairwise(channels))
    width, layers = arguments.get("width") or 1, arguments.get("layers") or 1
    if name == "text":
        found["layers" if layers > width else "width"] = 12 * layers * width**2
    return max(found.items(), key=lambda item: item[1])

"""What a claim may say: two quantities and a comparison. Data alone: no text is ever evaluated."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from annotated_types import Ge, Lt, MaxLen, MinLen
from pydantic import create_model

from sgdlab.experiment.reading.unions import Alternative, Row, Strict, by_kind, refine, tagged
from sgdlab.timelines.arguments import NonNegative, Positive

COMPARISONS = ("<", "<=", ">", ">=", "within")
VERDICTS = ("HOLDS", "FAILS", "UNDECIDED", "REFUTED")

_METRIC: Row = {"metric": (str, ...)}
_GOAL: Row = {
    "metric": (str | None, None),
    "at_least": (float | None, None),
    "at_most": (float | None, None),
}
_OF: Row = {"of": (by_kind(str, dict[str, Any]) | None, None)}
_OVER: Row = {"over": (Literal["lowest", "highest", "mean"] | None, None)}

_OF_METRICS: dict[str, Row] = {
    "final": _METRIC,
    "best": _METRIC,
    "mean": {**_METRIC, "after": (Annotated[float, Ge(0), Lt(1)], 0.0)},
    "time_to": _GOAL,
    "updates_to": _GOAL,
    "messages_to": _GOAL,
}
_OTHERS: dict[str, Row] = {
    "diverges": {},
    "staleness": {"statistic": (Literal["mean", "max"], "mean")},
    "throughput": {},
    "seconds_per_update": {},
    "utilisation": {},
}
GOALS = ("time_to", "updates_to", "messages_to")


class Quantity(Alternative):
    """A quantity: its name, and what its row of the table says."""

    def given(self) -> dict[str, Any]:
        """All that it was given or has by default, but its name."""
        return self.model_dump(exclude={"name"})


_BY = tagged("quantity to tune by", _OF_METRICS, base=Quantity)
_QUANTITY = tagged(
    "quantity",
    {
        **{name: {**row, **_OF, **_OVER} for name, row in {**_OF_METRICS, **_OTHERS}.items()},
        "tuned": {"axis": (str, ...), "by": (_BY, ...), **_OF, **_OVER},
        "limit": {"axis": (str, ...), **_GOAL, **_OF},
        "theory": {"function": (str, ...), "arguments": (dict[str, Any], {})},
    },
    base=Quantity,
)
_SIDE = by_kind(float, _QUANTITY)
_TEXT: Any = Annotated[str, MinLen(1), MaxLen(1000)]

_POSITIVE: Any = Positive
_NON_NEGATIVE: Any = NonNegative


class Claim(Strict):
    """One claim.

    Attributes:
      claim: in words.
      left, right: a number, or a quantity.
      factor: the right side is multiplied by it; under `within`, how far the ratio may be from 1.
      tolerance: under `within`, how far the difference may be from 0.
      refuted: why it came out otherwise, where it did.
      undecided: why it may stay open, where it may.
    """

    claim: str
    left: float | Quantity
    right: float | Quantity
    factor: float | None
    tolerance: float | None
    refuted: str | None
    undecided: str | None

    @property
    def comparison(self) -> str:
        """What `is` says, which no attribute of Python can be called by."""
        return getattr(self, "is")


_FIELDS: dict[str, tuple[Any, Any]] = {
    "claim": (_TEXT, ...),
    "left": (_SIDE, ...),
    "is": (Literal[COMPARISONS], ...),
    "right": (_SIDE, ...),
    "factor": (_POSITIVE | None, None),
    "tolerance": (_NON_NEGATIVE | None, None),
    "refuted": (_TEXT | None, None),
    "undecided": (_TEXT | None, None),
}
_fields: Any = {key: (refine(hint), default) for key, (hint, default) in _FIELDS.items()}
CLAIM = create_model("claim", __base__=Claim, __doc__="One claim.", **_fields)
TAG = Annotated[str, MinLen(1), MaxLen(40)]

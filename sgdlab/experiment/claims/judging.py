"""Verdicts: whether what was measured is what was claimed."""

from __future__ import annotations

import math
import operator
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from sgdlab.experiment.claims.estimating import estimate, gather
from sgdlab.experiment.claims.measuring import UnmeasuredError
from sgdlab.experiment.claims.vocabulary import Claim
from sgdlab.statistics import Resamples, interval

if TYPE_CHECKING:
    from sgdlab.experiment.config.experiment import Point
    from sgdlab.experiment.folders.run import Member

_ORDERS = {"<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge}


@dataclass(frozen=True)
class Judgement:
    """A claim and what came of it.

    Attributes:
      claim: in words.
      asked: the comparison: `< 0.5 ×`.
      left, right: the two sides as they were measured.
      kind: what the interval is of: "ratio", left/right; "difference", left − right; or, where a
        factor is asked, "difference (0.5 × right)", left − 0.5·right.
      measured, low, high: it, and its interval.
      replicates: how many there were: draws of the clocks times seeds.
      verdict: "HOLDS" where the whole interval agrees with the claim, "FAILS" where none of it
        does, "UNDECIDED" between; "REFUTED" for what fails and is recorded so.
      note: why it was refuted or may stay open, or why it could not be measured.
      expected: whether the verdict is what the file says: HOLDS; REFUTED of what is recorded so;
        and UNDECIDED of what is recorded so.
    """

    claim: str
    asked: str
    left: float = math.nan
    right: float = math.nan
    kind: str = ""
    measured: float = math.nan
    low: float = math.nan
    high: float = math.nan
    replicates: int = 0
    verdict: str = "UNDECIDED"
    note: str = ""
    expected: bool = True

    def to_dict(self) -> dict[str, Any]:
        """As JSON can hold it; what is not finite as text."""
        return {
            key: str(value) if isinstance(value, float) and not math.isfinite(value) else value
            for key, value in asdict(self).items()
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Judgement:
        """What `to_dict` gave.

        Raises:
          ValueError: something else.
        """
        try:
            kinds = {key: type(getattr(cls("", ""), key)) for key in asdict(cls("", ""))}
            return cls(**{key: kinds[key](value) for key, value in data.items()})
        except (TypeError, KeyError, AttributeError) as error:
            raise ValueError(f"no judgement: {error}") from error


def judge(
    claims: Sequence[Claim], points: Sequence[Point], members: Sequence[Member]
) -> list[Judgement]:
    """Judge every claim.

    Args:
      claims: of an experiment.
      points: of its sweep.
      members: what the points have brought, in the same order.

    Returns:
      As many judgements.
    """
    return [_judge(claim, points, members) for claim in claims]


def _judge(claim: Claim, points: Sequence[Point], members: Sequence[Member]) -> Judgement:
    asked = describe(claim)
    try:
        sides = [gather(side, points, members) for side in (claim.left, claim.right)]
    except UnmeasuredError as error:
        expected = is_expected("UNDECIDED", claim)
        return Judgement(claim.claim, asked, note=str(error), expected=expected)
    draws, seeds = (max(sizes) for sizes in zip(*(side.shape for side in sides), strict=True))
    resamples = Resamples(draws, seeds)
    left, right = (estimate(side, resamples) for side in sides)
    kind, values = compare(left, right, claim)
    low, high = interval(values[1:], -math.inf if claim.comparison in (">", ">=") else math.inf)
    verdict = decide(low, high, kind, claim)
    if claim.refuted is not None and verdict == "FAILS":
        verdict = "REFUTED"
    return Judgement(
        claim.claim,
        asked,
        float(left[0]),
        float(right[0]),
        kind,
        float(values[0]),
        low,
        high,
        draws * seeds,
        verdict,
        claim.refuted or claim.undecided or "",
        is_expected(verdict, claim),
    )


def is_expected(verdict: str, claim: Claim) -> bool:
    """Whether a verdict is what the file says; what it leaves open may also come to hold."""
    if verdict == "HOLDS":
        return claim.refuted is None
    return verdict == "REFUTED" or (verdict == "UNDECIDED" and claim.undecided is not None)


def describe(claim: Claim) -> str:
    """What is asked of left and right: `< 0.5 ×`, `within 1.1 ×`, `within ± 0.3 of`."""
    if claim.tolerance is not None:
        return f"within ± {claim.tolerance:g} of"
    return claim.comparison if claim.factor is None else f"{claim.comparison} {claim.factor:g} ×"


def compare(left: np.ndarray, right: np.ndarray, claim: Claim) -> tuple[str, np.ndarray]:
    """What the interval is taken of, in each resample.

    Args:
      left, right: `[B]`, the two sides.
      claim: whose they are.

    Returns:
      "ratio", left/right, where the sides are positive, or else "difference", left − factor·right;
      and its values, `[B]`. Where they have none, as infinity over infinity has none, NaN.
    """
    positive = np.all((right > 0) | np.isnan(right)) and np.all((left >= 0) | np.isnan(left))
    ratio = claim.tolerance is None and (positive or claim.comparison == "within")
    with np.errstate(invalid="ignore", divide="ignore"):
        if ratio:
            return "ratio", np.where(right == 0, math.nan, left / right)
        if claim.comparison == "within" or claim.factor is None:
            return "difference", left - right
        return f"difference ({claim.factor:g} × right)", left - claim.factor * right


def decide(low: float, high: float, kind: str, claim: Claim) -> str:
    """The verdict on an interval."""
    if claim.comparison == "within":
        width = claim.tolerance if claim.tolerance is not None else claim.factor or 1.0
        bottom, top = (-width, width) if claim.tolerance is not None else (1.0 / width, width)
        agrees, apart = bottom <= low and high <= top, high < bottom or low > top
    else:
        middle = (claim.factor or 1.0) if kind == "ratio" else 0.0
        ends = [_ORDERS[claim.comparison](value, middle) for value in (low, high)]
        agrees, apart = all(ends), not any(ends)
    return "HOLDS" if agrees else "FAILS" if apart else "UNDECIDED"

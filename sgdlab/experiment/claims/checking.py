"""What is wrong with claims can be said before anything runs: each problem with its key's path."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field, ValidationError

from sgdlab.experiment.claims import theories
from sgdlab.experiment.claims.selecting import MISSING, differs_elsewhere, look_up, select
from sgdlab.experiment.claims.vocabulary import CLAIM, GOALS, TAG, Claim, Quantity
from sgdlab.experiment.reading.problems import Problem, explain, show, suggest
from sgdlab.experiment.reading.unions import Chosen, Strict
from sgdlab.tasks.table import METRICS

if TYPE_CHECKING:
    from sgdlab.experiment.config.experiment import Point


class Stated(Strict):
    """What a file says of its experiment as a whole, beside the config of its points."""

    claims: Annotated[list[Claim], Chosen(list[CLAIM])] = Field([])
    tags: list[TAG] = Field([])


def read_claims(data: Mapping[str, Any]) -> tuple[Stated, list[Problem]]:
    """The claims and tags of a file as they are written, whatever its points are."""
    given = {key: data[key] for key in ("claims", "tags") if data.get(key) is not None}
    try:
        return Stated.model_validate(given), []
    except ValidationError as error:
        return Stated.model_validate({}), explain(error, Stated)


def check_claims_of(claims: Sequence[Claim], points: Sequence[Point]) -> list[Problem]:
    """Whether claims can be measured on these points."""
    problems: list[Problem] = []
    for index, claim in enumerate(claims):
        where = ("claims", str(index))
        problems += [((*where, *path), text) for path, text in _check_comparison(claim)]
        chosen: list[Point] = []
        for side in ("left", "right"):
            quantity = getattr(claim, side)
            if isinstance(quantity, Quantity):
                found = list(_check_quantity(quantity, points, chosen))
                problems += [((*where, side, *path), text) for path, text in found]
        problems += [(where, text) for text in _check_replicates(chosen)]
    return problems


def _check_comparison(claim: Claim) -> Iterator[Problem]:
    within = claim.comparison == "within"
    if within and (claim.factor is None) == (claim.tolerance is None):
        which = "none" if claim.factor is None else "both"
        yield ("is",), f"within: {which} given; allowed: exactly one of factor, tolerance"
    if within and claim.factor is not None and claim.factor <= 1:
        yield ("factor",), f"{claim.factor:g} given; allowed: with within, a number > 1"
    if not within and claim.tolerance is not None:
        yield ("tolerance",), f"given with {claim.comparison}; allowed: with within alone"
    if claim.refuted is not None and claim.undecided is not None:
        yield ("undecided",), "given beside refuted; allowed: one of them"
    if not isinstance(claim.left, Quantity) and not isinstance(claim.right, Quantity):
        yield ("left",), "two numbers; allowed: a quantity on one side at least"


def _check_quantity(
    quantity: Quantity, points: Sequence[Point], chosen: list[Point]
) -> Iterator[Problem]:
    """The problems of one quantity; the points that it speaks of are added to `chosen`."""
    given = quantity.given()
    if quantity.name == "theory":
        yield from theories.check(given["function"], given["arguments"])
        return
    try:
        mine = [points[index] for index in select(given["of"], points)]
    except ValueError as error:
        yield ("of",), str(error)
        return
    chosen += mine
    if quantity.name in ("tuned", "limit"):
        yield from _check_axis(quantity, mine)
    elif len(mine) > 1 and given["over"] is None:
        text = f"missing, and {len(mine)} points match; allowed: lowest, highest, mean, "
        yield ("over",), f"{text}or another `of`"
    if quantity.name == "tuned":
        by: Any = quantity
        yield from ((("by", *path), text) for path, text in _check_metric(by.by, mine))
    else:
        yield from _check_metric(quantity, mine)


def _check_metric(quantity: Quantity, points: Sequence[Point]) -> Iterator[Problem]:
    """The metric is one of the task's; a goal is whole, or the experiment's target."""
    given = quantity.given()
    metric = given.get("metric")
    if metric is not None:
        for name in dict.fromkeys(point.config.task.name for point in points):
            known = METRICS.get(name)
            if known is not None and metric not in known:
                yield ("metric",), f"unknown metric {show(metric)}; {suggest(metric, list(known))}"
                return
    if quantity.name not in (*GOALS, "limit"):
        return
    bounds = [key for key in ("at_least", "at_most") if given[key] is not None]
    if metric is None and bounds:
        yield ("metric",), f"missing beside {bounds[0]}; allowed: a metric, or neither of them"
    elif metric is None and quantity.name == "limit":
        return
    elif metric is None and any(point.config.goal is None for point in points):
        yield ("metric",), "missing, and the experiment has no target; allowed: either of them"
    elif metric is not None and len(bounds) != 1:
        which = "both" if bounds else "none"
        yield ("metric",), f"{which} given beside it; allowed: exactly one of at_least, at_most"


def _check_axis(quantity: Quantity, points: Sequence[Point]) -> Iterator[Problem]:
    """The points of an axis have a number there each, and differ in nothing else."""
    given = quantity.given()
    axis = given["axis"]
    values = [look_up(point, axis) for point in points]
    odd = [v for v in values if isinstance(v, bool) or not isinstance(v, int | float)]
    if odd:
        text = "no point has such a key" if odd[0] is MISSING else f"{show(odd[0])} stands there"
        yield ("axis",), f"{text}; allowed: the path of a number in every point"
    elif len(set(values)) < 2:
        yield ("axis",), f"{len(set(values))} value; allowed: a number that the points differ in"
    elif len(set(values)) < len(values) or differs_elsewhere(points, axis):
        if quantity.name == "limit":
            yield ("of",), "points differ in more than the axis; allowed: in the axis alone"
        elif given["over"] is None:
            yield (
                ("over",),
                "missing, and points differ in more than the axis; allowed: "
                + ("lowest, highest, mean, or another `of`"),
            )


def _check_replicates(points: Sequence[Point]) -> Iterator[str]:
    """Replicates are paired: as many on both sides, or one."""
    for noun, counts in (
        ("seeds", {len(point.config.run_seeds) for point in points}),
        ("draws of the clocks", {point.config.timelines for point in points}),
    ):
        if len(counts - {1}) > 1:
            numbers = " and ".join(map(str, sorted(counts)))
            yield f"points of {numbers} {noun}; allowed: as many in each, or one"

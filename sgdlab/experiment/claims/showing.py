"""Judgements in words."""

from __future__ import annotations

import math
from typing import Any

from sgdlab.experiment.claims.judging import Judgement


def row(each: Judgement) -> dict[str, Any]:
    """What a table says of a claim."""
    return {
        "claim": each.claim,
        "left": show_number(each.left),
        "asked": each.asked,
        "right": show_number(each.right),
        "measured": show_measured(each),
        "replicates": each.replicates or None,
        "verdict": show_verdict(each),
    }


def show_verdict(each: Judgement) -> str:
    """The verdict, and what the file says of it where that is otherwise."""
    if each.verdict == "HOLDS" and not each.expected:
        return "HOLDS, recorded as refuted"
    if each.verdict == "UNDECIDED" and each.expected:
        return "UNDECIDED, as recorded"
    return each.verdict


def show_measured(each: Judgement) -> str:
    """`ratio 0.41 [0.35, 0.52]`; one number where all resamples agree."""
    if not each.kind:
        return "not measured"
    value = f"{each.kind} {show_number(each.measured)}"
    if each.low == each.high and not math.isnan(each.measured):
        return value
    return f"{value} [{show_number(each.low)}, {show_number(each.high)}]"


def show_number(value: float) -> str:
    """Four digits; what never happens is infinite."""
    if math.isnan(value):
        return "none"
    if math.isinf(value):
        return "never" if value > 0 else "none"
    return f"{value:.4g}"

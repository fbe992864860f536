"""How a column writes its numbers: all to the same place, so that an eye can run down them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

_LEAST = 3  # digits of the smallest number
_MOST_PLACES, _LARGEST = 6, 1e7


def column_format(values: Iterable[float], digits: int = 4) -> str:
    """A format specification that suits every number of a column.

    As many decimals as give the largest number so many digits and the smallest three, without zeros
    that all would end in; powers of ten where that takes more than six. What is not finite is left
    out.
    """
    known = [abs(value) for value in values if math.isfinite(value) and value]
    if not known:
        return ",.0f"
    places = max(_places(max(known), digits), _places(min(known), _LEAST))
    if places > _MOST_PLACES or max(known) >= _LARGEST:
        return f".{digits - 1}e"
    while places and all(f"{value:.{places}f}".endswith("0") for value in known):
        places -= 1
    return f",.{places}f"


def _places(size: float, digits: int) -> int:
    return max(digits - 1 - math.floor(math.log10(size)), 0)


def figure(value: float, form: str) -> str:
    """A finite number in its column's format; zero stays short where others have powers."""
    return "0" if value == 0 and form.endswith("e") else format(value, form)


def count(number: int, noun: str) -> str:
    """`1 worker`, `4,000 updates`."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def deviation(value: float, form: str) -> str:
    """A standard deviation beside its mean: zero only where it is none."""
    if value == 0:
        return "0"
    if form.endswith("e"):
        return f"{value:.1e}"
    text = format(value, form)
    return text if float(text.replace(",", "")) else f"{value:.2g}"


def as_written(texts: Sequence[str]) -> list[str]:
    """Settings as they were written, with zeros to the longest fraction; none among powers."""
    if any("e" in text for text in texts):
        return list(texts)
    longest = max((len(text.partition(".")[2]) for text in texts), default=0)
    return [
        text + "." * ("." not in text) + "0" * (longest - len(text.partition(".")[2]))
        if longest
        else text
        for text in texts
    ]

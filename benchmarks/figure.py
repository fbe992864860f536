"""The two scaling curves with the sizes of the caches, as an SVG beside RESULTS.md."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter


def draw(by_workers: list[list[Any]], by_parameters: list[list[Any]], path: Path) -> None:
    """Draw replay / floor against the bytes of the slots, and against those of the whole state.

    Args:
      by_workers: rows of the survey "scaling-workers".
      by_parameters: rows of the survey "scaling-parameters".
      path: of the SVG.
    """
    figure = Figure(figsize=(9, 3.4), layout="constrained")
    panels = figure.subplots(1, 2, sharey=True)
    _curve(panels[0], [(float(row[2]), float(row[-1]), _short(row[0])) for row in by_workers])
    panels[0].set(xlabel="slots, MiB; labels: workers (digits MLP)", ylabel="replay / floor")
    _curve(panels[1], [(float(row[1]), float(row[-1]), _short(row[0])) for row in by_parameters])
    panels[1].set(xlabel="state, MiB; labels: parameters (N = 4)")
    figure.savefig(path, metadata={"Date": None})


def _curve(axes, points: list[tuple[float, float, str]]) -> None:
    """A marked line; each point carries its label, each cache a dotted upright."""
    axes.plot([x for x, _, _ in points], [y for _, y, _ in points], marker="o", color="#0072b2")
    for x, y, label in points:
        axes.annotate(label, (x, y), (0, 6), textcoords="offset points", fontsize=7, ha="center")
    for name, size in _caches().items():
        axes.axvline(size, color="0.5", linestyle=":")
        axes.annotate(name, (size, 0.42), (2, 0), textcoords="offset points", fontsize=7)
    axes.set(xscale="log", ylim=(0.4, 1.1))


def _short(count: str) -> str:
    """A count as a label has room for it: 4,096 is 4k."""
    return EngFormatter(places=0, sep="")(float(str(count).replace(",", "")))


def _caches() -> dict[str, float]:
    """The size of each level of the data caches in MiB, as Linux tells it."""
    sizes = {}
    for index in sorted(Path("/sys/devices/system/cpu/cpu0/cache").glob("index*")):
        if (index / "type").read_text().strip() == "Instruction":
            continue
        kibibytes = int((index / "size").read_text().strip().removesuffix("K"))
        sizes[f"L{(index / 'level').read_text().strip()}"] = kibibytes / 1024
    return sizes

"""How a precision study reaches a terminal and a picture."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd

from sgdlab.experiment.running.environment import cpu_name
from sgdlab.experiment.studies.precision import format_ranges
from sgdlab.experiment.terminal.display import print_table, save_figure


def print_study(study: pd.DataFrame) -> None:
    """Print the table of policies, then the losses by layer, then the formats' ranges by layer.

    Args:
      study: from `study_precision`.
    """
    rows: Any = study.to_dict("records")
    print_table([_summary(row) for row in rows])
    print(f"\nspeed, {len(rows)} programs in turn: {_device()}")
    print("\nshare of gradient entries flushed to zero / overflowed, under the policy")
    print_table([{"policy": row["policy"]} | _shares(row["by_layer"]) for row in rows])
    print("\nshare of float32 gradient entries below / above the format's range, unscaled")
    ranges = study.attrs["ranges"]
    print_table([{"format": name} | _shares(shares) for name, shares in ranges.items()])


def draw_exponents(study: pd.DataFrame, path: Path) -> Path:
    """Write the histogram of gradient exponents against each format's range.

    Args:
      study: from `study_precision`.
      path: where; .svg, .png or .pdf.

    Returns:
      The path.

    Raises:
      OutputError: the suffix is unknown, or the file cannot be written.
    """
    from sgdlab import plots

    found = study.attrs["exponents"]
    figure = plots.gradient_exponents(
        found.counts, found.lowest, formats=format_ranges(), zeros=found.zeros
    )
    return save_figure(figure, path, title="Exponents of gradient entries")


def _summary(row: dict[str, Any]) -> dict[str, Any]:
    scale = row["loss_scale"]
    return {
        "policy": row["policy"],
        f"final {row['metric']}": "not finite"
        if pd.isna(row["mean"])
        else f"{row['mean']:.4g} ± {row['deviation']:.2g}",
        "flushed": _percent(row["flushed"]),
        "overflowed": _percent(row["overflowed"]),
        "skipped": row["skipped"],
        "loss scale": None if scale is None or pd.isna(scale) else scale,
        "parameters": _size(row["parameters"]),
        "rule state": _size(row["rule_state"]),
        "temporary": _size(row["temporary"]),
        "peak": _size(row["peak"]),
        "updates/s": f"{row['updates_per_second']:,.0f}",
        "speed": f"{row['relative_speed']:.2f}",
        "status": "" if row["status"] == "done" else row["status"],
    }


def _shares(by_layer: dict[str, tuple[float, float]]) -> dict[str, str]:
    return {path: f"{_percent(low)} / {_percent(high)}" for path, (low, high) in by_layer.items()}


def _percent(share: float) -> str:
    return f"{100 * share:.3g} %"


def _size(count: int) -> str:
    if count < 10_000:
        return f"{count:,} B"
    return f"{count / 1024:,.0f} KiB" if count < 10 * 2**20 else f"{count / 2**20:,.0f} MiB"


def _device() -> str:
    import jax

    kinds = sorted({device.device_kind for device in jax.devices()})
    where = cpu_name() if jax.default_backend() == "cpu" else ", ".join(kinds)
    return f"{where}, jax {jax.__version__}"

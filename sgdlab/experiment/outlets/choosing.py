"""Which outlets there are, and whether their packages are."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from pathlib import Path

from sgdlab.experiment.errors import ConfigError
from sgdlab.experiment.outlets.following import Outlet

PACKAGES = {"tensorboard": "tensorboardX", "wandb": "wandb"}


def check_outlets(names: Sequence[str]) -> None:
    """Refuse what cannot be written to.

    Raises:
      ConfigError: no such outlet, or its package is not installed.
    """
    for name in names:
        if name not in PACKAGES:
            allowed = ", ".join(PACKAGES)
            raise ConfigError([f"outlet: unknown name {name!r}; allowed: {allowed}"])
        if importlib.util.find_spec(PACKAGES[name]) is None:
            how = f'pip install -e ".[{name}]"'
            raise ConfigError([f"{name}: {PACKAGES[name]} is not installed; allowed: after {how}"])


def open_outlets(names: Sequence[str], path: Path) -> list[Outlet]:
    """The outlets of a run folder.

    Args:
      names: "tensorboard", "wandb".
      path: the run folder.
    """
    from sgdlab.experiment.outlets.events import EventFiles
    from sgdlab.experiment.outlets.tracking import TrackedRuns

    check_outlets(names)
    kinds = {"tensorboard": EventFiles, "wandb": TrackedRuns}
    return [kinds[name](path) for name in dict.fromkeys(names)]

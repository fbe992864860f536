"""On what a run was made: versions, machine, devices, data."""

from __future__ import annotations

import hashlib
import os
import platform
import subprocess
import sys
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

import sgdlab
from sgdlab.files import count_cores

PACKAGES = ("sgdlab", "jax", "jaxlib", "optax", "flax", "numpy", "scikit-learn", "pandas")


def describe_environment() -> dict[str, Any]:
    """Versions, machine and devices; starts JAX's backend."""
    import jax

    from sgdlab.training.checkpoints.settings import describe_settings

    devices = jax.devices()
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "machine": platform.machine(),
        "cpu": cpu_name(),
        "cores": count_cores(),
        "versions": {**_versions(), "sgdlab": sgdlab.__version__},
        "backend": jax.default_backend(),
        "devices": [device.device_kind for device in devices],
        "xla_flags": os.environ.get("XLA_FLAGS", ""),
        "settings": describe_settings(),
        "commit": find_commit(Path(sgdlab.__file__).parents[1]),
        "command": Path(sys.argv[0]).name if sys.argv else "",
    }


def cpu_name() -> str:
    """The processor's model, as the system names it."""
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def find_commit(folder: Path) -> str | None:
    """The commit of the checkout in a folder, `+` behind it where files differ; else None."""
    if not (folder / ".git").exists():
        return None
    commit = _git(folder, "rev-parse", "HEAD")
    changed = _git(folder, "status", "--porcelain", "--untracked-files=no")
    return commit and commit + ("+" if changed else "")


def hash_data(*parts: Mapping[str, Any]) -> str:
    """SHA-256 over the names, types, shapes and values of arrays."""
    import jax

    digest = hashlib.sha256()
    for part in parts:
        for path, leaf in jax.tree_util.tree_leaves_with_path(dict(part)):
            name = jax.tree_util.keystr(path, simple=True, separator="/")
            array = np.ascontiguousarray(leaf)
            digest.update(f"{name} {array.dtype.str} {array.shape}\n".encode())
            digest.update(array.view(np.uint8).data if array.size else b"")
    return digest.hexdigest()


def _versions() -> dict[str, str]:
    found = {}
    for name in PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def _git(folder: Path, *arguments: str) -> str | None:
    # Without the optional locks: another git of that checkout must not find it busy.
    command = ["git", "--no-optional-locks", "-C", str(folder), *arguments]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=5, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()

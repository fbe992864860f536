"""What has to be set before JAX starts: the compilation cache of this machine."""

from __future__ import annotations

import hashlib
import os
import platform
from importlib import metadata
from pathlib import Path


def prepare_backend() -> Path | None:
    """Keep compiled programs from run to run, so that the second start is quick.

    The folder is keyed by processor and jaxlib: a program compiled for another machine may not run
    here. A cache that somebody set already (`JAX_COMPILATION_CACHE_DIR`) stands.

    Returns:
      The folder, or None where there is none to be had.
    """
    import jax

    if getattr(jax.config, "jax_compilation_cache_dir", None):
        return None
    folder = cache_folder()
    if not folder.is_absolute():  # there is no home: it would lie wherever this was started
        return None
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:
        return None
    if not os.access(folder, os.W_OK):
        return None
    jax.config.update("jax_compilation_cache_dir", str(folder))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", 0)
    return folder


def look_for_nans() -> None:
    """Have every operation looked at; in the processes that this one starts, too."""
    import jax

    os.environ["JAX_DEBUG_NANS"] = "1"
    jax.config.update("jax_debug_nans", True)


def cache_folder() -> Path:
    """Where the compiled programs of this machine lie."""
    import platformdirs

    key = hashlib.sha256(_processor().encode()).hexdigest()[:12]
    root = Path(platformdirs.user_cache_dir("sgdlab"))
    return root / "compiled" / f"{metadata.version('jaxlib')}-{platform.machine()}-{key}"


def _processor() -> str:
    """What the processor can do, as far as the system tells."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.node()
    kept = (line for line in lines if line.startswith(("model name", "flags", "Features")))
    return "\n".join(sorted(set(kept)))

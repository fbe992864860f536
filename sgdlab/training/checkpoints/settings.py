"""The settings of JAX that change numbers, which belong to a run's identity."""

from __future__ import annotations

import os

import jax

# Flags of XLA, or how they begin, that leave every number as it is: devices, dumps, logs.
NEUTRAL = ("--xla_force_host_platform_device_count", "--xla_dump_", "--xla_log", "--xla_vlog")

_NAMES = (
    "default_prng_impl",
    "threefry_partitionable",
    "enable_x64",
    "default_matmul_precision",
)


def describe_settings() -> dict[str, str]:
    """How JAX is set where that changes numbers, `jax.name` to value.

    The implementation of random keys and whether threefry is partitionable, 64-bit types, the
    precision of matrix products, and the flags of XLA but those in `NEUTRAL`, in order of names.
    """
    flags = [flag for flag in os.environ.get("XLA_FLAGS", "").split() if _counts(flag)]
    settings = {f"jax.{name}": str(getattr(jax.config, f"jax_{name}")) for name in _NAMES}
    return {**settings, "jax.xla_flags": " ".join(sorted(flags))}


def _counts(flag: str) -> bool:
    return not flag.startswith(NEUTRAL)

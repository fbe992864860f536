"""What an isolated point may take; apart from how it is made, so that it is checked without jax."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Isolation:
    """What a point may take before it is given up.

    Attributes:
      timeout: seconds without any progress; None: it may think for ever.
      memory: bytes of address space, of which Python and JAX take about two GiB before a number is
        computed; None: as much as there is.
    """

    timeout: float | None = None
    memory: int | None = None

    def __post_init__(self) -> None:
        if self.timeout is not None and not self.timeout > 0:
            raise ValueError(f"isolation: timeout is {self.timeout}; allowed: more than 0 seconds")
        if self.memory is not None and self.memory < 1:
            raise ValueError(f"isolation: memory is {self.memory}; allowed: at least 1 byte")

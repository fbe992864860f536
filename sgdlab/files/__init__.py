"""How a file that people give us is opened: a regular one, unpacked as it is read."""

from sgdlab.files.opening import UNPACKING_FAULTS, open_regular, open_unpacked

__all__ = ["UNPACKING_FAULTS", "open_regular", "open_unpacked"]

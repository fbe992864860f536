"""How files are opened: regular ones, unpacked as they are read, and on any platform."""

from sgdlab.files.opening import UNPACKING_FAULTS, open_regular, open_unpacked
from sgdlab.files.platforms import count_cores, open_flags, return_memory, take_lock

__all__ = [
    "UNPACKING_FAULTS",
    "count_cores",
    "open_flags",
    "open_regular",
    "open_unpacked",
    "return_memory",
    "take_lock",
]

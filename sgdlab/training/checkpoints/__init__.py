"""What survives a kill: a checkpoint as one file, the folder of them, and going on from there."""

from sgdlab.training.checkpoints.archive import (
    Checkpoint,
    CheckpointError,
    DamagedError,
    Header,
    MismatchError,
    load,
    read_header,
)
from sgdlab.training.checkpoints.files import CheckpointWarning, find, latest, save

__all__ = [
    "Checkpoint",
    "CheckpointError",
    "CheckpointWarning",
    "DamagedError",
    "Header",
    "MismatchError",
    "find",
    "latest",
    "load",
    "read_header",
    "save",
]

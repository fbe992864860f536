"""What survives a kill: a checkpoint, the folder of them, and going on from there."""

from sgdlab.training.checkpoints.archive import (
    Checkpoint,
    CheckpointError,
    DamagedError,
    Header,
    MismatchError,
)
from sgdlab.training.checkpoints.files import (
    CheckpointWarning,
    find,
    latest,
    load,
    read_header,
    save,
)

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

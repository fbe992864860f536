from .batches import (
    Shards as Shards,
    draw_rows as draw_rows,
    make_shards as make_shards,
)
from .checkpoints import (
    CheckpointError as CheckpointError,
    CheckpointWarning as CheckpointWarning,
)
from .checkpoints.identity import (
    ResumeError as ResumeError,
    describe_program as describe_program,
)
from .checkpoints.metrics_log import MetricsLog as MetricsLog
from .checkpoints.resuming import (
    CheckpointPlan as CheckpointPlan,
    RunInterrupted as RunInterrupted,
)
from .devices.collectives import Average as Average
from .devices.mesh import make_mesh as make_mesh
from .history import (
    Histories as Histories,
    History as History,
    NumericalError as NumericalError,
)
from .measures import (
    NoiseScale as NoiseScale,
    estimate_momentum as estimate_momentum,
    gradient_noise_scale as gradient_noise_scale,
)
from .replaying import (
    ChunkReport as ChunkReport,
    plan as plan,
    replay as replay,
    replay_many as replay_many,
)

from .compensation import (
    compensate_delay as compensate_delay,
)
from .factory import (
    evaluation_params as evaluation_params,
    make_receive as make_receive,
    make_rule as make_rule,
    make_schedule as make_schedule,
)
from .gap import (
    gap_aware as gap_aware,
)
from .mixing import (
    mix_models as mix_models,
)
from .schedules import (
    CountedSchedule as CountedSchedule,
)
from .staleness import (
    clip_by_delay as clip_by_delay,
    divide_by_staleness as divide_by_staleness,
    drop_stale as drop_stale,
    hinge_staleness as hinge_staleness,
    scale_by_staleness as scale_by_staleness,
    scale_by_worker_delay as scale_by_worker_delay,
)
from .update_rules import (
    adagrad as adagrad,
    adam as adam,
    adamw as adamw,
    heavy_ball as heavy_ball,
    momentum as momentum,
    nesterov as nesterov,
    rmsprop as rmsprop,
    sgd as sgd,
)

"""When it happens: clusters, protocols, and the timelines that come of them. NumPy only.

A `Cluster` says how fast the machines are, a protocol when the server updates; together they give
a `Timeline`, plain data that a replay walks. A protocol is a small `Policy` given to one event
engine (`simulate`), one file in `protocols/`.
"""

from sgdlab.timelines.cluster import Cluster, Stragglers
from sgdlab.timelines.compute import (
    COMPUTE_MODELS,
    ComputeModel,
    constant,
    exponential,
    gamma,
    lognormal,
    make_compute,
    markov,
    pareto,
    shifted_exponential,
    slowed,
    trace,
    uniform,
)
from sgdlab.timelines.engine import Engine, Horizon, simulate
from sgdlab.timelines.failures import Failures
from sgdlab.timelines.measures import head
from sgdlab.timelines.network import Network
from sgdlab.timelines.plan import Plan, plan
from sgdlab.timelines.policy import Gathering, Policy
from sgdlab.timelines.protocols import (
    PROTOCOLS,
    asynchronous,
    bounded_staleness,
    fixed_delay,
    from_trace,
    k_async,
    k_batch_async,
    k_batch_sync,
    k_sync,
    malenia,
    random_delay,
    ringleader,
    ringmaster,
    synchronous,
    wait_for_all,
    window,
)
from sgdlab.timelines.timeline import (
    CANCELLED,
    DROPPED,
    IN_FLIGHT,
    Timeline,
    TimelineError,
)

__all__ = [
    "CANCELLED",
    "COMPUTE_MODELS",
    "DROPPED",
    "IN_FLIGHT",
    "PROTOCOLS",
    "Cluster",
    "ComputeModel",
    "Engine",
    "Failures",
    "Gathering",
    "Horizon",
    "Network",
    "Plan",
    "Policy",
    "Stragglers",
    "Timeline",
    "TimelineError",
    "asynchronous",
    "bounded_staleness",
    "constant",
    "exponential",
    "fixed_delay",
    "from_trace",
    "gamma",
    "head",
    "k_async",
    "k_batch_async",
    "k_batch_sync",
    "k_sync",
    "lognormal",
    "make_compute",
    "malenia",
    "markov",
    "pareto",
    "plan",
    "random_delay",
    "ringleader",
    "ringmaster",
    "shifted_exponential",
    "simulate",
    "slowed",
    "synchronous",
    "trace",
    "uniform",
    "wait_for_all",
    "window",
]

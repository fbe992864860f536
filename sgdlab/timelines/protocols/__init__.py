"""The protocols: when the server updates, and whom it sends on.

One protocol is one file, with its citation, its policy and its function, and one row here.
"""

from collections.abc import Callable

from sgdlab.timelines.protocols.asynchronous import asynchronous
from sgdlab.timelines.protocols.bounded_staleness import bounded_staleness
from sgdlab.timelines.protocols.fixed_delay import fixed_delay
from sgdlab.timelines.protocols.from_trace import from_trace
from sgdlab.timelines.protocols.k_async import k_async
from sgdlab.timelines.protocols.k_batch_async import k_batch_async
from sgdlab.timelines.protocols.k_batch_sync import k_batch_sync
from sgdlab.timelines.protocols.k_sync import k_sync
from sgdlab.timelines.protocols.malenia import malenia
from sgdlab.timelines.protocols.random_delay import random_delay
from sgdlab.timelines.protocols.ringleader import ringleader
from sgdlab.timelines.protocols.ringmaster import ringmaster
from sgdlab.timelines.protocols.synchronous import synchronous
from sgdlab.timelines.protocols.wait_for_all import wait_for_all
from sgdlab.timelines.protocols.window import window
from sgdlab.timelines.timeline import Timeline

PROTOCOLS: dict[str, Callable[..., Timeline]] = {
    "synchronous": synchronous,
    "k_sync": k_sync,
    "k_batch_sync": k_batch_sync,
    "malenia": malenia,
    "k_async": k_async,
    "k_batch_async": k_batch_async,
    "asynchronous": asynchronous,
    "wait_for_all": wait_for_all,
    "bounded_staleness": bounded_staleness,
    "window": window,
    "ringmaster": ringmaster,
    "ringleader": ringleader,
    "fixed_delay": fixed_delay,
    "random_delay": random_delay,
    "from_trace": from_trace,
}
"""Every protocol by its name in configs; its signature is its argument table."""

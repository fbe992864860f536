"""A worker among good ones whose every message is out of range, under each form of a replay."""

import jax.numpy as jnp
import numpy as np
import optax

from sgdlab import rules, tasks, timelines, training, workers
from sgdlab.precision import DynamicLossScale, NoOpLossScale, StaticLossScale
from sgdlab.timelines import DROPPED, Cluster
from tests.training.conftest import make_timeline
from tests.training.walks import walk

TARGETS = np.array([0.5, 0.0, 1.5, 2.0])  # worker i's own; the mean of the good ones' is 4/3
BAD, RATE, START = 1, 0.125, 1.0
SCALE = 2.0**7  # good gradients are at most 2 in size, so within float16's range
CLUSTER = Cluster(workers=4, compute=timelines.lognormal(mean=1.0, sigma=0.5))
SYNCHRONOUS = timelines.synchronous(CLUSTER, updates=60)
IN_TURN = np.arange(100)


def loss(params, batch, key):
    """½(w − x)² over rows; one bad row and it is infinite, and its gradient not finite."""
    factor = jnp.where(jnp.any(batch["bad"] > 0), jnp.inf, 1.0).astype(params["w"].dtype)
    return factor * jnp.mean((params["w"] - batch["x"][:, None]) ** 2) / 2, {}


ROWS = {
    "x": np.repeat(TARGETS, 8).astype(np.float32),
    "bad": np.repeat(np.arange(4) == BAD, 8).astype(np.float32),
}
TASK = tasks.Task(
    "one-bad-worker", lambda key: {"w": jnp.full((1, 1), START)}, loss, train=ROWS, test=ROWS
)
SHARDS = np.arange(32).reshape(4, 8)

# By name: a timeline, the options under which its replay has a form, and that form.
CASES = {
    "fused": (SYNCHRONOUS, {}, "fused"),
    "fused, whoever comes": (timelines.k_sync(CLUSTER, k=3, updates=60), {}, "fused"),
    "mapped": (SYNCHRONOUS, {"worker": workers.local_steps(1, optax.sgd(1.0))}, "mapped"),
    "mapped members": (SYNCHRONOUS, {"members": "vmap"}, "mapped"),
    "single": (timelines.asynchronous(CLUSTER, updates=99), {}, "single"),
    "early": (timelines.asynchronous(CLUSTER, updates=100), {}, "early"),
    "waves": (timelines.asynchronous(Cluster(workers=4), updates=60), {"width": 4}, "waves"),
    "walk": (timelines.window(CLUSTER, wait=0.5, updates=60), {}, "walk"),
    "a table of means": (timelines.wait_for_all(CLUSTER, updates=60), {}, "walk"),
    "a table of sums": (
        make_timeline(
            IN_TURN % 4, np.maximum(IN_TURN - 3, 0), IN_TURN, last=np.minimum(IN_TURN + 3, 99)
        ),
        {},
        "walk",
    ),
}


def options_of(name, precision):
    """What a replay of a case takes; messages are never early under a dynamic loss scale."""
    timeline, options, form = CASES[name]
    scale = NoOpLossScale()
    if precision == "mixed_float16":
        scale = StaticLossScale(SCALE) if form == "early" else DynamicLossScale(SCALE)
    common = {"seeds": [0, 1], "partition": list(SHARDS), "batch_size": 4}
    skip = {"precision": precision, "loss_scale": scale, "on_nonfinite": "skip"}
    return (TASK, lambda: rules.sgd(RATE), timeline), common | skip | options


def check(name, precision, **more):
    """A case against the plain walk of its timeline, which leaves the bad worker's messages out."""
    arguments, options = options_of(name, precision)
    timeline = arguments[-1]
    versions = walk(timeline, [START], lambda i, _, w: None if i == BAD else w - TARGETS[i], RATE)
    for history in training.replay_many(*arguments, **options, **more):
        # In float32 each of T steps rounds some times, at the size of 2. In float16 w, w − x and
        # its mean are off by 2⁻¹¹ of themselves; a descent makes at most twice of that.
        tolerance = 2.0**-9 * 2 if precision == "mixed_float16" else 100 * 10 * 2.0**-24 * 2
        np.testing.assert_allclose(history.params["w"][0], versions[-1], atol=tolerance)
        used = timeline.update >= 0
        bad = used & (timeline.worker == BAD)
        expected = np.bincount(timeline.update[bad], minlength=timeline.num_updates)
        np.testing.assert_array_equal(history.skipped, expected)
        np.testing.assert_allclose(
            history.loss, expected_loss(timeline, versions[:, 0]), atol=4 * tolerance
        )
        if isinstance(history.loss_scale, DynamicLossScale):
            check_scales(history.loss_scale, timeline)


def expected_loss(timeline, versions):
    """The mean over the good messages of each update, or infinite where there is none."""
    losses = []
    for update in range(timeline.num_updates):
        good = (timeline.update == update) & (timeline.worker != BAD)
        errors = versions[timeline.read_version[good]] - TARGETS[timeline.worker[good]]
        losses.append(np.mean(errors**2) / 2 if good.any() else np.inf)
    return losses


def check_scales(scale, timeline):
    """Each worker's own: it has counted its finite messages, and the bad one's fell to 1."""
    computed = (timeline.update >= 0) | (timeline.update == DROPPED)
    messages = np.bincount(timeline.worker[computed], minlength=4)
    good = np.arange(4) != BAD
    fallen = max(SCALE * 0.5 ** messages[BAD], 1.0)
    np.testing.assert_array_equal(scale.loss_scale, np.where(good, SCALE, fallen))
    np.testing.assert_array_equal(scale.counter, np.where(good, messages, 0))

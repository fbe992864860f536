"""A run of its own process, to be killed: `killable.py FOLDER DEVICES UPDATES`.

Dropout, momentum, a dynamic loss scale in float16, an asynchronous timeline and canonical sums. It
saves itself after every chunk, says so in a line, and goes on from what it finds in the folder. It
makes one chunk for each line of its standard input, and all that are left once that is closed.
"""

import json
import sys
from pathlib import Path

from sgdlab.experiment.running.signals import Signals, Stopped
from sgdlab.training.devices.launching import simulate_devices

CHUNK = 4  # updates


def make_task():
    """A small network, half of whose hidden values are dropped; it compiles in a moment."""
    import jax
    import jax.numpy as jnp
    import numpy as np

    from sgdlab.tasks import Task

    generator = np.random.default_rng(0)
    rows = generator.standard_normal((96, 8)).astype(np.float32)
    data = {"x": rows, "y": np.sin(rows.sum(axis=1))}

    def init(key):
        first, second = jax.random.split(key)
        return {"in": jax.random.normal(first, (8, 16)), "out": jax.random.normal(second, (16,))}

    def loss(params, batch, key):
        hidden = jnp.tanh(batch["x"] @ params["in"])
        if key is not None:
            hidden = hidden * jax.random.bernoulli(key, 0.5, hidden.shape).astype(hidden.dtype)
        error = (hidden @ params["out"] - batch["y"]).astype(jnp.float32)
        return jnp.mean(error**2), {}

    return Task("dropped", init, loss, data, data)


def main(folder: Path, devices: int, updates: int, signals: Signals) -> None:
    simulate_devices(devices)
    import jax

    jax.config.update("jax_compilation_cache_dir", str(folder.parent / "compiled"))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    from sgdlab import precision, rules, timelines, training
    from sgdlab.training.checkpoints.metrics_log import MetricsLog
    from sgdlab.training.devices.mesh import make_mesh

    cluster = timelines.Cluster(workers=5, compute=timelines.gamma(mean=1.0, shape=2.0))

    def tell(chunk):
        for row in chunk.evaluations:
            log.append(json.dumps(row))
        print(chunk.update, flush=True)
        sys.stdin.readline()

    with signals.patient(), MetricsLog(folder / "metrics.jsonl") as log:
        plan = training.CheckpointPlan(
            folder / "checkpoints", logs={0: log}, interrupt=signals.asked
        )
        try:
            training.replay(
                make_task(),
                rules.momentum(0.1, decay=0.9),
                timelines.asynchronous(cluster, updates=updates, seed=1),
                seed=3,
                batch_size=8,
                precision="mixed_float16",
                loss_scale=precision.DynamicLossScale(2.0**15, period=7),
                evaluate_every=CHUNK,
                mesh=make_mesh(data=devices),
                reduction="canonical",
                checkpoint=plan,
                resume=True,
                callback=tell,
            )
        except training.RunInterrupted:
            sys.exit(128 + signals.number)


if __name__ == "__main__":
    try:
        # First of all, as on the command line: an exception that a signal raises may get lost while
        # modules are imported, and then only who counts signals knows of it.
        with Signals() as taken:
            main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), taken)
    except Stopped as stopped:
        sys.exit(128 + stopped.number)

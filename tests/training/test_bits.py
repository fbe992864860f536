"""Bits: zero delay is plain SGD, and chunks and processes change nothing.

The code under test is compiled here as it is for users, fully optimised, which the rest of the
suite is not: so it runs in processes of its own.
"""

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from sgdlab import rules, tasks, timelines, training
from sgdlab.training import replaying
from sgdlab.training.batches import draw_rows, make_shards


def zero_delay_differs(updates=40):
    """Leaves in which a replay without delay differs from a hand-written scan of the same rule."""
    task, rule = tasks.digits(hidden=[16]), rules.momentum(0.1, decay=0.9)
    history = training.replay(task, rule, timelines.fixed_delay(0, updates=updates), seed=3)
    key, train = jax.random.key(3), jax.tree.map(jnp.asarray, task.train)
    shards = make_shards(None, len(task.labels), 1)
    rows = jax.vmap(lambda k: draw_rows(key, shards, jnp.int32(0), k, (1, 32)))(
        jnp.arange(updates, dtype=jnp.int32)
    )

    def step(carry, rows):
        params, state = carry
        batch = jax.tree.map(lambda column: column[rows[0]], train)
        loss, gradient = jax.value_and_grad(lambda p: task.loss(p, batch, None)[0])(params)
        updates, state = rule.update(gradient, state, params)
        return (optax.apply_updates(params, updates), state), loss

    params = jax.jit(task.init)(jax.random.fold_in(key, 0))
    (params, _), losses = jax.jit(lambda p: jax.lax.scan(step, (p, rule.init(p)), rows))(params)
    pairs = zip(
        jax.tree.leaves((history.params, history.loss)),
        jax.tree.leaves((params, losses)),
        strict=True,
    )
    return sum(not np.array_equal(np.asarray(a), np.asarray(b)) for a, b in pairs)


def fingerprint(form, task, evaluate_every):
    """SHA-256 of the parameters and losses of an asynchronous run with momentum in that form."""
    cluster = timelines.Cluster(workers=5, compute=timelines.lognormal(mean=1.0, sigma=0.5))
    timeline = timelines.asynchronous(cluster, updates=130, seed=2)
    rule = rules.momentum(0.1, decay=0.9)
    prepared = replaying.prepare(task, replaying.FixedRule(rule), timeline, seeds=[7])
    assert prepared.program.form == form
    history = training.replay(task, rule, timeline, seed=7, evaluate_every=evaluate_every)
    digest = hashlib.sha256(history.loss.tobytes())
    for leaf in jax.tree.leaves(history.params):
        digest.update(np.asarray(leaf).tobytes())
    return digest.hexdigest()


@pytest.fixture(scope="module")
def processes():
    """What two processes report, with chunks of 17 and of 25 updates."""
    environ = {name: value for name, value in os.environ.items() if name != "XLA_FLAGS"}
    environ["PYTHONPATH"] = str(Path(__file__).parents[2])
    running = [
        subprocess.Popen([sys.executable, __file__, every], env=environ, stdout=subprocess.PIPE)
        for every in ("17", "25")
    ]
    outputs = [process.communicate(timeout=120)[0] for process in running]
    return [json.loads(output) for output in outputs]


def test_zero_delay_is_plain_sgd_bit_for_bit(processes):
    assert [process["zero_delay_differs"] for process in processes] == [0, 0]


def test_two_processes_and_other_chunks_give_the_same_bits(processes):
    assert processes[0]["fingerprint"] == processes[1]["fingerprint"]


if __name__ == "__main__":
    every = int(sys.argv[1])
    tasks_by_form = {
        "single": tasks.quadratic(np.linspace(0.1, 1.0, 20), noise=0.5),
        "early": tasks.digits(hidden=[16]),
    }
    found = {
        "zero_delay_differs": zero_delay_differs(),
        "fingerprint": {
            name: fingerprint(name, each, every) for name, each in tasks_by_form.items()
        },
    }
    print(json.dumps(found))

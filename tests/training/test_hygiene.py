"""No key is used twice and no tracer outlives its trace, whatever the form of a replay."""

import jax
import optax
import pytest

from sgdlab import precision, rules, tasks, timelines, training, workers

pytestmark = pytest.mark.slow

CLUSTER = timelines.Cluster(workers=3, compute=timelines.exponential(1.0))
LOCAL = timelines.Cluster(workers=3, compute=timelines.exponential(1.0), gradients_per_message=2)
NOISY = tasks.quadratic([1.0, 0.5], noise=0.1)
QUANTIZED = workers.compressed(workers.gradient(), workers.quantize(bits=4))
QUANTIZED_ALONE = workers.compressed(
    workers.gradient(), workers.quantize(bits=4), error_feedback=False
)
# What each draws: gradient noise, a compressor, an initialiser, dropout.
CASES = {
    "single": (NOISY, timelines.asynchronous(CLUSTER, updates=6), {}),
    "early": (
        tasks.digits(hidden=[8]),
        timelines.asynchronous(CLUSTER, updates=75),
        {"worker": QUANTIZED_ALONE, "measures": []},
    ),
    "mapped": (NOISY, timelines.synchronous(CLUSTER, updates=6), {}),
    "walk": (NOISY, timelines.window(CLUSTER, wait=0.5, updates=6), {}),
    "table": (NOISY, timelines.ringleader(CLUSTER, updates=6), {}),
    "quantized": (NOISY, timelines.asynchronous(CLUSTER, updates=6), {"worker": QUANTIZED}),
    "local steps": (
        NOISY,
        timelines.asynchronous(LOCAL, updates=6),
        {"worker": workers.local_steps(2, optax.sgd(0.1))},
    ),
    "network": (
        tasks.digits(hidden=[8]),
        timelines.synchronous(CLUSTER, updates=6),
        {"precision": "mixed_float16", "loss_scale": precision.DynamicLossScale(2.0**15)},
    ),
}


@pytest.mark.parametrize("check", [jax.debug_key_reuse, jax.checking_leaks])
@pytest.mark.parametrize("case", CASES)
def test_no_key_is_used_twice_and_no_tracer_leaks(case, check):
    task, timeline, options = CASES[case]
    options = {"batch_size": 8, "evaluate_every": 3, "measures": ["cosine"], **options}
    with check(True) if check is jax.debug_key_reuse else check():
        history = training.replay(task, rules.momentum(0.1, decay=0.9), timeline, **options)
    assert len(history.loss) == timeline.num_updates


@pytest.mark.parametrize("check", [jax.debug_key_reuse, jax.checking_leaks])
def test_dropout_uses_no_key_twice(check, tmp_path):
    path = tmp_path / "text.txt"
    path.write_text("a text of a few words " * 40)
    text = tasks.text(path, length=8, width=16, layers=1, heads=2, dropout=0.5)
    timeline = timelines.asynchronous(CLUSTER, updates=2)
    with check(True) if check is jax.debug_key_reuse else check():
        history = training.replay(text, rules.sgd(0.1), timeline, batch_size=8)
    assert len(history.loss) == 2

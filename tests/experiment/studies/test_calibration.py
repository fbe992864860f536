"""A measured gradient becomes a compute model that the cluster takes."""

import math
import time

import jax
import numpy as np
import pytest
import yaml
from scipy import stats

from sgdlab import tasks
from sgdlab.experiment import ConfigError, load_experiment
from sgdlab.experiment.studies.calibration import (
    Calibration,
    calibrate,
    calibrate_experiment,
    fit_times,
    format_block,
)
from sgdlab.timelines import Cluster, gamma, lognormal, make_compute

CONFIG = {
    "name": "calibrated",
    "task": {"name": "quadratic", "curvature": [1.0, 0.5], "noise": 0.1},
    "rule": {"name": "sgd", "learning_rate": 0.1},
    "worker": {"batch_size": 7},
    "precision": {"policy": "mixed_bfloat16"},
    "cluster": {"workers": 3},
    "protocol": "asynchronous",
    "updates": 3,
}
DRAWS = 20_000


def draw(model):
    return model.sample(np.random.default_rng(0), DRAWS)


def test_lognormal_times_are_recognised_and_measured():
    found, _ = fit_times(draw(lognormal(mean=0.02, sigma=0.6)))
    assert found["name"] == "lognormal"
    # σ̂ has standard error σ/√(2n), log of the mean √(σ² + σ⁴/2)/√n: 0.003 and 0.005; five of each
    assert found["sigma"] == pytest.approx(0.6, abs=0.015)
    assert math.log(found["mean"] / 0.02) == pytest.approx(0.0, abs=0.025)


def test_gamma_times_are_recognised_and_measured():
    found, _ = fit_times(draw(gamma(mean=3.0, shape=4.0)))
    assert found["name"] == "gamma"
    # the mean's standard error is 3/√(4n); the shape's about √(2/n)·k for large k
    assert found["mean"] == pytest.approx(3.0, abs=5 * 3.0 / math.sqrt(4 * DRAWS))
    assert found["shape"] == pytest.approx(4.0, abs=5 * 4.0 * math.sqrt(2 / DRAWS))


@pytest.mark.parametrize("shape", [0.5, 4.0, 2000.0])
def test_both_fits_are_the_most_likely_of_their_kind(shape):
    """As an independent library counts it."""
    seconds = draw(gamma(mean=0.01, shape=shape))[:500]
    _, likelihood = fit_times(seconds)
    a, _, scale = stats.gamma.fit(seconds, floc=0)
    s, _, median = stats.lognorm.fit(seconds, floc=0)
    expected = {
        "gamma": stats.gamma.logpdf(seconds, a, scale=scale).mean(),
        "lognormal": stats.lognorm.logpdf(seconds, s, scale=median).mean(),
    }
    for name, value in expected.items():
        assert likelihood[name] == pytest.approx(value, abs=1e-6)


def test_equal_times_are_constant():
    found, _ = fit_times(np.full(5, 0.25))
    assert found == {"name": "constant", "mean": 0.25}


@pytest.fixture(scope="module")
def measured():
    return calibrate(CONFIG, repeats=20)


def test_every_repeat_is_a_time_of_one_gradient(measured):
    assert measured.seconds.shape == (20,)
    assert (measured.seconds > 0).all()
    assert (measured.task, measured.batch_size) == ("quadratic", 7)
    low, high = measured.seconds.min(), measured.seconds.max()
    assert low / 2 < make_compute(measured.compute).mean < 2 * high


def spied(monkeypatch, look):
    """The quadratic, whose loss is looked at whenever it is traced."""
    plain = tasks.make_task

    def make_task(name, **arguments):
        task = plain(name, **arguments)

        def loss(params, batch, key):
            look(params, batch, key)
            return task.loss(params, batch, key)

        return tasks.Task(task.name, task.init, loss, task.train, task.test)

    monkeypatch.setattr(tasks, "make_task", make_task)


@jax.check_tracer_leaks(False)  # which traces again each time
def test_the_gradient_is_compiled_once_at_the_experiments_batch_size_and_precision(monkeypatch):
    seen = []
    spied(
        monkeypatch,
        lambda params, batch, key: seen.append((params.dtype, batch["target"].shape, key)),
    )
    calibrate(CONFIG, repeats=5)
    # In float32 it is traced besides, for whether it draws from its key.
    ((shape, key),) = [(shape, key) for dtype, shape, key in seen if dtype == "bfloat16"]
    assert shape == (7, 0)
    assert key is not None


def test_a_gradient_is_waited_for(monkeypatch):
    """A loss that sleeps 20 ms in the program is timed at 20 ms and no less."""

    def nap(params, batch, key):
        jax.debug.callback(lambda: time.sleep(0.02), ordered=True)

    spied(monkeypatch, nap)
    assert calibrate(CONFIG, repeats=3).seconds.min() >= 0.02


def test_the_block_is_a_part_of_a_config(measured):
    block = yaml.safe_load(format_block(measured))
    config = {**CONFIG, "cluster": {**CONFIG["cluster"], **block["cluster"]}}
    found = load_experiment(config).points[0].config.cluster
    assert found is not None
    model = Cluster(**found.model_dump()).models[0]
    assert model.name == measured.compute["name"]
    assert model.mean == pytest.approx(make_compute(measured.compute).mean, rel=1e-3)


def test_small_numbers_are_written_so_that_every_reader_takes_them_for_numbers():
    compute = {"name": "lognormal", "mean": 1.2345e-5, "sigma": 0.1}
    times = np.array([1e-5, 2e-5])
    text = format_block(Calibration(compute, times, {}, "digits", 32, "float32", "cpu (x)"))
    assert text.endswith("cluster:\n  compute: {name: lognormal, mean: 0.00001234, sigma: 0.1}\n")
    assert yaml.safe_load(text)["cluster"]["compute"]["mean"] == 0.00001234


def test_a_file_gives_a_block(tmp_path):
    path = tmp_path / "experiment.yaml"
    path.write_text(yaml.safe_dump({**CONFIG, "sweep": {"worker.batch_size": [3, 9]}}))
    text = calibrate_experiment(path, repeats=2)
    assert text.startswith("# One gradient of quadratic: 3 rows in mixed_bfloat16 on ")
    assert "timed 2 times" in text


def test_too_few_repeats_and_wrong_configs_are_one_line():
    with pytest.raises(ValueError, match="calibrate: repeats is 1; allowed: an integer >= 2"):
        calibrate(CONFIG, repeats=1)
    with pytest.raises(ConfigError):
        calibrate_experiment({**CONFIG, "protocol": "none"})

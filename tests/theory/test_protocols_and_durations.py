"""Staleness and time by protocol against a small event simulation; order statistics by quadrature.

Long runs are compared within five standard errors, estimated from the means of 40 batches.
"""

import math

import numpy as np
import pytest
import scipy.integrate
import scipy.stats
from hypothesis import given, settings, strategies as st

from sgdlab import theory

EXPONENTIAL = {"name": "exponential", "mean": 2.0}
SAMPLERS = {
    "exponential": lambda rng, worker: rng.exponential(2.0),
    "constant": lambda rng, worker: 2.0,
    "squares": lambda rng, worker: float((worker + 1) ** 2),
    "pareto": lambda rng, worker: 1 + rng.pareto(2.5),
}


def ready(protocol, k, workers, held):
    if protocol == "wait_for_all":
        return len({worker for worker, _ in held}) == workers
    return len(held) == (1 if protocol == "asynchronous" else k)


def simulate(protocol, workers, sampler, updates, k=1, seed=0):
    """Staleness of each used message in order, and the time of each update."""
    rng = np.random.default_rng(seed)
    draw = SAMPLERS[sampler]
    finish = np.asarray([draw(rng, i) for i in range(workers)])
    read, held, version, staleness, times = [0] * workers, [], 0, [], []
    while version < updates:
        worker = int(np.argmin(finish))
        now = finish[worker]
        held.append((worker, read[worker]))
        finish[worker] = math.inf
        waiting = [worker]
        if ready(protocol, k, workers, held):
            staleness += [version - r for _, r in held]
            waiting = [i for i, _ in held] if protocol == "k_async" else waiting
            version, held = version + 1, []
            times.append(now)
        elif protocol == "k_async":
            continue
        for i in waiting:
            read[i], finish[i] = version, now + draw(rng, i)
    return np.asarray(staleness), np.asarray(times)


def within_five_errors(samples, expected, slack=0.0):
    batches = np.asarray([batch.mean() for batch in np.array_split(samples, 40)])
    error = batches.std(ddof=1) / math.sqrt(40)
    assert abs(samples.mean() - expected) <= 5 * error + slack


ASYNCHRONOUS = [("asynchronous", 1), ("k_batch_async", 3), ("k_async", 2), ("wait_for_all", None)]


@pytest.mark.parametrize(("protocol", "k"), ASYNCHRONOUS)
def test_memoryless_workers_have_the_predicted_staleness_and_pace(protocol, k):
    workers, updates = 5, 6000
    staleness, times = simulate(protocol, workers, "exponential", updates, k=k)
    mean = theory.mean_staleness(protocol, workers, EXPONENTIAL, k=k)
    # Nothing is stale at the start: at most N² of staleness is missing in all.
    within_five_errors(staleness, mean, slack=workers**2 / len(staleness))
    pace = theory.mean_update_time(protocol, workers, EXPONENTIAL, k=k)
    within_five_errors(np.diff(times), pace)
    law = theory.staleness_distribution(protocol, workers, EXPONENTIAL, size=8, k=k)
    assert (law is None) == (protocol == "wait_for_all")
    for value, probability in enumerate([] if law is None else law):
        within_five_errors(staleness == value, probability, slack=workers / len(staleness))


@pytest.mark.parametrize("sampler", ["squares", "pareto", "constant"])
@pytest.mark.parametrize(("protocol", "k"), ASYNCHRONOUS[:3])
def test_mean_staleness_does_not_depend_on_the_times(protocol, k, sampler):
    workers = 4
    staleness, _ = simulate(protocol, workers, sampler, 1500, k=k)
    # Ages accrue N − 1 (or N − K) an update exactly; what is missing or in flight at the ends is
    # at most the staleness of N messages, which is the largest observed.
    expected = theory.mean_staleness(protocol, workers, k=k)
    slack = 2 * workers * (staleness.max() + 1) / len(staleness)
    assert staleness.mean() == pytest.approx(expected, abs=slack)
    assert slack < 0.5 * expected


def test_equal_constant_workers_take_turns():
    staleness, times = simulate("asynchronous", 4, "constant", 200)
    np.testing.assert_array_equal(staleness[4:], 3)
    constant = {"name": "constant", "mean": 2.0}
    np.testing.assert_array_equal(
        theory.staleness_distribution("asynchronous", 4, constant, size=6), [0, 0, 0, 1, 0, 0]
    )
    assert times[-1] / len(times) == theory.mean_update_time("asynchronous", 4, constant)
    staleness, _ = simulate("wait_for_all", 4, "constant", 200)
    assert staleness[4:].mean() == theory.mean_staleness("wait_for_all", 4, constant) == 3 / 4


@pytest.mark.parametrize(
    ("protocol", "parameters"),
    [
        ("asynchronous", {}),
        ("k_async", {"k": 3}),
        ("k_async", {"k": 6}),
        ("k_batch_async", {"k": 1}),
        ("k_batch_async", {"k": 4}),
        ("k_batch_async", {"k": 9}),
        ("k_sync", {"k": 3}),
        ("bounded_staleness", {"bound": 0}),
        ("window", {"wait": 0.0}),
        ("window", {"wait": math.inf}),
        ("ringmaster", {"threshold": 1}),
        ("fixed_delay", {"delay": 7}),
        ("random_delay", {"probabilities": [0.5, 0.2, 0.0, 0.3]}),
    ],
)
def test_distribution_sums_to_one_and_has_the_stated_mean(protocol, parameters):
    law = theory.staleness_distribution(protocol, 6, EXPONENTIAL, size=400, **parameters)
    assert law is not None
    # The geometric tail beyond 400: (5/6)^400 = 2e-32.
    assert law.sum() == pytest.approx(1.0, abs=1e-12)
    expected = theory.mean_staleness(protocol, 6, EXPONENTIAL, **parameters)
    assert law @ np.arange(400) == pytest.approx(expected, abs=1e-10)


@pytest.mark.parametrize(
    ("protocol", "parameters"),
    [
        ("ringleader", {}),
        ("window", {"wait": 0.5}),
        ("ringmaster", {"threshold": 3}),
        ("bounded_staleness", {"bound": 2}),
        ("something_new", {}),
    ],
)
def test_nothing_is_said_where_nothing_is_known(protocol, parameters):
    assert theory.mean_staleness(protocol, 4, EXPONENTIAL, **parameters) is None
    assert theory.staleness_distribution(protocol, 4, EXPONENTIAL, size=5, **parameters) is None
    assert theory.mean_update_time(protocol, 4, EXPONENTIAL, **parameters) is None


def test_other_times_leave_the_distribution_unknown():
    lognormal = {"name": "lognormal", "mean": 1.0, "sigma": 0.5}
    assert theory.staleness_distribution("asynchronous", 4, lognormal, size=5) is None
    assert theory.mean_staleness("asynchronous", 4, lognormal) == 3
    assert theory.mean_update_time("asynchronous", 4, lognormal) == 1 / 4
    assert theory.mean_update_time("synchronous", 4, lognormal) is None


@pytest.mark.parametrize("workers", [1, 2, 8])
def test_geometric_delays_are_momentum_in_expectation(workers):
    # E[wₜ₊₁] = E[wₜ] − h Σ_l P(τ = l) E[wₜ₋ₗ], with w₀ before the start, against the EMA form.
    step, w = 0.2, [1.0]
    gamma, v, ema = theory.implicit_momentum(workers), 0.2, 1.0
    for t in range(50):
        law = theory.memoryless_staleness(1 / workers, t)
        stale = law @ np.asarray(w[::-1][:t]) + (1 - law.sum()) * w[0]
        w.append(w[-1] - step * stale)
        v = gamma * v + (1 - gamma) * step * ema
        ema = ema - v
        assert w[-1] == pytest.approx(ema, abs=1e-13)


SHAPES = [
    ({"name": "exponential", "mean": 2.0}, scipy.stats.expon(scale=2.0)),
    (
        {"name": "shifted_exponential", "mean": 2.0, "shift": 0.5},
        scipy.stats.expon(loc=0.5, scale=1.5),
    ),
    ({"name": "uniform", "low": 1.0, "high": 4.0}, scipy.stats.uniform(loc=1.0, scale=3.0)),
    ({"name": "pareto", "mean": 3.0, "shape": 3.0}, scipy.stats.pareto(3.0, scale=2.0)),
]


@pytest.mark.parametrize(("compute", "law"), SHAPES, ids=[shape["name"] for shape, _ in SHAPES])
@pytest.mark.parametrize(("workers", "k"), [(1, 1), (5, 1), (5, 3), (8, 8)])
def test_order_statistic_is_the_integral_of_its_survival(compute, law, workers, k):
    def survival(x):
        return scipy.stats.binom.cdf(k - 1, workers, law.cdf(x))

    (start, end), middle = law.support(), law.ppf(0.999)
    expected = start + sum(
        scipy.integrate.quad(survival, *ends, limit=200)[0]
        for ends in [(start, middle), (middle, end)]
    )
    actual = theory.mean_order_statistic(compute, workers, k)
    assert actual == pytest.approx(expected, rel=1e-6)  # quad aims at 1.5e-8


@pytest.mark.parametrize(("workers", "k"), [(16, 14), (16, 12), (16, 1), (5, 3), (1, 1)])
def test_backup_workers_are_the_order_statistic_of_one_work_or_two(workers, k):
    """E = ∫ P(fewer than k of k exponentials and N − k Γ(2)s are below t) dt, by quadrature."""

    def survival(t):
        one, two = scipy.stats.expon.cdf(t), scipy.stats.gamma(2).cdf(t)
        ended = scipy.stats.binom.pmf(np.arange(k + 1), k, one)
        late = scipy.stats.binom.pmf(np.arange(workers - k + 1), workers - k, two)
        return np.convolve(ended, late)[:k].sum()

    expected = sum(
        scipy.integrate.quad(survival, *ends, limit=200)[0] for ends in [(0, 5), (5, 60)]
    )
    assert theory.mean_backup_time(workers, k) == pytest.approx(expected, rel=1e-6)


def test_backup_workers_take_longer_than_those_that_are_stopped():
    exponential = {"name": "exponential", "mean": 1.0}
    for k, late, stopped in ((14, 2.1154, 1.8807), (12, 1.6367, 1.2974)):
        seconds = [
            theory.mean_update_time("k_sync", 16, exponential, k=k, stop=stop)
            for stop in (False, True)
        ]
        assert seconds == pytest.approx([late, stopped], abs=5e-5)
    assert theory.mean_update_time("k_sync", 16, exponential, k=16, stop=False) == pytest.approx(
        theory.harmonic_number(16)
    )
    lognormal = {"name": "lognormal", "mean": 1.0, "sigma": 0.5}
    assert theory.mean_update_time("k_sync", 16, lognormal, k=14, stop=False) is None


def test_malenia_of_few_samples_is_as_fast_as_a_barrier():
    def pace(samples, compute=EXPONENTIAL, stop=True):
        return theory.mean_update_time("malenia", 6, compute, samples=samples, stop=stop)

    assert pace(5) == theory.mean_update_time("synchronous", 6, EXPONENTIAL)
    assert pace(6) is pace(5, stop=False) is None
    constant = {"name": "constant", "mean": 2.0}
    # Every 2 s all bring one more; S/N = 1 and 2 are passed with the second and the third.
    assert [pace(s, constant) for s in (1, 5, 6, 11, 12)] == [2.0, 2.0, 4.0, 4.0, 6.0]
    for stop in (False, True):
        assert theory.mean_staleness("malenia", 6, EXPONENTIAL, samples=9, stop=stop) == 0.0


def test_rounds_and_steps_are_order_statistics():
    shifted = {"name": "shifted_exponential", "mean": 2.0, "shift": 0.5}
    h8, h3 = sum(1 / k for k in range(1, 9)), 1 + 1 / 2 + 1 / 3
    assert theory.harmonic_number(0) == 0
    assert theory.mean_update_time("synchronous", 8, shifted) == pytest.approx(0.5 + 1.5 * h8)
    assert theory.mean_update_time("k_sync", 8, shifted, k=5) == pytest.approx(
        0.5 + 1.5 * (h8 - h3)
    )
    assert theory.mean_update_time("bounded_staleness", 8, shifted, bound=0) == pytest.approx(
        (0.5 + 1.5 * h8) / 8
    )
    assert theory.mean_update_time("wait_for_all", 8, shifted) is None
    assert theory.mean_order_statistic({"name": "constant", "mean": 2}, 8, 5) == 2.0
    assert theory.mean_order_statistic({"name": "trace", "path": "x"}, 8, 5) is None


def test_protocols_that_are_others_in_disguise_keep_their_pace():
    def pace(protocol, **parameters):
        return theory.mean_update_time(protocol, 6, EXPONENTIAL, **parameters)

    assert pace("window", wait=0) == pace("asynchronous") == pace("ringmaster", threshold=math.inf)
    assert pace("window", wait=math.inf) == pace("synchronous") == pace("k_async", k=6)
    # Refusing every stale message is as fresh as a barrier, and not as fast.
    assert pace("ringmaster", threshold=1) is None


def test_memoryless_batch_at_one_version_takes_a_share_of_the_mean():
    # With stop=True all start afresh, so arrivals are a Poisson stream of rate N/μ.
    assert theory.mean_update_time("k_batch_sync", 8, EXPONENTIAL, k=20, stop=True) == 5.0
    assert theory.mean_update_time("k_batch_sync", 8, EXPONENTIAL, k=20) is None


@settings(deadline=None, max_examples=60)
@given(times=st.lists(st.floats(0.1, 50.0), min_size=1, max_size=6), samples=st.integers(1, 40))
def test_a_round_of_malenia_never_takes_longer_than_its_bound(times, samples):
    bound = theory.malenia_time_bound(times, samples)
    counts = np.floor(bound * (1 + 1e-12) / np.asarray(times))
    assert len(times) / np.sum(1 / counts) > samples / len(times) * (1 - 1e-12)
    # Nobody has brought anything, or no worker more than t/h, before this.
    assert bound >= max(times)
    assert bound <= 2 * max(max(times), np.mean(times) * samples / len(times))


@settings(deadline=None, max_examples=60)
@given(
    times=st.lists(st.floats(0.1, 50.0), min_size=1, max_size=6),
    batch=st.integers(1, 30),
)
def test_a_batch_never_takes_longer_than_rennalas_bound(times, batch):
    arrivals = np.sort(np.concatenate([h * np.arange(1, batch + 1) for h in times]))
    bound = theory.rennala_time_bound(times, batch)
    assert arrivals[batch - 1] <= bound * (1 + 1e-12)
    # No worker can give more than t/h, so no bound lies below this.
    assert bound >= batch / sum(1 / h for h in times) * (1 - 1e-12)


def test_rennalas_bound_of_one_worker_and_of_one_fast_worker():
    assert theory.rennala_time_bound([2.0], 10) == 22.0
    # A second worker 1000 times slower would cost more than it brings.
    assert theory.rennala_time_bound([2000.0, 2.0], 10) == 22.0


def test_throughput_is_the_sum_of_the_rates():
    _, times = simulate("asynchronous", 4, "squares", 2000)
    rate = theory.asynchronous_throughput([1, 4, 9, 16])
    # Each worker's count is off by less than one message.
    assert len(times) == pytest.approx(rate * times[-1], abs=4)

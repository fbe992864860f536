"""Numbers of any size: a timeline is told to be too long, and a clock that can't go on stops."""

from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest

from sgdlab import timelines
from sgdlab.timelines import (
    PROTOCOLS,
    Cluster,
    Failures,
    Network,
    TimelineError,
    asynchronous,
    constant,
    exponential,
    fixed_delay,
    lognormal,
    simulate,
    synchronous,
    uniform,
)
from sgdlab.timelines.arguments import MAX_MESSAGES
from sgdlab.timelines.limits import fewest_messages
from sgdlab.timelines.protocols.asynchronous import Asynchronous

# One set of arguments for each protocol that has a cluster.
OF_CLUSTERS = {
    "synchronous": {},
    "k_sync": {"k": 1},
    "k_batch_sync": {"k": 2},
    "k_async": {"k": 1},
    "k_batch_async": {"k": 2},
    "asynchronous": {},
    "wait_for_all": {},
    "bounded_staleness": {"bound": 2},
    "window": {"wait": 0.5},
    "ringmaster": {"threshold": 2},
    "ringleader": {},
}


@pytest.mark.parametrize("name", OF_CLUSTERS)
def test_a_horizon_of_too_many_messages_is_refused_before_any_is_drawn(name, monkeypatch):
    monkeypatch.setattr(Cluster, "message_times", lambda *_: pytest.fail("drawn"))
    cluster = Cluster(workers=2, compute=constant(1e-9))
    with pytest.raises(TimelineError, match=r"^seconds: 1.0 make 1e\+09 messages; allowed: 16,777"):
        PROTOCOLS[name](cluster, **OF_CLUSTERS[name], seconds=1.0)


@pytest.mark.parametrize("name", OF_CLUSTERS)
def test_a_clock_that_stands_still_is_told_under_every_protocol(name):
    # exp(-800 + 40 z) is 0 in float64 unless z > 1.4: eleven of twelve times are nothing
    cluster = Cluster(workers=2, compute=lognormal(mean=1.0, sigma=40.0))
    with pytest.raises(TimelineError, match="clock stands still at .* s"):
        PROTOCOLS[name](cluster, **OF_CLUSTERS[name], seconds=1e3)


@pytest.mark.parametrize("name", OF_CLUSTERS)
def test_a_clock_that_jumps_to_infinity_is_told_under_every_protocol(name):
    cluster = Cluster(workers=2, compute=constant(1e308))  # and the second message at 2e308
    with pytest.raises(TimelineError, match="infinity|nothing more happens"):
        PROTOCOLS[name](cluster, **OF_CLUSTERS[name], updates=5)


def test_a_time_that_vanishes_beside_the_time_of_day_stands_still_too():
    # After 1e9 s the next float64 is 1.2e-7 s later, so that adding 1e-8 s changes nothing.
    cluster = Cluster(workers=1, compute=constant(1e-8), joins={0: 1e9})
    with pytest.raises(TimelineError, match=r"stands still at 1e\+09 s"):
        asynchronous(cluster, updates=100)


@pytest.mark.parametrize(
    "cluster",
    [
        Cluster(workers=2, compute=uniform(0.0, 5e-324)),
        Cluster(workers=2, compute=constant(1.0), network=Network(latency=1e308)),
        Cluster(workers=2, network=Network(bandwidth=1e-300, message_bytes=1e300)),
        Cluster(workers=2, network=Network(service_time=1e308)),
        Cluster(workers=2, failures=Failures(mtbf=1e-300, repair=0.0)),
        Cluster(workers=2, failures=Failures(mtbf=1e-9, repair=0.0)),
        Cluster(workers=2, joins={0: 1e308, 1: 1e308}, compute=constant(1e308)),
    ],
    ids=lambda cluster: str(cluster)[17:60],
)
@pytest.mark.parametrize("protocol", [synchronous, asynchronous])
def test_extreme_clocks_end_in_one_line(cluster, protocol):
    with pytest.raises(TimelineError) as error:
        protocol(cluster, updates=50)
    assert "\n" not in str(error.value)


def test_a_timeline_that_grows_too_long_is_told_while_it_is_drawn(monkeypatch):
    monkeypatch.setattr("sgdlab.timelines.limits.MAX_MESSAGES", 100)
    # The slowest worker makes 10 messages, which is all that its mean foretells; the other 1,000.
    cluster = Cluster(workers=2, compute=[constant(0.01), constant(1.0)])
    for protocol in (
        asynchronous,
        lambda *given, **more: simulate(given[0], Asynchronous(), **more),
    ):
        with pytest.raises(TimelineError, match="100 messages by .* s; allowed: so many"):
            protocol(cluster, seconds=10.0)


@pytest.mark.parametrize("name", OF_CLUSTERS)
def test_what_is_foretold_is_never_more_than_what_is_drawn(name):
    for cluster in (
        Cluster(workers=4, compute=constant(0.5), gradients_per_message=2),
        Cluster(workers=3, compute=[constant(0.1), constant(2.0), constant(0.4)]),
        Cluster(workers=2, network=Network(latency=0.25, service_time=0.1)),
    ):
        timeline = PROTOCOLS[name](cluster, **OF_CLUSTERS[name], seconds=40.0)
        # A round is foretold whole, so one may be under way at the end.
        assert fewest_messages(cluster, 40.0) <= timeline.num_messages + 1


@pytest.mark.parametrize(
    ("make", "line"),
    [
        (lambda: Cluster(workers=10**9), "cluster: workers is 1000000000"),
        (lambda: fixed_delay(10**9, updates=5), "fixed_delay: delay is 1000000000"),
        (lambda: fixed_delay(1, updates=10**9), "fixed_delay: updates is 1000000000"),
        (lambda: synchronous(Cluster(), updates=MAX_MESSAGES + 1), "updates is 16777217"),
        (lambda: synchronous(Cluster(workers=10**4), updates=10**4), "updates: 10000 make 1e+08"),
        (lambda: PROTOCOLS["k_async"](Cluster(), k=16, updates=2**22), "updates: 4194304 make"),
        (lambda: synchronous(Cluster(), gradients=2**31 - 1), "gradients: 2147483647 make"),
        (lambda: Cluster(gradients_per_message=10**9), "gradients_per_message is 1000000000"),
        (lambda: lognormal(mean=1.0, sigma=1e200), "sigma is 1e+200"),
        (lambda: constant(10**400), "mean is 1000"),
    ],
)
def test_a_number_that_no_timeline_holds_is_refused_at_once(make, line):
    with pytest.raises(TimelineError, match="allowed") as error:
        make()
    assert line in str(error.value)
    assert len(str(error.value)) < 300


loose: Any = timelines  # what a type checker would tell, before the call is made
SCALARS = [np.int64, np.uint8, np.array, jnp.int32]


@pytest.mark.parametrize("number", SCALARS)
def test_scalars_of_numpy_and_jax_are_numbers(number, tmp_path, assert_same):
    made = [
        lambda of: synchronous(Cluster(workers=of(2)), updates=of(3), seed=of(1)),
        lambda of: asynchronous(Cluster(workers=of(2), gradients_per_message=of(2)), seconds=of(9)),
        lambda of: fixed_delay(of(2), updates=of(5)),
        lambda of: PROTOCOLS["ringmaster"](Cluster(workers=of(2)), threshold=of(2), updates=of(5)),
    ]
    for make in made:
        timeline, expected = make(number), make(int)
        assert_same(timeline, expected)
        assert timeline.metadata == expected.metadata
        timeline.save(tmp_path / "saved.npz")
        assert_same(type(timeline).load(tmp_path / "saved.npz"), expected)


def test_arrays_are_lists_and_numpy_floats_are_numbers(assert_same):
    by_numpy = loose.Cluster(
        workers=4,
        compute=exponential(np.float64(0.5)),
        stragglers={"workers": np.array([1, 3]), "factor": np.float32(2)},
        leaves={np.int64(0): np.float64(50.0)},
        network=loose.Network(latency=np.float32(0.25)),
    )
    plain = loose.Cluster(
        workers=4,
        compute=exponential(0.5),
        stragglers={"workers": [1, 3], "factor": 2.0},
        leaves={0: 50.0},
        network=loose.Network(latency=0.25),
    )
    assert by_numpy.to_dict() == plain.to_dict()
    assert_same(asynchronous(by_numpy, updates=50), asynchronous(plain, updates=50))
    probabilities = [0.5, 0.25, 0.25]
    assert_same(
        loose.random_delay(np.array(probabilities), updates=np.int64(20)),
        loose.random_delay(probabilities, updates=20),
    )


@pytest.mark.parametrize(
    ("make", "line"),
    [
        (lambda: loose.Cluster(workers=np.array([2, 3])), "workers is array([2, 3])"),
        (lambda: loose.Cluster(workers=np.float64(2.5)), "workers is 2.5"),
        (lambda: loose.Cluster(workers=2, compute=1.0), "compute is 1.0"),
        (lambda: loose.Cluster(workers=2, compute=np.ones(2)), "1.0 is no compute-time model"),
        (lambda: loose.random_delay(0.5, updates=2), "probabilities is 0.5"),
        (lambda: loose.fixed_delay(np.array([1, 2]), updates=2), "delay is array([1, 2])"),
        (
            lambda: loose.Cluster(stragglers={"workers": 1, "factor": 2.0}),
            "workers is 1",
        ),
        (lambda: loose.Cluster(workers=2, joins=[0.0, 1.0]), "joins is [0.0, 1.0]"),
    ],
)
def test_what_is_no_such_number_is_refused_by_its_name(make, line):
    with pytest.raises(TimelineError, match="allowed") as error:
        make()
    assert line in str(error.value)

"""Protocols beside their papers' algorithms, written here in plain NumPy with a heap of workers.

Each algorithm below follows its pseudo-code with the gradients in hand; nothing is recorded and
planned. The versions that a plain walk of our timeline gives must be the same, at the same times.
"""

import functools
import heapq
import operator
from fractions import Fraction

import numpy as np
import pytest

from sgdlab import timelines
from sgdlab.timelines import Cluster, gamma
from tests.training.walks import walk

WORKERS, RATE, UPDATES, SEED = 5, 0.3, 40, 4
TARGETS = np.random.default_rng(0).normal(size=(WORKERS, 3))
START = np.array([1.0, -2.0, 0.5])
CLUSTER = Cluster(
    workers=WORKERS, compute=[gamma(mean=mean, shape=3.0) for mean in (0.3, 0.7, 1.0, 1.2, 3.0)]
)


class Workers:
    """Everyone computes w − cᵢ at what it was sent; a seconds' stream of its own says how long."""

    def __init__(self, w):
        self.draw = [CLUSTER.message_times(worker, SEED) for worker in range(WORKERS)]
        self.now = 0.0
        self.ask_all(w, 0)

    def ask_all(self, w, k):
        self.heap = []
        for worker in range(WORKERS):
            self.ask(worker, w, k)

    def ask(self, worker, w, k):
        finish = self.now + float(self.draw[worker](1)[0])
        heapq.heappush(self.heap, (finish, worker, k, w - TARGETS[worker]))

    def next(self):
        self.now, worker, k, gradient = heapq.heappop(self.heap)
        return worker, k, gradient


def malenia(samples, stop):
    """Tyurin 2026, Algorithm 1 (Malenia): gather while (1/n Σ 1/Bᵢ)⁻¹ ≤ S/n."""
    w, workers, enough = START, Workers(START), Fraction(samples, WORKERS)
    for k in range(UPDATES):
        sums, counts = np.zeros_like(TARGETS), [0] * WORKERS
        while True:
            worker, read, gradient = workers.next()
            if read == k:
                sums[worker] += gradient
                counts[worker] += 1
            if all(counts) and WORKERS / sum(Fraction(1, b) for b in counts) > enough:
                break
            workers.ask(worker, w, k)
        w = w - RATE * np.mean(sums / np.array(counts)[:, None], axis=0)
        yield workers.now, w
        workers.ask_all(w, k + 1) if stop else workers.ask(worker, w, k + 1)


def rennala(batch, stop):
    """Tyurin and Richtárik 2023, Rennala: the mean of the next `batch` gradients at version k."""
    w, workers = START, Workers(START)
    for k in range(UPDATES):
        held = []
        while True:
            worker, read, gradient = workers.next()
            held += [gradient] if read == k else []
            if len(held) == batch:
                break
            workers.ask(worker, w, k)
        w = w - RATE * np.mean(held, axis=0)
        yield workers.now, w
        workers.ask_all(w, k + 1) if stop else workers.ask(worker, w, k + 1)


def backup_workers(k, stop):
    """Chen et al. 2016: the first k at version t are averaged, whatever is late is dropped."""
    w, workers = START, Workers(START)
    for t in range(UPDATES):
        held = {}
        while len(held) < k:
            worker, read, gradient = workers.next()
            if read == t:
                held[worker] = gradient  # and it waits for the next parameters
            else:
                workers.ask(worker, w, t)
        w = w - RATE * np.mean(list(held.values()), axis=0)
        yield workers.now, w
        if stop:
            workers.ask_all(w, t + 1)
        else:
            for worker in sorted(held):
                workers.ask(worker, w, t + 1)


def ringmaster(threshold, stop):
    """Maranjyan, Tyurin and Richtárik 2025: δ < R is applied; Algorithm 2 stops what reaches R."""
    w, workers, k = START, Workers(START), 0
    while k < UPDATES:
        worker, read, gradient = workers.next()
        if k - read < threshold:
            k, w = k + 1, w - RATE * gradient
            yield workers.now, w
            old = [each for each in workers.heap if k - each[2] >= threshold] if stop else []
            for each in sorted(old, key=lambda each: each[1]):
                workers.heap.remove(each)
                heapq.heapify(workers.heap)
                workers.ask(each[1], w, k)
        workers.ask(worker, w, k)


def ringleader():
    """Maranjyan and Richtárik 2025, by their simulator: two tables, rounds of n updates."""
    w, workers, k = START, Workers(START), 0
    table, following = [[[] for _ in range(WORKERS)] for _ in range(2)]
    while True:
        while True:
            worker, _, gradient = workers.next()
            table[worker].append(gradient)
            if all(table):
                break
            workers.ask(worker, w, k)
        unserved = set(range(WORKERS))
        while unserved:
            if worker in unserved:
                if len(unserved) < WORKERS:
                    table[worker].append(gradient)
                unserved.discard(worker)
                k, w = k + 1, w - RATE * np.mean([np.mean(g, axis=0) for g in table], axis=0)
                yield workers.now, w
            else:
                following[worker].append(gradient)
            workers.ask(worker, w, k)
            if unserved:
                worker, _, gradient = workers.next()
        table, following = following, [[] for _ in range(WORKERS)]


CASES = {
    "malenia": [{"samples": s, "stop": stop} for s in (1, 5, 12) for stop in (False, True)],
    "k_batch_sync": [{"k": k, "stop": stop} for k in (1, 4, 9) for stop in (False, True)],
    "k_sync": [{"k": k, "stop": stop} for k in (1, 3, 5) for stop in (False, True)],
    "ringmaster": [{"threshold": r, "stop": stop} for r in (1, 4, 9) for stop in (False, True)],
    "ringleader": [{}],
}
PAPERS = {
    "malenia": malenia,
    "k_batch_sync": lambda k, stop: rennala(k, stop),
    "k_sync": lambda k, stop: backup_workers(k, stop),
    "ringmaster": ringmaster,
    "ringleader": ringleader,
}


@pytest.mark.parametrize(
    ("name", "arguments"),
    [(name, arguments) for name, cases in CASES.items() for arguments in cases],
    ids=lambda value: value if isinstance(value, str) else " ".join(map(str, value.values())),
)
def test_the_timeline_is_the_papers_algorithm(name, arguments):
    timeline = timelines.PROTOCOLS[name](CLUSTER, **arguments, updates=UPDATES, seed=SEED)
    steps = PAPERS[name](**arguments)
    times, versions = zip(*[next(steps) for _ in range(UPDATES)], strict=True)
    np.testing.assert_array_equal(timeline.apply_time, times)
    ours = walk(timeline, START, lambda worker, _, w: w - TARGETS[worker], RATE)
    np.testing.assert_allclose(ours[1:], versions, rtol=1e-9, atol=1e-12)


def test_malenia_ends_a_round_above_its_threshold_and_not_at_it():
    """Four equal workers and S = 4: at one message of each the mean is S/N exactly, so a fifth."""
    equal = Cluster(workers=4, compute=timelines.constant(1.0))
    for stop in (False, True):
        timeline = timelines.malenia(equal, samples=4, stop=stop, updates=6)
        assert np.bincount(timeline.update[timeline.update >= 0]).tolist() == [5] * 6
        assert timeline.apply_time.tolist() == [2, 4, 6, 8, 10, 12]


def test_malenia_decides_equality_exactly():
    """Ten workers and S = 100: ten messages of each are equality, though Σ 1/10 < 1 in floats."""
    assert functools.reduce(operator.add, [1 / 10] * 10) < 1
    equal = Cluster(workers=10, compute=timelines.constant(1.0))
    timeline = timelines.malenia(equal, samples=100, stop=True, updates=2)
    assert np.bincount(timeline.update[timeline.update >= 0]).tolist() == [101, 101]


def test_malenia_of_few_samples_takes_one_message_of_everybody_at_least():
    """The case that the authors of Ringleader compare with: a round ends as the last one is in."""
    timeline = timelines.malenia(CLUSTER, samples=1, stop=True, updates=UPDATES, seed=SEED)
    assert timeline.average == "workers"
    for update in range(UPDATES):
        counts = np.bincount(timeline.worker[timeline.update == update], minlength=WORKERS)
        assert counts.min() == 1
        last = np.flatnonzero(timeline.update == update)[-1]
        assert counts[timeline.worker[last]] == 1


def test_malenia_counts_who_left_and_waits_only_for_who_is_there():
    """w0 takes 1 s, w1 4 s, w2 leaves at 2.5 without having brought anything.

    As w1 comes at 4 there are two, with four messages and one: 2/(1/4 + 1) = 1.6 > S/n = 1. Where
    instead w1 leaves at 4.5, w0 is alone: it has read version 0 at 4 and ends that work at 5, too
    late; of what it then brings at 6 and 7 one is no more than S/n = 1, two are.
    """
    compute = [timelines.constant(seconds) for seconds in (1.0, 4.0, 9.0)]
    cluster = Cluster(workers=3, compute=compute, leaves={2: 2.5})
    timeline = timelines.malenia(cluster, samples=2, updates=1)
    assert timeline.apply_time.tolist() == [4.0]
    assert timeline.worker[timeline.update == 0].tolist() == [0, 0, 0, 0, 1]
    # One that leaves after a single message could hold the mean below any S: it counts no longer.
    leaver = Cluster(workers=2, compute=compute[:2], leaves={1: 4.5})
    many = timelines.malenia(leaver, samples=6, updates=1)
    assert many.worker[many.update == 0].tolist() == [0, 0, 0, 0, 1, 0, 0, 0]
    leaver = Cluster(workers=2, compute=compute[:2], leaves={1: 4.5})
    later = timelines.malenia(leaver, samples=1, updates=2)
    assert later.apply_time.tolist() == [4.0, 7.0]


def test_ringleaders_staleness_goes_up_to_2n_minus_2_over_all_uses():
    timeline = timelines.ringleader(CLUSTER, updates=4000, seed=SEED)
    used = timeline.update >= 0
    largest = (timeline.last_update - timeline.read_version)[used].max()
    assert largest == 2 * WORKERS - 2


def test_equal_workers_that_are_all_waited_for_have_three_quarters_of_staleness():
    """Four of them: each update uses four messages, three of which the update before left behind;
    the first one finds all of them fresh."""
    cluster = Cluster(workers=4, compute=timelines.constant(1.0))
    for updates in (1, 2, 7, 40):
        timeline = timelines.wait_for_all(cluster, updates=updates)
        mean = timeline.staleness[timeline.update >= 0].mean()
        assert mean == pytest.approx(0.75 * (1 - 1 / updates), abs=1e-15)

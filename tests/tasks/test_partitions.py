"""What every partition promises, and what each kind is for."""

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from sgdlab.tasks import by_label, dirichlet, iid, make_partition, partition, partitions, quantity
from sgdlab.tasks.table import PARTITIONS

COMPLETE = st.one_of(
    st.builds(iid),
    st.builds(dirichlet, st.floats(1e-12, 1e12), st.sampled_from(["drawn", "equal"])),
    st.builds(quantity, st.floats(1e-12, 1e12)),
)
HOWS = COMPLETE | st.builds(by_label, st.integers(1, 8))
LABELS = st.lists(st.integers(-3, 6), min_size=1, max_size=60).map(np.array)
EVERY = settings(deadline=None, max_examples=100)


@given(labels=LABELS, how=HOWS, seed=st.integers(0, 2**32 - 1), data=st.data())
@EVERY
def test_workers_hold_disjoint_rows_and_none_is_empty(labels, how, seed, data):
    workers = data.draw(st.integers(1, len(labels)))
    shares = partition(labels, workers, how, seed)
    assert len(shares) == workers
    assert all(len(share) and share.dtype == np.int32 for share in shares)
    rows = np.concatenate(shares)
    assert len(set(rows.tolist())) == len(rows)
    assert rows.min() >= 0
    assert rows.max() < len(labels)
    again = partition(labels, workers, how, seed)
    assert all(np.array_equal(a, b) for a, b in zip(shares, again, strict=True))


@given(labels=LABELS, how=COMPLETE, seed=st.integers(0, 9), data=st.data())
@EVERY
def test_all_rows_are_dealt(labels, how, seed, data):
    workers = data.draw(st.integers(1, len(labels)))
    assert sum(map(len, partition(labels, workers, how, seed))) == len(labels)


@given(labels=LABELS, per_worker=st.integers(1, 8), seed=st.integers(0, 9), data=st.data())
@EVERY
def test_by_label_bounds_the_classes_of_a_worker(labels, per_worker, seed, data):
    workers = data.draw(st.integers(1, len(labels)))
    shares = partition(labels, workers, by_label(per_worker), seed)
    classes, counts = np.unique(labels, return_counts=True)
    assert all(len(np.unique(labels[share])) <= per_worker for share in shares)
    dealt = np.concatenate(shares)
    if workers * per_worker >= len(classes):
        assert len(dealt) == len(labels)
    else:
        # The largest classes are dealt, each to one worker.
        kept = np.sort(counts)[::-1][: workers * per_worker]
        assert len(dealt) == kept.sum()


def test_by_label_uses_all_its_labels_where_classes_are_large():
    labels = np.repeat(np.arange(10), 100)
    shares = partition(labels, 20, by_label(2))
    assert [len(np.unique(labels[share])) for share in shares] == [2] * 20
    assert {len(share) for share in shares} == {50}


@given(n=st.integers(1, 200), data=st.data())
@EVERY
def test_iid_sizes_differ_by_at_most_one(n, data):
    workers = data.draw(st.integers(1, n))
    sizes = [len(share) for share in partition(np.zeros(n), workers, iid())]
    assert max(sizes) - min(sizes) <= 1


def test_iid_shares_look_like_the_whole():
    labels = np.repeat(np.arange(10), 1000)
    for share in partition(labels, 4, iid()):
        counts = np.bincount(labels[share], minlength=10)
        # Hypergeometric around 250 with deviation √(250·¾·(1 − 10³/10⁴)) < 14: six of them.
        assert np.abs(counts - 250).max() < 6 * 14


def test_a_large_alpha_gives_equal_shares_of_each_class():
    labels = np.repeat(np.arange(5), 100)
    for share in partition(labels, 10, dirichlet(1e12)):
        assert np.abs(np.bincount(labels[share], minlength=5) - 10).max() <= 1
    sizes = [len(share) for share in partition(labels, 10, quantity(1e12))]
    assert max(sizes) - min(sizes) <= 1


def test_a_tiny_alpha_gives_each_class_to_one_worker_and_nearly_all_rows_to_one():
    labels = np.repeat(np.arange(50), 20)
    shares = partition(labels, 4, dirichlet(1e-10), seed=3)
    assert sum(len(np.unique(labels[share])) for share in shares) == 50
    sizes = sorted(len(share) for share in partition(labels, 4, quantity(1e-10)))
    assert sizes == [1, 1, 1, 997]


def test_dirichlet_has_the_variance_of_its_law():
    alpha, workers, count = 0.5, 4, 400
    labels = np.repeat(np.arange(count), 1000)
    share = np.bincount(labels[partition(labels, workers, dirichlet(alpha))[0]], minlength=count)
    # Var p = (1/N)(1 − 1/N)/(Nα + 1) for a symmetric Dirichlet; 400 draws, bounded by [0, 1].
    variance = (1 / workers) * (1 - 1 / workers) / (workers * alpha + 1)
    assert np.var(share / 1000) == pytest.approx(variance, rel=0.35)
    assert np.mean(share / 1000) == pytest.approx(1 / workers, abs=5 * np.sqrt(variance / count))


@given(n=st.integers(1, 200), alpha=st.floats(1e-12, 1e12), data=st.data())
@EVERY
def test_equal_sizes_differ_by_at_most_one(n, alpha, data):
    workers = data.draw(st.integers(1, n))
    labels = np.random.default_rng(n).integers(0, 7, n)
    sizes = [len(share) for share in partition(labels, workers, dirichlet(alpha, "equal"))]
    assert max(sizes) - min(sizes) <= 1


def test_equal_sizes_of_a_large_alpha_follow_the_prior():
    """Each mix is the prior, so that counts are those of rows dealt at random."""
    labels = np.repeat(np.arange(3), [6000, 3000, 1000])
    for share in partition(labels, 4, dirichlet(1e12, "equal")):
        counts = np.bincount(labels[share], minlength=3)
        # Multinomial around (1500, 750, 250) with deviation √(2500·¼) = 25 at most: six of them.
        assert np.abs(counts - [1500, 750, 250]).max() < 150


def test_equal_sizes_of_a_tiny_alpha_give_a_worker_one_class_while_it_lasts():
    labels = np.repeat(np.arange(4), 500)
    shares = partition(labels, 50, dirichlet(1e-10, "equal"), seed=1)
    # 12 workers of 40 rows need at most 480 of a class: the first 12 in line have all they ask.
    assert sum(len(np.unique(labels[share])) == 1 for share in shares) >= 12


def test_the_mixes_of_equal_sizes_have_the_variance_of_hsus_law():
    """q ~ Dir(α·prior) has Var q = p(1 − p)/(α + 1); a share X/m has E[q(1 − q)]/m more.

    That is p(1 − p)·((1 − 1/m)/(α + 1) + 1/m). Among 2000 workers classes run out for the last
    few only; the variance of 2000 shares is good to √(2/2000) = 3 %, and 20 % is asked.
    """
    alpha, workers, rows, p = 2.0, 2000, 50, 0.3
    labels = np.repeat([0, 1], [70_000, 30_000])
    shares = partition(labels, workers, dirichlet(alpha, "equal"))
    own = [np.mean(labels[share]) for share in shares]
    expected = p * (1 - p) * ((1 - 1 / rows) / (alpha + 1) + 1 / rows)
    assert np.var(own) == pytest.approx(expected, rel=0.2)
    assert np.mean(own) == pytest.approx(p)


def test_rows_are_drawn_as_if_one_by_one():
    """The paper's loop, exactly: each row from the mix over the classes that are not yet empty."""
    mix, left, size, draws = (0.6, 0.3, 0.1), (2, 3, 9), 5, 20_000

    def one_by_one(taken):
        if sum(taken) == size:
            return {taken: 1.0}
        law, chances = {}, np.where(np.array(taken) < left, mix, 0.0)
        for label in np.flatnonzero(chances):
            then = (*taken[:label], taken[label] + 1, *taken[label + 1 :])
            for end, chance in one_by_one(then).items():
                law[end] = law.get(end, 0.0) + chance * chances[label] / chances.sum()
        return law

    rng, counts = np.random.default_rng(0), {}
    for _ in range(draws):
        end = tuple(partitions._draw_counts(size, np.array(mix), np.array(left), rng).tolist())
        counts[end] = counts.get(end, 0) + 1
    law = one_by_one((0, 0, 0))
    assert set(counts) <= set(law)
    for end, chance in law.items():
        spread = np.sqrt(chance * (1 - chance) / draws)
        assert abs(counts.get(end, 0) / draws - chance) < 5 * spread


def test_a_mix_of_empty_classes_alone_goes_on_with_what_is_left():
    taken = partitions._draw_counts(
        4, np.array([1.0, 0.0]), np.array([1, 9]), np.random.default_rng(0)
    )
    assert taken.tolist() == [1, 3]


def test_the_deal_depends_on_its_seed():
    labels = np.repeat(np.arange(4), 50)
    for how in (iid(), dirichlet(1.0), dirichlet(1.0, "equal"), by_label(1), quantity(1.0)):
        first, other = (partition(labels, 4, how, seed)[0] for seed in (0, 1))
        assert not np.array_equal(first, other)


@pytest.mark.parametrize(
    ("workers", "line"), [(0, "workers is 0"), (-1, "workers is -1"), (6, "6 workers for 5 rows")]
)
def test_more_workers_than_rows_is_told(workers, line):
    with pytest.raises(ValueError, match=f"^partition: {line}") as caught:
        partition(np.arange(5), workers, iid())
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("build", "told"),
    [
        (lambda: dirichlet(0.0), "dirichlet: alpha is 0.0"),
        (lambda: dirichlet(float("nan")), "dirichlet: alpha is nan"),
        (lambda: dirichlet(1.0, "even"), "dirichlet: sizes is 'even'; allowed: 'drawn'"),
        (lambda: quantity(-1.0), "quantity: alpha is -1.0"),
        (lambda: quantity(float("inf")), "quantity: alpha is inf"),
        (lambda: by_label(0), "by_label: labels_per_worker is 0"),
        (lambda: by_label(1.5), "by_label: labels_per_worker is 1.5"),
        (lambda: make_partition("by_labels"), "did you mean 'by_label'"),
        (lambda: make_partition("dirichlet", beta=1.0), "has no argument 'beta'"),
        (lambda: make_partition("dirichlet"), "needs the argument 'alpha'"),
        (lambda: partition(np.zeros((2, 2)), 1, iid()), "labels have shape"),
    ],
)
def test_wrong_arguments_are_told_in_one_line(build, told):
    with pytest.raises(ValueError, match=told) as caught:
        build()
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", PARTITIONS)
def test_every_name_makes_a_partition(name):
    arguments = {"alpha": 1.0, "labels_per_worker": 1, "sizes": "equal"}
    how = make_partition(name, **{key: arguments[key] for key in PARTITIONS[name]})
    assert len(partition(np.arange(8) % 2, 3, how)) == 3

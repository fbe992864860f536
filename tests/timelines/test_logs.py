"""Logs of real runs, as people write them: read for what they are, or refused at their line."""

import gzip
import threading
import time

import numpy as np
import pandas as pd
import pytest

from sgdlab.timelines import (
    PROTOCOLS,
    Cluster,
    TimelineError,
    asynchronous,
    constant,
    from_trace,
    lognormal,
    synchronous,
    trace,
)

# Two workers; worker 1's last message is refused. Busy 4 s of 4 and 3.5 s of 4.
ROWS = [
    (0, 0, 0.0, 1.1, 0),
    (1, 0, 0.0, 1.9, 1),
    (0, 1, 1.1, 2.4, 2),
    (1, 2, 1.9, 3.5, 3),
    (0, 3, 2.4, 4.0, -1),
]
NAMES = ("worker", "read_version", "start_time", "arrival_time", "update")


def frame(rows=ROWS, names=NAMES):
    return pd.DataFrame(rows, columns=list(names))


def read(table, path, **options):
    table.to_csv(path, index=False)
    return from_trace(path, **options)


@pytest.fixture
def expected(tmp_path):
    return read(frame(), tmp_path / "plain.csv")


def assert_same_run(made, expected):
    ended = np.isfinite(expected.arrival_time)  # the others stand in no particular order
    np.testing.assert_array_equal(np.isfinite(made.arrival_time), ended)
    for name in ("worker", "read_version", "update", "last_update"):
        pair = (getattr(each, name)[ended] for each in (made, expected))
        np.testing.assert_array_equal(*pair)
    for name in ("start_time", "arrival_time", "compute_end"):
        # a Unix time of 1.6e9 s has steps of 2.4e-7 s
        pair = (getattr(each, name)[ended] for each in (made, expected))
        np.testing.assert_allclose(*pair, atol=1e-6)
    np.testing.assert_allclose(made.apply_time, expected.apply_time, atol=1e-6)
    assert made.average == expected.average


@pytest.mark.parametrize("origin", [0.0, 86_400.0, 1.6e9])
def test_times_may_count_from_anywhere(origin, expected, tmp_path):
    table = frame()
    table[["start_time", "arrival_time"]] += origin
    made = read(table, tmp_path / "log.csv")
    assert_same_run(made, expected)
    np.testing.assert_allclose(made.utilisation(), [1.0, 0.875], atol=1e-6)


def test_a_run_in_which_all_join_late_keeps_its_clock(tmp_path):
    timeline = asynchronous(Cluster(workers=2, joins={0: 5.0, 1: 6.0}), seconds=30.0)
    made = read(timeline.to_dataframe(), tmp_path / "late.csv")
    np.testing.assert_array_equal(made.start_time, timeline.start_time)


@pytest.mark.parametrize(
    ("column", "names"),
    [("worker", [1, 2]), ("host", ["gpu-a", "gpu-b"]), ("rank", [0, 1]), ("worker", ["w10", "w9"])],
)
def test_workers_may_be_numbers_from_one_or_names(column, names, expected, tmp_path):
    table = frame().rename(columns={"worker": column})
    table[column] = [names[worker] for worker in table[column]]
    made = read(table, tmp_path / "log.csv")
    assert_same_run(made, expected)
    assert made.metadata.get("workers", names) == names


def test_numbers_from_one_that_a_number_of_workers_allows_stay(tmp_path):
    table = frame().assign(worker=[1, 2, 1, 2, 1])
    assert read(table, tmp_path / "log.csv").num_workers == 2
    made = read(table, tmp_path / "log.csv", workers=3)
    np.testing.assert_array_equal(np.unique(made.worker), [1, 2])


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".csv.gz", ".tsv.gz", ".parquet"])
@pytest.mark.parametrize("separator", [",", ";", "\t"])
def test_separators_and_packing_change_nothing(suffix, separator, expected, tmp_path):
    path = tmp_path / f"log{suffix}"
    table = frame().rename(columns={"start_time": "start", "arrival_time": "end"})
    if suffix == ".parquet":
        table.to_parquet(path)
    else:
        text = table.to_csv(index=False, sep=separator)
        path.write_bytes(gzip.compress(text.encode()) if ".gz" in suffix else text.encode())
    assert_same_run(from_trace(path), expected)


def test_a_table_that_unpacks_to_much_more_than_it_is_is_refused(tmp_path):
    (tmp_path / "bomb.csv.gz").write_bytes(gzip.compress(b"worker\n" + b"0\n" * 10**7))
    with pytest.raises(TimelineError, match=r"bomb\.csv\.gz: unpacks to more than"):
        from_trace(tmp_path / "bomb.csv.gz")


@pytest.mark.parametrize("name", ["wait_for_all", "ringleader", "asynchronous", "synchronous"])
@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_a_recording_carries_its_average(name, suffix, tmp_path):
    cluster = Cluster(workers=3, compute=lognormal(mean=1.0, sigma=0.5))
    timeline = PROTOCOLS[name](cluster, updates=30)
    path = tmp_path / f"log{suffix}"
    table = timeline.to_dataframe()
    table.to_csv(path, index=False) if suffix == ".csv" else table.to_parquet(path)
    made = from_trace(path)
    assert_same_run(made, timeline)
    other = "messages" if timeline.average == "workers" else "workers"
    with pytest.raises(TimelineError, match=f"average is '{timeline.average}' there"):
        from_trace(path, average=other)


def test_workers_that_stamp_their_own_clocks_are_forgiven_by_a_tolerance(tmp_path):
    lock, log, done = threading.Lock(), [], threading.Event()
    begin, version = time.perf_counter(), 0

    def work(worker):
        nonlocal version
        generator = np.random.default_rng(worker)
        while not done.is_set():
            start = time.perf_counter() - begin
            time.sleep(0.0005)  # the pull
            with lock:
                read = version
            time.sleep(generator.exponential(0.002))
            with lock:
                update, version = version, version + 1
            time.sleep(0.0005)  # the push's answer
            log.append((worker, read, start, time.perf_counter() - begin, update))
            if update >= 100:
                done.set()

    threads = [threading.Thread(target=work, args=(worker,)) for worker in range(4)]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    table = frame(log)
    with pytest.raises(TimelineError, match=r"log\.csv: line \d+: start_time is .* would do"):
        read(table, tmp_path / "log.csv")
    made = read(table, tmp_path / "log.csv", tolerance=60.0)
    assert made.num_updates == len(log)
    order = np.lexsort((made.worker, made.update))
    by_update = table.sort_values("update")
    np.testing.assert_array_equal(made.read_version[order], by_update["read_version"])
    np.testing.assert_array_equal(made.worker[order], by_update["worker"])


def test_a_clock_that_is_ahead_moves_others_by_no_more_than_that(tmp_path):
    timeline = asynchronous(Cluster(workers=4, compute=lognormal(mean=1.0, sigma=0.5)), updates=50)
    table = timeline.to_dataframe().drop(columns=["compute_end", "apply_time"])
    ahead = table["worker"] == 2
    table.loc[ahead, ["start_time", "arrival_time"]] += 0.25
    made = read(table, tmp_path / "log.csv", tolerance=0.25 + 1e-9)
    used, by_update = made.update >= 0, np.argsort(made.update[made.update >= 0])
    np.testing.assert_array_equal(made.read_version[used][by_update], timeline.read_version[:50])
    assert np.all(np.abs(made.apply_time - timeline.apply_time) <= 0.25 + 1e-9)
    with pytest.raises(TimelineError, match=r"would do\)$"):
        read(table, tmp_path / "log.csv", tolerance=0.2)


def test_what_is_wrong_is_told_at_the_files_line(tmp_path):
    table = frame(ROWS[::-1])  # line 2 is the last message
    for change, line in (
        ({"arrival_time": {4: -1.0}}, "line 6: "),
        ({"update": {1: 9}}, "line 3: update is 9"),
        ({"read_version": {0: 4}}, "line 2: "),
        ({"worker": {3: ""}}, "line 5: worker is ''"),
        ({"worker": {3: "1_0"}, "update": {0: "1_0"}}, "line 2: update is '1_0'"),
    ):
        broken = table.astype(object)
        for column, values in change.items():
            for row, value in values.items():
                broken.loc[row, column] = value
        with pytest.raises(TimelineError) as error:
            read(broken, tmp_path / "log.csv")
        assert line in str(error.value)


@pytest.fixture
def times(tmp_path):
    """Three hosts, of which one takes ten times as long."""
    table = pd.DataFrame({"host": ["b", "a", "c"] * 4, "seconds": [1.0, 2.0, 10.0] * 4})
    table.to_csv(tmp_path / "times.csv", index=False)
    return tmp_path / "times.csv"


def test_each_worker_has_its_hosts_times(times):
    cluster = Cluster(
        workers=3, compute={"name": "trace", "path": str(times), "column": "seconds", "by": "host"}
    )
    hosts = Cluster(workers=3, compute=[constant(2.0), constant(1.0), constant(10.0)])
    np.testing.assert_array_equal(cluster.mean_seconds, hosts.mean_seconds)
    for protocol in (synchronous, asynchronous):
        made, expected = protocol(cluster, seconds=60.0), protocol(hosts, seconds=60.0)
        np.testing.assert_array_equal(made.apply_time, expected.apply_time)
        np.testing.assert_array_equal(made.worker, expected.worker)
    assert Cluster.from_dict(cluster.to_dict()).to_dict() == cluster.to_dict()


def test_hosts_of_which_nothing_is_said_are_told(times):
    with pytest.raises(TimelineError, match="has a column host; allowed: by: host"):
        trace(times, "seconds")
    pooled = trace(times, "seconds", by="all")
    assert pooled.mean == pytest.approx(13 / 3)
    with pytest.raises(TimelineError, match="by is 'node'; allowed: host, seconds, all"):
        trace(times, "seconds", by="node")
    with pytest.raises(TimelineError, match="3 different host; allowed: 2, one for each worker"):
        Cluster(workers=2, compute=trace(times, "seconds", by="host"))


def test_a_time_may_be_two_columns(tmp_path):
    table = pd.DataFrame({"start": [1.6e9, 1.6e9 + 3], "end": [1.6e9 + 1, 1.6e9 + 5]})
    table.to_csv(tmp_path / "times.csv", index=False)
    np.testing.assert_array_equal(trace(tmp_path / "times.csv").seconds, [1.0, 2.0])

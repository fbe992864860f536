"""One run, one folder, one lock; files appear whole; no symbolic link is followed."""

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from sgdlab.experiment import BusyError, OutputError, create_folder, open_folder
from sgdlab.experiment.folders.folder import NAME, is_busy, to_json
from sgdlab.experiment.running.work import PointLog
from sgdlab.training import CheckpointError


def test_twenty_launches_at_once_make_twenty_folders(tmp_path):
    with ThreadPoolExecutor(20) as pool:
        folders = list(pool.map(lambda _: create_folder(tmp_path, "race"), range(20)))
    assert len({folder.path for folder in folders}) == 20
    assert all(NAME.fullmatch(folder.id) for folder in folders)
    for folder in folders:
        folder.close()


def test_ids_sort_by_time(tmp_path):
    with create_folder(tmp_path, "a") as folder:
        day, clock, _ = folder.id.split("-")
    assert len(day) == 8
    assert len(clock) == 6


def test_a_second_holder_is_busy_and_a_released_lock_is_free(tmp_path):
    with create_folder(tmp_path, "a") as folder:
        assert is_busy(folder.path)
        with pytest.raises(BusyError, match="busy"):
            open_folder(folder.path)
        with pytest.raises(BusyError, match="busy"):
            create_folder(tmp_path, "a", folder.id)
    assert not is_busy(folder.path)
    open_folder(folder.path).close()
    with pytest.raises(OutputError, match="exists"):
        create_folder(tmp_path, "a", folder.id)


def test_a_crash_leaves_no_stale_lock(tmp_path):
    code = (
        "import os, sys; from sgdlab.experiment import create_folder;"
        "print(create_folder(sys.argv[1], 'a').path, flush=True); os._exit(9)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True
    )
    assert done.returncode == 9
    open_folder(done.stdout.strip()).close()


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "-a", "a b", "x" * 65, "é", "a\n"])
def test_names_that_lead_elsewhere_are_refused(tmp_path, name):
    with pytest.raises(OutputError, match="allowed"):
        create_folder(tmp_path, name)
    assert not list(tmp_path.iterdir())


def test_symbolic_links_are_not_followed(tmp_path):
    outside = tmp_path / "outside"
    outside.mkdir()
    root = tmp_path / "root"
    root.mkdir()
    (root / "linked").symlink_to(outside)
    with pytest.raises(OutputError, match="symbolic link"):
        create_folder(root, "linked")
    with create_folder(root, "real") as folder:
        (folder.path / "members").symlink_to(outside)
        (folder.path / "metrics.jsonl").symlink_to(outside / "metrics.jsonl")
        with pytest.raises(OutputError, match="symbolic link"):
            folder.write_text("x", "members", "0", "config.yaml")
        with pytest.raises(CheckpointError, match="cannot be written"):
            PointLog(folder.path / "metrics.jsonl")
    assert not list(outside.iterdir())


def test_a_root_that_is_a_file_is_said_in_one_line(tmp_path):
    (tmp_path / "runs").write_text("")
    with pytest.raises(OutputError, match="cannot be written"):
        create_folder(tmp_path / "runs", "a")


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch):
    with create_folder(tmp_path, "a") as folder:
        folder.write_text("old", "summary.json")

        def fail(*_):
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(os, "fsync", fail)
        with pytest.raises(OutputError, match="No space left"):
            folder.write_text("new", "summary.json")
        assert (folder.path / "summary.json").read_text() == "old"
        assert sorted(p.name for p in folder.path.iterdir()) == ["lock", "summary.json"]


def test_json_is_strict():
    value = {"a": np.float32(1.5), "b": [np.nan, np.inf], "c": np.arange(2), 3: np.bool_(True)}
    assert to_json(value) == {"a": 1.5, "b": [None, None], "c": [0, 1], "3": True}

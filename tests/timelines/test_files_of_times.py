"""A table of times is read from a regular file alone."""

import os

import pytest

from sgdlab.timelines import TimelineError, trace


@pytest.mark.parametrize("name", ["times.csv", "times.csv.gz", "times.parquet"])
def test_a_pipe_or_a_device_is_refused_at_once(tmp_path, name):
    os.mkfifo(tmp_path / name)
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / name).symlink_to("/dev/zero")
    for path in (tmp_path / name, tmp_path / "b" / name):
        with pytest.raises(TimelineError, match="is a (pipe|device); allowed: a regular file"):
            trace(str(path))

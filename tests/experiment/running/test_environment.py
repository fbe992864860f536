"""What a run notes of where it is made, and that it leaves it alone."""

import os
import subprocess

import pytest

from sgdlab.experiment.running.environment import find_commit


@pytest.fixture
def checkout(tmp_path):
    def git(*arguments):
        who = ["-c", "user.name=a", "-c", "user.email=a@b"]
        command = ["git", "-C", str(tmp_path), *who, *arguments]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()

    git("init", "-q")
    (tmp_path / "file").write_text("one\n")
    git("add", "file")
    git("commit", "-qm", "first")
    return tmp_path, git


def test_the_commit_is_found_and_a_change_marked(checkout):
    folder, git = checkout
    assert find_commit(folder) == git("rev-parse", "HEAD")
    (folder / "file").write_text("two, longer\n")
    assert find_commit(folder) == git("rev-parse", "HEAD") + "+"


def test_reading_the_commit_writes_nothing_into_the_checkout(checkout):
    folder, git = checkout
    index = folder / ".git" / "index"
    os.utime(folder / "file", (1, 1))  # from which git would refresh its index, under its lock
    before = index.read_bytes()
    assert find_commit(folder) == git("rev-parse", "HEAD")
    assert index.read_bytes() == before
    git("status")  # which does refresh it: the check can fail
    assert index.read_bytes() != before

"""Files are opened by what they are: regular ones alone, unpacked by their first bytes."""

import bz2
import gzip
import lzma
import os
import socket

import pytest

from sgdlab.files import UNPACKING_FAULTS, open_regular, open_unpacked

TEXT = b"one line\nand another\n" * 100
PACK = {"gzip": gzip.compress, "bzip2": bz2.compress, "xz": lzma.compress, "nothing": bytes}


@pytest.mark.parametrize("kind", PACK)
def test_what_is_packed_is_told_by_its_content_and_not_by_its_name(tmp_path, kind):
    path = tmp_path / "table.csv"
    path.write_bytes(PACK[kind](TEXT))
    with open_unpacked(path) as file:
        assert file.read() == TEXT
    path.write_bytes(PACK[kind](TEXT) + PACK[kind](TEXT))  # as bgzip and pbzip2 write them
    with open_unpacked(path) as file:
        assert list(file) == (TEXT + TEXT).splitlines(keepends=True)


@pytest.mark.parametrize("kind", ["gzip", "bzip2", "xz"])
def test_a_stream_that_ends_early_is_told_by_one_of_its_faults(tmp_path, kind):
    path = tmp_path / "a"
    path.write_bytes(PACK[kind](TEXT)[:-9])
    with open_unpacked(path) as file, pytest.raises(UNPACKING_FAULTS):
        file.read()


def make_pipe(path):
    os.mkfifo(path)


def make_socket(path):
    with socket.socket(socket.AF_UNIX) as listener:
        os.chdir(path.parent)  # a socket's path is short
        listener.bind(path.name)


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (make_pipe, "is a pipe"),
        (lambda path: path.symlink_to("/dev/zero"), "is a device"),
        (make_socket, "is a socket"),
        (lambda path: path.mkdir(), "Is a directory"),
        (lambda path: None, "No such file"),
        (lambda path: path.symlink_to("nothing"), "No such file"),
    ],
)
def test_what_is_no_regular_file_is_refused_at_once(tmp_path, monkeypatch, make, told):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "a"
    make(path)
    with pytest.raises(OSError, match=told):
        open_regular(path)


def test_a_link_to_a_regular_file_is_followed(tmp_path):
    (tmp_path / "a").write_bytes(TEXT)
    (tmp_path / "b").symlink_to("a")
    with open_regular(tmp_path / "b") as file:
        assert file.read() == TEXT

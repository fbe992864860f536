"""Regular files alone, and streams that unpack what is compressed, told by its first bytes."""

from __future__ import annotations

import bz2
import errno
import gzip
import lzma
import os
import stat
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from os import PathLike
from typing import Any, BinaryIO

from sgdlab.files.platforms import open_flags

_KINDS = {
    stat.S_IFIFO: "a pipe",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
    stat.S_IFSOCK: "a socket",
}
# The first bytes of what each opens.
_PACKED: dict[bytes, Callable[[BinaryIO], Any]] = {
    b"\x1f\x8b": lambda file: gzip.GzipFile(fileobj=file, mode="rb"),
    b"BZh": bz2.BZ2File,
    b"\xfd7zXZ\x00": lzma.LZMAFile,
}

# What a damaged stream raises while it is read.
UNPACKING_FAULTS = (OSError, EOFError, zlib.error, lzma.LZMAError, MemoryError)


def open_regular(path: str | PathLike[str]) -> BinaryIO:
    """A file to be read, which must be a regular one: a pipe would wait, a device may never end.

    Args:
      path: of the file; a link to one will do.

    Raises:
      OSError: it cannot be opened, or is of another kind; `strerror` says which.
    """
    # Without O_NONBLOCK opening a pipe waits for somebody who writes to it. Windows has neither.
    flags = os.O_RDONLY | open_flags("O_NONBLOCK", "O_CLOEXEC", "O_BINARY")
    mode = os.stat(path).st_mode
    if stat.S_ISREG(mode):
        file = os.fdopen(os.open(path, flags), "rb")
        mode = os.fstat(file.fileno()).st_mode
        if stat.S_ISREG(mode):
            return file
        file.close()
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), os.fspath(path))
    kind = _KINDS.get(stat.S_IFMT(mode), "no file")
    raise OSError(errno.EINVAL, f"is {kind}; allowed: a regular file", os.fspath(path))


@contextmanager
def open_unpacked(path: str | PathLike[str]) -> Iterator[BinaryIO]:
    """A regular file, unpacked as it is read where its first bytes are those of gzip, bzip2 or xz.

    Its name says nothing. What is read is for the reader to count: a small file may unpack to a
    thousand times itself.

    Args:
      path: of the file.

    Yields:
      A stream of the unpacked bytes; reading it may raise one of `UNPACKING_FAULTS`.

    Raises:
      OSError: as `open_regular`.
    """
    with open_regular(path) as file:
        first = file.read(max(map(len, _PACKED)))
        file.seek(0)
        unpack = (opened for magic, opened in _PACKED.items() if first.startswith(magic))
        with next(unpack, nullcontext)(file) as stream:
            yield stream

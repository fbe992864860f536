"""Data by path: which loader reads it is told by what lies there."""

from __future__ import annotations

from os import PathLike, fspath
from pathlib import Path

from sgdlab.tasks.datasets.cifar import is_cifar, read_cifar
from sgdlab.tasks.datasets.dataset import DataError, Dataset, make_dataset
from sgdlab.tasks.datasets.embedded import EMBEDDED, load_embedded
from sgdlab.tasks.datasets.idx import is_mnist, read_mnist
from sgdlab.tasks.datasets.libsvm import read_libsvm, to_table
from sgdlab.tasks.datasets.npz import read_rows
from sgdlab.tasks.datasets.pixels import to_pixels
from sgdlab.tasks.datasets.saved import is_saved, read_saved


def load_table(source: str | PathLike[str], test: str | PathLike[str] | None = None) -> Dataset:
    """Rows of features: an embedded table by name, an .npz, a saved dataset, else a LIBSVM file.

    Args:
      source: a name in `EMBEDDED`, or a path.
      test: the path of test rows, beside a LIBSVM file.

    Returns:
      A `Dataset` with "input" `[n, d]`: an array, or a `scipy.sparse.csr_array` where
      `load_libsvm` keeps one.

    Raises:
      DataError: there is no such table or file, or it is damaged.
    """
    name = fspath(source)
    if name in EMBEDDED and test is None:
        return load_embedded(name)
    path = Path(name).expanduser()
    if not path.exists():
        raise DataError(
            f"{path}: no such file and no embedded table; there are {', '.join(EMBEDDED)}"
        )
    if test is not None and (path.is_dir() or path.suffix == ".npz"):
        raise DataError(f"{path}: is no LIBSVM file; only that has its test rows in another file")
    if path.is_dir():
        found = read_saved(path)
    else:
        found = read_rows(path) if path.suffix == ".npz" else read_libsvm(path, test)
    return make_dataset(found, to_table)


def load_images(source: str | PathLike[str]) -> Dataset:
    """Images: a directory of MNIST's or CIFAR's files or a saved dataset, or an .npz.

    Args:
      source: a path.

    Returns:
      A `Dataset` with "input" `[n, H, W, C]`, uint8 or float32.

    Raises:
      DataError: nothing of that kind is there, or it is damaged.
    """
    path = Path(source).expanduser()
    if path.suffix == ".npz":
        found = read_rows(path)
    elif is_mnist(path):
        found = read_mnist(path)
    elif is_cifar(path):
        found = read_cifar(path)
    elif is_saved(path):
        found = read_saved(path)
    else:
        raise DataError(
            f"{path}: neither an .npz nor a directory with MNIST's IDX files, CIFAR's binaries or "
            "a saved dataset"
        )
    return make_dataset(found, to_pixels)

"""Loaders give back what the test wrote, and answer damage with one line and no memory."""

import contextlib
import functools
import gzip
import struct
import tracemalloc
import zipfile

import numpy as np
import pytest

from sgdlab.tasks import DataError, images, logistic
from sgdlab.tasks.datasets import (
    load_cifar,
    load_embedded,
    load_images,
    load_libsvm,
    load_mnist,
    load_npz,
    load_saved,
    load_saved_text,
    load_table,
    load_text,
    read_idx,
    read_npz,
)

RNG = np.random.default_rng(0)
PIXELS = RNG.integers(0, 256, (6, 5, 4), np.uint8)
LABELS = np.array([3, 1, 3, 7, 1, 3], np.uint8)


def write_idx(path, array, code=0x08):
    header = struct.pack(f">BBBB{array.ndim}I", 0, 0, code, array.ndim, *array.shape)
    content = header + array.tobytes()
    path.write_bytes(gzip.compress(content, mtime=0) if path.suffix == ".gz" else content)
    return path


def write_mnist(folder, suffix=""):
    write_idx(folder / f"train-images-idx3-ubyte{suffix}", PIXELS)
    write_idx(folder / f"train-labels-idx1-ubyte{suffix}", LABELS)
    write_idx(folder / f"t10k-images-idx3-ubyte{suffix}", PIXELS[:2])
    write_idx(folder / f"t10k-labels-idx1-ubyte{suffix}", LABELS[:2])
    return folder


def cifar_records(count, seed):
    rng = np.random.default_rng(seed)
    return np.array([9, 0, 4], np.uint8), rng.integers(0, 256, (count, 3, 32, 32), np.uint8)


def write_cifar(folder):
    for name, seed in {"data_batch_1": 1, "data_batch_2": 2, "test_batch": 3}.items():
        labels, pixels = cifar_records(3, seed)
        rows = np.concatenate([labels[:, None], pixels.reshape(3, -1)], axis=1)
        (folder / f"{name}.bin").write_bytes(rows.tobytes())
    return folder


LIBSVM = b"+1 1:0.5 3:-2 # a comment\n\n-1 2:1e-3\n+1 3:4\n-1 1:7 2:8 3:9\n"


@pytest.mark.parametrize("suffix", ["", ".gz"])
@pytest.mark.parametrize(
    ("code", "dtype"), [(8, "u1"), (9, "i1"), (11, ">i2"), (12, ">i4"), (13, ">f4"), (14, ">f8")]
)
def test_idx_round_trip(tmp_path, suffix, code, dtype):
    array = RNG.integers(0, 100, (2, 3, 4)).astype(dtype)
    read = read_idx(write_idx(tmp_path / f"array{suffix}", array, code))
    np.testing.assert_array_equal(read, array)
    assert read.dtype == np.dtype(dtype).newbyteorder("=")


@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_mnist_round_trip(tmp_path, suffix):
    data = load_mnist(write_mnist(tmp_path, suffix))
    np.testing.assert_array_equal(data.train["input"][..., 0], PIXELS)
    np.testing.assert_array_equal(data.test["input"][..., 0], PIXELS[:2])
    # Labels 1, 3, 7 become class numbers 0, 1, 2 in both parts.
    np.testing.assert_array_equal(data.train["label"], [1, 0, 1, 2, 0, 1])
    np.testing.assert_array_equal(data.test["label"], [1, 0])


@pytest.mark.parametrize("inner", [".", "cifar-10-batches-bin"])
def test_cifar_round_trip(tmp_path, inner):
    (tmp_path / inner).mkdir(exist_ok=True)
    write_cifar(tmp_path / inner)
    data = load_cifar(tmp_path)
    first, second = cifar_records(3, 1), cifar_records(3, 2)
    labels, pixels = (np.concatenate(pair) for pair in zip(first, second, strict=True))
    np.testing.assert_array_equal(data.train["label"], labels)
    np.testing.assert_array_equal(data.train["input"], np.moveaxis(pixels, 1, -1))
    np.testing.assert_array_equal(data.test["label"], cifar_records(3, 3)[0])


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_npz_round_trip(tmp_path, save):
    arrays = {
        "a": RNG.normal(size=(3, 4)),
        "b": np.asfortranarray(RNG.normal(size=(5, 2)).astype(np.float32)),
        "c": np.arange(3, dtype=">i4"),
        "d": np.array(True),
        "e": np.zeros((0, 2), np.uint8),
    }
    save(tmp_path / "data.npz", **arrays)
    read = read_npz(tmp_path / "data.npz")
    assert read.keys() == arrays.keys()
    for name, array in arrays.items():
        np.testing.assert_array_equal(read[name], array)


def test_npz_with_and_without_a_test_set(tmp_path):
    path = tmp_path / "data.npz"
    np.savez(path, x=PIXELS, y=LABELS)
    assert load_npz(path).test is None
    np.savez(path, x_train=PIXELS, y_train=LABELS, x_test=PIXELS[:2], y_test=LABELS[:2])
    data = load_npz(path)
    np.testing.assert_array_equal(data.test["label"], [1, 0])
    assert load_images(path).train["input"].shape == (6, 5, 4, 1)
    assert load_table(path).train["input"].shape == (6, 20)


@pytest.mark.parametrize("first", [1, 0])
def test_libsvm_round_trip_whether_indices_begin_at_one_or_zero(tmp_path, first):
    path = tmp_path / "data.svm"
    path.write_bytes(LIBSVM if first else b"2 0:5 1:6\n1 1:7\n")
    data = load_libsvm(path)
    table = [[0.5, 0, -2], [0, 1e-3, 0], [0, 0, 4], [7, 8, 9]] if first else [[5, 6], [0, 7]]
    np.testing.assert_array_equal(data.train["input"], np.array(table, np.float32))
    np.testing.assert_array_equal(data.train["label"], [1, 0, 1, 0] if first else [1, 0])


def test_libsvm_agrees_with_scikit_learn(tmp_path):
    from sklearn.datasets import dump_svmlight_file

    table = load_embedded("wine").train
    path = tmp_path / "wine.svm"
    dump_svmlight_file(table["input"], table["label"], str(path), zero_based=False)
    np.testing.assert_allclose(load_libsvm(path).train["input"], table["input"], rtol=1e-6)
    assert logistic(path).metadata["classes"] == 3


@pytest.mark.parametrize("suffix", [".txt", ".gz"])
def test_text_round_trip(tmp_path, suffix):
    path = tmp_path / f"text{suffix}"
    content = "Grüße\n".encode()
    path.write_bytes(gzip.compress(content) if suffix == ".gz" else content)
    assert load_text(path) == content


@pytest.mark.parametrize("parts", [("train",), ("train", "test")])
def test_saved_datasets_round_trip(tmp_path, parts):
    datasets = pytest.importorskip("datasets")
    columns = {
        "x": PIXELS.reshape(6, 20).tolist(),
        "label": LABELS.tolist(),
        "text": list("abcdef"),
    }
    table = datasets.Dataset.from_dict(columns)
    saved = datasets.DatasetDict(dict.fromkeys(parts, table)) if len(parts) > 1 else table
    saved.save_to_disk(str(tmp_path / "saved"))
    data = load_saved(tmp_path / "saved")
    np.testing.assert_array_equal(data.train["input"], PIXELS.reshape(6, 20))
    np.testing.assert_array_equal(data.train["label"], [1, 0, 1, 2, 0, 1])
    assert (data.test is None) == (len(parts) == 1)
    assert load_saved_text(tmp_path / "saved") == b"a\n\nb\n\nc\n\nd\n\ne\n\nf"


# name -> (writes a folder, the file to damage, reads it, whether every shorter file is an error).
FORMATS = {
    "idx": (write_mnist, "train-images-idx3-ubyte", load_mnist, True),
    "idx.gz": (
        functools.partial(write_mnist, suffix=".gz"),
        "train-images-idx3-ubyte.gz",
        load_mnist,
        True,
    ),
    "cifar": (write_cifar, "data_batch_2.bin", load_cifar, True),
    "npz": (
        lambda folder: np.savez(folder / "a.npz", x=PIXELS, y=LABELS),
        "a.npz",
        lambda folder: load_npz(folder / "a.npz"),
        True,
    ),
    "compressed npz": (
        lambda folder: np.savez_compressed(folder / "a.npz", x=PIXELS, y=LABELS),
        "a.npz",
        lambda folder: load_npz(folder / "a.npz"),
        True,
    ),
    "libsvm": (
        lambda folder: (folder / "a.svm").write_bytes(LIBSVM),
        "a.svm",
        lambda folder: load_libsvm(folder / "a.svm"),
        False,
    ),
    "text.gz": (
        lambda folder: (folder / "a.gz").write_bytes(gzip.compress(b"some text " * 9, mtime=0)),
        "a.gz",
        lambda folder: load_text(folder / "a.gz"),
        True,
    ),
}


def assert_refused(read, folder, name=""):
    with pytest.raises(DataError) as caught:
        read(folder)
    assert "\n" not in str(caught.value)
    assert str(folder / name) in str(caught.value)


@pytest.mark.parametrize("name", FORMATS)
def test_a_file_that_ends_early_is_refused(tmp_path, name):
    write, file, read, always = FORMATS[name]
    write(tmp_path)
    content = (tmp_path / file).read_bytes()
    for length in np.unique(np.linspace(0, len(content) - 1, 15).astype(int)):
        (tmp_path / file).write_bytes(content[:length])
        if always:
            assert_refused(read, tmp_path)
        else:
            read_or_refuse(read, tmp_path)


def read_or_refuse(read, folder):
    """A loader's answer to damage that may or may not show: data, or one line with the path."""
    message = ""
    with contextlib.suppress(DataError):
        try:
            read(folder)
        except DataError as error:
            message = str(error)
            raise
    assert "\n" not in message
    assert not message or str(folder) in message


@pytest.mark.parametrize("name", FORMATS)
def test_a_damaged_byte_never_ends_in_another_exception(tmp_path, name):
    write, file, read, _ = FORMATS[name]
    write(tmp_path)
    content = (tmp_path / file).read_bytes()
    rng = np.random.default_rng(len(name))
    # Headers are where damage hurts: half of the places lie in the first 100 bytes.
    places = [*rng.integers(0, min(100, len(content)), 15), *rng.integers(0, len(content), 15)]
    for place in places:
        damaged = bytearray(content)
        damaged[place] ^= int(rng.integers(1, 256))
        (tmp_path / file).write_bytes(damaged)
        read_or_refuse(read, tmp_path)


@pytest.mark.parametrize("name", FORMATS)
def test_a_missing_file_is_told(tmp_path, name):
    assert_refused(FORMATS[name][2], tmp_path)


def npz_with(folder, *members):
    """An archive with raw members (name, bytes)."""
    with zipfile.ZipFile(folder / "a.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members:
            archive.writestr(name, content)


def npy_header(text):
    padded = text.ljust(117) + "\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(padded)) + padded.encode()


HUGE = "{'descr': '<f8', 'fortran_order': False, 'shape': (99999999999,), }"
HOSTILE = {
    "an IDX file that claims 2⁶⁴ bytes": (
        lambda folder: write_idx(folder / "a", PIXELS[:0]).write_bytes(
            struct.pack(">BBBB2I", 0, 0, 8, 2, 2**32 - 1, 2**32 - 1)
        ),
        lambda folder: read_idx(folder / "a"),
    ),
    "a compressed IDX file that claims 4 GB": (
        lambda folder: (folder / "a.gz").write_bytes(
            gzip.compress(struct.pack(">BBBBI", 0, 0, 8, 1, 2**32 - 1))
        ),
        lambda folder: read_idx(folder / "a.gz"),
    ),
    "a compressed IDX file with 64 MB behind its end": (
        lambda folder: (folder / "a.gz").write_bytes(
            gzip.compress(struct.pack(">BBBBI", 0, 0, 8, 1, 10) + bytes(2**26), 1)
        ),
        lambda folder: read_idx(folder / "a.gz"),
    ),
    "an npz array that claims 800 GB": (
        lambda folder: npz_with(folder, ("x.npy", npy_header(HUGE))),
        lambda folder: read_npz(folder / "a.npz"),
    ),
    "an npz header without end": (
        lambda folder: npz_with(
            folder, ("x.npy", b"\x93NUMPY\x02\x00\xff\xff\xff\x7f" + bytes(2**20))
        ),
        lambda folder: read_npz(folder / "a.npz"),
    ),
    "an npz with pickled objects": (
        lambda folder: np.savez(folder / "a.npz", x=np.array([{}]), y=LABELS),
        lambda folder: load_npz(folder / "a.npz"),
    ),
    "a LIBSVM index that makes a table of terabytes": (
        lambda folder: (folder / "a.svm").write_bytes(b"1 1:1\n0 999999999999:1\n"),
        lambda folder: load_libsvm(folder / "a.svm"),
    ),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_sizes_are_refused_before_memory_is_taken(tmp_path, name):
    write, read = HOSTILE[name]
    write(tmp_path)
    tracemalloc.start()
    try:
        assert_refused(read, tmp_path)
        assert tracemalloc.get_traced_memory()[1] < 3e6
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"1 1:2\nx 1:2\n", "line 2: 'x' is no number"),
        (b"1 1:2\n\n0 2\n", "line 3: '2' is no index:value pair"),
        (b"1 2:1 1:2\n", "line 1: index 1 follows 2"),
        (b"1 1:nan\n0 1:2\n", "row 0 has a value that is not finite"),
        (b"0.5 1:1\n1 1:2\n", "label 0.5 of row 0 is no whole number"),
        (b"1 1:1\n1 1:2\n", "two classes are needed"),
        (b"\n# nothing\n", "holds no row"),
    ],
)
def test_libsvm_names_the_line(tmp_path, content, told):
    path = tmp_path / "a.svm"
    path.write_bytes(content)
    with pytest.raises(DataError, match=told):
        load_libsvm(path)


@pytest.mark.parametrize(
    ("arrays", "told"),
    [
        ({"x": PIXELS}, "holds x; needed are x and y"),
        ({"x": PIXELS, "y": LABELS[:3]}, "x .* and y"),
        ({"x": np.full((6, 2), np.inf), "y": LABELS}, "row 0 has a value that is not finite"),
        ({"x_train": PIXELS, "y_train": LABELS}, "but no x_test and y_test"),
        (
            {"x_train": PIXELS, "y_train": LABELS, "x_test": PIXELS[:, 1:], "y_test": LABELS},
            "rows of x_train are",
        ),
    ],
)
def test_npz_names_what_is_missing(tmp_path, arrays, told):
    path = tmp_path / "a.npz"
    np.savez(path, **arrays)
    with pytest.raises(DataError, match=told):
        load_npz(path)


@pytest.mark.parametrize("read", [images, logistic, load_images, load_table])
def test_a_path_that_is_nothing_is_told(tmp_path, read):
    with pytest.raises(DataError, match="no such file|neither") as caught:
        read(tmp_path / "nothing")
    assert "\n" not in str(caught.value)


def test_a_saved_dataset_needs_its_own_files(tmp_path):
    assert_refused(load_saved, tmp_path)
    (tmp_path / "state.json").write_text("{")
    assert_refused(load_saved, tmp_path)

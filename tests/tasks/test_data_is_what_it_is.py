"""Data are taken for what they are: pixels of any dtype, labels, layouts, features, lines."""

import bz2
import gzip
import io
import lzma
import os
import tracemalloc
import zipfile

import numpy as np
import pytest

from sgdlab.tasks import DataError, images, logistic
from sgdlab.tasks.datasets import (
    load_images,
    load_libsvm,
    load_npz,
    load_saved,
    load_table,
    load_text,
    read_idx,
    read_npz,
)
from sgdlab.tasks.splits import stratified_split

RNG = np.random.default_rng(0)
PIXELS = RNG.integers(0, 256, (6, 5, 4), np.uint8)
PIXELS[0, 0, :2] = 0, 255
LABELS = np.array([3, 1, 3, 7, 1, 3], np.uint8)
DTYPES = ["u1", "i2", "u2", "i4", "u4", "i8", "u8", "f2", "f4", "f8"]


def save(folder, **arrays):
    np.savez(folder / "a.npz", **arrays)
    return folder / "a.npz"


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_same_values_of_any_dtype_are_the_same_pixels(tmp_path, dtype):
    data = load_images(save(tmp_path, x=PIXELS.astype(dtype), y=LABELS))
    assert data.train["input"].dtype == np.uint8
    np.testing.assert_array_equal(data.train["input"][..., 0], PIXELS)


def test_images_of_any_scale_are_normalised_alike(tmp_path):
    """An affine map of the pixels changes neither what the network sees nor its loss."""
    pixels = PIXELS.astype(np.float64)
    losses = []
    for x in (PIXELS, pixels + 0.5, (pixels * 257).astype(np.uint16)):
        task = images(save(tmp_path, x=x, y=LABELS), model="mlp", hidden=[], test_fraction=0.4)
        params = {"head": {"kernel": np.ones((20, 3), np.float32), "bias": np.arange(3.0)}}
        losses.append(float(task.loss(params, task.train, None)[0]))
    np.testing.assert_allclose(losses, losses[0], rtol=1e-5)


def test_floats_in_the_unit_interval_are_taken_as_they_are(tmp_path):
    unit = (PIXELS / 255).astype(np.float32)
    data = load_images(save(tmp_path, x=unit, y=LABELS))
    np.testing.assert_array_equal(data.train["input"][..., 0], unit)


@pytest.mark.parametrize(
    ("arrays", "told"),
    [
        ({"x": PIXELS.astype(np.int8), "y": LABELS}, "must not be negative"),
        ({"x": PIXELS.astype(np.float32) * np.nan, "y": LABELS}, "row 0 has a value that is not"),
        ({"x": np.zeros((6, 3, 8, 8), np.uint8), "y": LABELS}, r"\(3, 8, 8\), channels first"),
        ({"x": np.zeros((6, 1, 8, 8), np.float32), "y": LABELS}, "channels first"),
        ({"x": PIXELS.reshape(6, 20), "y": LABELS}, r"images are \[H, W\]"),
        ({"x": PIXELS, "y": np.zeros((6, 14), np.uint8)}, r"and y \(6, 14\); needed are"),
        ({"x": PIXELS, "y": LABELS.astype("U1")}, "header"),
        ({"x": PIXELS, "y": LABELS * np.inf}, "label inf of row 0 is no whole number"),
    ],
)
def test_what_is_no_image_or_label_is_refused(tmp_path, arrays, told):
    with np.errstate(invalid="ignore"), pytest.raises(DataError, match=told) as caught:
        load_images(save(tmp_path, **arrays))
    assert "\n" not in str(caught.value)


def test_two_scales_are_refused(tmp_path):
    path = save(tmp_path, x_train=PIXELS / 255, y_train=LABELS, x_test=PIXELS, y_test=LABELS)
    with pytest.raises(DataError, match="one scale is needed"):
        load_images(path)


@pytest.mark.parametrize("load", [load_images, load_table, load_npz])
@pytest.mark.parametrize(
    ("test", "told"),
    [
        (np.full(6, -1), "all 6 test labels are -1, which means unlabelled"),
        (np.array([3, 1, 3, 7, 8, 8]), "test label 8 of row 4 is one that no training row has"),
        (np.array([3, 1, 3, 7, -1, 1]), "test label -1 of row 4"),
    ],
)
def test_a_test_label_that_no_training_row_has_is_told(tmp_path, load, test, told):
    path = save(tmp_path, x_train=PIXELS, y_train=LABELS, x_test=PIXELS, y_test=test)
    with pytest.raises(DataError, match=told):
        load(path)


def test_a_class_keeps_a_training_row():
    labels = np.array([0] * 10 + [1] + [2] * 10 + [3])
    for seed in range(20):
        train, test = stratified_split(labels, 0.5, seed)
        assert set(labels[train]) == {0, 1, 2, 3}
        assert sorted([*train, *test]) == list(range(len(labels)))


def test_medmnist_names_and_columns_of_labels_are_read(tmp_path):
    column = LABELS[:, None]
    parts = {
        f"{part}_{what}": value[:count]
        for part, count in (("train", 6), ("val", 2), ("test", 3))
        for what, value in (("images", PIXELS), ("labels", column))
    }
    data = load_images(save(tmp_path, **parts))
    np.testing.assert_array_equal(data.train["label"], [1, 0, 1, 2, 0, 1])
    np.testing.assert_array_equal(data.test["label"], [1, 0, 1])
    assert data.train["input"].shape == (6, 5, 4, 1)


@pytest.mark.parametrize("inner", [".", "cifar-100-binary"])
def test_cifar_100_is_read_by_its_fine_labels(tmp_path, inner):
    (tmp_path / inner).mkdir(exist_ok=True)
    pixels = RNG.integers(0, 256, (4, 3, 32, 32), np.uint8)
    labels = np.array([[1, 99], [2, 0], [3, 50], [4, 99]], np.uint8)
    records = np.concatenate([labels, pixels.reshape(4, -1)], 1)
    for name in ("train.bin", "test.bin"):
        (tmp_path / inner / name).write_bytes(records.tobytes())
    data = load_images(tmp_path)
    assert data.classes == 100
    np.testing.assert_array_equal(data.train["label"], labels[:, 1])
    np.testing.assert_array_equal(data.train["input"], np.moveaxis(pixels, 1, -1))


def saved(folder, columns, features=None):
    datasets = pytest.importorskip("datasets")
    table = datasets.Dataset.from_dict(columns, features=features and features(datasets))
    table.save_to_disk(str(folder / "saved"))
    return folder / "saved"


def test_saved_lists_are_pixels_and_class_labels_are_class_numbers(tmp_path):
    path = saved(
        tmp_path,
        {"image": PIXELS.tolist(), "label": LABELS.tolist()},
        lambda d: d.Features(
            image=d.List(d.List(d.Value("int64"))), label=d.ClassLabel(num_classes=9)
        ),
    )
    data = load_images(path)
    assert data.classes == 9
    np.testing.assert_array_equal(data.train["label"], LABELS)
    np.testing.assert_array_equal(data.train["input"][..., 0], PIXELS)
    assert data.train["input"].dtype == np.uint8


def test_saved_arrays_and_encoded_images_are_the_pixels_that_were_saved(tmp_path):
    colours = RNG.integers(0, 256, (6, 5, 4, 3), np.uint8)
    path = saved(
        tmp_path,
        {"image": list(colours), "label": LABELS.tolist()},
        lambda d: d.Features(image=d.Array3D((5, 4, 3), "uint8"), label=d.Value("int64")),
    )
    np.testing.assert_array_equal(load_images(path).train["input"], colours)
    from PIL import Image

    pictures = [Image.fromarray(each) for each in colours]
    path = saved(
        tmp_path / "b",
        {"img": pictures, "label": LABELS.tolist()},
        lambda d: d.Features(img=d.Image(), label=d.Value("int64")),
    )
    np.testing.assert_array_equal(load_images(path).train["input"], colours)
    pictures[2] = pictures[2].convert("P", palette=Image.Palette.ADAPTIVE)
    path = saved(
        tmp_path / "c",
        {"img": pictures, "label": LABELS.tolist()},
        lambda d: d.Features(img=d.Image(), label=d.Value("int64")),
    )
    np.testing.assert_array_equal(load_images(path).train["input"], colours)  # 20 colours


def test_saved_images_of_two_sizes_and_rows_of_two_lengths_are_refused(tmp_path):
    from PIL import Image

    pictures = [Image.new("L", (4, 4 + (i == 3))) for i in range(6)]
    path = saved(
        tmp_path,
        {"img": pictures, "label": LABELS.tolist()},
        lambda d: d.Features(img=d.Image(), label=d.Value("int64")),
    )
    with pytest.raises(DataError, match="image of row 3"):
        load_saved(path)
    path = saved(tmp_path / "b", {"x": [[1, 2]] * 5 + [[1]], "label": LABELS.tolist()})
    with pytest.raises(DataError, match="rows of different lengths"):
        load_saved(path)


TEXT = b"1 1:0.5 3:-2\n-1 2:1e-3\n" * 3
TABLE = np.array([[0.5, 0, -2], [0, 1e-3, 0]] * 3, np.float32)


@pytest.mark.parametrize(
    "content",
    [
        TEXT,
        b"\xef\xbb\xbf" + TEXT,
        gzip.compress(TEXT),
        bz2.compress(TEXT),
        lzma.compress(TEXT),
        gzip.compress(b"\xef\xbb\xbf" + TEXT),
        TEXT.replace(b"\n", b"\r\n"),
        TEXT.replace(b"1 1", b"1 qid:7 1").replace(b"-1 2", b"-1 qid:8 2"),
        TEXT.replace(b"1 1", b"+1.0 1").replace(b"\n", b" # 1:2\n\n \n"),
        TEXT.rstrip(b"\n"),
        b"\n" * 200_000 + TEXT,
    ],
)
def test_libsvm_is_the_same_table_however_it_is_written(tmp_path, content):
    path = tmp_path / "a.gz"
    path.write_bytes(content)
    data = load_libsvm(path)
    np.testing.assert_array_equal(data.train["input"], TABLE)
    np.testing.assert_array_equal(data.train["label"], [1, 0] * 3)


@pytest.mark.parametrize(
    "label", [b"inf", b"nan", b"1_0", b"1,2", b"0x1", b"1e999", b"", b"1:1", b"\xff"]
)
def test_libsvm_labels_are_plain_finite_numbers(tmp_path, label):
    path = tmp_path / "a.svm"
    path.write_bytes(TEXT.replace(b"-1 ", label + b" ", 1))
    with pytest.raises(DataError) as caught:
        load_libsvm(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("entry", "told"),
    [
        (b"3:1_0", "line 2: '1_0' is no number"),
        (b"1_0:3", "line 2: '1_0:3' is no index:value pair"),
        (b"-3:1", "line 2: '-3:1' is no index:value pair"),
        (b"3:inf", "row 1 has a value that is not finite"),
        (b"3:1e60", "row 1 has a value that is not finite"),
        (b"2:1", "line 2: index 2 follows 2"),
        (b"999999999:1", "an index makes 999,999,999 features"),
        (b"9999999999:1", "no index:value pair"),
        (b"3 :1", "no index:value pair"),
        (b" ".join(b"3:1" for _ in range(5000)), "line 2: index 3 follows 3"),
    ],
)
def test_libsvm_entries_are_checked(tmp_path, entry, told):
    path = tmp_path / "a.svm"
    path.write_bytes(TEXT.replace(b"1e-3", b"1e-3 " + entry, 1))
    with pytest.raises(DataError, match=told):
        load_libsvm(path)


def test_libsvm_test_rows_come_from_a_file_of_their_own(tmp_path):
    (tmp_path / "a").write_bytes(TEXT)
    (tmp_path / "b").write_bytes(b"-1 5:1\n1 1:1\n")
    data = load_libsvm(tmp_path / "a", tmp_path / "b")
    assert data.train["input"].shape == (6, 5)
    np.testing.assert_array_equal(data.test["input"], [[0, 0, 0, 0, 1], [1, 0, 0, 0, 0]])
    np.testing.assert_array_equal(data.test["label"], [0, 1])
    task = logistic(tmp_path / "a", test=tmp_path / "b")
    assert len(task.test["label"]) == 2
    (tmp_path / "b").write_bytes(b"2 1:1\n1 1:1\n")
    with pytest.raises(DataError, match="test label 2"):
        load_libsvm(tmp_path / "a", tmp_path / "b")


def npz_of_one_array_many_times(folder):
    """Entries of the directory that all lie in the same bytes: 64 arrays of 2²⁰ zeros in 1 kB."""
    np.savez_compressed(folder / "one.npz", x=np.zeros(2**20, np.uint8))
    with zipfile.ZipFile(folder / "one.npz") as archive:
        member = archive.infolist()[0]
        content = (folder / "one.npz").read_bytes()
    end = content.index(b"PK\x01\x02")
    entry = content[end : content.index(b"PK\x05\x06")]
    names = [b"%05d" % i for i in range(64)]
    directory = b"".join(entry.replace(b"x.npy", name) for name in names)
    tail = b"PK\x05\x06" + bytes(4) + (64).to_bytes(2, "little") * 2
    tail += len(directory).to_bytes(4, "little") + end.to_bytes(4, "little") + bytes(2)
    (folder / "a.npz").write_bytes(content[:end] + directory + tail)
    assert member.file_size > 2**20


def gzip_of(piece, start=b"", count=512):
    buffer = io.BytesIO()
    with gzip.GzipFile(fileobj=buffer, mode="wb") as file:
        file.write(start)
        for _ in range(count):
            file.write(piece)
    return buffer.getvalue()


def idx_header(*shape):
    return bytes([0, 0, 8, len(shape)]) + b"".join(n.to_bytes(4, "big") for n in shape)


# What a file of at most 64 kB asks for: tens of megabytes. None of it yields an array.
BOMBS = {
    "LIBSVM of line ends": (gzip_of(b"\n" * 2**16), load_libsvm),
    "LIBSVM of blanks in a line": (gzip_of(b" " * 2**16, b"1 1:1"), load_libsvm),
    "LIBSVM of one index": (gzip_of(b" 1:1" * 2**14, b"1"), load_libsvm),
    "LIBSVM of a comment": (gzip_of(b"#" * 2**16), load_libsvm),
    "LIBSVM, a weight for each index": (b"1 1:1\n0 99999999:1\n", load_libsvm),
    "IDX that is too long": (gzip_of(bytes(2**16), idx_header(2**24)), read_idx),
    "IDX that is too short": (gzip_of(bytes(2**16), idx_header(2**26)), read_idx),
    "IDX of many axes": (idx_header(*[2] * 255), read_idx),
}


@pytest.mark.parametrize("name", BOMBS)
def test_a_bomb_takes_a_small_multiple_of_its_size(tmp_path, name):
    content, read = BOMBS[name]
    (tmp_path / "a").write_bytes(content)
    with pytest.raises(DataError, match=str(tmp_path)):  # which imports what reading needs
        read(tmp_path / "a")
    tracemalloc.start()
    try:
        with pytest.raises(DataError, match=str(tmp_path)):
            read(tmp_path / "a")
        assert tracemalloc.get_traced_memory()[1] <= 64 * len(content) + 2**21
    finally:
        tracemalloc.stop()


def test_an_archive_whose_arrays_lie_in_each_other_is_refused(tmp_path):
    npz_of_one_array_many_times(tmp_path)
    tracemalloc.start()
    try:
        with pytest.raises(DataError, match=r"a\.npz.*lies within the array before it"):
            read_npz(tmp_path / "a.npz")
        assert tracemalloc.get_traced_memory()[1] < 2**21
    finally:
        tracemalloc.stop()


def test_only_the_arrays_that_are_asked_for_are_read(tmp_path):
    path = tmp_path / "a.npz"
    np.savez_compressed(path, x=PIXELS, y=LABELS, other=np.zeros(2**24, np.uint8))
    tracemalloc.start()
    try:
        load_npz(path)
        assert tracemalloc.get_traced_memory()[1] < 2**21
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("load", [load_libsvm, load_text, read_idx, read_npz, load_table, logistic])
@pytest.mark.parametrize("make", [os.mkfifo, lambda path: path.symlink_to("/dev/zero")])
def test_what_is_no_regular_file_is_refused_at_once(tmp_path, load, make):
    make(tmp_path / "a")
    with pytest.raises(DataError, match="is a (pipe|device); allowed: a regular file"):
        load(tmp_path / "a")

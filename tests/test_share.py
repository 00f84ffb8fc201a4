"""Share: the pairing, the readers of all layouts of the raw files, and suites that see a seeded fault."""

import csv
import gzip
import io
import pickle
import pickletools
import shutil
import tarfile
import threading
import tracemalloc
import warnings
from collections import Counter
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from torchvision.datasets import CIFAR10, MNIST

from mindgap.base.modality import Modality
from mindgap.core.params import load_params
from mindgap.data.errors import DataError, SourceMissing
from mindgap.data.fetch import md5_of
from mindgap.data.share import cifar10, mnist, parameters, tables
from mindgap.data.share.pairs import Settings, pair_by_class, prepare
from mindgap.data.storage import read_meta
from mindgap.parts.augment.images import draw_augmentation
from mindgap.results.expectations import ExpectationFailed, validate, validate_dataset
from odd_files import DENIED, PLACES, other_user, spoil_place
from share_raw import batch_bytes, python2_pickle, real_cifar10, share_raw
from spoilt import spoil_array

SUITES = Path(__file__).parents[1] / "reports" / "expectations" / "prepared"
PER_CLASS = 20
LOOSE = Settings(seed=7, canonical=False, fetch=False)  # the shared CIFAR-10 is a JPEG copy
LOOSE_FETCHED = Settings(seed=7, canonical=False)


@pytest.fixture(scope="module")
def raw(tmp_path_factory) -> Path:
    return share_raw(tmp_path_factory.mktemp("share") / "raw", PER_CLASS)


@pytest.fixture(scope="module")
def share(raw, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("prepared") / "share"
    prepare(raw, folder, LOOSE, progress=False)
    return folder


@pytest.fixture
def raw_copy(raw, tmp_path) -> Path:
    """Raw files to spoil; those of MNIST are links to the originals until they are replaced."""
    return Path(shutil.copytree(raw, tmp_path / "raw", symlinks=True))


@pytest.fixture
def share_copy(share, tmp_path) -> Path:
    return Path(shutil.copytree(share, tmp_path / "share"))


def replace(path: Path, content: bytes) -> None:
    path.unlink(missing_ok=True)
    path.write_bytes(content)


def toy_labels(rng: np.random.Generator) -> list[np.ndarray]:
    """Two lists of labels of four classes with other counts."""
    return [rng.permutation(np.repeat(np.arange(4), counts)) for counts in ([5, 3, 6, 2], [4, 7, 6, 3])]


@pytest.mark.parametrize("seed", range(20))
def test_pairs_are_one_to_one_within_a_class(seed):
    labels = toy_labels(np.random.default_rng(seed))
    pairs_PM = pair_by_class(labels, 4, 0, [seed])
    found = Counter()
    for i, k in pairs_PM.tolist():
        assert labels[0][i] == labels[1][k]
        found[int(labels[0][i])] += 1
    assert found == {0: 4, 1: 3, 2: 6, 3: 2}
    for rows in pairs_PM.T:
        assert len(set(rows.tolist())) == len(rows)


def test_the_seed_decides_the_pairs_and_their_order():
    labels = toy_labels(np.random.default_rng(0))
    first, again, other = (pair_by_class(labels, 4, 0, [seed]) for seed in (1, 1, 2))
    assert np.array_equal(first, again)
    assert {*map(tuple, first)} != {*map(tuple, other)}
    assert not np.array_equal(labels[0][first[:, 0]], np.sort(labels[0][first[:, 0]]))


def test_every_matching_of_a_class_is_as_likely():
    labels = [np.zeros(3, int), np.zeros(3, int)]
    seen = Counter(tuple(sorted(map(tuple, pair_by_class(labels, 1, 0, [s]).tolist()))) for s in range(1200))
    assert len(seen) == 6
    # 200 expected of each, with a standard deviation of 13.
    assert all(abs(count - 200) < 5 * 13 for count in seen.values())


@pytest.mark.parametrize("size", [1, 4, 7, 8])
def test_a_subset_is_balanced_and_among_all_pairs(size):
    labels = toy_labels(np.random.default_rng(3))
    pairs_PM = pair_by_class(labels, 4, size, [3])
    counts = np.bincount(labels[0][pairs_PM[:, 0]], minlength=4)
    assert counts.sum() == size
    assert counts.max() - counts.min() <= 1
    assert {*map(tuple, pairs_PM)} <= {*map(tuple, pair_by_class(labels, 4, 0, [3]))}


def test_three_lists_are_paired_as_two_are():
    labels = [np.repeat(np.arange(3), n) for n in (4, 2, 3)]
    rows_PM = pair_by_class(labels, 3, 0, [0])
    assert rows_PM.shape == (6, 3)
    assert all(len({int(y_N[i]) for y_N, i in zip(labels, rows, strict=True)}) == 1 for rows in rows_PM)


def test_a_size_beyond_the_smallest_class_is_refused():
    with pytest.raises(ValueError, match="12 pairs need 3 of class 3, which has 2"):
        pair_by_class(toy_labels(np.random.default_rng(0)), 4, 12, [0])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"seed": -1}, r"seed is -1: make it a whole number in 0\.\.4294967295"),
        ({"seed": True}, "seed is True"),
        ({"train_size": 2.5}, r"train_size is 2\.5"),
        ({"test_size": -3}, "test_size is -3"),
        ({"canonical": "no"}, "canonical is 'no': make it true or false"),
        ({"mirror_digits": 1}, "mirror_digits is 1"),
        ({"fetch": None}, "fetch is None"),
        ({"digit_size": 30}, r"digit_size is 30: make it one of \(28, 32\)"),
    ],
)
def test_wrong_settings_are_named(change, message):
    with pytest.raises(ValueError, match=message):
        Settings(**{"seed": 0, **change})


def test_a_batch_gives_the_pixels_that_were_put_in(raw):
    for split in ("train", "test"):
        x_NHWC, y_N = real_cifar10(split, PER_CLASS)
        read = cifar10.read_cifar10(raw, split, canonical=False)
        assert np.array_equal(read.x_NHWC, x_NHWC)
        assert np.array_equal(read.y_N, y_N)
        assert read.x_NHWC.flags.c_contiguous
        assert np.bincount(read.y_N).tolist() == [PER_CLASS] * 10
        assert list(read.md5) == list(cifar10.MD5[split])


def test_the_first_pixel_is_red_green_blue_of_three_planes():
    planes = np.zeros((1, 3072), np.uint8)
    planes[0, [0, 1, 32, 1024, 2048]] = 10, 20, 30, 40, 50
    x_NHWC, y_N = cifar10.parse_batch(batch_bytes(planes, np.array([3])), Path("batch"))
    assert x_NHWC[0, 0, 0].tolist() == [10, 40, 50]
    assert x_NHWC[0, 0, 1, 0] == 20  # the next column
    assert x_NHWC[0, 1, 0, 0] == 30  # the next row
    assert y_N.tolist() == [3]


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("as_array", [False, True])
def test_a_batch_that_python_3_wrote_is_read_too(protocol, order, as_array):
    planes = np.arange(2 * 3072, dtype=np.int64).astype(np.uint8).reshape(2, -1)
    labels = np.array([4, 5], ">i4") if as_array else [4, 5]
    content = pickle.dumps({"data": np.asarray(planes, order=order), "labels": labels}, protocol)
    x_NHWC, y_N = cifar10.parse_batch(content, Path("batch"))
    assert y_N.tolist() == [4, 5]
    assert np.array_equal(x_NHWC, cifar10.parse_batch(batch_bytes(planes, y_N), Path("batch"))[0])


def test_a_text_that_is_encoded_again_and_again_takes_its_memory_once():
    text = b"X" + (10**7).to_bytes(4, "little") + b"a" * 10**7
    encoded = b"c_codecs\nencode\n" + text + b"X\x06\0\0\0latin1\x86q\0R"
    again = b"c_codecs\nencode\nh\0R"
    with pytest.raises(DataError, match="holds no dictionary"):
        cifar10.parse_batch(b"\x80\x02" + encoded + again * 100_000 + b".", Path("batch"))


def archive_of(raw: Path, *, without: str = "") -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz", compresslevel=1) as archive:
        for path in sorted((raw / cifar10.BATCHES).iterdir(), reverse=True):
            if path.name != without:
                archive.add(path, f"{cifar10.BATCHES}/{path.name}")
    return out.getvalue()


def as_archive(raw: Path, content: bytes) -> None:
    """Only an archive lies in `raw`."""
    shutil.rmtree(raw / cifar10.BATCHES)
    (raw / cifar10.ARCHIVE).write_bytes(content)


def as_class_folders(raw: Path, suffix: str = ".png") -> None:
    """Only class folders lie in `raw`, with the images of the batches in their order within a class."""
    for split in ("train", "test"):
        read = cifar10.read_cifar10(raw, split, canonical=False)
        for i, (image, label) in enumerate(zip(read.x_NHWC, read.y_N, strict=True)):
            path = raw / cifar10.CLASS_FOLDERS / split / cifar10.CLASSES[label] / f"{i:05d}{suffix}"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(image).save(path)
    shutil.rmtree(raw / cifar10.BATCHES)


def test_the_archive_gives_what_the_batches_give(raw, raw_copy):
    as_archive(raw_copy, archive_of(raw))
    for split in ("train", "test"):
        packed, plain = (cifar10.read_cifar10(r, split, canonical=False) for r in (raw_copy, raw))
        assert np.array_equal(packed.x_NHWC, plain.x_NHWC)
        assert np.array_equal(packed.y_N, plain.y_N)
        assert packed.md5 == plain.md5
    assert [path.name for path in raw_copy.iterdir() if path.name != "mnist"] == [cifar10.ARCHIVE]


def test_class_folders_give_the_batches_sorted_by_class(raw, raw_copy):
    as_class_folders(raw_copy)
    (raw_copy / cifar10.CLASS_FOLDERS / "train" / "cat" / "Thumbs.db").write_bytes(b"x")
    for split in ("train", "test"):
        folders, plain = (cifar10.read_cifar10(r, split, canonical=False) for r in (raw_copy, raw))
        order = np.argsort(plain.y_N, kind="stable")
        assert np.array_equal(folders.x_NHWC, plain.x_NHWC[order])
        assert np.array_equal(folders.y_N, plain.y_N[order])
        assert folders.excluded == {"no .png or .jpg": int(split == "train")}
        assert folders.repaired == {"made RGB": 0}


def test_a_grey_image_is_made_rgb_and_counted(raw_copy):
    as_class_folders(raw_copy)
    path = raw_copy / cifar10.CLASS_FOLDERS / "test" / "airplane" / "0.PNG"
    Image.new("L", (32, 32), 77).save(path)
    read = cifar10.read_cifar10(raw_copy, "test", canonical=False)
    assert (read.x_NHWC[0] == 77).all()
    assert read.repaired == {"made RGB": 1}


def test_batches_come_before_the_archive_and_class_folders(raw_copy):
    (raw_copy / cifar10.ARCHIVE).touch()
    (raw_copy / cifar10.CLASS_FOLDERS).mkdir()
    assert cifar10.find_cifar10(raw_copy).name == cifar10.BATCHES
    shutil.rmtree(raw_copy / cifar10.BATCHES)
    assert cifar10.find_cifar10(raw_copy).name == cifar10.ARCHIVE


@pytest.mark.parametrize(("how", "message"), PLACES.items())
@pytest.mark.parametrize(
    "name", ["cifar-10-batches-py/data_batch_3", cifar10.ARCHIVE, "mnist/train-images-idx3-ubyte.gz"]
)
def test_a_file_that_cannot_be_read_is_one_line(raw_copy, tmp_path, name, how, message):
    path = raw_copy / name
    if name == cifar10.ARCHIVE:
        as_archive(raw_copy, b"")
    spoil_place(path, how)
    if (name, how) == (cifar10.ARCHIVE, "huge"):  # it is streamed, and no more than its beginning read
        message = (
            "is cut off or no archive .*: remove it to have it fetched again, or put it back, from http.*"
        )
    with pytest.raises(DataError, match=f"^{path} {message}$"):
        prepare(raw_copy, tmp_path / "share", LOOSE, progress=False)


def test_files_that_this_user_may_not_read_are_named(raw_copy, tmp_path):
    with (
        other_user(),
        pytest.raises(DataError, match=f"raw {DENIED}"),
    ):
        prepare(raw_copy, tmp_path / "share", LOOSE, progress=False)


@pytest.mark.parametrize(("how", "message"), PLACES.items())
def test_an_image_of_a_class_folder_that_cannot_be_read_is_one_line(raw_copy, how, message):
    as_class_folders(raw_copy)
    path = next((raw_copy / cifar10.CLASS_FOLDERS / "train" / "ship").glob("*.png"))
    spoil_place(path, how)
    with pytest.raises(DataError, match=f"^{path} {message}$"):
        prepare(raw_copy, raw_copy / "out", LOOSE, progress=False)


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (
            Image.new("RGBA", (32, 32), (9, 9, 9, 128)),
            "has transparent pixels, which is no image of CIFAR-10",
        ),
        (
            Image.fromarray(np.full((32, 32), 40_000, np.uint16)),
            "has mode I;16, which is no image of CIFAR-10",
        ),
        (Image.new("RGBA", (32, 32), (9, 8, 7, 255)), ""),
    ],
)
def test_an_image_of_another_kind_is_refused_or_right(raw_copy, image, message):
    as_class_folders(raw_copy)
    image.save(raw_copy / cifar10.CLASS_FOLDERS / "test" / "airplane" / "0.png")
    if message:
        with pytest.raises(DataError, match=message):
            cifar10.read_cifar10(raw_copy, "test", canonical=False)
    else:
        assert (cifar10.read_cifar10(raw_copy, "test", canonical=False).x_NHWC[0] == (9, 8, 7)).all()


def member(name: str, content: bytes = b"", **fields) -> tuple[tarfile.TarInfo, io.BytesIO]:
    info = tarfile.TarInfo(name)
    info.size = len(content)
    for field, value in fields.items():
        setattr(info, field, value)
    return info, io.BytesIO(content)


BATCH = f"{cifar10.BATCHES}/data_batch_1"


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ([member(BATCH, type=tarfile.LNKTYPE, linkname="/etc/passwd")], f"has no {BATCH}"),
        ([member(BATCH, type=tarfile.SYMTYPE, linkname="/etc/passwd")], f"has no {BATCH}"),
        ([member(BATCH, type=tarfile.FIFOTYPE)], f"has no {BATCH}"),
        ([member("../" + BATCH, b"x" * 99)], "no batch of CIFAR-10|has no .*data_batch_2"),
        (
            [member(BATCH, pax_headers={"GNU.sparse.size": str(10**13), "GNU.sparse.major": "1"})],
            "data_batch_1",
        ),
        (
            [member("filler", bytes(2**20)) for _ in range(8)] + [member(BATCH)],
            "holds more than 4,194,304 bytes",
        ),
    ],
    ids=["hard link", "link", "pipe", "outside", "sparse", "bomb"],
)
def test_odd_members_of_an_archive_are_no_batches(raw_copy, tmp_path, monkeypatch, members, message):
    monkeypatch.setattr(cifar10, "LARGEST_ARCHIVE", 2**22)
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz", format=tarfile.PAX_FORMAT) as archive:
        for info, content in members:
            archive.addfile(info, content if info.isreg() else None)
    as_archive(raw_copy, out.getvalue())
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(DataError, match=message):
        cifar10.read_cifar10(raw_copy, "train", canonical=False)
    assert sorted(tmp_path.rglob("*")) == before


def test_a_gzip_bomb_is_refused(raw_copy, monkeypatch):
    monkeypatch.setattr(mnist, "LARGEST", 2**20)
    replace(raw_copy / "mnist" / "t10k-images-idx3-ubyte.gz", gzip.compress(bytes(2**21)))
    with pytest.raises(
        DataError, match=r"t10k-images-idx3-ubyte\.gz holds more than 1,048,576 bytes: put it"
    ):
        mnist.read_mnist(raw_copy, "test", canonical=False)


@pytest.mark.parametrize("name", ["mnist", cifar10.BATCHES])
def test_a_folder_that_leads_nowhere_is_no_reason_to_skip(raw_copy, tmp_path, name):
    shutil.rmtree(raw_copy / name)
    (raw_copy / name).symlink_to("gone")
    with pytest.raises(DataError, match=f"{raw_copy / name} is a link to nothing: link it anew"):
        prepare(raw_copy, tmp_path / "share", Settings(seed=0, canonical=False, fetch=False))


class Intruder:
    def __reduce__(self):
        return warnings.warn, ("a pickle ran code",)


def spoilt(**changes) -> bytes:
    entries = {"data": np.zeros((3, 3072), np.uint8), "labels": [0, 1, 2], **changes}
    return python2_pickle({key.encode(): value for key, value in entries.items() if value is not None})


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "data_batch_2 is missing: put it back, from https"),
        (b"", "data_batch_2 is no batch of CIFAR-10 "),
        (b"no pickle at all", "data_batch_2 is no batch of CIFAR-10 "),
        (spoilt()[:500], "data_batch_2 is no batch of CIFAR-10 "),
        (pickle.dumps([1, 2]), "no batch of CIFAR-10 .it holds no dictionary"),
        (pickle.dumps(Intruder(), 2), "asks for _?warnings.warn, which no batch needs"),
        (spoilt(data=None), "no batch of CIFAR-10 .it has no data"),
        (spoilt(labels=None), "no batch of CIFAR-10 .it has no labels"),
        (spoilt(data=b"text"), "data is no array, not uint8"),
        (
            spoilt(data=np.zeros((3, 3071), np.uint8)),
            r"data is uint8 \(3, 3071\), not uint8 \(images, 3072\)",
        ),
        (spoilt(data=np.zeros((3, 3072), np.int16)), r"data is int16 \(3, 3072\)"),
        (spoilt(data=np.zeros((0, 3072), np.uint8), labels=[]), r"data is uint8 \(0, 3072\)"),
        (spoilt(labels=[0, 1]), r"has 3 images and \(2,\) int64 labels"),
        (spoilt(labels=[0, 1, 10]), r"the label of row 2 is 10, not one of 0\.\.9: replace the file"),
        (spoilt(labels=[0, -1, 2]), "the label of row 1 is -1"),
        (spoilt(labels=[0.5, 1.0, 2.0]), "float64 labels"),
    ],
)
def test_a_faulty_batch_is_named(raw_copy, content, message):
    path = raw_copy / cifar10.BATCHES / "data_batch_2"
    path.unlink()
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(DataError, match=message) as error:
        cifar10.read_cifar10(raw_copy, "train", canonical=False)
    assert str(path) in str(error.value)


def global_(module: str, name: str) -> bytes:
    return f"c{module}\n{name}\n".encode()


def int4(value: int) -> bytes:
    return b"J" + value.to_bytes(4, "little", signed=True)


def array_of(kind: bytes, state: bytes, shape: bytes = b"(K\x03M\x00\x0ct") -> bytes:
    """A batch whose data NumPy would make of this type (with its state), this shape and 9216 bytes."""
    array = global_("numpy.core.multiarray", "_reconstruct") + b"("
    array += global_("numpy", "ndarray") + b"K\x00\x85U\x01btR"
    dtype = global_("numpy", "dtype") + b"(U" + bytes([len(kind)]) + kind + b"K\x00K\x01tR" + state + b"b"
    content = b"B" + (9216).to_bytes(4, "little") + bytes([65]) * 9216
    data = array + b"(K\x01" + shape + dtype + b"\x89" + content + b"tb"
    return b"\x80\x02}(U\x04data" + data + b"U\x06labels](K\x00K\x01K\x02eu."


USUAL_STATE = b"(K\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00t"
NESTED = b"K\x00" + b"\x85" * 60_000


def test_an_array_of_the_form_that_the_attacks_use_is_read():
    x_NHWC, y_N = cifar10.parse_batch(array_of(b"u1", USUAL_STATE), Path("batch"))
    assert (x_NHWC.shape, int(x_NHWC.min()), int(x_NHWC.max()), y_N.tolist()) == (
        (3, 32, 32, 3),
        65,
        65,
        [0, 1, 2],
    )


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (array_of(b"O8", USUAL_STATE), "it has an array of something else than whole numbers"),
        (array_of(b"V8", USUAL_STATE), "it has an array of something else than whole numbers"),
        (array_of(b"M8", USUAL_STATE), "it has an array of something else than whole numbers"),
        (array_of(b"f4", USUAL_STATE), "it has an array of something else than whole numbers"),
        (
            array_of(b"u1", b"(K\x03U\x01|U\x02O8NNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK?t", b"(K\x09t"),
            r"an array of \(9,\) uint8 has 9216 bytes",
        ),
        (
            array_of(b"u1", USUAL_STATE, b"(" + int4(10**9) + int4(10**4) + b"t"),
            r"an array of \(1000000000, 10000\) uint8 has 9216 bytes",
        ),
        (array_of(b"u1", USUAL_STATE, b"(" + int4(-3) + int4(-3072) + b"t"), "a shape that no array has"),
        (array_of(b"u1", USUAL_STATE, b"(K\x03K\x03t"), r"an array of \(3, 3\) uint8 has 9216 bytes"),
        (
            array_of(b"u1", USUAL_STATE, b"(\x8b" + (4000).to_bytes(4, "little") + b"\x7f" * 4000 + b"t"),
            "a shape that no array has",
        ),
        (b"\x80\x02}r\xff\xff\xff\x7fU\x04dataK\x00s.", "it has no labels"),  # a memo of 2**31 places
        (b"\x80\x02}(" + NESTED + b"K\x00u.", "a name is no text"),  # hashed, it takes all of the stack
        (b"\x80\x02}(U\x04data" + NESTED + b"U\x06labels" + NESTED + b"u.", "data is no array"),
        (b"\x80\x04\x8e" + (10**13).to_bytes(8, "little") + b"abc.", "no batch of CIFAR-10"),
        (b"\x80\x02cos\nsystem\nU\x02id\x85R.", "it asks for os.system, which no batch needs"),
        (b"\x80\x02cnumpy\nndarray\nK\x03\x85R.", "no batch of CIFAR-10"),
        (b"\x80\x02cnumpy\ndtype\nN}U\x01aK\x00s\x86b.", "it sets what is no array's"),
        (b"(lp0\nI0\nag0\n.", "no batch of CIFAR-10"),
        (b"\x80\x02}(U\x04data]q\x00h\x00aU\x06labelsh\x00u.", "data is no array"),  # a list in itself
    ],
)
def test_a_batch_that_would_harm_the_process_is_refused(content, message):
    with pytest.raises(DataError, match=message):
        cifar10.parse_batch(content, Path("batch"))


def test_damaged_batches_are_refused_or_read_and_never_more():
    """Bytes changed, cut out, doubled and put in: no other error, and no memory but the content's."""
    rng = np.random.default_rng(0)
    seeds = [spoilt(), pickle.dumps({"data": np.zeros((2, 3072), np.uint8), "labels": [0, 1]}, 4)]
    seeds += [pickle.dumps({"data": np.zeros((2, 3072), np.uint8), "labels": np.array([0, 1])}, 3)]
    seeds = [seed.replace(bytes(2000), b"") for seed in seeds]
    read, codes = 0, pickletools.opcodes
    tracemalloc.start()
    for k in range(3000):
        content = bytearray(seeds[k % len(seeds)])
        for _ in range(rng.integers(1, 6)):
            place, length = rng.integers(len(content)), rng.integers(1, 9)
            how = rng.integers(4)
            if how == 0:
                content[place] = rng.integers(256)
            elif how == 1:
                del content[place : place + length]
            elif how == 2:
                content[place:place] = content[place : place + 4 * length]
            else:
                content[place:place] = codes[rng.integers(len(codes))].code.encode("latin-1")
        try:
            cifar10.parse_batch(bytes(content), Path("batch"))
            read += 1
        except DataError:
            pass
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 2**23
    assert read < 1500


def test_another_copy_is_told_from_the_original_by_its_md5(raw):
    with pytest.raises(
        DataError, match=r"data_batch_1 is not the original: MD5 .*, not c99cafc1.* canonical: f"
    ):
        cifar10.read_cifar10(raw, "train", canonical=True)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda content, _: content[: len(content) // 2], "cut off or no archive .*: remove it to have it f"),
        (lambda *_: b"<html>busy</html>", "cut off or no archive"),
        (lambda _, raw: archive_of(raw, without="data_batch_4"), "has no cifar-10-batches-py/data_batch_4"),
    ],
)
def test_a_faulty_archive_is_named(raw, raw_copy, spoil, message):
    as_archive(raw_copy, spoil(archive_of(raw), raw))
    with pytest.raises(DataError, match=message) as error:
        cifar10.read_cifar10(raw_copy, "train", canonical=False)
    assert str(raw_copy / cifar10.ARCHIVE) in str(error.value)


def spoil_class_folder(name: str, folder: Path) -> None:
    image = next(folder.glob("*.png"))
    if name == "text":
        image.write_bytes(b"not an image")
    elif name == "cut":
        image.write_bytes(image.read_bytes()[:-200])
    elif name == "large":
        Image.new("RGB", (64, 48)).save(image)
    elif name == "renamed":
        folder.rename(folder.with_name("plane"))
    elif name == "empty":
        for path in folder.glob("*.png"):
            path.rename(path.with_suffix(".bmp"))


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("text", r"ship.\d+\.png is not an image or is cut off .*: replace it, or remove it"),
        ("cut", r"ship.\d+\.png is not an image or is cut off"),
        ("large", r"\d+\.png has 64 x 48 pixels, not 32 x 32: export it"),
        (
            "renamed",
            "train must have one folder per class; lacking: ship; unknown: plane: rename them to airpl",
        ),
        ("empty", "ship has no .png or .jpg: put the images"),
    ],
)
def test_a_faulty_class_folder_is_named(raw_copy, fault, message):
    as_class_folders(raw_copy)
    spoil_class_folder(fault, raw_copy / cifar10.CLASS_FOLDERS / "train" / "ship")
    with pytest.raises(DataError, match=message):
        cifar10.read_cifar10(raw_copy, "train", canonical=False)


def test_a_class_folder_cannot_be_proved_original(raw_copy):
    as_class_folders(raw_copy)
    with pytest.raises(
        DataError, match=r"cannot be told from a re-encoded copy: put the batches at .*cifar-10-ba"
    ):
        cifar10.read_cifar10(raw_copy, "train", canonical=True)
    shutil.rmtree(raw_copy / cifar10.CLASS_FOLDERS / "test")
    with pytest.raises(DataError, match="test must have one folder per class; lacking: airplane"):
        cifar10.read_cifar10(raw_copy, "test", canonical=False)


def idx(array: np.ndarray) -> bytes:
    return bytes([0, 0, 8, array.ndim]) + np.array(array.shape, ">u4").tobytes() + array.tobytes()


def test_an_idx_file_gives_the_array_that_was_put_in():
    array = np.arange(2 * 3 * 4, dtype=np.uint8).reshape(2, 3, 4)
    assert np.array_equal(mnist.parse_idx(idx(array), mnist.IMAGES, Path("file")), array)
    assert mnist.parse_idx(idx(array[0, 0]), mnist.LABELS, Path("file")).tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize(("split", "size", "fives"), [("train", 60_000, 5421), ("test", 10_000, 892)])
def test_the_original_digits_are_read(raw, split, size, fives):
    read = mnist.read_mnist(raw, split, canonical=True)
    assert read.x_NHWC.shape == (size, 28, 28, 1)
    assert (read.y_N == 5).sum() == fives
    assert read.md5 == {name: mnist.MD5[name] for name in mnist.FILES[split]}


@pytest.mark.parametrize(("folder", "packed"), [("mnist", False), ("MNIST/raw", True), ("MNIST/raw", False)])
def test_every_layout_of_mnist_gives_the_same(raw, tmp_path, folder, packed):
    (tmp_path / folder).mkdir(parents=True)
    for name in mnist.FILES["test"]:
        content = (raw / "mnist" / f"{name}.gz").read_bytes()
        path = tmp_path / folder / (f"{name}.gz" if packed else name)
        path.write_bytes(content if packed else gzip.decompress(content))
    plain, there = (mnist.read_mnist(r, "test", canonical=True) for r in (raw, tmp_path))
    assert np.array_equal(plain.x_NHWC, there.x_NHWC)
    assert np.array_equal(plain.y_N, there.y_N)
    assert plain.md5 == there.md5


DIGITS, LABELS = np.zeros((4, 28, 28), np.uint8), np.arange(4, dtype=np.uint8)


@pytest.mark.parametrize(
    ("kind", "content", "message"),
    [
        ("images", None, "t10k-images-idx3-ubyte.gz is missing: put it back, from https"),
        ("images", gzip.compress(idx(DIGITS))[:40], "is cut off or no gzip file"),
        ("images", b"not packed", "is cut off or no gzip file"),
        (
            "images",
            gzip.compress(idx(LABELS)),
            "begins with 00000801, not 00000803: it is no idx file of its n",
        ),
        ("labels", gzip.compress(idx(DIGITS)), "begins with 00000803, not 00000801"),
        ("images", gzip.compress(b""), "begins with nothing, not 00000803"),
        ("images", gzip.compress(idx(DIGITS)[:-1]), r"announces 4 x 28 x 28 values and holds 3135: it is c"),
        ("labels", gzip.compress(idx(LABELS) + b"x"), "announces 4 values and holds 5"),
        (
            "labels",
            gzip.compress(idx(LABELS[:3])),
            "hold 4 images and 3 labels, which must be as many: replace",
        ),
        ("labels", gzip.compress(idx(LABELS + 7)), r"the label of row 3 is 10, not one of 0\.\.9"),
        ("images", gzip.compress(idx(np.zeros((4, 32, 32), np.uint8))), r"images of \(32, 32\), not 28 x 28"),
    ],
    ids=lambda value: "packed" if isinstance(value, bytes) else None,  # as it holds the time
)
def test_a_faulty_idx_file_is_named(raw_copy, kind, content, message):
    folder = raw_copy / "mnist"
    replace(folder / "t10k-images-idx3-ubyte.gz", gzip.compress(idx(DIGITS)))
    replace(folder / "t10k-labels-idx1-ubyte.gz", gzip.compress(idx(LABELS)))
    path = next(folder.glob(f"t10k-{kind}*"))
    path.unlink()
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(DataError, match=message) as error:
        mnist.read_mnist(raw_copy, "test", canonical=False)
    assert str(path) in str(error.value)


def test_digits_that_are_not_the_original_ones_are_refused(raw_copy):
    path = raw_copy / "mnist" / "t10k-labels-idx1-ubyte.gz"
    labels = bytearray(gzip.decompress(path.read_bytes()))
    labels[8], labels[9] = labels[9], labels[8]
    replace(path, gzip.compress(bytes(labels), 1))
    with pytest.raises(
        DataError, match=r"t10k-labels-idx1-ubyte\.gz is not the original: MD5 .*, not 27ae3e4e"
    ):
        mnist.read_mnist(raw_copy, "test", canonical=True)
    assert mnist.read_mnist(raw_copy, "test", canonical=False).md5 != mnist.MD5


def test_a_pair_holds_the_raw_images_that_its_row_names(raw, share):
    with (share / "pairs.csv").open() as file:
        rows = list(csv.DictReader(file))
    for split in ("train", "test"):
        images = cifar10.read_cifar10(raw, split, canonical=False)
        digits = mnist.read_mnist(raw, split, canonical=True)
        stored = {name: np.load(share / f"{split}.{name}.npy") for name in ("cifar10", "mnist", "label")}
        assert stored["cifar10"].shape == (200, 32, 32, 3)
        assert stored["mnist"].shape == (200, 32, 32, 1)
        mine = [row for row in rows if row["split"] == split]
        assert [int(row["index"]) for row in mine] == list(range(200))
        for i, row in enumerate(mine):
            image, digit = int(row["cifar10_index"]), int(row["mnist_index"])
            assert stored["label"][i] == int(row["label"]) == images.y_N[image] == digits.y_N[digit]
            assert np.array_equal(stored["cifar10"][i], images.x_NHWC[image])
            assert np.array_equal(stored["mnist"][i, 2:-2, 2:-2], digits.x_NHWC[digit])
            assert stored["mnist"][i].sum() == digits.x_NHWC[digit].sum()
        assert np.load(share / f"{split}.present.npy").all()


def test_the_meta_says_what_it_was_made_from(share):
    meta = read_meta(share)
    assert meta["modalities"] == {
        "cifar10": {"kind": "image", "shape": [32, 32, 3], "mirrors": True},
        "mnist": {"kind": "image", "shape": [32, 32, 1], "mirrors": False},
    }
    assert meta["weak"] == "cifar10"
    assert meta["class_names"][5] == "dog/5"
    assert meta["ceilings"] == {"cifar10": 1.0, "mnist": 1.0, "cifar10+mnist": 1.0}
    assert meta["sizes"] == {"train": 200, "test": 200}
    assert meta["settings"]["seed"] == 7
    assert meta["settings"]["canonical"] is False
    assert meta["raw_is_original"] == {"cifar10": False, "mnist": True}
    assert meta["raw_layout"] == {"cifar10": "cifar-10-batches-py", "mnist": "mnist"}
    assert meta["raw_md5"]["mnist"] == mnist.MD5
    assert meta["raw_counts"]["mnist test"] == [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]
    assert meta["repeated_images"] == dict.fromkeys(
        ("cifar10 train", "cifar10 test", "mnist train", "mnist test"), 0
    )
    assert (share / "contact_sheet.png").read_bytes().startswith(b"\x89PNG")


def test_the_original_files_are_accepted_and_named_so(raw, tmp_path, monkeypatch):
    """The batches of the tests are no originals: here their checksums stand for those."""
    found = {split: cifar10.read_cifar10(raw, split, canonical=False).md5 for split in ("train", "test")}
    monkeypatch.setattr(cifar10, "MD5", found)
    meta = prepare(raw, tmp_path / "share", Settings(seed=7, fetch=False), progress=False)
    assert meta["raw_is_original"] == {"cifar10": True, "mnist": True}


def test_checksums_are_those_that_torchvision_knows():
    lists = CIFAR10.train_list + CIFAR10.test_list
    assert {name: md5 for part in cifar10.MD5.values() for name, md5 in part.items()} == dict(lists)
    assert (CIFAR10.url, CIFAR10.tgz_md5) == (cifar10.URL, cifar10.ARCHIVE_MD5)
    assert {f"{name}.gz": md5 for name, md5 in mnist.GZ_MD5.items()} == dict(MNIST.resources)
    assert list(mnist.MIRRORS) == MNIST.mirrors


def test_the_flow_says_what_was_left_over(share):
    with (share / "flow.csv").open() as file:
        rows = {(row["part"], row["step"]): row for row in csv.DictReader(file)}
    left_over = rows["mnist train", "pair"]
    assert left_over["reason"] == "no partner of its class is left"
    assert (left_over["rows_in"], left_over["excluded"], left_over["rows_out"]) == ("60000", "59800", "200")
    assert rows["cifar10 train", "pair"]["excluded"] == "0"
    assert rows["train", "train_size"]["rows_out"] == "200"


def test_digits_are_mirrored_at_scale_paper_as_its_text_says(raw, tmp_path):
    """By Basic, which is flip and crop: half of them, as of the photographs."""
    flipped = {}
    for scale in ("tiny", "paper"):
        asked = load_params(Path(__file__).parents[1] / "params.yaml").scales[scale].prepare["share"]
        settings = Settings(seed=7, canonical=False, fetch=False, mirror_digits=asked["mirror_digits"])
        meta = prepare(raw, tmp_path / scale, settings, progress=False)
        for name in ("cifar10", "mnist"):
            modality = Modality.from_meta(meta["modalities"][name])
            draws = draw_augmentation("basic", modality, 400, torch.Generator().manual_seed(0))
            flipped[scale, name] = draws["flip_B"].double().mean().item()
    assert flipped.pop(("tiny", "mnist")) == 0
    assert all(0.4 < share < 0.6 for share in flipped.values())


def test_settings_shape_the_dataset(raw, share, tmp_path):
    changes = {"train_size": 37, "test_size": 10, "digit_size": 28, "mirror_digits": True}
    settings = Settings(seed=7, canonical=False, fetch=False, **changes)
    meta = prepare(raw, tmp_path / "share", settings, progress=False)
    assert meta["sizes"] == {"train": 37, "test": 10}
    assert meta["modalities"]["mnist"] == {"kind": "image", "shape": [28, 28, 1], "mirrors": True}
    counts = np.bincount(np.load(tmp_path / "share" / "train.label.npy"), minlength=10)
    assert sorted(counts) == [3] * 3 + [4] * 7
    columns = ["split", "cifar10_index", "mnist_index"]
    all_pairs, few = (
        {*pd.read_csv(f / "pairs.csv")[columns].itertuples(index=False)} for f in (share, tmp_path / "share")
    )
    assert few <= all_pairs
    validate_dataset(tmp_path / "share", SUITES, tmp_path / "html")


def test_the_same_seed_writes_the_same_bytes_and_another_pairs_anew(raw, share, tmp_path):
    prepare(raw, tmp_path / "share", LOOSE, progress=False)
    assert {p.name: p.read_bytes() for p in (tmp_path / "share").iterdir()} == {
        p.name: p.read_bytes() for p in share.iterdir()
    }
    prepare(raw, tmp_path / "share", Settings(seed=8, canonical=False, fetch=False), progress=False)
    columns = ["split", "cifar10_index", "mnist_index"]
    first, other = (
        {*pd.read_csv(f / "pairs.csv")[columns].itertuples(index=False)} for f in (share, tmp_path / "share")
    )
    assert len(first & other) < 5


def test_more_pairs_than_a_class_has_are_refused_before_anything_is_written(raw, tmp_path):
    settings = Settings(seed=0, test_size=500, canonical=False, fetch=False)
    message = (
        "test_size is 500: 500 pairs need 50 of class 0, which has 20: make it at most 200, or 0 for all"
    )
    with pytest.raises(DataError, match=message):
        prepare(raw, tmp_path / "share", settings, progress=False)
    assert list(tmp_path.iterdir()) == []


def test_a_class_without_pairs_is_refused(raw_copy, tmp_path):
    replace(raw_copy / cifar10.BATCHES / "test_batch", spoilt())
    with pytest.raises(DataError, match="no test pair of class cat/3: replace them"):
        prepare(raw_copy, tmp_path / "share", LOOSE, progress=False)


def test_absent_files_are_one_line_that_says_all(tmp_path, monkeypatch):
    monkeypatch.setenv("MINDGAP_OFFLINE", "1")
    raw = tmp_path / "data" / "raw" / "share"
    with pytest.raises(SourceMissing) as error:
        prepare(raw, tmp_path / "share", Settings(seed=0), progress=False)
    line = str(error.value)
    assert "\n" not in line
    for part in (
        f"{raw}/cifar-10-batches-py",
        f"{raw}/mnist",
        "https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz",
        "https://ossci-datasets.s3.amazonaws.com/mnist/",
        "its authors state no licence; for research, cite Krizhevsky 2009",
        "CC BY-SA 3.0",
        "MINDGAP_OFFLINE is set.",
    ):
        assert part in line
    assert list(tmp_path.iterdir()) == []


def test_only_what_is_absent_is_asked_for(raw_copy, tmp_path):
    shutil.rmtree(raw_copy / "mnist")
    with pytest.raises(
        SourceMissing, match=r"^put the four files of MNIST in .* the setting fetch is false\.$"
    ):
        prepare(raw_copy, tmp_path / "share", LOOSE, progress=False)


def test_one_file_that_is_absent_beside_others_is_a_fault(raw_copy, tmp_path):
    (raw_copy / "mnist" / "train-labels-idx1-ubyte.gz").unlink()
    with pytest.raises(DataError, match=r"train-labels-idx1-ubyte\.gz is missing: put it back"):
        prepare(raw_copy, tmp_path / "share", LOOSE, progress=False)


def test_what_is_to_be_fetched_is_what_is_absent(raw, tmp_path):
    assert cifar10.absent_cifar10(raw) == mnist.absent_mnist(raw) == []
    (archive,) = cifar10.absent_cifar10(tmp_path)
    assert (archive.path, archive.md5) == (tmp_path / cifar10.ARCHIVE, "c58f30108f718f92721af3b95e74349a")
    (tmp_path / "MNIST" / "raw").mkdir(parents=True)
    (tmp_path / "MNIST" / "raw" / "train-images-idx3-ubyte").touch()
    absent = mnist.absent_mnist(tmp_path)
    assert [file.path.relative_to(tmp_path).as_posix() for file in absent] == [
        "MNIST/raw/train-labels-idx1-ubyte.gz",
        "MNIST/raw/t10k-images-idx3-ubyte.gz",
        "MNIST/raw/t10k-labels-idx1-ubyte.gz",
    ]
    assert absent[0].urls[0] == "https://ossci-datasets.s3.amazonaws.com/mnist/train-labels-idx1-ubyte.gz"


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass


@pytest.fixture
def mirror(raw, tmp_path, monkeypatch):
    """A server with the archive and the digits, where the project looks for them and with their checksums."""
    served = tmp_path / "served"
    served.mkdir()
    (served / cifar10.ARCHIVE).write_bytes(archive_of(raw))
    for path in (raw / "mnist").iterdir():
        (served / path.name).symlink_to(path)
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=served))
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    url = f"http://127.0.0.1:{server.server_port}/"
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.delenv("MINDGAP_OFFLINE", raising=False)
    monkeypatch.setattr(cifar10, "URL", url + cifar10.ARCHIVE)
    monkeypatch.setattr(cifar10, "ARCHIVE_MD5", md5_of((served / cifar10.ARCHIVE).read_bytes()))
    monkeypatch.setattr(mnist, "MIRRORS", (url,))
    sums = {name: md5_of((served / f"{name}.gz").read_bytes()) for name in mnist.MD5}
    monkeypatch.setattr(mnist, "GZ_MD5", sums)
    yield served
    server.shutdown()
    thread.join()
    server.server_close()


def test_what_is_absent_is_fetched_and_read(mirror, share, tmp_path):
    raw = tmp_path / "raw"
    meta = prepare(raw, tmp_path / "share", LOOSE_FETCHED, progress=False)
    assert sorted(path.relative_to(raw).as_posix() for path in raw.rglob("*") if path.is_file()) == [
        cifar10.ARCHIVE,
        *sorted(f"mnist/{name}.gz" for name in mnist.MD5),
    ]
    assert meta["raw_layout"] == {"cifar10": cifar10.ARCHIVE, "mnist": "mnist"}
    assert meta["sha256"] == read_meta(share)["sha256"]


def test_a_fetched_file_with_other_bytes_stops_the_stage(mirror, tmp_path):
    replace(mirror / "t10k-labels-idx1-ubyte.gz", b"busy")
    with pytest.raises(DataError, match=r"t10k-labels-idx1-ubyte\.gz: http.* gave other bytes: MD5"):
        prepare(tmp_path / "raw", tmp_path / "share", LOOSE_FETCHED, progress=False)
    assert not (tmp_path / "share").exists()
    assert not (tmp_path / "raw" / "mnist" / "t10k-labels-idx1-ubyte.gz").exists()


def spoil_pairs(folder: Path, change) -> None:
    frame = pd.read_csv(folder / "pairs.csv")
    change(frame).to_csv(folder / "pairs.csv", index=False)


def failures(folder: Path, part: str, html: Path) -> list[str]:
    """The failing expectations of one table: "column: type"."""
    frame = pd.DataFrame(tables(folder)[part])
    with pytest.raises(ExpectationFailed) as error:
        validate(
            part, frame, SUITES / f"share_{part}.json", html / "page.html", parameters(read_meta(folder))
        )
    return [line.strip().split(" (")[0] for line in str(error.value).splitlines()[1:-1]]


def swapped(values: pd.Series) -> list:
    """The first two rows that differ, exchanged."""
    values = values.tolist()
    k = next(i for i, one in enumerate(values) if one != values[0])
    values[0], values[k] = values[k], values[0]
    return values


def first_is(name: str, value) -> object:
    def change(frame: pd.DataFrame) -> pd.DataFrame:
        frame.loc[0, name] = value(frame) if callable(value) else value
        return frame

    return change


def test_good_data_passes_every_suite(share, tmp_path):
    validate_dataset(share, SUITES, tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        f"{suite}-share.html" for suite in ("flow", "share_checks", "share_images", "share_pairs")
    ]


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        (lambda f: f.drop(columns="mnist_digest"), "(table): expect_table_columns_to_match_set"),
        (lambda f: f.iloc[1:], "(table): expect_table_row_count_to_equal"),
        (first_is("index", 1), "split, index: expect_compound_columns_to_be_unique"),
        (first_is("split", "validation"), "split: expect_column_values_to_be_in_set"),
        (first_is("index", 10**6), "index: expect_column_values_to_be_between"),
        (first_is("label", 10), "label: expect_column_values_to_be_between"),
        (
            lambda f: f.assign(cifar10_label=swapped(f["cifar10_label"])),
            "label, cifar10_label: expect_column_pair_values_to_be_equal",
        ),
        (
            lambda f: f.assign(mnist_label=swapped(f["mnist_label"])),
            "label, mnist_label: expect_column_pair_values_to_be_equal",
        ),
        (
            first_is("cifar10_index", lambda f: f["cifar10_index"][1]),
            "split, cifar10_index: expect_compound_columns_to_be_unique",
        ),
        (
            first_is("mnist_index", lambda f: f["mnist_index"][1]),
            "split, mnist_index: expect_compound_columns_to_be_unique",
        ),
        (first_is("cifar10_index", 200), "cifar10_index: expect_column_values_to_be_between"),
        (first_is("mnist_index", 60_000), "mnist_index: expect_column_values_to_be_between"),
    ],
)
def test_the_suite_of_pairs_sees_a_fault(share_copy, tmp_path, change, fault):
    spoil_pairs(share_copy, change)
    assert fault in failures(share_copy, "pairs", tmp_path)


def with_row(row: int, value):
    def change(array: np.ndarray) -> np.ndarray:
        array[row] = value(array) if callable(value) else value
        return array

    return change


@pytest.mark.parametrize(
    ("name", "change", "fault"),
    [
        ("test.present.npy", with_row(3, [True, False]), "present: expect_column_values_to_be_in_set"),
        ("train.label.npy", with_row(0, 10), "label: expect_column_values_to_be_between"),
        (
            "train.label.npy",
            lambda y: np.array(swapped(pd.Series(y))),
            "label, raw_label: expect_column_pair_values_to_be_equal",
        ),
        (
            "train.mnist.npy",
            lambda x: x[[1, 0, *range(2, len(x))]],
            "digest, raw_digest: expect_column_pair_values_to_be_equal",
        ),
        ("test.cifar10.npy", with_row(5, 128), "contrast: expect_column_values_to_be_between"),
        ("test.mnist.npy", with_row((2, 0, 31), 9), "margin: expect_column_values_to_be_in_set"),
    ],
)
def test_the_suite_of_images_sees_a_fault(share_copy, tmp_path, name, change, fault):
    spoil_array(share_copy, name, change)
    assert fault in failures(share_copy, "images", tmp_path)


@pytest.mark.parametrize("modality", ["cifar10", "mnist"])
def test_a_test_image_that_occurs_in_train_is_seen(share_copy, tmp_path, modality):
    """The raw files themselves hold it twice: nothing but the leak is wrong."""
    leaked = np.load(share_copy / f"test.{modality}.npy")[4]
    spoil_array(share_copy, f"train.{modality}.npy", with_row(9, leaked))
    column = f"{modality}_digest"

    def same_digest(frame):
        frame.loc[9, column] = frame.loc[200 + 4, column]
        return frame

    spoil_pairs(share_copy, same_digest)
    assert failures(share_copy, "images", tmp_path) == ["in_train: expect_column_values_to_be_in_set"]


LOW = "value, lower: expect_column_pair_values_a_to_be_greater_than_b"
HIGH = "upper, value: expect_column_pair_values_a_to_be_greater_than_b"


@pytest.mark.parametrize(
    ("name", "change", "faults"),
    [
        ("train.label.npy", lambda y: np.where(y == 3, 4, y), [LOW, HIGH]),
        ("test.label.npy", lambda y: np.where(y == 3, 11, y), [LOW]),
        ("test.mnist.npy", lambda x: 255 - x, [HIGH]),
        ("train.mnist.npy", lambda x: x // 2, [LOW]),
        ("train.cifar10.npy", lambda x: x.transpose(0, 3, 1, 2).reshape(x.shape), [HIGH]),
        ("train.cifar10.npy", lambda x: x // 4 + 90, [LOW]),
    ],
)
def test_the_suite_of_checks_sees_a_fault(share_copy, tmp_path, name, change, faults):
    spoil_array(share_copy, name, change)
    assert failures(share_copy, "checks", tmp_path) == faults


def test_the_suite_of_checks_asks_for_a_value(share, tmp_path):
    frame = pd.DataFrame(tables(share)["checks"])
    frame.loc[0, "value"] = np.nan
    with pytest.raises(ExpectationFailed, match="value: expect_column_values_to_not_be_null"):
        validate("checks", frame, SUITES / "share_checks.json", tmp_path / "page.html")


@pytest.mark.slow
def test_all_of_the_real_data(tmp_path):
    raw = share_raw(tmp_path / "raw")
    meta = prepare(raw, tmp_path / "share", LOOSE, progress=False)
    validate_dataset(tmp_path / "share", SUITES, tmp_path / "html")
    assert meta["sizes"] == {"train": 50_000, "test": 9786}
    counts = np.bincount(np.load(tmp_path / "share" / "test.label.npy"))
    assert counts.tolist() == [980, 1000, 1000, 1000, 982, 892, 958, 1000, 974, 1000]
    assert (np.bincount(np.load(tmp_path / "share" / "train.label.npy")) == 5000).all()
    assert set(meta["repeated_images"].values()) == {0}
    flow = pd.read_csv(tmp_path / "share" / "flow.csv", keep_default_na=False)
    excluded = flow[flow["excluded"] > 0].set_index("part")["excluded"].to_dict()
    assert excluded == {"mnist train": 10_000, "cifar10 test": 214, "mnist test": 214}

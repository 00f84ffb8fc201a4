"""CIFAR-10 (Krizhevsky, 2009): the python batches, their archive as it is sent, or images in class folders.

Only the batches can be told from a copy, by their MD5: a folder of images may be a JPEG of them.
"""

import gzip
import hashlib
import io
import struct
import tarfile
import zlib
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO

import numpy as np
from PIL import Image

from mindgap.data.errors import DataError
from mindgap.data.fetch import RemoteFile
from mindgap.data.files import is_there, open_regular, read_bytes, readable
from mindgap.data.share.labelled import LabelledImages, checked_labels, checked_md5
from mindgap.data.share.plain_pickle import NotPlain, load_dict

CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
SIDE = 32
BATCHES, ARCHIVE, CLASS_FOLDERS = "cifar-10-batches-py", "cifar-10-python.tar.gz", "cifar10"
MD5 = {
    "train": {
        "data_batch_1": "c99cafc152244af753f735de768cd75f",
        "data_batch_2": "d4bba439e000b95fd0a9bffe97cbabec",
        "data_batch_3": "54ebc095f3ab1f0389bbae665268c751",
        "data_batch_4": "634d18415352ddfa80567beed471001a",
        "data_batch_5": "482c414d41f54cd18b22e5b47cb7c3cb",
    },
    "test": {"test_batch": "40351d587109b95175f43aff81a1287e"},
}
URL = f"https://www.cs.toronto.edu/~kriz/{ARCHIVE}"
ARCHIVE_MD5 = "c58f30108f718f92721af3b95e74349a"
SUFFIXES = (".png", ".jpg", ".jpeg")
MODES = ("1", "L", "LA", "P", "RGB", "RGBA", "CMYK")  # of 8 bits, so that RGB shows the same
LARGEST = 2**28  # bytes of a file; a batch has 31 million
LARGEST_ARCHIVE = 2**29  # bytes of what it holds; the original has 186 million
MEND = f"put it back, from {URL}"

# What the libraries raised for archives and images that were damaged at random.
ARCHIVE_FAULTS = (tarfile.TarError, EOFError, gzip.BadGzipFile, zlib.error, ValueError)
IMAGE_FAULTS = (OSError, SyntaxError, ValueError, struct.error, zlib.error, Image.DecompressionBombError)


def find_cifar10(raw: Path) -> Path | None:
    """What lies below `raw`: the batches, else their archive, else class folders."""
    is_there(raw)
    return next((raw / name for name in (BATCHES, ARCHIVE, CLASS_FOLDERS) if is_there(raw / name)), None)


def absent_cifar10(raw: Path) -> list[RemoteFile]:
    """The archive, unless there is something to read."""
    return [] if find_cifar10(raw) else [RemoteFile(raw / ARCHIVE, (URL,), ARCHIVE_MD5)]


def read_cifar10(raw: Path, split: str, *, canonical: bool) -> LabelledImages:
    """Images of a split, N x 32 x 32 x 3. With `canonical` they must come from the original batches."""
    found = find_cifar10(raw) or raw / BATCHES
    if found.name == CLASS_FOLDERS:
        if canonical:
            raise DataError(
                f"{found} holds image files, which cannot be told from a re-encoded copy: put the batches at "
                f"{raw / BATCHES} (from {URL}), or set canonical: false"
            )
        return _read_class_folders(found / split)
    batches = _batches_in_archive(found, split) if found.name == ARCHIVE else _batches_in_folder(found, split)
    images, labels, md5 = [], [], {}
    for path, content in batches:
        md5[path.name] = checked_md5(path, content, MD5[split][path.name] if canonical else None, MEND)
        x_NHWC, y_N = parse_batch(content, path)
        images.append(x_NHWC)
        labels.append(y_N)
    return LabelledImages(np.concatenate(images), np.concatenate(labels), md5)


def _batches_in_folder(folder: Path, split: str) -> Iterator[tuple[Path, bytes]]:
    for name in MD5[split]:
        yield folder / name, read_bytes(folder / name, MEND, LARGEST)


def _batches_in_archive(path: Path, split: str) -> Iterator[tuple[Path, bytes]]:
    """The batches in order, read into memory: nothing of the archive is written anywhere."""
    contents = {}
    with readable(path, MEND):
        try:
            with (
                open_regular(path) as file,
                gzip.open(file) as unpacked,
                tarfile.open(fileobj=_AtMost(unpacked), mode="r|") as archive,
            ):
                for member in archive:
                    inside = PurePosixPath(member.name)
                    # A link has no content of its own, and holes could claim any size.
                    plain = member.isreg() and not member.issparse()
                    if plain and inside.parent.name == BATCHES and inside.name in MD5[split]:
                        contents[inside.name] = archive.extractfile(member).read()
        except ARCHIVE_FAULTS as error:
            raise DataError(
                f"{path} is cut off or no archive ({error}): remove it to have it fetched again, or {MEND}"
            ) from None
    for name in MD5[split]:
        if name not in contents:
            raise DataError(f"{path} has no {BATCHES}/{name}: remove it to have it fetched again, or {MEND}")
        yield path / name, contents[name]


class _AtMost:
    """A stream that ends with an error where it gives far more than the original: a bomb, or another file."""

    def __init__(self, stream: BinaryIO):
        self._stream, self._left = stream, LARGEST_ARCHIVE

    def read(self, size: int) -> bytes:
        block = self._stream.read(size)
        self._left -= len(block)
        if self._left < 0:
            raise tarfile.TarError(f"it holds more than {LARGEST_ARCHIVE:,} bytes")
        return block


def parse_batch(content: bytes, path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Images (N x 32 x 32 x 3) and classes (N) of a batch: rows of a red, a green and a blue plane."""
    try:
        entries = load_dict(content)
        absent = [name for name in ("data", "labels") if name not in entries]
        if absent:
            raise NotPlain(f"it has no {' and no '.join(absent)}")
    except NotPlain as error:
        raise DataError(f"{path} is no batch of CIFAR-10 ({error}): {MEND}") from None
    planes_ND, y_N = entries["data"], _labels(entries["labels"])
    _check_batch(planes_ND, y_N, path)
    x_NHWC = planes_ND.reshape(-1, 3, SIDE, SIDE).transpose(0, 2, 3, 1)
    return np.ascontiguousarray(x_NHWC), checked_labels(path, y_N, len(CLASSES))


def _labels(labels: Any) -> np.ndarray:
    """A flat list of numbers, or an array, as an array; anything else has no dimension."""
    flat = type(labels) is list and all(type(one) in (int, float) for one in labels)
    return np.asarray(labels) if flat or isinstance(labels, np.ndarray) else np.array(None)


def _check_batch(planes_ND: np.ndarray, y_N: np.ndarray, path: Path) -> None:
    right = isinstance(planes_ND, np.ndarray) and planes_ND.dtype == np.uint8 and planes_ND.ndim == 2
    if not right or planes_ND.shape[1] != 3 * SIDE * SIDE or not len(planes_ND):
        what = f"{planes_ND.dtype} {planes_ND.shape}" if isinstance(planes_ND, np.ndarray) else "no array"
        raise DataError(f"{path}: data is {what}, not uint8 (images, 3072): {MEND}")
    if y_N.ndim != 1 or y_N.dtype.kind not in "iu" or len(y_N) != len(planes_ND):
        raise DataError(f"{path} has {len(planes_ND)} images and {y_N.shape} {y_N.dtype} labels: {MEND}")


def _read_class_folders(folder: Path) -> LabelledImages:
    """Images of <folder>/<class>/*.png or .jpg, by class and then in the order of their names."""
    paths, y_N, others = _image_files(folder)
    x_NHWC, converted = np.empty((len(paths), SIDE, SIDE, 3), np.uint8), 0
    digest = hashlib.md5(usedforsecurity=False)
    for i, path in enumerate(paths):
        content = read_bytes(path, "put it back", LARGEST)
        digest.update(content)
        x_NHWC[i], mode = _decode(content, path)
        converted += mode != "RGB"
    md5 = {f"all images of {CLASS_FOLDERS}/{folder.name}": digest.hexdigest()}
    return LabelledImages(x_NHWC, y_N, md5, {"no .png or .jpg": others}, {"made RGB": converted})


def _image_files(folder: Path) -> tuple[list[Path], np.ndarray, int]:
    """Image files and their classes; how many other files there are."""
    found = {path.name for path in folder.iterdir() if path.is_dir()} if folder.is_dir() else set()
    if found != set(CLASSES):
        lacking, unknown = sorted(set(CLASSES) - found), sorted(found - set(CLASSES))
        raise DataError(
            f"{folder} must have one folder per class; lacking: {', '.join(lacking) or 'none'}; "
            f"unknown: {', '.join(unknown) or 'none'}: rename them to {', '.join(CLASSES)}"
        )
    paths, labels, others = [], [], 0
    for label, name in enumerate(CLASSES):
        files = sorted((folder / name).iterdir())
        images = [path for path in files if path.suffix.lower() in SUFFIXES]
        if not images:
            raise DataError(f"{folder / name} has no .png or .jpg: put the images of the class there")
        paths += images
        labels += [label] * len(images)
        others += len(files) - len(images)
    return paths, np.array(labels, dtype=np.int64), others


def _decode(content: bytes, path: Path) -> tuple[np.ndarray, str]:
    """The pixels of an image file, and the mode that it was stored in."""
    try:
        with Image.open(io.BytesIO(content), formats=("PNG", "JPEG")) as image:
            size, mode = image.size, image.mode
            opaque = "transparency" not in image.info and _is_opaque(image)
            pixels = np.asarray(image.convert("RGB")) if size == (SIDE, SIDE) else None
    except IMAGE_FAULTS as error:
        raise DataError(
            f"{path} is not an image or is cut off ({error}): replace it, or remove it to go without"
        ) from None
    if pixels is None:
        raise DataError(f"{path} has {size[0]} x {size[1]} pixels, not 32 x 32: export it at its own size")
    if mode not in MODES or not opaque:
        what = f"mode {mode}" if opaque else "transparent pixels"
        raise DataError(f"{path} has {what}, which is no image of CIFAR-10: export it as RGB of 8 bits")
    return pixels, mode


def _is_opaque(image: Image.Image) -> bool:
    return "A" not in image.getbands() or image.getchannel("A").getextrema()[0] == 255

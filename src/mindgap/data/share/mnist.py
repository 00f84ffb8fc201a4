"""MNIST (LeCun et al.): the four idx files, raw or gzipped, as its authors and torchvision lay them out."""

import gzip
import io
import math
import zlib
from pathlib import Path

import numpy as np

from mindgap.data.errors import DataError
from mindgap.data.fetch import RemoteFile
from mindgap.data.files import is_there, read_bytes
from mindgap.data.share.labelled import LabelledImages, checked_labels, checked_md5

FOLDERS = ("mnist", "MNIST/raw")  # the second is torchvision's
CLASSES = 10
SIDE = 28
IMAGES, LABELS = 0x0803, 0x0801  # magic numbers: unsigned bytes in three dimensions, and in one
FILES = {
    "train": ("train-images-idx3-ubyte", "train-labels-idx1-ubyte"),
    "test": ("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"),
}
# Of the files themselves, and as they are sent (torchvision lists the latter).
MD5 = {
    "train-images-idx3-ubyte": "6bbc9ace898e44ae57da46a324031adb",
    "train-labels-idx1-ubyte": "a25bea736e30d166cdddb491f175f624",
    "t10k-images-idx3-ubyte": "2646ac647ad5339dbf082846283269ea",
    "t10k-labels-idx1-ubyte": "27ae3e4e09519cfbb04c329615203637",
}
GZ_MD5 = {
    "train-images-idx3-ubyte": "f68b3c2dcbeaaa9fbdd348bbdeb94873",
    "train-labels-idx1-ubyte": "d53e105ee54ea40749a09fcbcd1e9432",
    "t10k-images-idx3-ubyte": "9fb629c4189551a2d022fa330f9573f3",
    "t10k-labels-idx1-ubyte": "ec29112dd5afa0611ce80d1b7f02629c",
}
LARGEST = 2**28  # bytes of a file, unpacked; the training images have 47 million
MIRRORS = ("https://ossci-datasets.s3.amazonaws.com/mnist/", "http://yann.lecun.com/exdb/mnist/")


def find_mnist(raw: Path) -> Path | None:
    """The folder below `raw` that holds files of MNIST."""
    is_there(raw)
    found = (raw / folder for folder in FOLDERS if any(is_there(_path(raw / folder, name)) for name in MD5))
    return next(found, None)


def absent_mnist(raw: Path) -> list[RemoteFile]:
    """The files that are still to be fetched."""
    folder = find_mnist(raw) or raw / FOLDERS[0]
    return [
        RemoteFile(folder / f"{name}.gz", tuple(f"{mirror}{name}.gz" for mirror in MIRRORS), md5)
        for name, md5 in GZ_MD5.items()
        if not is_there(_path(folder, name))
    ]


def read_mnist(raw: Path, split: str, *, canonical: bool) -> LabelledImages:
    """Digits of a split, N x 28 x 28 x 1. With `canonical` the unpacked files must be the original ones."""
    folder = find_mnist(raw) or raw / FOLDERS[0]
    arrays, md5 = [], {}
    for name, magic in zip(FILES[split], (IMAGES, LABELS), strict=True):
        path = _path(folder, name)
        content = _unpacked(path)
        md5[name] = checked_md5(path, content, MD5[name] if canonical else None, _mend(path))
        arrays.append(parse_idx(content, magic, path))
    x_NHW, y_N = arrays
    if len(x_NHW) != len(y_N) or not len(y_N):
        paths = " and ".join(str(_path(folder, name)) for name in FILES[split])
        raise DataError(
            f"{paths} hold {len(x_NHW)} images and {len(y_N)} labels, which must be as many: replace both"
        )
    if x_NHW.shape[1:] != (SIDE, SIDE):
        raise DataError(
            f"{_path(folder, FILES[split][0])} has images of {x_NHW.shape[1:]}, not 28 x 28 pixels"
        )
    return LabelledImages(x_NHW[..., None], checked_labels(path, y_N, CLASSES), md5)


def parse_idx(content: bytes, magic: int, path: Path) -> np.ndarray:
    """The array of an idx file: its magic number, one big-endian size per dimension, then bytes."""
    dimensions = magic & 0xFF
    start = 4 + 4 * dimensions
    if int.from_bytes(content[:4], "big") != magic or len(content) < start:
        raise DataError(
            f"{path} begins with {content[:4].hex() or 'nothing'}, not {magic:08x}: it is no idx file of its "
            "name; replace it"
        )
    shape = tuple(np.frombuffer(content, ">u4", dimensions, 4).tolist())
    if len(content) - start != math.prod(shape):
        raise DataError(
            f"{path} announces {' x '.join(map(str, shape))} values and holds {len(content) - start}: it is "
            "cut off or altered; replace it"
        )
    return np.frombuffer(content, np.uint8, offset=start).reshape(shape)


def _path(folder: Path, name: str) -> Path:
    """The raw file where it lies there, else the packed one."""
    return folder / name if is_there(folder / name) else folder / f"{name}.gz"


def _unpacked(path: Path) -> bytes:
    content, mend = read_bytes(path, _mend(path), LARGEST), _mend(path)
    if path.suffix != ".gz":
        return content
    try:
        with gzip.open(io.BytesIO(content)) as unpacked:
            content = unpacked.read(LARGEST + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path} is cut off or no gzip file ({error}): {mend}") from None
    if len(content) > LARGEST:
        raise DataError(f"{path} holds more than {LARGEST:,} bytes: {mend}")
    return content


def _mend(path: Path) -> str:
    return f"put it back, from {MIRRORS[0]}{path.name.removesuffix('.gz')}.gz"

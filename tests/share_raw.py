"""Raw files of Share in their original forms, made from the real images of the shared test data.

The CIFAR-10 images there are JPEG copies: read them with `canonical: false`. MNIST is the original.
"""

import io
import pickle
import struct
from pathlib import Path
from typing import ClassVar

import numpy as np
from PIL import Image

from shared_data import shared

BATCH_NAMES = {"train": [f"data_batch_{i}" for i in range(1, 6)], "test": ["test_batch"]}


def share_raw(folder: Path, per_class: int | None = None) -> Path:
    """A raw folder with cifar-10-batches-py/ and mnist/*.gz.

    With `per_class` CIFAR-10 has so many images of each class in either split, and MNIST stays whole.
    """
    batches = folder / "cifar-10-batches-py"
    batches.mkdir(parents=True)
    for split, names in BATCH_NAMES.items():
        x_NHWC, y_N = real_cifar10(split, per_class)
        planes_ND = x_NHWC.transpose(0, 3, 1, 2).reshape(len(x_NHWC), -1)
        parts = np.array_split(np.arange(len(y_N)), len(names))
        for i, (name, rows) in enumerate(zip(names, parts, strict=True), 1):
            title = f"training batch {i} of 5" if split == "train" else "testing batch 1 of 1"
            (batches / name).write_bytes(batch_bytes(planes_ND[rows], y_N[rows], title))
    (folder / "mnist").mkdir()
    for path in shared("mnist").glob("*.gz"):
        (folder / "mnist" / path.name).symlink_to(path)
    return folder


def real_cifar10(split: str, per_class: int | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Images (uint8, N x 32 x 32 x 3) and classes of a split, in the order of the shared file."""
    import polars as pl  # here: who collects the tests of a GPU has none

    table = pl.read_parquet(shared("cifar10") / f"{split}.parquet")
    if per_class is not None:
        table = table.filter(pl.int_range(pl.len()).over("label") < per_class)
    images = [np.asarray(Image.open(io.BytesIO(content))) for content in table["image"]]
    return np.stack(images), table["label"].to_numpy().astype(np.int64)


def batch_bytes(planes_ND: np.ndarray, y_N: np.ndarray, title: str = "") -> bytes:
    """A batch as Python 2 pickled the originals."""
    return python2_pickle(
        {
            b"data": np.ascontiguousarray(planes_ND),
            b"labels": y_N.tolist(),
            b"batch_label": title.encode(),
            b"filenames": [b"image_s_%06d.png" % i for i in range(len(y_N))],
        }
    )


def python2_pickle(entries: dict) -> bytes:
    """Protocol 2 of Python 2: all text is of bytes, arrays name the module that numpy had then."""
    out = io.BytesIO()
    _Python2Pickler(out, protocol=2).dump(entries)
    return out.getvalue()


class _Python2Pickler(pickle._Pickler):
    dispatch: ClassVar = dict(pickle._Pickler.dispatch)

    def save_bytes(self, content: bytes) -> None:
        short = len(content) < 256
        size = struct.pack("<B" if short else "<i", len(content))
        self.write((pickle.SHORT_BINSTRING if short else pickle.BINSTRING) + size + content)
        self.memoize(content)

    def save_str(self, text: str) -> None:
        self.save_bytes(text.encode("ascii"))

    def save_global(self, obj, name=None) -> None:
        module = obj.__module__.replace("numpy._core", "numpy.core")
        self.write(pickle.GLOBAL + f"{module}\n{name or obj.__qualname__}\n".encode())
        self.memoize(obj)

    dispatch[bytes] = save_bytes
    dispatch[str] = save_str

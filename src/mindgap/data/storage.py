"""Reading a prepared dataset's folder without torch: its meta, and arrays that are what was written."""

import hashlib
import json
from pathlib import Path

import numpy as np

from mindgap.data import DATASETS
from mindgap.data.errors import DataError

FORMAT = 1
SPLITS = ("train", "test")
DTYPES = {"image": np.dtype(np.uint8)}  # how each kind of modality is stored


def mend(folder: Path) -> str:
    """What to do about a broken folder; DVC brings back or makes anew what it knows."""
    stage = f"render@{folder.name}" if folder.name in DATASETS else f"prepare_{folder.name}"
    return f"run `dvc checkout {folder}` or `dvc repro {stage}` again"


def read_meta(path: Path | str) -> dict:
    """The parsed meta.json of a prepared dataset."""
    path = Path(path)
    file = path / "meta.json"
    try:
        meta = json.loads(file.read_text())
    except FileNotFoundError:
        raise DataError(f"{file} is missing: {mend(path)}") from None
    except json.JSONDecodeError as error:
        raise DataError(f"{file} is not JSON ({error}): {mend(path)}") from None
    if meta.get("format") != FORMAT:
        raise DataError(f"{file} has format {meta.get('format')!r}, not {FORMAT}: {mend(path)}")
    return meta


def data_digest(path: Path | str) -> str:
    """SHA-256 over the names and hashes of all arrays, from meta.json alone."""
    return digest_of(read_meta(path))


def digest_of(meta: dict) -> str:
    return hashlib.sha256(json.dumps(meta["sha256"], sort_keys=True).encode()).hexdigest()


def expected_arrays(meta: dict) -> dict[str, tuple[tuple[int, ...], np.dtype]]:
    """Shape and dtype of every array file, by file name."""
    arrays = {}
    for split in SPLITS:
        size = meta["sizes"][split]
        for name, modality in meta["modalities"].items():
            if modality["kind"] not in DTYPES:
                raise DataError(
                    f"modality {name} is of kind {modality['kind']!r}; known are {', '.join(DTYPES)}"
                )
            arrays[f"{split}.{name}.npy"] = ((size, *modality["shape"]), DTYPES[modality["kind"]])
        arrays[f"{split}.present.npy"] = ((size, len(meta["modalities"])), np.dtype(bool))
        arrays[f"{split}.label.npy"] = ((size,), np.dtype(np.int64))
    return arrays


def read_array(
    path: Path | str, file_name: str, meta: dict, *, verify: bool = True, mmap: bool = False
) -> np.ndarray:
    """One array of a prepared dataset; its shape and dtype are always checked, its hash if `verify`."""
    path = Path(path)
    file = path / file_name
    if file_name not in meta["sha256"]:
        raise DataError(f"{path / 'meta.json'} has no sha256 for {file_name}: {mend(path)}")
    try:
        array = np.load(file, mmap_mode="r" if mmap else None, allow_pickle=False)
    except FileNotFoundError:
        raise DataError(f"{file} is missing: {mend(path)}") from None
    except (ValueError, EOFError, OSError) as error:
        raise DataError(f"{file} is truncated or no array ({error}): {mend(path)}") from None
    shape, dtype = expected_arrays(meta)[file_name]
    if array.shape != shape or array.dtype != dtype:
        found = f"{array.dtype} {array.shape}, not {dtype} {shape}"
        raise DataError(f"{file} holds {found}: {mend(path)}")
    if verify and file_sha256(file) != meta["sha256"][file_name]:
        raise DataError(f"{file} was altered: its SHA-256 is not the one in meta.json: {mend(path)}")
    return array


def file_sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()

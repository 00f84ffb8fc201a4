"""Reading a prepared dataset's folder without torch: its meta, and arrays that are what was written."""

import hashlib
import json
from pathlib import Path

import numpy as np

from mindgap.data import CREDENTIALED
from mindgap.data.errors import DataError
from mindgap.data.modality import Modality

FORMAT = 2
SPLITS = ("train", "test")
SKIPPED = "skipped.txt"  # instead of a dataset: the line that says what its source lacks


def mend(folder: Path) -> str:
    """What to do about a broken folder; DVC brings back or makes anew what it knows."""
    if folder.name in CREDENTIALED:
        return f"run `dvc repro -f extract_{folder.name}` in {folder.parent.parent} again"
    return f"run `dvc checkout {folder}` or `dvc repro -f prepare@{folder.name}` again"


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


def settings_of(meta: dict) -> dict:
    """What a dataset was made with, by the names of params.yaml: parameters only, no counts of a source."""
    if "style" not in meta:
        return {"prepare": meta.get("settings", {})}
    sizes = {f"{split}_size": meta["sizes"][split] for split in SPLITS}
    render = {"root_seed": meta["root_seed"], **sizes, **meta["style"]}
    return {"render": render, "prepare": {"absence": meta["absence"]}}


def expected_arrays(meta: dict) -> dict[str, tuple[tuple[int, ...], np.dtype]]:
    """Shape and dtype of every array file, by file name."""
    arrays = {}
    for split in SPLITS:
        size = meta["sizes"][split]
        for name, modality in modalities_of(meta).items():
            arrays[f"{split}.{name}.npy"] = ((size, *modality.shape), modality.dtype)
        arrays[f"{split}.present.npy"] = ((size, len(meta["modalities"])), np.dtype(bool))
        arrays[f"{split}.label.npy"] = ((size,), np.dtype(np.int64))
        if meta["grouped"]:
            arrays[f"{split}.group.npy"] = ((size,), np.dtype(np.int64))
    return arrays


def modalities_of(meta: dict) -> dict[str, Modality]:
    """The modalities of a dataset in its order."""
    try:
        return {name: Modality.from_meta(one) for name, one in meta["modalities"].items()}
    except ValueError as error:
        raise DataError(f"meta.json of {meta['dataset']}: {error}") from None


def read_array(
    path: Path | str, file_name: str, meta: dict, *, verify: bool = True, mmap: bool = False
) -> np.ndarray:
    """One array of a prepared dataset; its shape and dtype are always checked, its hash if `verify`.

    With `mmap` it stays on disk until it is read; what is written to it changes no file.
    """
    path = Path(path)
    file = path / file_name
    if file_name not in meta["sha256"]:
        raise DataError(f"{path / 'meta.json'} has no sha256 for {file_name}: {mend(path)}")
    try:
        array = np.load(file, mmap_mode="c" if mmap else None, allow_pickle=False)
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

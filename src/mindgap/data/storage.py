"""Reading a prepared dataset's folder without torch: its meta, and files that are what was written."""

import errno
import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from mindgap.base.modality import Modality
from mindgap.data import CREDENTIALED
from mindgap.data.errors import DataError

FORMAT = 3
SPLITS = ("train", "test")
LOOK_AGAIN = 'chmod -R u+w "$(dvc cache dir)"'
SKIPPED = "skipped.txt"  # instead of a dataset: the line that says what its source lacks
# What rendered datasets, and records of runs on them, do not say from before it could be asked for.
OLDER: Mapping[str, Any] = {"label_values": 10, "style": {}}
ASIDE = ".{}.partial"  # the folder beside a dataset in which its successor is made and checked


def mend(folder: Path) -> str:
    """What to do about a broken folder; DVC brings back or makes anew what it knows."""
    name = folder.name
    if folder.parent.name == ASIDE.format(name):
        folder = folder.parent.parent / name
    if name in CREDENTIALED:
        home = folder.parent.parent
        again = f"`{LOOK_AGAIN}` and `dvc repro -f extract_{name}` there"
        return f"in {home} run `dvc checkout -f prepared/{name}`, or, if it comes back the same, {again}"
    pull = f"where a team shares it, `rm -r {folder}; dvc pull {folder}`"
    again = f"`{LOOK_AGAIN}` and, {pull}, else `dvc repro -f prepare@{name}`"
    return f"run `dvc checkout -f {folder}`, or, if it comes back the same, {again}"


def remake(stage: str, project: Path | None = None) -> str:
    """How to make the outputs of a stage anew where something changed them.

    `dvc checkout` may bring the damage back: DVC believes a cached file as long as nobody can write to it.
    """
    inside = f"in {project} " if project else ""
    return f"run {inside}`{LOOK_AGAIN}; dvc repro -f -s {stage}` (DVC then verifies its cache too)"


def read_meta(path: Path | str) -> dict:
    """The parsed meta.json of a prepared dataset, which is as it was written; older ones are filled up."""
    path = Path(path)
    file = path / "meta.json"
    try:
        meta = json.loads(read_data_text(file))
    except json.JSONDecodeError as error:
        raise DataError(f"{file} is not JSON ({error}): {mend(path)}") from None
    found = meta.get("format") if isinstance(meta, dict) else None
    if found != FORMAT:
        raise DataError(f"{file} has format {found!r}, not {FORMAT}: {mend(path)}")
    if meta.get("meta_sha256") != seal_of(meta):
        raise DataError(f"{file} was altered: its content is not what its meta_sha256 says: {mend(path)}")
    if "style" not in meta:
        return meta
    return {"label_values": OLDER["label_values"], "own_style": OLDER["style"], **meta}


def seal_of(meta: Mapping[str, Any]) -> str:
    """SHA-256 of all that a meta says besides its own, whatever the order and the layout."""
    rest = {key: value for key, value in meta.items() if key != "meta_sha256"}
    return hashlib.sha256(json.dumps(rest, sort_keys=True).encode()).hexdigest()


def read_data_text(file: Path) -> str:
    """The text of a file in a dataset's folder; what cannot be read is a DataError that says why."""
    try:
        return file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise unreadable_data(file, error) from None


def unreadable_data(file: Path, error: OSError | UnicodeDecodeError) -> DataError:
    """What to raise for a file in a dataset's folder that cannot be read."""
    what, first = f"cannot be read ({getattr(error, 'strerror', None) or error})", ""
    if isinstance(error, FileNotFoundError):
        what = "is a link to nothing" if file.is_symlink() else "is missing"
    elif isinstance(error, OSError) and error.errno == errno.ELOOP:  # DVC cannot get over it either
        link = next(path for path in (file, *file.parents) if path.is_symlink())
        first = f"remove the link that leads in a circle (`rm {link}`) and "
    return DataError(f"{file} {what}: {first}{mend(file.parent)}")


def skipped_line(path: Path | str) -> str | None:
    """Why a dataset was skipped; None where it was not."""
    file = Path(path) / SKIPPED
    return read_data_text(file).strip() if os.path.lexists(file) else None


def data_digest(path: Path | str) -> str:
    """SHA-256 over the names and hashes of all arrays, from meta.json alone."""
    return meta_digest(read_meta(path))


def meta_digest(meta: dict) -> str:
    return hashlib.sha256(json.dumps(meta["sha256"], sort_keys=True).encode()).hexdigest()


def settings_of(meta: dict) -> dict:
    """What a dataset was made with, by the names of params.yaml: parameters only, no counts of a source."""
    if "style" not in meta:
        return {"prepare": meta.get("settings", {})}
    sizes = {f"{split}_size": meta["sizes"][split] for split in SPLITS}
    render = {"root_seed": meta["root_seed"], **sizes, **meta["style"]}
    own = {"absence": meta["absence"], "label_values": meta["label_values"], "style": meta["own_style"]}
    return {"render": render, "prepare": own}


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
    except OSError as error:
        raise unreadable_data(file, error) from None
    except (ValueError, EOFError, OverflowError, MemoryError) as error:
        raise DataError(f"{file} is truncated or no array ({error}): {mend(path)}") from None
    shape, dtype = expected_arrays(meta)[file_name]
    if array.shape != shape or array.dtype != dtype:
        found = f"{array.dtype} {array.shape}, not {dtype} {shape}"
        raise DataError(f"{file} holds {found}: {mend(path)}")
    if verify:
        _verify(file, meta["sha256"][file_name])
    return array


def verify_tables(path: Path | str, meta: Mapping[str, Any]) -> None:
    """Compare the tables beside the arrays, such as flow.csv, with their SHA-256 in the meta."""
    for name, sha256 in meta["tables_sha256"].items():
        _verify(Path(path) / name, sha256)


def _verify(file: Path, sha256: str) -> None:
    try:
        found = file_sha256(file)
    except OSError as error:
        raise unreadable_data(file, error) from None
    if found != sha256:
        raise DataError(f"{file} was altered: its SHA-256 is not the one in meta.json: {mend(file.parent)}")


def file_sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()

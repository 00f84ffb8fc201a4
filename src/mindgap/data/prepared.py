"""Writing a prepared dataset: a folder that appears whole or not at all, and the meta that describes it."""

import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mindgap.data.errors import DataError
from mindgap.data.flow import Flow
from mindgap.data.modality import Modality
from mindgap.data.storage import FORMAT, SKIPPED, file_sha256


@contextmanager
def written_at_once(out_dir: Path | str) -> Iterator[Path]:
    """A folder beside `out_dir` that takes its place when all went well."""
    out_dir = Path(out_dir)
    known = ("meta.json", SKIPPED)
    if out_dir.exists() and any(out_dir.iterdir()) and not any((out_dir / name).exists() for name in known):
        raise DataError(f"{out_dir} holds something else than a dataset: empty it or choose another folder")
    folder = out_dir.parent / f".{out_dir.name}.partial"
    shutil.rmtree(folder, ignore_errors=True)  # left behind by a process that was killed
    folder.mkdir(parents=True)
    try:
        yield folder
        if out_dir.exists():
            shutil.rmtree(out_dir)
        folder.rename(out_dir)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def write_meta(
    folder: Path,
    *,
    dataset: str,
    modalities: Mapping[str, Modality],
    weak: str | None,
    num_classes: int,
    class_names: Sequence[str],
    ceilings: Mapping[str, float],
    sizes: Mapping[str, int],
    flow: Flow,
    details: Mapping[str, Any],
    grouped: bool = False,
) -> dict:
    """Write flow.csv and meta.json beside the arrays, which are hashed; the meta as it will be read.

    Arrays are `<split>.<modality>.npy`, `<split>.present.npy` (N x M) and `<split>.label.npy` of both splits;
    with `grouped` also `<split>.group.npy`: samples of one group (a patient) are never divided between
    labelled pool and validation. `details` are the dataset's own entries.
    """
    flow.write(folder / "flow.csv")
    meta = {
        "format": FORMAT,
        "dataset": dataset,
        "modalities": {name: modality.to_meta() for name, modality in modalities.items()},
        "weak": weak,
        "num_classes": num_classes,
        "class_names": list(class_names),
        "ceilings": dict(ceilings),
        "sizes": dict(sizes),
        "grouped": grouped,
        **details,
        "sha256": {path.name: file_sha256(path) for path in sorted(folder.glob("*.npy"))},
    }
    (folder / "meta.json").write_text(json.dumps(meta, indent=1) + "\n")
    return json.loads(json.dumps(meta))

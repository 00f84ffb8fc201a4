"""Prepared datasets as a stage with a fault would have written them: whatever is checked on reading fits."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np

from mindgap.data.storage import file_sha256, seal_of


def spoil_meta(folder: Path, **entries) -> None:
    """Other entries in meta.json."""
    meta = {**json.loads((folder / "meta.json").read_text()), **entries}
    (folder / "meta.json").write_text(json.dumps({**meta, "meta_sha256": seal_of(meta)}))


def spoil_array(folder: Path, name: str, change: Callable[[np.ndarray], np.ndarray | None]) -> None:
    """Another array: what `change` gives back, or what it has done to the one it gets."""
    array = np.load(folder / name)
    changed = change(array)
    np.save(folder / name, array if changed is None else changed)
    sha256 = json.loads((folder / "meta.json").read_text())["sha256"]
    spoil_meta(folder, sha256={**sha256, name: file_sha256(folder / name)})

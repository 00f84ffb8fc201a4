"""The blueprint of a dataset: a file with all that its prepared form depends on (data/blueprints).

That is what is asked for, the code that makes it and its suites. DVC's prepare stage depends on that file
alone: so no dataset depends on another one's code, and none on a comment.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from mindgap.base.plugins import outside_parts
from mindgap.core.asked import pairing_asked, source_settings
from mindgap.core.digest import SOURCE, code_digest, module_digests
from mindgap.core.params import Params, pick
from mindgap.core.records import write_atomically
from mindgap.data import DATASETS, RENDERED, SOURCES
from mindgap.data.dataset import Dataset, load_dataset
from mindgap.data.errors import DataError
from mindgap.data.quintfeatures.images import Style
from mindgap.data.storage import read_meta
from mindgap.results.expectations import own_suites
from mindgap.stages.paths import EXPECTATIONS, PLUG_INS, places

# Modules that no array or table of a dataset passes through: a picture for people, a bar, classes of errors;
# and the table of all datasets, of which `asked_of` has what it says of this one.
CHANGES_NO_DATA = (
    "base/errors.py",
    "base/progress.py",
    "data/__init__.py",
    "data/contact_sheet.py",
    "data/errors.py",
)


def write_blueprint(params: Params, dataset: str) -> Path:
    """Write the file that a dataset's stage depends on; where it lies."""
    code, where = code_of(dataset), places(dataset)
    prefix = "rendered" if dataset in RENDERED else dataset
    folders = [EXPECTATIONS / "prepared", *own_suites(dataset)]
    suites = [EXPECTATIONS / "prepared/flow.json"]
    suites += [path for folder in folders for path in folder.glob(f"{prefix}_*.json")]
    blueprint = {
        "asked": asked_of(params, dataset),
        "code": code,
        "suites": {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in sorted(suites) if p.exists()},
    }
    write_atomically(where.blueprint, (json.dumps(blueprint, indent=1) + "\n").encode())
    return where.blueprint


def write_blueprints(params: Params) -> None:
    """The blueprints of the datasets in the parameters, of no others, and of what is installed beside."""
    parts = {name: code_digest(files) if files else "" for name, files in outside_parts().items()}
    write_atomically(PLUG_INS, (json.dumps(parts, indent=1) + "\n").encode())
    written = {PLUG_INS, *(write_blueprint(params, dataset) for dataset in params.dataset)}
    for folder in {path.parent for path in written}:
        for path in set(folder.iterdir()) - written:
            path.unlink()


def asked_of(params: Params, dataset: str) -> dict[str, Any]:
    """What the parameters and the declaration say of a dataset, keyed and written as in its meta.json."""
    declared = pick(DATASETS, dataset, "dataset", "mindgap.data.DATASETS")
    asked: dict[str, Any] = {"dataset": dataset, "modalities": declared.modalities, "weak": declared.weak}
    if dataset in SOURCES:
        asked["settings"] = asdict(source_settings(params, dataset))
    else:
        render, pairing = params.at_scale.render, pairing_asked(params, dataset)
        asked |= {
            "label_values": pairing.label_values,  # before what follows from it
            "ceilings": pairing.ceilings,
            "label_features": pairing.label_features,
            "root_seed": render.root_seed,
            "sizes": {"train": render.train_size, "test": render.test_size},
            "style": asdict(Style(**render.style)),
            "absence": dict(pairing.absence),
            "own_style": {name: dict(own) for name, own in pairing.style.items()},
        }
    return json.loads(json.dumps(asked))


def differences(params: Params, dataset: str, meta: Mapping[str, Any]) -> list[str]:
    """What a prepared dataset has otherwise than is asked for: a line each, with the parameter's name."""
    asked, found = asked_of(params, dataset), {**meta, "modalities": list(meta["modalities"])}
    asked, found = _flat(asked), _flat({key: found.get(key) for key in asked})
    return [
        f"{'.'.join(key)} is {found.get(key)!r}, but {_parameter(params, dataset, *key)} says {wanted!r}"
        for key in dict.fromkeys([*asked, *found])
        if (wanted := asked.get(key)) != found.get(key)
    ]


def _flat(entries: Mapping[str, Any]) -> dict[tuple[str, ...], Any]:
    """The entries of a dictionary by their keys, those of a dictionary in it by both keys."""
    flat = {}
    for key, entry in entries.items():
        inner = {(key, part): one for part, one in entry.items()} if isinstance(entry, dict) else {}
        flat |= inner if isinstance(entry, dict) else {(key,): entry}
    return flat


def _parameter(params: Params, dataset: str, key: str, part: str = "") -> str:
    """Where it is said what an entry of meta.json should be."""
    at = f"scales.{params.scale}"
    return {
        "root_seed": f"{at}.render.root_seed",
        "sizes": f"{at}.render.{part}_size",
        "style": f"{at}.render.{part}",
        "absence": f"{at}.prepare.{dataset}.absence.{part}",
        "label_values": f"{at}.prepare.{dataset}.label_values",
        "own_style": f"{at}.prepare.{dataset}.style.{part}",
        "settings": f"{at}.prepare.{dataset}.{part}",
    }.get(key, "its declaration in src/mindgap/data")


def load_prepared(params: Params, dataset: str) -> Dataset:
    """The prepared dataset, every file verified, and what the parameters ask for; else a DataError.

    One that was skipped for want of its files raises SourceMissing.
    """
    where = places(dataset)
    loaded = load_dataset(where.prepared)
    lines = differences(params, dataset, read_meta(where.prepared))
    if lines:
        more = f"; and {len(lines) - 1} more" if len(lines) > 1 else ""
        raise DataError(
            f"{where.prepared / 'meta.json'}: {lines[0]}{more}: make it anew with `dvc repro -f "
            f"{where.stage}`{where.inside}, or set the parameter back"
        )
    return loaded


def code_of(dataset: str) -> dict[str, str]:
    """Digests by path of the modules that a dataset's arrays and tables pass through."""
    renderer = SOURCE / "data/quintfeatures/render.py"
    start = SOURCES[dataset].module.__file__ if dataset in SOURCES else renderer
    return module_digests(Path(start), [SOURCE / name for name in CHANGES_NO_DATA])

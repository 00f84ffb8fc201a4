"""sensitivity: run the variants of a folder of reports/ (its variants.yaml), and collect what they found.

A variant runs by the plain commands prepare, train and acquire in a folder of its own, with the project's
store. Its curves are checked as a report checks them; they have to be of the parameters that were asked for.
"""

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from itertools import combinations, product
from pathlib import Path
from typing import Any

from mindgap.base.errors import MindGapError
from mindgap.core.check import check_params
from mindgap.core.digest import SOURCE, code_digest
from mindgap.core.params import Params, load_params
from mindgap.core.records import store_root, write_atomically
from mindgap.core.run_code import part_files
from mindgap.data.errors import DataError
from mindgap.data.storage import read_meta
from mindgap.parts.fusions import FUSIONS
from mindgap.results.curves import Selection, read_curves
from mindgap.results.provenance import flat, read_origins
from mindgap.results.sensitivity import (
    VARIANTS,
    Variants,
    collected_json,
    fusion_of,
    read_sensitivity,
    read_variants,
)
from mindgap.stages.blueprint import differences
from mindgap.stages.overrides import PARAMS, overridden, write_overridden
from mindgap.stages.paths import EXPECTATIONS, REPORTS, SENSITIVITY, places

RUNS = Path(".mindgap")  # in it a folder for each of variants: safe to delete


class SensitivityError(MindGapError):
    """A variant cannot be run or collected; the message names it and the mend."""


def run_stage(keys: Sequence[str] = (), folder: Path = SENSITIVITY) -> None:
    """Run and collect these variants, or all, once every variant was checked; finished rounds are kept."""
    folder = _place(folder)
    variants = _read(keys, folder)
    check_variants(variants, folder)
    for key in [key for key in variants.keys if not keys or key in keys]:
        made = RUNS / folder.name / key
        print(f"{folder.name}: {key}, in {made}", flush=True)
        _run_in(made, variants.overrides(key))
        _collect(key, made, variants, folder)
    _tell_of_page(folder)
    if all((folder / f"{key}.csv").exists() for key in variants.keys):
        read_sensitivity(folder)  # that they belong together


def collect_stage(key: str, made: Path, folder: Path = SENSITIVITY) -> None:
    """Copy what `mindgap acquire` left in a folder to the files of a variant, if it is that variant's."""
    folder = _place(folder)
    _collect(key, made, _read([key], folder), folder)
    _tell_of_page(folder)


def _place(folder: Path) -> Path:
    """The folder as the report knows it, which looks for variants in reports/ alone."""
    place = Path(os.path.realpath(folder))
    if place.parent != REPORTS.resolve():
        raise SensitivityError(
            f"{folder} is no folder of {REPORTS}, where the report looks for variants: name one there that "
            f"holds a {VARIANTS}, such as {SENSITIVITY}"
        )
    return REPORTS / place.name


def _read(keys: Sequence[str], folder: Path) -> Variants:
    variants = read_variants(folder / VARIANTS)
    strange = [key for key in keys if key not in variants.keys]
    if strange:
        raise SensitivityError(f"unknown variant {', '.join(strange)}; known: {', '.join(variants.keys)}")
    return variants


def check_variants(variants: Variants, folder: Path = SENSITIVITY) -> None:
    """Every variant can be run, and no two are the same."""
    params = {}
    for key in variants.keys:
        try:
            params[key] = overridden(variants.overrides(key))
            check_params(params[key])
        except MindGapError as error:
            raise SensitivityError(f"{folder / VARIANTS}: {key}: {error}") from error
    for one, other in combinations(params, 2):
        if _asked(params[one]) == _asked(params[other]):
            raise SensitivityError(f"{folder / VARIANTS}: {one} and {other} ask for the same: take one out")


def _asked(params: Params) -> list[Any]:
    """What the runs of a variant are made with, in which a recipe wins over `training`."""
    scale, runs = params.at_scale, product(params.dataset, params.regime)
    data = [scale.render, scale.model, *(scale.prepare.get(dataset) for dataset in params.dataset)]
    return [params.model_dump(exclude={"scales"}), *data, *(params.setting(*run) for run in runs)]


def _run_in(folder: Path, overrides: Sequence[str]) -> None:
    """A variant's stages, as by hand. Data that is prepared here already is taken from here."""
    folder.mkdir(parents=True, exist_ok=True)
    params = write_overridden(overrides, folder / PARAMS.name)
    _link(EXPECTATIONS, folder)
    _link(Path("data/raw"), folder)
    for dataset in params.dataset:
        _link(prepared := places(dataset).prepared, folder, _is_asked_for(prepared, params, dataset))
        if not (folder / prepared).is_symlink():
            _mindgap(folder, "prepare", dataset)
        for regime in params.regime:
            _mindgap(folder, "train", dataset, regime)
            _mindgap(folder, "acquire", dataset, regime)


def _is_asked_for(prepared: Path, params: Params, dataset: str) -> bool:
    try:
        return not differences(params, dataset, read_meta(prepared))
    except DataError:
        return False


def _link(path: Path, folder: Path, wanted: bool = True) -> None:
    """The project's own path, in its place in the folder."""
    link = folder / path
    if link.is_symlink():
        link.unlink()
    if wanted and path.exists() and not link.exists():
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(path.resolve())


def _mindgap(folder: Path, *arguments: str) -> None:
    """A command in the folder, with the store of this project; one that fails has said why."""
    source = os.pathsep.join([str(SOURCE.parent), *filter(None, [os.environ.get("PYTHONPATH")])])
    environment = {**os.environ, "MINDGAP_STORE": str(store_root().resolve()), "PYTHONPATH": source}
    command = [sys.executable, "-m", "mindgap", *arguments]
    if subprocess.run(command, cwd=folder, env=environment).returncode:
        raise SensitivityError(
            f"`mindgap {' '.join(arguments)}` failed in {folder}; finished rounds are kept"
        )


def _collect(key: str, made: Path, variants: Variants, folder: Path) -> None:
    """Check what was found where a variant was made, then write it as its files in `folder`."""
    overrides = variants.overrides(key)
    asked, params = overridden(overrides), load_params(made / PARAMS.name)
    if changed := _differences(_settings(params), _settings(asked)):
        raise SensitivityError(f"{key}: {made} was made with other parameters: {'; '.join(changed)}")
    curves_dir, origins_dir = made / "reports/curves", made / "reports/provenance"
    names = [f"{dataset}-{regime}" for dataset, regime in product(asked.dataset, asked.regime)]
    selection = Selection(
        asked.scale, asked.dataset, asked.regime, asked.query, asked.mitigation, asked.seeds
    )
    read_origins(origins_dir, read_curves(curves_dir, selection), selection)
    files = [(curves_dir / f"{name}.csv").read_text() for name in names]
    header, *_ = files[0].splitlines(keepends=True)
    curves = (header + "".join(text.removeprefix(header) for text in files)).encode()
    origins = [json.loads((origins_dir / f"{name}.json").read_text()) for name in names]
    told = collected_json(overrides, curves, origins, _loop(origins))
    write_atomically(folder / f"{key}.csv", curves)
    write_atomically(folder / f"{key}.json", told.encode())
    print(f"{folder / key}.csv: collected", flush=True)


def _tell_of_page(folder: Path) -> None:
    """Say it where DVC would not make the page anew, as no stage depends on the folder."""
    pipeline = Path("dvc.yaml")
    if pipeline.exists() and f"- {folder.as_posix()}\n" not in pipeline.read_text():
        print(
            f"{pipeline}: add {folder.as_posix()} to `deps` of the stage `report`, or `dvc repro` leaves its "
            f"page without these",
            flush=True,
        )


def _loop(origins: Sequence[Mapping[str, Any]]) -> str:
    """The digest of the numerics' code without a fusion's, if the code here made these runs; else empty."""
    made = [(one["settings"], run) for one in origins for run in one["runs"].values()]
    code = {(fusion_of(settings, run), run["numerics"]) for settings, run in made}
    here = all(name in FUSIONS and digest == code_digest(part_files(FUSIONS, name)) for name, digest in code)
    return code_digest() if here else ""


def _settings(params: Params) -> dict[str, Any]:
    """All parameters that a number of the runs may depend on, by their names in params.yaml."""
    dump = params.model_dump(exclude={"published", "diagnose", "diagnose_sources", "scales"})
    scale = params.at_scale.model_dump()
    for name in ("prepare", "recipe", "budget"):
        scale[name] = {dataset: scale[name].get(dataset) for dataset in params.dataset}
    return flat({**dump, "scales": {params.scale: scale}})


def _differences(made: Mapping[str, Any], asked: Mapping[str, Any]) -> list[str]:
    keys = [key for key in {**asked, **made} if made.get(key) != asked.get(key)]
    return [f"{key} was {made.get(key)}, {asked.get(key)} is asked for" for key in keys]

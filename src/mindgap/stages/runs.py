"""train@ and acquire@<dataset>-<regime>: the jobs that params.yaml asks for, executed and written down."""

import csv
import hashlib
import inspect
import io
import json
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from mindgap.data.dataset import Dataset, load_dataset
from mindgap.data.errors import SourceMissing
from mindgap.errors import MindGapError
from mindgap.loop import Cell, Run
from mindgap.machine import Machine
from mindgap.mitigations import MITIGATIONS
from mindgap.models import ENCODERS
from mindgap.params import Params
from mindgap.provenance import SOURCE, code_digest, commit, versions
from mindgap.query import METHODS
from mindgap.query.select import hyperparameters
from mindgap.records import CURVE_COLUMNS, digest_of, write_atomically
from mindgap.stages.paths import places
from mindgap.stages.prepare import write_skipped
from mindgap.sweep import Job, execute


def train_stage(params: Params, dataset_name: str, regime: str) -> None:
    """The models on the initial sets, one per mitigation and seed: shared by all query methods."""
    where = places(dataset_name)
    try:
        dataset = _dataset(params, dataset_name, regime)
    except SourceMissing as missing:
        return write_skipped(where.models / f"{dataset_name}-{regime}", str(missing))
    jobs = [
        Job(
            run_of(params, Cell(dataset_name, regime, mitigation, seed), dataset),
            where.prepared,
            where.store,
        )
        for mitigation in params.mitigation
        for seed in params.seeds
    ]
    execute(jobs, Machine.from_environment(), f"train {dataset_name}-{regime}")
    # DVC empties the folder first only where the output does not persist.
    shutil.rmtree(where.models / f"{dataset_name}-{regime}", ignore_errors=True)
    for job in jobs:
        initial, record = _initial(job.run.cell), job.record_store.read()[0]
        write_atomically(initial.with_suffix(".safetensors"), job.weights.read_bytes())
        write_atomically(initial.with_suffix(".json"), json.dumps(record, indent=1).encode())


def acquire_stage(params: Params, dataset_name: str, regime: str) -> None:
    """All runs of a dataset and regime, as records and as the table of their learning curves."""
    where, name = places(dataset_name), f"{dataset_name}-{regime}"
    try:
        dataset = _dataset(params, dataset_name, regime)
    except SourceMissing as missing:
        write_skipped(where.runs / name, str(missing))
        return write_atomically(where.curves / f"{name}.csv", curves_csv([], None).encode())
    jobs = []
    for mitigation in params.mitigation:
        for seed in params.seeds:
            initial = _initial(Cell(dataset_name, regime, mitigation, seed))
            initial_digest = _initial_digest(initial)
            for query in params.query:
                cell = Cell(dataset_name, regime, mitigation, seed, query)
                run = run_of(params, cell, dataset, initial_digest)
                jobs.append(Job(run, where.prepared, where.store, initial))
    execute(jobs, Machine.from_environment(), f"acquire {name}")
    records = [record for job in jobs for record in job.record_store.read()]
    lines = "".join(json.dumps(record, separators=(",", ":")) + "\n" for record in records)
    write_atomically(where.runs / name / "records.jsonl", lines.encode())
    write_atomically(where.curves / f"{name}.csv", curves_csv(records, dataset).encode())


def run_of(params: Params, cell: Cell, dataset: Dataset, initial_digest: str | None = None) -> Run:
    """A cell with its settings resolved and the digest of everything its numbers depend on.

    `initial_digest` is that of the weights it starts from; an initial model has none.
    """
    setting = params.setting(cell.dataset, cell.regime)
    mitigation = MITIGATIONS[cell.mitigation]
    mitigation_settings = {**_defaults(mitigation), **params.mitigation_settings.get(cell.mitigation, {})}
    files, query_settings = [Path(inspect.getfile(mitigation))], {}
    if cell.query is not None:
        query_settings = {**hyperparameters(cell.query), **params.query_settings.get(cell.query, {})}
        files += [SOURCE / "query" / "kernels.py", SOURCE / "query" / "select.py"]
        files.append(Path(inspect.getfile(METHODS[cell.query].fn)))
    values = {k: v if isinstance(v, str) else v.model_dump() for k, v in vars(setting).items()}
    kinds = {modality.kind for modality in dataset.modalities.values()}
    encoder = {kind: values["model"]["encoder"][kind] for kind in sorted(kinds)}
    values["model"]["encoder"] = encoder  # the encoders of other kinds change nothing here
    files += [f for kind, one in encoder.items() for f in encoder_files(kind, one["name"])]
    depends_on = {
        "cell": asdict(cell),
        "setting": values,
        "mitigation_settings": mitigation_settings,
        "query_settings": query_settings,
        "data": dataset.digest,
        "code": code_digest(files),
        "initial": initial_digest,
    }
    provenance = {
        "commit": commit(),
        "code": depends_on["code"],
        "data": dataset.digest,
        "versions": versions(),
        "settings": {k: depends_on[k] for k in ("setting", "mitigation_settings", "query_settings")},
    }
    return Run(cell, setting, mitigation_settings, query_settings, digest_of(depends_on), provenance)


def encoder_files(kind: str, name: str) -> list[Path]:
    """The code of an encoder; MiniLM's weights are pinned by hash in a module of its own."""
    files = [Path(inspect.getfile(ENCODERS[kind][name]))]
    return [*files, SOURCE / "minilm.py"] if name == "minilm" else files


def curves_csv(records: Iterable[Mapping[str, Any]], dataset: Dataset | None) -> str:
    """One row per run, round and subset: no times in it, so that equal runs give equal bytes."""
    text = io.StringIO()
    writer = csv.DictWriter(text, CURVE_COLUMNS, lineterminator="\n")
    writer.writeheader()
    for record in records:
        for subset, metrics in record["metrics"].items():
            writer.writerow(
                {
                    **{
                        key: record["cell"][key]
                        for key in ("dataset", "regime", "mitigation", "query", "seed")
                    },
                    **{key: record[key] for key in ("scale", "rounds", "round", "labelled")},
                    **{key: metrics[key] for key in ("balanced_accuracy", "accuracy", "ece")},
                    "run": record["run"][:16],
                    "subset": subset,
                    "chance": 1 / dataset.num_classes,
                    "ceiling": dataset.ceilings[subset],
                }
            )
    return text.getvalue()


def _dataset(params: Params, name: str, regime: str) -> Dataset:
    """The prepared dataset, every file verified, and big enough for what is asked of it."""
    needed = params.setting(name, regime).budget.needed
    where = places(name)
    dataset = load_dataset(where.prepared)
    if len(dataset.train) < needed:
        raise MindGapError(
            f"{where.prepared} has {len(dataset.train)} training samples, but {name}-{regime} at scale "
            f"{params.scale} needs {needed}: lower scales.{params.scale}.budget.{name}.{regime}, or run "
            f"`dvc repro {where.stage}` for a larger dataset"
        )
    return dataset


def _initial_digest(initial: Path) -> str:
    for path in (initial.with_suffix(".safetensors"), initial.with_suffix(".json")):
        if not path.exists():
            raise MindGapError(f"{path} is missing: run `dvc repro train@{initial.parent.name}`")
    return hashlib.sha256(initial.with_suffix(".safetensors").read_bytes()).hexdigest()


def _initial(cell: Cell) -> Path:
    """Where a cell's initial model lies, as .safetensors and .json; the query makes no difference."""
    return places(cell.dataset).models / f"{cell.dataset}-{cell.regime}" / f"{cell.mitigation}-{cell.seed}"


def _defaults(cls: type) -> dict[str, Any]:
    return {name: p.default for name, p in inspect.signature(cls).parameters.items()}

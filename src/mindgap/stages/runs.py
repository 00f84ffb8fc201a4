"""train@ and acquire@<dataset>-<regime>: the jobs that params.yaml asks for, executed and written down."""

import json
import shutil
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

from mindgap.base.errors import MindGapError
from mindgap.base.settings import defaults
from mindgap.core.digest import code_digest, commit, versions
from mindgap.core.loop import Cell, Run, warnings_of
from mindgap.core.params import DatasetRecipe, Params, Setting
from mindgap.core.records import (
    CURVE_COLUMNS,
    SEARCH_COLUMNS,
    RecordError,
    check_form,
    csv_text,
    curve_points,
    digest_of,
    measured_csv,
    numbers_digest,
    provenance_json,
    seal,
    unseal,
    write_atomically,
)
from mindgap.core.run_code import part_files, run_code
from mindgap.core.search import choose, rows_of
from mindgap.data import CREDENTIALED, RENDERED
from mindgap.data.dataset import Dataset
from mindgap.data.errors import SourceMissing
from mindgap.data.storage import remake
from mindgap.engine.jobs import Start
from mindgap.engine.machine import Machine
from mindgap.engine.sweep import Job, execute
from mindgap.parts.evaluators import EVALUATORS, GIVEN
from mindgap.parts.fusions import FUSIONS, own_settings
from mindgap.parts.mitigations import MITIGATIONS
from mindgap.parts.query import METHODS
from mindgap.parts.query.select import hyperparameters
from mindgap.stages.blueprint import load_prepared
from mindgap.stages.paths import places
from mindgap.stages.prepare import write_skipped


def train_stage(params: Params, dataset_name: str, regime: str) -> None:
    """The models on the initial sets, one per mitigation and seed: shared by all query methods."""
    where = places(dataset_name)
    try:
        dataset = _dataset(params, dataset_name, regime)
    except SourceMissing as missing:
        write_atomically(where.search / f"{dataset_name}-{regime}.csv", csv_text(SEARCH_COLUMNS, []).encode())
        return write_skipped(where.models / f"{dataset_name}-{regime}", str(missing))
    name = f"{dataset_name}-{regime}"
    recipe = _search(params, dataset, dataset_name, regime)
    jobs = {}
    for mitigation in params.mitigation:
        for seed in params.seeds:
            cell = Cell(dataset_name, regime, mitigation, seed)
            for dropout in params.at_scale.model.initial_models:
                run = run_of(params, cell, dataset, setting=setting_of(params, cell, recipe, dropout))
                jobs[_initial(cell, dropout)] = Job(run, where.prepared, where.store)
    runs = {job.run.cell.seed: job.run for job in jobs.values()}  # runs of a seed share their sets
    for line in (line for run in runs.values() for line in warnings_of(run, dataset)):
        print(f"warning: {line}", file=sys.stderr, flush=True)
    execute(list(jobs.values()), Machine.from_environment(), f"train {name}")
    models = {initial: job.model() for initial, job in jobs.items()}
    # DVC empties the folder first only where the output does not persist.
    shutil.rmtree(where.models / name, ignore_errors=True)
    for initial in jobs:
        _write_model(initial, models[initial])
    if recipe is not None:
        chosen = {"dataset": dataset_name, "regime": regime, "recipe": recipe.model_dump()}
        _write_sealed(_recipe_file(dataset_name, regime), chosen)


def acquire_stage(params: Params, dataset_name: str, regime: str) -> None:
    """All runs of a dataset and regime, as records and as the table of their learning curves."""
    where, name = places(dataset_name), f"{dataset_name}-{regime}"
    try:
        dataset = _dataset(params, dataset_name, regime)
    except SourceMissing as missing:
        write_skipped(where.runs / name, str(missing))
        write_atomically(where.provenance / f"{name}.json", provenance_json([]).encode())
        write_atomically(where.measured / f"{name}.csv", measured_csv([]).encode())
        return write_atomically(where.curves / f"{name}.csv", curves_csv([], None).encode())
    recipe, jobs, digests = chosen_recipe(params, dataset_name, regime), [], {}
    for mitigation in params.mitigation:
        for seed in params.seeds:
            for query in params.query:
                cell = Cell(dataset_name, regime, mitigation, seed, query)
                dropout = params.at_scale.model.has_dropout(METHODS[query].dropout)
                initial = _initial(cell, dropout)
                setting = setting_of(params, cell, recipe, dropout)
                if initial not in digests:
                    first = run_of(params, replace(cell, query=None), dataset, setting=setting)
                    digests[initial] = _initial_digest(initial, first)
                run = run_of(params, cell, dataset, digests[initial], setting)
                keep_model = params.keep_models == "last"
                jobs.append(Job(run, where.prepared, where.store, initial, keep_model=keep_model))
    execute(jobs, Machine.from_environment(), f"acquire {name}")
    records = [record for job in jobs for record in job.result()]
    models = {kept_path(job.run.cell): job.model() for job in jobs if job.keep_model}
    # DVC empties the folder first only where the output does not persist.
    shutil.rmtree(where.runs / name, ignore_errors=True)
    for path, model in models.items():
        _write_model(path, model)
    lines = "".join(json.dumps(record, separators=(",", ":")) + "\n" for record in records)
    write_atomically(where.runs / name / "records.jsonl", lines.encode())
    curves = curves_csv(records, dataset)
    write_atomically(where.curves / f"{name}.csv", curves.encode())
    measured = measured_csv(records)
    write_atomically(where.measured / f"{name}.csv", measured.encode())
    told = provenance_json(records, dataset.settings, curves=curves, measured=measured)
    write_atomically(where.provenance / f"{name}.json", told.encode())


def setting_of(params: Params, cell: Cell, recipe: DatasetRecipe | None, dropout: bool) -> Setting:
    """The setting of a cell, with the recipe that a search chose, if one did."""
    setting = params.setting(cell.dataset, cell.regime, dropout)
    return setting if recipe is None else replace(setting, recipe=recipe)


def run_of(
    params: Params,
    cell: Cell,
    dataset: Dataset,
    initial_digest: str | None = None,
    setting: Setting | None = None,
) -> Run:
    """A cell with its settings resolved and the digest of everything its numbers depend on.

    `initial_digest` is that of the initial model it starts from, which has none itself. `setting`: the one of
    params.yaml by default.
    """
    setting = setting or params.setting(cell.dataset, cell.regime)
    mitigation_settings = {
        **defaults(MITIGATIONS[cell.mitigation], 0),
        **params.mitigation_settings.get(cell.mitigation, {}),
    }
    query_settings = {}
    if cell.query is not None:
        query_settings = {**hyperparameters(cell.query), **params.query_settings.get(cell.query, {})}
    evaluators = {
        name: {**defaults(EVALUATORS[name], GIVEN), **params.evaluate_settings.get(name, {})}
        for name in params.evaluate
    }
    values = {k: v if isinstance(v, str) else v.model_dump() for k, v in vars(setting).items()}
    kinds = {modality.kind for modality in dataset.modalities.values()}
    # The encoders of other kinds change nothing here.
    values["model"]["encoder"] = {kind: values["model"]["encoder"][kind] for kind in sorted(kinds)}
    values["model"]["fusion"] = own_settings(setting.model.fusion)  # nor do the sizes of another fusion
    settings = {
        "setting": values,
        "mitigation_settings": mitigation_settings,
        "query_settings": query_settings,
        "evaluators": evaluators,
    }
    code = run_code(cell, settings)
    depends_on = {
        "cell": asdict(cell),
        **settings,
        "data": dataset.digest,
        "code": code,
        "initial": initial_digest,
    }
    provenance = {
        "commit": commit(),
        "code": code,
        "numerics": code_digest(part_files(FUSIONS, setting.model.fusion["name"])),
        "data": dataset.digest,
        "versions": versions(),
        "settings": settings | {"data": dataset.settings},
    }
    digest, subsets = digest_of(depends_on), tuple(dataset.ceilings)
    return Run(cell, setting, mitigation_settings, query_settings, digest, provenance, subsets, evaluators)


def curves_csv(records: Iterable[Mapping[str, Any]], dataset: Dataset | None) -> str:
    """One row per run, round and subset: no times in it, so that equal runs give equal bytes."""
    rows = (
        {
            **{key: record["cell"][key] for key in ("dataset", "regime", "mitigation", "query", "seed")},
            **{key: record[key] for key in ("scale", "rounds", "round", "labelled")},
            **point,
            "run": record["run"][:16],
            "subset": subset,
            "chance": 1 / dataset.num_classes,
            "ceiling": dataset.ceilings[subset],
        }
        for record in records
        for subset, point in curve_points(record).items()
    )
    return csv_text(CURVE_COLUMNS, rows)


def _dataset(params: Params, name: str, regime: str) -> Dataset:
    """The prepared dataset, verified, what the parameters ask for, and big enough for it."""
    needed = params.setting(name, regime).budget.needed
    where, scale = places(name), f"scales.{params.scale}"
    dataset = load_prepared(params, name)
    if len(dataset.train) < needed:
        raise MindGapError(
            f"{where.prepared} has {len(dataset.train)} training samples, but {name}-{regime} at scale "
            f"{params.scale} needs {needed}: lower {scale}.budget.{name}.{regime}, or raise train_size in "
            f"{scale}.{'render' if name in RENDERED else f'prepare.{name}'}, and run `dvc repro`"
        )
    return dataset


def _initial_digest(initial: Path, first: Run) -> str:
    """Digest of an initial model, once it is the one that `first` makes, as it was written."""
    with _mended(first.cell.dataset, first.cell.regime):
        record = Start.read(initial).record
        if record.get("run") != first.digest:
            raise RecordError(f"{initial}.json is of other parameters, data or code than there are now")
        try:
            check_form(record)
        except ValueError as error:
            raise RecordError(f"{initial}.json is no record of a model: {error}") from None
        return numbers_digest(record)


@contextmanager
def _mended(dataset: str, regime: str) -> Iterator[None]:
    """Faults of what a train stage wrote, with what to do about them."""
    try:
        yield
    except RecordError as error:
        own = dataset in CREDENTIALED  # a DVC project of its own
        stage = f"train@{regime}" if own else f"train@{dataset}-{regime}"
        mend = remake(stage, places(dataset).models.parent if own else None)
        raise RecordError(f"{error}: {mend}") from error


def _write_model(path: Path, model: Start) -> None:
    write_atomically(path.with_suffix(".safetensors"), model.weights)
    _write_sealed(path.with_suffix(".json"), model.record)


def _write_sealed(path: Path, value: Mapping[str, Any]) -> None:
    write_atomically(path, json.dumps(seal(value), indent=1).encode())


def _initial(cell: Cell, dropout: bool) -> Path:
    """Where a cell's initial model lies, as .safetensors and .json; the query itself makes no difference."""
    kind = "" if dropout else "-no_dropout"
    folder = places(cell.dataset).models / f"{cell.dataset}-{cell.regime}"
    return folder / f"{cell.mitigation}-{cell.seed}{kind}"


def kept_path(cell: Cell) -> Path:
    """Where the model of a cell's last round lies, likewise, if it was to be kept."""
    folder = places(cell.dataset).runs / f"{cell.dataset}-{cell.regime}" / "models"
    return folder / f"{cell.query}-{cell.mitigation}-{cell.seed}"


def _recipe_file(dataset_name: str, regime: str) -> Path:
    """Where a search leaves the recipe it chose."""
    return places(dataset_name).models / f"{dataset_name}-{regime}" / "recipe.json"


def chosen_recipe(params: Params, dataset_name: str, regime: str) -> DatasetRecipe | None:
    """The recipe that the train stage chose; None where Table 5's is taken as it is."""
    if params.search.method == "none":
        return None
    path = _recipe_file(dataset_name, regime)
    with _mended(dataset_name, regime):
        chosen = unseal(path)
        if (chosen.get("dataset"), chosen.get("regime")) != (dataset_name, regime):
            raise RecordError(f"{path} is of another dataset or regime")
        try:
            return DatasetRecipe.model_validate(chosen.get("recipe"))
        except ValueError as error:
            raise RecordError(f"{path} holds no recipe ({error})") from error


def _search(params: Params, dataset: Dataset, dataset_name: str, regime: str) -> DatasetRecipe | None:
    """The recipe that params.search chooses, None where it is off; its trials as reports/search."""
    where, search, name = places(dataset_name), params.search, f"{dataset_name}-{regime}"
    recipe, rows = None, []
    if search.method != "none":
        setting = params.search_setting(dataset_name, regime)

        def finish(jobs: Sequence[Job]) -> None:
            execute(jobs, Machine.from_environment(), f"search {name}")

        has_images = any(modality.kind == "image" for modality in dataset.modalities.values())
        job_of = partial(trial_of, params, dataset)
        recipe, trials = choose(search, setting, has_images, job_of, finish)
        rows = rows_of(search, setting, recipe, trials)
    write_atomically(where.search / f"{name}.csv", csv_text(SEARCH_COLUMNS, rows).encode())
    return recipe


def trial_of(params: Params, dataset: Dataset, setting: Setting, seed: int) -> Job:
    """The trial of a setting by params.search, on the start set of a seed."""
    cell, where = (
        Cell(setting.dataset, setting.regime, params.search.mitigation, seed),
        places(setting.dataset),
    )
    return Job(run_of(params, cell, dataset, setting=setting), where.prepared, where.store, trial=True)

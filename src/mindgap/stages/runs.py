"""train@ and acquire@<dataset>-<regime>: the jobs that params.yaml asks for, executed and written down."""

import json
import shutil
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from functools import cache, partial
from itertools import product
from pathlib import Path
from typing import Any

from mindgap.base.settings import defaults
from mindgap.core.digest import commit, versions
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
from mindgap.core.run_code import digest_here, part_files, run_code
from mindgap.core.search import Trial, TrialJob, choose_recipe, trial_rows
from mindgap.data import CREDENTIALED
from mindgap.data.dataset import Dataset
from mindgap.data.errors import SourceMissing
from mindgap.data.storage import remake
from mindgap.engine.jobs import StoredModel
from mindgap.engine.layout import check_size
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
    jobs = initial_jobs(params, dataset, dataset_name, regime, recipe)
    runs = {job.run.cell.seed: job.run for job in jobs.values()}  # runs of a seed share their sets
    for line in (line for run in runs.values() for line in warnings_of(run, dataset)):
        print(f"warning: {line}", file=sys.stderr, flush=True)
    execute(list(jobs.values()), Machine.from_environment(), f"train {name}")
    _replace_models(where.models / name, {initial: job.model() for initial, job in jobs.items()})
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
    recipe = chosen_recipe(params, dataset_name, regime)
    first = initial_jobs(params, dataset, dataset_name, regime, recipe)
    digest_of = cache(lambda initial: _initial_digest(initial, first[initial].run))
    jobs = cell_jobs(params, dataset, dataset_name, regime, recipe, digest_of)
    execute(jobs, Machine.from_environment(), f"acquire {name}")
    records = [record for job in jobs for record in job.result()]
    _replace_models(
        where.runs / name, {kept_path(job.run.cell): job.model() for job in jobs if job.keep_model}
    )
    lines = "".join(json.dumps(record, separators=(",", ":")) + "\n" for record in records)
    write_atomically(where.runs / name / "records.jsonl", lines.encode())
    curves = curves_csv(records, dataset)
    write_atomically(where.curves / f"{name}.csv", curves.encode())
    measured = measured_csv(records)
    write_atomically(where.measured / f"{name}.csv", measured.encode())
    told = provenance_json(records, dataset.settings, curves=curves, measured=measured)
    write_atomically(where.provenance / f"{name}.json", told.encode())


def initial_jobs(
    params: Params, dataset: Dataset, name: str, regime: str, recipe: DatasetRecipe | None
) -> dict[Path, Job]:
    """The trainings of all initial models, by where they are written."""
    where, jobs = places(name), {}
    for mitigation, seed in product(params.mitigation, params.seeds):
        cell = Cell(name, regime, mitigation, seed)
        for dropout in params.at_scale.model.initial_models:
            run = run_of(params, cell, dataset, setting=setting_of(params, cell, recipe, dropout))
            jobs[_initial(cell, dropout)] = Job(run, where.prepared, where.store)
    return jobs


def cell_jobs(
    params: Params,
    dataset: Dataset,
    name: str,
    regime: str,
    recipe: DatasetRecipe | None,
    digest_of: Callable[[Path], str | None],
) -> list[Job]:
    """All runs; `digest_of` gives that of the numbers of the initial model that a run starts from."""
    where, jobs = places(name), []
    for mitigation, seed, query in product(params.mitigation, params.seeds, params.query):
        cell = Cell(name, regime, mitigation, seed, query)
        dropout = params.at_scale.model.has_dropout(METHODS[query].dropout)
        initial = _initial(cell, dropout)
        run = run_of(params, cell, dataset, digest_of(initial), setting_of(params, cell, recipe, dropout))
        keep_model = params.keep_models == "last"
        jobs.append(Job(run, where.prepared, where.store, initial, keep_model=keep_model))
    return jobs


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
        "numerics": digest_here(frozenset(part_files(FUSIONS, setting.model.fusion["name"]))),
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
    params.setting(name, regime)  # what has no setting is told first
    dataset = load_prepared(params, name)
    check_size(params, name, regime, len(dataset.train))
    return dataset


def _initial_digest(initial: Path, first: Run) -> str:
    """Digest of an initial model, once it is the one that `first` makes, as it was written."""
    with _mended(first.cell.dataset, first.cell.regime):
        record = StoredModel.read(initial).record
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


def _replace_models(folder: Path, models: Mapping[Path, StoredModel]) -> None:
    """Empty an output's folder, which DVC does only where it does not persist, and write its models."""
    shutil.rmtree(folder, ignore_errors=True)
    for path, model in models.items():
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
    where, name = places(dataset_name), f"{dataset_name}-{regime}"

    def finish(jobs: Sequence[Job]) -> None:
        execute(jobs, Machine.from_environment(), f"search {name}")

    recipe, trials = searched(
        params, dataset, dataset_name, regime, partial(trial_of, params, dataset), finish
    )
    rows = []
    if recipe is not None:
        rows = trial_rows(params.search, params.search_setting(dataset_name, regime), recipe, trials)
    write_atomically(where.search / f"{name}.csv", csv_text(SEARCH_COLUMNS, rows).encode())
    return recipe


def searched(
    params: Params,
    dataset: Dataset,
    name: str,
    regime: str,
    job_of: Callable[[Setting, int], TrialJob],
    finish: Callable[[Sequence[Any]], None],
) -> tuple[DatasetRecipe | None, list[Trial]]:
    """What `choose_recipe` gives: the recipe of params.search and its trials; none where it is off."""
    if params.search.method == "none":
        return None, []
    has_images = any(modality.kind == "image" for modality in dataset.modalities.values())
    return choose_recipe(params.search, params.search_setting(name, regime), has_images, job_of, finish)


def trial_of(params: Params, dataset: Dataset, setting: Setting, seed: int) -> Job:
    """The trial of a setting by params.search, on the start set of a seed."""
    cell, where = (
        Cell(setting.dataset, setting.regime, params.search.mitigation, seed),
        places(setting.dataset),
    )
    return Job(run_of(params, cell, dataset, setting=setting), where.prepared, where.store, trial=True)

"""plan: what a selection would compute, before anything starts; how long it takes here and how much is done.

Nothing is written but what `--json` names. A run counts as finished where the store has its rounds.
"""

import json
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch

from mindgap.core.loop import Cell, device_name
from mindgap.core.params import (
    DatasetRecipe,
    Params,
    check_params,
    check_runs,
)
from mindgap.core.records import numbers_digest, write_atomically
from mindgap.core.search import choose
from mindgap.data.dataset import Dataset, load_dataset
from mindgap.data.errors import DataError
from mindgap.data.storage import mend, modalities_of, read_meta, skipped_line
from mindgap.data.workers import usable_cores
from mindgap.engine.calibration import Calibration, as_a_worker, looks_of
from mindgap.engine.jobs import Job
from mindgap.engine.layout import Layout, absence_of, expected_layout
from mindgap.engine.machine import Machine
from mindgap.engine.plan import (
    Estimate,
    Finished,
    Name,
    Part,
    Taken,
    actual,
    part_disk,
    part_seconds,
    plan_part,
)
from mindgap.parts.mitigations import make_mitigation
from mindgap.stages.blueprint import differences
from mindgap.stages.paths import places
from mindgap.stages.plan_table import Plan, as_json, show
from mindgap.stages.runs import run_of, setting_of, trial_of


def plan_stage(
    params: Params, datasets: Sequence[str] = (), *, measure: bool = True, json_file: Path | None = None
) -> None:
    """Print the plan of the datasets, those of params.yaml by default, and write it to `json_file`."""
    plan = make_plan(params, datasets, measure=measure)
    show(plan)
    if json_file:
        write_atomically(json_file, (json.dumps(as_json(plan), indent=1) + "\n").encode())


def make_plan(params: Params, datasets: Sequence[str] = (), *, measure: bool = True) -> Plan:
    """The plan of the datasets, those of params.yaml by default; MIMIC has to be named."""
    check_params(params)
    names = list(datasets) or params.dataset
    check_runs(params, names, params.regime)
    layouts = {name: _layout(params, name) for name in names}
    parts, machine = plan_parts(params, layouts), Machine.local()
    return Plan(
        params,
        {name: layout for name, (layout, _) in layouts.items()},
        {name: absent for name, (_, absent) in layouts.items() if absent},
        _estimates(params, parts, machine, measure),
        _at_once(machine),
        machine.devices,
        device_name(torch.device(machine.devices[0])),
        _capacity(machine),
    )


def _layout(params: Params, dataset: str) -> tuple[Layout, str]:
    """The layout of a dataset, from its meta where it is prepared for these parameters; else why not."""
    folder = places(dataset).prepared
    if skipped_line(folder) is not None:
        return expected_layout(params, dataset), "skipped for want of its files"
    if not os.path.lexists(folder) or (folder.is_dir() and not os.path.lexists(folder / "meta.json")):
        return expected_layout(params, dataset), "not prepared yet"
    meta = read_meta(folder)
    if meta["dataset"] != dataset:
        raise DataError(f"{folder} holds the dataset {meta['dataset']}: {mend(folder)}")
    if differences(params, dataset, meta):
        return expected_layout(params, dataset), "prepared with other parameters"
    layout = Layout(
        modalities_of(meta),
        meta["num_classes"],
        meta["sizes"]["train"],
        meta["sizes"]["test"],
        absence_of(params, dataset),
    )
    return layout, ""


def plan_parts(params: Params, layouts: Mapping[str, tuple[Layout, str]]) -> list[Part]:
    """The parts of these datasets; what is not prepared has nothing finished."""
    looks = {
        (mitigation, query): looks_of(
            query,
            params.query_settings.get(query, {}),
            make_mitigation(mitigation, params.mitigation_settings.get(mitigation, {})),
        )
        for mitigation in params.mitigation
        for query in params.query
    }
    parts = []
    for name, (layout, absent) in layouts.items():
        for regime in params.regime:
            part = plan_part(params, name, regime, layout, looks)
            if not absent:
                part = plan_part(params, name, regime, layout, looks, finished(params, part))
            parts.append(part)
    return parts


def finished(params: Params, part: Part) -> Finished:
    """What the store has of a part of which the data is prepared.

    A run is known by the weights that it starts from: without its initial model it counts as not begun.
    """
    where = places(part.dataset)
    dataset = load_dataset(where.prepared, verify=False)
    trials, recipe = _searched(params, part, dataset)
    if params.search.method != "none" and recipe is None:
        return Finished(trials)

    def job_of(name: Name, initial: Job | None = None) -> Job:
        cell = Cell(part.dataset, part.regime, name.mitigation, name.seed, name.query)
        digest = numbers_digest(initial.result()[0]) if initial else None
        setting = setting_of(params, cell, recipe, name.dropout)
        run = run_of(params, cell, dataset, digest, setting)
        keep_model = initial is not None and params.keep_models == "last"
        return Job(run, where.prepared, where.store, initial and initial.weights, keep_model=keep_model)

    initial = {job.name: job_of(job.name) for job in part.initial}
    rounds = {name: _taken(job) for name, job in initial.items()}
    for job in part.runs:
        first = replace(job.name, query=None)
        if rounds[first]:
            rounds[job.name] = _taken(job_of(job.name, initial[first]))
    return Finished(trials, rounds)


def _taken(job: Job) -> tuple[Taken, ...]:
    """What the records of a job say; a run's first has the seconds of its initial model too, which go."""
    return tuple(
        Taken(
            {
                what: seconds
                for what, seconds in record["seconds"].items()
                if what == "query" or record["round"] or job.initial is None
            },
            record["provenance"]["device"],
        )
        for record in job.sound()[0]
    )


class _Unfinished(Exception):  # noqa: N818 - it ends a search that has still to be made
    pass


def _searched(
    params: Params, part: Part, dataset: Dataset
) -> tuple[list[tuple[Taken, ...]], DatasetRecipe | None]:
    """The trials of the search that the store has, and the recipe they chose if it has all."""
    search, done = params.search, []
    if search.method == "none":
        return done, None

    def look(jobs: Sequence[Job]) -> None:
        there = [job for job in jobs if job.finished_rounds == job.rounds]
        done.extend(map(_taken, there))
        if len(there) < len(jobs):
            raise _Unfinished

    try:
        setting = params.search_setting(part.dataset, part.regime)
        recipe, _ = choose(search, setting, part.layout.has_images, partial(trial_of, params, dataset), look)
    except _Unfinished:
        return done, None
    return done, recipe


def _estimates(params: Params, parts: Sequence[Part], machine: Machine, measure: bool) -> list[Estimate]:
    """Bytes of all parts, and their seconds if something may be measured on the first device."""
    device = machine.devices[0] if measure else "cpu"
    if measure:
        print(f"measuring steps and passes on {device}", file=sys.stderr, flush=True)
    with as_a_worker(device):
        calibration = Calibration(device)
        return [_estimate(params, part, calibration, machine, measure) for part in parts]


def _estimate(
    params: Params, part: Part, calibration: Calibration, machine: Machine, measure: bool
) -> Estimate:
    """Of a part. Its memory is that of the mitigation that needs most: on a GPU, and where runs execute."""
    model = part.layout, part.setting
    settings = {
        name: params.mitigation_settings.get(name, {}) for name in {job.name.mitigation for job in part.jobs}
    }
    kept = len(part.runs) * (params.keep_models == "last")
    disk = part_disk(part, calibration.weights(*model), kept)
    # Before there is anything else on the device.
    memory = {
        kind: max(
            (calibration.memory(*model, *one, kind) for one in settings.items()), key=lambda one: one.process
        )
        for kind in dict.fromkeys(["cuda", machine.devices[0].partition(":")[0]])
    }
    if not measure:
        return Estimate(part, disk, memory, actual(part, None))
    speeds = {name: calibration.speed(*model, name, own) for name, own in settings.items()}
    return Estimate(part, disk, memory, actual(part, speeds), part_seconds(part, speeds, _at_once(machine)))


def _capacity(machine: Machine) -> int:
    """Bytes of memory of the smallest GPU, or of this machine."""
    if machine.devices[0] == "cpu":
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    gpus = [torch.device(name) for name in machine.devices if name != "cpu"]
    return min(torch.cuda.get_device_properties(gpu).total_memory for gpu in gpus)


def _at_once(machine: Machine) -> int:
    """More processes than cores do no more."""
    on_cpu = set(machine.devices) == {"cpu"}
    return min(machine.workers, usable_cores()) if on_cpu else machine.workers

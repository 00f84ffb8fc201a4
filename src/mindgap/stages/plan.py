"""plan: what a selection would compute, how long that takes on this machine, and how much of it is done.

It starts no run and writes nothing but the file of `--json`. A round is finished if the store has its record.
"""

import heapq
import json
import math
import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import product
from pathlib import Path
from typing import Any

import torch

from mindgap.core.check import check_params, check_runs
from mindgap.core.loop import Cell, device_name, model_spec
from mindgap.core.network import build_model
from mindgap.core.params import Params, Setting
from mindgap.core.records import numbers_digest, write_atomically
from mindgap.data.dataset import Dataset, load_dataset
from mindgap.data.errors import DataError
from mindgap.data.storage import mend, modalities_of, read_meta, skipped_line
from mindgap.data.workers import usable_cores
from mindgap.engine.calibration import Calibration, Speed
from mindgap.engine.jobs import Job, set_up
from mindgap.engine.layout import Layout, absence_of, check_size, expected_layout
from mindgap.engine.machine import Machine
from mindgap.engine.plan import Amounts, Work, counted, imagined, total
from mindgap.stages.blueprint import differences
from mindgap.stages.paths import places
from mindgap.stages.runs import cell_jobs, initial_jobs, searched, trial_of

# Measured bytes: a table's row of an image or text; the contact sheet of 32 px images.
TABLE_ROW, CONTACT_SHEET = 50, 50_000


@dataclass(frozen=True)
class Taken:
    """What a finished round took, by its record: seconds by what they were spent on, the device's name, and
    the most bytes that its process held for it (None in older records).
    """

    seconds: Mapping[str, float]
    device: str
    memory: int | None = None


@dataclass(frozen=True)
class Planned:
    """The work of one run, initial model or trial of the search, round by round.

    The first `finished` rounds are done; `taken` says of each what it took. A trial that diverged is finished
    and left no record. `bytes`: the size of all its records.
    """

    cell: Cell
    rounds: tuple[Work, ...]
    bytes: int = 0
    finished: int = 0
    taken: tuple[Taken, ...] = ()

    @property
    def left(self) -> Work:
        return total(self.rounds[self.finished :])


@dataclass(frozen=True)
class Disk(Amounts):
    """Bytes. `cache` is DVC's second copy of the first three, where the file system cannot share blocks."""

    prepared: int = 0
    models: int = 0
    records: int = 0
    store: int = 0
    cache: int = 0

    @property
    def total(self) -> int:
        return self.prepared + self.models + self.records + self.store + self.cache


@dataclass(frozen=True)
class Part:
    """What the stages train@ and acquire@ of one dataset and regime do, and what it costs.

    `speeds` are by mitigation, `memory` is what a run's process holds, as far as they are known: by
    finished rounds (`recorded`), else by what the plan's own process held while it measured.
    """

    dataset: str
    regime: str
    setting: Setting
    search: tuple[Planned, ...]
    initial: tuple[Planned, ...]
    runs: tuple[Planned, ...]
    disk: Disk = Disk()
    speeds: Mapping[str, Speed] = field(default_factory=dict)
    memory: int | None = None
    recorded: bool = False

    @property
    def jobs(self) -> tuple[Planned, ...]:
        return self.search + self.initial + self.runs

    @property
    def work(self) -> Work:
        return total(work for job in self.jobs for work in job.rounds)

    @property
    def left(self) -> Work:
        return total(job.left for job in self.jobs)

    def seconds(self, workers: int, left: bool = False) -> float:
        """Estimated, with so many runs at once: in all, or of what is left.

        Search, initial models and runs wait for one another.
        """
        seconds = 0.0
        for jobs in (self.search, self.initial, self.runs):
            works = [(job.cell.mitigation, job.left if left else total(job.rounds)) for job in jobs]
            durations = [self.speeds[name].seconds(work) for name, work in works if work != Work()]
            if durations:
                start = max(speed.start for speed in self.speeds.values())
                seconds += start + makespan(durations, workers)
        return seconds

    @property
    def planned(self) -> float:
        """Seconds that the speeds give the finished rounds."""
        done = ((job.cell.mitigation, total(job.rounds[: len(job.taken)])) for job in self.jobs)
        return math.fsum(self.speeds[mitigation].seconds(work) for mitigation, work in done)


def makespan(durations: Iterable[float], workers: int) -> float:
    """When the last of the jobs ends, each given in its turn to the worker that is free first."""
    free = [0.0] * workers
    for duration in durations:
        heapq.heapreplace(free, free[0] + duration)
    return max(free)


@dataclass(frozen=True)
class Plan:
    """A selection with its parts. `absent`: of which datasets nothing is looked up, and why.

    `workers`: how many runs are at work at once, on `devices` in turn, of which the first is named
    `device_name` in records and each has `capacity` bytes of memory.
    """

    params: Params
    layouts: Mapping[str, Layout]
    absent: Mapping[str, str]
    parts: Sequence[Part]
    workers: int
    devices: tuple[str, ...]
    device_name: str
    capacity: int


def plan_stage(
    params: Params, datasets: Sequence[str] = (), *, measure: bool = True, json_file: Path | None = None
) -> None:
    """Print the plan of the datasets, those of params.yaml by default, and write it to `json_file`."""
    from mindgap.stages.plan_table import as_json, show

    plan = make_plan(params, datasets, measure=measure)
    show(plan)
    if json_file:
        write_atomically(json_file, (json.dumps(as_json(plan), indent=1) + "\n").encode(), "another file")


def make_plan(params: Params, datasets: Sequence[str] = (), *, measure: bool = True) -> Plan:
    """The plan of the datasets, those of params.yaml by default; MIMIC has to be named."""
    check_params(params)
    names = list(datasets) or params.dataset
    check_runs(params, names, params.regime)
    machine = Machine.local()
    device = machine.devices[0]
    set_up(device)  # several threads take longer over a few numbers than one
    layouts = {name: _layout(params, name) for name in names}
    parts = [_part(params, name, regime, *layouts[name]) for name, regime in product(names, params.regime)]
    if measure:
        print(f"measuring steps and passes on {device}", file=sys.stderr, flush=True)
        calibration = Calibration(device)
        parts = [_measured(params, part, layouts[part.dataset][0], calibration) for part in parts]
    name = device_name(torch.device(device))
    return Plan(
        params,
        {name: layout for name, (layout, _) in layouts.items()},
        {name: absent for name, (_, absent) in layouts.items() if absent},
        [_as_recorded(part, name) for part in parts],
        _at_once(machine),
        machine.devices,
        name,
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
    sizes, absence = meta["sizes"], absence_of(params, dataset)
    return Layout(modalities_of(meta), meta["num_classes"], sizes["train"], sizes["test"], absence), ""


def _part(params: Params, name: str, regime: str, layout: Layout, absent: str) -> Part:
    """The jobs of a dataset and regime; what is not prepared has nothing finished."""
    setting = params.setting(name, regime)
    if layout.exact:
        check_size(params, name, regime, layout.train)
    dataset = imagined(name, layout, setting.budget.needed)
    if not absent:
        dataset = load_dataset(places(name).prepared, verify=False)
    jobs = Jobs(params, dataset, name, regime, there=not absent)
    net = build_model(layout.modalities, layout.num_classes, model_spec(setting), seed=0)
    weights = sum(x.nbytes for x in net.state_dict().values())
    model = weights + jobs.initial[0].bytes
    models, kept = len(jobs.initial) * model, len(jobs.runs) * model * (params.keep_models == "last")
    records = kept + sum(job.bytes for job in jobs.runs)
    trained = model * sum(total(job.rounds) != Work() for job in (*jobs.search, *jobs.initial))
    disk = Disk(models=models, records=records, store=trained + records, cache=models + records)
    return Part(name, regime, setting, tuple(jobs.search), tuple(jobs.initial), tuple(jobs.runs), disk)


def prepared_disk(layout: Layout) -> Disk:
    """A prepared dataset and DVC's copy of it."""
    tables = (layout.train + layout.test) * TABLE_ROW * len(layout.modalities)
    size = layout.bytes + tables + CONTACT_SHEET
    return Disk(prepared=size, cache=size)


@dataclass
class _Trial:
    """A trial of a search, and whether it is finished; before that it counts as equal to all others."""

    job: Job
    finished: bool

    def result(self) -> list[dict[str, Any]]:
        return self.job.result() if self.finished else [{"fit": {"best_validation": 0.0, "steps": 0}}]


class Jobs:
    """All jobs of a dataset and regime, planned, in the order of the stages.

    An initial model that the search has trained already, as its winner, costs nothing more. A run's records
    are found by its recipe and by the weights that it starts from: until the search is finished and its
    initial model is there, it counts as not begun.
    """

    def __init__(self, params: Params, dataset: Dataset, name: str, regime: str, there: bool):
        self.dataset, self.there = dataset, there
        self._counted: dict[str, list[tuple[Work, int]]] = {}
        self._trained: set[str] = set()
        self.search: list[Planned] = []

        def job_of(setting: Setting, seed: int) -> _Trial:
            job = trial_of(params, dataset, setting, seed)
            return _Trial(job, there and job.finished_rounds == job.rounds)

        def finish(trials: Sequence[_Trial]) -> None:
            self.search += [self.planned(trial.job) for trial in trials]

        recipe, _ = searched(params, dataset, name, regime, job_of, finish)
        self.there = there and all(trial.finished for trial in self.search)
        first = initial_jobs(params, dataset, name, regime, recipe)
        initial = {path: self.planned(job) for path, job in first.items()}
        digests = {
            path: numbers_digest(first[path].result()[0]) if one.finished else None
            for path, one in initial.items()
        }
        self.initial = list(initial.values())
        jobs = cell_jobs(params, dataset, name, regime, recipe, digests.__getitem__)
        self.runs = [self.planned(job) for job in jobs]

    def planned(self, job: Job) -> Planned:
        rounds, sizes = zip(*self._count(job), strict=True)
        records, fault = job.sound() if self.there else ([], None)
        finished = job.rounds_of(records, fault) if self.there else 0
        if job.run.digest in self._trained:
            return Planned(job.run.cell, (Work(),) * len(rounds), sum(sizes), finished)
        if job.initial is None:
            self._trained.add(job.run.digest)
        return Planned(job.run.cell, rounds, sum(sizes), finished, tuple(_taken(job, one) for one in records))

    def _count(self, job: Job) -> list[tuple[Work, int]]:
        """Count one seed for all. Only groups of samples, which are set aside whole, make seeds differ."""
        cell = job.run.cell if self.dataset.train.group_N is not None else replace(job.run.cell, seed=0)
        key = repr((cell, job.run.setting))
        if key not in self._counted:
            self._counted[key] = list(counted(job.run, self.dataset))
        return self._counted[key]


def _taken(job: Job, record: Mapping[str, Any]) -> Taken:
    """What a record says; a run's first has the seconds of its initial model too, which go."""
    own = record["round"] or job.initial is None
    seconds = {what: s for what, s in record["seconds"].items() if own or what not in ("fit", "evaluate")}
    return Taken(seconds, record["provenance"]["device"], record.get("peak_memory"))


def _measured(params: Params, part: Part, layout: Layout, calibration: Calibration) -> Part:
    names = {job.cell.mitigation for job in part.jobs}
    settings = {name: params.mitigation_settings.get(name, {}) for name in sorted(names)}
    speeds, memory = calibration.speeds(layout, part.setting, settings)
    return replace(part, speeds=speeds, memory=memory)


def _as_recorded(part: Part, device: str) -> Part:
    """With the memory that finished rounds took on the device, if they say so."""
    there = [one.memory for job in part.jobs for one in job.taken if one.device == device and one.memory]
    return replace(part, memory=max(there), recorded=True) if there else part


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

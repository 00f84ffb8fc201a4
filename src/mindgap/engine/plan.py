"""What a selection costs, counted before anything starts: trainings, steps, samples, seconds and bytes.

Counts are exact: a training's come from its own `Recipe`, and tests hold them to what real stages do. Seconds
come from speeds that `mindgap.engine.calibration` measures; without them nothing here needs torch.
"""

import heapq
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from itertools import product, zip_longest

from mindgap.base.errors import MindGapError
from mindgap.core.params import Params, Setting
from mindgap.core.recipe import Recipe
from mindgap.core.search import planned as planned_trials
from mindgap.engine.layout import Layout, layout_if_known


class PlanError(MindGapError):
    """What is asked for cannot be planned."""


@dataclass(frozen=True)
class Work:
    """What is to be computed. `drawn` samples are trained on, the last three are only passed forward.

    `passes` counts how often an encoder starts on them: every validation, every test, every look of a query.
    """

    trainings: int = 0
    steps: int = 0
    drawn: int = 0
    passes: int = 0
    validated: int = 0
    tested: int = 0
    queried: int = 0

    def __add__(self, other: "Work") -> "Work":
        return Work(*(getattr(self, f.name) + getattr(other, f.name) for f in fields(self)))

    @property
    def passed(self) -> int:
        """Samples that are only passed forward."""
        return self.validated + self.tested + self.queried


def total(works: Iterable[Work]) -> Work:
    """All of them together."""
    return sum(works, Work())


@dataclass(frozen=True)
class Looks:
    """Which encoder passes a query method and a mitigation that teaches need after a training, and whether
    the method's model needs dropout.

    A policy `learns`: from the validation set, and after the last training too.
    """

    pool: bool
    labelled: bool
    dropout: bool = False
    validation: bool = False
    learns: bool = False


@dataclass(frozen=True)
class Name:
    """What tells the jobs of a part apart; `dropout` is that of the model before its linear layer."""

    mitigation: str
    seed: int
    dropout: bool
    query: str | None = None


@dataclass(frozen=True)
class Taken:
    """What a finished round's record says: seconds by what they were spent on, and the device's name."""

    seconds: Mapping[str, float]
    device: str


@dataclass(frozen=True)
class Planned:
    """One run, initial model or trial of the search, round by round; `finished` rounds need no more.

    `taken` is what the first of these took. A trial that diverged is finished and left no record.
    """

    name: Name
    rounds: tuple[Work, ...]
    finished: int = 0
    taken: tuple[Taken, ...] = ()

    @property
    def work(self) -> Work:
        return total(self.rounds)

    @property
    def left(self) -> Work:
        return total(self.rounds[self.finished :])


@dataclass(frozen=True)
class Finished:
    """What the store has: the record of each trial of the search, none of one that diverged, and those of the
    finished rounds of each initial model and run. What a run has from its initial model is not in its own.
    """

    trials: Sequence[tuple[Taken, ...]] = ()
    rounds: Mapping[Name, tuple[Taken, ...]] = field(default_factory=dict)


@dataclass(frozen=True)
class Part:
    """What the stages train@ and acquire@ of one dataset and regime do."""

    dataset: str
    regime: str
    setting: Setting
    layout: Layout
    search: tuple[Planned, ...]
    initial: tuple[Planned, ...]
    runs: tuple[Planned, ...]

    @property
    def jobs(self) -> tuple[Planned, ...]:
        return self.search + self.initial + self.runs

    @property
    def work(self) -> Work:
        return total(job.work for job in self.jobs)

    @property
    def left(self) -> Work:
        return total(job.left for job in self.jobs)

    @property
    def finished_runs(self) -> int:
        return sum(job.finished == len(job.rounds) for job in self.runs)


def training_work(setting: Setting, labelled: int, test: int = 0) -> Work:
    """One training on so many labels, its validations, and its test if it has one."""
    recipe = Recipe.of(setting.recipe, setting.training)
    validations = sum(map(recipe.validates, range(recipe.epochs)))
    return Work(
        trainings=1,
        steps=recipe.epochs * recipe.batches_per_epoch(labelled),
        drawn=recipe.epochs * recipe.draws_per_epoch(labelled),
        passes=validations + (test > 0),
        validated=validations * setting.budget.validation,
        tested=test,
    )


def run_rounds(setting: Setting, layout: Layout, looks: Looks) -> tuple[Work, ...]:
    """A run from a given initial model: it trains from the second round on, and asks in all but the last."""
    budget, works = setting.budget, []
    for round in range(budget.rounds):
        labelled = budget.initial + round * budget.acquisition
        work = training_work(setting, labelled, layout.test) if round else Work()
        picks = round < budget.rounds - 1
        validation = looks.learns or (picks and looks.validation)
        work += Work(passes=validation, queried=validation * budget.validation)
        if picks:
            pool = max(0, layout.train - budget.validation - labelled)
            queried = pool * looks.pool + labelled * looks.labelled
            work += Work(passes=looks.pool + looks.labelled, queried=queried)
        works.append(work)
    return tuple(works)


def plan_part(
    params: Params,
    dataset: str,
    regime: str,
    layout: Layout,
    looks: Mapping[tuple[str, str], Looks],
    finished: Finished | None = None,
) -> Part:
    """The jobs of a dataset and regime, without what the store has unless `finished` says.

    `looks` are by mitigation and query.

    An initial model that the search trains as its winner costs nothing, and took nothing more.
    """
    setting, finished = params.setting(dataset, regime), finished or Finished()
    _check_size(params, setting, layout)
    model, search = params.at_scale.model, params.search

    def planned(name: Name, rounds: tuple[Work, ...]) -> Planned:
        taken = finished.rounds.get(name, ())
        return Planned(name, rounds, len(taken), taken)

    work = training_work(setting, setting.budget.initial, layout.test)
    rounds = {
        pair: run_rounds(setting, layout, looks[pair]) for pair in product(params.mitigation, params.query)
    }
    starts = list(product(params.mitigation, params.seeds))
    initial = [planned(Name(*start, kind), (work,)) for start in starts for kind in model.initial_models]
    runs = [
        planned(
            Name(mitigation, seed, model.has_dropout(looks[mitigation, query].dropout), query),
            rounds[mitigation, query],
        )
        for mitigation, seed in starts
        for query in params.query
    ]
    trials = []
    if search.method != "none":
        kind = model.has_dropout(needs_it=False)  # as in `Params.search_setting`
        tried = [Name(search.mitigation, seed, kind) for seed in search.seeds]
        initial = [replace(j, rounds=(Work(),), taken=()) if j.name in tried else j for j in initial]
        trials = _trials(planned_trials(search, setting, layout.has_images), layout, tried[0], finished)
    return Part(dataset, regime, setting, layout, *map(tuple, (trials, initial, runs)))


def _trials(settings: Sequence[Setting], layout: Layout, name: Name, finished: Finished) -> Iterable[Planned]:
    for one, taken in zip_longest(settings, finished.trials):
        work = (training_work(one, one.budget.initial, layout.test),)
        yield Planned(name, work) if taken is None else Planned(name, work, 1, taken)


def _check_size(params: Params, setting: Setting, layout: Layout) -> None:
    needed, what = setting.budget.needed, f"{setting.dataset}-{setting.regime}"
    if layout.exact and layout.train < needed:
        raise PlanError(
            f"{setting.dataset} has {layout.train:,} training samples, but {what} at scale {params.scale} "
            f"needs {needed:,}: lower scales.{params.scale}.budget.{setting.dataset}.{setting.regime}, or "
            f"raise the dataset's size under scales.{params.scale}.prepare"
        )


def summary_line(params: Params) -> str:
    """Runs, trainings, steps and samples of the datasets in params.yaml; nothing is measured or looked up."""
    # How queries look at the pool is not in the line.
    looks = dict.fromkeys(product(params.mitigation, params.query), Looks(pool=False, labelled=False))
    parts = [
        plan_part(params, dataset, regime, layout_if_known(params, dataset), looks)
        for dataset in params.dataset
        for regime in params.regime
    ]
    work = total(part.work for part in parts)
    return (
        f"{sum(len(part.runs) for part in parts):,} runs at scale {params.scale}: {work.trainings:,} "
        f"trainings, {work.steps:,} steps, {count_text(work.drawn)} training samples; "
        f"`mindgap plan` says how long"
    )


@dataclass(frozen=True)
class Line:
    """Seconds of a call: `base`, and `per_row` for each of its rows."""

    base: float
    per_row: float

    def __add__(self, other: "Line") -> "Line":
        return Line(self.base + other.base, self.per_row + other.per_row)

    def seconds(self, calls: int, rows: int) -> float:
        return calls * self.base + rows * self.per_row


@dataclass(frozen=True)
class Speed:
    """What a device needs: for a training step, a forward pass over samples of the training split, and one
    over complete samples with all subsets of modalities. `start`: the first step of a process takes longer.
    """

    start: float
    step: Line
    forward: Line
    test: Line

    def seconds(self, work: Work) -> float:
        """Of one process after the other."""
        return (
            self.step.seconds(work.steps, work.drawn)
            + self.forward.seconds(work.passes, work.validated + work.queried)
            + self.test.seconds(0, work.tested)
        )


def part_seconds(part: Part, speeds: Mapping[str, Speed], workers: int) -> tuple[float, float]:
    """Estimated seconds of a part with so many runs at once: in all, and of what is left.

    `speeds` are by mitigation. Search, initial models and runs wait for one another.
    """
    groups = (part.search, part.initial, part.runs)
    return (
        sum(_group_seconds([(job, job.work) for job in jobs], speeds, workers) for jobs in groups),
        sum(_group_seconds([(job, job.left) for job in jobs], speeds, workers) for jobs in groups),
    )


def _group_seconds(jobs: Sequence[tuple[Planned, Work]], speeds: Mapping[str, Speed], workers: int) -> float:
    durations = [speeds[job.name.mitigation].seconds(work) for job, work in jobs if work != Work()]
    start = max((speed.start for speed in speeds.values()), default=0.0)
    return start + makespan(durations, workers) if durations else 0.0


def makespan(durations: Iterable[float], workers: int) -> float:
    """When the last of the jobs ends, each given in its turn to the worker that is free first."""
    free = [0.0] * workers
    for duration in durations:
        heapq.heapreplace(free, free[0] + duration)
    return max(free)


@dataclass(frozen=True)
class Actual:
    """Finished rounds of all runs: what their records say, and the seconds that the plan gives them.

    What runs share counts once.
    """

    taken: tuple[Taken, ...] = ()
    planned: float | None = 0.0

    def __add__(self, other: "Actual") -> "Actual":
        planned = None if None in (self.planned, other.planned) else self.planned + other.planned
        return Actual(self.taken + other.taken, planned)

    @property
    def rounds(self) -> Counter[str]:
        """How many by the device that made them."""
        return Counter(one.device for one in self.taken)

    @property
    def parts(self) -> dict[str, float]:
        """Seconds by what they were spent on."""
        spent = sorted({what for one in self.taken for what in one.seconds})
        return {what: math.fsum(one.seconds.get(what, 0.0) for one in self.taken) for what in spent}

    @property
    def seconds(self) -> float:
        return math.fsum(second for one in self.taken for second in one.seconds.values())

    @property
    def ratio(self) -> float | None:
        """Planned over actual."""
        return self.planned / self.seconds if self.planned is not None and self.seconds else None


def actual(part: Part, speeds: Mapping[str, Speed] | None) -> Actual:
    """What the finished rounds of a part took beside what `speeds`, by mitigation, give them."""
    done = [job for job in part.jobs if job.taken]
    taken = tuple(one for job in done for one in job.taken)
    if speeds is None:
        return Actual(taken, None)
    works = [(speeds[job.name.mitigation], total(job.rounds[: len(job.taken)])) for job in done]
    return Actual(taken, math.fsum(speed.seconds(work) for speed, work in works))


# Bytes of a process before anything of a run is in it: a CUDA context (assumed; it depends on the GPU), and
# Python with torch in the machine's memory (measured, without what processes share).
CONTEXT, INTERPRETER = 512 * 2**20, 420 * 2**20


@dataclass(frozen=True)
class Memory:
    """Bytes of a run's process where it computes: on a GPU, or in the machine's memory (`device` "cpu").

    `dataset`: a GPU has it once; on a CPU it is mapped and gives way. `state`: weights,
    gradients, momentum and the best weights so far; `step` and `forward`: what a training step and an
    evaluation pass hold beside them; `recordings`: of CUDA graphs, at most.
    """

    device: str
    dataset: int
    state: int
    step: int
    forward: int
    recordings: int = 0
    measured: bool = False

    @property
    def process(self) -> int:
        """All that a run needs that is alone."""
        return self.own + self.shared

    @property
    def own(self) -> int:
        """What one more run needs."""
        run = self.state + self.recordings + max(self.step, self.forward)
        return run + INTERPRETER if self.device == "cpu" else run

    @property
    def shared(self) -> int:
        """What the runs on a GPU have in common, as they are in one process."""
        return 0 if self.device == "cpu" else CONTEXT + self.dataset

    def fits(self, capacity: int) -> int:
        """How many runs have room beside each other."""
        return max(0, capacity - self.shared) // self.own


# Measured: a round's record without ids, losses and metrics; a subset's metrics; a loss; a table's row of an
# image or text; the contact sheet of 32 px images.
RECORD, METRICS, LOSS, TABLE_ROW, CONTACT_SHEET = 1_660, 250, 20, 50, 50_000


@dataclass(frozen=True)
class Disk:
    """Bytes. `cache` is DVC's second copy of the first three, where the file system cannot share blocks."""

    prepared: int = 0
    models: int = 0
    records: int = 0
    store: int = 0
    cache: int = 0

    def __add__(self, other: "Disk") -> "Disk":
        return Disk(*(getattr(self, f.name) + getattr(other, f.name) for f in fields(self)))

    @property
    def total(self) -> int:
        return self.prepared + self.models + self.records + self.store + self.cache


def prepared_disk(layout: Layout) -> Disk:
    """A prepared dataset and DVC's copy of it."""
    tables = (layout.train + layout.test) * TABLE_ROW * len(layout.modalities)
    size = layout.bytes + tables + CONTACT_SHEET
    return Disk(prepared=size, cache=size)


def part_disk(part: Part, weights: int, kept_models: int = 0) -> Disk:
    """Models of `weights` bytes and records of a part, in their folders, in the store and in DVC's cache.

    `kept_models`: how many runs keep the model of their last round beside their records.
    """
    records = sum(_record_bytes(part, round) for _ in part.runs for round in range(len(part.runs[0].rounds)))
    records += kept_models * (weights + _record_bytes(part, len(part.runs[0].rounds) - 1))
    first = _record_bytes(part, 0)
    trained = sum(job.work != Work() for job in part.search + part.initial)
    models, kept = len(part.initial) * (weights + first), trained * (weights + first)
    return Disk(models=models, records=records, store=kept + records, cache=models + records)


def _record_bytes(part: Part, round: int) -> int:
    budget = part.setting.budget
    ids = budget.initial * (round == 0) + budget.acquisition * (round < budget.rounds - 1)
    digits = len(str(part.layout.train)) + 1
    return RECORD + METRICS * part.layout.subsets + LOSS * part.setting.recipe.epochs + digits * ids


@dataclass(frozen=True)
class Estimate:
    """A part with its bytes on disk and, by kind of device, in memory; the seconds that it takes in all and
    from now on, if they were measured; and what is finished of it.
    """

    part: Part
    disk: Disk
    memory: Mapping[str, Memory]
    actual: Actual
    seconds: tuple[float, float] | None = None


def count_text(number: int) -> str:
    """A count, from ten thousand up in k, M or G."""
    for least, size, unit in ((10**9, 1e9, "G"), (10**6, 1e6, "M"), (10**4, 1e3, "k")):
        if number >= least:
            value = number / size
            return f"{value:,.{0 if value >= 100 else 1}f} {unit}"
    return f"{number:,}"


def time_text(seconds: float) -> str:
    """In the two largest units that matter."""
    minutes = round(seconds / 60)
    if seconds < 100:
        return f"{seconds:.0f} s"
    if minutes < 100:
        return f"{minutes} min"
    if minutes < 48 * 60:
        return f"{minutes // 60} h {minutes % 60:02d} min"
    return f"{minutes / 60 / 24:.1f} days"


def bytes_text(number: int) -> str:
    """In KiB, MiB, GiB or TiB."""
    for power, unit in ((4, "TiB"), (3, "GiB"), (2, "MiB")):
        if number >= 1024**power:
            return f"{number / 1024**power:.1f} {unit}"
    return f"{number / 1024:.0f} KiB"

"""One run: for each round fit -> evaluate -> acquire -> record. Resuming is reading the records and going on.

Every round trains from scratch, so the state of a run is the list of its acquired ids; with a policy also the
arrays that it left in the last round, and the validation metrics of all rounds; with a mitigation that
teaches also its lesson of the last round.
"""

import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from functools import partial
from types import MappingProxyType
from typing import Any, TypeVar

import numpy as np
import torch
from safetensors.torch import save
from torch import Tensor

from mindgap.base.at_work import at_work
from mindgap.base.errors import MindGapError
from mindgap.base.gpu import Engine
from mindgap.base.modality import Modality
from mindgap.base.view import LabelledSamples, Measured, Metrics, PoolView, Reward, ValidationSamples
from mindgap.core.evaluation import encode, evaluate, metrics_of, predict_subsets
from mindgap.core.network import ModelSpec, MultimodalNet, Own, build_model, place
from mindgap.core.params import Setting
from mindgap.core.pool import Pool
from mindgap.core.recipe import Recipe
from mindgap.core.rng import numpy_rng, stream_seed, torch_rng
from mindgap.core.training import Fit, Turns, fit_in_turns, to_the_end
from mindgap.data.dataset import Dataset, Split
from mindgap.parts.evaluators.contract import OF_CURVES
from mindgap.parts.mitigations import MITIGATIONS, Lesson, Mitigation, check_lesson, make_mitigation
from mindgap.parts.query import METHODS
from mindgap.parts.query.select import choose
from mindgap.parts.starts import STARTS
from mindgap.parts.starts.contract import Candidates, check_start
from mindgap.parts.starts.draws import by_class


@dataclass(frozen=True)
class Cell:
    """The name of a run. An initial model, which all query methods share, has no query."""

    dataset: str
    regime: str
    mitigation: str
    seed: int
    query: str | None = None

    def __str__(self) -> str:
        return "-".join(
            str(v)
            for v in (self.dataset, self.regime, self.query, self.mitigation, self.seed)
            if v is not None
        )


class Compute:
    """What a run spends its time on; a plan counts it instead, in this same loop (`engine/plan.py`)."""

    def fit(self, *args: Any) -> Turns:
        return fit_in_turns(*args)

    def evaluate(self, *args: Any, **known: Any) -> list[dict[str, Any]]:
        return evaluate(*args, **known)

    def encode(self, model: MultimodalNet, train: Split, ids: Tensor) -> Tensor:
        return encode(model, train, ids)

    def choose(self, *args: Any) -> tuple[Tensor, bytes | None]:
        return choose(*args)


@dataclass(frozen=True)
class Run:
    """A cell with all its numbers depend on besides the data."""

    cell: Cell
    setting: Setting
    mitigation_settings: Mapping[str, Any]
    query_settings: Mapping[str, Any]
    digest: str
    provenance: Mapping[str, Any]
    subsets: tuple[str, ...] = ()  # of modalities, by which a record has metrics; () leaves them open
    evaluators: Mapping[str, Mapping[str, Any]] = field(
        default_factory=lambda: {name: {} for name in OF_CURVES}
    )
    model: Callable[[Mapping[str, Modality]], Own] | None = None  # in place of the setting's
    compute: Compute = field(default_factory=Compute, compare=False)

    def key(self, round: int, purpose: str) -> tuple[object, ...]:
        """The key of a random stream: neither query nor mitigation is in it, so that runs are paired."""
        return (self.cell.seed, self.cell.dataset, self.cell.regime, round, purpose)

    def rng_of(self, round: int, evaluator: str) -> torch.Generator:
        """What an evaluator draws from in a round."""
        return torch_rng(*self.key(round, f"evaluate {evaluator}"))

    @property
    def query(self) -> str:
        """Its query method; a ValueError where it has none."""
        if self.cell.query is None:
            raise ValueError(f"{self.cell} is an initial model, which has no query method")
        return self.cell.query

    @property
    def learns(self) -> bool:
        """Whether its query method is a policy."""
        return self.cell.query in METHODS and METHODS[self.query].learns

    @property
    def teaches(self) -> bool:
        """Whether its mitigation gives the next training a lesson."""
        return MITIGATIONS[self.cell.mitigation].teach is not Mitigation.teach

    @property
    def hooks(self) -> Mitigation:
        """Its mitigation, made anew."""
        return make_mitigation(self.cell.mitigation, self.mitigation_settings)


T = TypeVar("T")
# What a run says on its way: None where it only hands back control, a line for people, or a record.
Turn = None | str | dict[str, Any]


@dataclass
class Round:
    """What a training gave."""

    model: MultimodalNet
    metrics: list[dict[str, Any]]
    fit: dict[str, Any]
    seconds: dict[str, float]


def start_and_validation_ids(run: Run, dataset: Dataset) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Disjoint ids of start and validation set, the same for every query method and mitigation; last the ids
    that can never be labelled: the validation set, and samples of the groups that it has samples of.
    """
    budget, size = run.setting.budget, len(dataset.train)
    validation, set_aside = validation_ids_of(run, dataset)
    rest = np.setdiff1d(np.arange(size), set_aside)
    if len(rest) < budget.needed - budget.validation:
        raise MindGapError(
            f"{run.cell}: of {size} training samples {len(rest)} are left beside the validation set and "
            f"its groups, fewer than the {budget.needed - budget.validation} to be labelled: lower the "
            f"budget of {run.cell.dataset} in params.yaml"
        )
    start = start_ids_of(run, dataset, rest)
    lost = [share for share in class_shares(dataset, start, set_aside) if share.start + share.left == 0]
    if lost:
        raise MindGapError(
            f"{run.cell}: no model can learn {shares_text(lost)}. Lower validation of "
            f"scales.{run.setting.scale}.budget.{run.cell.dataset}.{run.cell.regime} in params.yaml, or "
            f"prepare more samples of it"
        )
    if untested := [c for c, n in enumerate(class_counts(dataset, dataset.test.y_N)) if n == 0]:
        raise MindGapError(
            f"{run.cell}: the test set has no sample of class {', '.join(map(str, untested[:5]))}: balanced "
            f"accuracy would be a mean over fewer classes than the chance and ceiling beside it. Raise the "
            f"dataset's test_size in params.yaml, or give it samples of each class"
        )
    return start, validation, set_aside


def validation_ids_of(run: Run, dataset: Dataset) -> tuple[np.ndarray, np.ndarray]:
    """Ids of the validation set, drawn by class, and those that can never be labelled because of it."""
    y_N = dataset.train.y_N.cpu().numpy()
    drawn = np.sort(by_class(y_N, run.setting.budget.validation, numpy_rng(*run.key(0, "validation"))))
    if dataset.train.group_N is None:
        return drawn, drawn
    group_N = dataset.train.group_N.cpu().numpy()
    return drawn, np.flatnonzero(np.isin(group_N, group_N[drawn]))


def start_ids_of(run: Run, dataset: Dataset, ids: np.ndarray) -> np.ndarray:
    """The start set among these ids, by what the setting names; only an oracle is told their labels."""
    name, n, train = run.setting.start, run.setting.budget.initial, dataset.train
    start = STARTS[name]

    def stored(modality: str, rows: np.ndarray) -> np.ndarray:
        of_train = torch.from_numpy(ids[rows]).to(dataset.device)
        return train.x[modality][of_train].cpu().numpy()

    candidates = Candidates(
        dataset.modalities,
        train.host_present_NM.numpy()[ids],
        stored,
        train.y_N.cpu().numpy()[ids] if start.oracle else None,
    )
    with at_work(f"start {name!r}", start.fn, rng="rng, its third argument"):
        rows = start.fn(candidates, n, numpy_rng(*run.key(0, "start")))
    chosen: np.ndarray = ids[check_start(name, rows, n, len(ids))]
    return chosen


@dataclass(frozen=True)
class ClassShare:
    """Training samples of a class: all, those set aside with the validation set, in the start set, and those
    that are left to label.
    """

    label: int
    there: int
    set_aside: int
    start: int
    left: int

    def __str__(self) -> str:
        return (
            f"class {self.label} ({self.there} training samples: {self.set_aside} set aside for validation, "
            f"{self.start} in the start set, {self.left} left to label)"
        )


def class_shares(dataset: Dataset, start_ids: np.ndarray, set_aside_ids: np.ndarray) -> list[ClassShare]:
    """What becomes of the training samples of each class."""
    y_N = dataset.train.y_N.cpu()
    counts = [class_counts(dataset, y) for y in (y_N, y_N[set_aside_ids], y_N[start_ids])]
    return [
        ClassShare(c, there, aside, start, there - aside - start)
        for c, (there, aside, start) in enumerate(zip(*counts, strict=True))
    ]


def class_counts(dataset: Dataset, y_N: Tensor) -> list[int]:
    return torch.bincount(y_N.cpu(), minlength=dataset.num_classes).tolist()


def shares_text(shares: Sequence[ClassShare]) -> str:
    """The first of the shares in words, and how many more there are."""
    more = f" and {len(shares) - 1} more classes" * (len(shares) > 1)
    return f"{shares[0]}{more}"


def warnings_of(run: Run, dataset: Dataset) -> list[str]:
    """What a run can be computed with, though pool, start or validation set are short of classes."""
    start, validation, set_aside = start_and_validation_ids(run, dataset)
    shares = class_shares(dataset, start, set_aside)
    lines = []
    if gone := [share for share in shares if share.left == 0]:
        lines.append(f"no query can pick {shares_text(gone)}")
    if scarce := [share for share in shares if 0 < share.left < share.there / 2]:
        lines.append(f"most samples are not for queries to pick in {shares_text(scarce)}")
    for name, ids in (("initial", start), ("validation", validation)):
        shown = sum(n > 0 for n in class_counts(dataset, dataset.train.y_N.cpu()[ids]))
        if shown < dataset.num_classes:
            lines.append(f"{name}: {len(ids)} samples show {shown} of {dataset.num_classes} classes")
    return [f"{run.cell.dataset}-{run.cell.regime}, seed {run.cell.seed}: {line}" for line in lines]


def model_spec(setting: Setting) -> ModelSpec:
    """The model of a setting; dropout in the projections is the dataset's (A.2: MIMIC only)."""
    return ModelSpec(**setting.model.model_dump(), projection_dropout=setting.recipe.projection_dropout)


def train_round(
    run: Run,
    dataset: Dataset,
    pool: Pool,
    validation_ids: np.ndarray,
    round: int,
    engine: Engine,
    lesson: Lesson | None = None,
) -> Generator[Turn, None, Round]:
    """A model from scratch on the labelled samples and a lesson, and what the evaluators say of it."""
    setting, where = run.setting, f"{run.cell}, round {round}"
    seconds: dict[str, float] = {}
    recipe = Recipe.of(setting.recipe, setting.training)
    seed = stream_seed(*run.key(round, "weights"))
    model = placed(run, dataset, seed, engine)
    training = run.compute.fit(
        model,
        dataset.train,
        torch.from_numpy(pool.labelled_ids),
        torch.from_numpy(validation_ids),
        recipe,
        run.hooks,
        run.key(round, "training"),
        where,
        lesson,
    )
    result: Fit = yield from clocked(training, seconds, "fit", dataset.device)
    summary = asdict(result)
    with timed(seconds, "evaluate", dataset.device):
        metrics = run.compute.evaluate(
            model,
            dataset.test,
            where,
            run.evaluators,
            partial(run.rng_of, round),
            train=dataset.train,
            labelled_L=torch.from_numpy(pool.labelled_ids).to(dataset.device),
            start=setting.budget.initial,
            validation_V=torch.from_numpy(validation_ids).to(dataset.device),
            fit=MappingProxyType(summary),
            round=round,
        )
    return Round(model, metrics, summary, seconds)


def placed(run: Run, dataset: Dataset, seed: int, engine: Engine) -> MultimodalNet:
    """A run's model with initial weights, on its device."""
    model = build_model(dataset.modalities, dataset.num_classes, model_spec(run.setting), seed, run.model)
    return place(model, engine, run.setting.recipe.batch_size)


def initial_in_turns(
    run: Run, dataset: Dataset, engine: Engine
) -> Generator[Turn, None, tuple[dict[str, Any], dict[str, Tensor]]]:
    """The training on the start set, which all query methods share, and its weights."""
    start_ids, validation_ids, set_aside_ids = start_and_validation_ids(run, dataset)
    pool = Pool(len(dataset.train), start_ids, set_aside_ids)
    result = yield from train_round(run, dataset, pool, validation_ids, 0, engine)
    weights = weights_of(result.model)
    return record_of(run, 0, pool, result, {"start_ids": start_ids.tolist()}), weights


def weights_of(model: MultimodalNet) -> dict[str, Tensor]:
    """The weights and statistics of a model, on the host."""
    return {name: value.cpu().clone() for name, value in model.state_dict().items()}


def packed(weights: Mapping[str, Tensor]) -> bytes:
    """Weights as safetensors."""
    return save({name: value.contiguous() for name, value in weights.items()})


def initial_record(
    run: Run, dataset: Dataset, engine: Engine | None = None
) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """`initial_in_turns` without a pause."""
    return to_the_end(initial_in_turns(run, dataset, engine or Engine.of(dataset.device)))


def rounds(
    run: Run,
    dataset: Dataset,
    initial: Mapping[str, Any],
    weights: Mapping[str, Tensor],
    finished: Sequence[Mapping[str, Any]] = (),
    engine: Engine | None = None,
) -> Iterator[dict[str, Any]]:
    """The records of `rounds_in_turns`."""
    turns = rounds_in_turns(run, dataset, initial, weights, finished, engine or Engine.of(dataset.device))
    yield from (turn for turn in turns if isinstance(turn, dict))


def rounds_in_turns(
    run: Run,
    dataset: Dataset,
    initial: Mapping[str, Any],
    weights: Mapping[str, Tensor],
    finished: Sequence[Mapping[str, Any]],
    engine: Engine,
    keep_model: bool = False,
) -> Iterator[Turn]:
    """The records of a cell's rounds that are not `finished`; `initial` and `weights` are its round 0.

    `keep_model`: the last record has the model's `weights` as safetensors.

    In between control is handed back after each step. Nothing is stored here: what becomes of a record is
    its receiver's business.
    """
    budget, start_ids = run.setting.budget, initial["start_ids"]
    validation_ids, set_aside_ids = validation_ids_of(run, dataset)
    pool = Pool(len(dataset.train), np.array(start_ids), set_aside_ids)
    records = list(finished)
    for record in records:
        pool.label(record["acquired_ids"])
    for round in range(len(records), budget.rounds):
        if round == 0:
            result = initial_round(run, dataset, initial, weights, engine)
        else:
            lesson = lesson_of(records[-1])
            result = yield from train_round(run, dataset, pool, validation_ids, round, engine, lesson)
        record = record_of(run, round, pool, result, {"start_ids": start_ids} if round == 0 else {})
        record["acquired_ids"] = []
        if keep_model and round == budget.rounds - 1:
            record["weights"] = packed(weights_of(result.model))
        if round < budget.rounds - 1 or run.learns:
            see = partial(view_of, run, dataset.train, pool, validation_ids, result.model, records)
            view = see()
            with timed(record["seconds"], "query", dataset.device):
                record |= acquire(run, pool, view, records)
            if run.teaches and round < budget.rounds - 1:
                with timed(record["seconds"], "teach", dataset.device):
                    record["lesson"] = taught(run, see(view), record["acquired_ids"])
        yield record
        pool.label(record["acquired_ids"])
        records.append(record)


def initial_round(
    run: Run, dataset: Dataset, initial: Mapping[str, Any], weights: Mapping[str, Tensor], engine: Engine
) -> Round:
    """The shared round 0, its model loaded instead of trained."""
    model = placed(run, dataset, 0, engine)
    model.load_state_dict(weights)
    return Round(model, initial["metrics"], initial["fit"], dict(initial["seconds"]))


def acquire(run: Run, pool: Pool, view: PoolView, records: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """What the query of the round behind `records` adds to its record.

    `acquired_ids` (none in the last round, in which a policy only learns); `validation`, the metrics there,
    where the method looked at them; `state`, the arrays of a policy as safetensors.
    """
    budget, round = run.setting.budget, len(records)
    state, reward = None, None
    if run.learns:  # before the pick, which might change what they follow from
        view.validation.metrics  # noqa: B018
    if run.learns and records:
        state = records[-1]["state"]
        cell, before = asdict(run.cell), view.history[round - 1]
        reward = Reward(before, view.validation.metrics, round - 1, len(pool.labelled_ids), cell)
    n = budget.acquisition if round < budget.rounds - 1 else 0
    seed = stream_seed(*run.key(0, "policy"))
    positions, state = run.compute.choose(run.query, view, n, run.query_settings, seed, state, reward)
    left: dict[str, Any] = {"acquired_ids": pool.ids[positions.cpu().numpy()].tolist()}
    if state is not None:
        left["state"] = state
    if run.learns or view.validation.was_measured:
        left["validation"] = {subset: asdict(found) for subset, found in view.validation.metrics.items()}
    return left


def taught(run: Run, view: PoolView, acquired_ids: Sequence[int]) -> dict[str, Any]:
    """The lesson of a round, for the record, from a view of its own, without the pool's labels."""
    view.oracle_y_N, view.rng = None, torch_rng(*run.key(view.round, "teach"))
    free_N, hooks = ~torch.isin(view.ids, torch.tensor(acquired_ids, device=view.device)), run.hooks
    with at_work(f"{type(hooks).__name__}.teach", type(hooks), rng="view.rng"):
        lesson = hooks.teach(view, free_N)
    found = check_lesson(run.cell.mitigation, lesson, view, free_N)
    return {name: value.tolist() for name, value in vars(found).items()}


def lesson_of(record: Mapping[str, Any]) -> Lesson | None:
    """The lesson that a record holds."""
    if "lesson" not in record:
        return None
    ids, labels, present = (torch.tensor(record["lesson"][name]) for name in ("ids", "labels", "present"))
    return Lesson(ids.long(), labels.long(), present.bool()) if len(ids) else None


def view_of(
    run: Run,
    train: Split,
    pool: Pool,
    validation_ids: np.ndarray,
    model: MultimodalNet,
    records: Sequence[Mapping[str, Any]],
    seen: PoolView | None = None,
) -> PoolView:
    """What the query of the round behind `records` may see: of the training split alone.

    With an older view that was `seen` no encoder runs again; whatever else was made of that is made anew.
    """
    round = len(records)
    on_host = [torch.from_numpy(ids) for ids in (pool.ids, pool.labelled_ids, validation_ids)]
    of_pool, of_labelled, of_validation = (ids.to(train.y_N.device) for ids in on_host)
    encoded = [partial(run.compute.encode, model, train, ids) for ids in on_host]
    if seen is not None:
        encoded = [partial(getattr, one, "_raw_NMD") for one in (seen, seen._labelled, seen.validation)]
    return PoolView(
        model,
        encoded[0],
        train.present_NM[of_pool],
        ids=of_pool,
        labelled=LabelledSamples(model, encoded[1], train.present_NM[of_labelled], train.y_N[of_labelled]),
        validation=ValidationSamples(
            model,
            encoded[2],
            train.present_NM[of_validation],
            train.y_N[of_validation],
            partial(measured, model, f"{run.cell}, round {round}, validation"),
        ),
        history={r["round"]: as_measured(r["validation"]) for r in records if "validation" in r},
        modalities=tuple(model.modalities),
        rng=torch_rng(*run.key(round, "query")),
        round=round,
        rounds=run.setting.budget.rounds - 1,
        oracle_y_N=train.y_N[of_pool] if METHODS[run.query].oracle else None,
    )


def measured(
    model: MultimodalNet, where: str, tokens_NMD: Tensor, present_NM: Tensor, y_N: Tensor
) -> Measured:
    """Metrics of the subsets of which a sample has a modality."""
    found = predict_subsets(model, tokens_NMD, present_NM, y_N, where)
    return MappingProxyType({subset: metrics_of(seen) for subset, seen in found.items() if len(seen.y_K)})


def as_measured(found: Mapping[str, Mapping[str, Any]]) -> Measured:
    """Metrics as a method sees them: it cannot change what is recorded."""
    return MappingProxyType({subset: Metrics(**metrics) for subset, metrics in found.items()})


def record_of(run: Run, round: int, pool: Pool, result: Round, extra: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "scale": run.setting.scale,
        "cell": asdict(run.cell),
        "round": round,
        "labelled": len(pool.labelled_ids),
        "metrics": result.metrics,
        "fit": result.fit,
        "seconds": result.seconds,
        "provenance": {**run.provenance, "device": device_name(next(result.model.parameters()).device)},
        **extra,
    }


def device_name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type


@contextmanager
def timed(seconds: dict[str, float], part: str, device: torch.device, wait: bool = True) -> Iterator[None]:
    """Adds the wall seconds of a block to `seconds[part]`; with `wait` a GPU's work on it is in them."""
    begin = time.perf_counter()
    yield
    if wait and device.type == "cuda":
        torch.cuda.current_stream(device).synchronize()
    seconds[part] = round(seconds.get(part, 0.0) + time.perf_counter() - begin, 6)


def clocked(
    turns: Generator[Turn, None, T], seconds: dict[str, float], part: str, device: torch.device
) -> Generator[Turn, None, T]:
    """The same turns, timed as by `timed`, without what others do in between."""
    while True:
        with timed(seconds, part, device, wait=False):
            try:
                turn = next(turns)
            except StopIteration as end:
                result: T = end.value
                break
        yield turn
    with timed(seconds, part, device):
        return result

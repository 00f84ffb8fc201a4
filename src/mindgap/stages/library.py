"""The library: a loop on arrays that a user has in memory, and the curves of a folder. docs/extending.md."""

import contextlib
import hashlib
import inspect
import os
import re
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from pydantic import Field, ValidationError
from torch import Tensor, nn

from mindgap.base.at_work import PartError
from mindgap.base.errors import MindGapError
from mindgap.base.modality import DTYPES, Modality
from mindgap.base.plugins import Registry
from mindgap.base.settings import checked, explain
from mindgap.core.digest import commit, versions
from mindgap.core.loop import Cell, Run, initial_record, rounds, start_and_validation_ids
from mindgap.core.network import DEFAULT_ENCODERS, Own
from mindgap.core.params import Block, Budget, DatasetRecipe, Model, Name, Seed, Setting, Training, pick
from mindgap.core.records import CURVE_COLUMNS, digest_of
from mindgap.core.rng import numpy_rng
from mindgap.data.dataset import Dataset, Split, subset_name, subsets
from mindgap.parts.augment.images import AUGMENTATIONS
from mindgap.parts.encoders.text import WORD_PIECES
from mindgap.parts.mitigations import MITIGATIONS
from mindgap.parts.query import METHODS
from mindgap.parts.query.select import hyperparameters
from mindgap.parts.starts import STARTS
from mindgap.parts.starts.contract import StartError
from mindgap.results.aulc import level, over_seeds, per_seed
from mindgap.results.curves import Selection, read_curve_file, read_curves
from mindgap.results.flow import SELECTION
from mindgap.stages.report import check_kept, kept_selection, read_inputs, selection_of
from mindgap.stages.runs import curves_csv

PLACE = re.compile(r" in params\.yaml| \(params\.yaml\)|; finished rounds are kept")  # a call has neither
LEAST = 3  # training samples of a class: to start with, to validate with, to pick
Arrays = Mapping[str, Any]


class Asked(Block):
    """What a call is named and which seeds it runs."""

    name: Name
    seeds: list[Seed] = Field(min_length=1, max_length=1_000)


class InputError(MindGapError, ValueError):
    """What the library was given cannot be run; the message names it and says how to mend it."""


def run(
    dataset: Arrays,
    query: str | Callable = "badge",
    *,
    labels: Any,
    present: Any = None,
    test: float | tuple = 0.25,
    kinds: Mapping[str, str] | None = None,
    mitigation: str | type = "none",
    model: Callable[[Mapping[str, Modality]], Own] | None = None,
    seeds: int | Sequence[int] = 0,
    rounds: int = 5,
    start: str | Callable = "stratified",
    initial: int | None = None,
    acquisition: int | None = None,
    validation: int | None = None,
    epochs: int = 20,
    batch_size: int = 32,
    learning_rate: float = 0.05,
    weight_decay: float = 5e-4,
    augmentation: str = "none",
    query_settings: Mapping[str, Any] | None = None,
    mitigation_settings: Mapping[str, Any] | None = None,
    name: str = "own",
    device: str | None = None,
) -> pd.DataFrame:
    """The learning curves of a query method on arrays: a row per seed, round and subset of modalities.

    `dataset`: by modality an array or tensor of N samples. `labels`: N whole numbers, 0 to C - 1. `present`:
    N x M truth values, in the order of the modalities; by default all are there. `test`: the share of
    samples to test on, drawn by class, or (dataset, labels) or (dataset, labels, present) of their own,
    `present` in the order of that dataset.
    `kinds`: of modalities whose kind (image, tokens, table, signal) their type and shape do not tell.

    `query`, `mitigation`, `start`: names of `mindgap list`, or a method, a class and a function of your own.
    `model`: makes encoders and fusion of your own (`core.network.Own`), new ones in each call. `initial`
    labels, `acquisition` more in each of `rounds` - 1 rounds, `validation` beside them; by default shares of
    the samples. Columns are those of reports/curves. Raises InputError, or another MindGapError, at what
    cannot be run.
    """
    with _explained():
        asked_for = Asked(name=name, seeds=_several(seeds))
    data = _dataset(name, dataset, labels, present, test, _named("kinds", kinds))
    if model is None:
        _check_vocabulary(data)
    with (
        _listed(METHODS, query, "query") as query,
        _listed(MITIGATIONS, mitigation, "mitigation") as mitigation,
        _listed(STARTS, start, "start") as start,
    ):
        method = pick(METHODS, query, "query", "mindgap.parts.query.METHODS")
        hook = pick(MITIGATIONS, mitigation, "mitigation", "mindgap.parts.mitigations.MITIGATIONS")
        first = pick(STARTS, start, "start", "mindgap.parts.starts.STARTS")
        pick(AUGMENTATIONS, augmentation, "augmentation", "mindgap.parts.augment.images.AUGMENTATIONS")
        asked = checked("query_settings", method.fn, method.given, _named("query_settings", query_settings))
        told = checked("mitigation_settings", hook, 0, _named("mitigation_settings", mitigation_settings))
        with _explained():
            recipe = DatasetRecipe(
                epochs=epochs,
                batch_size=batch_size,
                learning_rate=learning_rate,
                weight_decay=weight_decay,
                augmentation=augmentation,
            )
            budget = _budget(data, rounds, initial, acquisition, validation)
        setting = Setting("own", name, "own", start, budget, recipe, _training(epochs), MODEL)
        if model is not None:
            setting = replace(setting, model=MODEL.model_copy(update={"width": _width(model, data)}))
        placed, records = _on(device, data), []
        for seed in asked_for.seeds:
            cell = Cell(name, "own", mitigation, seed, query)
            settings = {**hyperparameters(query), **asked}
            one = _run_of(cell, setting, data, settings, told, (method.fn, hook, first.fn, model), model)
            with _of_a_call():
                records += _records(one, placed)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "curves.csv")
        path.write_text(curves_csv(records, data), encoding="utf-8")
        return read_curve_file(path)


@dataclass(frozen=True)
class Loaded:
    """`curves`: a row per run, round and subset. `aulc`: a row per cell and subset (`aulc`)."""

    curves: pd.DataFrame
    aulc: pd.DataFrame


def load(folder: Path | str) -> Loaded:
    """Curves and AULC of a folder that `mindgap keep` wrote, or of reports; all files in it are checked.

    Raises a MindGapError that names what is not there, not complete, or not one.
    """
    if not isinstance(folder, str | os.PathLike):
        raise InputError(f"{folder!r} is no folder: name one, such as reports/reference")
    kept = Path(folder)
    if (kept / SELECTION).is_file():
        selected = kept_selection(kept)
        check_kept(kept, selected)
        curves = read_inputs(selection_of(selected, kept), kept).curves
        return Loaded(curves, aulc(curves))
    place = kept / "curves"
    files = sorted(place.glob("*.csv"))
    parts = [_file(path) for path in files if len(read_curve_file(path))]  # none of a skipped dataset
    if not parts:
        raise InputError(
            f"{place} has no learning curves: name a folder that `mindgap keep` wrote, or reports"
        )
    curves = pd.concat(parts, ignore_index=True)
    return Loaded(curves, aulc(curves))


def aulc(curves: pd.DataFrame) -> pd.DataFrame:
    """The area under each learning curve, over seeds: mean and std, chance and ceiling in the same units,
    and `level`, 0 at chance and 1 at the ceiling.
    """
    table = over_seeds(per_seed(curves)).drop(columns=["paper_mean", "paper_std", "changed"])
    return table.assign(level=level(table["aulc_mean"], table["chance_aulc"], table["ceiling_aulc"]))


def _file(path: Path) -> pd.DataFrame:
    """A file's runs, checked as a report checks them."""
    frame = read_curve_file(path, CURVE_COLUMNS)
    dataset, _, regime = path.stem.rpartition("-")
    named = (list(frame[key].unique()) for key in ("query", "mitigation", "seed"))
    return read_curves(path.parent, Selection(frame["scale"].iloc[0], [dataset], [regime], *named))


NUMBERED = "number the classes from 0 on without a gap"
MAPPING = "give {'left': array, 'right': array}, N samples in each"
SHAPES = {
    "image": "uint8, N x height x width, or N x height x width x channels with at most 4",
    "tokens": "whole numbers from 0 to 2,147,483,647, N x length, padded with 0",
    "table": "numbers, N x columns",
    "signal": "numbers, N x channels x time",
}
MODEL = Model(
    encoder=DEFAULT_ENCODERS,
    fusion={"name": "transformer"},
    width=64,
    head_dropout=0.25,
    absent="skip",
    min_present=2,
)


def _training(epochs: int) -> Training:
    warmup = min(2.0, epochs / 4)
    return Training(momentum=0.9, warmup_epochs=warmup, min_samples_per_epoch=320, validate_from=0.5)


def _records(one: Run, data: Dataset) -> list[dict[str, Any]]:
    first = replace(one, cell=replace(one.cell, query=None))
    try:
        start_and_validation_ids(one, data)
    except (StartError, PartError):  # whoever wrote it mends it
        raise
    except MindGapError as error:
        told = str(error).partition(". ")[0]
        raise InputError(f"{told}: lower validation or initial, or give more samples") from error
    start, weights = initial_record(first, data)
    made = rounds(one, data, start, weights)
    return [record | {"run": one.digest, "rounds": one.setting.budget.rounds} for record in made]


def _run_of(cell, setting, data, query_settings, mitigation_settings, code, model) -> Run:
    """The run with a digest of what its numbers depend on, as far as it is known of code in memory."""
    values = {k: v if isinstance(v, str) else v.model_dump() for k, v in vars(setting).items()}
    depends_on = {
        "cell": asdict(cell),
        "setting": values,
        "settings": [dict(query_settings), dict(mitigation_settings)],
        "data": data.digest,
        "code": [_source(one) for one in code if one is not None],
        "versions": versions(),
    }
    provenance = {"commit": commit(), "data": data.digest, "versions": versions()}
    subsets = tuple(data.ceilings)
    digest = digest_of(depends_on)
    return Run(cell, setting, mitigation_settings, query_settings, digest, provenance, subsets, model=model)


def _source(thing: Any) -> str:
    """What a function or class says; of one without a source the names and numbers in it."""
    try:
        return inspect.getsource(thing)
    except (OSError, TypeError):
        held = [thing, *vars(thing).values()] if hasattr(thing, "__dict__") else [thing]
        codes = [one.__code__ for one in held if hasattr(one, "__code__")]
        plain = [[c for c in code.co_consts if not hasattr(c, "co_code")] for code in codes]
        return repr([(code.co_code, code.co_names, k) for code, k in zip(codes, plain, strict=True)])


@contextlib.contextmanager
def _listed(table: Registry, thing: Any, what: str) -> Iterator[str]:
    """The name of an entry of a table, which a thing of the user's own is for as long as it is needed."""
    if isinstance(thing, str):
        yield thing
        return
    try:
        entry = table.made(thing, "")
    except TypeError as error:
        raise InputError(f"{what}: {thing!r}: {error}; or give a name of `mindgap list`") from error
    told = getattr(thing, "__name__", type(thing).__name__)
    name = told if told.isidentifier() and told not in table.names else "own"
    table[name] = entry
    try:
        yield name
    finally:
        del table[name]


@contextlib.contextmanager
def _explained() -> Iterator[None]:
    try:
        yield
    except ValidationError as error:
        raise InputError("\n".join(explain(error))) from error


@contextlib.contextmanager
def _of_a_call() -> Iterator[None]:
    """What the loop refuses, in the words of a call: its settings are arguments, in no file."""
    try:
        yield
    except MindGapError as error:
        if (told := PLACE.sub("", str(error))) == str(error):
            raise
        raise type(error)(told) from error


def _several(seeds: Any) -> list[Any]:
    """One seed or several, also numpy's, each once."""
    told = seeds.tolist() if isinstance(seeds, np.ndarray | np.generic | Tensor) else seeds
    listed = list(told) if isinstance(told, Iterable) and not isinstance(told, str) else [told]
    listed = [one.item() if isinstance(one, np.generic) else one for one in listed]
    if len(set(map(repr, listed))) < len(listed):
        raise InputError(f"seeds: {listed} has one twice: name each once")
    return listed


def _named(where: str, given: Any) -> dict[str, Any]:
    """What was given by name; nothing is an empty one."""
    if given is not None and not isinstance(given, Mapping):
        raise InputError(f"{where}: {type(given).__name__} is no mapping: give {{'name': value}}")
    return dict(given or {})


def _on(device: str | None, data: Dataset) -> Dataset:
    """The data on a device, by default on a GPU where there is one."""
    place = device or ("cuda" if torch.cuda.is_available() else "cpu")
    try:
        return data.to(place)
    except (RuntimeError, AssertionError, TypeError) as error:
        told = str(error).partition("\n")[0]
        raise InputError(f"device {place!r} takes no data ({told}): name another, such as 'cpu'") from error


def _check_vocabulary(data: Dataset) -> None:
    """Our encoder of tokens has an embedding for so many."""
    for name in (name for name, one in data.modalities.items() if one.kind == "tokens"):
        largest = max(int(split.x[name].max()) for split in (data.train, data.test))
        if largest >= WORD_PIECES:
            raise InputError(
                f"dataset, {name}: the largest token is {largest}, and our encoder knows those below "
                f"{WORD_PIECES}: number them anew, say by kinds that it is a table, or give your own model"
            )


def _budget(data: Dataset, rounds: int, initial, acquisition, validation) -> Budget:
    """How many labels: what is not said is a share of the training samples."""
    size, classes = len(data.train), data.num_classes
    validation = max(classes, size // 5) if validation is None else validation
    twentieth = max(classes, (size - validation) // 20) if isinstance(validation, int) else classes
    initial = twentieth if initial is None else initial
    acquisition = initial if acquisition is None else acquisition
    budget = Budget(initial=initial, validation=validation, acquisition=acquisition, rounds=rounds)
    if budget.needed > size:
        raise InputError(
            f"{budget.needed} training samples are needed (initial {initial}, validation {validation}, "
            f"{rounds - 1} times acquisition {acquisition}), and there are {size}: lower one of them"
        )
    return budget


def _dataset(name: str, x: Arrays, labels, present, test, kinds: Mapping[str, str]) -> Dataset:
    """The arrays as training, querying and evaluation see them, checked."""
    whole, modalities = _samples("dataset", x, labels, present, kinds)
    for kind in kinds:
        if kind not in modalities:
            raise InputError(f"kinds names {kind!r}; the modalities are {', '.join(modalities)}")
    if isinstance(test, float):
        rows = _drawn(whole.y_N.numpy(), test)
        train, held = whole.select(_ids(~rows)), whole.select(_ids(rows))
    elif isinstance(test, tuple) and len(test) in (2, 3):
        train = whole
        held, found = _samples("test", *test, *[None] * (3 - len(test)), kinds)
        if found != modalities:
            raise InputError(f"test has the modalities {_told(found)}, the dataset {_told(modalities)}")
        order = [list(found).index(name) for name in modalities]
        held = Split({name: held.x[name] for name in modalities}, held.present_NM[:, order], held.y_N)
    else:
        raise InputError("test is a share such as 0.25, or (dataset, labels), or (dataset, labels, present)")
    classes = int(max(whole.y_N.max(), held.y_N.max())) + 1
    if classes > len(train) + len(held):
        raise InputError(f"labels: {classes - 1} is there, of fewer samples: {NUMBERED}")
    for split, y_N, least in (("training", train.y_N, LEAST), ("test", held.y_N, 1)):
        counts = torch.bincount(y_N, minlength=classes).tolist()
        for label, count in enumerate(counts):
            if count < least:
                raise InputError(
                    f"labels: class {label} has {count} {split} samples, and needs {least}: {NUMBERED}, and "
                    f"give more samples"
                )
    if classes < 2:
        raise InputError("labels: there is one class; two are the least")
    for which, split in (("training", train), ("test", held)):
        for name, there_N in zip(modalities, split.present_NM.T, strict=True):
            if not there_N.any():
                raise InputError(
                    f"present: no {which} sample has {name}: give some that have it, or leave it out"
                )
    digest = hashlib.sha256()
    for split in (train, held):
        for array in (*split.x.values(), split.present_NM, split.y_N):
            digest.update(np.ascontiguousarray(array.numpy()).tobytes())
    ceilings = {subset_name(s, tuple(modalities)): 1.0 for s in subsets(tuple(modalities))}
    return Dataset(name, modalities, None, classes, ceilings, train, held, digest.hexdigest())


def _ids(rows_N: np.ndarray) -> Tensor:
    return torch.from_numpy(np.flatnonzero(rows_N))


def _told(modalities: Mapping[str, Modality]) -> str:
    return ", ".join(f"{name} ({one.kind} {one.shape})" for name, one in modalities.items())


def _drawn(y_N: np.ndarray, share: float) -> np.ndarray:
    """Which samples are tested on: of each class that share, at least one; the same in every call."""
    if not 0 < share < 1:
        raise InputError(f"test is {share}: a share between 0 and 1")
    rng, rows = numpy_rng("library", "test"), np.zeros(len(y_N), dtype=bool)
    for label in np.unique(y_N):
        ids = rng.permutation(np.flatnonzero(y_N == label))
        rows[ids[: max(1, round(share * len(ids)))]] = True
    return rows


def _samples(
    where: str, x: Arrays, labels: Any, present: Any, kinds: Mapping[str, str]
) -> tuple[Split, dict[str, Modality]]:
    """The arrays of a split as they are stored, and what each modality is; else an InputError."""
    if not isinstance(x, Mapping) or not x:
        raise InputError(f"{where}: {type(x).__name__} is no mapping of modalities to arrays: " + MAPPING)
    for name in x:
        if not isinstance(name, str) or not name.isidentifier():
            raise InputError(f"{where}: modality {name!r}: a name of letters, digits and _ only")
        if hasattr(nn.ModuleDict(), name):
            raise InputError(f"{where}: modality {name!r}: torch's modules have a {name!r}: rename it")
    _check_rows(where, {**x, "labels": labels, "present": present})
    y_N = _array(f"{where}, labels", labels)
    if y_N.ndim != 1 or not len(y_N) or y_N.dtype.kind not in "iu" or y_N.min() < 0:
        raise InputError(
            f"{where}, labels: {y_N.dtype} of shape {y_N.shape}: give each sample a whole number, 0 to C - 1"
        )
    arrays = {name: _array(f"{where}, {name}", values) for name, values in x.items()}
    for name, array in arrays.items():
        if not array.ndim or len(array) != len(y_N):
            raise InputError(f"{where}, {name}: shape {array.shape}, but there are {len(y_N)} labels")
    size = len(y_N), len(arrays)
    there = np.ones(size, dtype=bool) if present is None else np.array(_array(f"{where}, present", present))
    if there.shape != size or there.dtype != bool:
        raise InputError(f"{where}, present: {there.dtype} {there.shape}: truth values of shape {size}")
    if len(rows := np.flatnonzero(~there.any(axis=1))):
        raise InputError(f"{where}, present: row {rows[0]} has no modality at all: leave it out")
    stored, modalities = {}, {}
    for m, (name, array) in enumerate(arrays.items()):
        array, modality = _stored(f"{where}, {name}", array, kinds.get(name), there[:, m])
        stored[name], modalities[name] = torch.from_numpy(array), modality
    return Split(stored, torch.from_numpy(there), torch.from_numpy(y_N.astype(np.int64))), modalities


def _check_rows(where: str, given: Mapping[str, Any]) -> None:
    """Rows are taken in their order: those of pandas have names, which then have to be the same."""
    frames = {name: one for name, one in given.items() if isinstance(one, pd.DataFrame | pd.Series)}
    (first, *others) = frames or [None]
    for other in others:
        if not frames[other].index.equals(frames[first].index):
            raise InputError(
                f"{where}: {first} and {other} have other indices, and rows are taken in their order: give "
                f"both the same index, say by .loc, or arrays, by .to_numpy()"
            )


def _array(where: str, values: Any) -> np.ndarray:
    """An array or tensor of numbers as an array."""
    try:
        array = values.detach().cpu().numpy() if isinstance(values, Tensor) else np.asarray(values)
    except (TypeError, ValueError) as error:  # bfloat16, sparse, ragged
        raise InputError(f"{where}: {error}: give an array or tensor of numbers") from error
    if array.dtype.kind not in "biuf":
        raise InputError(f"{where}: {array.dtype} is no type of numbers: give an array or tensor of numbers")
    return array


def _stored(
    where: str, array: np.ndarray, kind: str | None, there_N: np.ndarray
) -> tuple[np.ndarray, Modality]:
    """A modality in the type that its kind is stored in; what is absent is 0."""
    kind = kind or _kind(where, array)
    if kind not in DTYPES:
        raise InputError(f"{where}: unknown kind {kind!r}; known: {', '.join(DTYPES)}")
    if kind == "table" and array.ndim == 1:
        array = array[:, None]
    if kind == "image" and array.ndim == 3:
        array = array[..., None]
    axes = {"image": 4, "signal": 3}.get(kind, 2)
    if array.ndim != axes or 0 in array.shape:
        raise InputError(f"{where}: shape {array.shape}: {SHAPES[kind]}")
    if kind == "image" and (array.dtype != np.uint8 or array.shape[-1] > 4):
        raise InputError(f"{where}: {array.dtype} of shape {array.shape}: {SHAPES[kind]}")
    kept = array[there_N]
    wide = kind == "tokens" and len(kept) and not 0 <= kept.min() <= kept.max() <= np.iinfo(np.int32).max
    if kind == "tokens" and (kept.dtype.kind not in "iu" or wide):
        raise InputError(f"{where}: {SHAPES[kind]}")
    with np.errstate(over="ignore"):
        stored = np.zeros(array.shape, DTYPES[kind])
        stored[there_N] = kept
    finite_N = np.isfinite(stored.reshape(len(stored), -1)).all(axis=1)
    if len(rows := np.flatnonzero(~finite_N)):
        raise InputError(
            f"{where}: row {rows[0]} is not finite as {stored.dtype}: scale it, fill it in, or say by "
            f"present that the sample lacks this modality"
        )
    return stored, Modality(kind, stored.shape[1:])


def _kind(where: str, array: np.ndarray) -> str:
    """What type and shape tell of a modality."""
    floats = array.dtype.kind == "f"
    if array.ndim <= 2:
        return (
            "tokens" if array.ndim == 2 and array.dtype.kind in "iu" and array.dtype.itemsize > 1 else "table"
        )
    if array.dtype == np.uint8 and array.ndim <= 4:
        return "image"
    if floats and array.ndim == 3:
        return "signal"
    raise InputError(
        f"{where}: {array.dtype} of shape {array.shape} is no kind of modality as it is. "
        + " ".join(f"{kind}: {told}." for kind, told in SHAPES.items())
    )


def _width(model: Callable[[Mapping[str, Modality]], Own], data: Dataset) -> int:
    """The width of the tokens of a user's model, which is tried on two samples of each modality."""
    if not callable(model):
        raise InputError("model: give a function that makes it of the modalities, anew in each call")
    own, again, shape = model(data.modalities), model(data.modalities), (0, 0)
    if not isinstance(getattr(own, "fuse", None), nn.Module) or not hasattr(own.fuse, "out_features"):
        raise InputError("model: its `fuse` has to be a module with `out_features`")
    tokens = []
    for name in data.modalities:
        try:
            encoder, other = own.encode[name], again.encode[name]
        except (AttributeError, KeyError, TypeError):
            raise InputError(f"model: its `encode` lacks a module for {name!r}") from None
        _check_new(f"encode[{name!r}]", encoder, other)
        x_K = data.train.x[name][:2]
        made = _tried(f"encode[{name!r}]", encoder, x_K.float() if x_K.is_floating_point() else x_K)
        shape = shape if tokens else (len(x_K), made.shape[-1] if made.dim() else 0)
        if made.shape != shape:
            told = f"shape {tuple(made.shape)}, not {shape}"
            raise InputError(f"model: encode[{name!r}] makes {told}: K x D, D the same for all modalities")
        tokens.append(made)
    _check_new("fuse", own.fuse, again.fuse)
    present_NM = torch.ones(shape[0], len(tokens), dtype=torch.bool)
    fused = _tried("fuse", own.fuse, torch.stack(tokens, dim=1), present_NM, pair=True)
    if fused.shape != (shape[0], own.fuse.out_features):
        raise InputError(
            f"model: fuse makes shape {tuple(fused.shape)}, not N x its out_features, {own.fuse.out_features}"
        )
    return shape[1]


def _tried(part: str, module: nn.Module, *given: Tensor, pair: bool = False) -> Tensor:
    """What a part of a user's model makes of a few samples; of a `pair`, with reliabilities, the first."""
    shapes = ", ".join(str(tuple(one.shape)) for one in given)
    try:
        with torch.no_grad():
            made = module.eval()(*given)
    except Exception as error:  # whatever a stranger's code raises
        raise InputError(f"model: {part} fails on input of shape {shapes}: {error}") from error
    made = made[0] if pair and isinstance(made, tuple) else made
    if not isinstance(made, Tensor):
        raise InputError(f"model: {part} makes {type(made).__name__}, not a tensor")
    return made


def _check_new(part: str, one: Any, other: Any) -> None:
    """Each training begins anew: what it changes must not be in the model of the next one too."""
    for module in (one, other):
        if not isinstance(module, nn.Module):
            raise InputError(f"model: {part} is {type(module).__name__}, not a module (torch.nn.Module)")
    changed = [
        {id(x) for x in module.parameters() if x.requires_grad}
        | {id(x) for x in module.buffers() if x.is_floating_point()}
        for module in (one, other)
    ]
    if changed[0] & changed[1]:
        raise InputError(
            f"model: {part} has the same weights in each call, so a round would go on from those that the "
            f"round before trained: make its modules inside the function"
        )

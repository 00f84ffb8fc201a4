"""The typed parameters: what `params.yaml` may say, and every check that needs no compute.

Unknown keys, wrong types and impossible combinations are `ParamsError`s that name the key and the mend.
"""

import contextlib
import json
import re
import reprlib
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, ParamSpec, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from mindgap.base.errors import ParamsError
from mindgap.base.settings import Rate, Share, Width, checked, explain
from mindgap.core.recipe import Recipe

if TYPE_CHECKING:
    from mindgap.base.plugins import Registry
    from mindgap.data.quintfeatures.pairing import Pairing

# Bounds beyond which nothing could be computed, or no model would learn.
Count = Annotated[int, Field(ge=1, le=10_000_000)]
LearningRate = Annotated[float, Field(ge=1e-8, le=100)]
WeightDecay = Annotated[float, Field(ge=0, le=1)]
Seed = Annotated[int, Field(ge=0, lt=2**32)]
NO_ABSENCE: Mapping[str, Rate] = {}
# What a modality cannot have otherwise than the rest of `render`.
SHARED = {"root_seed", "train_size", "test_size", "image_size"}
NO_STYLE: Mapping[str, Mapping[str, Any]] = {}
# Becomes part of file names, where "-" stands between names.
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9_]{1,64}$")]


class Block(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)


B = TypeVar("B", bound=Block)
P = ParamSpec("P")
T = TypeVar("T")


class Budget(Block):
    """How many labels: `initial`, then `rounds` - 1 times `acquisition`; `validation` is set aside first."""

    initial: Count
    validation: Count
    acquisition: Count
    rounds: int = Field(ge=2, le=1_000)

    @property
    def needed(self) -> int:
        return self.initial + self.validation + self.acquisition * (self.rounds - 1)


class DatasetRecipe(Block):
    """A row of the paper's Table 5."""

    epochs: int = Field(ge=1, le=100_000)
    batch_size: int = Field(ge=2, le=65_536)
    learning_rate: LearningRate
    weight_decay: WeightDecay
    augmentation: str
    class_balanced: bool = False
    projection_dropout: Rate = 0.0


Epochs = Annotated[float, Field(ge=0)]
DrawCount = Annotated[int, Field(ge=0, le=10_000_000)]


class Training(Block):
    """What all rows of Table 5 share or leave open."""

    momentum: Rate
    warmup_epochs: Epochs
    min_samples_per_epoch: DrawCount
    validate_from: Share
    drop_last: bool = False


class RecipeEntry(DatasetRecipe):
    """What stands under `recipe`: a row of Table 5, and what its runs have otherwise than `training`."""

    momentum: Rate | None = None
    warmup_epochs: Epochs | None = None
    min_samples_per_epoch: DrawCount | None = None
    validate_from: Share | None = None
    drop_last: bool | None = None

    @property
    def row(self) -> DatasetRecipe:
        return DatasetRecipe(**self.model_dump(include=set(DatasetRecipe.model_fields)))

    @property
    def own_training(self) -> dict[str, Any]:
        """What takes the place of `training` in the runs with this recipe."""
        return self.model_dump(include=set(Training.model_fields), exclude_none=True)


class Model(Block):
    """`encoder`: for each kind of modality the name of its encoder, with the encoder's settings beside it;
    `fusion` likewise.
    """

    encoder: dict[str, dict[str, Any]]
    fusion: dict[str, Any]
    width: Width
    head_dropout: Rate
    absent: Literal["skip", "zeros"]
    min_present: int = Field(ge=2)


class ScaleModel(Model):
    """`head_dropout_for`: whose models have dropout before the linear layer: all, or only those of a query
    method that needs it, which of the paper's is BALD.
    """

    head_dropout_for: Literal["all", "bald_only"]

    def has_dropout(self, needs_it: bool) -> bool:
        """Whether the models of a method have dropout, which it needs or does not."""
        return self.head_dropout > 0 and (self.head_dropout_for == "all" or needs_it)

    @property
    def initial_models(self) -> tuple[bool, ...]:
        """The models trained on one start set, for one mitigation and seed: whether each has dropout."""
        return tuple(dict.fromkeys(map(self.has_dropout, (True, False))))

    def of_run(self, dropout: bool) -> Model:
        """What the numbers of a run depend on: with its dropout, or without."""
        settings = self.model_dump(exclude={"head_dropout_for"})
        return Model(**settings if dropout else settings | {"head_dropout": 0.0})


class Render(Block):
    """How many samples are rendered, and how hard they are."""

    root_seed: Seed
    train_size: Count
    test_size: Count
    image_size: int = Field(ge=16, le=512)
    supersample: int = Field(ge=1, le=8)
    erase: tuple[float, float]
    max_rotation: float = Field(ge=0, le=180)
    max_texture_rotation: float = Field(ge=0, le=180)
    half_width: tuple[float, float]
    texture_period: float = Field(gt=0, lt=1)
    off_lightness: Share
    off_chroma: Share
    color_jitter: float = Field(ge=0)
    allow_same_color: bool
    nuisance: dict[str, list[str]]

    @property
    def style(self) -> dict[str, Any]:
        """The fields that say what an image looks like."""
        return self.model_dump(exclude={"root_seed", "train_size", "test_size"})


class Scale(Block):
    """`prepare`: what each dataset's data stage is told; rendered ones share `render`."""

    render: Render
    prepare: dict[Name, dict[str, Any]]
    model: ScaleModel
    training: Training
    recipe: dict[Name, dict[Name, RecipeEntry]]
    budget: dict[Name, dict[Name, Budget]]


class Loop(Block):
    """`start`: how the start set is drawn or chosen."""

    start: Name


class Search(Block):
    """The choice of learning rate, weight decay and augmentation before the first round (paper, 5, A.3)."""

    method: Literal["none", "grid", "halving"]
    learning_rate: list[LearningRate] = Field(min_length=1, max_length=30)
    weight_decay: list[WeightDecay] = Field(min_length=1, max_length=30)
    augmentation: list[str] = Field(min_length=1)
    seeds: list[Seed] = Field(min_length=1, max_length=100)
    mitigation: str
    factor: int = Field(ge=2, le=1_000)


@dataclass(frozen=True)
class Setting:
    """All that a dataset and regime fix for a run at one scale."""

    scale: str
    dataset: str
    regime: str
    start: str
    budget: Budget
    recipe: DatasetRecipe
    training: Training
    model: Model


class Selected(Block):
    """What to run, and what a report is about: every combination of these lists."""

    dataset: list[Name] = Field(min_length=1)
    published: list[Name]
    regime: list[Name] = Field(min_length=1)
    query: list[Name] = Field(min_length=1)
    mitigation: list[Name] = Field(min_length=1)
    seeds: list[Seed] = Field(min_length=1, max_length=1_000)
    scale: Name

    @property
    def pairs(self) -> list[tuple[str, str]]:
        """The datasets and regimes that have runs."""
        return list(product([*self.dataset, *self.published], self.regime))


class Kept(Selected):
    """The selection of a kept report (`mindgap keep`), with a paragraph about it for its page.

    `there`: the regimes of each dataset that have runs, where not every combination of the lists was run; so
    holes are allowed in such a folder, and in no other. `records`: digests (`text_digest`) of its flows and
    searches by their names, with holes also of its provenance; none in older folders.
    """

    about: str = Field(min_length=1)
    there: dict[Name, list[Name]] = {}
    records: dict[str, str] = {}

    @model_validator(mode="after")
    def _of_the_lists(self) -> "Kept":
        named = {regime for regimes in self.there.values() for regime in regimes}
        if self.there and (set(self.there) != {*self.dataset, *self.published} or named != set(self.regime)):
            raise ValueError("`there` has other datasets or regimes than the lists")
        return self

    @property
    def pairs(self) -> list[tuple[str, str]]:
        if not self.there:
            return super().pairs
        return [pair for pair in super().pairs if pair[1] in self.there[pair[0]]]


class Params(Selected):
    loop: Loop
    evaluate: list[Name] = Field(min_length=1)
    evaluate_settings: dict[str, dict[str, Any]]
    keep_models: Literal["none", "last"]
    diagnose: list[Name]
    diagnose_sources: list[Literal["fusion", "acquisition", "truth"]] = Field(min_length=1)
    search: Search
    query_settings: dict[str, dict[str, Any]]
    mitigation_settings: dict[str, dict[str, Any]]
    scales: dict[Name, Scale]

    @property
    def at_scale(self) -> Scale:
        return pick(self.scales, self.scale, "scale", "scales")

    def setting(self, dataset: str, regime: str, dropout: bool = True) -> Setting:
        """The budget and recipe of a dataset and regime; an unknown one is an error that lists the known.

        `dropout`: whether the model has its dropout before the linear layer.
        """
        scale, where = self.at_scale, f"scales.{self.scale}"
        budgets = pick(scale.budget, dataset, "dataset", f"{where}.budget")
        recipes = pick(scale.recipe, dataset, "dataset", f"{where}.recipe")
        budget = pick(budgets, regime, "regime", f"{where}.budget.{dataset}")
        entry = recipes.get(regime) or pick(recipes, "all", "regime", f"{where}.recipe.{dataset}")
        training = scale.training.model_copy(update=entry.own_training)
        model = scale.model.of_run(dropout)
        return Setting(self.scale, dataset, regime, self.loop.start, budget, entry.row, training, model)

    def search_setting(self, dataset: str, regime: str) -> Setting:
        """The setting in which a recipe is searched: its models are those of methods that need no dropout."""
        return self.setting(dataset, regime, self.at_scale.model.has_dropout(needs_it=False))


def pick(table: Mapping[str, T], name: str, key: str, where: str) -> T:
    """`table[name]`, or an error that names the key and lists what there is."""
    if not isinstance(name, str) or name not in table:
        known = ", ".join(map(str, table))
        raise ParamsError(f"{key}: unknown {reprlib.repr(name)}; known in {where}: {known}")
    return table[name]


def load_params(path: Path = Path("params.yaml")) -> Params:
    """The parameters of a file, checked for form; `check_params` checks what they ask for."""
    return load_block(path, Params)


def load_kept(path: Path) -> Kept:
    """The selection of a kept report."""
    return load_block(path, Kept)


def load_block(path: Path, block: type[B]) -> B:
    """A YAML file as that block; ParamsErrors name the file and the key."""
    return as_block(read_mapping(path), block, path)


def read_mapping(path: Path) -> dict[str, Any]:
    """The mapping in a YAML file. Plain words are numbers, true, false and null as in YAML 1.2, which DVC
    reads, and else text: "1:30" is no number here and "no" is a name.
    """
    try:
        text = path.read_bytes().decode()
    except FileNotFoundError as error:
        raise ParamsError(f"{path} is not here: run the command in the project's top folder") from error
    except OSError as error:
        raise ParamsError(f"{path} cannot be read: {error.strerror}; put a text file there") from error
    except UnicodeDecodeError as error:
        raise ParamsError(f"{path}: byte {error.start} is not UTF-8: save the file as UTF-8 text") from error
    try:
        raw = yaml.load(text, Loader=_Loader)
    # The last three: what PyYAML raises for an explicit tag (`!!int x`) whose value does not fit.
    except (yaml.YAMLError, RecursionError, ValueError, TypeError, LookupError) as error:
        raise ParamsError(f"{path} is not valid YAML: {' '.join(str(error).split())}") from error
    if not isinstance(raw, dict):
        what = "is empty" if raw is None else f"holds a {type(raw).__name__}"
        raise ParamsError(f"{path} {what} instead of parameters: `git checkout {path}` brings them back")
    return raw


def as_block(raw: Mapping[str, Any], block: type[B], path: Path | str) -> B:
    """What a file, or a key in one, holds as that block. By way of JSON, in which a list may be a tuple and
    nothing else is taken for another type.
    """
    try:
        return block.model_validate_json(json.dumps(raw))
    except ValidationError as error:
        raise ParamsError("\n".join(f"{path}: {line}" for line in explain(error))) from error
    except (TypeError, ValueError, RecursionError) as error:
        raise ParamsError(f"{path}: no file of parameters: {error}") from error


def check_params(params: Params) -> None:
    """Stop before any compute at whatever could not be run: names, settings, sizes."""
    check_names(params)
    check_runs(params, params.dataset, params.regime)
    for name in params.diagnose:
        check_sources(params, name)


def check_names(params: Params) -> None:
    """What a report needs of that, without the plug-ins, which load torch: datasets and regimes are known."""
    from mindgap.data import CREDENTIALED, DATASETS, SOURCES

    for key in ("dataset", "published", "regime", "query", "mitigation", "seeds", "diagnose"):
        _unique(key, getattr(params, key))
    for name in params.published:
        pick(SOURCES, name, "published", "mindgap.data.SOURCES")
        if name not in CREDENTIALED:
            raise ParamsError(f"published: {name!r} is open: name it in `dataset` instead")
    for name in params.dataset:
        pick(DATASETS, name, "dataset", "mindgap.data.DATASETS")
        if name in CREDENTIALED:
            raise ParamsError(
                f"dataset: {name!r} is credentialed and has a DVC project of its own, which shares nothing: "
                f"take it out of the list and run `dvc repro` in data/{name} (docs/data.md)"
            )
        for regime in params.regime:
            params.setting(name, regime)
    for name in params.diagnose:
        if name not in params.dataset:
            raise ParamsError(f"diagnose: {name!r} is not run: name it in `dataset` too, or take it out here")
    if params.diagnose and params.keep_models == "none":
        raise ParamsError("diagnose: it takes trained models: set keep_models: last (-S keep_models=last)")


def check_runs(params: Params, datasets: Iterable[str], regimes: Iterable[str]) -> None:
    """The same for runs of other datasets and regimes than those listed in the file."""
    from mindgap.data import DATASETS

    _unique("dataset", datasets)
    for name in datasets:
        pick(DATASETS, name, "dataset", "mindgap.data.DATASETS")
    _check_data(params)
    _check_plug_ins(params)
    _check_search(params.search)
    for dataset in datasets:
        for regime in regimes:
            _check_setting(params, params.setting(dataset, regime))


def check_sources(params: Params, dataset: str) -> None:
    """Whether a dataset's models have the reliabilities that are to be diagnosed."""
    from mindgap.data import RENDERED
    from mindgap.parts.fusions import gives_reliabilities, giving_reliabilities

    _unique("diagnose_sources", params.diagnose_sources)
    model, sources = params.at_scale.model, params.diagnose_sources
    if "truth" in sources and dataset not in RENDERED:
        raise ParamsError(
            f"diagnose_sources: what is true is known of rendered datasets ({', '.join(RENDERED)}), not of "
            f"{dataset}: take truth out, or {dataset} out of `diagnose`"
        )
    if "fusion" in sources and not gives_reliabilities(model.fusion, model.width):
        raise ParamsError(
            f"diagnose_sources: {model.fusion['name']!r} gives no reliabilities: set scales.{params.scale}."
            f"model.fusion.name to {', '.join(giving_reliabilities())}, or name other sources than fusion"
        )


# The checks below import the tables they ask when called: the tables pull in torch, reading a file does not.


def _check_data(params: Params) -> None:
    from mindgap.data import DATASETS, RENDERED, SOURCES
    from mindgap.data.errors import NotInstalled
    from mindgap.data.quintfeatures.images import Style

    scale, where = params.at_scale, f"scales.{params.scale}"
    for block in ("prepare", "recipe", "budget"):
        for name in getattr(scale, block):
            if not _left_alone(SOURCES, name, params.dataset):
                pick(DATASETS, name, f"{where}.{block}", "mindgap.data.DATASETS")
    for name, recipes in scale.recipe.items():
        for regime in recipes:
            regimes = {"all": None, **scale.budget.get(name, {})}
            pick(regimes, regime, f"{where}.recipe.{name}", f"{where}.budget.{name}, beside all")
    _as_params_error(f"{where}.render", Style, **scale.render.style)
    for name in scale.prepare:
        if _left_alone(SOURCES, name, params.dataset):
            continue
        if name in RENDERED:
            pairing_asked(params, name)
        else:
            # Training needs none of the packages that only some files from outside are read with.
            with contextlib.nullcontext() if name in params.dataset else contextlib.suppress(NotInstalled):
                source_settings(params, name)


def _left_alone(table: "Registry[Any]", name: str, used: Iterable[str]) -> bool:
    """Whether a name that has settings is another package's and not in use: it may be broken."""
    return name not in used and bool(table.outside(name))


def source_settings(params: Params, dataset: str) -> Any:
    """The settings of a dataset from outside, as its module wants them."""
    from mindgap.data import SOURCES

    where = f"scales.{params.scale}.prepare"
    settings = pick(params.at_scale.prepare, dataset, "dataset", where)
    made = SOURCES[dataset].module.Settings
    settings = checked(f"{where}.{dataset}", made, 0, settings)
    return _as_params_error(f"{where}.{dataset}", made, **settings)


def pairing_asked(params: Params, dataset: str) -> "Pairing":
    """A rendered dataset as it is declared, but for what its `prepare` says otherwise."""
    from mindgap.data import RENDERED
    from mindgap.data.quintfeatures.images import Style

    where, render = f"scales.{params.scale}.prepare.{dataset}", params.at_scale.render
    settings = checked(where, _rendered_settings, 0, params.at_scale.prepare.get(dataset, {}))
    for name, own in settings.get("style", {}).items():
        for key in sorted(SHARED & set(own)):
            raise ParamsError(
                f"{where}.style.{name}.{key}: all images of a scale share it: take it out, and set "
                f"scales.{params.scale}.render.{key}"
            )
        as_block({**render.model_dump(), **own}, Render, f"{where}.style.{name}")
    pairing = _as_params_error(where, replace, RENDERED[dataset], **settings)
    for modality in pairing.modalities:
        if own := {**pairing.style.get("all", {}), **pairing.style.get(modality, {})}:
            at = f"{where}.style.{modality if modality in pairing.style else 'all'}"
            _as_params_error(at, Style, **{**render.style, **own})
    return pairing


def _rendered_settings(
    absence: Mapping[str, Rate] = NO_ABSENCE,
    label_values: Annotated[int, Field(ge=2, le=10)] = 10,
    style: Mapping[str, Mapping[str, Any]] = NO_STYLE,
) -> None:
    """What may stand under `prepare` for a rendered dataset; its declaration has what does not."""


def _check_plug_ins(params: Params) -> None:
    from mindgap.parts.encoders import ENCODERS, encoder_settings
    from mindgap.parts.evaluators import EVALUATORS, make_evaluator
    from mindgap.parts.evaluators.contract import OF_CURVES
    from mindgap.parts.fusions import FUSIONS, fusion_settings
    from mindgap.parts.mitigations import MITIGATIONS, make_mitigation
    from mindgap.parts.query import METHODS
    from mindgap.parts.query.select import check_settings
    from mindgap.parts.starts import STARTS

    pick(STARTS, params.loop.start, "loop.start", "mindgap.parts.starts.STARTS")
    for key, names in {"query": params.query, "query_settings": params.query_settings}.items():
        for name in names:
            if _left_alone(METHODS, name, params.query):
                continue
            pick(METHODS, name, key, "mindgap.parts.query.METHODS")
            check_settings(name, params.query_settings.get(name, {}))
    _unique("evaluate", params.evaluate)
    for key, names in {"evaluate": params.evaluate, "evaluate_settings": params.evaluate_settings}.items():
        for name in names:
            pick(EVALUATORS, name, key, "mindgap.parts.evaluators.EVALUATORS")
            make_evaluator(name, params.evaluate_settings.get(name, {}))
    if lacking := [name for name in OF_CURVES if name not in params.evaluate]:
        raise ParamsError(
            f"evaluate: learning curves are made of {', '.join(lacking)} too: name it in the list"
        )
    mitigations = {
        "mitigation": params.mitigation,
        "search.mitigation": [params.search.mitigation],
        "mitigation_settings": params.mitigation_settings,
    }
    for key, names in mitigations.items():
        for name in names:
            if _left_alone(MITIGATIONS, name, [*params.mitigation, params.search.mitigation]):
                continue
            pick(MITIGATIONS, name, key, "mindgap.parts.mitigations.MITIGATIONS")
            settings = params.mitigation_settings.get(name, {})
            _as_params_error(f"mitigation_settings.{name}", make_mitigation, name, settings)
    model, where = params.at_scale.model, f"scales.{params.scale}.model"
    for kind in ENCODERS:
        settings = pick(model.encoder, kind, f"{where}.encoder", f"{where}.encoder")
        name = pick(settings, "name", f"{where}.encoder.{kind}", f"{where}.encoder.{kind}")
        table = f"mindgap.parts.encoders.ENCODERS[{kind!r}]"
        pick(ENCODERS[kind], name, f"{where}.encoder.{kind}.name", table)
        encoder_settings(f"{where}.encoder.{kind}", kind, settings)
    for kind in model.encoder:
        pick(ENCODERS, kind, f"{where}.encoder", "mindgap.parts.encoders.ENCODERS")
    name = pick(model.fusion, "name", f"{where}.fusion", f"{where}.fusion")
    pick(FUSIONS, name, f"{where}.fusion.name", "mindgap.parts.fusions.FUSIONS")
    fusion_settings(f"{where}.fusion", model.fusion, model.width)
    needing = [name for name in params.query if METHODS[name].dropout]
    if needing and model.head_dropout == 0:
        raise ParamsError(
            f"query: {needing[0]!r} needs dropout before the linear layer: "
            f"set {where}.head_dropout above 0, or leave {needing[0]} out"
        )


def _check_search(search: Search) -> None:
    from mindgap.parts.augment.images import AUGMENTATIONS

    for key in ("learning_rate", "weight_decay", "augmentation", "seeds"):
        _unique(f"search.{key}", getattr(search, key))
    for name in search.augmentation:
        pick(AUGMENTATIONS, name, "search.augmentation", "mindgap.parts.augment.images.AUGMENTATIONS")


def _check_setting(params: Params, setting: Setting) -> None:
    from mindgap.data import RENDERED
    from mindgap.parts.augment.images import AUGMENTATIONS

    where = f"scales.{setting.scale}"
    entries = params.at_scale.recipe[setting.dataset]
    regime = setting.regime if setting.regime in entries else "all"
    recipe = f"{where}.recipe.{setting.dataset}.{regime}"
    pick(
        AUGMENTATIONS,
        setting.recipe.augmentation,
        f"{recipe}.augmentation",
        "mindgap.parts.augment.images.AUGMENTATIONS",
    )
    pick(params.at_scale.prepare, setting.dataset, "dataset", f"{where}.prepare")
    training = dict.fromkeys(Training.model_fields, f"{where}.training")
    training |= dict.fromkeys(entries[regime].own_training, recipe)
    _check_learning(setting, where, recipe, training)
    if setting.dataset not in RENDERED:  # how many samples it has is known when it is prepared
        return
    size, needed = params.at_scale.render.train_size, setting.budget.needed
    if needed > size:
        raise ParamsError(
            f"{where}.budget.{setting.dataset}.{setting.regime} needs {needed} training "
            f"samples (initial + validation + (rounds - 1) x acquisition), but {where}."
            f"render.train_size is {size}: raise it, or ask for fewer"
        )
    classes, tested = pairing_asked(params, setting.dataset).num_classes, params.at_scale.render.test_size
    if tested < classes:
        raise ParamsError(
            f"{where}.render.test_size is {tested}, but {setting.dataset} has {classes} classes, and each "
            f"needs a sample in the test set: raise it, or lower label_values in {where}.prepare."
            f"{setting.dataset}"
        )


def _check_learning(setting: Setting, where: str, recipe: str, training: Mapping[str, str]) -> None:
    """What no single parameter shows: a warm-up without an end, batches in which every modality sits out, a
    batch of one sample where none may sit out. `training`: where each of its keys is said.
    """
    epochs, warmup = setting.recipe.epochs, setting.training.warmup_epochs
    if warmup >= epochs:
        raise ParamsError(
            f"{training['warmup_epochs']}.warmup_epochs is {warmup:g}, but {recipe} has {epochs} epochs, of "
            f"which none would have the learning rate: lower warmup_epochs, or raise epochs"
        )
    least = setting.model.min_present
    if least > setting.recipe.batch_size:
        raise ParamsError(
            f"{where}.model.min_present is {least}, but {recipe} has a batch_size of "
            f"{setting.recipe.batch_size}: no modality would ever train; lower the one, or raise the other"
        )
    budget, size = setting.budget, setting.recipe.batch_size
    draws_of = Recipe.of(setting.recipe, setting.training).draws_per_epoch
    draws = draws_of(budget.initial)
    if least > draws:
        raise ParamsError(
            f"{where}.model.min_present is {least}, but an epoch of {where}.budget.{setting.dataset}."
            f"{setting.regime} has {draws} samples: no modality would train on the start set; lower "
            f"min_present, or raise initial or {training['min_samples_per_epoch']}.min_samples_per_epoch"
        )
    labelled = (budget.initial + k * budget.acquisition for k in range(budget.rounds))
    alone = next((n for n in map(draws_of, labelled) if n % size == 1), None)
    if alone and setting.model.absent == "zeros":
        raise ParamsError(
            f"{recipe}.batch_size is {size}, so of an epoch of {alone} samples one is left for the last "
            f"batch, and where {where}.model.absent is zeros its batch statistics are needed: take another "
            f"batch_size"
        )


def _unique(key: str, values: Iterable[object]) -> None:
    values = list(values)
    twice = sorted({str(v) for v in values if values.count(v) > 1})
    if twice:
        raise ParamsError(f"{key}: {', '.join(twice)} is listed twice: name each once")


def _as_params_error(where: str, check: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    try:
        return check(*args, **kwargs)
    except ParamsError:
        raise
    except (ValueError, TypeError) as error:
        raise ParamsError(f"{where}: {error}") from error


MOST_VALUES = 100_000  # of a file of parameters; a few aliases of aliases stand for billions


class _Loader(yaml.SafeLoader):
    """YAML of plain values: keys are text and given once, words are read as in YAML 1.2's core."""

    yaml_implicit_resolvers: dict[str, Any] = {}  # noqa: RUF012 - PyYAML's name; those of YAML 1.1 are not taken over

    def __init__(self, stream: str):
        super().__init__(stream)
        self.values = 0
        self.values_of: dict[int, int] = {}  # with what aliases stand for

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        event, before = self.peek_event(), self.values  # type: ignore[no-untyped-call]
        if getattr(event, "tag", None):
            raise yaml.YAMLError(f"{event.tag} is a tag: write a plain value without it{event.start_mark}")
        alias = self.check_event(yaml.AliasEvent)
        node = super().compose_node(parent, index)
        if alias and id(node) not in self.values_of:
            raise yaml.YAMLError(f"*{event.anchor} stands for what it is in: write it out{event.start_mark}")
        self.values += self.values_of[id(node)] if alias else 1
        self.values_of.setdefault(id(node), self.values - before)
        if self.values > MOST_VALUES:
            raise yaml.YAMLError(f"there are more than {MOST_VALUES} values up to here{event.start_mark}")
        return node


for _tag, _words, _first in (
    ("null", "~|null|Null|NULL|", ["~", "n", "N", ""]),
    ("bool", "true|True|TRUE|false|False|FALSE", list("tTfF")),
    # More digits than any parameter takes stay text, which Python would not even print.
    ("int", "[-+]?(0|[1-9][0-9]{0,17})", list("-+0123456789")),
    ("float", r"[-+]?(\.[0-9]+|[0-9]+\.[0-9]*)([eE][-+]?[0-9]+)?", list("-+.0123456789")),
    ("float", r"[-+]?[0-9]+[eE][-+]?[0-9]+", list("-+0123456789")),
    ("float", r"[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)", list("-+.")),
):
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(f"^({_words})$"), _first)


def _mapping(loader: _Loader, node: yaml.MappingNode) -> dict[str, Any]:
    keys = [loader.construct_object(key, deep=True) for key, _ in node.value]
    for (key_node, _), key in zip(node.value, keys, strict=True):
        if not isinstance(key, str):
            raise yaml.YAMLError(f"key {key!r} is no text: put quotes around a name{key_node.start_mark}")
    for key, count in Counter(keys).items():
        if count > 1:
            raise yaml.YAMLError(f"key {key!r} is given twice{node.start_mark}")
    return {
        key: loader.construct_object(value, deep=True)
        for key, (_, value) in zip(keys, node.value, strict=True)
    }


_Loader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _mapping)

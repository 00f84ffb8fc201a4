"""The typed parameters: what `params.yaml` may say, and every check that needs no compute.

Unknown keys, wrong types and impossible combinations are `ParamsError`s that name the key and the mend.
"""

import inspect
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    NonNegativeFloat,
    PositiveFloat,
    ValidationError,
    model_validator,
)

from mindgap.errors import MindGapError


class ParamsError(MindGapError):
    """Something in params.yaml cannot be run."""


class Block(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class Budget(Block):
    """How many labels: `initial`, then `rounds` - 1 times `acquisition`; `validation` is set aside first."""

    initial: int = Field(ge=1)
    validation: int = Field(ge=1)
    acquisition: int = Field(ge=1)
    rounds: int = Field(ge=2)

    @property
    def needed(self) -> int:
        return self.initial + self.validation + self.acquisition * (self.rounds - 1)


class DatasetRecipe(Block):
    """A row of the paper's Table 5."""

    epochs: int = Field(ge=1)
    batch_size: int = Field(ge=1)
    learning_rate: float = Field(gt=0)
    weight_decay: float = Field(ge=0)
    augmentation: str
    class_balanced: bool = False
    projection_dropout: float = Field(default=0.0, ge=0, lt=1)


class Training(Block):
    """What all rows of Table 5 share or leave open."""

    momentum: float = Field(ge=0, lt=1)
    warmup_epochs: float = Field(ge=0)
    min_samples_per_epoch: int = Field(ge=0)
    validate_from: float = Field(ge=0, le=1)


class Model(Block):
    """`encoder`: for each kind of modality the name of its encoder, with the encoder's settings beside it."""

    encoder: dict[str, dict[str, Any]]
    fusion: str
    width: int = Field(ge=1)
    fusion_layers: int = Field(ge=1)
    fusion_heads: int = Field(ge=1)
    fusion_feedforward: int = Field(ge=1)
    fusion_dropout: float = Field(ge=0, lt=1)
    head_dropout: float = Field(ge=0, lt=1)
    absent: Literal["skip", "zeros"]
    min_present: int = Field(ge=2)

    @model_validator(mode="after")
    def _heads_divide_width(self):
        if self.width % self.fusion_heads:
            raise ValueError(f"fusion_heads ({self.fusion_heads}) must divide width ({self.width})")
        return self


class Render(Block):
    """How many samples are rendered, and how hard they are."""

    root_seed: int = Field(ge=0, lt=2**32)
    train_size: int = Field(ge=1)
    test_size: int = Field(ge=1)
    image_size: int = Field(ge=16)
    supersample: int = Field(ge=1)
    erase: tuple[float, float]
    max_rotation: float = Field(ge=0, le=180)
    max_texture_rotation: float = Field(ge=0, le=180)
    half_width: tuple[float, float]
    texture_period: float = Field(gt=0, lt=1)
    off_lightness: float = Field(ge=0, le=1)
    off_chroma: float = Field(ge=0, le=1)
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
    prepare: dict[str, dict[str, Any]]
    model: Model
    training: Training
    recipe: dict[str, dict[str, DatasetRecipe]]
    budget: dict[str, dict[str, Budget]]


class Loop(Block):
    """`dropout_for`: whose models have dropout before the linear layer: all, or only those that need it."""

    start: Literal["stratified", "random"]
    dropout_for: Literal["all", "bald_only"]

    def has_dropout(self, needs_it: bool) -> bool:
        """Whether the models of a method have dropout, which it needs or does not."""
        return self.dropout_for == "all" or needs_it

    @property
    def initial_models(self) -> tuple[bool, ...]:
        """The models trained on one start set, for one mitigation and seed: whether each has dropout."""
        return tuple(dict.fromkeys(map(self.has_dropout, (True, False))))


class Search(Block):
    """The choice of learning rate, weight decay and augmentation before the first round (paper, 5, A.3)."""

    method: Literal["none", "grid", "halving"]
    learning_rate: list[PositiveFloat] = Field(min_length=1)
    weight_decay: list[NonNegativeFloat] = Field(min_length=1)
    augmentation: list[str] = Field(min_length=1)
    seeds: list[int] = Field(min_length=1)
    mitigation: str
    factor: int = Field(ge=2)


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

    dataset: list[str] = Field(min_length=1)
    published: list[str]
    regime: list[str] = Field(min_length=1)
    query: list[str] = Field(min_length=1)
    mitigation: list[str] = Field(min_length=1)
    seeds: list[int] = Field(min_length=1)
    scale: str


class Kept(Selected):
    """The selection of a kept report (`mindgap keep`), with a paragraph about it for its page."""

    about: str = Field(min_length=1)


class Params(Selected):
    loop: Loop
    search: Search
    query_settings: dict[str, dict[str, Any]]
    mitigation_settings: dict[str, dict[str, Any]]
    scales: dict[str, Scale]

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
        recipe = recipes.get(regime) or pick(recipes, "all", "regime", f"{where}.recipe.{dataset}")
        model = scale.model if dropout else scale.model.model_copy(update={"head_dropout": 0.0})
        return Setting(self.scale, dataset, regime, self.loop.start, budget, recipe, scale.training, model)


def pick(table: Mapping[str, Any], name: str, key: str, where: str) -> Any:
    """`table[name]`, or an error that names the key and lists what there is."""
    if name not in table:
        raise ParamsError(f"{key}: unknown {name!r}; known in {where}: {', '.join(map(str, table))}")
    return table[name]


def load_params(path: Path = Path("params.yaml")) -> Params:
    """The parameters of a file, checked for form; `check_params` checks what they ask for."""
    return load_block(path, Params)


def load_kept(path: Path) -> Kept:
    """The selection of a kept report."""
    return load_block(path, Kept)


def load_block(path: Path, block: type[Block]) -> Any:
    """A YAML file as that block; ParamsErrors name the file and the key."""
    try:
        raw = yaml.load(path.read_text(), Loader=_Loader)
    except FileNotFoundError as error:
        raise ParamsError(f"{path} is not here: run the command in the project's top folder") from error
    except yaml.YAMLError as error:
        raise ParamsError(f"{path} is not valid YAML: {error}") from error
    try:
        return block.model_validate(_tuples(raw))
    except ValidationError as error:
        raise ParamsError("\n".join(f"{path}: {line}" for line in _explain(error))) from error


def check_params(params: Params) -> None:
    """Stop before any compute at whatever could not be run: names, settings, sizes."""
    for key in ("dataset", "regime", "query", "mitigation", "seeds"):
        _unique(key, getattr(params, key))
    _check_data(params)
    _check_plug_ins(params)
    _check_search(params.search)
    for dataset in params.dataset:
        for regime in params.regime:
            _check_setting(params, params.setting(dataset, regime))


# The checks below import the tables they ask when called: the tables pull in torch, reading a file does not.


def _check_data(params: Params) -> None:
    from mindgap.data import CREDENTIALED, DATASETS, RENDERED, SOURCES
    from mindgap.data.quintfeatures import Style

    for name in params.dataset:
        pick(DATASETS, name, "dataset", "mindgap.data.DATASETS")
        if name in CREDENTIALED:
            raise ParamsError(
                f"dataset: {name!r} is credentialed and has a DVC project of its own, which shares nothing: "
                f"take it out of the list and run `dvc repro` in data/{name} (docs/data.md)"
            )
    for name in params.published:
        pick(SOURCES, name, "published", "mindgap.data.SOURCES")
        if name not in CREDENTIALED:
            raise ParamsError(f"published: {name!r} is open: name it in `dataset` instead")
    for name, settings in params.at_scale.prepare.items():
        pick(DATASETS, name, f"scales.{params.scale}.prepare", "mindgap.data.DATASETS")
        where = f"scales.{params.scale}.prepare.{name}"
        if name in RENDERED:
            _as_params_error(where, _rendered_settings, RENDERED[name].modalities, **settings)
        else:
            source_settings(params, name)
    _as_params_error("Style", Style, **params.at_scale.render.style)


def source_settings(params: Params, dataset: str) -> Any:
    """The settings of a dataset from outside, as its module wants them."""
    from mindgap.data import SOURCES

    where = f"scales.{params.scale}.prepare"
    settings = pick(params.at_scale.prepare, dataset, "dataset", where)
    return _as_params_error(f"{where}.{dataset}", SOURCES[dataset].module.Settings, **settings)


def _rendered_settings(modalities: tuple[str, ...], absence: Mapping[str, float] | None = None) -> None:
    """What may stand under `prepare` for a rendered dataset."""
    from mindgap.data.presence import absence_rates

    absence_rates(modalities, absence or {})


def _check_plug_ins(params: Params) -> None:
    from mindgap.mitigations import MITIGATIONS
    from mindgap.models import ENCODERS, FUSIONS
    from mindgap.query import METHODS
    from mindgap.query.select import check_settings

    for name in params.query:
        pick(METHODS, name, "query", "mindgap.query.METHODS")
    for name, settings in params.query_settings.items():
        pick(METHODS, name, "query_settings", "mindgap.query.METHODS")
        _as_params_error("query_settings", check_settings, name, settings)
    for name in params.mitigation:
        pick(MITIGATIONS, name, "mitigation", "mindgap.mitigations.MITIGATIONS")
    for name, settings in params.mitigation_settings.items():
        mitigation = pick(MITIGATIONS, name, "mitigation_settings", "mindgap.mitigations.MITIGATIONS")
        _as_params_error(name, mitigation, **settings)
    model, where = params.at_scale.model, f"scales.{params.scale}.model"
    for kind in ENCODERS:
        settings = pick(model.encoder, kind, f"{where}.encoder", f"{where}.encoder")
        name = pick(settings, "name", f"{where}.encoder.{kind}", f"{where}.encoder.{kind}")
        pick(ENCODERS[kind], name, f"{where}.encoder.{kind}.name", f"mindgap.models.ENCODERS[{kind!r}]")
        _as_params_error(f"{where}.encoder.{kind}", _bind_encoder, ENCODERS[kind][name], settings)
    for kind in model.encoder:
        pick(ENCODERS, kind, f"{where}.encoder", "mindgap.models.ENCODERS")
    pick(FUSIONS, model.fusion, f"{where}.fusion", "mindgap.models.FUSIONS")
    needing = [name for name in params.query if METHODS[name].dropout]
    if needing and model.head_dropout == 0:
        raise ParamsError(
            f"query: {needing[0]!r} needs dropout before the linear layer: "
            f"set {where}.head_dropout above 0, or leave {needing[0]} out"
        )


def _check_search(search: Search) -> None:
    from mindgap.augment import AUGMENTATIONS
    from mindgap.mitigations import MITIGATIONS

    for key in ("learning_rate", "weight_decay", "augmentation", "seeds"):
        _unique(f"search.{key}", getattr(search, key))
    for name in search.augmentation:
        pick(AUGMENTATIONS, name, "search.augmentation", "mindgap.augment.AUGMENTATIONS")
    pick(MITIGATIONS, search.mitigation, "search.mitigation", "mindgap.mitigations.MITIGATIONS")


def _bind_encoder(cls: type, settings: Mapping[str, Any]) -> None:
    inspect.signature(cls).bind((), **{key: value for key, value in settings.items() if key != "name"})


def _check_setting(params: Params, setting: Setting) -> None:
    from mindgap.augment import AUGMENTATIONS
    from mindgap.data import RENDERED

    where = f"scales.{setting.scale}"
    recipe = f"{where}.recipe.{setting.dataset}"
    pick(AUGMENTATIONS, setting.recipe.augmentation, recipe, "mindgap.augment.AUGMENTATIONS")
    pick(params.at_scale.prepare, setting.dataset, "dataset", f"{where}.prepare")
    # How many samples a dataset from outside has is known when it is prepared.
    size, needed = params.at_scale.render.train_size, setting.budget.needed
    if setting.dataset in RENDERED and needed > size:
        raise ParamsError(
            f"{where}.budget.{setting.dataset}.{setting.regime} needs {needed} training "
            f"samples (initial + validation + (rounds - 1) x acquisition), but {where}."
            f"render.train_size is {size}: raise it, or ask for fewer"
        )


def _unique(key: str, values: Iterable) -> None:
    values = list(values)
    twice = sorted({str(v) for v in values if values.count(v) > 1})
    if twice:
        raise ParamsError(f"{key}: {', '.join(twice)} is listed twice: name each once")


def _as_params_error(where: str, check, *args, **kwargs) -> Any:
    try:
        return check(*args, **kwargs)
    except (ValueError, TypeError) as error:
        raise ParamsError(f"{where}: {error}") from error


class _Loader(yaml.SafeLoader):
    """YAML that refuses a key given twice: the first would be lost without a word."""


def _mapping(loader: _Loader, node: yaml.MappingNode) -> dict:
    keys = [loader.construct_object(key) for key, _ in node.value]
    for key in keys:
        if keys.count(key) > 1:
            raise yaml.YAMLError(f"key {key!r} is given twice{node.start_mark}")
    return {
        key: loader.construct_object(value, deep=True)
        for key, (_, value) in zip(keys, node.value, strict=True)
    }


_Loader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _mapping)


def _tuples(raw: Any) -> Any:
    """YAML has no tuples; the two pairs of numbers in `render` are ones."""
    for scale in (raw.get("scales") or {}).values() if isinstance(raw, dict) else ():
        render = scale.get("render") if isinstance(scale, dict) else None
        for key in ("erase", "half_width"):
            if isinstance(render, dict) and isinstance(render.get(key), list):
                render[key] = tuple(render[key])
    return raw


def _explain(error: ValidationError) -> list[str]:
    """One line a fault: the key, what is wrong, and for an unknown key what is known there."""
    lines = []
    for fault in error.errors():
        key = ".".join(str(part) for part in fault["loc"])
        if fault["type"] == "extra_forbidden":
            lines.append(f"{key}: unknown parameter; take it out, or mend its spelling")
        elif fault["type"] == "missing":
            lines.append(f"{key}: missing; every parameter has to be given")
        else:
            lines.append(f"{key}: {fault['msg']} (given: {fault['input']!r})")
    return lines

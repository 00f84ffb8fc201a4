"""The typed parameters: what `params.yaml` may say, block by block.

Unknown keys, wrong types and values out of bounds are `ParamsError`s that name the key and the mend. Whether
what is asked for can be run, `core/check.py` says.
"""

import json
import reprlib
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator
from pydantic_core import PydanticCustomError

from mindgap.base.errors import ParamsError
from mindgap.base.settings import Rate, Share, Width, explain
from mindgap.base.yaml_file import read_mapping

T = TypeVar("T")

# Bounds beyond which nothing could be computed, or no model would learn.
Count = Annotated[int, Field(ge=1, le=10_000_000)]
LearningRate = Annotated[float, Field(ge=1e-8, le=100)]
WeightDecay = Annotated[float, Field(ge=0, le=1)]
Seed = Annotated[int, Field(ge=0, lt=2**32)]
Epochs = Annotated[float, Field(ge=0)]
DrawCount = Annotated[int, Field(ge=0, le=10_000_000)]
# Becomes part of file names, where "-" stands between names.
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9_]{1,64}$")]


def _each_once(values: list[T]) -> list[T]:
    if twice := sorted({str(one) for one in values if values.count(one) > 1}):
        raise PydanticCustomError(
            "listed_twice", "{twice} is listed twice: name each once", {"twice": ", ".join(twice)}
        )
    return values


Once = AfterValidator(_each_once)
Names = Annotated[list[Name], Field(min_length=1), Once]


class Block(BaseModel):
    """A mapping of a file: all its keys are known, and values are of their types as they stand."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)


B = TypeVar("B", bound=Block)


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


class Training(Block):
    """What all rows of Table 5 share or leave open."""

    momentum: Rate
    warmup_epochs: Epochs
    min_samples_per_epoch: DrawCount
    validate_from: Share
    drop_last: bool = False


class RecipeEntry(DatasetRecipe):
    """An entry under `recipe`: a row of Table 5, and values that its runs have in place of `training`'s."""

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
        """The values that replace those of `training` in the runs with this recipe."""
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
    """`head_dropout_for`: which models have dropout before the linear layer. It is all, or only those of
    query methods that need it (of the paper's methods BALD).
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
        """The model of a run with dropout, or without: what its numbers depend on."""
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
    learning_rate: Annotated[list[LearningRate], Field(min_length=1, max_length=30), Once]
    weight_decay: Annotated[list[WeightDecay], Field(min_length=1, max_length=30), Once]
    augmentation: Annotated[list[str], Field(min_length=1), Once]
    seeds: Annotated[list[Seed], Field(min_length=1, max_length=100), Once]
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

    dataset: Names
    published: Annotated[list[Name], Once]
    regime: Names
    query: Names
    mitigation: Names
    seeds: Annotated[list[Seed], Field(min_length=1, max_length=1_000), Once]
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
    evaluate: Names
    evaluate_settings: dict[str, dict[str, Any]]
    keep_models: Literal["none", "last"]
    diagnose: Annotated[list[Name], Once]
    diagnose_sources: Annotated[list[Literal["fusion", "acquisition", "truth"]], Field(min_length=1), Once]
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
    return load_block(path, Kept, "")


def load_block(path: Path, block: type[B], mend: str | None = None) -> B:
    """A YAML file as that block; ParamsErrors name the file and the key. `mend` as of `read_mapping`."""
    return as_block(read_mapping(path, mend), block, path)


def as_block(raw: Mapping[str, Any], block: type[B], path: Path | str) -> B:
    """Make a block of what a file, or a key in one, holds; `path` names it in errors.

    By way of JSON: there a list may become a tuple, and no other type is converted.
    """
    try:
        return block.model_validate_json(json.dumps(raw))
    except ValidationError as error:
        raise ParamsError("\n".join(f"{path}: {line}" for line in explain(error))) from error
    except (TypeError, ValueError, RecursionError) as error:
        raise ParamsError(f"{path}: no file of parameters: {error}") from error

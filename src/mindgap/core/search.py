"""Learning rate, weight decay and augmentation chosen on the start and the validation set (paper, 5, A.3).

A trial trains an initial model with another recipe. It lies in the same store as other trainings, so a killed
search goes on there, and the winner may serve as the initial model of the runs. Halving is successive halving
(Jamieson and Talwalkar 2016); its short trials pass through the whole schedule of warm-up and cosine.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import Any, Protocol

from mindgap.base.errors import MindGapError
from mindgap.core.params import DatasetRecipe, Search, Setting

DIVERGED = -math.inf


class TrialJob(Protocol):
    """The training of an initial model, which somebody else finishes."""

    def result(self) -> list[dict[str, Any]]:
        """Its record; none of one that diverged."""


@dataclass(frozen=True)
class Trial:
    """A recipe with the share of its epochs that it gets, and what came of it (DIVERGED: no number)."""

    rung: int
    recipe: DatasetRecipe
    epochs: int
    validation: float
    steps: int


def candidates(search: Search, recipe: DatasetRecipe, has_images: bool) -> list[DatasetRecipe]:
    """Every combination that the search lists; augmentation changes images only."""
    augmentations = search.augmentation if has_images else [recipe.augmentation]
    return [
        recipe.model_copy(update={"learning_rate": lr, "weight_decay": wd, "augmentation": augmentation})
        for lr, wd, augmentation in product(search.learning_rate, search.weight_decay, augmentations)
    ]


def rungs(search: Search, n: int) -> list[tuple[int, float]]:
    """How many recipes are tried in each rung, and with which share of the epochs; all in the last."""
    if search.method == "grid":
        return [(n, 1.0)]
    last, kept = 0, 1
    while kept * search.factor <= n:
        last, kept = last + 1, kept * search.factor
    return [(n // search.factor**rung, search.factor ** float(rung - last)) for rung in range(last + 1)]


def shortened(setting: Setting, recipe: DatasetRecipe, share: float) -> Setting:
    """The setting with a recipe and a share of its epochs, warm-up included; at least one epoch."""
    epochs = max(1, round(recipe.epochs * share))
    training = setting.training.model_copy(
        update={"warmup_epochs": setting.training.warmup_epochs * epochs / recipe.epochs}
    )
    return replace(setting, recipe=recipe.model_copy(update={"epochs": epochs}), training=training)


def choose_recipe(
    search: Search,
    setting: Setting,
    has_images: bool,
    job_of: Callable[[Setting, int], TrialJob],
    execute: Callable[[Sequence[TrialJob]], None],
) -> tuple[DatasetRecipe, list[Trial]]:
    """The recipe with the best validation balanced accuracy, a mean over seeds, and all trials.

    `job_of` makes the training of a setting and seed, `execute` finishes jobs. Of equals the first listed
    wins; one that diverges for a seed is out. Raises MindGapError when all do.
    """
    left, trials = candidates(search, setting.recipe, has_images), []
    for rung, (count, share) in enumerate(rungs(search, len(left))):
        left = left[:count]
        settings = [shortened(setting, recipe, share) for recipe in left]
        jobs = [[job_of(one, seed) for seed in search.seeds] for one in settings]
        execute([job for of_recipe in jobs for job in of_recipe])
        tried = [_trial(rung, *one) for one in zip(left, settings, jobs, strict=True)]
        trials += tried
        # sorted() keeps the order of equals.
        tried = sorted(tried, key=lambda trial: -trial.validation)
        left = [trial.recipe for trial in tried if trial.validation > DIVERGED]
        if not left:
            raise MindGapError(
                f"search of {setting.dataset}-{setting.regime}: all {len(trials)} trials diverged; "
                f"add lower values to search.learning_rate in params.yaml"
            )
    return left[0], trials


def _trial(rung: int, recipe: DatasetRecipe, setting: Setting, jobs: Sequence[TrialJob]) -> Trial:
    records = [job.result() for job in jobs]
    fits = [record[0]["fit"] for record in records if record]
    scores = [fit["best_validation"] for fit in fits]
    mean = math.fsum(scores) / len(scores) if len(scores) == len(jobs) else DIVERGED
    return Trial(rung, recipe, setting.recipe.epochs, mean, sum(fit["steps"] for fit in fits))


def trial_rows(
    search: Search, setting: Setting, chosen: DatasetRecipe, trials: Sequence[Trial]
) -> list[dict[str, Any]]:
    """The trials as rows of SEARCH_COLUMNS; an empty `validation` is one that diverged."""
    last = max((trial.rung for trial in trials), default=0)
    return [
        {
            **{name: getattr(setting, name) for name in ("scale", "dataset", "regime")},
            "method": search.method,
            "rung": trial.rung,
            "epochs": trial.epochs,
            **_searched(trial.recipe),
            "seeds": len(search.seeds),
            "validation": "" if trial.validation == DIVERGED else trial.validation,
            "steps": trial.steps,
            "chosen": trial.rung == last and trial.recipe == chosen,
        }
        for trial in trials
    ]


def _searched(recipe: DatasetRecipe) -> dict[str, Any]:
    return {name: getattr(recipe, name) for name in ("learning_rate", "weight_decay", "augmentation")}

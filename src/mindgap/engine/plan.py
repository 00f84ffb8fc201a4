"""Counts what a run would compute, before anything starts.

The loop itself runs (`core/loop.py`), with counters in place of what takes time: so a plan knows of all that
the loop does, and no rule is written twice.
"""

import copy
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from itertools import product
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from mindgap.base.gpu import Engine
from mindgap.base.modality import Modality
from mindgap.core.loop import Compute, Run, initial_in_turns, rounds
from mindgap.core.network import STORED, MultimodalNet
from mindgap.core.training import Fit, Turns, to_the_end
from mindgap.data.dataset import Dataset, Split, subset_name, subsets
from mindgap.data.presence import draw_presence
from mindgap.engine.layout import Layout
from mindgap.parts.query.select import choose

MODEL_WIDTH = 4  # of the model that is planned with
TRIED = 24  # samples of the pool that a query method is tried on


@dataclass(frozen=True)
class Amounts:
    """Numbers that add up."""

    def __add__(self, other: Any) -> Any:
        return type(self)(*(getattr(self, f.name) + getattr(other, f.name) for f in fields(self)))


@dataclass(frozen=True)
class Work(Amounts):
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

    @property
    def passed(self) -> int:
        """Samples that are only passed forward."""
        return self.validated + self.tested + self.queried


def total(works: Iterable[Work]) -> Work:
    """All of them together."""
    return sum(works, Work())


class Counting(Compute):
    """Counts what a run would compute; the numbers that come of it mean nothing."""

    def __init__(self) -> None:
        self.done = Work()
        self.rng = torch.Generator().manual_seed(0)

    def taken(self) -> Work:
        """What was counted since this was asked last."""
        done, self.done = self.done, Work()
        return done

    def fit(self, *args: Any) -> Turns:
        _, _, labelled_ids, validation_ids, recipe, *_ = args
        yield None
        steps = recipe.epochs * recipe.batches_per_epoch(len(labelled_ids))
        drawn = recipe.epochs * recipe.draws_per_epoch(len(labelled_ids))
        passes = sum(map(recipe.validates, range(recipe.epochs)))
        self.done += Work(1, steps, drawn, passes, validated=passes * len(validation_ids))
        return Fit(0, 0.0, [1 / 3] * recipe.epochs, steps)

    def evaluate(self, *args: Any, **_: Any) -> list[dict[str, Any]]:
        model, test, _, evaluators, *_ = args
        self.done += Work(passes=1, tested=len(test))
        rows = product(evaluators, names_of(model.modalities))
        return [{"evaluator": one, "subset": subset, "name": one, "value": 1 / 3} for one, subset in rows]

    def encode(self, model: MultimodalNet, train: Split, ids: Tensor) -> Tensor:
        self.done += Work(passes=1, queried=len(ids))
        return torch.randn((len(ids), len(train.x), MODEL_WIDTH), generator=self.rng)

    def choose(self, *args: Any) -> tuple[Tensor, bytes | None]:
        """The method itself is asked, about a few samples; what it looks at is counted of the whole pool."""
        name, view, n, *rest = args
        few = copy.copy(view)
        few._encode = lambda: view._raw_NMD[:TRIED]
        few.present_NM, few.ids = view.present_NM[:TRIED], view.ids[:TRIED]
        few.oracle_y_N = None if view.oracle_y_N is None else view.oracle_y_N[:TRIED]
        _, left = choose(name, few, min(n, 4), *rest)
        return torch.arange(n), left


def names_of(modalities: Iterable[str]) -> list[str]:
    """All subsets of modalities."""
    order = tuple(modalities)
    return [subset_name(subset, order) for subset in subsets(order)]


class Mean(nn.Module):
    """The cheapest fusion."""

    out_features = MODEL_WIDTH

    def forward(self, tokens_NMD: Tensor, present_NM: Tensor) -> Tensor:
        return (tokens_NMD * present_NM.unsqueeze(-1)).sum(dim=1)


class Small:
    """A model that costs nothing: `core.network.Own`."""

    def __init__(self, modalities: Mapping[str, Modality]):
        self.encode = {name: nn.Identity() for name in modalities}
        self.fuse = Mean()


def imagined(name: str, layout: Layout, least: int = 0) -> Dataset:
    """A dataset before it is prepared: presence and labels as they may be, one sample in place of all.

    Where the layout is not exact it has at `least` so many training samples.
    """
    modalities, rng = dict(layout.modalities), np.random.default_rng(0)

    def split(size: int, absent: Sequence[float]) -> Split:
        x = {
            name: torch.ones((1, *m.shape), dtype=STORED[m.kind]).expand(size, *m.shape)
            for name, m in modalities.items()
        }
        present_NM = torch.from_numpy(draw_presence(size, np.array(absent), rng))
        return Split(x, present_NM, torch.arange(size) % layout.num_classes)

    train = layout.train if layout.exact else max(layout.train, least)
    return Dataset(
        name,
        modalities,
        None,
        layout.num_classes,
        dict.fromkeys(names_of(modalities), 1.0),
        split(train, layout.absent),
        split(layout.test, (0.0,) * len(modalities)),
        "",
    )


def counted(run: Run, dataset: Dataset) -> Iterator[tuple[Work, int]]:
    """The work of a run's rounds, or of the training of an initial model; the bytes of each one's record."""
    count = Counting()
    model = run.setting.model.model_copy(update={"width": MODEL_WIDTH})
    # Whoever starts, the counts are the same, and to choose takes its time.
    setting = replace(run.setting, model=model, start="random")
    run = replace(run, setting=setting, model=Small, compute=count)
    first = run if run.cell.query is None else replace(run, cell=replace(run.cell, query=None))
    record, weights = to_the_end(initial_in_turns(first, dataset, Engine.of("cpu")))
    records = [record]
    if run is not first:
        count.taken()
        records = rounds(run, dataset, record, weights)
    for record in records:
        record["seconds"] = dict.fromkeys(record["seconds"], 0.123456)
        yield count.taken(), len(json.dumps(record, separators=(",", ":"), default=bytes.hex))

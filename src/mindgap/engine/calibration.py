"""Measures how long a training step and a forward pass take on this machine.

`fit`, `encode` and `predict` themselves are timed on samples of the right shape, at two sizes. A line through
both times gives those of all other sizes.
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import torch

from mindgap.base.gpu import RECORD_AT, Engine
from mindgap.core.evaluation import encode, most_rows, predict
from mindgap.core.loop import model_spec
from mindgap.core.network import build_model, place
from mindgap.core.params import Setting
from mindgap.core.recipe import Recipe
from mindgap.core.training import fit
from mindgap.data.dataset import Split
from mindgap.engine.jobs import peak_memory
from mindgap.engine.layout import Layout
from mindgap.engine.plan import Work, imagined
from mindgap.parts.mitigations import Mitigation, make_mitigation

FEWEST = 2  # rows of a modality that batch statistics need
NUMBERS = 2**16  # of the largest modality in what is timed on a CPU: 21 images of 32 px
# Steps of a fit before those that are timed, and these: on a GPU the first ones are recorded.
STEPS = {"cpu": (1, 2), "cuda": (4, 32)}
REPEATS = 3


@dataclass(frozen=True)
class Line:
    """Seconds of a call: `base`, and `per_row` for each of its rows."""

    base: float
    per_row: float

    @classmethod
    def through(cls, measure: Callable[[int], float], few: int, many: int) -> "Line":
        """The times of few rows and of many. A line that falls, or begins below 0, is one through 0."""
        last = measure(many)
        per_row = (last - measure(few)) / (many - few) if few < many else 0.0
        base = last - per_row * many
        return cls(base, per_row) if min(base, per_row) > 0 else cls(0.0, last / many)

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


@dataclass
class Calibration:
    """Speeds on one device, and what a process holds there. The same model is measured once."""

    device: str
    start: float | None = None
    _known: dict[tuple[Any, ...], Any] = field(default_factory=dict)

    def speeds(
        self, layout: Layout, setting: Setting, mitigations: Mapping[str, Mapping[str, Any]]
    ) -> tuple[dict[str, Speed], int]:
        """Of runs with each of the mitigations, given with their settings; and the most bytes one has held.

        Names of modalities, rates and epochs make no difference.
        """
        recipe = setting.recipe
        training = recipe.batch_size, recipe.augmentation, recipe.projection_dropout, recipe.class_balanced
        shapes = (*layout.modalities.values(), layout.absent, layout.num_classes)
        key = (*shapes, *training, repr(setting.model), *mitigations)
        if key not in self._known:
            self._known[key] = self._measured(layout, setting, mitigations)
        return self._known[key]

    def _measured(
        self, layout: Layout, setting: Setting, mitigations: Mapping[str, Mapping[str, Any]]
    ) -> tuple[dict[str, Speed], int]:
        on_gpu = self.device != "cpu"
        if on_gpu:
            torch.cuda.reset_peak_memory_stats(self.device)
        bench = Bench(layout, setting, self.device)
        if self.start is None:
            first, second = (bench.fit_seconds(Mitigation(), FEWEST, 1) for _ in range(2))
            self.start = max(0.0, first - second)
        passes = bench.passes()
        speeds = {
            name: Speed(self.start, bench.step(make_mitigation(name, settings)), *passes)
            for name, settings in mitigations.items()
        }
        return speeds, peak_memory(self.device) + on_gpu * layout.bytes


class Bench:
    """A model at work on samples of a layout.

    A modality of few rows does not sit out here (`min_present`), as it would not among many.
    """

    def __init__(self, layout: Layout, setting: Setting, device: str):
        self.setting, self.device, self.dataset = setting, torch.device(device), imagined("", layout)
        self.largest, self.subsets = layout.largest, layout.subsets
        spec = replace(model_spec(setting), min_present=FEWEST)
        model = build_model(layout.modalities, layout.num_classes, spec, seed=0)
        self.model = place(model, Engine.of(self.device), setting.recipe.batch_size)

    def step(self, mitigation: Mitigation) -> Line:
        """A step, augmentation and optimiser included: by how much a longer fit takes longer."""
        before, timed = STEPS[self.device.type]

        def measure(rows: int) -> float:
            # On a GPU the first fit of a size records.
            fits = [before] * (self.device.type == "cuda") + [before, before + timed]
            *_, few, more = (self.fit_seconds(mitigation, rows, steps) for steps in fits)
            return max(1e-9, more - few) / timed

        batch = self.setting.recipe.batch_size
        if self.model.engine.pad:  # whatever its rows, a step costs what a full one costs
            return Line(measure(batch), 0.0)
        return Line.through(measure, *self._sizes(batch))

    def passes(self) -> tuple[Line, Line]:
        """A validation, with what samples have; a test, complete and predicted with all subsets."""
        sizes = self._sizes(most_rows(self.largest, self.device.type))

        def measure(samples: Split, subsets: int, rows: int) -> float:
            split = self._first(samples, rows)

            def run() -> None:
                tokens_NMD = encode(self.model, split)
                for _ in range(subsets):
                    predict(self.model, tokens_NMD, split.present_NM)

            for _ in range(RECORD_AT):
                run()
            return min(self._seconds(run) for _ in range(REPEATS))

        train, test = self.dataset.train, self.dataset.test
        return (
            Line.through(partial(measure, train, 1), *sizes),
            Line.through(partial(measure, test, self.subsets), *sizes),
        )

    def _sizes(self, most: int) -> tuple[int, int]:
        """Few rows and many, at most `most` and on a CPU no more than take a moment."""
        if self.device.type == "cpu":
            most = min(most, max(2 * FEWEST, NUMBERS // self.largest))
        return min(most, max(FEWEST, most // 4)), most

    def _first(self, split: Split, rows: int) -> Split:
        """So many samples, of a small split some of them again."""
        return split.select(torch.arange(rows) % len(split)).to(self.device)

    def fit_seconds(self, mitigation: Mitigation, rows: int, steps: int) -> float:
        """Seconds of an epoch of so many steps that change no weight, each of all of so many samples."""
        split, ids = self._first(self.dataset.train, rows), torch.arange(rows)
        recipe = Recipe.of(self.setting.recipe, self.setting.training)
        made = {"epochs": 1, "batch_size": rows, "min_samples_per_epoch": rows * steps, "learning_rate": 0.0}
        recipe, where = replace(recipe, **made), "calibration"
        return self._seconds(lambda: fit(self.model, split, ids, ids, recipe, mitigation, (where,), where))

    def _seconds(self, run: Callable[[], Any]) -> float:
        """Of a GPU's clock on the wall; of a CPU's own, so that what else runs here does not count."""
        now = time.perf_counter if self.device.type == "cuda" else time.process_time
        marks = []
        for work in (lambda: None, run):
            work()
            if self.device.type == "cuda":
                torch.cuda.synchronize(self.device)
            marks.append(now())
        return marks[1] - marks[0]

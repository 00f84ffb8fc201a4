"""How long a training step and a forward pass take on this machine: `fit`, `encode` and `predict` themselves,
timed on random inputs of the right shape, at two sizes of a batch; a line through the two gives all others.

Presence is not drawn but fixed at its expected share, so that a few rows are as typical as many.
"""

import contextlib
import math
import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mindgap import sweep
from mindgap.data.dataset import Split
from mindgap.data.modality import Modality
from mindgap.data.presence import draw_presence
from mindgap.evaluation import CHUNK, encode, predict
from mindgap.layout import Layout
from mindgap.loop import model_spec
from mindgap.mitigations import MITIGATIONS, Mitigation
from mindgap.models.network import STORED, ModelSpec, build_model
from mindgap.params import Setting
from mindgap.plan import Line, Looks, Speed
from mindgap.pool import PoolView
from mindgap.query import METHODS
from mindgap.query.select import select
from mindgap.training import Recipe, fit

REPEATS = 8
FEWEST = 2  # rows of a modality
LEVER = 2  # a line is drawn through sizes at least so far apart
DRAWS = 10_000  # of presence, to know its share before and after a mitigation
KNOWN_TOKENS = 1_000  # ids below the size of any vocabulary

Shares = tuple[float, ...]  # of rows that have each modality


@contextlib.contextmanager
def as_a_worker(device: str) -> Iterator[None]:
    """Threads and kernels as in a worker of the sweep, and afterwards as before."""
    threads, cudnn = torch.get_num_threads(), torch.backends.cudnn
    flags = cudnn.deterministic, cudnn.benchmark
    sweep.set_up(device)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
        cudnn.deterministic, cudnn.benchmark = flags


@dataclass
class Calibration:
    """Speeds on one device, each measured in about `seconds`, large models in what four small steps take.

    What was measured before is not again.
    """

    device: str
    seconds: float
    start: float | None = None
    _steps: dict[tuple, Line] = field(default_factory=dict)
    _passes: dict[tuple, tuple[Line, Line]] = field(default_factory=dict)

    def speed(self, layout: Layout, setting: Setting, name: str, settings: Mapping[str, Any]) -> Speed:
        """What a mitigation's runs need. Names of modalities, rates and epochs make no difference."""
        recipe, modalities = setting.recipe, tuple(layout.modalities.values())
        data = (modalities, layout.absent, layout.num_classes)
        training = (recipe.batch_size, recipe.augmentation, recipe.projection_dropout, recipe.class_balanced)
        mitigation = MITIGATIONS[name](**settings)
        bench = None
        if (step := (*data, *training, name)) not in self._steps:
            bench = _Bench(layout, setting, self.device)
            if self.start is None:
                self.start = bench.start(mitigation)
            self._steps[step] = bench.step(mitigation, self.seconds)
        if data not in self._passes:
            self._passes[data] = (bench or _Bench(layout, setting, self.device)).passes(self.seconds / 2)
        return Speed(self.start, self._steps[step], *self._passes[data])


def line(measure: Callable[[int, float], float], fewest: int, most: int, seconds: float) -> Line:
    """Through the times of few rows and of many: as many, up to `most`, as `seconds` are enough for.

    `measure` is told the rows and for how long to repeat. Twice the rows take at most twice as long.
    """
    rows, begin = min(fewest, most), time.perf_counter()
    first = last = (rows, measure(rows, seconds / 4))
    while rows < most:
        left = seconds - (time.perf_counter() - begin)
        # A warm-up and one that counts.
        affordable = int(rows * left / (2 * last[1]))
        if first == last:
            affordable = max(affordable, LEVER * rows)
        elif affordable < LEVER * rows and affordable < most:
            break
        rows = min(most, affordable)
        last = (rows, measure(rows, seconds / 4))
    per_row = (last[1] - first[1]) / max(1, last[0] - first[0])
    base = last[1] - per_row * last[0]
    return Line(base, per_row) if min(base, per_row) > 0 else Line(0.0, last[1] / last[0])


def present_shares(layout: Layout, mitigation: Mitigation | None = None) -> Shares:
    """The share of training samples that have each modality, or of those that a mitigation leaves it."""
    present = draw_presence(DRAWS, np.array(layout.absent), np.random.default_rng(0))
    present_NM = torch.from_numpy(present)
    if mitigation:
        present_NM = mitigation.drop(present_NM, _rng())
    return tuple(present_NM.double().mean(dim=0).tolist())


class _Enough(Exception):  # noqa: N818 - no error: it ends a fit whose steps have been timed
    pass


class _Stopwatch(Mitigation):
    """A mitigation at work, with its presence replaced by a typical one; it marks when each step begins."""

    def __init__(self, inner: Mitigation, present_NM: Tensor, limit: float):
        self.inner, self.present_NM, self.limit, self.marks = inner, present_NM, limit, []

    def drop(self, present_NM: Tensor, rng: torch.Generator) -> Tensor:
        self.marks.append(_now(self.present_NM.device))
        steps = len(self.marks) - 1
        if steps > REPEATS or (steps >= 2 and self.marks[-1] - self.marks[0] > self.limit):
            raise _Enough
        self.inner.drop(present_NM, rng)
        return self.present_NM

    def loss(self, logits_NC: Tensor, y_N: Tensor) -> Tensor:
        return self.inner.loss(logits_NC, y_N)

    def after_backward(self, model) -> None:
        self.inner.after_backward(model)


class _Bench:
    """A model at work on random samples.

    A modality of few rows never sits out here (`min_present` is 2): on few labels a step is an upper bound.
    """

    def __init__(self, layout: Layout, setting: Setting, device: str):
        spec = replace(model_spec(setting), min_present=FEWEST)
        self.layout, self.setting, self.device = layout, setting, torch.device(device)
        self.model = build_model(layout.modalities, layout.num_classes, spec, seed=0).to(device)

    def start(self, mitigation: Mitigation) -> float:
        """Seconds by which the first step of this process was longer; later calls find it warm."""
        begin = _now(self.device)
        marks = self._marks(mitigation, (1.0,) * len(self.layout.absent), FEWEST, 0.0)
        return max(0.0, marks[1] - begin - (marks[2] - marks[1]))

    def step(self, mitigation: Mitigation, seconds: float) -> Line:
        """A step, augmentation and optimiser included: medians, without the first of each size."""
        shares = present_shares(self.layout, mitigation)

        def measure(rows: int, limit: float) -> float:
            marks = self._marks(mitigation, shares, rows, limit)
            return statistics.median(b - a for a, b in pairwise(marks[1:]))

        return line(measure, _fewest(shares), self.setting.recipe.batch_size, seconds)

    def _marks(self, mitigation: Mitigation, shares: Shares, rows: int, limit: float) -> list[float]:
        shared = {**self.setting.training.model_dump(), "min_samples_per_epoch": rows * (REPEATS + 2)}
        recipe = Recipe(**self.setting.recipe.model_dump(exclude={"projection_dropout"}), **shared)
        recipe = replace(recipe, epochs=1, batch_size=rows, learning_rate=0.0)
        split, ids = self._split(shares, rows), torch.arange(rows)
        watch = _Stopwatch(mitigation, split.present_NM, limit)
        with contextlib.suppress(_Enough):
            fit(self.model, split, ids, ids, recipe, watch, _rng(), "calibration")
        return watch.marks

    def passes(self, seconds: float) -> tuple[Line, Line]:
        """A validation, with what samples have; a test, complete and predicted with all subsets."""
        natural, complete = present_shares(self.layout), (1.0,) * len(self.layout.modalities)
        forward = self._encoding(natural, seconds)
        test = forward if natural == complete else self._encoding(complete, seconds)
        one = self._prediction(complete, seconds / 4)
        return forward + one, test + Line(self.layout.subsets * one.base, self.layout.subsets * one.per_row)

    def _encoding(self, shares: Shares, seconds: float) -> Line:
        def measure(rows: int, limit: float) -> float:
            split = self._split(shares, rows)
            return self._timed(lambda: encode(self.model, split), limit)

        return line(measure, _fewest(shares), CHUNK, seconds)

    def _prediction(self, shares: Shares, seconds: float) -> Line:
        def measure(rows: int, limit: float) -> float:
            tokens_NMD = _random(Modality("table", (len(shares), self.setting.model.width)), rows, _rng())
            tokens_NMD = tokens_NMD.to(self.device)
            present_NM = torch.ones((rows, len(shares)), dtype=torch.bool, device=self.device)
            return self._timed(lambda: predict(self.model, tokens_NMD, present_NM), limit)

        return line(measure, FEWEST, CHUNK, seconds)

    def _timed(self, run: Callable[[], Any], limit: float) -> float:
        run()
        marks = [_now(self.device)]
        while len(marks) < 2 or (len(marks) <= REPEATS and marks[-1] - marks[0] < limit):
            run()
            marks.append(_now(self.device))
        return statistics.median(b - a for a, b in pairwise(marks))

    def _split(self, shares: Shares, rows: int) -> Split:
        """Random samples, each modality in its share of them, every other one in the last of them."""
        rng = _rng()
        x = {name: _random(m, rows, rng).to(self.device) for name, m in self.layout.modalities.items()}
        present_NM = torch.zeros((rows, len(shares)), dtype=torch.bool)
        for m, share in enumerate(shares):
            count = round(share * rows)
            present_NM[slice(rows - count, rows) if m % 2 else slice(count), m] = True
        y_N = torch.arange(rows) % self.layout.num_classes
        return Split(x, present_NM.to(self.device), y_N.to(self.device))


def _fewest(shares: Shares) -> int:
    """Rows of which each modality has the two that batch statistics need."""
    return math.ceil(FEWEST / min((share for share in shares if share > 0), default=1.0))


def _random(modality: Modality, rows: int, rng: torch.Generator) -> Tensor:
    """Samples as they are stored; texts of full length."""
    shape, dtype = (rows, *modality.shape), STORED[modality.kind]
    if dtype.is_floating_point:
        return torch.rand(shape, generator=rng).to(dtype)
    most = 256 if modality.kind == "image" else KNOWN_TOKENS
    return torch.randint(1, most, shape, generator=rng).to(dtype)


def _rng() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def _now(device: torch.device) -> float:
    """Seconds of a GPU's clock on the wall; of a CPU's own, so that what else runs here does not count."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        return time.perf_counter()
    return time.process_time()


def weights_bytes(layout: Layout, setting: Setting) -> int:
    """Bytes of an initial model's weights, as stored."""
    model = build_model(layout.modalities, layout.num_classes, model_spec(setting), seed=0)
    return sum(tensor.numel() * tensor.element_size() for tensor in model.state_dict().values())


def looks_of(query: str, settings: Mapping[str, Any]) -> Looks:
    """Which passes a method needs: it picks from a small random pool, and what it looks at is seen."""
    method, seen = METHODS[query], set()
    modalities = {name: Modality("table", (4,)) for name in ("left", "right")}
    model = build_model(modalities, 3, ModelSpec(width=8), seed=0)
    rng = _rng()
    labels = {"pool": torch.arange(24) % 3, "labelled": torch.arange(6) % 3}

    def tokens(part: str) -> Callable[[], Tensor]:
        def encode() -> Tensor:
            seen.add(part)
            return torch.randn((len(labels[part]), 2, 8), generator=rng)

        return encode

    view = PoolView(
        model,
        encode_pool=tokens("pool"),
        encode_labelled=tokens("labelled"),
        present_NM=torch.ones((24, 2), dtype=torch.bool),
        labelled_present_LM=torch.ones((6, 2), dtype=torch.bool),
        labelled_y_L=labels["labelled"],
        rng=rng,
        round=0,
        rounds=2,
        memory={},
        oracle_y_N=labels["pool"] if method.oracle else None,
    )
    select(query, view, 4, settings)
    return Looks("pool" in seen, "labelled" in seen, method.dropout)

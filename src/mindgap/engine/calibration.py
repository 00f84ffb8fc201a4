"""How long a training step and a forward pass take on this machine, and what they hold in memory: `fit`,
`encode` and `predict` themselves on random inputs of the right shape, at two sizes; a line gives all others.

Presence is not drawn but fixed at its expected share, so that a few rows are as typical as many.
"""

import collections
import contextlib
import math
import statistics
import time
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from mindgap.base.gpu import RECORD_AT, Engine
from mindgap.base.modality import Modality
from mindgap.base.view import LabelledSamples, PoolView, ValidationSamples
from mindgap.core.batches import NUMBERS_AT_ONCE, Batches, Recipe
from mindgap.core.evaluation import CHUNK, encode, most_rows, predict
from mindgap.core.loop import measured, model_spec
from mindgap.core.network import REST, STORED, ModelSpec, MultimodalNet, build_model, place
from mindgap.core.params import Setting
from mindgap.core.training import fit
from mindgap.data.dataset import Split
from mindgap.data.presence import draw_presence
from mindgap.engine.jobs import set_up
from mindgap.engine.layout import Layout
from mindgap.engine.plan import Line, Looks, Memory, Speed
from mindgap.parts.mitigations import Mitigation, Step, make_mitigation
from mindgap.parts.query import METHODS
from mindgap.parts.query.select import select

REPEATS = 8
FEWEST = 2  # rows of a modality
LEVER = 2  # a line is drawn through sizes at least so far apart
DRAWS = 10_000  # of presence, to know its share before and after a mitigation
MOST_STEPS = 64  # of a timed fit
SLOW = 0.3  # seconds: the first step of a size is longer than the others, of slow ones by little
FLOAT = 4  # bytes
KEY = ("calibration",)  # of the random streams of a fit
KNOWN_TOKENS = 1_000  # ids below the size of any vocabulary

Shares = tuple[float, ...]  # of rows that have each modality
Lines = list[tuple[int, int]]  # bytes for no row and for each


@contextlib.contextmanager
def as_a_worker(device: str) -> Iterator[None]:
    """Threads and kernels as in a worker of the sweep, and afterwards as before."""
    threads, cudnn = torch.get_num_threads(), torch.backends.cudnn
    flags = cudnn.deterministic, cudnn.benchmark
    set_up(device)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
        cudnn.deterministic, cudnn.benchmark = flags


@dataclass
class Calibration:
    """Speeds and memory on one device, each speed measured in about `seconds`; of large models in what three
    small steps take.

    What was measured before is not again, and the same model with another mitigation is measured once.
    """

    device: str
    seconds: float
    start: float | None = None
    _steps: dict[tuple, dict[str, Line]] = field(default_factory=dict)
    _passes: dict[tuple, tuple[Line, Line]] = field(default_factory=dict)
    _held: dict[tuple, tuple[int, int]] = field(default_factory=dict)
    _small: dict[tuple, Lines] = field(default_factory=dict)
    _bench: "tuple[tuple, _Bench] | None" = None

    def speed(self, layout: Layout, setting: Setting, name: str, settings: Mapping[str, Any]) -> Speed:
        """What a mitigation's runs need. Names of modalities, rates and epochs make no difference."""
        data, model = _data(layout), (*_data(layout), *_training(setting))
        steps = self._steps.setdefault(model, {})
        if name not in steps:
            known = next(iter(steps.values()), None)
            steps[name] = self._step(self._bench_of(layout, setting), make_mitigation(name, settings), known)
        if data not in self._passes:
            self._passes[data] = self._bench_of(layout, setting).passes(self.seconds / 2)
        return Speed(self.start, steps[name], *self._passes[data])

    def _step(self, bench: "_Bench", mitigation: Mitigation, known: Line | None) -> Line:
        if known is None:  # else this model is warm
            first = bench.first_step(mitigation)
            if self.start is None:
                self.start = max(0.0, first - bench.first_step(mitigation))
        return bench.step(mitigation, self.seconds, known)

    def memory(
        self, layout: Layout, setting: Setting, name: str, settings: Mapping[str, Any], kind: str
    ) -> Memory:
        """What a mitigation's run holds on a kind of device, at most where the number of rows varies."""
        bench, mitigation = self._bench_of(layout, setting), make_mitigation(name, settings)
        key = (kind, name, *_data(layout), *_training(setting))
        if key not in self._held:
            self._held[key] = bench.holds(mitigation, kind)
        # The tokens of all samples when a query looks at the pool, twice while they are put together.
        tokens = 2 * FLOAT * layout.train * len(layout.modalities) * setting.model.width
        step, forward = self._held[key]
        return Memory(
            kind,
            layout.bytes,
            2 * bench.weights + 2 * bench.gradients,
            step,
            forward + tokens,
            # A recorded step keeps its memory while passes have theirs.
            min(step, forward) if kind == "cuda" else 0,
            measured=kind == bench.device.type == "cuda",
        )

    def weights(self, layout: Layout, setting: Setting) -> int:
        """Bytes of an initial model's weights, as stored."""
        return self._bench_of(layout, setting).weights

    def _bench_of(self, layout: Layout, setting: Setting) -> "_Bench":
        """The one at hand where it fits: a model at a time is in memory."""
        key = (*_data(layout), *_training(setting))
        if self._bench is None or self._bench[0] != key:
            self._bench = None
            self._bench = key, _Bench(layout, setting, self.device, self._small)
        return self._bench[1]


def _data(layout: Layout) -> tuple:
    return tuple(layout.modalities.values()), layout.absent, layout.num_classes


def _training(setting: Setting) -> tuple:
    recipe = setting.recipe
    return recipe.batch_size, recipe.augmentation, recipe.projection_dropout, recipe.class_balanced


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


def beside(
    known: Line, measure: Callable[[int, float], float], fewest: int, most: int, seconds: float
) -> Line:
    """A line with the base of a known one, from a single size: as many rows as `seconds` are enough for."""
    affordable = int((seconds / 2 - known.base) / known.per_row)
    rows = min(most, max(fewest, affordable))
    taken = measure(rows, seconds / 2)
    return Line(known.base, (taken - known.base) / rows) if taken > known.base else Line(0.0, taken / rows)


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
    """A mitigation at work, with its presence replaced by a typical one; it marks the loss of each step.

    Presence is asked for many batches ahead of the steps, the loss is not. Between two marks lie a backward
    pass, a step of the optimiser and the next batch's forward pass: one step.
    """

    def __init__(self, inner: Mitigation, present_NM: Tensor, limit: float):
        self.inner, self.present_NM, self.limit, self.marks = inner, present_NM, limit, []

    def drop(self, present_NM: Tensor, rng: torch.Generator) -> Tensor:
        self.inner.drop(present_NM, rng)
        return self.present_NM.to(present_NM.device)

    def loss(self, step: Step) -> Tensor | dict[str, Tensor]:
        if self.limit < math.inf:
            self.marks.append(_now(step.logits.device))
            steps, so_far = len(self.marks) - 1, self.marks[-1] - self.marks[0]
            least = 1 if so_far > SLOW else 2
            if steps > REPEATS or (steps >= least and so_far > self.limit):
                raise _Enough
        return self.inner.loss(step)

    def gradients(self, step: Step, gradients: Mapping[str, Sequence[Tensor]]) -> Sequence[Tensor]:
        return self.inner.gradients(step, gradients)

    def after_step(self, step: Step) -> None:
        self.inner.after_step(step)


class _Bench:
    """A model at work on random samples. `small` is what passes of few rows held, kept for the next bench.

    A modality of few rows never sits out here (`min_present` is 2): on few labels a step is an upper bound.
    """

    def __init__(self, layout: Layout, setting: Setting, device: str, small: dict[tuple, Lines]):
        spec = replace(model_spec(setting), min_present=FEWEST)
        self.layout, self.setting, self.device = layout, setting, torch.device(device)
        model = build_model(layout.modalities, layout.num_classes, spec, seed=0)
        self.model = place(model, Engine.of(self.device), setting.recipe.batch_size)
        self.small = small

    def first_step(self, mitigation: Mitigation) -> float:
        """Seconds to the loss of the second step, of few complete samples."""
        begin = _now(self.device)
        return self._marks(mitigation, self._complete, FEWEST, 0.0)[1] - begin

    def step(self, mitigation: Mitigation, seconds: float, known: Line | None = None) -> Line:
        """A step, augmentation and optimiser included; `known` is that of another mitigation."""
        shares, most = present_shares(self.layout, mitigation), self.setting.recipe.batch_size
        timed = self._by_whole_fits if self.device.type == "cuda" else self._by_marks

        def measure(rows: int, limit: float) -> float:
            return timed(mitigation, shares, rows, limit)

        if self.model.engine.pad:  # whatever its rows, a step costs what a full one costs
            return Line(measure(most, seconds), 0.0)
        if known:
            return beside(known, measure, min(most, _fewest(shares)), most, seconds)
        return line(measure, _fewest(shares), most, seconds)

    def _by_marks(self, mitigation: Mitigation, shares: Shares, rows: int, limit: float) -> float:
        """The median step, without the first of its size where there are several, and its augmentation."""
        steps = [b - a for a, b in pairwise(self._marks(mitigation, shares, rows, limit))]
        return statistics.median(steps[1:] or steps) + self._augmenting(mitigation, shares, rows)

    def _augmenting(self, mitigation: Mitigation, shares: Shares, rows: int) -> float:
        """Seconds a step that augmentation adds, done for a block of batches as a training does."""
        split, ids, seconds = self._split(shares, rows), torch.arange(rows), {}
        watch = _Stopwatch(mitigation, split.present_NM, math.inf)
        recipe = self._recipe(rows, 1)
        for augmentation in ("none", recipe.augmentation):
            batches = Batches(split, ids, recipe, watch, self.model, KEY)
            steps = min(batches.at_once, MOST_STEPS)
            batches.recipe = replace(self._recipe(rows, steps), augmentation=augmentation)
            begin = _now(self.device)
            collections.deque(batches.epoch(), maxlen=0)
            seconds[augmentation] = (_now(self.device) - begin) / steps
        return max(0.0, seconds[recipe.augmentation] - seconds["none"])

    def _by_whole_fits(self, mitigation: Mitigation, shares: Shares, rows: int, limit: float) -> float:
        """By how much a longer fit takes longer, a step; what is done for many batches at once is in it.

        A recording is in all of them, and nobody waits for a step inside.
        """
        few, fits = 4, {}
        for steps in (few, few, 2 * few):
            begin = _now(self.device)
            self._fit(mitigation, shares, rows, steps)
            fits[steps] = _now(self.device) - begin
        steps = min(MOST_STEPS, max(2 * few, int(limit * few / max(1e-9, fits[2 * few] - fits[few]))))
        begin = _now(self.device)
        self._fit(mitigation, shares, rows, few + steps)
        return max(0.0, _now(self.device) - begin - fits[few]) / steps

    def _marks(self, mitigation: Mitigation, shares: Shares, rows: int, limit: float) -> list[float]:
        return self._fit(mitigation, shares, rows, REPEATS + 2, limit)

    def _fit(
        self, mitigation: Mitigation, shares: Shares, rows: int, steps: int, limit: float = math.inf
    ) -> list[float]:
        """A fit of so many steps; with a limit not augmented, and over at it: when each had its loss."""
        split, ids, recipe = self._split(shares, rows), torch.arange(rows), self._recipe(rows, steps)
        if limit < math.inf:
            recipe = replace(recipe, augmentation="none")
        watch = _Stopwatch(mitigation, split.present_NM, limit)
        # A recorded step calls no hook, so it leaves no marks.
        self.model.engine.record = self.device.type == "cuda" and limit == math.inf
        with contextlib.suppress(_Enough):
            fit(self.model, split, ids, ids, recipe, watch, KEY, "calibration")
        return watch.marks

    def _recipe(self, rows: int, steps: int) -> Recipe:
        """The setting's, for one epoch of so many steps that change no weight."""
        shared = {**self.setting.training.model_dump(), "min_samples_per_epoch": rows * steps}
        recipe = Recipe(**self.setting.recipe.model_dump(exclude={"projection_dropout"}), **shared)
        return replace(recipe, epochs=1, batch_size=rows, learning_rate=0.0)

    def passes(self, seconds: float) -> tuple[Line, Line]:
        """A validation, with what samples have; a test, complete and predicted with all subsets."""
        natural, complete = present_shares(self.layout), self._complete
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
        for _ in range(RECORD_AT if self.device.type == "cuda" else 1):
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

    @property
    def _complete(self) -> Shares:
        return (1.0,) * len(self.layout.modalities)

    @property
    def weights(self) -> int:
        return sum(tensor.numel() * tensor.element_size() for tensor in self.model.state_dict().values())

    @property
    def gradients(self) -> int:
        return sum(p.numel() * p.element_size() for p in self.model.parameters())

    def holds(self, mitigation: Mitigation, kind: str) -> tuple[int, int]:
        """Bytes that a training step and an evaluation pass hold beside what a training keeps.

        Measured on a GPU if this bench has one, else computed from small passes on the CPU.
        """
        shares = present_shares(self.layout, mitigation)
        batch, chunk = self.setting.recipe.batch_size, rows_a_pass(self.layout, kind)
        if kind == self.device.type == "cuda":
            return self._measured(mitigation, shares, batch, chunk)
        # Where samples lack modalities, these are alike: the mean share is that of what a sample costs.
        share = statistics.mean(shares)
        return self._computed(kind, True, batch, share), self._computed(kind, False, chunk, 1.0)

    def _measured(self, mitigation: Mitigation, shares: Shares, batch: int, chunk: int) -> tuple[int, int]:
        """By the GPU's allocator. A step is seen with augmentation for many batches, and once recorded."""
        largest = max(math.prod(m.shape) for m in self.layout.modalities.values())
        steps = max(2, min(MOST_STEPS, NUMBERS_AT_ONCE["cuda"] // (largest * batch)))
        before = torch.cuda.memory_allocated(self.device) - self.weights

        def peak(run: Callable[[], Any]) -> int:
            torch.cuda.reset_peak_memory_stats(self.device)
            run()
            return torch.cuda.max_memory_allocated(self.device) - before

        step = peak(lambda: self._fit(mitigation, shares, batch, steps)) - self.layout.sample * batch
        samples = self._split(self._complete, chunk)
        forward = peak(lambda: [encode(self.model, samples) for _ in range(RECORD_AT + 1)])
        kept = 2 * self.weights + 2 * self.gradients
        return max(0, step - kept), max(0, forward - self.layout.sample * chunk - self.weights)

    def _computed(self, kind: str, training: bool, rows: int, share: float) -> int:
        """In proportion from passes of few rows, without the working memory of kernels and augmentation."""
        # The number of classes makes no difference.
        key = kind, training, *self.layout.modalities.values()
        if key not in self.small:
            pair = (self._history(kind, training, rows) for rows in (FEWEST, FEWEST + 1))
            self.small[key] = [
                (few - FEWEST * (more - few), more - few) for few, more in zip(*pair, strict=False)
            ]
        return max(0, round(max(constant + per_row * rows * share for constant, per_row in self.small[key])))

    def _history(self, kind: str, training: bool, rows: int) -> list[int]:
        """What a forward pass of complete samples holds after each of its operations.

        With many rows the most is held elsewhere than with few: each operation has a line of its own. The
        backward pass begins with the most that a training step holds, and frees more than it makes.
        """
        split = self._split(self._complete, rows)
        self.model.train(training)
        half = torch.autocast("cpu", torch.bfloat16, enabled=kind == "cuda", cache_enabled=False)
        with torch.set_grad_enabled(training), half, _Live() as live:
            keys = dict.fromkeys((*split.x, REST), torch.zeros(rows, dtype=torch.int64))
            self.model.draw(keys if training else {})
            cross_entropy(self.model(split.x, split.present_NM), split.y_N)
        return live.history


def rows_a_pass(layout: Layout, kind: str) -> int:
    """Rows of an evaluation pass on a kind of device: `core.evaluation.rows_a_pass` without samples."""
    return most_rows(max(math.prod(m.shape) for m in layout.modalities.values()), kind)


class _Live(TorchDispatchMode):
    """The bytes of tensors that are made under it and still held: now, and after each operation."""

    def __init__(self) -> None:
        super().__init__()
        self.held, self.history = 0, []
        self._storages: dict[int, weakref.ref] = {}

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # to skip the compiler, torch would load it for a second; nothing here is compiled

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        given = {id(x.untyped_storage()) for x in tree_leaves((args, kwargs)) if isinstance(x, Tensor)}
        out = func(*args, **(kwargs or {}))
        for x in tree_leaves(out):
            if isinstance(x, Tensor) and id(x.untyped_storage()) not in given:
                self._count(x.untyped_storage())
        self.history.append(self.held)
        return out

    def _count(self, storage: torch.UntypedStorage) -> None:
        key, size = id(storage), storage.nbytes()
        if key in self._storages:
            return

        def freed(_: weakref.ref) -> None:
            del self._storages[key]
            self.held -= size

        self._storages[key] = weakref.ref(storage, freed)
        self.held += size


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


def looks_of(query: str, settings: Mapping[str, Any]) -> Looks:
    """Which passes a method needs: it picks from a small random pool, and what it looks at is seen."""
    method, seen = METHODS[query], set()
    modalities = {name: Modality("table", (4,)) for name in ("left", "right")}
    model = build_model(modalities, 3, ModelSpec(width=8), seed=0)
    rng = _rng()
    y_N = torch.arange(24) % 3

    def part(name: str, rows: int) -> tuple[MultimodalNet, Callable[[], Tensor], Tensor]:
        def encode() -> Tensor:
            seen.add(name)
            return torch.randn((rows, 2, 8), generator=rng)

        return model, encode, torch.ones((rows, 2), dtype=torch.bool)

    measure = partial(measured, model, f"plan of {query}")
    view = PoolView(
        *part("pool", 24),
        ids=torch.arange(24),
        labelled=LabelledSamples(*part("labelled", 6), y_N[:6]),
        validation=ValidationSamples(*part("validation", 6), y_N[:6], measure),
        history={},
        modalities=tuple(modalities),
        rng=rng,
        round=0,
        rounds=2,
        oracle_y_N=y_N if method.oracle else None,
    )
    select(query, view, 4, settings)
    return Looks("pool" in seen, "labelled" in seen, method.dropout)

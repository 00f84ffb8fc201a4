"""How long a training step and a forward pass take on this machine, and what they hold in memory: `fit`,
`encode` and `predict` themselves on random inputs of the right shape, at two sizes; a line gives all others.
"""

import contextlib
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks
from torch.nn.functional import cross_entropy
from torch.nn.modules.module import register_module_forward_hook
from torch.utils._pytree import tree_leaves

from mindgap.base.gpu import RECORD_AT, Engine
from mindgap.base.modality import Modality
from mindgap.base.view import LabelledSamples, PoolView, ValidationSamples
from mindgap.core.batches import NUMBERS_AT_ONCE
from mindgap.core.evaluation import encode, most_rows, predict
from mindgap.core.loop import measured, model_spec
from mindgap.core.network import REST, STORED, ModelSpec, MultimodalNet, build_model, place
from mindgap.core.params import Setting
from mindgap.core.recipe import Recipe
from mindgap.core.training import fit
from mindgap.data.dataset import Split
from mindgap.data.presence import draw_presence
from mindgap.engine.jobs import set_up
from mindgap.engine.layout import Layout
from mindgap.engine.plan import Line, Looks, Memory, Speed
from mindgap.parts.mitigations import Mitigation, make_mitigation
from mindgap.parts.query import METHODS
from mindgap.parts.query.select import select

FEWEST = 2  # rows of a modality that batch statistics need
NUMBERS = 2**16  # of the largest modality in what is timed on a CPU: 21 images of 32 px
# Steps of a fit before those that are timed, and these: on a GPU the first ones are recorded.
STEPS = {"cpu": (1, 2), "cuda": (4, 32)}
REPEATS = 3
DRAWS = 10_000  # of presence, to know its share before and after a mitigation
MOST_STEPS = 64  # of a fit whose memory is measured
FLOAT = 4  # bytes
KEY = ("calibration",)  # of the random streams of a fit
KNOWN_TOKENS = 1_000  # ids below the size of any vocabulary

Shares = Sequence[float]  # of rows that have each modality


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
    """Speeds and memory on one device. The same model is measured once with each mitigation."""

    device: str
    start: float | None = None
    _known: dict[tuple, Any] = field(default_factory=dict)
    _bench: "tuple[tuple, Bench] | None" = None

    def speed(self, layout: Layout, setting: Setting, name: str, settings: Mapping[str, Any]) -> Speed:
        """What a mitigation's runs need. Names of modalities, rates and epochs make no difference."""
        key, bench = self._bench_of(layout, setting)
        if self.start is None:
            first, second = (bench.fit_seconds(Mitigation(), FEWEST, 1) for _ in range(2))
            self.start = max(0.0, first - second)
        step = once(self._known, ("step", name, *key), lambda: bench.step(make_mitigation(name, settings)))
        return Speed(self.start, step, *once(self._known, ("passes", *key), bench.passes))

    def memory(
        self, layout: Layout, setting: Setting, name: str, settings: Mapping[str, Any], kind: str
    ) -> Memory:
        """What a mitigation's run holds on a kind of device, at most where the number of rows varies."""
        key, bench = self._bench_of(layout, setting)
        holds = partial(bench.holds, make_mitigation(name, settings), kind)
        step, forward = once(self._known, ("memory", kind, name, *key), holds)
        # The tokens of all samples when a query looks at the pool, twice while they are put together.
        tokens = 2 * FLOAT * layout.train * len(layout.modalities) * setting.model.width
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
        return self._bench_of(layout, setting)[1].weights

    def _bench_of(self, layout: Layout, setting: Setting) -> "tuple[tuple, Bench]":
        """The one at hand where it fits: a model at a time is in memory."""
        recipe = setting.recipe
        training = recipe.batch_size, recipe.augmentation, recipe.projection_dropout, recipe.class_balanced
        key = (*layout.modalities.values(), layout.absent, layout.num_classes, *training)
        if self._bench is None or self._bench[0] != key:
            self._bench = None
            self._bench = key, Bench(layout, setting, self.device, self._known)
        return self._bench


def once(known: dict[tuple, Any], key: tuple, measure: Callable[[], Any]) -> Any:
    """What is known under a key; measured now where nothing is."""
    if key not in known:
        known[key] = measure()
    return known[key]


def line(measure: Callable[[int], float], few: int, many: int) -> Line:
    """Through the times of few rows and of many. A line that falls, or begins below 0, is one through 0."""
    last = measure(many)
    per_row = (last - measure(few)) / (many - few) if few < many else 0.0
    base = last - per_row * many
    return Line(base, per_row) if min(base, per_row) > 0 else Line(0.0, last / many)


def present_shares(layout: Layout, mitigation: Mitigation | None = None) -> Shares:
    """The share of training samples that have each modality, or of those that a mitigation leaves it."""
    present = draw_presence(DRAWS, np.array(layout.absent), np.random.default_rng(0))
    present_NM = torch.from_numpy(present)
    if mitigation:
        present_NM = mitigation.drop(present_NM, _rng())
    return present_NM.double().mean(dim=0).tolist()


class Bench:
    """A model at work on random samples; `known` keeps what small passes held for the next bench.

    A modality of few rows does not sit out here (`min_present`), as it would not among many.
    """

    def __init__(self, layout: Layout, setting: Setting, device: str, known: dict[tuple, Any]):
        self.layout, self.setting, self.device = layout, setting, torch.device(device)
        self.known = known
        spec = replace(model_spec(setting), min_present=FEWEST)
        model = build_model(layout.modalities, layout.num_classes, spec, seed=0)
        self.model = place(model, Engine.of(self.device), setting.recipe.batch_size)
        self.natural, self.complete = present_shares(layout), (1.0,) * len(layout.modalities)

    @property
    def weights(self) -> int:
        return sum(tensor.nbytes for tensor in self.model.state_dict().values())

    @property
    def gradients(self) -> int:
        return sum(parameter.nbytes for parameter in self.model.parameters())

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
        return line(measure, *self._sizes(batch))

    def passes(self) -> tuple[Line, Line]:
        """A validation, with what samples have; a test, complete and predicted with all subsets."""
        sizes = self._sizes(most_rows(self._largest, self.device.type))

        def measure(shares: Shares, subsets: int, rows: int) -> float:
            split = self._split(shares, rows)

            def run() -> None:
                tokens_NMD = encode(self.model, split)
                for _ in range(subsets):
                    predict(self.model, tokens_NMD, split.present_NM)

            for _ in range(RECORD_AT):
                run()
            return min(self._seconds(run) for _ in range(REPEATS))

        return (
            line(partial(measure, self.natural, 1), *sizes),
            line(partial(measure, self.complete, self.layout.subsets), *sizes),
        )

    def _sizes(self, most: int) -> tuple[int, int]:
        """Few rows and many, at most `most` and on a CPU no more than take a moment."""
        if self.device.type == "cpu":
            most = min(most, max(2 * FEWEST, NUMBERS // self._largest))
        return min(most, max(FEWEST, most // 4)), most

    @property
    def _largest(self) -> int:
        return max(math.prod(modality.shape) for modality in self.layout.modalities.values())

    def fit_seconds(self, mitigation: Mitigation, rows: int, steps: int) -> float:
        """Seconds of a fit of so many steps, with what samples have."""
        return self._seconds(partial(self.fit, mitigation, self._split(self.natural, rows), steps))

    def fit(self, mitigation: Mitigation, split: Split, steps: int) -> None:
        """One epoch of so many steps that change no weight, each of all samples."""
        rows, ids = len(split), torch.arange(len(split))
        recipe = Recipe.of(self.setting.recipe, self.setting.training)
        made = {"epochs": 1, "batch_size": rows, "min_samples_per_epoch": rows * steps, "learning_rate": 0.0}
        fit(self.model, split, ids, ids, replace(recipe, **made), mitigation, KEY, "calibration")

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

    def holds(self, mitigation: Mitigation, kind: str) -> tuple[int, int]:
        """Bytes that a training step and an evaluation pass hold beside what a training keeps.

        Measured on a GPU if this bench has one, else computed from small passes on the CPU.
        """
        batch, chunk = self.setting.recipe.batch_size, most_rows(self._largest, kind)
        if kind == self.device.type == "cuda":
            return self._measured(mitigation, batch, chunk)
        # Where samples lack modalities, these are alike: the mean share is that of what a sample costs.
        shares = present_shares(self.layout, mitigation)
        rows = batch * sum(shares) / len(shares)
        return self.computed(kind, True, rows), self.computed(kind, False, chunk)

    def _measured(self, mitigation: Mitigation, batch: int, chunk: int) -> tuple[int, int]:
        """By the GPU's allocator. A step is seen with augmentation for many batches, and once recorded."""
        steps = max(2, min(MOST_STEPS, NUMBERS_AT_ONCE["cuda"] // (self._largest * batch)))
        before = torch.cuda.memory_allocated(self.device) - self.weights

        def peak(shares: Shares, rows: int, run: Callable[[Split], Any]) -> int:
            split = self._split(shares, rows)
            torch.cuda.reset_peak_memory_stats(self.device)
            run(split)
            held = torch.cuda.max_memory_allocated(self.device) - before
            return held - self.layout.sample * rows - self.weights

        step = peak(self.natural, batch, lambda split: self.fit(mitigation, split, steps))
        forward = peak(
            self.complete, chunk, lambda split: [encode(self.model, split) for _ in range(RECORD_AT + 1)]
        )
        return max(0, step - self.weights - 2 * self.gradients), max(0, forward)

    def computed(self, kind: str, training: bool, rows: float) -> int:
        """In proportion from passes of few rows, without the working memory of kernels and augmentation."""
        key = "held", kind, training, *self.layout.modalities.values()  # of any number of classes
        sizes = (FEWEST, FEWEST + 1)
        pair = once(self.known, key, lambda: [self.held(kind, training, few) for few in sizes])
        # With many rows the most is held elsewhere than with few: each layer has a line of its own.
        lines = zip(*pair, strict=True)
        return max(0, round(max(held + (rows - FEWEST) * (then - held) for held, then in lines)))

    def held(self, kind: str, training: bool, rows: int) -> list[int]:
        """Bytes of complete samples' activations: those that the backward pass of a training step waits for,
        or those that each layer of an evaluation pass gets and gives.
        """
        split, waiting, passed = self._split(self.complete, rows), {}, []
        own = {x.untyped_storage().data_ptr() for x in (*self.model.state_dict().values(), *split.x.values())}

        def save(x: Tensor) -> Tensor:
            storage = x.untyped_storage()
            if storage.data_ptr() not in own:
                waiting[storage.data_ptr()] = storage.nbytes()
            return x

        def see(_, given: object, made: object) -> None:
            passed.append(sum(x.nbytes for x in tree_leaves((given, made)) if isinstance(x, Tensor)))

        self.model.train(training)
        half = torch.autocast("cpu", torch.bfloat16, enabled=kind == "cuda", cache_enabled=False)
        with torch.set_grad_enabled(training), half, saved_tensors_hooks(save, lambda x: x):
            watch = register_module_forward_hook(see)
            keys = dict.fromkeys((*split.x, REST), torch.zeros(rows, dtype=torch.int64))
            self.model.draw(keys if training else {})
            loss = cross_entropy(self.model(split.x, split.present_NM), split.y_N)
            watch.remove()
        del loss  # until here nothing that was saved was freed
        return [sum(waiting.values())] if training else passed


def _random(modality: Modality, rows: int, rng: torch.Generator) -> Tensor:
    """Samples as they are stored; texts of full length."""
    shape, dtype = (rows, *modality.shape), STORED[modality.kind]
    if dtype.is_floating_point:
        return torch.rand(shape, generator=rng).to(dtype)
    most = 256 if modality.kind == "image" else KNOWN_TOKENS
    return torch.randint(1, most, shape, generator=rng).to(dtype)


def _rng() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def looks_of(query: str, settings: Mapping[str, Any], mitigation: Mitigation) -> Looks:
    """Which passes a method and a mitigation's `teach` need: what they look at in a small pool is seen."""
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
    picks = select(query, view, 4, settings)
    mitigation.teach(view, ~torch.isin(view.ids, picks))
    return Looks("pool" in seen, "labelled" in seen, method.dropout, "validation" in seen, method.learns)

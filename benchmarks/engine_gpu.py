"""The engine on a GPU: recorded steps beside launched ones, runs beside one another, how busy the GPU is.

Two EfficientNet-B0, random images, everything through `training.fit` as a run calls it. The roofline is the
model's: bytes that a step must move (28.7 MB an image in training at 64 px, 7.6 at 32) over the memory's 4.8
TB/s. "loader" is how the field trains: 16 workers, a Pillow transform for each image, eager steps.

    python benchmarks/engine_gpu.py                 # on a GPU, three minutes; writes results/engine_gpu.json
    python benchmarks/engine_gpu.py --out FOLDER    # writes it there
    python benchmarks/engine_gpu.py --quick         # the same at a toy size, on a CPU too; nothing written
"""

import json
import random
import shutil
import statistics
import subprocess
import threading
import time
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader

from machine import machine
from measure import GPU_TARGETS, gpu_arguments, gpu_target, in_turns, medians, write
from mindgap.base import gpu
from mindgap.base.gpu import Engine
from mindgap.base.hosted import KEYS
from mindgap.base.modality import Modality
from mindgap.core.batches import Recipe
from mindgap.core.evaluation import autocast, encode
from mindgap.core.network import REST, ModelSpec, build_model, place
from mindgap.core.training import Fit, fit_in_turns, to_the_end
from mindgap.data.dataset import Split
from mindgap.parts.mitigations import Mitigation

NAMES = ("rare", "frequent")
COMPLETE, MISSING = (1.0, 1.0), (0.1, 0.9)
BANDWIDTH = 4.8e12  # of an H200, bytes a second
TRAIN_BYTES, PASS_BYTES = {32: 7.6e6, 64: 28.7e6}, {32: 2.4e6, 64: 9.0e6}  # an image, EfficientNet-B0 in bf16
LIMIT = 150  # seconds after which no part begins: the whole has three minutes


@dataclass(frozen=True)
class Regime:
    """Some rounds of a run: how many labels each has, and what a training validates on."""

    labelled: tuple[int, ...]
    validation: int
    epochs: int


@dataclass(frozen=True)
class Amount:
    """How much of everything; the last of `sizes` is what targets are held against."""

    encoder: str
    width: int
    sizes: tuple[int, ...]
    batch: int
    steps: int
    compared: int
    turns: int
    samples: int
    workers: int
    together: tuple[int, ...]
    low: Regime
    mid: Regime
    busy_together: int


# Rounds 1, 5 and 10 of Table 6, at the 60 epochs of Table 5; of the mid ones a third of the epochs.
FULL = Amount(
    encoder="efficientnet_b0",
    width=512,
    sizes=(64,),
    batch=128,
    steps=60,
    compared=30,
    turns=1,
    samples=8192,
    workers=16,
    together=(1, 2, 4, 8),
    low=Regime((50, 250, 500), 250, 60),
    mid=Regime((250, 1250, 2500), 1250, 20),
    busy_together=8,
)
QUICK = Amount(
    encoder="tiny",
    width=16,
    sizes=(16,),
    batch=8,
    steps=3,
    compared=4,
    turns=1,
    samples=64,
    workers=2,
    together=(2,),
    low=Regime((8, 20), 4, 2),
    mid=Regime((16,), 8, 2),
    busy_together=1,
)


def device_of_here() -> torch.device:
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def wait() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


@lru_cache(maxsize=1)
def random_split(size: int, samples: int, present: tuple[float, float]) -> Split:
    """Random images on the device; a sample lacks a modality with the complement of `present`, never both."""
    rng = torch.Generator().manual_seed(0)
    present_NM = torch.rand((samples, 2), generator=rng) < torch.tensor(present)
    present_NM[~present_NM.any(dim=1), 1] = True
    x = {
        name: torch.randint(256, (samples, size, size, 3), dtype=torch.uint8, generator=rng) for name in NAMES
    }
    y_N = torch.randint(10, (samples,), generator=rng)
    return Split(x, present_NM, y_N).to(device_of_here())


@lru_cache
def engine_of(graphs: bool, slot: int = 0) -> Engine:
    """What runs one after the other share, with recordings or without; one for each run at a time."""
    with gpu.graphs(graphs):
        return Engine.of(device_of_here())


def new_model(amount: Amount, size: int, engine: Engine, seed: int = 0):
    """The paper's model with random weights, placed as the loop places it."""
    fusion = {"name": "transformer", "layers": 2, "heads": 8, "feedforward": 2 * amount.width}
    spec = ModelSpec({"image": {"name": amount.encoder}}, fusion, amount.width, min_present=8)
    image = Modality("image", (size, size, 3))
    return place(build_model(dict.fromkeys(NAMES, image), 10, spec, seed), engine, amount.batch)


def trained(*args, **settings) -> tuple[Fit, float]:
    """`training` without a pause, and its seconds."""
    wait()
    begin = time.perf_counter()
    fitted = to_the_end(training(*args, **settings))
    wait()
    return fitted, time.perf_counter() - begin


def training(
    amount: Amount,
    train: Split,
    labelled: int,
    epochs: int,
    engine: Engine,
    *,
    per_epoch: int = 0,
    augmentation: str = "none",
    validation: int = 2,
    validate_from: float = 1.0,
    seed: int = 0,
) -> Generator[str | None, None, Fit]:
    """A whole training from scratch, step by step; an epoch has at least `per_epoch` steps."""
    recipe = Recipe(
        epochs=epochs,
        batch_size=amount.batch,
        learning_rate=0.01,  # random labels: a higher one may diverge
        weight_decay=5e-4,
        augmentation=augmentation,
        class_balanced=False,
        momentum=0.9,
        warmup_epochs=min(10, epochs / 2),
        min_samples_per_epoch=per_epoch * amount.batch,
        validate_from=validate_from,
    )
    model, ids = new_model(amount, train.x[NAMES[0]].shape[1], engine, seed), torch.arange(len(train))
    settings = (recipe, Mitigation(), (seed,), "benchmark")
    return (yield from fit_in_turns(model, train, ids[:labelled], ids[len(ids) - validation :], *settings))


def step_seconds(graphs: bool, amount: Amount, size: int, augmentation: str = "none") -> float:
    """Seconds a step of a training on complete samples, with recordings or without."""
    train = random_split(size, amount.samples, COMPLETE)
    settings = {"per_epoch": amount.steps, "augmentation": augmentation}
    labelled = amount.batch * (amount.samples // amount.batch - 1)
    result, seconds = trained(amount, train, labelled, 1, engine_of(graphs), **settings)
    return seconds / result.steps


def steps(amount: Amount) -> dict:
    """Eager and recorded steps by turns, for each size and with the slowest augmentation too."""
    rows = []
    for size in amount.sizes:
        sides = {
            f"{kind}_{augmentation}": lambda g=graphs, s=size, a=augmentation: step_seconds(g, amount, s, a)
            for augmentation in ("none", "randaugmc")
            for kind, graphs in (("eager", False), ("graph", True))
        }
        runs = in_turns(sides, amount.turns)
        median = medians(runs)
        rate = 2 * amount.batch / median["graph_none"]
        row = {"image_size": size, "seconds_a_step": median, "runs": runs, "images_per_second": rate}
        row |= {
            f"times_eager_{a}": median[f"eager_{a}"] / median[f"graph_{a}"] for a in ("none", "randaugmc")
        }
        rows.append(row | roofline(rate, TRAIN_BYTES, size))
    reached = {"graph": rows[-1]["times_eager_none"], "step": 1000 * rows[-1]["seconds_a_step"]["graph_none"]}
    return {
        "rows": rows,
        "targets": [gpu_target("engine_gpu", name, value) for name, value in reached.items()],
    }


def roofline(rate: float, bytes_of: dict[int, float], size: int) -> dict:
    """What the memory allows, images a second, and the share of it reached; nothing at a toy size."""
    if size not in bytes_of:
        return {}
    most = BANDWIDTH / bytes_of[size]
    return {"roofline_images_per_second": most, "share_of_roofline": rate / most}


def passes(amount: Amount) -> dict:
    """Images a second of the encoders alone, as the pool is looked at."""
    rows = []
    for size in amount.sizes:
        train, model = random_split(size, amount.samples, COMPLETE), new_model(amount, size, engine_of(True))
        runs = in_turns({"pass": lambda m=model, t=train: seconds_of(lambda: encode(m, t))}, amount.turns + 3)
        rate = 2 * len(train) / statistics.median(runs["pass"][3:])  # a shape is recorded when it comes again
        rows.append({"image_size": size, "images_per_second": rate} | roofline(rate, PASS_BYTES, size))
    return {"rows": rows, "targets": [gpu_target("engine_gpu", "passes", rows[-1]["images_per_second"])]}


def seconds_of(call: Callable[[], object]) -> float:
    wait()
    begin = time.perf_counter()
    call()
    wait()
    return time.perf_counter() - begin


def compared(amount: Amount) -> dict:
    """Losses of the same steps, eager and recorded: an epoch of one step tells each."""
    train, losses = random_split(amount.sizes[-1], amount.samples, COMPLETE), {}
    for name, graphs in (("eager", False), ("eager_again", False), ("graph", True)):
        losses[name] = trained(amount, train, amount.batch, amount.compared, engine_of(graphs))[0].losses
    return {
        "steps": amount.compared,
        "largest_difference": furthest(losses["eager"], losses["graph"]),
        "largest_difference_of_eager_to_itself": furthest(losses["eager"], losses["eager_again"]),
        "last_losses": {name: values[-1] for name, values in losses.items()},
    }


def furthest(a: Sequence[float], b: Sequence[float]) -> float:
    return max(abs(x - y) for x, y in zip(a, b, strict=True))


class OneByOne(torch.utils.data.Dataset):
    """Samples as the field's loaders give them: each image in Pillow, flipped, cropped, RandAugmentMC."""

    def __init__(self, train: Split):
        from torchvision import transforms

        from augmentation import flip_and_crop, pillow_randaugmentmc

        self.x, self.y_N = {name: x.cpu().numpy() for name, x in train.x.items()}, train.y_N.cpu()
        size = self.x[NAMES[0]].shape[1]
        crop = flip_and_crop(size, padding_mode="reflect")
        self.transform = transforms.Compose([*crop, pillow_randaugmentmc])

    def __len__(self) -> int:
        return len(self.y_N)

    def __getitem__(self, i: int) -> tuple[dict[str, Tensor], Tensor]:
        images = {name: np.array(self.transform(Image.fromarray(x[i]))) for name, x in self.x.items()}
        return {name: torch.from_numpy(x) for name, x in images.items()}, self.y_N[i]


def loader_images_per_second(amount: Amount, train: Split) -> float:
    """Two epochs of eager steps on a DataLoader's batches, after one in which its workers start."""
    device, model = device_of_here(), new_model(amount, amount.sizes[-1], engine_of(False, slot=1))
    on_gpu = device.type == "cuda"
    settings = {"num_workers": amount.workers, "persistent_workers": True, "pin_memory": on_gpu}
    loader = DataLoader(OneByOne(train), amount.batch, shuffle=True, drop_last=True, **settings)
    optimiser = torch.optim.SGD(model.parameters(), 0.01, momentum=0.9, nesterov=True, weight_decay=5e-4)
    present_BM = torch.ones((amount.batch, 2), dtype=torch.bool, device=device)
    rows = dict.fromkeys(NAMES, torch.arange(amount.batch, device=device))  # all: nothing waits for a value
    model.train()

    def epoch() -> None:
        for x, y_B in loader:
            x = {name: images.to(device, non_blocking=True) for name, images in x.items()}
            model.draw({REST: torch.randint(KEYS, (amount.batch,)).to(device, non_blocking=True)})
            with autocast(device):
                logits = model.logits(model.tokens(x, rows, present_BM), present_BM)
                loss = cross_entropy(logits, y_B.to(device, non_blocking=True))
            optimiser.zero_grad(set_to_none=True)
            loss.backward()
            optimiser.step()

    epoch()
    seconds = statistics.median(seconds_of(epoch) for _ in range(2))
    return 2 * amount.batch * len(loader) / seconds


def resident_beside_loader(amount: Amount) -> dict:
    """Training images a second with RandAugmentMC: our loop, and a DataLoader's."""
    size = amount.sizes[-1]
    train = random_split(size, amount.samples, COMPLETE)
    step_seconds(True, amount, size, "randaugmc")
    ours = 2 * amount.batch / step_seconds(True, amount, size, "randaugmc")
    theirs = loader_images_per_second(amount, train)
    sides = {"resident": ours, f"loader_{amount.workers}_workers": theirs}
    return {"image_size": size, "images_per_second": sides, "times_loader": ours / theirs}


def regime_in_turns(
    amount: Amount, regime: Regime, seed: int, epochs: int
) -> Generator[str | None, None, list[Fit]]:
    """The trainings of a run, step by step."""
    samples = max(regime.labelled) + regime.validation
    train, fits = random_split(amount.sizes[-1], samples, MISSING), []
    settings = {"augmentation": "randaugmc", "validation": regime.validation, "validate_from": 0.0}
    for labelled in regime.labelled:
        fits.append(
            (
                yield from training(
                    amount, train, labelled, epochs, engine_of(True, seed), seed=seed, **settings
                )
            )
        )
    return fits


def taking_turns(amount: Amount, regime: Regime, runs: int, epochs: int) -> list[list[Fit]]:
    """So many runs at once in this process, each with its own model, stream and recordings."""
    fits, waiting = {}, {seed: regime_in_turns(amount, regime, seed, epochs) for seed in range(runs)}
    while waiting:
        for seed, turns in list(waiting.items()):
            with engine_of(True, seed).turn():
                try:
                    next(turns)
                except StopIteration as end:
                    fits[seed] = end.value
                    del waiting[seed]
    return [fits[seed] for seed in range(runs)]


def at_once(amount: Amount, regime: Regime, runs: int) -> list[dict]:
    """Runs at once, after a short one each: when, steps, losses, memory of all."""
    taking_turns(amount, regime, runs, min(5, regime.epochs))
    wait()
    begin = time.monotonic()
    told = taking_turns(amount, regime, runs, regime.epochs)
    wait()
    end = time.monotonic()
    gib = torch.cuda.max_memory_allocated() / 2**30 if torch.cuda.is_available() else 0.0
    samples = max(regime.labelled) + regime.validation
    data = sum(x.numel() for x in random_split(amount.sizes[-1], samples, MISSING).x.values()) / 2**30
    shared = {"begin": begin, "end": end, "peak_gib": gib / runs, "data_gib": data}
    return [
        shared
        | {"steps": sum(one.steps for one in fits), "losses": [loss for one in fits for loss in one.losses]}
        for fits in told
    ]


def together(amount: Amount) -> dict:
    """Steps a second of all runs of Missing low, by how many are at once; and whether that changes one."""
    rows, alone = [], None
    for runs in amount.together:
        told = at_once(amount, amount.low, runs)
        alone = alone or told[0]
        seconds = max(one["end"] for one in told) - min(one["begin"] for one in told)
        rows.append(
            {
                "runs": runs,
                "steps_per_second": sum(one["steps"] for one in told) / seconds,
                "gib_a_run": max(one["peak_gib"] for one in told),
                "largest_difference_of_losses_to_alone": furthest(told[0]["losses"], alone["losses"]),
            }
        )
        rows[-1]["times_one_after_the_other"] = rows[-1]["steps_per_second"] / rows[0]["steps_per_second"]
    best = max(rows, key=lambda row: row["times_one_after_the_other"])
    images = best["steps_per_second"] * amount.batch * len(NAMES)
    reached = {"together": best["times_one_after_the_other"], "images": images}
    return {
        "rows": rows,
        "targets": [gpu_target("engine_gpu", name, value) for name, value in reached.items()],
    }


class Utilisation:
    """What nvidia-smi says of the first GPU, some times a second: the share of time with a kernel on it."""

    def __init__(self):
        self.seen: list[tuple[float, float]] = []
        self.over = threading.Event()
        self.thread = threading.Thread(target=self._look, daemon=True)

    def _look(self) -> None:
        query = ["nvidia-smi", "-i", "0", "--query-gpu=utilization.gpu", "--format=csv,noheader,nounits"]
        while shutil.which("nvidia-smi") and not self.over.wait(0.1):
            answer = subprocess.run(query, capture_output=True, text=True).stdout.strip()
            if answer.isdigit():  # "[N/A]" on a part of a GPU
                self.seen.append((time.monotonic(), int(answer) / 100))

    def __enter__(self) -> "Utilisation":
        self.thread.start()
        return self

    def __exit__(self, *_) -> None:
        self.over.set()
        self.thread.join()

    def between(self, begin: float, end: float) -> float | None:
        values = [share for when, share in self.seen if begin <= when <= end]
        return statistics.mean(values) if values else None


def busy(amount: Amount) -> dict:
    """How busy the GPU is over mid-regime runs, one alone and some at once; memory of the one."""
    result, targets = {}, []
    for name, runs in (("busy", 1), ("busy_together", amount.busy_together)):
        with Utilisation() as gpu_use:
            told = at_once(amount, amount.mid, runs)
        share = gpu_use.between(max(one["begin"] for one in told), min(one["end"] for one in told))
        seconds = max(one["end"] for one in told) - min(one["begin"] for one in told)
        memory = {key: max(one[key] for one in told) for key in ("peak_gib", "data_gib")}
        result[name] = {"runs": runs, "share": share, "seconds": seconds, **memory}
        targets.append(gpu_target("engine_gpu", name, share))
    above_data = result["busy"]["peak_gib"] - result["busy"]["data_gib"]
    return result | {"targets": [*targets, gpu_target("engine_gpu", "memory", above_data)]}


def first(amount: Amount) -> dict:
    """Seconds to the end of the first step of a process, plans of cuDNN and the recording included."""
    train = random_split(amount.sizes[-1], amount.samples, COMPLETE)
    seconds = [trained(amount, train, amount.batch, 1, engine_of(True))[1] for _ in range(2)]
    reached = gpu_target("engine_gpu", "first", seconds[0])
    return {"seconds": {"first": seconds[0], "again": seconds[1]}, "targets": [reached]}


PARTS = {
    "first": first,
    "together": together,
    "compared": compared,
    "steps": steps,
    "passes": passes,
    "busy": busy,
    "resident_beside_loader": resident_beside_loader,
}


def with_missing(targets: list[dict]) -> list[dict]:
    """The targets and those of parts that were not reached, without a figure."""
    known = {one["what"] for one in targets}
    missing = [name for name, one in GPU_TARGETS["engine_gpu"].items() if one["what"] not in known]
    return [*targets, *(gpu_target("engine_gpu", name, None) for name in missing)]


def main() -> None:
    options = gpu_arguments(__doc__, "engine_gpu")
    amount, begin = QUICK if options.quick else FULL, time.perf_counter()
    torch.set_num_threads(1)
    torch.backends.cudnn.deterministic = True
    random.seed(0)
    result = {
        "command": "python benchmarks/engine_gpu.py",
        "machine": machine("torch", "torchvision", "pillow"),
        "targets": [],
        "left_out": [],
        "batch": amount.batch,
    }
    for name, part in PARTS.items():
        if time.perf_counter() - begin > LIMIT:
            result["left_out"].append(name)
            continue
        told = part(amount)
        result["targets"] += told.pop("targets", [])
        result[name] = told
        print(json.dumps({name: told, "seconds_so_far": time.perf_counter() - begin}), flush=True)
        if not options.quick:  # after each part: what is measured stays if time runs out
            write("engine_gpu", result | {"targets": with_missing(result["targets"])}, options.out)


if __name__ == "__main__":
    main()

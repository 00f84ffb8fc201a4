"""Seconds a step of `training.fit` beside the bare forward, backward and optimiser step of the same model.

The tiny encoder at 32 px, two modalities, one thread on the CPU. The bare side gets its batches gathered,
without augmentation, rate schedule or mitigation, and runs as many steps; the only thing it does besides is
what any training must. Of `fit` everything counts, its one validation at the end too, on two samples. Seconds
are those of the processor: beside other work a step of 14 ms takes anything from 11 to 17 on the wall.

    python benchmarks/step_overhead.py            # five minutes; writes results/step_overhead.json
    python benchmarks/step_overhead.py --quick    # few steps, nothing written
"""

import json
import statistics
import time
from functools import partial

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from machine import machine
from measure import arguments, in_turns, medians, target, write
from mindgap.base.hosted import KEYS
from mindgap.base.modality import Modality
from mindgap.core.batches import Recipe
from mindgap.core.network import REST, ModelSpec, MultimodalNet, build_model
from mindgap.core.training import fit
from mindgap.data.dataset import Split
from mindgap.parts.mitigations import Mitigation

IMAGE = Modality("image", (32, 32, 3))
NAMES = ("rare", "frequent")
FUSION = {"name": "transformer", "feedforward": 192}
SPEC = ModelSpec({"image": {"name": "tiny"}}, FUSION, width=96, head_dropout=0.25)
BATCHES = (32, 64)
PRESENT = {"complete": (1.0, 1.0), "missing": (0.1, 0.9)}
FULL = {"steps_per_epoch": 10, "epochs": 12, "repeats": 15}  # the epochs of the shipped recipes
QUICK = {"steps_per_epoch": 2, "epochs": 2, "repeats": 1}
AT_MOST = 1.10


def training_set(samples: int, present: tuple[float, float]) -> Split:
    """Random images; each sample lacks a modality with the complement of `present`, but never both."""
    rng = torch.Generator().manual_seed(0)
    present_NM = torch.rand((samples, 2), generator=rng) < torch.tensor(present)
    present_NM[~present_NM.any(dim=1), 1] = True
    x = {
        name: torch.randint(256, (samples, *IMAGE.shape), dtype=torch.uint8, generator=rng) for name in NAMES
    }
    return Split(x, present_NM, torch.randint(10, (samples,), generator=rng))


def new_model() -> MultimodalNet:
    return build_model(dict.fromkeys(NAMES, IMAGE), 10, SPEC, 0)


def seconds_of_fit(train: Split, batch: int, epochs: int, augmentation: str) -> float:
    """Seconds a step of a whole training; all but the last two samples are labelled."""
    recipe = Recipe(
        epochs=epochs,
        batch_size=batch,
        learning_rate=0.05,
        weight_decay=5e-4,
        augmentation=augmentation,
        class_balanced=False,
        momentum=0.9,
        warmup_epochs=2,
        min_samples_per_epoch=0,
        validate_from=1.0,
    )
    ids, model = torch.arange(len(train)), new_model()
    begin = time.process_time()
    result = fit(model, train, ids[:-2], ids[-2:], recipe, Mitigation(), ("benchmark",), "benchmark")
    return (time.process_time() - begin) / result.steps


def prepared_batches(train: Split, batch: int) -> list[tuple[dict[str, Tensor], Tensor, Tensor]]:
    order = torch.randperm(len(train) - 2, generator=torch.Generator().manual_seed(0))
    return [
        ({name: x[rows] for name, x in train.x.items()}, train.present_NM[rows], train.y_N[rows])
        for rows in order.split(batch)
    ]


def seconds_bare(batches: list, epochs: int) -> float:
    """Seconds a step of the bare loop."""
    model = new_model()
    optimiser = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9, nesterov=True, weight_decay=5e-4)
    model.train()
    begin = time.process_time()
    for _ in range(epochs):
        for x, present_NM, y_N in batches:
            model.draw({REST: torch.randint(KEYS, (len(y_N),))})
            loss = cross_entropy(model(x, present_NM), y_N)
            optimiser.zero_grad(set_to_none=True)
            loss.backward()
            optimiser.step()
    return (time.process_time() - begin) / (epochs * len(batches))


def over(ours: list[float], bare: list[float]) -> float:
    """Our time over the bare one: the median over turns, as a moment slows both sides of a turn alike."""
    return statistics.median(a / b for a, b in zip(ours, bare, strict=True))


def measure(kind: str, batch: int, steps_per_epoch: int, epochs: int, repeats: int) -> dict:
    """One row: milliseconds a step of each side, and our time over the bare one."""
    train = training_set(steps_per_epoch * batch + 2, PRESENT[kind])
    runs = in_turns(
        {
            "bare": partial(seconds_bare, prepared_batches(train, batch), epochs),
            "none": partial(seconds_of_fit, train, batch, epochs, "none"),
            "basic": partial(seconds_of_fit, train, batch, epochs, "basic"),
        },
        repeats,
    )
    runs = {side: [1000 * value for value in values] for side, values in runs.items()}
    return {
        "samples": kind,
        "batch": batch,
        "steps": epochs * steps_per_epoch,
        "milliseconds_a_step": medians(runs),
        "runs": runs,
        "step_over_bare": {side: over(runs[side], runs["bare"]) for side in ("none", "basic")},
    }


def main() -> None:
    quick = arguments(__doc__).quick
    torch.set_num_threads(1)
    facts, size = machine("torch", threads=1), QUICK if quick else FULL
    rows = [measure(kind, batch, **size) for kind in PRESENT for batch in BATCHES]
    print(json.dumps(rows, indent=1))
    if quick:
        return
    targets = [
        target(
            f"a step of fit over the bare one, batch {row['batch']}, {row['samples']} samples",
            row["step_over_bare"]["none"],
            at_most=AT_MOST,
        )
        for row in rows
    ]
    command = "python benchmarks/step_overhead.py"
    write("step_overhead", {"command": command, "machine": facts, "targets": targets, **size, "rows": rows})


if __name__ == "__main__":
    main()

"""Metrics of all subsets of modalities beside those of one, and beside a whole forward pass for each subset.

"all" is what a run does for every subset; "one" is the same work for all modalities together only; "naive"
passes the test set through the whole model once per subset, where absent modalities skip their encoders: with
M modalities that is 2^(M-1) passes of each encoder, not 2^M - 1. One thread; medians of turns.

    python benchmarks/evaluation.py            # three minutes; writes results/evaluation.json
    python benchmarks/evaluation.py --quick    # few samples, nothing written
"""

import json
import time

import torch
from torch import Tensor

from machine import machine
from measure import arguments, in_turns, medians, target, write
from mindgap.base.modality import Modality
from mindgap.base.view import Metrics
from mindgap.core.evaluation import encode, metrics_of, predict, predict_subsets
from mindgap.core.network import ModelSpec, MultimodalNet, build_model
from mindgap.data.dataset import Split, subset_name, subsets
from mindgap.parts.evaluators.contract import Predictions

CLASSES = 100
PAPER = {"width": 512, "fusion": {"name": "transformer", "layers": 2, "heads": 8, "feedforward": 1024}}
TINY = {"width": 96, "fusion": {"name": "transformer", "feedforward": 192}}
# The two scales of params.yaml: encoder, side of an image, the model around it, test samples here.
SCALES = {
    "tiny": ("tiny", 32, TINY, {"full": 1000, "quick": 32}),
    "paper": ("efficientnet_b0", 64, PAPER, {"full": 256, "quick": 4}),
}
MODALITIES = {"two": ("rare", "frequent"), "three": ("twin_a", "twin_b", "solo")}
REPEATS = 5
AT_MOST = 1.3


def setting(scale: str, modalities: tuple[str, ...], samples: int) -> tuple[MultimodalNet, Split]:
    """A model with random weights and as many random test samples, all of them complete."""
    encoder, size, shape, _ = SCALES[scale]
    image = Modality("image", (size, size, 3))
    spec = ModelSpec(encoder={"image": {"name": encoder}}, **shape)
    rng = torch.Generator().manual_seed(0)
    x = {
        name: torch.randint(256, (samples, *image.shape), dtype=torch.uint8, generator=rng)
        for name in modalities
    }
    y_N = torch.randint(CLASSES, (samples,), generator=rng)
    split = Split(x, torch.ones((samples, len(modalities)), dtype=torch.bool), y_N)
    return build_model(dict.fromkeys(modalities, image), CLASSES, spec, 0), split


def scored(probs_NC: Tensor, y_N: Tensor) -> Metrics:
    return metrics_of(Predictions(torch.ones_like(y_N, dtype=torch.bool), probs_NC, y_N))


def all_subsets(model: MultimodalNet, split: Split) -> dict:
    """The metrics of every subset from one encoder pass, as a run has them."""
    found = predict_subsets(model, encode(model, split), split.present_NM, split.y_N, "benchmark")
    return {subset: metrics_of(seen) for subset, seen in found.items()}


def one_subset(model: MultimodalNet, split: Split) -> Metrics:
    """The metrics with all modalities."""
    return scored(predict(model, encode(model, split), split.present_NM), split.y_N)


@torch.no_grad()
def subset_by_subset(model: MultimodalNet, split: Split) -> dict:
    """The metrics of every subset, each by its own pass through the whole model."""
    model.eval()
    modalities, metrics = tuple(split.x), {}
    for subset in subsets(modalities):
        present_NM = split.present_NM & torch.tensor([name in subset for name in modalities])
        parts = [whole_model(model, split, rows, present_NM) for rows in torch.arange(len(split)).split(1024)]
        metrics[subset_name(subset, modalities)] = scored(torch.cat(parts), split.y_N)
    return metrics


def whole_model(model: MultimodalNet, split: Split, rows: Tensor, present_NM: Tensor) -> Tensor:
    return model({name: x[rows] for name, x in split.x.items()}, present_NM[rows]).softmax(dim=1)


def seconds(call) -> float:
    begin = time.perf_counter()
    call()
    return time.perf_counter() - begin


def measure(scale: str, many: str, samples: int, repeats: int) -> dict:
    """One row: seconds of each side, and what all subsets cost beside the others."""
    model, split = setting(scale, MODALITIES[many], samples)
    calls = {
        "one": lambda: one_subset(model, split),
        "all": lambda: all_subsets(model, split),
        "naive": lambda: subset_by_subset(model, split),
    }
    runs = in_turns({name: lambda call=call: seconds(call) for name, call in calls.items()}, repeats)
    median = medians(runs)
    return {
        "scale": scale,
        "image_size": SCALES[scale][1],
        "modalities": len(split.x),
        "subsets": 2 ** len(split.x) - 1,
        "samples": samples,
        "seconds": median,
        "runs": runs,
        "all_over_one": median["all"] / median["one"],
        "naive_over_all": median["naive"] / median["all"],
    }


def main() -> None:
    quick = arguments(__doc__).quick
    torch.set_num_threads(1)
    facts = machine("torch", "torchvision", threads=1)
    rows = [
        measure(scale, many, samples["quick" if quick else "full"], 1 if quick else REPEATS)
        for scale, (*_, samples) in SCALES.items()
        for many in MODALITIES
    ]
    print(json.dumps(rows, indent=1))
    if quick:
        return
    targets = [
        target(
            f"all {row['subsets']} subsets over one, {row['scale']} model at {row['image_size']} px",
            row["all_over_one"],
            at_most=AT_MOST,
        )
        for row in rows
    ]
    command = "python benchmarks/evaluation.py"
    write("evaluation", {"command": command, "machine": facts, "targets": targets, "rows": rows})


if __name__ == "__main__":
    main()

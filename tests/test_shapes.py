"""Few shapes: padded batches and passes give what compact ones give; an encoder sees two sizes at most."""

import copy
import dataclasses
from collections import defaultdict

import numpy as np
import pytest
import torch
from torch import nn

from mindgap.base import hosted
from mindgap.base.gpu import Engine
from mindgap.base.modality import Modality
from mindgap.core.batches import Batches, Recipe
from mindgap.core.evaluation import encode, passes, predict, predict_subsets
from mindgap.core.loop import initial_record, rounds
from mindgap.core.network import ModelSpec, MultimodalNet, build_model, place
from mindgap.core.training import Steps, fit
from mindgap.data.dataset import Split
from mindgap.parts.mitigations import MITIGATIONS, Mitigation
from test_loop import run_of

IMAGE = Modality("image", (16, 16, 3))
# Two modalities, and the encoders of their kinds.
PAIRS = {
    "tiny": ((IMAGE, IMAGE), {"image": {"name": "tiny"}}),
    "efficientnet_b0": (
        (Modality("image", (48, 48, 3)), Modality("table", (50,))),
        {"image": {"name": "efficientnet_b0"}, "table": {"name": "mlp"}},
    ),
    "signal and table": (
        (Modality("signal", (12, 125)), Modality("table", (50,))),
        {"signal": {"name": "efficientnet1d_b0"}, "table": {"name": "mlp"}},
    ),
    "tokens": (
        (Modality("tokens", (12,)), IMAGE),
        {"tokens": {"name": "minilm", "pretrained": False}, "image": {"name": "tiny"}},
    ),
    "bag and tiny signal": (
        (Modality("tokens", (12,)), Modality("signal", (12, 125))),
        {"tokens": {"name": "bag"}, "signal": {"name": "tiny"}},
    ),
}
RECIPE = Recipe(
    epochs=1,
    batch_size=12,
    learning_rate=1e-3,
    weight_decay=5e-4,
    augmentation="none",
    class_balanced=False,
    momentum=0.9,
    warmup_epochs=0.5,
    min_samples_per_epoch=0,
    validate_from=0.5,
)
PADDED = Engine(torch.device("cpu"), pad=True, record=False)
FUSION = {"name": "transformer", "heads": 2, "feedforward": 16, "dropout": 0.1}


def samples(modalities, count: int, rare: float) -> Split:
    """Random samples of which a share lacks the first modality, and a few the second."""
    rng = np.random.default_rng(0)
    x = {}
    for name, modality in modalities.items():
        shape = (count, *modality.shape)
        if modality.kind == "image":
            x[name] = torch.from_numpy(rng.integers(256, size=shape, dtype=np.uint8))
        elif modality.kind == "tokens":
            length = rng.integers(2, shape[1] + 1, (count, 1))
            ids = rng.integers(1, 500, shape) * (np.arange(shape[1]) < length)
            x[name] = torch.from_numpy(ids.astype(np.int32))
        else:
            kind = np.float16 if modality.kind == "signal" else np.float32
            x[name] = torch.from_numpy(rng.normal(size=shape).astype(kind))
    present = np.stack([rng.random(count) < rare, rng.random(count) < 0.9], axis=1)
    present[~present.any(axis=1), 1] = True
    return Split(x, torch.from_numpy(present), torch.from_numpy(rng.integers(4, size=count)))


def model_of(modalities, encoders, absent: str, engine: Engine | None, min_present: int = 3) -> MultimodalNet:
    spec = ModelSpec(encoders, FUSION, 16, projection_dropout=0.1, absent=absent, min_present=min_present)
    model = build_model(modalities, 4, spec, seed=0).double()
    return place(model, engine or Engine.of("cpu"), RECIPE.batch_size)


class Chosen(Mitigation):
    """The first modality with as many samples in each batch as are named, every other one with it alone."""

    def __init__(self, *counts: int):
        self.counts = iter(counts)

    def drop(self, present_NM, rng):
        rank_N = present_NM[:, 0].cumsum(0)
        few_N = present_NM[:, 0] & (rank_N <= next(self.counts))
        return torch.stack([few_N, present_NM[:, 1] & ~(few_N & (rank_N % 2 == 0))], dim=1)


def one_step_each(modalities, encoders, absent: str):
    """Compact and padded steps from equal states, with what each left."""
    split, sides = samples(modalities, 40, rare=1.0), []
    split = dataclasses.replace(split, present_NM=torch.ones_like(split.present_NM))
    for engine in (None, PADDED):
        model = model_of(modalities, encoders, absent, engine)
        mitigation = Chosen(3, 2, 5)
        taken = Steps.of(model.train(), RECIPE, mitigation)
        sides.append((taken, Batches(split, torch.arange(30), RECIPE, mitigation, model, (3,))))
    (compact, batches), (padded, others) = sides
    for batch, other in zip(batches.epoch(), others.epoch(), strict=True):
        padded.model.load_state_dict(compact.model.state_dict())
        torch._foreach_copy_(padded.optimiser.velocity, compact.optimiser.velocity)
        before = {name: value.clone() for name, value in compact.model.state_dict().items()}
        for side, its in ((compact, batch), (padded, other)):
            side.loss_sum.zero_()
            assert side.take(its, "here") is None
        yield before, batch, other, compact, padded


def equal(one: torch.Tensor, other: torch.Tensor) -> bool:
    """To 1e-9 of the largest of their numbers."""
    return bool((one - other).abs().max() <= 1e-9 * other.abs().max().clamp(min=1e-3))


@pytest.mark.parametrize("absent", ["skip", "zeros"])
@pytest.mark.parametrize("pair", PAIRS)
def test_a_step_on_padded_rows_is_the_step_on_compact_rows(pair, absent):
    """Loss, gradients (in the momentum), weights and running statistics. The first modality has three rows,
    then too few for statistics, then all of the last batch, which has 6 of 12 samples.
    """
    kinds, encoders = PAIRS[pair]
    modalities, rows = dict(zip(("rare", "frequent"), kinds, strict=True)), []
    for before, batch, other, compact, padded in one_step_each(modalities, encoders, absent):
        rows.append(int(batch.present_BM[:, 0].sum()))
        assert {len(x) for x in other.x.values()} == {12}
        assert equal(padded.loss_sum, compact.loss_sum)
        assert all(map(equal, padded.optimiser.velocity, compact.optimiser.velocity))
        after = compact.model.state_dict()
        for name, value in padded.model.state_dict().items():
            assert equal(value.double(), after[name].double()), name
        for m, name in enumerate(modalities):
            own = [key for key in after if key.startswith((f"encoders.{name}.", f"projections.{name}."))]
            moved = any(not torch.equal(after[key], before[key]) for key in own)
            assert moved == bool(batch.present_BM[:, m].any() or absent == "zeros")
    assert rows == ([3, 0, 5] if absent == "skip" else [3, 2, 5])


def trained(modalities, encoders, engine: Engine | None):
    """What a training in float64 gives: its losses, weights and predictions."""
    split, ids = samples(modalities, 40, rare=0.3), torch.arange(40)
    model = model_of(modalities, encoders, "skip", engine)
    recipe = dataclasses.replace(RECIPE, epochs=2)
    result = fit(model, split, ids[:30], ids[30:], recipe, MITIGATIONS["moddrop"](0.3), (0,), "here")
    return result, model.state_dict(), predict(model, encode(model, split), split.present_NM)


@pytest.mark.parametrize("pair", ["tiny", "bag and tiny signal"])
def test_a_training_on_padded_rows_is_the_training_on_compact_rows(pair):
    kinds, encoders = PAIRS[pair]
    modalities = dict(zip(("rare", "frequent"), kinds, strict=True))
    compact, weights, probs = trained(modalities, encoders, None)
    padded, others, other_probs = trained(modalities, encoders, PADDED)
    assert padded.losses == pytest.approx(compact.losses, rel=1e-9)
    assert padded.best_epoch == compact.best_epoch
    assert all(torch.allclose(others[name], value, atol=1e-9) for name, value in weights.items())
    assert torch.allclose(other_probs, probs, rtol=0, atol=1e-9)


def test_an_experiment_has_two_numbers_of_rows(make_dataset, monkeypatch):
    """Trainings, validations, tests, pool passes and Monte-Carlo dropout of a run, several rounds of it."""
    seen, dataset = defaultdict(set), make_dataset(absent=0.4, train=1200, test=600)
    before = MultimodalNet.tokens_of

    def tokens_of(self, name, x_K, *keep):
        seen[name].add(tuple(x_K.shape))
        return before(self, name, x_K, *keep)

    monkeypatch.setattr(MultimodalNet, "tokens_of", tokens_of)
    monkeypatch.setattr("mindgap.core.evaluation.CHUNK", 200)
    for absent in ("skip", "zeros"):
        for query in ("bald", "bmmal"):
            run = run_of(query)
            run = dataclasses.replace(
                run,
                setting=dataclasses.replace(
                    run.setting, model=run.setting.model.model_copy(update={"absent": absent})
                ),
            )
            initial, weights = initial_record(
                dataclasses.replace(run, cell=dataclasses.replace(run.cell, query=None)), dataset, PADDED
            )
            assert len(list(rounds(run, dataset, initial, weights, (), PADDED))) == 3
    assert seen == {name: {(8, 16, 16, 3), (200, 16, 16, 3)} for name in dataset.modalities}


@pytest.mark.parametrize("rows", [0, 1, 7, 8, 9, 100, 101, 150, 199, 200, 201, 1000, 1024])
def test_passes_cover_all_rows_once_in_two_sizes(rows):
    for few, sizes in ((8, {8, 200}), (None, None), (200, {200})):
        parts = list(passes(rows, 200, few))
        assert [i for part, _ in parts for i in range(rows)[part]] == list(range(rows))
        assert all(part.stop - part.start <= size for part, size in parts)
        assert sizes is None or {size for _, size in parts} <= sizes
        assert few is not None or all(part.stop - part.start == size for part, size in parts)


def test_the_kernels_of_a_gpu_are_called_so_that_sums_are_of_rows_that_count(monkeypatch):
    """The kernels of synchronised batch norm, by what PyTorch says they compute, in float64 on the CPU."""

    def per_channel(values):
        return values.view(1, -1, 1, 1)

    def stats(x, eps):
        var = x.var((0, 2, 3), correction=0)
        return x.mean((0, 2, 3)), (var + eps).rsqrt()

    def elemt(x, gamma, beta, mean, invstd, eps):
        return (x - per_channel(mean)) * per_channel(invstd * gamma) + per_channel(beta)

    def reduce(grad, x, mean, invstd, gamma, input_g, weight_g, bias_g):
        centred = (grad * (x - per_channel(mean))).sum((0, 2, 3))
        return grad.sum((0, 2, 3)), centred, centred * invstd, grad.sum((0, 2, 3))

    def backward_elemt(grad, x, mean, invstd, gamma, sum_grad, sum_centred, count):
        n = count.sum()
        projected = (x - per_channel(mean)) * per_channel(invstd**2 * sum_centred / n)
        return (grad - per_channel(sum_grad / n) - projected) * per_channel(invstd * gamma)

    names = ("stats", "elemt", "backward_reduce", "backward_elemt")
    for name, kernel in zip(names, (stats, elemt, reduce, backward_elemt), strict=True):
        monkeypatch.setattr(torch, f"batch_norm_{name}", kernel)
    rng = torch.Generator().manual_seed(0)
    for counting in ([1, 0, 1, 1, 0, 1, 1, 0], [1] * 8, [0, 0, 0, 1, 1, 0, 0, 0]):
        weight_B = torch.tensor(counting, dtype=torch.float64)
        real = weight_B > 0
        x = torch.randn(8, 5, 4, 4, generator=rng, dtype=torch.float64) + 2
        towards = torch.randn(8, 5, 4, 4, generator=rng, dtype=torch.float64) * weight_B.view(-1, 1, 1, 1)
        results = []
        for function in (hosted._fused, hosted._plain):
            inputs = [x.clone().requires_grad_()]
            inputs += [torch.full((5,), v, dtype=torch.float64, requires_grad=True) for v in (1.5, 0.5)]
            out, mean, var = function(inputs[0], hosted.Rows(weight_B, torch.float64), 16, *inputs[1:], 1e-5)
            (out * towards).sum().backward()
            results.append([out[real], mean, var, *(one.grad for one in inputs)])
        alone = nn.BatchNorm2d(5).double()
        nn.init.constant_(alone.weight, 1.5), nn.init.constant_(alone.bias, 0.5)
        compact = x[real].clone().requires_grad_()
        out = alone(compact)
        (out * towards[real]).sum().backward()
        grad = torch.zeros_like(x).index_put((real,), compact.grad)
        expected = [out, *(x[real].mean((0, 2, 3)), x[real].var((0, 2, 3), correction=0)), grad]
        expected += [alone.weight.grad, alone.bias.grad]
        for found in results:
            assert all(
                torch.allclose(a, b, rtol=1e-9, atol=1e-9) for a, b in zip(found, expected, strict=True)
            )


def test_rows_that_do_not_count_may_hold_anything():
    """In an encoder whose convolutions have biases zeros do not stay zeros."""
    torch.manual_seed(0)
    layers = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 4, 3), nn.BatchNorm2d(4)
    )
    x, weight_B = torch.randn(6, 3, 9, 9).double(), torch.tensor([1.0, 0, 1, 0, 1, 1])
    states = []
    for padded in (False, True):
        rows = slice(None) if padded else weight_B > 0
        module = hosted.hosted(copy.deepcopy(layers)).double().train()
        counted = hosted.Rows(weight_B, torch.float64) if padded else None
        hosted.counting(hosted.norms(module), counted)
        out = module(x[rows])
        (out[weight_B > 0] if padded else out).square().sum().backward()
        hosted.settle(hosted.norms(module))
        states.append([*module.state_dict().values(), *(p.grad for p in module.parameters())])
    assert all(torch.allclose(a.double(), b.double(), atol=1e-9) for a, b in zip(*states, strict=True))


@pytest.mark.parametrize("engine", [None, PADDED], ids=["compact", "padded"])
def test_what_zeros_are_encoded_to_follows_the_weights(make_dataset, engine):
    """Weights that are loaded after a validation, as those of the best epoch are."""
    dataset, spec = make_dataset(), ModelSpec(width=16, absent="zeros")
    models = [
        place(build_model(dataset.modalities, 4, spec, seed), engine or Engine.of("cpu"), RECIPE.batch_size)
        for seed in (0, 1)
    ]

    def seen(model):
        test = dataset.test
        found = predict_subsets(model, encode(model, test), test.present_NM, test.y_N, "here")
        return {subset: one.probs_KC.tolist() for subset, one in found.items()}

    assert seen(models[0]) != seen(models[1])
    models[1].load_state_dict(models[0].state_dict())
    assert seen(models[1]) == seen(models[0])
    assert torch.equal(models[1].blank_MD, models[0].blank_MD)

"""Mitigations that balance modalities, beside slow and plain versions of their formulas in float64."""

import dataclasses
import functools
import itertools
import math
import statistics

import pytest
import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode

from mindgap.base.errors import MindGapError, ParamsError
from mindgap.base.gpu import Engine
from mindgap.base.modality import Modality
from mindgap.core import training
from mindgap.core.batches import Batches
from mindgap.core.network import ModelSpec, build_model, place
from mindgap.core.training import Steps, fit
from mindgap.data.dataset import Split
from mindgap.parts.mitigations import Mitigation, make_mitigation
from mindgap.parts.mitigations.ogm_ge import normal
from test_gpu import (
    CPU,
    on_a_pretended_gpu,
    pretended_batch,
    recording_on_the_cpu,
    without_kernels_of_a_gpu,
)
from test_gpu import trained as training_of
from test_shapes import PADDED, RECIPE, equal, model_of, samples

# Settings with which each of them acts from the first step on, and those with which it does nothing.
ACTING = {
    "multi_loss": {"weight": 0.7},
    "ogm_ge": {"alpha": 0.5},
    "agm": {"alpha": 2.0},
}
NOTHING = {"multi_loss": {"weight": 0.0}, "ogm_ge": {"alpha": 0.0}, "agm": {"alpha": 0.0}}
CLASSES = 3
PRESENCE = {
    "all": [[1, 1, 1]] * 7,
    "some": [[1, 1, 1], [1, 0, 1], [0, 1, 0], [1, 1, 0], [0, 0, 1], [1, 0, 0], [0, 1, 1]],
    "two": [[1, 1, 0], [1, 0, 0], [0, 1, 0], [1, 1, 0], [1, 1, 0], [1, 0, 0], [0, 1, 0]],
    "one": [[0, 1, 0]] * 7,
}


class Plain:
    """A step by definition: sample by sample, and each modality by itself."""

    def __init__(self, step):
        self.step, self.model, self.names = step, step.model, list(step.model.modalities)
        self.rows = [i for i in range(len(step.labels)) if step.weight[i]]
        self.has = {i: [m for m in range(len(self.names)) if step.present[i, m]] for i in self.rows}
        self.label = {i: int(step.labels[i]) for i in self.rows}

    def token(self, i: int, m: int) -> torch.Tensor:
        return self.model.tokens_of(self.names[m], self.step.x[self.names[m]][i : i + 1])[0]

    def logits(self, i: int, kept) -> torch.Tensor:
        """C: 0 with no modality."""
        if not kept:
            return torch.zeros(CLASSES, dtype=torch.float64)
        tokens = torch.zeros(1, len(self.names), self.model.spec.width, dtype=torch.float64)
        present = torch.zeros(1, len(self.names), dtype=torch.bool)
        for m in kept:
            tokens[0, m], present[0, m] = self.token(i, m), True
        return self.model.logits(tokens, present)[0]

    def loss(self, logits: torch.Tensor, i: int) -> torch.Tensor:
        return logits.exp().sum().log() - logits[self.label[i]]

    def fused_loss(self) -> torch.Tensor:
        return sum(self.loss(self.logits(i, self.has[i]), i) for i in self.rows) / len(self.rows)

    def having(self, m: int) -> list[int]:
        return [i for i in self.rows if m in self.has[i]]

    @property
    def represented(self) -> list[int]:
        there = [m for m in range(len(self.names)) if self.having(m)]
        return there if len(there) > 1 else []

    def gradients(self, loss, extra=()) -> dict[str, torch.Tensor]:
        named = dict(self.model.named_parameters()) | dict(extra)
        found = torch.autograd.grad(loss, list(named.values()), materialize_grads=True)
        return dict(zip(named, found, strict=True))

    def owner(self, weight: str) -> int | None:
        part, _, rest = weight.partition(".")
        return self.names.index(rest.split(".")[0]) if part in ("encoders", "projections") else None

    def scaled(self, factors: dict[int, float]) -> dict[str, torch.Tensor]:
        found = self.gradients(self.fused_loss())
        return {name: g * factors.get(self.owner(name), 1.0) for name, g in found.items()}

    def scores(self) -> dict[int, float]:
        """How likely each modality alone finds the true class."""

        def share(i, m):
            return self.logits(i, [m]).softmax(0)[self.label[i]].item()

        return {m: statistics.fmean(share(i, m) for i in self.having(m)) for m in self.represented}


def plain_multi_loss(plain, mitigation, memory):
    heads = mitigation.heads
    loss = plain.fused_loss()
    for m in range(3):
        if having := plain.having(m):
            own = sum(plain.loss(heads[m](plain.token(i, m)), i) for i in having) / len(having)
            loss = loss + 0.7 * own
    return plain.gradients(loss, heads.named_parameters(prefix="heads"))


def plain_ogm_ge(plain, mitigation, memory):
    scores, factors = plain.scores(), {}
    for m, score in scores.items():
        ratio = score / statistics.fmean(other for k, other in scores.items() if k != m)
        factors[m] = 1 - math.tanh(0.5 * ratio) if ratio > 1 else 1.0
    return plain.scaled(factors)


def plain_agm(plain, mitigation, memory):
    """By Shapley's other formula: the mean over the orders in which modalities come."""
    there, scores = plain.represented, {}
    for m in there:
        losses = []
        for i in plain.having(m):
            orders = list(itertools.permutations(plain.has[i]))
            gains = []
            for order in orders:
                before = order[: order.index(m)]
                gains.append(plain.logits(i, (*before, m)) - plain.logits(i, before))
            losses.append(plain.loss(sum(gains) / len(orders), i).item())
        scores[m] = statistics.fmean(losses)
        memory.setdefault(m, []).append(scores[m])

    def lead(score, m):
        gap = score[m] - statistics.fmean(score[k] for k in there)
        return math.exp(len(there) / (len(there) - 1) * gap)

    running = {m: statistics.fmean(memory[m]) for m in there}
    return plain.scaled({m: math.exp(2.0 * min(lead(running, m) - lead(scores, m), 7)) for m in there})


FORMULAS = {
    name.removeprefix("plain_"): formula for name, formula in globals().items() if name.startswith("plain_")
}


def beside_the_plain(name: str, present, settings, epochs: int = 3):
    """Each step's gradients by name, of the mitigation and by its formula; batches have filling rows."""
    modalities = {f"m{k}": Modality("table", (4,)) for k in range(3)}
    fusion = {"name": "transformer", "heads": 2, "feedforward": 8}
    spec = ModelSpec({"table": {"name": "mlp", "hidden": 6}}, fusion, 8, head_dropout=0.0, min_present=1)
    model = place(build_model(modalities, CLASSES, spec, seed=3).double(), PADDED, RECIPE.batch_size)
    rng = torch.Generator().manual_seed(5)
    split = Split(
        {m: 2 * torch.randn(len(present), 4, generator=rng) for m in modalities},
        torch.tensor(present, dtype=torch.bool),
        torch.randint(CLASSES, (len(present),), generator=rng),
    )
    mitigation, found, memory = make_mitigation(name, settings), [], {}
    own = mitigation.gradients

    def gradients(step, given):
        result = own(step, given)
        expected = FORMULAS[name](Plain(step), mitigation, memory)
        found.append((dict(zip(expected, result, strict=True)), expected))
        return result

    mitigation.gradients = gradients
    steps = Steps.of(model, dataclasses.replace(RECIPE, epochs=epochs), mitigation, (0,))
    batches = Batches(split, torch.arange(len(present)), RECIPE, mitigation, model, (0,))
    for epoch in range(epochs):
        steps.start_epoch(epoch)
        for batch in batches.epoch():
            steps.take(batch, "here")
    return found


@pytest.mark.parametrize("presence", PRESENCE)
@pytest.mark.parametrize("name", FORMULAS)
def test_gradients_are_those_of_the_plain_formula(name, presence):
    settings = ACTING[name] | ({"noise": False} if name == "ogm_ge" else {})
    found = beside_the_plain(name, PRESENCE[presence], settings)
    assert len(found) == 3
    for result, expected in found:
        for weight, gradient in expected.items():
            assert torch.allclose(result[weight], gradient, rtol=1e-8, atol=1e-12), weight


def test_the_noise_of_ge_has_the_deviation_of_each_kernels_gradient():
    quiet = beside_the_plain("ogm_ge", PRESENCE["all"], {"alpha": 0.5, "noise": False}, epochs=1)
    loud = beside_the_plain("ogm_ge", PRESENCE["all"], {"alpha": 0.5}, epochs=1)
    for weight, gradient in quiet[0][0].items():
        noise = loud[0][0][weight] - gradient
        own = weight.startswith(("encoders.", "projections."))
        assert noise.any() == (own and gradient.dim() > 1)
    (one, _), *_ = beside_the_plain("ogm_ge", PRESENCE["one"], {"alpha": 0.5}, epochs=1)
    (plain, _), *_ = beside_the_plain("ogm_ge", PRESENCE["one"], {"alpha": 0.0}, epochs=1)
    assert all(torch.equal(one[weight], gradient) for weight, gradient in plain.items())
    drawn = normal(torch.Size([300, 200]), torch.tensor(7), torch.float64)
    assert drawn.mean().abs() < 0.02
    assert drawn.std() == pytest.approx(1, abs=0.01)
    assert drawn.pow(4).mean() == pytest.approx(3, abs=0.1)
    assert not torch.equal(drawn, normal(torch.Size([300, 200]), torch.tensor(8), torch.float64))
    rows = normal(torch.Size([2000, 2]), torch.tensor(7), torch.float64).T
    assert torch.corrcoef(rows)[0, 1].abs() < 0.07


# -- in trainings


def trained(mitigation, engine=None):
    """Result and weights of a training in float64 on two modalities, both absent here and there."""
    modalities = {"rare": Modality("tokens", (12,)), "frequent": Modality("signal", (12, 125))}
    encoders = {"tokens": {"name": "bag"}, "signal": {"name": "tiny"}}
    split, ids = samples(modalities, 44, rare=0.5), torch.arange(44)
    model = model_of(modalities, encoders, "skip", engine)
    result = fit(
        model, split, ids[:31], ids[31:], dataclasses.replace(RECIPE, epochs=2), mitigation, (0,), "here"
    )
    return result, model.state_dict()


@functools.cache
def untouched():
    return trained(Mitigation())


@pytest.mark.parametrize("name", NOTHING)
def test_at_zero_strength_a_training_is_the_plain_one_bit_for_bit(name):
    (result, weights), (plain, others) = trained(make_mitigation(name, NOTHING[name])), untouched()
    assert result == plain
    assert all(torch.equal(weights[name], value) for name, value in others.items())


@pytest.mark.parametrize("name", ACTING)
def test_a_training_on_padded_rows_is_that_on_compact_rows_and_not_the_plain_one(name):
    (compact, weights), (padded, others) = (
        trained(make_mitigation(name, ACTING[name]), engine) for engine in (None, PADDED)
    )
    assert padded.losses == pytest.approx(compact.losses, rel=1e-9)
    assert all(equal(others[name].double(), value.double()) for name, value in weights.items())
    plain, others = untouched()
    assert compact.steps == plain.steps
    assert not all(torch.equal(weights[name], value) for name, value in others.items())


@pytest.mark.parametrize("name", ACTING)
def test_its_steps_are_recorded_once_with_the_numbers_of_launched_ones(make_dataset, monkeypatch, name):
    dataset, made = make_dataset(), recording_on_the_cpu(monkeypatch)
    made_anew = functools.partial(make_mitigation, name, ACTING[name])
    launched, weights, _ = training_of(dataset, made_anew, Engine(CPU, True, False))
    recorded, others, _ = training_of(dataset, made_anew, Engine(CPU, True, True))
    assert (recorded, len(made)) == (launched, 1)
    assert all(torch.equal(weights[name], others[name]) for name in weights)


@pytest.mark.filterwarnings("ignore:Accessing the data pointer of FakeTensor")
@pytest.mark.parametrize("name", ACTING)
def test_its_step_reads_no_value_and_stays_on_the_device(name, monkeypatch):
    without_kernels_of_a_gpu(monkeypatch)
    modalities = {"a": Modality("image", (32, 32, 3)), "b": Modality("tokens", (12,))}
    spec = ModelSpec({"image": {"name": "tiny"}, "tokens": {"name": "bag"}}, width=16)
    model, mitigation = build_model(modalities, 5, spec, seed=0), make_mitigation(name, ACTING[name])
    monkeypatch.setattr(nn.Module, "to", lambda module, *_: on_a_pretended_gpu(module))
    with FakeTensorMode():
        on_a_pretended_gpu(model)
        extra = mitigation.start(model.train(), 3)
        mitigation.start_epoch(model, 0)
        steps = training.Steps(model, RECIPE, mitigation, extra)
        steps.launch(pretended_batch(modalities), "here")
        assert steps.loss_sum.device.type == "cuda"


@pytest.mark.parametrize("name", sorted({*ACTING} - {"multi_loss"}))
def test_logits_of_one_modality_are_refused_where_absence_is_zeros(name):
    modalities = {"rare": Modality("tokens", (12,)), "frequent": Modality("signal", (12, 125))}
    encoders = {"tokens": {"name": "bag"}, "signal": {"name": "tiny"}}
    split, ids = samples(modalities, 40, rare=0.5), torch.arange(40)
    model = model_of(modalities, encoders, "zeros", None)
    with pytest.raises(MindGapError, match=r"set model\.absent of the scale to skip in params\.yaml"):
        fit(model, split, ids[:30], ids[30:], RECIPE, make_mitigation(name, ACTING[name]), (0,), "here")


@pytest.mark.parametrize(
    ("name", "key", "value", "said"),
    [
        ("multi_loss", "weight", -0.5, "greater than or equal to 0"),
        ("ogm_ge", "alpha", "0.3", "without quotes"),
        ("ogm_ge", "until", 1.5, "less than or equal to 1"),
        ("ogm_ge", "noise", 1, "write true or false"),
        ("agm", "alpha", float("inf"), "no settings"),
        ("agm", "beta", 1.0, "unknown; known: alpha"),
    ],
)
def test_a_setting_that_cannot_be_is_refused_by_its_key(name, key, value, said):
    with pytest.raises(ParamsError, match=rf"mitigation_settings\.{name}\.{key}.*{said}"):
        make_mitigation(name, {key: value})

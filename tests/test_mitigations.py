import dataclasses

import pytest
import torch
from torch.nn.functional import cross_entropy

from mindgap.evaluation import evaluate
from mindgap.gpu import Engine
from mindgap.mitigations import MITIGATIONS, Mitigation, Step
from mindgap.mitigations.moddrop import ModDrop
from mindgap.models import FUSIONS
from mindgap.models.network import ModelSpec, build_model, place
from mindgap.training import Steps, fit
from test_training import RECIPE


def masks(n: int, modalities: int, seed: int = 0) -> torch.Tensor:
    present = torch.rand((n, modalities), generator=torch.Generator().manual_seed(seed)) < 0.6
    present[~present.any(dim=1), 0] = True
    return present


@pytest.mark.parametrize("name", MITIGATIONS)
@pytest.mark.parametrize("modalities", [2, 3, 4])
def test_every_mitigation_keeps_at_least_one_present_modality_and_adds_none(name, modalities):
    present = masks(500, modalities)
    kept = MITIGATIONS[name]().drop(present, torch.Generator().manual_seed(1))
    assert kept.dtype == torch.bool
    assert kept.any(dim=1).all()
    assert not (kept & ~present).any()


def test_moddrop_drops_at_its_rate_and_repairs_with_a_fair_choice():
    n, rate = 40_000, 0.5
    kept = ModDrop(rate).drop(torch.ones(n, 2, dtype=torch.bool), torch.Generator().manual_seed(0))
    both = kept.all(dim=1).double().mean().item()
    left = (kept[:, 0] & ~kept[:, 1]).double().mean().item()
    # P(complete) = (1 - q)^2 = 0.25; each single modality q (1 - q) + q^2 / 2 = 0.375
    assert both == pytest.approx(0.25, abs=0.01)
    assert left == pytest.approx(0.375, abs=0.01)


def test_moddrop_at_rate_zero_drops_nothing():
    present = masks(50, 3)
    assert torch.equal(ModDrop(0.0).drop(present, torch.Generator()), present)


def test_moddrop_at_rate_one_leaves_one_modality_each():
    present = masks(50, 3)
    kept = ModDrop(1.0).drop(present, torch.Generator())
    assert not (kept & ~present).any()
    assert torch.equal(kept.sum(dim=1), present.any(dim=1).long())


@pytest.mark.parametrize("rate", [-0.1, 1.1])
def test_an_impossible_rate_is_refused(rate):
    with pytest.raises(ValueError, match=r"mitigation_settings\.moddrop\.rate"):
        ModDrop(rate)


# -- the contract


class Probe(Mitigation):
    """A head and a loss for each modality, trained along with the model; writes down what it saw."""

    def start(self, model, epochs):
        self.calls, self.rows, self.epochs = [], 0, []
        width, classes = model.spec.width, model.head.out_features
        self.heads = torch.nn.ModuleList(torch.nn.Linear(width, classes) for _ in model.modalities)
        self.first = [p.detach().clone() for p in self.heads.parameters()]
        return self.heads

    def start_epoch(self, model, epoch):
        self.epochs.append(epoch)

    def loss(self, step):
        self.calls.append("loss")
        assert step.epoch == self.epochs[-1]
        self.rows += int(step.weight.sum())
        assert torch.equal(step.ids[step.weight == 0], torch.zeros_like(step.ids[step.weight == 0]))
        losses = {"all": super().loss(step)}
        for m, head in enumerate(self.heads):
            per_sample = cross_entropy(head(step.tokens[:, m]), step.labels, reduction="none")
            losses[f"head {m}"] = step.mean(per_sample, step.present[:, m].float() + 1e-6)
        everything = step.logits_of(torch.ones(step.present.shape[1], dtype=torch.bool))
        assert torch.equal(everything, step.logits)
        return losses

    def gradients(self, step, gradients):
        self.calls.append("gradients")
        assert list(gradients) == ["all", "head 0", "head 1"]
        names = [name for name, _ in step.model.named_parameters()]
        assert {len(one) for one in gradients.values()} == {len(names) + 4}
        of_all = dict(zip(names, gradients["all"], strict=False))
        assert of_all["head.weight"].any()
        assert not any(one.any() for one in gradients["all"][len(names) :])
        return super().gradients(step, gradients)

    def after_step(self, step):
        self.calls.append("after_step")


@pytest.mark.parametrize("pad", [False, True])
def test_hooks_are_called_in_order_with_all_that_a_step_has(make_dataset, pad):
    dataset, probe, ids = make_dataset(), Probe(), torch.arange(160)
    model = build_model(dataset.modalities, dataset.num_classes, ModelSpec(width=16), seed=0)
    model = place(model, Engine(torch.device("cpu"), pad, record=False), RECIPE.batch_size)
    result = fit(model, dataset.train, ids[:90], ids[90:], RECIPE, probe, (0,), "here")
    assert probe.calls == ["loss", "gradients", "after_step"] * result.steps
    assert probe.epochs == list(range(RECIPE.epochs))
    assert probe.rows == 90 * RECIPE.epochs
    now = list(probe.heads.parameters())
    assert all(not torch.equal(a, b) for a, b in zip(now, probe.first, strict=True))
    again = Probe()
    torch.rand(3)
    Steps.of(model, RECIPE, again, (0,))  # its weights are of the training's own stream
    assert all(map(torch.equal, again.first, probe.first))


def test_the_mean_of_a_step_leaves_filling_rows_out_and_weighs_the_others():
    weight, values = torch.tensor([1.0, 1, 1, 0]), torch.tensor([1.0, 2, 6, 100])
    step = Step(*[None] * 8, weight)
    assert step.mean(values) == 3
    assert step.mean(values, torch.tensor([2.0, 0, 2, 7])) == 3.5


def test_a_gradient_hook_decides_what_the_optimiser_gets(make_dataset):
    class Frozen(Mitigation):
        def gradients(self, step, gradients):
            (only,) = gradients.values()
            return [torch.zeros_like(g) for g in only]

    dataset, ids = make_dataset(), torch.arange(160)
    model = build_model(dataset.modalities, dataset.num_classes, ModelSpec(width=16), seed=0)
    before = {name: value.clone() for name, value in model.named_parameters()}
    recipe = dataclasses.replace(RECIPE, weight_decay=0.0)
    fit(model, dataset.train, ids[:90], ids[90:], recipe, Frozen(), (0,), "here")
    assert all(torch.equal(before[name], value) for name, value in model.named_parameters())


def test_a_fusion_may_say_how_reliable_each_modality_is(make_dataset, monkeypatch):
    """Its own settings reach it, and its weights reach a mitigation."""

    class Gated(torch.nn.Module):
        def __init__(self, modalities, width, sharpness=1.0):
            super().__init__()
            self.gate, self.sharpness, self.out_features = torch.nn.Linear(width, 1), sharpness, width

        def forward(self, tokens, present):
            scores = self.gate(tokens).squeeze(-1) * self.sharpness
            weight = scores.masked_fill(~present, -1e9).softmax(1) * present
            return (tokens * weight.unsqueeze(-1)).sum(1), weight

    class Watching(Mitigation):
        def loss(self, step):
            assert step.reliability.shape == step.present.shape
            assert torch.allclose(step.reliability.sum(1), torch.ones(len(step.present)))
            seen.append(step.model.fusion.sharpness)
            return super().loss(step) + 0.01 * step.reliability.square().mean()

    seen = []
    monkeypatch.setitem(FUSIONS, "gated", Gated)
    dataset, ids = make_dataset(), torch.arange(160)
    spec = ModelSpec(fusion={"name": "gated", "sharpness": 3.0}, width=16)
    model = build_model(dataset.modalities, dataset.num_classes, spec, seed=0)
    fit(model, dataset.train, ids[:90], ids[90:], RECIPE, Watching(), (0,), "here")
    assert set(seen) == {3.0}
    assert evaluate(model, dataset.test, "here")["left+right"]["n"] == 64

import dataclasses
import itertools
import math
from collections import Counter

import pytest
import torch
from scipy.stats import binomtest
from torch.nn.functional import cross_entropy

from mindgap.base.errors import ParamsError
from mindgap.base.gpu import Engine
from mindgap.core.evaluation import encode, predict_subsets
from mindgap.core.network import ModelSpec, build_model, place
from mindgap.core.training import Steps, fit
from mindgap.parts.fusions import FUSIONS
from mindgap.parts.mitigations import MITIGATIONS, Mitigation, Step, make_mitigation
from mindgap.parts.mitigations.moddrop import ModDrop
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


FORMS = ("independent", "exactly_one")


def probabilities(form: str, rate: float, present: tuple[int, ...]) -> dict[tuple[int, ...], float]:
    """How likely each set of modalities is kept, from the definition: `present` by their places."""
    chances = Counter({present: 0.0})
    if form == "exactly_one":
        chances[present] += 1 - rate
        for one in present:
            chances[(one,)] += rate / len(present)
        return chances
    for coins in itertools.product((True, False), repeat=len(present)):
        chance = math.prod(rate if dropped else 1 - rate for dropped in coins)
        kept = tuple(one for one, dropped in zip(present, coins, strict=True) if not dropped)
        for one in () if kept else present:
            chances[(one,)] += chance / len(present)
        chances[kept] += chance if kept else 0.0
    return chances


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("rate", [0.0, 0.3, 0.5, 1.0])
@pytest.mark.parametrize("present", [(0, 1), (1,), (0, 1, 2), (0, 2), (2,)])
def test_moddrop_keeps_each_set_of_modalities_as_often_as_its_form_says(form, rate, present):
    """By the exact binomial test of each set; two modalities, and three of which some are absent."""
    n, modalities = 20_000, 3 if 2 in present or len(present) == 3 else 2
    present_NM = torch.zeros(n, modalities, dtype=torch.bool)
    present_NM[:, list(present)] = True
    kept_NM = ModDrop(rate, form).drop(present_NM, torch.Generator().manual_seed(0))
    found = Counter(tuple(row.nonzero().flatten().tolist()) for row in kept_NM)
    chances = probabilities(form, rate, present)
    assert sum(chances.values()) == pytest.approx(1)
    assert set(found) <= {kept for kept, chance in chances.items() if chance}
    for kept, chance in chances.items():
        assert binomtest(found[kept], n, min(chance, 1.0)).pvalue > 1e-4, (kept, chance, found[kept] / n)


def test_moddrop_is_independent_unless_told_otherwise_with_the_draws_it_always_had():
    present = masks(6, 3)
    kept = make_mitigation("moddrop", {"rate": 0.5}).drop(present, torch.Generator().manual_seed(1))
    assert kept.int().tolist() == [[1, 0, 0], [1, 0, 0], [0, 0, 1], [0, 1, 1], [1, 0, 0], [1, 0, 0]]
    assert torch.equal(ModDrop(0.5, "independent").drop(present, torch.Generator().manual_seed(1)), kept)


@pytest.mark.parametrize("form", FORMS)
def test_moddrop_keeps_at_least_one_present_modality_and_adds_none(form):
    present = masks(500, 3)
    present[::7] = False  # rows that only fill a batch
    for rate, counts in ((0.0, present.sum(dim=1)), (0.4, None), (1.0, present.any(dim=1).long())):
        kept = ModDrop(rate, form).drop(present, torch.Generator().manual_seed(2))
        assert not (kept & ~present).any()
        assert torch.equal(kept.any(dim=1), present.any(dim=1))
        assert counts is None or torch.equal(kept.sum(dim=1), counts)


@pytest.mark.parametrize("rate", [-0.1, 1.1])
def test_an_impossible_rate_is_refused(rate):
    with pytest.raises(ValueError, match=r"mitigation_settings\.moddrop\.rate"):
        ModDrop(rate)


def test_an_unknown_form_is_refused_with_those_there_are():
    with pytest.raises(ValueError, match=r"form must be one of independent, exactly_one, not 'one'"):
        ModDrop(0.5, "one")
    with pytest.raises(ParamsError, match=r"moddrop\.form: .*'exactly_one' \(given: 'one'\)"):
        make_mitigation("moddrop", {"rate": 0.5, "form": "one"})


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
    test = dataset.test
    seen = predict_subsets(model, encode(model, test), test.present_NM, test.y_N, "here")
    assert len(seen["left+right"].y_K) == 64

import dataclasses
import math

import pytest
import torch

from mindgap.base.errors import DivergenceError
from mindgap.base.modality import Modality
from mindgap.core.batches import Recipe, epoch_batches
from mindgap.core.network import ModelSpec, build_model
from mindgap.core.training import fit, parameter_groups, validation
from mindgap.parts.mitigations import MITIGATIONS, Mitigation

RECIPE = Recipe(
    epochs=8,
    batch_size=16,
    learning_rate=0.1,
    weight_decay=5e-4,
    augmentation="none",
    class_balanced=False,
    momentum=0.9,
    warmup_epochs=1,
    min_samples_per_epoch=64,
    validate_from=0.5,
)


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def trained(dataset, recipe=RECIPE, mitigation=None, seed=0, labelled=96):
    spec = ModelSpec(width=16, head_dropout=0.25)
    model = build_model(dataset.modalities, dataset.num_classes, spec, seed=0)
    ids = torch.arange(len(dataset.train))
    mitigation = mitigation or Mitigation()
    result = fit(
        model, dataset.train, ids[:labelled], ids[labelled:], recipe, mitigation, (seed,), "blobs-low"
    )
    return model, result


@pytest.mark.parametrize("mitigation", MITIGATIONS)
def test_a_model_learns_an_easy_task_and_ends_at_its_best_epoch(make_dataset, mitigation):
    dataset = make_dataset(classes=2)
    model, result = trained(dataset, mitigation=MITIGATIONS[mitigation]())
    assert result.best_validation > 0.9
    assert result.best_epoch >= 3
    assert result.steps == 8 * 6
    score, broken = validation(model, dataset.train, torch.arange(96, 160))
    assert (score.item(), broken.item()) == (result.best_validation, 0)


def test_the_same_stream_gives_the_same_weights_bit_for_bit(make_dataset):
    dataset = make_dataset()
    torch.manual_seed(1)
    first, _ = trained(dataset, dataclasses.replace(RECIPE, epochs=2, augmentation="basic"))
    torch.manual_seed(2)
    second, _ = trained(dataset, dataclasses.replace(RECIPE, epochs=2, augmentation="basic"))
    third, _ = trained(dataset, dataclasses.replace(RECIPE, epochs=2, augmentation="basic"), seed=5)
    states = [m.state_dict() for m in (first, second, third)]
    assert all(torch.equal(states[0][k], states[1][k]) for k in states[0])
    assert not torch.equal(states[0]["head.weight"], states[2]["head.weight"])


def test_the_default_random_state_is_left_alone(make_dataset):
    before = torch.get_rng_state()
    trained(make_dataset(), dataclasses.replace(RECIPE, epochs=1))
    assert torch.equal(torch.get_rng_state(), before)


def test_a_loss_that_is_not_finite_stops_with_dataset_and_epoch(make_dataset):
    class Broken(Mitigation):
        def loss(self, step):
            return super().loss(step) * float("nan")

    with pytest.raises(DivergenceError, match=r"blobs-low, epoch 0: the loss is nan.*learning rate"):
        trained(make_dataset(), mitigation=Broken())


def test_predictions_that_are_not_finite_stop_with_dataset_and_epoch(make_dataset):
    class Poison(Mitigation):
        def after_step(self, step):
            step.model.encoders["left"].stages[1].running_var.fill_(float("nan"))

    with pytest.raises(
        DivergenceError, match=r"blobs-low, epoch 3, validation: \d+ of 64 predictions .*min_present"
    ):
        trained(make_dataset(), mitigation=Poison())


def test_learning_rate_warms_up_linearly_and_ends_at_zero():
    recipe = dataclasses.replace(RECIPE, epochs=60, warmup_epochs=10, learning_rate=0.1)
    assert [recipe.rate(epoch) for epoch in (5, 10, 35, 60)] == pytest.approx([0.05, 0.1, 0.05, 0.0])
    assert dataclasses.replace(recipe, warmup_epochs=0).rate(0) == pytest.approx(0.1)


def test_warm_up_as_long_as_the_training_is_no_division_by_zero():
    assert math.isfinite(dataclasses.replace(RECIPE, epochs=3, warmup_epochs=3).rate(3))


def test_an_epoch_is_a_permutation_cycled_to_its_minimum():
    labelled, y = torch.arange(100, 110), torch.zeros(200, dtype=torch.long)
    recipe = dataclasses.replace(RECIPE, min_samples_per_epoch=25, batch_size=8)
    batches = [labelled[rows] for rows in epoch_batches(y[labelled], recipe, rng())]
    assert [len(b) for b in batches] == [8, 8, 8, 1]
    counts = torch.cat(batches).bincount()[100:]
    assert set(counts.tolist()) == {2, 3}
    whole = list(epoch_batches(y[labelled], dataclasses.replace(recipe, min_samples_per_epoch=0), rng()))
    assert torch.cat(whole).sort().values.tolist() == list(range(10))


@pytest.mark.parametrize(("labelled", "sizes"), [(3, [3]), (8, [8]), (10, [8]), (16, [8, 8]), (23, [8, 8])])
@pytest.mark.parametrize("balanced", [False, True])
def test_drop_last_leaves_no_small_batch_but_an_only_one(labelled, sizes, balanced):
    kept = {"min_samples_per_epoch": 0, "batch_size": 8, "class_balanced": balanced}
    recipe = dataclasses.replace(RECIPE, drop_last=True, **kept)
    rows = list(epoch_batches(torch.arange(labelled) % 2, recipe, rng()))
    assert list(map(len, rows)) == sizes
    assert recipe.batches_per_epoch(labelled) == len(sizes)
    if not balanced:
        assert torch.cat(rows).unique().numel() == sum(sizes)


def test_class_balanced_draws_make_a_rare_class_as_frequent():
    y = torch.cat([torch.zeros(95), torch.ones(5)]).long()
    recipe = dataclasses.replace(RECIPE, min_samples_per_epoch=4000, class_balanced=True, batch_size=4000)
    (batch,) = epoch_batches(y, recipe, rng())
    assert y[batch].double().mean().item() == pytest.approx(0.5, abs=0.03)


@pytest.mark.parametrize("encoder", ["tiny", "efficientnet_b0"])
def test_biases_and_norms_are_not_decayed(encoder):
    spec = ModelSpec(encoder={"image": {"name": encoder}})
    model = build_model({"a": Modality("image", (32, 32, 3))}, 5, spec, seed=0)
    decayed, free = parameter_groups(model, 0.1)
    names = {id(p): n for n, p in model.named_parameters()}
    norms = {
        id(p)
        for module in model.modules()
        if isinstance(module, torch.nn.BatchNorm2d | torch.nn.LayerNorm)
        for p in module.parameters()
    }
    assert {id(p) for p in free["params"]} >= norms
    assert not [names[id(p)] for p in decayed["params"] if names[id(p)].endswith("bias")]
    assert len(decayed["params"]) + len(free["params"]) == len(names)
    assert (decayed["weight_decay"], free["weight_decay"]) == (0.1, 0.0)

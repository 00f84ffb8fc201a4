from pathlib import Path

import pytest
import torch

from mindgap.base.modality import Modality
from mindgap.core.loop import model_spec
from mindgap.core.network import REST, ModelSpec, build_model
from mindgap.core.params import load_params
from mindgap.parts.encoders import ENCODERS

ROOT = Path(__file__).parents[1]
MODALITIES = {
    "one": Modality("image", (32, 32, 3)),
    "two": Modality("image", (32, 32, 1)),
    "three": Modality("image", (32, 32, 3)),
}


def images(n: int, modalities=MODALITIES, seed: int = 0) -> dict[str, torch.Tensor]:
    rng = torch.Generator().manual_seed(seed)
    return {k: torch.randint(0, 256, (n, *m.shape), generator=rng).byte() for k, m in modalities.items()}


FUSION = {"name": "transformer", "heads": 2, "feedforward": 32}


def net(**spec):
    return build_model(MODALITIES, 5, ModelSpec(fusion=FUSION, width=16, head_dropout=0.0, **spec), seed=3)


@pytest.mark.parametrize("encoder", ENCODERS["image"])
@pytest.mark.parametrize("channels", [1, 3])
def test_every_encoder_takes_stored_images_of_one_or_three_channels(encoder, channels):
    module = ENCODERS["image"][encoder]((32, 32, channels)).eval()
    x = torch.randint(0, 256, (2, 32, 32, channels)).byte()
    assert module(module.prepare(x)).shape == (2, module.out_features)


def test_tokens_of_absent_modalities_are_zero_and_of_present_ones_do_not_depend_on_them():
    model, x = net().eval(), images(6)
    present = torch.tensor([[1, 0, 1], [1, 1, 1], [0, 1, 0], [1, 1, 0], [0, 0, 1], [1, 0, 0]]).bool()
    tokens, complete = model.encode(x, present), model.encode(x, torch.ones(6, 3, dtype=torch.bool))
    assert tokens[~present].abs().sum() == 0
    assert torch.allclose(tokens[present], complete[present], atol=1e-5)


def test_absent_images_enter_neither_batch_statistics_nor_gradients():
    x, present = images(8), torch.ones(8, 3, dtype=torch.bool)
    present[4:, 0] = False
    poisoned = {**x, "one": x["one"].clone()}
    poisoned["one"][4:] = 255
    states = []
    for inputs in (x, poisoned):
        model = net().train()
        model(inputs, present).sum().backward()
        grads = {k: p.grad for k, p in model.named_parameters() if p.grad is not None}
        states.append({**model.state_dict(), **grads})
    assert all(torch.equal(states[0][k], states[1][k]) for k in states[0])


def test_zeros_for_absent_enter_batch_statistics_and_mask_nothing():
    x, present = images(8), torch.ones(8, 3, dtype=torch.bool)
    present[4:, 0] = False
    skip, zeros = net(absent="skip").train(), net(absent="zeros").train()
    skip(x, present), zeros(x, present)
    mean = "encoders.one.stages.1.running_mean"
    assert not torch.allclose(skip.state_dict()[mean], zeros.state_dict()[mean])
    # In evaluation, taking a modality away is the same as feeding the encoder zeros in its place.
    zeros.eval()
    without = torch.tensor([False, True, True]).expand(8, 3)
    direct = zeros.fuse(zeros.encode(x, without), without)
    later = zeros.fuse(zeros.encode(x, torch.ones_like(without)), without)
    assert torch.allclose(direct, later, atol=1e-5)


@pytest.mark.parametrize(("rows", "sits_out"), [(1, True), (2, True), (3, False)])
def test_a_modality_of_which_a_batch_has_too_few_rows_sits_the_step_out(rows, sits_out):
    model, x = net(min_present=3).train(), images(5)
    present = torch.ones(5, 3, dtype=torch.bool)
    present[rows:, 0] = False
    model(x, present).sum().backward()
    assert (model.encoders["one"].stages[0].weight.grad is None) == sits_out
    assert (model.state_dict()["encoders.one.stages.1.num_batches_tracked"] == 0) == sits_out
    # In evaluation one row is as good as many.
    model.eval()
    assert torch.allclose(
        model(x, present)[0], model({k: v[:1] for k, v in x.items()}, present[:1])[0], atol=1e-5
    )


def test_few_rows_of_a_deep_encoder_leave_finite_predictions():
    pair = dict.fromkeys(("rare", "frequent"), Modality("image", (32, 32, 3)))
    x = images(24, pair)
    present = torch.ones(24, 2, dtype=torch.bool)
    present[2:, 0] = False
    spec = ModelSpec(
        encoder={"image": {"name": "efficientnet_b0"}}, width=16, head_dropout=0.0, min_present=8
    )
    model = build_model(pair, 5, spec, seed=0).train()
    model.draw({"rare": torch.arange(2), "frequent": torch.arange(24)})
    optimiser = torch.optim.SGD(model.parameters(), lr=0.1)
    for _ in range(4):
        loss = torch.nn.functional.cross_entropy(model(x, present), torch.arange(24) % 5)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    assert model.eval()(x, torch.tensor([True, False]).expand(24, 2)).isfinite().all()


def test_a_modality_nobody_in_the_batch_has_is_no_error():
    model, x = net().train(), images(4)
    present = torch.ones(4, 3, dtype=torch.bool)
    present[:, 1] = False
    model(x, present).sum().backward()
    assert model.encoders["two"].stages[0].weight.grad is None


def test_a_subset_is_a_fusion_pass_of_the_same_tokens():
    model, x = net().eval(), images(4)
    keep = torch.tensor([True, False, True]).expand(4, 3)
    complete = model.encode(x, torch.ones(4, 3, dtype=torch.bool))
    assert torch.allclose(model(x, keep), model.classify(model.fuse(complete, keep)), atol=1e-5)


def test_initial_weights_follow_the_seed_and_nothing_else():
    torch.manual_seed(1)
    first = net().state_dict()
    torch.manual_seed(2)
    torch.rand(5)
    state = torch.get_rng_state()
    second = net().state_dict()
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(first[k], second[k]) for k in first)


def samples_of_every_kind(n: int) -> tuple[dict[str, Modality], dict[str, torch.Tensor]]:
    modalities = {
        "photo": Modality("image", (32, 32, 3)),
        "text": Modality("tokens", (12,)),
        "labs": Modality("table", (50,)),
        "ecg": Modality("signal", (12, 500)),
    }
    rng = torch.Generator().manual_seed(1)
    x = {name: stored(modality, n, rng) for name, modality in modalities.items()}
    return modalities, x


@pytest.mark.parametrize("absent", ["skip", "zeros"])
def test_modalities_of_every_kind_meet_in_one_model(absent):
    modalities, x = samples_of_every_kind(6)
    present = torch.ones(6, 4, dtype=torch.bool)
    present[:3, 1] = present[2:, 3] = False
    spec = ModelSpec(fusion=FUSION, width=16, head_dropout=0.0, absent=absent)
    model = build_model(modalities, 3, spec, seed=0).train()
    model(x, present).sum().backward()
    assert all(p.grad is not None for p in model.parameters())
    logits = model.eval()(x, present)
    assert logits.shape == (6, 3)
    assert logits.isfinite().all()
    # What an absent modality holds means nothing.
    other = {**x, "text": x["text"].clone(), "ecg": x["ecg"].clone()}
    other["text"][:3], other["ecg"][2:] = 7, 0.5
    assert torch.allclose(model(other, present), logits, atol=1e-5)
    # Taking a modality away afterwards is the same as its absence, whatever its kind.
    tokens = model.encode(x, torch.ones(6, 4, dtype=torch.bool))
    assert torch.allclose(model.classify(model.fuse(tokens, present)), logits, atol=1e-5)


def test_the_encoder_of_a_kind_gets_its_own_settings():
    spec = ModelSpec(encoder={"image": {"name": "tiny", "widths": (4, 8)}}, width=16)
    model = build_model({"photo": Modality("image", (32, 32, 3))}, 3, spec, seed=0)
    assert model.encoders["photo"].out_features == 8


PAPER_SHAPES = {
    "share": {"cifar10": Modality("image", (32, 32, 3)), "mnist": Modality("image", (32, 32, 1))},
    "food101": {"image": Modality("image", (224, 224, 3)), "text": Modality("tokens", (128,))},
    "mimic": {"ecg": Modality("signal", (12, 1000)), "bloodlabs": Modality("table", (50,))},
}


@pytest.mark.parametrize("dataset", PAPER_SHAPES)
def test_the_papers_models_train_a_step_on_what_the_real_datasets_hold(dataset):
    params = load_params(ROOT / "params.yaml").model_copy(update={"scale": "paper"})
    setting = params.setting(dataset, "low")
    modalities, rng = PAPER_SHAPES[dataset], torch.Generator().manual_seed(0)
    x = {name: stored(modality, 8, rng) for name, modality in modalities.items()}
    model = build_model(modalities, 2, model_spec(setting), seed=0).train()
    model.draw(dict.fromkeys((*modalities, REST), torch.arange(8)))
    assert model.projections[next(iter(modalities))][2].p == (0.1 if dataset == "mimic" else 0.0)
    loss = torch.nn.functional.cross_entropy(model(x, torch.ones(8, 2).bool()), torch.arange(8) % 2)
    loss.backward()
    assert loss.isfinite()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())


def stored(modality: Modality, n: int, rng: torch.Generator) -> torch.Tensor:
    """Random samples in the form in which a dataset holds them."""
    shape = (n, *modality.shape)
    if modality.kind in ("image", "tokens"):
        high, dtype = (256, torch.uint8) if modality.kind == "image" else (30522, torch.int32)
        return torch.randint(1, high, shape, generator=rng).to(dtype)
    values = torch.rand(shape, generator=rng)
    return values if modality.kind == "table" else (2 * values - 1).half()

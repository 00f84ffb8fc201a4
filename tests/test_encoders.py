"""Encoders of tokens, tables and signals; those of images are in test_models.py."""

import socket

import pytest
import torch
from torch import nn
from torchvision.models import efficientnet_b0
from torchvision.models.efficientnet import MBConv as TorchvisionMBConv
from torchvision.models.efficientnet import _efficientnet_conf

from mindgap.base.gpu import nobody_waits
from mindgap.base.hosted import StochasticDepth, draw, dropping, hosted
from mindgap.base.minilm import minilm_folder
from mindgap.parts.encoders.signal import EfficientNet1dB0, MBConv, TinySignal
from mindgap.parts.encoders.table import TableMLP
from mindgap.parts.encoders.text import BagOfTokens, MiniLM, trimmed

# Encoder, shape of a stored sample, settings.
CASES = {
    "bag": (BagOfTokens, (12,), {"vocabulary": 500, "width": 8}),
    "minilm": (MiniLM, (12,), {}),
    "minilm_random": (MiniLM, (12,), {"pretrained": False}),
    "mlp": (TableMLP, (50,), {}),
    "tiny_signal": (TinySignal, (12, 1000), {}),
    "efficientnet1d_b0": (EfficientNet1dB0, (12, 250), {}),
}
cases = pytest.mark.parametrize("case", CASES)


def built(case: str, seed: int = 0) -> nn.Module:
    encoder, shape, settings = CASES[case]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return hosted(encoder(shape, **settings)).eval()


def with_draws(module: nn.Module, rows: int) -> nn.Module:
    """In training, with draws for so many rows."""
    draw(dropping(module), torch.arange(rows) * 1234567)
    return module.train()


def stored(case: str, count: int, seed: int = 0) -> torch.Tensor:
    """Samples as they lie in a dataset; texts of 2 tokens and more, one of full length."""
    _, shape, _ = CASES[case]
    rng = torch.Generator().manual_seed(seed)
    if len(shape) == 2:
        return torch.randn(count, *shape, generator=rng).half()
    if shape == (50,):
        return torch.rand(count, *shape, generator=rng)
    length_B1 = torch.randint(2, shape[0] + 1, (count, 1), generator=rng)
    length_B1[0] = shape[0]
    ids_BL = torch.randint(1, 500, (count, *shape), generator=rng, dtype=torch.int32)
    return ids_BL.masked_fill(torch.arange(shape[0]) >= length_B1, 0)


# -- what every encoder does


@cases
def test_stored_samples_become_features(case):
    module, x = built(case), stored(case, 3)
    prepared = module.prepare(x)
    assert prepared.dtype == (torch.int64 if x.dtype == torch.int32 else torch.float32)
    out = module(prepared)
    assert out.shape == (3, module.out_features)
    assert out.dtype == torch.float32
    assert out.isfinite().all()


@cases
def test_a_gradient_reaches_every_parameter(case):
    module = with_draws(built(case), 8)
    torch.manual_seed(0)
    out = module(module.prepare(stored(case, 8)))
    (out * torch.randn(out.shape)).sum().backward()
    for name, parameter in module.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        # Attention does not change when all keys move alike: the gradient of their bias is 0.
        assert parameter.grad.any() or name.endswith("key.bias"), name


@cases
def test_evaluation_is_deterministic_and_a_row_does_not_depend_on_the_others(case):
    module, x = built(case), stored(case, 5)
    with torch.no_grad():
        together = module(module.prepare(x))
        assert torch.equal(together, module(module.prepare(x)))
        alone = torch.cat([module(module.prepare(row)) for row in x.split(1)])
    assert torch.allclose(together, alone, atol=1e-5)


@cases
def test_zeros_are_finite_in_training_and_evaluation(case):
    module, x = built(case), stored(case, 4)
    prepared = module.prepare(x) * torch.tensor([0, 1, 1, 0]).view(-1, *[1] * (x.dim() - 1))
    for rows in (prepared, prepared * 0):
        assert module.eval()(rows).isfinite().all()
        with_draws(module, 4)(rows).sum().backward()
    assert all(p.grad.isfinite().all() for p in module.parameters())


@cases
def test_weights_are_restored_from_their_state(case):
    module, other, x = built(case), built(case, seed=1), stored(case, 3)
    with_draws(module, 3)(module.prepare(x))  # so that running statistics count
    other.load_state_dict(module.state_dict())
    with torch.no_grad():
        assert torch.equal(module.eval()(module.prepare(x)), other(other.prepare(x)))


@cases
def test_initial_weights_follow_the_seed(case):
    one, same, two = (built(case, seed).state_dict() for seed in (0, 0, 1))
    assert all(torch.equal(one[name], same[name]) for name in one)
    assert all(torch.equal(one[name], two[name]) for name in one) == (case == "minilm")


@pytest.mark.parametrize(
    ("case", "settings", "message"),
    [
        ("bag", {"vocabulary": 0}, "vocabulary is 0: a whole number of at least 1"),
        ("bag", {"width": 1.5}, "width is 1.5: a whole number of at least 1"),
        ("minilm", {"pretrained": "no"}, "pretrained is 'no': true or false"),
        ("mlp", {"hidden": -1}, "hidden is -1: a whole number of at least 1"),
        ("tiny_signal", {"widths": []}, r"widths is \[\]: one whole number of at least 1 for each layer"),
        ("tiny_signal", {"widths": [8, 0]}, r"widths is \[8, 0\]: one whole number of at least 1 for each"),
    ],
)
def test_a_wrong_setting_is_named(case, settings, message):
    encoder, shape, _ = CASES[case]
    with pytest.raises(ValueError, match=message):
        encoder(shape, **settings)


@pytest.mark.gpu
@pytest.mark.parametrize("case", [case for case in CASES if case != "minilm"])  # no weights are needed there
def test_cuda_gives_the_same_features_without_waiting_and_the_same_gradients_twice(case, monkeypatch):
    monkeypatch.setattr(torch.backends.cudnn, "deterministic", True)
    x = stored(case, 6).cuda()
    exact = built(case).double()
    prepared = exact.prepare(x.cpu())
    prepared = prepared.double() if prepared.is_floating_point() else prepared
    with torch.no_grad():
        expected, there = exact(prepared), exact.cuda()(prepared.cuda())
    assert torch.allclose(expected, there.cpu(), atol=1e-4)  # MiniLM's mean is in single precision
    gradients = []
    for _ in range(2):
        module = built(case).cuda()
        draw(dropping(module), torch.arange(6, device="cuda"))
        module.train()
        with nobody_waits():
            out = module(module.prepare(x))
        out.square().sum().backward()
        gradients.append([p.grad for p in module.parameters()])
    assert all(torch.equal(one, two) for one, two in zip(*gradients, strict=True))


# -- tokens

TITLES = [
    "My Apple Pie Recipe",
    "Apple Pie from Scratch, the Old-Fashioned Way",
    "Crispy Belgian Waffles for Breakfast",
]


def tokens(titles: list[str], length: int) -> torch.Tensor:
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(minilm_folder(("tokenizer.json",)) / "tokenizer.json"))
    tokenizer.enable_padding(length=length)
    return torch.tensor([e.ids for e in tokenizer.encode_batch(titles)], dtype=torch.int32)


def test_minilm_is_the_published_encoder():
    from transformers import AutoModel
    from transformers.utils import logging

    logging.disable_progress_bar()
    folder = minilm_folder(("config.json", "model.safetensors"))
    published = AutoModel.from_pretrained(folder, local_files_only=True).eval()
    ours = MiniLM((64,)).eval()
    assert sum(p.numel() for p in published.parameters()) == 22_713_216
    assert sum(p.numel() for p in ours.parameters()) == 22_713_216 - (384 * 384 + 384)  # the pooler
    ids_BL = ours.prepare(tokens(TITLES, 64))
    real_BL = (ids_BL != 0).long()
    with torch.no_grad():
        states_BLD = published(input_ids=ids_BL, attention_mask=real_BL).last_hidden_state
        vectors_BD = ours(ids_BL)
    mean_BD = (states_BLD * real_BL[..., None]).sum(1) / real_BL.sum(1, keepdim=True)
    assert torch.allclose(vectors_BD, mean_BD, atol=1e-5)
    to_pie, to_waffles = nn.functional.cosine_similarity(vectors_BD[:1], vectors_BD[1:]).tolist()
    assert to_pie > 0.65
    assert to_waffles < 0.45


def test_minilm_is_built_in_silence_and_without_a_network(monkeypatch, capfd):
    def refused(*_):
        raise AssertionError("a connection was tried")

    monkeypatch.setattr(socket.socket, "connect", refused)
    MiniLM((64,))
    MiniLM((64,), pretrained=False)
    assert tuple(capfd.readouterr()) == ("", "")


def test_minilm_takes_no_texts_longer_than_its_positions():
    with pytest.raises(ValueError, match="texts of 513 tokens: all-MiniLM-L6-v2 reads up to 512"):
        MiniLM((513,), pretrained=False)


@pytest.mark.parametrize("case", ["bag", "minilm"])
def test_more_padding_leaves_the_vector(case):
    """The row of full length keeps the batch from being trimmed, so that masks have to do it."""
    module, ids_BL = built(case), built(case).prepare(stored(case, 6))
    padded_BL = nn.functional.pad(ids_BL, (0, 20))
    padded_BL[0] = 7
    with torch.no_grad():
        assert torch.allclose(module(ids_BL)[1:], module(padded_BL)[1:], atol=1e-5)


def test_trimming_takes_away_padding_and_nothing_else():
    ids_BL = torch.tensor([[5, 6, 0, 0], [7, 0, 0, 0]])
    assert trimmed(ids_BL).tolist() == [[5, 6], [7, 0]]
    assert trimmed(ids_BL * 0).tolist() == [[0], [0]]


def test_a_bag_does_not_know_the_order_of_its_tokens():
    module, ids_BL = built("bag"), torch.tensor([[3, 4, 4, 9, 0]])
    assert torch.allclose(module(ids_BL), module(ids_BL[:, [3, 1, 0, 2, 4]]), atol=1e-6)
    assert not torch.allclose(module(ids_BL), module(torch.tensor([[3, 4, 9, 0, 0]])), atol=1e-3)


# -- signals


def test_stages_are_torchvisions():
    rows = [block for block in built("efficientnet1d_b0").stages if isinstance(block, MBConv)]
    index = 0
    for stage in _efficientnet_conf("efficientnet_b0", width_mult=1.0, depth_mult=1.0)[0]:
        for repeat in range(stage.num_layers):
            block, depthwise = rows[index], rows[index].block[-3][0]
            wide = depthwise.in_channels
            assert depthwise.kernel_size == (1, stage.kernel)
            assert depthwise.stride == (1, 1 if repeat else stage.stride)
            assert depthwise.groups == wide
            width_in = stage.out_channels if repeat else stage.input_channels
            assert wide == width_in * stage.expand_ratio
            assert block.block[-2].weigh[0].out_channels == width_in // 4
            assert block.block[-1][0].out_channels == stage.out_channels
            index += 1
    assert index == len(rows)


def test_parameters_are_torchvisions_with_kernels_of_one_dimension():
    expected = 0
    for name, parameter in efficientnet_b0(weights=None).features.named_parameters():
        count = parameter.numel()
        if parameter.dim() == 4:
            count = count // parameter.shape[-1]
        expected += count // 3 * 12 if name == "0.0.weight" else count
    assert sum(p.numel() for p in built("efficientnet1d_b0").parameters()) == expected


def in_two_dimensions(ours: EfficientNet1dB0) -> nn.Module:
    """torchvision's network with our kernels in the middle row of its own, for images of height 1."""
    theirs = efficientnet_b0(weights=None)
    theirs.classifier = nn.Identity()
    stem = theirs.features[0][0]
    theirs.features[0][0] = nn.Conv2d(12, stem.out_channels, 3, 2, 1, bias=False)
    state = {}
    for (name, there), here in zip(theirs.state_dict().items(), ours.state_dict().values(), strict=True):
        state[name] = torch.zeros_like(there)
        target = state[name][:, :, there.shape[2] // 2, None] if there.dim() == 4 else state[name]
        target.copy_(here)
    theirs.load_state_dict(state)
    return hosted(theirs)


@pytest.mark.parametrize("training", [False, True])
def test_outputs_and_gradients_are_torchvisions_on_images_of_height_one(training):
    ours = built("efficientnet1d_b0").train(training)
    with torch.no_grad():
        for module in ours.modules():
            if isinstance(module, nn.BatchNorm2d):  # statistics that matter in evaluation too
                module.running_mean.normal_(0, 0.1)
                module.running_var.uniform_(0.5, 1.5)
                module.weight.uniform_(0.8, 1.2)
    ours.double()
    theirs = in_two_dimensions(ours).double().train(training)
    x_BCT = stored("efficientnet1d_b0", 4).double()
    outputs, stems = [], []
    for module, x in ((ours, x_BCT), (theirs, x_BCT[:, :, None])):
        draw([m for m in module.modules() if isinstance(m, StochasticDepth)], torch.arange(4) * 7777777)
        outputs.append(module(x))
        outputs[-1].square().sum().backward()
        stems.append(next(module.parameters()).grad)
    assert torch.allclose(*outputs, atol=1e-9)
    assert torch.allclose(stems[0], stems[1][:, :, 1, None], rtol=1e-6, atol=1e-9)
    assert stems[0].any()


def test_initial_weights_are_drawn_as_torchvisions_are():
    torch.manual_seed(0)
    ours, theirs = EfficientNet1dB0((12, 100)), efficientnet_b0(weights=None)
    for (name, here), there in zip(ours.named_parameters(), theirs.features.parameters(), strict=True):
        if here.dim() == 1:
            assert torch.equal(here, there), name
        else:
            fan_out = here.shape[0] * here.shape[-1]
            assert here.std().item() == pytest.approx((2 / fan_out) ** 0.5, rel=0.25), name
    rates = [b.stochastic_depth.p for b in theirs.modules() if isinstance(b, TorchvisionMBConv)]
    found = [b.stochastic_depth.p for b in ours.stages if isinstance(b, MBConv)]
    assert found == pytest.approx(rates)


def test_a_tiny_signal_output_sees_more_than_a_heart_beat():
    """1.4 s at 500 Hz: the samples on which one output of the middle depends."""
    module = TinySignal((1, 5000)).eval()
    x_BC1T = torch.randn(1, 1, 1, 5000, requires_grad=True)
    out_BC1T = module.stages(x_BC1T)
    out_BC1T[..., out_BC1T.shape[-1] // 2].sum().backward()
    (seen,) = x_BC1T.grad.flatten().nonzero(as_tuple=True)
    assert 600 < seen[-1] - seen[0] + 1 <= 681

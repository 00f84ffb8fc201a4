"""All that is random is drawn on the host, each purpose with its own stream; a step draws nothing."""

import dataclasses

import pytest
import torch
from torch import nn
from torch.nn import functional
from torch.utils._python_dispatch import TorchDispatchMode

from mindgap.base.errors import MindGapError
from mindgap.base.hosted import KEYS, Dropout, PartError, RowNorm, StochasticDepth, draw, dropping, hosted
from mindgap.base.settings import parameters
from mindgap.core import loop
from mindgap.core.batches import Batches
from mindgap.core.loop import initial_record, rounds
from mindgap.core.network import REST, ModelSpec, build_model
from mindgap.core.training import Steps, fit
from mindgap.parts.encoders import ENCODERS
from mindgap.parts.fusions import FUSIONS
from mindgap.parts.mitigations import MITIGATIONS, Mitigation
from test_loop import run_of
from test_models import samples_of_every_kind
from test_training import RECIPE


class Drawn(TorchDispatchMode):
    """Which operations draw; with `allowed` those that are given a generator of the host may."""

    def __init__(self, allowed: bool):
        super().__init__()
        self.allowed, self.names = allowed, []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if torch.Tag.nondeterministic_seeded in func.tags:
            generator = kwargs.get("generator")
            given = isinstance(generator, torch.Generator) and generator.device.type == "cpu"
            if not (self.allowed and given):
                self.names.append(str(func))
        return func(*args, **kwargs)


def test_what_draws_is_seen():
    with Drawn(allowed=True) as drawn:
        torch.rand(3, generator=torch.Generator())
        functional.dropout(torch.ones(3), 0.5)
        torch.randperm(4)
    assert len(drawn.names) == 2


ENCODER_NAMES = [(kind, name) for kind, table in ENCODERS.items() for name in table]


@pytest.mark.parametrize(
    ("kind", "encoder", "fusion"),
    [*((*names, "transformer") for names in ENCODER_NAMES), *(("image", "tiny", name) for name in FUSIONS)],
)
def test_no_operation_of_a_step_draws(kind, encoder, fusion):
    """Forward and backward, of each encoder and fusion with all that may be dropped."""
    modalities, x = samples_of_every_kind(6)
    settings = {"pretrained": False} if encoder == "minilm" else {}
    encoders = {**ModelSpec().encoder, kind: {"name": encoder, **settings}}
    own = {"dropout": 0.1} if "dropout" in parameters(FUSIONS[fusion], 2) else {}
    spec = ModelSpec(encoders, {"name": fusion, **own}, 16, projection_dropout=0.1, head_dropout=0.5)
    model = build_model(modalities, 3, spec, seed=0).train()
    assert not [
        m
        for m in model.modules()
        if type(m).__name__ in ("Dropout", "StochasticDepth") and not isinstance(m, Dropout | StochasticDepth)
    ]
    model.draw(dict.fromkeys((*modalities, REST), torch.arange(6)))
    with Drawn(allowed=False) as drawn:
        model(x, torch.ones(6, 4, dtype=torch.bool)).sum().backward()
    assert drawn.names == []


@pytest.mark.parametrize("query", ["bald", "badge"])
def test_nothing_in_a_run_draws_from_a_generator_of_torchs_own(make_dataset, monkeypatch, query):
    """Initial weights alone do, from one that is seeded for them and put back."""
    dataset, build = make_dataset(), loop.build_model
    drawn = Drawn(allowed=True)

    def built(*args):
        before = len(drawn.names)
        model = build(*args)
        del drawn.names[before:]
        return model

    monkeypatch.setattr(loop, "build_model", built)
    state = torch.get_rng_state()
    with drawn:
        initial, weights = initial_record(run_of(None), dataset)
        assert len(list(rounds(run_of(query), dataset, initial, weights))) == 3
    assert drawn.names == []
    assert torch.equal(torch.get_rng_state(), state)


def batches_of(dataset, mitigation: str) -> list:
    model = build_model(dataset.modalities, dataset.num_classes, ModelSpec(width=16), seed=0)
    recipe = dataclasses.replace(RECIPE, augmentation="randaugmc")
    batches = Batches(dataset.train, torch.arange(90), recipe, MITIGATIONS[mitigation](), model, (0,))
    return [batch for _ in range(2) for batch in batches.epoch()]


def test_mitigations_see_the_same_samples_augmented_alike(make_dataset):
    dataset = make_dataset(absent=0.2)
    pairs = list(zip(batches_of(dataset, "none"), batches_of(dataset, "moddrop"), strict=True))
    assert any(not torch.equal(plain.present_BM, dropped.present_BM) for plain, dropped in pairs)
    for plain, dropped in pairs:
        assert torch.equal(plain.ids_B, dropped.ids_B)
        assert torch.equal(plain.keys[REST], dropped.keys[REST])
        for name, rows in dropped.rows.items():
            among = torch.isin(plain.rows[name], rows)
            assert torch.equal(plain.x[name][among], dropped.x[name])
            assert torch.equal(plain.keys[name][among], dropped.keys[name])


def dropped(layer, x: torch.Tensor, keys: torch.Tensor) -> torch.Tensor:
    layer = nn.ModuleList([nn.Identity(), layer]).train()
    draw(dropping(layer), keys)
    return layer[1](x)


def keys_of(rows: int, seed: int = 0) -> torch.Tensor:
    return torch.randint(KEYS, (rows,), generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("p", [0.1, 0.5, 0.8])
def test_dropout_drops_at_its_rate_and_keeps_the_mean(p):
    out = dropped(Dropout(p), torch.ones(200, 40, 25), keys_of(200))
    assert out.unique().tolist() == pytest.approx([0, 1 / (1 - p)])
    spread = (p * (1 - p)) ** 0.5
    zero = (out == 0).double()
    assert zero.mean().item() == pytest.approx(p, abs=4 * spread / 200_000**0.5)
    for axes, n in (((1, 2), 1000), ((0, 2), 5000), ((0, 1), 8000)):
        assert (zero.mean(axes) - p).abs().max() < 5 * spread / n**0.5
    # Neighbours along each axis are as if independent.
    for axis in range(3):
        first, second = zero.narrow(axis, 0, zero.shape[axis] - 1), zero.narrow(axis, 1, zero.shape[axis] - 1)
        correlation = ((first - p) * (second - p)).mean() / (p * (1 - p))
        assert abs(correlation) < 5 / first.numel() ** 0.5
    rows = dropped(StochasticDepth(p), torch.ones(20_000, 2, 1, 1), keys_of(20_000))
    assert torch.equal(rows[:, 0], rows[:, 1])
    assert (rows == 0).double().mean().item() == pytest.approx(p, abs=5 * spread / 20_000**0.5)


def test_a_mask_belongs_to_its_row_layer_and_step_and_not_to_what_else_is_there():
    x, keys = torch.ones(6, 5, 7), keys_of(6)
    whole = dropped(Dropout(0.5), x, keys)
    some = torch.tensor([4, 1])
    assert torch.equal(dropped(Dropout(0.5), x[some], keys[some]), whole[some])
    assert torch.equal(dropped(Dropout(0.5), x[:, :3, :4], keys), whole[:, :3, :4])
    assert not torch.equal(dropped(Dropout(0.5), x, keys_of(6, seed=1)), whole)
    layers = nn.ModuleList(Dropout(0.5) for _ in range(2)).train()
    draw(dropping(layers), keys)
    assert not torch.equal(layers[0](x), layers[1](x))


def test_a_layer_without_draws_says_so_and_in_evaluation_needs_none():
    layer = Dropout(0.5)
    with pytest.raises(PartError, match=r"has no draws for this step: call mindgap\.base\.hosted\.draw"):
        layer(torch.ones(2, 3))
    assert torch.equal(layer.eval()(torch.ones(2, 3)), torch.ones(2, 3))


def test_parts_of_torch_get_their_twins_with_weights_and_statistics():
    module = nn.Sequential(nn.Linear(3, 4), nn.Sequential(nn.BatchNorm1d(4), nn.Dropout(0.3)))
    before = {name: value.data_ptr() for name, value in module.state_dict().items()}
    hosted(module)
    assert [type(m) for m in module[1]] == [RowNorm, Dropout]
    assert {name: value.data_ptr() for name, value in module.state_dict().items()} == before
    assert hosted(nn.BatchNorm2d(3)).num_features == 3


@pytest.mark.parametrize(
    "part",
    [
        nn.Dropout2d(0.1),
        nn.AlphaDropout(0.1),
        nn.RReLU(),
        nn.MultiheadAttention(4, 2, dropout=0.1),
        nn.TransformerEncoderLayer(4, 2, dropout=0.1),
        nn.LSTM(3, 3, num_layers=2, dropout=0.1),
        nn.BatchNorm1d(4, momentum=None),
        nn.BatchNorm1d(4, track_running_stats=False),
        nn.SyncBatchNorm(4),
    ],
    ids=lambda part: type(part).__name__,
)
def test_what_has_no_twin_is_refused_by_name(part):
    with pytest.raises(PartError, match=rf"^{type(part).__name__} cannot be part of a training step.*hosted"):
        hosted(nn.Sequential(part))


def test_a_hook_that_draws_by_itself_is_refused(make_dataset):
    class Noisy(Mitigation):
        def loss(self, step):
            return super().loss(step) * torch.rand(())

    dataset, ids = make_dataset(), torch.arange(160)
    model = build_model(dataset.modalities, dataset.num_classes, ModelSpec(width=16), seed=0)
    with pytest.raises(
        MindGapError, match=r"^here: a layer, or a hook of the mitigation, draws from torch's"
    ):
        fit(model, dataset.train, ids[:96], ids[96:], RECIPE, Noisy(), (0,), "here")
    assert Steps.of(model, RECIPE, Mitigation()).replay is None

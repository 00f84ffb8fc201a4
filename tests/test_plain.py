"""Trainings beside a brute force: torch's own batch norms, attention and SGD, on the rows that are there."""

import dataclasses
import math

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from mindgap.base.errors import MindGapError
from mindgap.base.gpu import Engine
from mindgap.base.hosted import Dropping
from mindgap.core.evaluation import encode, predict
from mindgap.core.network import ModelSpec, build_model, place
from mindgap.core.rng import stream_seed, torch_rng
from mindgap.core.training import fit
from mindgap.parts.encoders import make_encoder
from mindgap.parts.mitigations import Mitigation
from test_shapes import PADDED, PAIRS, RECIPE, model_of, samples

CLASSES, WIDTH, HEADS, LEAST = 4, 16, 2, 3
SMALL = ("tiny", "bag and tiny signal")


class Block(nn.Module):
    """A layer of the fusion, of torch's own parts."""

    def __init__(self):
        super().__init__()
        self.before_attention, self.before_feedforward = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
        self.attention = nn.MultiheadAttention(WIDTH, HEADS, batch_first=True)
        self.wide, self.narrow = nn.Linear(WIDTH, 16), nn.Linear(16, WIDTH)

    def forward(self, x, absent):
        y = self.before_attention(x)
        x = x + self.attention(y, y, y, key_padding_mask=absent, need_weights=False)[0]
        return x + self.narrow(nn.functional.gelu(self.wide(self.before_feedforward(x))))


class Plain(nn.Module):
    def __init__(self, modalities, encoders, absent):
        super().__init__()
        self.absent = absent
        self.encoders = nn.ModuleDict(
            {name: make_encoder(m.kind, m.shape, encoders[m.kind]) for name, m in modalities.items()}
        )
        for part in self.modules():
            if type(part).__name__ in ("Dropout", "StochasticDepth", "Dropping"):
                part.p = 0.0
        self.projections = nn.ModuleDict(
            {
                name: nn.Sequential(
                    nn.Linear(encoder.out_features, WIDTH), nn.GELU(), nn.Identity(), nn.Linear(WIDTH, WIDTH)
                )
                for name, encoder in self.encoders.items()
            }
        )
        self.modality_MD = nn.Parameter(torch.zeros(len(modalities), WIDTH))
        self.block, self.norm = Block(), nn.LayerNorm(WIDTH)
        self.head = nn.Linear(WIDTH, CLASSES)

    def forward(self, x, present):
        tokens = []
        for m, (name, encoder) in enumerate(self.encoders.items()):
            rows = torch.arange(len(present)) if self.absent == "zeros" else present[:, m].nonzero()[:, 0]
            column = torch.zeros(len(present), WIDTH, dtype=torch.float64)
            if len(rows):
                own = encoder.prepare(x[name][rows])
                own = own.double() if own.is_floating_point() else own
                if self.absent == "zeros":
                    own = own * present[:, m].view(-1, *[1] * (own.dim() - 1))
                column[rows] = self.projections[name](encoder(own))
            tokens.append(column)
        if self.absent == "zeros":
            present = torch.ones_like(present)
        out = torch.zeros(len(present), WIDTH, dtype=torch.float64)
        some = present.any(dim=1)
        if some.any():
            there = present[some]
            mixed = self.norm(self.block(torch.stack(tokens, 1)[some] + self.modality_MD, ~there))
            out[some] = (mixed * there[..., None]).sum(1) / there.sum(1, keepdim=True)
        return self.head(out)


def names_of(name: str) -> str:
    """What a weight of the model is called here."""
    for theirs, ours in (
        ("fusion.layers.0.query_key_value.weight", "block.attention.in_proj_weight"),
        ("fusion.layers.0.query_key_value.bias", "block.attention.in_proj_bias"),
        ("fusion.layers.0.out.", "block.attention.out_proj."),
        ("fusion.layers.0.", "block."),
        ("fusion.", ""),
    ):
        if name.startswith(theirs):
            return ours + name.removeprefix(theirs)
    return name


def plain_training(plain, split, labelled, recipe, key, absent):
    """Losses of each epoch, by definition."""
    decayed = [p for name, p in plain.named_parameters() if p.dim() > 1 and name != "modality_MD"]
    free = [p for name, p in plain.named_parameters() if p.dim() <= 1 or name == "modality_MD"]
    groups = [{"params": decayed, "weight_decay": recipe.weight_decay}, {"params": free, "weight_decay": 0.0}]
    optimiser = torch.optim.SGD(
        groups, lr=0.0, momentum=recipe.momentum, nesterov=recipe.momentum > 0, foreach=False
    )
    order, losses = torch_rng(*key, "order"), []
    for epoch in range(recipe.epochs):
        plain.train()
        batches = torch.randperm(len(labelled), generator=order).split(recipe.batch_size)
        total = 0.0
        for k, positions in enumerate(batches):
            ids = labelled[positions]
            present = split.present_NM[ids].clone()
            for m in range(present.shape[1]):
                if absent == "skip" and present[:, m].sum() < LEAST:
                    present[:, m] = False
            passed = epoch + (k + 0.5) / len(batches)
            rate = recipe.learning_rate * passed / recipe.warmup_epochs
            if passed >= recipe.warmup_epochs:
                share = (passed - recipe.warmup_epochs) / (recipe.epochs - recipe.warmup_epochs)
                rate = recipe.learning_rate * (1 + math.cos(math.pi * share)) / 2
            for group in optimiser.param_groups:
                group["lr"] = torch.tensor(rate).item()
            loss = cross_entropy(plain({n: x[ids] for n, x in split.x.items()}, present), split.y_N[ids])
            optimiser.zero_grad(set_to_none=True)
            loss.backward()
            optimiser.step()
            total += loss.item()
        losses.append(total / len(batches))
    return losses


@pytest.mark.parametrize("engine", [Engine.of("cpu"), PADDED], ids=["compact", "padded"])
@pytest.mark.parametrize(
    ("pair", "absent"), [*((pair, "skip") for pair in PAIRS), *((pair, "zeros") for pair in SMALL)]
)
def test_a_training_is_the_one_of_torchs_own_parts(pair, absent, engine):
    """Two epochs with a short last batch; the rare modality has too few rows in some of them.

    Where absence is zeros it is not so rare: a norm of equal rows alone makes numbers of rounding errors.
    """
    kinds, encoders = PAIRS[pair]
    modalities = dict(zip(("rare", "frequent"), kinds, strict=True))
    fusion = {"name": "transformer", "heads": HEADS, "feedforward": 16}
    spec = ModelSpec(encoders, fusion, WIDTH, head_dropout=0.0, absent=absent, min_present=LEAST)
    model = place(build_model(modalities, CLASSES, spec, seed=0).double(), engine, RECIPE.batch_size)
    for layer in model.modules():
        if isinstance(layer, Dropping):
            layer.p = 0.0
    plain = Plain(modalities, encoders, absent).double()
    for layer in plain.modules():
        assert not isinstance(layer, Dropping) or layer.p == 0
    plain.load_state_dict({names_of(name): value.clone() for name, value in model.state_dict().items()})
    split, ids = samples(modalities, 45, rare=0.25 if absent == "skip" else 0.6), torch.arange(45)
    labelled, key = ids[:31], ("plain",)
    recipe = dataclasses.replace(RECIPE, epochs=2, validate_from=1.0, learning_rate=1e-2)
    result = fit(model, split, labelled, ids[31:], recipe, Mitigation(), key, "here")
    losses = plain_training(plain, split, labelled, recipe, key, absent)
    assert result.losses == pytest.approx(losses, rel=1e-9)
    theirs = plain.state_dict()
    for name, value in model.state_dict().items():
        other = theirs[names_of(name)].double()
        assert (value - other).abs().max() <= 1e-9 * other.abs().max().clamp(min=1), name
    plain.eval()
    for keep in ([True, True], [True, False], [False, True]):
        present_NM = split.present_NM & torch.tensor(keep)
        with torch.no_grad():
            expected = plain(split.x, present_NM).softmax(dim=1)
        found = predict(model, encode(model, split, chunk=16), present_NM, chunk=16)
        assert torch.allclose(found.double(), expected, rtol=0, atol=1e-6)


def test_after_a_training_absence_is_what_the_best_weights_make_of_it():
    """Where absence is zeros: not what those of the last epoch made of it."""
    kinds, encoders = PAIRS["tiny"]
    modalities = dict(zip(("rare", "frequent"), kinds, strict=True))
    split, ids = samples(modalities, 60, rare=0.5), torch.arange(60)
    recipe = dataclasses.replace(RECIPE, epochs=4, learning_rate=0.2, validate_from=0.0)
    for seed in range(9):
        model = model_of(modalities, encoders, "zeros", None)
        best = fit(model, split, ids[:40], ids[40:], recipe, Mitigation(), (seed,), "here").best_epoch
        if best < 3:
            break
    assert best < 3
    found = predict(model, encode(model, split), split.present_NM)
    alone = model_of(modalities, encoders, "zeros", None)
    alone.load_state_dict(model.state_dict())
    assert torch.equal(found, predict(alone, encode(alone, split), split.present_NM))


def test_a_last_batch_of_one_sample_leaves_running_statistics_alone():
    """Where absence is zeros and a channel has one place: torch's batch norm refuses it."""
    kinds, encoders = PAIRS["tiny"]
    modalities = dict(zip(("rare", "frequent"), kinds, strict=True))
    split, ids, results = samples(modalities, 40, rare=0.5), torch.arange(40), []
    for engine in (None, PADDED):
        model = model_of(modalities, encoders, "zeros", engine)
        fit(model, split, ids[:25], ids[25:], RECIPE, Mitigation(), (0,), "here")
        results.append(model.state_dict())
    assert all(torch.allclose(v, results[1][name], rtol=0, atol=1e-9) for name, v in results[0].items())
    passed = {n: int(v) for n, v in results[0].items() if n.endswith("num_batches_tracked")}
    assert set(passed.values()) == {2, 3}  # of three batches, by the places that are left


def test_gradients_may_lie_in_memory_in_any_way():
    """Those of a sum are one number, those of a hook whatever it makes of them."""

    class Sums(Mitigation):
        def start(self, model, epochs):
            self.own = nn.Linear(3, 5).to(model.head.weight)
            return self.own

        def loss(self, step):
            return super().loss(step) + self.own.bias.sum() + 2 * self.own.weight.sum()

        def gradients(self, step, gradients):
            return [g.t().contiguous().t() if g.dim() == 2 else g for g in gradients[""]]

    kinds, encoders = PAIRS["tiny"]
    modalities = dict(zip(("rare", "frequent"), kinds, strict=True))
    split, ids, results = samples(modalities, 40, rare=0.5), torch.arange(40), []
    for mitigation in (Mitigation(), Sums()):
        model = model_of(modalities, encoders, "skip", None)
        recipe = dataclasses.replace(RECIPE, weight_decay=0.0, validate_from=1.0)
        fit(model, split, ids[:30], ids[30:], recipe, mitigation, (0,), "here")
        results.append(model.state_dict())
    assert all(torch.equal(value, results[1][name]) for name, value in results[0].items())
    torch.manual_seed(stream_seed(0, "mitigation"))
    before = nn.Linear(3, 5).to(model.head.weight)
    moved = [p - q for p, q in zip(before.parameters(), mitigation.own.parameters(), strict=True)]
    assert moved[1].min() == moved[1].max() > 0
    assert torch.allclose(moved[0], 2 * moved[1][0].expand(5, 3))


@pytest.mark.parametrize("absent", ["skip", "zeros"])
def test_what_is_trained_along_drops_and_normalises_by_row_too(absent):
    class Heads(Mitigation):
        def start(self, model, epochs):
            heads = (
                nn.Sequential(nn.Linear(WIDTH, 8), nn.BatchNorm1d(8), nn.Dropout(0.2), nn.Linear(8, CLASSES))
                for _ in model.modalities
            )
            self.heads = nn.ModuleList(heads).to(model.head.weight)
            return self.heads

        def loss(self, step):
            losses = {"all": super().loss(step)}
            for m, head in enumerate(self.heads):
                # Twice, as for two views: running statistics follow both.
                of_both = [head(step.tokens[:, m]), head(0.5 * step.tokens[:, m] + 1)]
                own = sum(cross_entropy(logits, step.labels, reduction="none") for logits in of_both)
                losses[f"head {m}"] = step.mean(own)
            return losses

    kinds, encoders = PAIRS["bag and tiny signal"]
    modalities = dict(zip(("rare", "frequent"), kinds, strict=True))
    split, ids, results = samples(modalities, 40, rare=0.5), torch.arange(40), []
    for engine in (None, PADDED):
        model, mitigation = model_of(modalities, encoders, absent, engine), Heads()
        recipe = dataclasses.replace(RECIPE, epochs=2)
        fit(model, split, ids[:31], ids[31:], recipe, mitigation, (0,), "here")
        results.append({**model.state_dict(), **mitigation.heads.state_dict()})
    for name, value in results[0].items():
        assert torch.allclose(value.double(), results[1][name].double(), rtol=0, atol=1e-9), name


def test_logits_of_a_subset_are_refused_in_training_where_absence_is_zeros():
    class Subset(Mitigation):
        def loss(self, step):
            return step.mean(step.logits_of(torch.tensor([True, False])).sum(dim=1))

    kinds, encoders = PAIRS["bag and tiny signal"]
    modalities = dict(zip(("rare", "frequent"), kinds, strict=True))
    split, ids = samples(modalities, 40, rare=0.5), torch.arange(40)
    with pytest.raises(MindGapError, match=r"set model\.absent of the scale to skip in params\.yaml"):
        fit(
            model_of(modalities, encoders, "zeros", None),
            split,
            ids[:30],
            ids[30:],
            RECIPE,
            Subset(),
            (0,),
            "h",
        )

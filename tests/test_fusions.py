"""Each fusion beside its formula, sample by sample in plain Python, and what holds of all of them."""

import copy
import math

import pytest
import torch
from torch import Tensor

from mindgap.base.settings import SettingsError, parameters
from mindgap.base.yaml_file import read_mapping
from mindgap.core.check import check_params
from mindgap.core.evaluation import encode, predict
from mindgap.core.loop import Cell
from mindgap.core.network import ModelSpec, build_model, place
from mindgap.core.params import Params, as_block
from mindgap.core.training import fit
from mindgap.parts.fusions import FUSIONS, fusion_settings, make_fusion, make_head, own_settings
from mindgap.parts.mitigations import Mitigation
from mindgap.stages.runs import run_of
from test_models import ROOT
from test_shapes import PADDED, PAIRS, RECIPE, equal, samples

WIDTH, CLASSES = 8, 5
WEIGHING = ("gated", "quality", "moe", "cross_attention")
# Fusions with the settings that have a formula of their own.
VARIANTS = {
    **{name: (name, {}) for name in FUSIONS},
    "concat, hidden": ("concat", {"hidden": 6}),
    "sum_logits, mean": ("sum_logits", {"reduction": "mean"}),
    "quality, entropy": ("quality", {"quality": "negative_entropy", "temperature": 0.5}),
}


class Classifier(torch.nn.Module):
    """A fusion and the linear layer behind it, in float64, of random weights and no embedding of zeros."""

    def __init__(self, variant: str, modalities: int):
        super().__init__()
        torch.manual_seed(3)
        name, settings = VARIANTS[variant]
        self.fusion = make_fusion({"name": name, **settings}, modalities, WIDTH)
        self.linear = make_head(self.fusion, CLASSES)
        self.double().eval()
        for weights in self.parameters():
            torch.nn.init.normal_(weights, std=0.5)

    def forward(self, tokens: Tensor, present: Tensor) -> tuple[Tensor, Tensor | None]:
        fused = self.fusion(tokens, present)
        fused, reliability = fused if isinstance(fused, tuple) else (fused, None)
        return self.linear(fused), reliability


def tokens_of(modalities: int, rows: int = 16) -> tuple[Tensor, Tensor]:
    """Random tokens, and every pattern of presence, none at all in the first row."""
    rng = torch.Generator().manual_seed(5)
    pattern = torch.arange(rows) % 2**modalities
    present = (pattern.unsqueeze(1) >> torch.arange(modalities)) % 2 == 1
    return torch.randn(rows, modalities, WIDTH, generator=rng, dtype=torch.float64), present


def affine(layer, x: list[float]) -> list[float]:
    weight, bias = layer.weight.tolist(), layer.bias.tolist()
    return [sum(w * v for w, v in zip(row, x, strict=True)) + b for row, b in zip(weight, bias, strict=True)]


def softmax(scores: list[float]) -> list[float]:
    top = [math.exp(s - max(scores)) for s in scores]
    return [one / sum(top) for one in top]


def normed(layer, x: list[float]) -> list[float]:
    mean = sum(x) / len(x)
    spread = math.sqrt(sum((v - mean) ** 2 for v in x) / len(x) + layer.eps)
    return [
        (v - mean) / spread * g + b
        for v, g, b in zip(x, layer.weight.tolist(), layer.bias.tolist(), strict=True)
    ]


def gelu(x: float) -> float:
    return x * (1 + math.erf(x / math.sqrt(2))) / 2


def plus(x: list[float], y: list[float]) -> list[float]:
    return [a + b for a, b in zip(x, y, strict=True)]


def alone(model: Classifier, m: int, token: list[float]) -> list[float]:
    """Logits of the linear layer of one modality, without the bias that all share."""
    block = model.linear.weight[:, m * (WIDTH + 1) : (m + 1) * (WIDTH + 1)].tolist()
    return [sum(w * v for w, v in zip(row, [*token, 1.0], strict=True)) for row in block]


def mixed(model: Classifier, x: dict, weight: dict) -> list[float]:
    """A weighted sum of logits of one modality each, and the bias."""
    logits = model.linear.bias.tolist()
    for m, token in x.items():
        logits = plus(logits, [weight[m] * one for one in alone(model, m, token)])
    return logits


def pooled(model: Classifier, part: dict, weight: dict) -> list[float]:
    fused = [sum(weight[m] * part[m][d] for m in part) for d in range(WIDTH)]
    return affine(model.linear, fused)


def plain_concat(model, x, modalities):
    absent = model.fusion.absent_modality_MD.tolist()
    side_by_side = [v for m in range(modalities) for v in x.get(m, absent[m])]
    return affine(model.linear, [gelu(v) for v in affine(model.fusion.wide, side_by_side)]), None


def plain_sum_logits(model, x, modalities):
    share = 1 if model.fusion.reduction == "sum" else 1 / len(x)
    return mixed(model, x, dict.fromkeys(x, share)), None


def plain_gated(model, x, modalities):
    gates = softmax([affine(model.fusion.gate[m], token)[0] for m, token in x.items()])
    weight = dict(zip(x, gates, strict=True))
    part = {m: [math.tanh(v) for v in affine(model.fusion.value[m], token)] for m, token in x.items()}
    return pooled(model, part, weight), weight


def plain_quality(model, x, modalities):
    qualities = []
    for m, token in x.items():
        probs = softmax(plus(alone(model, m, token), model.linear.bias.tolist()))
        certainty = sum(p * math.log(p) for p in probs) / math.log(CLASSES)
        own = max(probs) if model.fusion.quality == "confidence" else certainty
        qualities.append(own / model.fusion.temperature)
    weight = dict(zip(x, softmax(qualities), strict=True))
    return mixed(model, x, weight), weight


def plain_moe(model, x, modalities):
    seen = [v for m in range(modalities) for v in ([*x[m], 1.0] if m in x else [0.0] * (WIDTH + 1))]
    scores = affine(model.fusion.gate[2], [gelu(v) for v in affine(model.fusion.gate[0], seen)])
    weight = dict(zip(x, softmax([scores[m] for m in x]), strict=True))
    return mixed(model, x, weight), weight


def plain_evidential(model, x, modalities):
    evidence = {m: [math.log1p(math.exp(v)) for v in affine(model.fusion.linears[m], x[m])] for m in x}
    alpha = [1 + sum(evidence[m][c] for m in x) / len(x) for c in range(CLASSES)]
    vacuity = {m: CLASSES / sum(1 + e for e in evidence[m]) for m in x}
    return [math.log(a) for a in alpha], {m: 1 - vacuity[m] for m in x}


def plain_cross_attention(model, x, modalities):
    layer, fusion = model.fusion.layer, model.fusion
    x = {m: plus(token, fusion.modality_MD[m].tolist()) for m, token in x.items()}
    qkv = {m: affine(layer.query_key_value, normed(layer.before_attention, token)) for m, token in x.items()}
    size, part = WIDTH // layer.heads, {}
    for m, token in x.items():
        seen = []
        for h in range(layer.heads):
            at = [slice((k * layer.heads + h) * size, (k * layer.heads + h + 1) * size) for k in range(3)]
            others = [o for o in x if o != m]
            scores = [
                sum(a * b for a, b in zip(qkv[m][at[0]], qkv[o][at[1]], strict=True)) / math.sqrt(size)
                for o in others
            ]
            shares = softmax(scores) if others else []
            seen += [
                sum(w * qkv[o][at[2]][e] for w, o in zip(shares, others, strict=True)) for e in range(size)
            ]
        after = plus(token, affine(layer.out, seen)) if len(x) > 1 else token
        wide = [gelu(v) for v in affine(layer.wide, normed(layer.before_feedforward, after))]
        part[m] = normed(fusion.norm, plus(after, affine(layer.narrow, wide)))
    weight = dict(zip(x, softmax([affine(fusion.pool, part[m])[0] for m in x]), strict=True))
    return pooled(model, part, weight), weight


PLAIN = {name.removeprefix("plain_"): fn for name, fn in list(globals().items()) if name.startswith("plain_")}


@pytest.mark.parametrize("modalities", [1, 2, 3, 4])
@pytest.mark.parametrize("variant", sorted(set(VARIANTS) - {"transformer"}))  # its own is in test_plain.py
def test_a_fusion_is_its_formula(variant, modalities):
    model, (tokens, present) = Classifier(variant, modalities), tokens_of(modalities)
    logits, reliability = model(tokens, present)
    for n in range(1, len(tokens)):
        x = {m: tokens[n, m].tolist() for m in range(modalities) if present[n, m]}
        if not x:
            continue
        expected, weight = PLAIN[VARIANTS[variant][0]](model, x, modalities)
        assert logits[n].tolist() == pytest.approx(expected, rel=1e-10, abs=1e-12)
        assert (weight is None) == (reliability is None)
        if weight is not None:
            whole = [weight.get(m, 0.0) for m in range(modalities)]
            assert reliability[n].tolist() == pytest.approx(whole, rel=1e-10)


@pytest.mark.parametrize("modalities", [1, 2, 3, 4])
@pytest.mark.parametrize("variant", VARIANTS)
def test_absent_modalities_change_nothing(variant, modalities):
    """Neither what stands in their places nor its gradient; with nothing there the bias answers."""
    model, (tokens, present) = Classifier(variant, modalities), tokens_of(modalities)
    plain, _ = model(tokens, present)
    for other in (torch.nan, torch.inf, 1e6):
        filled = torch.where(present.unsqueeze(-1), tokens, other).requires_grad_()
        logits, reliability = model(filled, present)
        assert torch.equal(logits, plain)
        if reliability is not None:
            assert (reliability[~present] == 0).all()
    model.zero_grad()
    logits.sum().backward()
    assert (filled.grad[~present] == 0).all()
    assert all(p.grad.isfinite().all() for p in model.parameters() if p.grad is not None)
    assert torch.equal(plain[0], model.linear.bias.detach())


@pytest.mark.parametrize("variant", VARIANTS)
def test_rows_do_not_see_each_other(variant):
    """So rows that only fill a batch count nowhere, in a GPU's padded steps too."""
    model, (tokens, present) = Classifier(variant, 3), tokens_of(3)
    whole, _ = model(tokens, present)
    some = torch.tensor([9, 2, 7])
    assert torch.allclose(model(tokens[some], present[some])[0], whole[some], rtol=0, atol=1e-12)


ORDERED = [variant for variant in VARIANTS if VARIANTS[variant][0] not in ("concat", "moe")]


@pytest.mark.parametrize("variant", ORDERED)
def test_the_order_of_modalities_is_of_no_account(variant):
    """With the weights of each modality moved along."""
    model, (tokens, present) = Classifier(variant, 3), tokens_of(3)
    order = torch.tensor([2, 0, 1])
    moved = copy.deepcopy(model)
    for name, weights in moved.fusion.named_parameters():
        part, *rest = name.split(".")
        if name == "modality_MD":
            weights.data = weights.data[order]
        elif part in ("value", "gate", "linears") and rest[0].isdigit():
            own = f"fusion.{part}.{order[int(rest[0])]}.{rest[1]}"
            weights.data = dict(model.named_parameters())[own].data.clone()
    if moved.linear.in_features == 3 * (WIDTH + 1):
        weight = moved.linear.weight
        weight.data = weight.data.unflatten(1, (3, -1))[:, order].flatten(1)
    logits, reliability = model(tokens, present)
    again, reliability_moved = moved(tokens[:, order], present[:, order])
    assert torch.allclose(logits, again, rtol=0, atol=1e-12)
    if reliability is not None:
        assert torch.allclose(reliability[:, order], reliability_moved, rtol=0, atol=1e-12)


@pytest.mark.parametrize("variant", ["gated", "quality", "quality, entropy", "moe", "cross_attention"])
def test_weights_are_shares_of_the_present_and_can_be_replaced(variant):
    model, (tokens, present) = Classifier(variant, 3), tokens_of(3)
    part, weight = model.fusion.weigh(tokens, present)
    assert torch.allclose(weight.sum(1), present.any(1).double())
    assert (weight[present] > 0).all()
    assert torch.equal(model.fusion.combine(part, weight), model.fusion(tokens, present)[0])
    turned = model.fusion.combine(part, weight.roll(1, dims=0))
    assert not torch.allclose(turned, model.fusion(tokens, present)[0])


def test_a_mean_of_logits_is_the_sum_over_how_many_there_are():
    (tokens, present), summed, mean = (
        tokens_of(3),
        Classifier("sum_logits", 3),
        Classifier("sum_logits, mean", 3),
    )
    count = present.sum(dim=1, keepdim=True).clamp(min=1)
    bias = summed.linear.bias
    expected = (summed(tokens, present)[0] - bias) / count + bias
    assert torch.allclose(mean(tokens, present)[0], expected)


def test_the_evidence_of_one_modality_is_its_own_dirichlet_and_of_none_is_no_evidence():
    model, (tokens, present) = Classifier("evidential", 3), tokens_of(3)
    logits, _ = model(tokens, present)
    alpha = 1 + model.fusion.evidence(tokens, present)
    one = present.sum(dim=1) == 1
    assert torch.allclose(logits[one].exp(), alpha[one][present[one]])
    assert (alpha[~present] == 1).all()
    assert torch.allclose(logits.exp(), 1 + (alpha - 1).sum(1) / present.sum(1).clamp(min=1).unsqueeze(1))


@pytest.mark.parametrize("fusion", FUSIONS)
def test_a_model_trains_alike_on_padded_and_compact_rows(fusion):
    """Two epochs, a rare modality, a short last batch: losses, weights and predictions."""
    kinds, encoders = PAIRS["tiny"]
    modalities, results = dict(zip(("rare", "frequent"), kinds, strict=True)), []
    own = {"heads": 2} if "heads" in parameters(FUSIONS[fusion], 2) else {}
    spec = ModelSpec(encoders, {"name": fusion, **own}, 16, head_dropout=0.1, min_present=3)
    split, ids = samples(modalities, 40, rare=0.3), torch.arange(40)
    for engine in (None, PADDED):
        model = build_model(modalities, 4, spec, seed=0).double()
        model = model if engine is None else place(model, engine, RECIPE.batch_size)
        before = {name: value.clone() for name, value in model.state_dict().items()}
        fit(model, split, ids[:31], ids[31:], RECIPE, Mitigation(), (0,), "here")
        probs = predict(model, encode(model, split), split.present_NM)
        results.append({**model.state_dict(), "probs": probs})
        moved = [name for name, value in model.state_dict().items() if not torch.equal(value, before[name])]
        assert {name.partition(".")[0] for name in moved} >= {"encoders", "projections"}
        assert any(name.startswith(("fusion.", "head.")) for name in moved)
        assert fusion != "evidential" or torch.equal(model.head.weight, torch.eye(4).double())
    assert all(equal(value.double(), results[1][name].double()) for name, value in results[0].items())


@pytest.mark.parametrize("fusion", ["quality", "evidential"])
def test_a_fusion_that_knows_the_classes_can_be_copied_and_moved(fusion):
    kinds, encoders = PAIRS["tiny"]
    modalities = dict(zip(("rare", "frequent"), kinds, strict=True))
    model = build_model(modalities, 4, ModelSpec(encoders, {"name": fusion}, 16), seed=0).eval()
    split = samples(modalities, 12, rare=0.5)
    probs = predict(model, encode(model, split), split.present_NM)
    other = copy.deepcopy(model)
    with torch.no_grad():
        for weights in model.parameters():
            weights.zero_()
    assert torch.equal(predict(other, encode(other, split), split.present_NM), probs)
    model.load_state_dict(other.state_dict())
    assert torch.equal(predict(model, encode(model, split), split.present_NM), probs)
    assert sum(name.startswith("head") for name in model.state_dict()) == 2


def test_no_gradient_goes_through_the_quality():
    model, (tokens, present) = Classifier("quality", 3), tokens_of(3)
    part, weight = model.fusion.weigh(tokens.requires_grad_(), present)
    assert not weight.requires_grad
    assert model.fusion.combine(part, weight).requires_grad


def test_a_scales_sizes_are_those_of_the_fusions_that_have_them():
    sizes = {"layers": 1, "heads": 2, "feedforward": 192, "dropout": 0.0}
    assert own_settings({"name": "transformer", **sizes}) == {"name": "transformer", **sizes}
    assert own_settings({"name": "gated", **sizes}) == {"name": "gated"}
    assert own_settings({"name": "concat", **sizes}) == {"name": "concat", "dropout": 0.0}
    cross = own_settings({"name": "cross_attention", **sizes})
    assert cross == {"name": "cross_attention", "heads": 2, "feedforward": 192, "dropout": 0.0}


@pytest.mark.parametrize("fusion", FUSIONS)
def test_params_may_name_any_fusion_and_runs_know_its_own_settings_alone(make_dataset, fusion):
    raw, dataset = read_mapping(ROOT / "params.yaml"), make_dataset()
    cell, runs = Cell("missing", "low", "moddrop", 0, "badge"), []
    for layers in (1, 2):
        raw["scales"]["tiny"]["model"]["fusion"] |= {"name": fusion, "layers": layers}
        params = as_block(raw, Params, "params.yaml")
        check_params(params)
        runs.append(run_of(params, cell, dataset, "initial"))
    told = runs[0].provenance["settings"]["setting"]["model"]["fusion"]
    assert set(told) <= {"name", *parameters(FUSIONS[fusion], 2)}
    assert (runs[0].digest != runs[1].digest) == (fusion == "transformer")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"name": "gated", "temperature": 1.0}, r"fusion\.temperature is unknown; known: none"),
        ({"name": "transformer", "temperature": 1.0}, r"fusion\.temperature is unknown; known: layers"),
        ({"name": "quality", "temperature": 0.0}, r"fusion\.temperature: .*0\.001 \(given: 0\.0\)"),
        ({"name": "quality", "quality": "size"}, r"fusion\.quality: .*'confidence' or 'negative_entropy'"),
        ({"name": "sum_logits", "reduction": "max"}, r"fusion\.reduction: .*'sum' or 'mean'"),
        ({"name": "cross_attention", "heads": 3}, r"fusion: heads \(3\) must divide width \(8\)"),
        ({"name": "concat", "hidden": 0}, r"fusion\.hidden: .*greater than or equal to 1"),
        ({"name": "moe", "hidden": "32"}, r"fusion\.hidden: .*without quotes"),
    ],
)
def test_a_fusion_takes_its_own_settings_alone(settings, message):
    with pytest.raises(SettingsError, match=message):
        fusion_settings("fusion", settings, WIDTH)

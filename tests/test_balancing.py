"""Mitigations that balance modalities, beside slow and plain versions of their formulas in float64."""

import dataclasses
import functools
import itertools
import math
import statistics

import pytest
import torch
from scipy.stats import binomtest
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn.functional import cross_entropy

from mindgap.base.errors import MindGapError, ParamsError
from mindgap.base.gpu import Engine
from mindgap.base.hosted import mixed
from mindgap.base.modality import Modality
from mindgap.core import training
from mindgap.core.batches import Batches
from mindgap.core.evaluation import encode, predict
from mindgap.core.network import ModelSpec, build_model, place
from mindgap.core.training import Steps, fit
from mindgap.data.dataset import Split
from mindgap.parts.evaluators.shortcut_failure import failure_degree
from mindgap.parts.mitigations import Mitigation, make_mitigation
from mindgap.parts.mitigations.ogm_ge import normal
from mindgap.parts.mitigations.shortcut_aware import ShortcutAware
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
    "mmpareto": {"weight": 0.7},
    "opm": {"rate": 0.6, "applied": 0.8},
    "pmr": {"alpha": 0.8, "entropy": 0.5, "until": 0.6, "momentum": 0.3},
    "shortcut_aware": {"warmup": 0, "folds": 2, "strength": 0.9},
    "unimodal_ensemble": {"strength": 0.6},
    "unimodal_loss": {"weight": 0.7},
}
NOTHING = {
    "multi_loss": {"weight": 0.0},
    "ogm_ge": {"alpha": 0.0},
    "agm": {"alpha": 0.0},
    "mmpareto": {"weight": 0.0},
    "opm": {"rate": 0.0},
    "pmr": {"alpha": 0.0},
    "shortcut_aware": {"strength": 0.0},
    "unimodal_ensemble": {"strength": 0.0},
    "unimodal_loss": {"weight": 0.0},
}
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


def plain_mmpareto(plain, mitigation, memory):
    heads = mitigation.heads.named_parameters(prefix="heads")
    fused = plain.gradients(plain.fused_loss(), dict(heads))
    expected = {name: g.clone() for name, g in fused.items()}
    for m, head in enumerate(mitigation.heads):
        if not (having := plain.having(m)):
            continue
        own = 0.7 * sum(plain.loss(head(plain.token(i, m)), i) for i in having) / len(having)
        alone = plain.gradients(own, mitigation.heads.named_parameters(prefix="heads"))
        mine = [name for name in fused if plain.owner(name) == m]
        g, h = (torch.cat([one[name].flatten() for name in mine]) for one in (fused, alone))
        if not plain.represented:
            for name in fused:
                expected[name] += alone[name]
            continue
        a = 0.5
        if g @ h <= 0:  # the point of the segment from h to g that is nearest to 0
            a = min(1.0, max(0.0, (h @ (h - g) / ((h - g) @ (h - g))).item()))
        d = 2 * (a * g + (1 - a) * h)
        d = 1.5 * d * max(1.0, ((g + h).norm() / d.norm()).item())
        for name, part in zip(mine, d.split([fused[name].numel() for name in mine]), strict=True):
            expected[name] = part.view_as(fused[name])
        for name in set(fused) - {*mine}:
            expected[name] += alone[name]
        memory["clash"] = memory.get("clash", 0) + bool(g @ h <= 0)
    return expected


def plain_opm(plain, mitigation, memory):
    """What is dropped is absent; the rates are those of the scores of the epoch before."""
    ratio = {}
    before = memory.get("scores", {})
    for m, score in before.items():
        ratio[m] = score / statistics.fmean(other for k, other in before.items() if k != m)
    for m in range(3):
        ahead = ratio.get(m, 0) > 1
        rate = 0.6 * (1 + 0.5 * math.tanh(ratio[m] - 1)) if ahead else 0.0
        assert mitigation.rate_M[m].item() == pytest.approx(rate, rel=1e-6)
    memory["scores"] = plain.scores()
    return plain.gradients(plain.fused_loss())


def plain_pmr(plain, mitigation, memory):
    """Prototypes are of the epochs before; each epoch of the test is one batch."""
    known, epoch = memory.setdefault("known", {}), memory.get("epoch", 0)
    loss, near, has = plain.fused_loss(), {}, {}
    for m in range(3):
        centres = {c: known[m, c] for c in range(CLASSES) if (m, c) in known}
        has[m] = [i for i in plain.having(m) if plain.label[i] in centres]
        for i in has[m]:
            far = {c: (plain.token(i, m) - centre).square().sum().sqrt() for c, centre in centres.items()}
            total = sum((-d).exp() for d in far.values())
            near[i, m] = {c: (-d).exp() / total for c, d in far.items()}
    there = [m for m in has if has[m]]
    if len(there) > 1:
        score = {m: statistics.fmean(near[i, m][plain.label[i]].item() for i in has[m]) for m in there}
        for m in there:
            ratio = score[m] / statistics.fmean(score[k] for k in there if k != m)
            behind, ahead = (min(max(x - 1, 0), 1) for x in (1 / ratio, ratio))
            own = -sum(near[i, m][plain.label[i]].log() for i in has[m]) / len(has[m])
            spread = -sum(p * p.log() for i in has[m] for p in near[i, m].values()) / len(has[m])
            loss = loss + 0.8 * (behind * own - (0.5 * ahead * spread if epoch < 2 else 0))
            memory["acted"] = memory.get("acted", 0) + bool(behind)
    found = plain.gradients(loss)
    for m in range(3):
        for c in {plain.label[i] for i in plain.having(m)}:
            of_class = [plain.token(i, m).detach() for i in plain.having(m) if plain.label[i] == c]
            mean = sum(of_class) / len(of_class)
            known[m, c] = 0.3 * known[m, c] + 0.7 * mean if (m, c) in known else mean
    memory["epoch"] = epoch + 1
    return found


def plain_unimodal_ensemble(plain, mitigation, memory):
    loss = 0.4 * plain.fused_loss()
    for m in range(3):
        if having := plain.having(m):
            loss = loss + 0.6 * sum(plain.loss(plain.logits(i, [m]), i) for i in having) / len(having)
    return plain.gradients(loss)


def plain_unimodal_loss(plain, mitigation, memory):
    """Of each sample the weighted mean of its losses, with all it has and with each of these alone."""
    loss = 0
    for i, has in plain.has.items():
        answers = [(1.0, has), *((0.7, [m]) for m in has)]
        own = sum(weight * plain.loss(plain.logits(i, kept), i) for weight, kept in answers)
        loss = loss + own / sum(weight for weight, _ in answers) / len(plain.rows)
    return plain.gradients(loss)


def plain_shortcut_aware(plain, mitigation, memory):
    names, e = plain.names, 1e-3

    def proxy_loss(i, m, fold):
        logits = mitigation.proxies[names[m]][fold](plain.step.x[names[m]][i : i + 1].double())
        return plain.loss(logits[0], i)

    folds = {i: int(mixed(plain.step.ids[i] + 1)) % 2 for i in plain.rows}
    assert set(folds.values()) == {0, 1}
    fused = {i: plain.loss(plain.logits(i, plain.has[i]), i) for i in plain.rows}
    weight = {}
    for i in plain.rows:
        apart = [proxy_loss(i, m, folds[i]).item() for m in plain.has[i]]
        weight[i] = max((one + e / 2) / (one + fused[i].item() + e) for one in apart)
    mean = statistics.fmean(weight.values())
    weight = {i: 1 + 0.9 * (min(max(one / mean, 0.1), 10) - 1) for i, one in weight.items()}
    loss = sum(weight[i] * fused[i] for i in plain.rows) / len(plain.rows)
    for m in range(3):
        for fold in (0, 1):
            known = [i for i in plain.having(m) if folds[i] != fold]
            if known:
                loss = loss + sum(proxy_loss(i, m, fold) for i in known) / len(known)
    return plain.gradients(loss, mitigation.proxies.named_parameters(prefix="proxies"))


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


def trained(mitigation, engine=None, only=None):
    """Result and weights of a training on two modalities, both absent here and there; or with one alone."""
    modalities = {"rare": Modality("tokens", (12,)), "frequent": Modality("signal", (12, 125))}
    encoders = {"tokens": {"name": "bag"}, "signal": {"name": "tiny"}}
    split, ids = samples(modalities, 60, rare=0.5), torch.arange(60)
    if only is not None:
        alone_NM = torch.tensor([name == only for name in modalities]).expand(60, -1).contiguous()
        split = dataclasses.replace(split, present_NM=alone_NM)
    model = model_of(modalities, encoders, "skip", engine)
    recipe = dataclasses.replace(RECIPE, epochs=2, validate_from=1.0)
    result = fit(model, split, ids[:47], ids[47:], recipe, mitigation, (0,), "here")
    return result, model.state_dict()


@functools.cache
def untouched(only=None):
    return trained(Mitigation(), only=only)


@pytest.mark.parametrize("name", NOTHING)
def test_at_zero_strength_a_training_is_the_plain_one_bit_for_bit(name):
    (result, weights), (plain, others) = trained(make_mitigation(name, NOTHING[name])), untouched()
    assert result == plain
    assert all(torch.equal(weights[name], value) for name, value in others.items())


@pytest.mark.parametrize("name", ["ogm_ge", "agm", "opm", "pmr"])
def test_where_samples_have_one_modality_what_balances_two_is_plain_bit_for_bit(name):
    (result, weights), (plain, others) = (
        trained(make_mitigation(name, ACTING[name]), only="frequent"),
        untouched("frequent"),
    )
    assert result == plain
    assert all(torch.equal(weights[key], value) for key, value in others.items())


def test_where_samples_have_one_modality_mmpareto_is_multi_loss():
    (pareto, weights), (sums, others) = (
        trained(make_mitigation(name, {"weight": 0.7}), only="frequent")
        for name in ("mmpareto", "multi_loss")
    )
    assert pareto.losses == pytest.approx(sums.losses)
    assert all(torch.allclose(weights[key].double(), value.double()) for key, value in others.items())


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


@pytest.mark.parametrize("name", ["ogm_ge", "agm", "opm", "unimodal_ensemble"])
def test_logits_of_one_modality_are_refused_where_absence_is_zeros(name):
    modalities = {"rare": Modality("tokens", (12,)), "frequent": Modality("signal", (12, 125))}
    encoders = {"tokens": {"name": "bag"}, "signal": {"name": "tiny"}}
    split, ids = samples(modalities, 40, rare=0.5), torch.arange(40)
    model = model_of(modalities, encoders, "zeros", None)
    with pytest.raises(MindGapError, match=r"set model\.absent of the scale to skip in params\.yaml"):
        fit(model, split, ids[:30], ids[30:], RECIPE, make_mitigation(name, ACTING[name]), (0,), "here")


def test_opm_drops_as_often_as_its_rates_say_and_never_the_last_modality():
    mitigation = make_mitigation("opm", {"applied": 0.7})
    mitigation.rate_M = torch.tensor([0.6, 0.0, 0.2])
    present, n = torch.tensor([[True, True, True], [True, False, False]]), 4_000
    rng = torch.Generator().manual_seed(0)
    kept = torch.stack([mitigation.drop(present, rng) for _ in range(n)])
    assert kept[:, 1].equal(present[1].expand(n, -1))
    assert kept[:, 0, 1].all()
    for m, rate in ((0, 0.6), (2, 0.2)):
        assert binomtest(int((~kept[:, 0, m]).sum()), n, 0.7 * rate).pvalue > 1e-4
    both = (~kept[:, 0, 0] & ~kept[:, 0, 2]).sum()
    assert binomtest(int(both), n, 0.7 * 0.6 * 0.2).pvalue > 1e-4


# -- the shortcut


def planted(n: int, agreement: float, rng: torch.Generator, label_is: str = "class") -> Split:
    """Four classes, which the hard modality shows with noise. The easy one shows a number without: the class
    in a share of the samples, else another one; the label is the class, or the sum of both modulo 4.
    """
    class_N = torch.randint(4, (n,), generator=rng)
    other_N = (class_N + torch.randint(1, 4, (n,), generator=rng)) % 4
    number_N = torch.where(torch.rand(n, generator=rng) < agreement, class_N, other_N)
    x = {
        "hard": torch.eye(8)[class_N] + 0.35 * torch.randn(n, 8, generator=rng),
        "easy": 3 * torch.eye(4)[number_N] + 0.1 * torch.randn(n, 4, generator=rng),
    }
    label_N = class_N if label_is == "class" else (class_N + number_N) % 4
    return Split(x, torch.ones(n, 2, dtype=torch.bool), label_N)


def taught(mitigation: Mitigation, seed: int, label_is: str = "class", trained_on: float = 0.9):
    """Joint accuracy on samples whose number is random, and SFD with the easy modality as proxy."""
    rng, ids = torch.Generator().manual_seed(seed), torch.arange(700)
    train, test = planted(700, trained_on, rng, label_is), planted(1000, 0.25, rng, label_is)
    modalities = {"hard": Modality("table", (8,)), "easy": Modality("table", (4,))}
    fusion = {"name": "transformer", "heads": 2, "feedforward": 16}
    spec = ModelSpec({"table": {"name": "mlp", "hidden": 32}}, fusion, 16, head_dropout=0.0)
    model = build_model(modalities, 4, spec, seed)
    recipe = dataclasses.replace(RECIPE, epochs=12, batch_size=32, learning_rate=0.05, validate_from=1.0)
    fit(model, train, ids[:600], ids[600:], recipe, mitigation, (seed,), "here")
    tokens = encode(model, test)
    right, proxy_right = (
        predict(model, tokens, test.present_NM & torch.tensor(keep)).argmax(dim=1) == test.y_N
        for keep in ([True, True], [False, True])
    )
    return right.float().mean().item(), failure_degree(right, proxy_right).item()


AWARE = {"warmup": 2, "folds": 2, "modalities": ("easy",)}


class Permuted(ShortcutAware):
    """A control: each sample's weight follows from the proxies' losses on another sample of the batch."""

    def proxy_losses(self, step):
        proxy_BS, training = super().proxy_losses(step)
        return proxy_BS.roll(1, dims=0), training


def test_a_planted_shortcut_is_trusted_less_unless_weights_follow_from_other_samples():
    """Permuted losses of the proxies do harm: a sample that the model fails on then weighs little."""
    plain, aware, permuted = (
        [taught(make(), seed) for seed in (0, 1, 2)]
        for make in (Mitigation, lambda: ShortcutAware(**AWARE), lambda: Permuted(**AWARE))
    )
    gains = [joint - before for (joint, _), (before, _) in zip(aware, plain, strict=True)]
    assert min(gains) > 0
    assert statistics.fmean(gains) > 0.03
    assert all(failure < failed for (_, failure), (_, failed) in zip(aware, plain, strict=True))
    assert all(joint < before + 0.01 for (joint, _), (before, _) in zip(permuted, plain, strict=True))


def test_where_no_modality_alone_tells_the_label_weights_change_little():
    """As on Synergy: each modality is independent of the label, so there is no shortcut."""
    (plain, _), (aware, _) = (
        taught(one, 0, "sum", 0.25) for one in (Mitigation(), ShortcutAware(**AWARE | {"modalities": None}))
    )
    assert abs(aware - plain) < 0.06


def test_no_gradient_of_a_proxys_loss_reaches_the_model():
    mitigation, seen = ShortcutAware(warmup=9, folds=2), []
    mitigation.gradients = lambda step, given: seen.append(given) or given[""]
    modalities = {"rare": Modality("tokens", (12,)), "frequent": Modality("signal", (12, 125))}
    encoders = {"tokens": {"name": "bag"}, "signal": {"name": "tiny"}}
    model = model_of(modalities, encoders, "skip", PADDED)
    split = samples(modalities, 12, rare=0.5)
    steps = Steps.of(model.train(), dataclasses.replace(RECIPE, epochs=20), mitigation, (0,))
    own = mitigation.loss

    def proxies_alone(step):
        losses_B, training = cross_entropy(step.logits, step.labels, reduction="none"), own(step)
        return training - step.mean(losses_B)

    mitigation.loss = proxies_alone
    for batch in Batches(split, torch.arange(12), RECIPE, mitigation, model, (0,)).epoch():
        steps.start_epoch(0)
        steps.take(batch, "here")
    of_model = len(list(model.parameters()))
    assert not any(g.any() for g in seen[0][""][:of_model])
    assert any(g.any() for g in seen[0][""][of_model:])


def test_a_proxy_of_a_modality_that_is_not_there_is_refused(make_dataset):
    dataset, ids = make_dataset(), torch.arange(160)
    model = build_model(dataset.modalities, dataset.num_classes, ModelSpec(width=16), seed=0)
    mitigation = ShortcutAware(modalities=("left", "middle"))
    with pytest.raises(MindGapError, match=r"modalities names middle.*name some of left, right"):
        fit(model, dataset.train, ids[:90], ids[90:], RECIPE, mitigation, (0,), "here")


def meets(has_NM, **settings) -> str:
    """What a training on 90 samples, the first of each three of class 0, is refused with; "" if it is not."""
    modalities = {"rare": Modality("table", (3,)), "frequent": Modality("table", (3,))}
    split = Split({m: torch.randn(120, 3) for m in modalities}, has_NM, torch.arange(120) % 3)
    model = build_model(modalities, 3, ModelSpec({"table": {"name": "mlp", "hidden": 4}}, width=8), seed=0)
    ids, recipe = torch.arange(120), dataclasses.replace(RECIPE, batch_size=45)
    try:
        fit(model, split, ids[:90], ids[90:], recipe, ShortcutAware(**settings), (0,), "here")
    except MindGapError as error:
        return str(error)
    return ""


@pytest.mark.parametrize(
    ("rare", "frequent", "mends"),
    [
        (2, 30, None),
        (1, 30, [{"folds": 1}, {"modalities": ["frequent"]}]),
        (0, 30, [{"modalities": ["frequent"]}]),
        (30, 1, [{"folds": 1}, {"modalities": ["rare"]}]),
        (29, 0, [{"modalities": ["rare"]}]),
        (1, 0, [{"folds": 1, "modalities": ["rare"]}]),
        (0, 0, []),
    ],
)
def test_a_proxy_without_a_class_is_refused_by_name_and_the_mends_mend(rare, frequent, mends):
    """So many of the 30 samples of class 1 have each modality; those that would have none are of class 2."""
    has_NM, of_class = torch.ones(120, 2, dtype=torch.bool), torch.arange(1, 90, 3)
    folds = ShortcutAware(folds=2)._fold(of_class)
    of_class = torch.cat([torch.stack([of_class[folds == 0][0], of_class[folds == 1][0]]), of_class])
    of_class = torch.tensor(list(dict.fromkeys(of_class.tolist())))  # the first two are in different folds
    has_NM[of_class[rare:], 0] = has_NM[of_class[frequent:], 1] = False
    said = meets(has_NM, folds=2)
    if mends is None:
        assert said == ""
        return
    name = "rare" if rare < 2 else "frequent"
    fault, told = said.split(" labelled ones: ")
    assert fault.startswith(
        f"shortcut_aware: the proxy of {name} has no training sample of class 1 outside the"
    )
    key = "mitigation_settings.shortcut_aware"
    words = {
        "folds": f"{key}.folds to 1",
        "modalities": f"{key}.modalities to [{{}}]",
    }
    expected = [
        "set " + " and ".join(words[k].format(v[0] if k == "modalities" else v) for k, v in mend.items())
        for mend in mends
    ]
    assert told == ", or ".join([*expected, "raise initial of the dataset's budget (params.yaml)"])
    assert all(meets(has_NM, **{"folds": 2, **mend}) == "" for mend in mends)


def test_the_failure_degree_is_accuracy_where_the_proxy_is_right_less_where_it_is_wrong():
    right = torch.tensor([True, True, False, True, False, False, False])
    proxy = torch.tensor([True, True, True, True, False, False, False])
    assert failure_degree(right, proxy) == 0.75
    assert failure_degree(~right, proxy) == 0.25 - 1
    assert failure_degree(right, torch.ones(7, dtype=torch.bool)).isnan()


@pytest.mark.parametrize(
    ("name", "key", "value", "said"),
    [
        ("multi_loss", "weight", -0.5, "greater than or equal to 0"),
        ("ogm_ge", "alpha", "0.3", "without quotes"),
        ("ogm_ge", "until", 1.5, "less than or equal to 1"),
        ("ogm_ge", "noise", 1, "write true or false"),
        ("agm", "alpha", float("inf"), "no settings"),
        ("agm", "beta", 1.0, "unknown; known: alpha"),
        ("mmpareto", "gamma", -1, "greater than or equal to 0"),
        ("opm", "rate", 1.1, "less than or equal to 1"),
        ("shortcut_aware", "folds", 0, "greater than or equal to 1"),
        ("shortcut_aware", "warmup", 2.5, "whole number without quotes"),
        ("shortcut_aware", "modalities", [], "at least 1 item"),
        ("shortcut_aware", "modalities", "left", "write a list"),
        ("unimodal_ensemble", "strength", 2, "less than or equal to 1"),
    ],
)
def test_a_setting_that_cannot_be_is_refused_by_its_key(name, key, value, said):
    with pytest.raises(ParamsError, match=rf"mitigation_settings\.{name}\.{key}.*{said}"):
        make_mitigation(name, {key: value})

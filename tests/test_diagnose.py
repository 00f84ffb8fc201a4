"""The permutation diagnostic on models: experts, reliabilities and decisions are the model's own."""

import numpy as np
import pytest
import torch

from mindgap.core.evaluation import encode, predict
from mindgap.core.network import ModelSpec, build_model
from mindgap.parts.evaluators.balanced_accuracy import mean_recall
from mindgap.parts.fusions import FUSIONS
from mindgap.parts.fusions.weighing import Weighing
from mindgap.results.permutation import RULES, DiagnosticError
from mindgap.stages.diagnose import diagnose

GIVING = ("gated", "quality", "moe", "evidential", "cross_attention")


def model_of(dataset, fusion: str):
    own = {"temperature": 0.02} if fusion == "quality" else {}
    spec = ModelSpec(fusion={"name": fusion, **own}, width=16)
    return build_model(dataset.modalities, dataset.num_classes, spec, seed=1).eval()


@pytest.mark.parametrize("fusion", GIVING)
def test_a_models_own_decisions_are_those_that_it_is_evaluated_by(make_dataset, fusion):
    dataset = make_dataset()
    model, split = model_of(dataset, fusion), dataset.test
    found = {gap.rule: gap for gap in diagnose(model, split)}
    weighs = isinstance(model.fusion, Weighing)
    assert set(found) == {*RULES, *(["own"] if weighs else [])} - {"mean"}
    assert all(gap.n == len(split) and len(gap.broken_K) == 200 for gap in found.values())
    if weighs:
        probs = predict(model, encode(model, split), split.present_NM)
        assert found["own"].clean == pytest.approx(mean_recall(probs, split.y_N).item())


@pytest.mark.parametrize("fusion", sorted(set(FUSIONS) - set(GIVING)))
def test_a_fusion_without_reliabilities_is_refused_by_name_and_may_be_given_others(make_dataset, fusion):
    dataset = make_dataset()
    model = model_of(dataset, fusion)
    with pytest.raises(DiagnosticError, match=rf"model\.fusion: '{fusion}' gives no reliabilities.*gated"):
        diagnose(model, dataset.test)
    truth = np.random.default_rng(0).random(dataset.test.present_NM.shape)
    assert {gap.rule for gap in diagnose(model, dataset.test, truth)} == set(RULES) - {"mean"}


def test_a_gate_that_decides_is_seen(make_dataset):
    """Each expert says its own class whatever it sees; which of the two is right, the gate alone tells."""
    dataset = make_dataset(classes=2)
    model, split = model_of(dataset, "moe"), dataset.test

    right_N = torch.nn.functional.one_hot(split.y_N, 2).float()
    with torch.no_grad():
        model.head.weight.zero_(), model.head.bias.zero_()
        block = model.head.in_features // 2
        for m in range(2):
            model.head.weight[m, (m + 1) * block - 1] = 5.0
    model.fusion.weigh = lambda tokens, present: (tokens * 0, right_N)
    own = diagnose(model, split)[-1]
    assert (own.rule, own.clean, own.verdict, own.oracle) == ("own", 1.0, "used", 1.0)
    assert own.gap == pytest.approx(0.5, abs=0.15)

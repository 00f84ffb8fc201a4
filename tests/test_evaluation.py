import itertools

import numpy as np
import pytest
import torch
from sklearn.metrics import balanced_accuracy_score, log_loss

from mindgap.base.errors import DivergenceError
from mindgap.base.view import Metrics
from mindgap.core.evaluation import encode, metrics_of, predict, predict_subsets
from mindgap.core.network import ModelSpec, build_model
from mindgap.parts.evaluators.accuracy import share_right
from mindgap.parts.evaluators.balanced_accuracy import mean_recall
from mindgap.parts.evaluators.contract import Predictions
from mindgap.parts.evaluators.ece import calibration_error
from mindgap.parts.evaluators.nll import negative_log_likelihood


def probabilities(n: int, classes: int, seed: int = 0) -> torch.Tensor:
    return torch.randn((n, classes), generator=torch.Generator().manual_seed(seed)).softmax(dim=1)


def test_balanced_accuracy_is_sklearns_and_leaves_out_classes_without_samples():
    probs, y = probabilities(300, 7), torch.arange(300) % 5
    with pytest.warns(UserWarning, match="classes not in y_true"):
        expected = balanced_accuracy_score(y, probs.argmax(1))
    assert mean_recall(probs, y) == pytest.approx(expected)


def test_balanced_accuracy_of_a_constant_answer_is_chance():
    probs = torch.zeros(100, 10)
    probs[:, 3] = 1
    assert mean_recall(probs, torch.arange(100) % 10) == pytest.approx(0.1)


def test_ece_is_the_binned_gap_by_brute_force():
    probs, y = probabilities(400, 4), torch.randint(0, 4, (400,), generator=torch.Generator().manual_seed(1))
    confidence, predicted = (t.numpy() for t in probs.double().max(dim=1))
    expected, edges = 0.0, np.linspace(0, 1, 16)
    for low, high in itertools.pairwise(edges):
        inside = (confidence > low) & (confidence <= high)
        if inside.any():
            gap = abs((predicted[inside] == y.numpy()[inside]).mean() - confidence[inside].mean())
            expected += inside.mean() * gap
    assert calibration_error(probs, y) == pytest.approx(expected)


def test_a_sure_and_right_model_has_no_calibration_error():
    y = torch.arange(20) % 4
    sure = Predictions(torch.ones(20, dtype=torch.bool), torch.eye(4)[y], y)
    assert metrics_of(sure) == Metrics(balanced_accuracy=1.0, accuracy=1.0, ece=0.0, nll=0.0, n=20)


def test_the_likelihood_is_scikit_learns_and_a_probability_of_zero_counts_as_the_smallest_number():
    probs, y = probabilities(300, 7).double(), torch.arange(300) % 7
    probs /= probs.sum(dim=1, keepdim=True)
    assert negative_log_likelihood(probs, y).item() == pytest.approx(log_loss(y, probs))
    assert negative_log_likelihood(torch.eye(2), torch.tensor([1, 0])).item() == pytest.approx(87.3, abs=0.1)


def seen_of(model, split) -> dict[str, Predictions]:
    return predict_subsets(model, encode(model, split), split.present_NM, split.y_N, "blobs, test")


def test_every_subset_is_scored_as_if_only_it_had_been_there(make_dataset):
    dataset = make_dataset(("a", "b", "c"), absent=0.4)
    model = build_model(dataset.modalities, dataset.num_classes, ModelSpec(width=16), seed=0)
    seen = seen_of(model, dataset.train)
    assert list(seen) == ["a", "b", "c", "a+b", "a+c", "b+c", "a+b+c"]
    keep = torch.tensor([True, False, True])
    present = dataset.train.present_NM & keep
    rows = present.any(dim=1)
    assert torch.equal(seen["a+c"].rows_N, rows)
    assert torch.equal(seen["a+c"].y_K, dataset.train.y_N[rows])
    assert 0 < metrics_of(seen["a+c"]).n == int(rows.sum()) < len(dataset.train)
    model.eval()
    with torch.no_grad():
        x = {name: images[rows] for name, images in dataset.train.x.items()}
        direct = model(x, present[rows]).softmax(dim=1)
    assert torch.allclose(seen["a+c"].probs_KC, direct, atol=1e-6)
    assert metrics_of(seen["a+c"]).accuracy == share_right(direct, dataset.train.y_N[rows])


def test_a_prediction_that_is_not_finite_is_not_scored(make_dataset):
    dataset = make_dataset()
    model = build_model(dataset.modalities, dataset.num_classes, ModelSpec(width=16), seed=0)
    model.encoders["right"].stages[1].running_mean.fill_(float("nan"))
    with pytest.raises(DivergenceError, match="blobs, test with right: 64 of 64 predictions are not finite"):
        seen_of(model, dataset.test)


def test_the_chunk_changes_nothing_but_rounding(make_dataset):
    dataset = make_dataset()
    model = build_model(dataset.modalities, dataset.num_classes, ModelSpec(width=16), seed=0)
    whole, parts = encode(model, dataset.test), encode(model, dataset.test, chunk=7)
    assert torch.allclose(whole, parts, atol=1e-5)
    present = dataset.test.present_NM
    assert torch.allclose(predict(model, whole, present), predict(model, whole, present, chunk=5), atol=1e-5)

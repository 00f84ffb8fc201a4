"""What a method did to the modalities: evaluators of balance equal slow, plain versions of their formulas."""

import math
from copy import deepcopy
from dataclasses import replace
from functools import partial
from itertools import permutations

import pytest
import torch
from sklearn.metrics import balanced_accuracy_score
from torch.nn.functional import cross_entropy

from mindgap.core.evaluation import encode, predict, predict_subsets
from mindgap.core.network import ModelSpec, build_model
from mindgap.data.dataset import Dataset, Split, subset_name, subsets
from mindgap.parts.evaluators import EVALUATORS
from mindgap.parts.evaluators.contract import Context, Predictions, check_rows

THREE = ("left", "middle", "right")


def measured(name: str, context: Context, split: Split, model=None, **settings) -> dict[str, float]:
    """The rows of an evaluator that the table can have, by name and subset."""
    rows = check_rows(name, EVALUATORS[name](model, split, context, **settings), context, "here")
    return {":".join(filter(None, [row["name"], row["subset"]])): row["value"] for row in rows}


def context_of(dataset: Dataset, seen, **changes) -> Context:
    known = {
        "train": dataset.train,
        "labelled_L": torch.arange(40),
        "start": 8,
        "validation_V": torch.arange(60, 130),
        "fit": {},
        "round": 1,
    }
    return Context(tuple(dataset.modalities), torch.zeros(0), seen, lambda *given: None, **known | changes)


def guessed(dataset: Dataset) -> dict[str, Predictions]:
    """Predictions drawn for each subset, the more modalities the better."""
    rng, split, found = torch.Generator().manual_seed(4), dataset.test, {}
    names = tuple(dataset.modalities)
    for subset in subsets(names):
        rows_N = split.present_NM[:, [names.index(name) for name in subset]].any(dim=1)
        y_K = split.y_N[rows_N]
        logits_KC = torch.randn((len(y_K), dataset.num_classes), generator=rng)
        logits_KC[torch.arange(len(y_K)), y_K] += 0.7 * len(subset)
        found[subset_name(subset, names)] = Predictions(rows_N, logits_KC.softmax(dim=1), y_K)
    return found


def with_holes(dataset: Dataset) -> Dataset:
    """A test set of which some samples lack modalities."""
    present_NM = dataset.test.present_NM.clone()
    present_NM[:12, 0] = False
    present_NM[8:20, 1:] = False
    present_NM[8:12, 1] = True
    return replace(dataset, test=replace(dataset.test, present_NM=present_NM))


@pytest.mark.parametrize("names", [("left",), ("left", "right"), THREE], ids=len)
def test_shapley_values_are_means_over_orders_and_add_up_to_what_is_above_chance(names, make_dataset):
    dataset = make_dataset(names)
    seen = guessed(dataset)
    found = measured("shapley", context_of(dataset, seen), dataset.test)
    value = {(): 1 / dataset.num_classes}
    for subset, one in seen.items():
        value[tuple(sorted(subset.split("+")))] = balanced_accuracy_score(one.y_K, one.probs_KC.argmax(1))
    gains: dict[str, list[float]] = {name: [] for name in names}
    for order in permutations(names):
        for place, name in enumerate(order):
            before, after = (tuple(sorted(order[:n])) for n in (place, place + 1))
            gains[name].append(value[after] - value[before])
    for name in names:
        assert found[f"shapley:{name}"] == pytest.approx(sum(gains[name]) / len(gains[name]), abs=1e-12)
    assert sum(found.values()) == pytest.approx(value[tuple(sorted(names))] - value[()], abs=1e-12)


def test_a_modality_that_nobody_has_leaves_no_shapley_value(make_dataset):
    dataset = make_dataset()
    dataset.test.present_NM[:, 1] = False
    seen = guessed(dataset)
    assert not len(seen["right"].y_K)
    assert measured("shapley", context_of(dataset, seen), dataset.test) == {}


def test_utilisation_and_the_shortcuts_failure_compare_the_same_samples(make_dataset):
    dataset = with_holes(make_dataset(THREE))
    split, seen = dataset.test, guessed(dataset)
    context = context_of(dataset, seen)
    used, failing = (measured(name, context, split) for name in ("utilisation", "shortcut_failure"))

    def answers(subset: str) -> torch.Tensor:
        """N: the class that is answered, -1 where nothing of the subset is there."""
        answer_N = torch.full_like(split.y_N, -1)
        answer_N[seen[subset].rows_N] = seen[subset].probs_KC.argmax(dim=1)
        return answer_N

    every_N, counted = answers("left+middle+right"), []
    for m, name in enumerate(THREE):
        rows = [n for n in range(len(split.y_N)) if split.present_NM[n, m] and split.present_NM[n].sum() > 1]
        counted.append(len(rows))
        rest_N, alone_N = answers("+".join(other for other in THREE if other != name)), answers(name)
        of_all, without = (
            balanced_accuracy_score(split.y_N[rows], answer_N[rows]) for answer_N in (every_N, rest_N)
        )
        assert used[f"utilisation:{name}"] == pytest.approx((of_all - without) / of_all)
        right = [n for n in rows if alone_N[n] == split.y_N[n]]
        wrong = [n for n in rows if alone_N[n] != split.y_N[n]]
        there, elsewhere = (
            sum(int(every_N[n] == split.y_N[n]) for n in some) / len(some) for some in (right, wrong)
        )
        assert failing[f"sfd:{name}"] == pytest.approx(there - elsewhere)
    assert counted == [44, 52, 52]  # 12 of the 64 have one modality alone


def test_what_is_not_defined_has_no_row(make_dataset):
    alone = make_dataset(("left",), absent=0.0)
    context = context_of(alone, guessed(alone))
    assert measured("utilisation", context, alone.test) == {}
    assert measured("shortcut_failure", context, alone.test) == {}
    dataset = make_dataset()
    y_N = dataset.test.y_N
    whole = torch.ones(len(y_N), dtype=torch.bool)
    wrong, right = (
        Predictions(whole, torch.eye(dataset.num_classes)[(y_N + shift) % dataset.num_classes], y_N)
        for shift in (1, 0)
    )
    context = context_of(dataset, {"left": right, "right": wrong, "left+right": wrong})
    assert measured("utilisation", context, dataset.test) == {}
    assert measured("shortcut_failure", context, dataset.test) == {}


def test_what_is_labelled_is_counted(make_dataset):
    dataset = make_dataset(THREE)
    dataset.train.present_NM[:4] = torch.tensor([[True, False, True]] * 3 + [[False, False, True]])
    dataset.train.y_N[:4] = torch.tensor([0, 0, 1, 2])
    context = context_of(dataset, guessed(dataset), labelled_L=torch.arange(4))
    entropy = (0.5 * math.log(2) + 2 * 0.25 * math.log(4)) / math.log(4)
    assert measured("acquired", context, dataset.test) == pytest.approx(
        {
            **{"presence:left": 0.75, "presence:middle": 0.0, "presence:right": 1.0},
            **{"class_entropy": entropy, "smallest_class": 0.0, "largest_class": 0.5},
        }
    )


@pytest.mark.parametrize("absent", ["skip", "zeros"])
def test_shares_of_the_gradient_are_those_of_one_plain_backward_pass(absent, make_dataset):
    dataset = make_dataset(absent=0.3)
    spec = ModelSpec(width=16, head_dropout=0.5, projection_dropout=0.2, absent=absent)
    model = build_model(dataset.modalities, dataset.num_classes, spec, seed=0)
    tokens_NMD = encode(model, dataset.test)
    seen = predict_subsets(model, tokens_NMD, dataset.test.present_NM, dataset.test.y_N, "here")
    context = replace(context_of(dataset, seen), predict=partial(predict, model))
    before = deepcopy(model.state_dict())
    random = torch.get_rng_state()
    with torch.no_grad():
        found = measured("gradient_share", context, dataset.test, model, samples=68)
    assert torch.equal(random, torch.get_rng_state())
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert all(weight.grad is None for weight in model.parameters())

    ids = context.validation_V[:68]
    x = {name: of_modality[ids] for name, of_modality in dataset.train.x.items()}
    cross_entropy(model.eval()(x, dataset.train.present_NM[ids]), dataset.train.y_N[ids]).backward()
    norms = []
    for name in dataset.modalities:
        parts = (model.encoders[name], model.projections[name])
        weights = torch.cat([w.grad.flatten() for part in parts for w in part.parameters()])
        norms.append(weights.double().norm().item())
    for name, norm in zip(dataset.modalities, norms, strict=True):
        assert found[f"gradient_share:{name}"] == pytest.approx(norm / sum(norms), rel=1e-4)
    assert sum(found.values()) == pytest.approx(1)
    if absent == "skip":  # who has no such sample has no gradient
        dataset.train.present_NM[ids] = torch.tensor([True, False])
        found = measured("gradient_share", context, dataset.test, model, samples=68)
        assert found == {"gradient_share:left": 1.0, "gradient_share:right": 0.0}

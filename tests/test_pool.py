from functools import partial

import numpy as np
import pytest
import torch

from mindgap.base.view import LabelledSamples, PoolView, ValidationSamples
from mindgap.core.evaluation import encode
from mindgap.core.loop import measured
from mindgap.core.network import ModelSpec, build_model
from mindgap.core.pool import Pool


def view_of(dataset, head_dropout=0.5, pool=range(20, 60), labelled=range(20), calls=None):
    model = build_model(
        dataset.modalities, dataset.num_classes, ModelSpec(width=16, head_dropout=head_dropout), seed=0
    )
    train, pool, labelled = dataset.train, torch.tensor(pool), torch.tensor(labelled)

    def counted(ids):
        if calls is not None:
            calls.append(len(ids))
        return encode(model, train, ids)

    of_labelled = model, lambda: counted(labelled), train.present_NM[labelled], train.y_N[labelled]
    view = PoolView(
        model,
        lambda: counted(pool),
        train.present_NM[pool],
        ids=pool,
        labelled=LabelledSamples(*of_labelled),
        validation=ValidationSamples(*of_labelled, partial(measured, model, "here")),
        history={},
        modalities=tuple(dataset.modalities),
        rng=torch.Generator().manual_seed(0),
        round=0,
        rounds=4,
    )
    return view, model, train.select(pool)


def test_labelling_moves_ids_out_of_the_pool_and_keeps_validation_out():
    pool = Pool(10, np.array([3, 1]), np.array([0, 9]))
    assert pool.ids.tolist() == [2, 4, 5, 6, 7, 8]
    pool.label(np.array([4, 2]))
    assert pool.labelled_ids.tolist() == [3, 1, 4, 2]
    assert pool.ids.tolist() == [5, 6, 7, 8]


@pytest.mark.parametrize("ids", [[3], [0], [5, 5]])
def test_labelling_what_is_labelled_set_aside_or_named_twice_is_refused(ids):
    pool = Pool(10, np.array([3, 1]), np.array([0, 9]))
    with pytest.raises(ValueError, match="not in the pool, or come twice"):
        pool.label(np.array(ids))


def test_a_view_encodes_once_and_only_when_asked(make_dataset):
    calls = []
    view, _, _ = view_of(make_dataset(), calls=calls)
    assert (len(view), view.size, view.num_classes, calls) == (40, 40, 4, [])
    view.probs_NC, view.fused_NH, view.tokens_NMD, view.probs_with(torch.tensor([True, False]))
    assert calls == [40]
    view.labelled_probs_LC, view.labelled_fused_LH, view.labelled_tokens_LMD  # noqa: B018
    assert calls == [40, 20]


def test_a_view_answers_as_the_model_in_eval_mode(make_dataset):
    view, model, rows = view_of(make_dataset())
    model.eval()
    with torch.no_grad():
        logits = model(rows.x, rows.present_NM)
        subset = model(rows.x, rows.present_NM & torch.tensor([False, True])).softmax(dim=1)
    assert torch.allclose(view.logits_NC, logits, atol=1e-5)
    assert torch.allclose(view.probs_NC.sum(dim=1), torch.ones(40))
    assert view.tokens_NMD[~rows.present_NM].abs().sum() == 0
    assert torch.allclose(view.probs_with(torch.tensor([False, True])), subset, atol=1e-5)
    assert torch.allclose(view.fused_NH @ view.head_weight_CH.T + view.head_bias_C, logits, atol=1e-5)


def test_one_product_of_stacked_heads_is_a_loop_of_dropout_passes(make_dataset):
    view, _, _ = view_of(make_dataset())
    log_probs = view.mc_log_probs_NKC(7)
    for k, mask_H in enumerate(view._masks[7]):
        logits = (view.fused_NH * mask_H) @ view.head_weight_CH.T + view.head_bias_C
        assert torch.allclose(log_probs[:, k], logits.log_softmax(dim=1), atol=1e-5)
    assert log_probs.std(dim=1).max() > 0
    # A chunk uses the masks of the others.
    assert torch.allclose(view.mc_log_probs_NKC(7, slice(10, 20)), log_probs[10:20], atol=1e-6)


def test_monte_carlo_dropout_without_dropout_is_refused(make_dataset):
    view, _, _ = view_of(make_dataset(), head_dropout=0.0)
    with pytest.raises(ValueError, match=r"set model\.head_dropout above 0"):
        view.mc_log_probs_NKC(5)


def test_a_view_shows_no_pool_labels(make_dataset):
    view, _, _ = view_of(make_dataset())
    assert view.oracle_y_N is None
    assert not [name for name in vars(view) if "y_N" in name and name != "oracle_y_N"]

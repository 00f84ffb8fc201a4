"""Quantile scaling and imputation, learnt from the training samples alone."""

import numpy as np
import pytest
from sklearn.preprocessing import QuantileTransformer

from mindgap.data.mimic.scaling import fit_scaler, hash_of


def values(n: int, seed: int) -> np.ndarray:
    """Skewed values with ties, one in four missing."""
    rng = np.random.default_rng(seed)
    x_NI = np.round(rng.lognormal(size=(n, 3)) * [0.5, 2, 40], 1)
    x_NI[rng.random(x_NI.shape) < 0.25] = np.nan
    return x_NI


def test_it_scales_as_scikit_learn_does():
    train_NI, test_NI = values(5000, 0), values(2000, 1)
    theirs = QuantileTransformer(n_quantiles=1000, subsample=None).fit(train_NI)
    ours = fit_scaler(train_NI, range(5000))
    for x_NI in (train_NI, test_NI):
        seen = np.isfinite(x_NI)
        assert np.allclose(ours.transform(x_NI)[seen], theirs.transform(x_NI)[seen], atol=1e-6)


def test_small_exact_values():
    x_NI = np.array([[1.0], [2.0], [3.0], [np.nan]])
    scaled_NI = fit_scaler(x_NI, range(4)).transform(
        np.array([[1.0], [2.0], [3.0], [-9.0], [99.0], [np.nan]])
    )
    assert np.allclose(scaled_NI[:, 0], [0, 0.5, 1, 0, 1, 0.5], atol=1e-6)
    assert scaled_NI.dtype == np.float32


def test_what_is_missing_gets_the_median_of_the_scaled_training_values():
    train_NI = values(500, 0)
    scaler = fit_scaler(train_NI, range(500))
    scaled_NI = scaler.transform(train_NI)
    for i in range(3):
        missing = np.isnan(train_NI[:, i])
        median = np.median(scaled_NI[~missing, i])
        assert scaled_NI[missing, i] == pytest.approx(median, abs=1e-6)
    assert np.isfinite(scaled_NI).all()
    assert (scaled_NI >= 0).all()
    assert (scaled_NI <= 1).all()


def test_a_lab_that_no_training_sample_has_carries_nothing():
    x_NI = np.array([[1.0, np.nan], [2.0, np.nan]])
    scaler = fit_scaler(x_NI, [1, 2])
    assert scaler.transform(np.array([[1.0, 7.0], [np.nan, np.nan]]))[:, 1].tolist() == [0.5, 0.5]
    assert scaler.seen_I.tolist() == [2, 0]


def test_of_equal_values_the_lowest_get_0_the_highest_1_and_others_the_middle():
    x_NI = np.array([[1.0]] * 3 + [[2.0]] * 2 + [[3.0]] * 4)
    scaled_NI = fit_scaler(x_NI, range(9)).transform(np.array([[1.0], [2.0], [3.0]]))
    assert np.allclose(scaled_NI[:, 0], [0, 3.5 / 8, 1], atol=1e-3)
    assert fit_scaler(x_NI[:2], [1, 2]).transform(x_NI[:1]).item() == 0


def test_it_says_on_whom_it_was_fitted():
    scaler = fit_scaler(values(3, 0), [30, 10, 20])
    assert scaler.n_fit == 3
    assert scaler.fit_sha256 == hash_of([10, 20, 30]) != hash_of([10, 20, 31])


def test_it_is_stored_whole(tmp_path):
    scaler = fit_scaler(values(100, 0), range(100))
    scaler.save(tmp_path / "scaler.npz")
    with np.load(tmp_path / "scaler.npz") as stored:
        assert np.array_equal(stored["quantiles_QI"], scaler.quantiles_QI)
        assert str(stored["fit_sha256"]) == scaler.fit_sha256

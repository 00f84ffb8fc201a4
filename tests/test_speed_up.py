"""Labels that Random needs for one of a method: exact small truths, and what is said where there is none."""

import math

import pandas as pd
import pytest

from mindgap.results.speed_up import SPEED_UP_COLUMNS, labels_needed, speed_up, speed_ups

LABELS = (10, 20, 30, 40)


def curves(**of_queries: list[tuple[float, ...]]) -> pd.DataFrame:
    """A setting of one modality: by query the accuracies of each seed."""
    rows = [
        ("missing", "low", "none", query, seed, "rare", labels, accuracy)
        for query, of_seeds in of_queries.items()
        for seed, accuracies in enumerate(of_seeds)
        for labels, accuracy in zip(LABELS, accuracies, strict=True)
    ]
    names = ["dataset", "regime", "mitigation", "query", "seed", "subset", "labelled", "balanced_accuracy"]
    return pd.DataFrame(rows, columns=names)


def test_labels_are_counted_to_the_first_time_an_accuracy_is_reached():
    curve = (0.1, 0.3, 0.2, 0.5)
    assert labels_needed(LABELS, curve, 0.1) == 10
    assert labels_needed(LABELS, curve, 0.25) == pytest.approx(17.5)
    assert labels_needed(LABELS, curve, 0.3) == 20
    assert labels_needed(LABELS, curve, 0.35) == pytest.approx(35)


def test_the_factor_of_a_written_out_pair_is_exact():
    random, method = (0.1, 0.2, 0.3, 0.4), (0.1, 0.3, 0.4, 0.4)
    # 0.2: 20 against 15 labels; 0.3: 30 against 20; 0.4: 40 against 30.
    expected = (20 / 15 * 30 / 20 * 40 / 30) ** (1 / 3)
    assert speed_up(LABELS, random, method) == pytest.approx(expected)
    assert speed_up(LABELS, method, random) == pytest.approx(1 / expected)
    assert speed_up(LABELS, random, random) == 1


def test_only_accuracies_above_the_start_that_both_reach_are_compared():
    # Up to 0.2, which Random has at 20 labels and the other at 40; beyond that there is nothing to say.
    assert speed_up(LABELS, (0.1, 0.2, 0.9, 0.9), (0.1, 0.1, 0.1, 0.2)) == pytest.approx(20 / 40)
    assert math.isnan(speed_up(LABELS, (0.1, 0.2, 0.3, 0.4), (0.1, 0.05, 0.1, 0.0)))


def test_a_row_is_of_the_mean_curve_of_common_seeds_and_has_the_range_of_single_ones():
    fast, slow = (0.1, 0.4, 0.4, 0.4), (0.1, 0.1, 0.1, 0.1)
    line = (0.1, 0.2, 0.3, 0.4)
    found = speed_ups(curves(random=[line, line], badge=[fast, slow, fast], presence_balanced=[fast]))
    assert list(found) == SPEED_UP_COLUMNS
    (row,) = found.to_dict("records")  # of no control, and of a third seed nothing
    assert (row["query"], row["n_seeds"], row["seeds_without"]) == ("badge", 2, 1)
    assert row["speed_up"] == pytest.approx(speed_up(LABELS, line, (0.1, 0.25, 0.25, 0.25)))
    assert row["seed_min"] == row["seed_max"] == pytest.approx(speed_up(LABELS, line, fast))
    assert row["remark"] == "the method never reaches Random's best: compared up to 0.250 of 0.400"


@pytest.mark.parametrize(
    ("random", "method", "remark"),
    [
        ((0.1, 0.2, 0.3, 0.4), (0.1, 0.1, 0.1, 0.1), "the method never above the start (0.100)"),
        ((0.1, 0.1, 0.1, 0.1), (0.1, 0.2, 0.3, 0.4), "Random never above the start (0.100)"),
        ((0.1, 0.1, 0.0, 0.1), (0.1, 0.1, 0.1, 0.1), "Random and the method never above the start (0.100)"),
    ],
)
def test_where_an_accuracy_is_never_reached_a_remark_stands_instead_of_a_number(random, method, remark):
    (row,) = speed_ups(curves(random=[random], badge=[method])).to_dict("records")
    assert math.isnan(row["speed_up"])
    assert row["remark"] == remark


def test_without_random_or_a_common_seed_there_is_no_factor():
    line = (0.1, 0.2, 0.3, 0.4)
    assert speed_ups(curves(badge=[line])).empty
    frame = curves(random=[line], badge=[line, line])
    (row,) = speed_ups(frame[(frame["query"] == "random") | (frame["seed"] == 1)]).to_dict("records")
    assert (row["n_seeds"], row["remark"]) == (0, "no seed of Random's")
    assert math.isnan(row["speed_up"])

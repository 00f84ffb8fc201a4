"""What of Missing-low at scale `paper` trains its rare modality: docs/decisions.md quotes it.

`pytest -s tests/test_missing_low.py` prints the numbers. Nothing is rendered: presence and labels are those
of a render with these parameters.
"""

from pathlib import Path

import numpy as np
import torch

from mindgap.base.modality import Modality
from mindgap.core.batches import Recipe, epoch_batches
from mindgap.core.loop import Cell, Run, start_and_validation_ids
from mindgap.core.params import load_params
from mindgap.core.rng import torch_rng
from mindgap.data.dataset import Dataset, Split
from mindgap.data.quintfeatures.images import Style
from mindgap.data.quintfeatures.render import draw_split
from mindgap.parts.mitigations import make_mitigation

PARAMS = load_params(Path(__file__).parents[1] / "params.yaml").model_copy(update={"scale": "paper"})
SETTING = PARAMS.setting("missing", "low")
SEEDS = range(10)
RARE = 0


def drawn() -> Dataset:
    """Missing as the parameters draw it, without its images."""
    splits, render = {}, PARAMS.at_scale.render
    for split, size in (("train", render.train_size), ("test", render.test_size)):
        latents = draw_split("missing", split, size, root_seed=render.root_seed, style=Style(**render.style))
        x = dict.fromkeys(("rare", "frequent"), torch.zeros((size, 1), dtype=torch.uint8))
        splits[split] = Split(x, torch.from_numpy(latents.present_NM), torch.from_numpy(latents.label_N))
    modalities = dict.fromkeys(("rare", "frequent"), Modality("image", (1, 1, 3)))
    return Dataset("missing", modalities, "rare", 10, {}, **splits, digest="0" * 64)


def share_of_steps(run: Run, present_LM: torch.Tensor, y_L: torch.Tensor) -> float:
    """The share of a training's steps in which enough rows have the rare modality."""
    recipe = Recipe(
        **SETTING.recipe.model_dump(exclude={"projection_dropout"}), **SETTING.training.model_dump()
    )
    rng = torch_rng(*run.key(0, "training"))
    mitigation = make_mitigation(run.cell.mitigation, run.mitigation_settings)
    trained = [
        int(mitigation.drop(present_LM[rows_B], rng)[:, RARE].sum()) >= SETTING.model.min_present
        for _ in range(recipe.epochs)
        for rows_B in epoch_batches(y_L, recipe, rng)
    ]
    return float(np.mean(trained))


def test_the_rare_modality_of_missing_low_trains_in_some_steps_and_not_in_others():
    dataset = drawn()
    rest = np.random.default_rng(0)
    table = []
    for seed in SEEDS:
        run = Run(Cell("missing", "low", "none", seed), SETTING, {}, {}, "", {})
        start, _, aside = start_and_validation_ids(run, dataset)
        pool = rest.permutation(np.setdiff1d(np.arange(len(dataset.train)), [*start, *aside]))
        labelled = np.concatenate([start, pool])  # as Random would go on
        row = [int(dataset.train.present_NM[start, RARE].sum())]
        for mitigation in ("none", "moddrop"):
            run = Run(Cell("missing", "low", mitigation, seed), SETTING, {}, {}, "", {})
            for labels in (50, 100, 200, 500):
                ids = torch.from_numpy(labelled[:labels])
                row.append(share_of_steps(run, dataset.train.present_NM[ids], dataset.train.y_N[ids]))
        table.append(row)
        print(f"seed {seed}: {row[0]} of 50 have it; steps", *(f"{share:.2f}" for share in row[1:]))
    counts, shares = np.array(table)[:, 0], np.array(table)[:, 1:]
    print("mean", counts.mean(), shares.mean(axis=0).round(2))
    assert (counts.min(), counts.max()) == (5, 10)
    # Below min_present, a cliff of our own, it never trains on the start set; with more labels it does.
    assert shares[:, 0].tolist() == (counts >= SETTING.model.min_present).tolist()
    assert shares[:, 1:4].min() >= 0.89
    assert 0.3 < shares[:, 4].mean() < 0.4
    assert shares[:, 5:].mean(axis=0).min() > 0.8

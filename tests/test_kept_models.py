"""Weights of a run's last round: kept on request, no number is changed, and loaded only if they are right."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from mindgap.core.evaluation import encode, metrics_of, predict_subsets
from mindgap.core.records import curve_points, seal, unseal
from mindgap.data.dataset import load_dataset
from mindgap.engine.kept import KeptModelError, load_model
from mindgap.parts.query import METHODS
from mindgap.stages.paths import places
from mindgap.stages.runs import acquire_stage
from small_project import params_in, working_copy

MISSING = places("missing")
MODELS = MISSING.runs / "missing-low" / "models"
ONE = MODELS / "random-moddrop-0"


@pytest.fixture
def done(finished, tmp_path, monkeypatch) -> Path:
    """A copy of the project whose four runs are finished, their models not kept, and of its store."""
    folder = working_copy(finished / "project", tmp_path, monkeypatch)
    shutil.copytree(finished / "store", tmp_path / "store")
    return folder


def acquire(project: Path, keep_models: str, **changes) -> None:
    acquire_stage(params_in(project, keep_models=keep_models, **changes), "missing", "low")


@pytest.fixture(scope="session")
def keeping(finished, once) -> Path:
    """The same with the models of one seed kept."""

    def fill(folder: Path) -> None:
        with pytest.MonkeyPatch.context() as patch:
            copy = working_copy(finished / "project", folder, patch)
            shutil.copytree(finished / "store", folder / "store")
            acquire(copy, "last", seeds=[0])

    return once("keeping", fill)


@pytest.fixture
def kept(keeping, tmp_path, monkeypatch) -> Path:
    folder = working_copy(keeping / "project", tmp_path, monkeypatch)
    shutil.copytree(keeping / "store", tmp_path / "store")
    return folder


def test_asking_for_models_later_trains_last_rounds_alone_and_gives_the_same_numbers(done, tmp_path, capsys):
    curves = MISSING.curves / "missing-low.csv"
    before, store = curves.read_bytes(), tmp_path / "store"
    earlier = {path: path.read_bytes() for path in store.glob("*/round_00[01].json")}
    acquire(done, "last")
    assert "acquire missing-low: 4 runs, 0 finished before, 4 begun" in capsys.readouterr().out
    assert curves.read_bytes() == before
    assert {path: path.read_bytes() for path in earlier} == earlier
    names = [f"{query}-moddrop-{seed}" for query in ("badge", "random") for seed in (0, 1)]
    assert sorted(p.name for p in MODELS.iterdir()) == sorted(
        f"{name}.{end}" for name in names for end in ("json", "safetensors")
    )
    acquire(done, "last")
    assert "4 runs, 4 finished before" in capsys.readouterr().out
    acquire(done, "none")
    assert "4 runs, 4 finished before" in capsys.readouterr().out
    assert not MODELS.exists()
    assert curves.read_bytes() == before


def test_a_kept_model_answers_as_its_record_says(kept):
    dataset = load_dataset(MISSING.prepared)
    for path in MODELS.glob("*.json"):
        record, model = unseal(path), load_model(path.with_suffix(""), dataset)
        assert not model.training
        test = dataset.test
        seen = predict_subsets(model, encode(model, test), test.present_NM, test.y_N, "here")
        for subset, point in curve_points(record).items():
            found = metrics_of(seen[subset])
            assert point == {name: getattr(found, name) for name in point}
        assert record["round"] == record["rounds"] - 1


def test_weights_that_are_damaged_in_the_store_are_trained_again(kept, tmp_path, capsys):
    record = unseal(ONE.with_suffix(".json"))
    stored = tmp_path / "store" / record["run"][:16] / "weights.safetensors"
    whole = stored.read_bytes()
    for damage in (lambda: stored.write_bytes(whole[:-8] + bytes(8)), stored.unlink):
        damage()
        acquire(kept, "last", seeds=[0])
        assert "acquire missing-low: 2 runs, 1 finished before, 1 begun" in capsys.readouterr().out
        assert stored.read_bytes() == whole == ONE.with_suffix(".safetensors").read_bytes()


def replaced(end: str, old: bytes, new: bytes) -> None:
    path = ONE.with_suffix(end)
    path.write_bytes(path.read_bytes().replace(old, new, 1))


def altered_record(**changes) -> None:
    body = unseal(ONE.with_suffix(".json"))
    ONE.with_suffix(".json").write_text(json.dumps(seal({**body, **changes})))


AGAIN = "dvc repro -f -s acquire@missing-low"
REFUSED = {
    "cut": (
        lambda: replaced(".safetensors", b"dtype", b"Dtype"),
        rf"0\.safetensors is not what was written with its record: .*{AGAIN}",
    ),
    "gone": (ONE.with_suffix(".safetensors").unlink, rf"0\.safetensors is missing: .*{AGAIN}"),
    "edited": (
        lambda: replaced(".json", b'"labelled": ', b'"labelled": 1'),
        rf"0\.json was changed after it was written .*{AGAIN}",
    ),
    "of another form": (
        lambda: altered_record(provenance=None),
        r"0\.json is of other code .*`dvc exp run -S keep_models=last`",
    ),
    "not kept": (lambda: shutil.rmtree(MODELS), "0 was not kept: run `dvc exp run -S keep_models=last`"),
}


@pytest.mark.parametrize(("damage", "message"), REFUSED.values(), ids=REFUSED)
def test_a_kept_model_that_is_not_what_was_written_is_refused(kept, damage, message):
    dataset = load_dataset(MISSING.prepared)
    damage()
    with pytest.raises(KeptModelError, match=message):
        load_model(ONE, dataset)


def test_weights_of_other_data_or_code_are_refused_by_name(kept, monkeypatch):
    dataset = load_dataset(MISSING.prepared)
    with pytest.raises(
        KeptModelError, match=r"random-moddrop-0\.safetensors is of other data than there is \("
    ):
        load_model(ONE, replace(dataset, digest="0" * 64))
    badge = MODELS / "badge-moddrop-0"
    with monkeypatch.context() as patch:
        patch.setitem(METHODS, "badge", METHODS["random"])
        with pytest.raises(
            KeptModelError, match=r"badge-moddrop-0\.safetensors is of other code than there is"
        ):
            load_model(badge, dataset)
        patch.delitem(METHODS, "badge")
        with pytest.raises(KeptModelError, match=r"badge-moddrop-0\.json is of other code .*'badge'"):
            load_model(badge, dataset)
    assert isinstance(load_model(badge, dataset), torch.nn.Module)

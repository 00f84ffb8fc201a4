"""Every dataset made from files from outside, through one common test, on small raw folders of real data."""

import json
from pathlib import Path

import pytest

from food101_raw import food101_raw
from mimic_raw import mimic_raw
from mindgap.data import SOURCES
from mindgap.data.dataset import load_dataset
from mindgap.data.errors import DataError, SourceMissing
from mindgap.data.presence import subset_name, subsets
from mindgap.results.expectations import validate_dataset
from share_raw import share_raw
from small_project import SMALL_SOURCES, small

PREPARED = Path(__file__).parents[1] / "reports/expectations/prepared"
RAW = {
    "share": lambda folder: share_raw(folder, per_class=20),
    "share_shortcut": lambda folder: share_raw(folder, per_class=20),
    "food101": lambda folder: food101_raw(folder, per_class_train=3, per_class_test=2),
    "mimic": mimic_raw,
}


def prepare(name: str, raw: Path, out: Path, workers: int = 1) -> Path:
    settings = small()["scales"]["tiny"]["prepare"][name]
    module = SOURCES[name].module
    module.prepare(raw, out, module.Settings(**settings), workers=workers, progress=False)
    return out


@pytest.fixture(scope="module", params=SOURCES)
def made(request, tmp_path_factory) -> tuple[str, Path, Path]:
    """A source's name, its raw folder and the dataset made from it."""
    folder = tmp_path_factory.mktemp(request.param)
    raw = RAW[request.param](folder / "raw")
    return request.param, raw, prepare(request.param, raw, folder / request.param)


def test_it_loads_and_says_what_it_is(made):
    name, _, folder = made
    source, dataset = SOURCES[name], load_dataset(folder)
    assert tuple(dataset.modalities) == source.modalities
    assert dataset.weak == source.weak
    assert set(dataset.ceilings) == {subset_name(s, source.modalities) for s in subsets(source.modalities)}
    assert len(dataset.train) > len(dataset.test) > 50
    assert set(dataset.train.y_N.tolist()) == set(range(dataset.num_classes))
    meta = json.loads((folder / "meta.json").read_text())
    assert len(meta["class_names"]) == dataset.num_classes


def test_its_expectations_hold_and_the_page_of_a_report_knows_each_of_them(made, tmp_path):
    name, _, folder = made
    validate_dataset(folder, PREPARED, tmp_path)
    pages = {f"flow-{name}.html", *(f"{name}_{part}-{name}.html" for part in SOURCES[name].checks)}
    assert {p.name for p in tmp_path.iterdir()} == pages


def test_it_does_not_depend_on_the_number_of_workers(made, tmp_path):
    name, raw, folder = made
    again = prepare(name, raw, tmp_path / name, workers=2)
    assert {p.name: p.read_bytes() for p in again.iterdir()} == {
        p.name: p.read_bytes() for p in folder.iterdir()
    }


@pytest.mark.parametrize("name", SOURCES)
def test_without_files_it_says_in_one_line_what_to_put_where_and_touches_nothing(name, tmp_path, monkeypatch):
    monkeypatch.setenv("MINDGAP_OFFLINE", "1")
    with pytest.raises(SourceMissing) as missing:
        prepare(name, SOURCES[name].raw, tmp_path / "out")
    line = str(missing.value)
    assert "\n" not in line
    assert str(SOURCES[name].raw) in line
    assert "licen" in line or "agreement" in line or "research" in line
    assert not (tmp_path / "out").exists()


def test_another_folder_can_be_named(monkeypatch):
    assert Path("data/raw/share") == SOURCES["share"].raw
    assert SOURCES["share_shortcut"].raw == SOURCES["share"].raw
    assert Path("data/mimic/raw") == SOURCES["mimic"].raw
    monkeypatch.setenv("MINDGAP_RAW_MIMIC", "/elsewhere")
    assert Path("/elsewhere") == SOURCES["mimic"].raw


def test_a_failing_table_is_named_with_its_dataset(made, tmp_path):
    name, _, folder = made
    broken = tmp_path / name
    broken.mkdir()
    for path in folder.iterdir():
        (broken / path.name).write_bytes(path.read_bytes())
    labels = broken / "test.label.npy"
    labels.write_bytes(labels.read_bytes()[:-8])
    with pytest.raises(DataError, match=r"test\.label\.npy is truncated"):
        validate_dataset(broken, PREPARED, tmp_path / "pages")


def test_small_settings_are_given_for_every_source():
    assert set(SMALL_SOURCES) == set(SOURCES) == set(RAW)

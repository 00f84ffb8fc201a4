import json
import shutil

import numpy as np
import pytest
import torch

from mindgap.data import RENDERED
from mindgap.data.dataset import Dataset, data_digest, load_dataset, subsets
from mindgap.data.errors import DataError
from mindgap.data.prepared import new_array
from mindgap.data.quintfeatures.images import Style
from mindgap.data.quintfeatures.render import render_dataset
from mindgap.data.storage import read_array, read_meta, seal_of, settings_of, verify_tables
from spoilt import spoil_meta

STYLE = Style(image_size=16, texture_period=0.25)
SIZES = {"train_size": 40, "test_size": 20}


@pytest.fixture(scope="module")
def rendered(tmp_path_factory):
    """Every rendered dataset, once; tests that break one copy it first."""
    folder = tmp_path_factory.mktemp("prepared")
    for name in RENDERED:
        render_dataset(name, folder / name, root_seed=1, style=STYLE, workers=1, progress=False, **SIZES)
    return folder


@pytest.fixture
def breakable(rendered, tmp_path):
    return shutil.copytree(rendered / "missing", tmp_path / "missing")


@pytest.mark.parametrize("name", RENDERED)
def test_a_dataset_loads_as_it_was_written(rendered, name):
    dataset = load_dataset(rendered / name)
    assert dataset.name == name
    assert tuple(dataset.modalities) == RENDERED[name].modalities
    assert dataset.weak == RENDERED[name].weak
    assert dataset.num_classes == RENDERED[name].num_classes
    assert {m.shape for m in dataset.modalities.values()} == {(16, 16, 3)}
    assert list(dataset.ceilings) == ["+".join(subset) for subset in subsets(dataset.modalities)]
    assert dataset.digest == data_digest(rendered / name)
    for split, size in ((dataset.train, 40), (dataset.test, 20)):
        assert len(split) == size
        assert list(split.x) == list(dataset.modalities)
        assert split.present_NM.shape == (size, len(dataset.modalities))
        assert (split.present_NM.dtype, split.y_N.dtype) == (torch.bool, torch.int64)
        assert all(x.dtype == torch.uint8 and x.shape == (size, 16, 16, 3) for x in split.x.values())
    assert dataset.test.present_NM.all()
    first = next(iter(dataset.modalities))
    images = np.load(rendered / name / f"train.{first}.npy")
    assert np.array_equal(dataset.train.x[first].numpy(), images)


def test_select_and_to_keep_rows_together(rendered):
    dataset = load_dataset(rendered / "trio", verify=False).to("cpu")
    assert isinstance(dataset, Dataset)
    ids = torch.tensor([7, 3, 3])
    part = dataset.train.select(ids)
    assert len(part) == 3
    assert torch.equal(part.y_N, dataset.train.y_N[ids])
    assert all(torch.equal(part.x[name], dataset.train.x[name][ids]) for name in dataset.modalities)


# Of the arrays as they were before label values and styles could be asked for.
DIGESTS = {
    "missing": "31952cf3e6da68d9120143f03304885413b0dc5d50e487290893fe16fd37d3ee",
    "unique": "41fb898a02f02a2121669710f5c8384fcc10235b0d24e1bd0610a2b6c84b59ec",
    "synergy": "13be96cc34b162c2da7dab5b9d5d0725b299908861a8bc313641a434b49e30b0",
    "trio": "56e6943dbc382540a31c3377c14ab1b2e26b998612d7e9826c5e46d6b187f264",
}


def test_a_dataset_of_which_nothing_is_asked_is_what_it_always_was(rendered):
    assert {name: data_digest(rendered / name) for name in DIGESTS} == DIGESTS


def test_a_folder_from_before_has_ten_values_and_one_style(breakable):
    meta = json.loads((breakable / "meta.json").read_text())
    older = {key: value for key, value in meta.items() if key not in ("label_values", "own_style")}
    (breakable / "meta.json").write_text(json.dumps({**older, "meta_sha256": seal_of(older)}))
    assert settings_of(read_meta(breakable)) == settings_of(meta)
    assert settings_of(meta)["prepare"] == {
        "absence": {"rare": 0.9, "frequent": 0.1},
        "label_values": 10,
        "style": {},
    }


def test_digests_differ_between_datasets_and_not_between_copies(rendered, breakable):
    digests = {name: data_digest(rendered / name) for name in RENDERED}
    assert len(set(digests.values())) == len(RENDERED)
    assert data_digest(breakable) == digests["missing"]


def test_a_missing_folder_or_file_is_named_with_its_mend(breakable):
    with pytest.raises(DataError, match=r"nowhere.meta\.json is missing: run `dvc checkout"):
        load_dataset(breakable / "nowhere")
    (breakable / "test.rare.npy").unlink()
    with pytest.raises(DataError, match=r"test\.rare\.npy is missing: .*dvc repro -f prepare@missing"):
        load_dataset(breakable, verify=False)


@pytest.mark.parametrize("keep", [0, 60, 5000])
def test_a_truncated_file_is_named(breakable, keep):
    file = breakable / "train.frequent.npy"
    file.write_bytes(file.read_bytes()[:keep])
    with pytest.raises(DataError, match=r"train\.frequent\.npy is truncated or no array .*prepare@missing"):
        load_dataset(breakable, verify=False)


def test_an_altered_file_is_named(breakable):
    file = breakable / "train.rare.npy"
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    with pytest.raises(
        DataError, match=r"train\.rare\.npy was altered: its SHA-256 is not the one in meta\.json"
    ):
        load_dataset(breakable)
    load_dataset(breakable, verify=False)


def test_a_wrong_dtype_shape_or_content_is_named(breakable):
    present = np.load(breakable / "train.present.npy")
    np.save(breakable / "train.present.npy", present.astype(np.uint8))
    with pytest.raises(DataError, match=r"train\.present\.npy holds uint8 \(40, 2\), not bool \(40, 2\)"):
        load_dataset(breakable)
    np.save(breakable / "train.present.npy", np.zeros_like(present))
    with pytest.raises(DataError, match=r"train\.present\.npy has samples without any modality"):
        load_dataset(breakable, verify=False)
    np.save(breakable / "train.present.npy", present)
    np.save(breakable / "test.label.npy", np.full(20, 10))
    with pytest.raises(DataError, match=r"test\.label\.npy has labels outside 0\.\.9"):
        load_dataset(breakable, verify=False)


def test_a_broken_meta_is_named(breakable):
    for change, message in (
        ({"format": 99}, "has format 99, not 3"),
        ({"sha256": {}}, r"has no sha256 for train\.rare\.npy"),
        (
            {"modalities": {"rare": {"kind": "smell", "shape": [1]}}},
            "unknown kind of modality 'smell'; known: im",
        ),
    ):
        before = (breakable / "meta.json").read_text()
        spoil_meta(breakable, **change)
        with pytest.raises(DataError, match=message):
            load_dataset(breakable)
        (breakable / "meta.json").write_text(before)
    for text in ("{", "", "null", "[1]"):
        (breakable / "meta.json").write_text(text)
        with pytest.raises(DataError, match=r"meta\.json (is not JSON|has format None).*prepare@missing"):
            load_dataset(breakable)


@pytest.mark.parametrize(
    "change",
    [{"ceilings": {"rare": 0.5}}, {"weak": "frequent"}, {"root_seed": 3}, {"num_classes": 9}, {"new": 1}],
)
def test_an_edit_of_the_meta_is_refused_and_another_layout_is_none(breakable, change):
    file = breakable / "meta.json"
    meta = json.loads(file.read_text())
    file.write_text(json.dumps(dict(reversed(meta.items()))))
    load_dataset(breakable)
    file.write_text(json.dumps({**meta, **change}))
    with pytest.raises(DataError, match=r"meta\.json was altered: .*meta_sha256.*prepare@missing"):
        load_dataset(breakable)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_classes": 11}, "num_classes is 11, but there are 10 class_names"),
        ({"sizes": {"train": 40}}, "sizes are of train, not of train, test"),
        ({"sizes": None}, "sizes: Input should be a valid dictionary"),
        ({"modalities": []}, "modalities: Input should be a valid dictionary"),
        ({"ceilings": {"rare": 2.0}}, r"ceilings\.rare: .*less than or equal to 1"),
    ],
)
def test_a_meta_with_a_right_checksum_and_a_wrong_form_is_refused(breakable, changes, message):
    spoil_meta(breakable, **changes)
    with pytest.raises(DataError, match=rf"meta\.json describes no dataset: {message}.*dvc checkout"):
        load_dataset(breakable)


def test_a_line_of_a_skipped_dataset_beside_data_is_none(breakable):
    (breakable / "skipped.txt").write_text("left over")
    assert load_dataset(breakable).name == "missing"


def test_the_tables_beside_the_arrays_are_verified(breakable):
    meta = read_meta(breakable)
    assert set(meta["tables_sha256"]) == {"attributes.csv", "flow.csv"}
    verify_tables(breakable, meta)
    table = breakable / "attributes.csv"
    table.write_text(table.read_text().replace("train", "test", 1))
    with pytest.raises(DataError, match=r"attributes\.csv was altered"):
        verify_tables(breakable, meta)


def make_directory(file):
    file.mkdir()


def make_dangling(file):
    file.symlink_to("nowhere")


def make_loop(file):
    file.symlink_to(file.name)


def make_latin(file):
    file.write_bytes("é".encode("latin-1"))


@pytest.mark.parametrize("name", ["meta.json", "train.rare.npy", "test.label.npy", "skipped.txt"])
@pytest.mark.parametrize("spoil", [make_directory, make_dangling, make_loop, make_latin])
def test_what_cannot_be_read_is_one_line_with_file_and_mend(breakable, name, spoil):
    (breakable / name).unlink(missing_ok=True)
    spoil(breakable / name)
    with pytest.raises(DataError) as error:
        load_dataset(breakable)
    line = str(error.value)
    assert "\n" not in line
    assert str(breakable / name) in line
    assert "dvc repro -f prepare@missing" in line
    assert (f"`rm {breakable / name}`" in line) == (spoil is make_loop)


def test_a_folder_that_is_a_link_in_a_circle_is_one_line_with_the_way_out(breakable):
    shutil.rmtree(breakable)
    breakable.symlink_to(breakable.name)
    with pytest.raises(DataError, match=r"cannot be read \(Too many.*`rm \S+missing`\) and run `dvc"):
        load_dataset(breakable)


def test_arrays_stay_on_disk_and_what_is_written_to_them_in_memory(rendered):
    file, meta = "train.frequent.npy", read_meta(rendered / "missing")
    assert isinstance(read_array(rendered / "missing", file, meta, mmap=True), np.memmap)
    before = (rendered / "missing" / file).read_bytes()
    load_dataset(rendered / "missing").train.x["frequent"].fill_(7)
    assert (rendered / "missing" / file).read_bytes() == before
    assert not (load_dataset(rendered / "missing").train.x["frequent"] == 7).all()


def test_the_room_of_an_array_is_taken_before_it_is_written(tmp_path):
    array = new_array(tmp_path / "a.npy", np.uint8, (1000, 4096))
    assert (tmp_path / "a.npy").stat().st_blocks * 512 >= array.nbytes
    array[-1] = 7
    array.flush()
    assert np.load(tmp_path / "a.npy").sum() == 7 * 4096
    with pytest.raises(DataError, match=r"b\.npy cannot be written \(.*: make room for 1,125,899,906"):
        new_array(tmp_path / "b.npy", np.uint8, (1 << 50,))

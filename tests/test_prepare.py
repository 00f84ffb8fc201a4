"""The prepare stage: what was prepared survives whatever happens; what is not asked for is refused."""

import contextlib
import json
import shutil
from pathlib import Path

import pytest
import yaml

from clone import Clone
from mindgap.base.errors import MindGapError, ParamsError
from mindgap.core.loop import Cell
from mindgap.core.params import Params
from mindgap.data.errors import DataError, SourceMissing
from mindgap.data.prepared import swapped_in
from mindgap.data.storage import mend
from mindgap.results.expectations import ExpectationFailed
from mindgap.stages.blueprint import code_of, load_prepared, write_blueprints
from mindgap.stages.paths import FLOW, places
from mindgap.stages.prepare import prepare_stage
from mindgap.stages.report import left_over
from mindgap.stages.runs import run_of
from share_raw import share_raw
from small_project import params_in, small, working_copy
from spoilt import spoil_array, spoil_meta

RAW = Path("data/raw/share")
SHARE = Path("data/prepared/share")
MISSING = Path("data/prepared/missing")


def content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def changed(project: Path, **entries) -> Params:
    """The small parameters with other entries of scales.tiny, by dotted key."""
    raw = small(dataset=["missing", "share"])
    for key, value in entries.items():
        *outer, last = key.split("__")
        block = raw["scales"]["tiny"]
        for part in outer:
            block = block[part]
        block[last] = value
    return params_in(project, **raw)


@pytest.fixture(scope="module")
def with_share(prepared, tmp_path_factory) -> Path:
    """The prepared project with Share in it, and its raw files."""
    folder = tmp_path_factory.mktemp("share") / "project"
    shutil.copytree(prepared, folder)
    with contextlib.chdir(folder):
        share_raw(RAW, per_class=20)
        prepare_stage(params_in(folder, dataset=["missing", "share"]), "share")
    return folder


@pytest.fixture
def share(with_share, tmp_path, monkeypatch) -> Path:
    """A copy of that project as the working folder, offline."""
    monkeypatch.setenv("MINDGAP_OFFLINE", "1")
    return working_copy(with_share, tmp_path, monkeypatch)


# -- a dataset whose files are gone


def test_without_its_files_a_dataset_that_is_what_is_asked_for_is_checked_and_kept(share, capsys):
    shutil.rmtree(RAW)
    before, flow = content(SHARE), (FLOW / "share.csv").read_bytes()
    (FLOW / "share.csv").unlink()
    shutil.rmtree(places("share").validation)
    prepare_stage(changed(share), "share")
    assert content(SHARE) == before
    assert (FLOW / "share.csv").read_bytes() == flow
    assert "share: its files are not here; what was prepared from them is what is asked for" in (
        capsys.readouterr().out
    )
    assert list(places("share").validation.glob("share_*.html"))


def spoil_settings(project, monkeypatch):
    return changed(project, prepare__share__seed=7)


def spoil_code(project, monkeypatch):
    code = json.loads((SHARE / "meta.json").read_text())["code"]
    spoil_meta(SHARE, code={**code, "data/share/pairs.py": "0" * 64})
    return changed(project)


def spoil_table(project, monkeypatch):
    (SHARE / "pairs.csv").write_text("altered")
    return changed(project)


def spoil_seal(project, monkeypatch):
    (SHARE / "meta.json").write_text("{}")
    return changed(project)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (
            spoil_settings,
            r"left as it is, but settings\.seed is 2603, but scales\.tiny\.prepare\.share\.seed says 7",
        ),
        (spoil_code, r"data/share/pairs\.py.*`dvc commit -f prepare@share`"),
        (spoil_table, r"pairs\.csv was altered.*dvc checkout -f data/prepared/share"),
        (spoil_seal, r"meta\.json has format None.*prepare@share`, once its files are there: put CIFAR-10"),
    ],
)
def test_without_its_files_a_dataset_that_is_not_is_refused_and_left_as_it_is(
    share, monkeypatch, spoil, message
):
    shutil.rmtree(RAW)
    params = spoil(share, monkeypatch)
    before, flow = content(SHARE), (FLOW / "share.csv").read_bytes()
    with pytest.raises(MindGapError, match=message):
        prepare_stage(params, "share")
    assert content(SHARE) == before
    assert (FLOW / "share.csv").read_bytes() == flow


def test_a_dataset_of_which_only_the_flow_table_is_left_is_not_skipped_over(share):
    shutil.rmtree(RAW)
    shutil.rmtree(SHARE)
    flow = (FLOW / "share.csv").read_bytes()
    with pytest.raises(SourceMissing, match=r"dvc checkout -f prepare@share.*dvc pull prepare@share"):
        prepare_stage(changed(share), "share")
    assert (FLOW / "share.csv").read_bytes() == flow
    assert not SHARE.exists()
    (FLOW / "share.csv").unlink()  # the last mend of the message
    for _ in range(2):
        prepare_stage(changed(share), "share")
        assert [path.name for path in SHARE.iterdir()] == ["skipped.txt"]


def test_files_that_come_later_replace_what_was_skipped(share, with_share):
    shutil.rmtree(SHARE)
    (FLOW / "share.csv").unlink()
    RAW.rename("elsewhere")
    prepare_stage(changed(share), "share")
    Path("elsewhere").rename(RAW)
    prepare_stage(changed(share), "share")
    assert content(SHARE) == content(with_share / SHARE)


def test_a_temporary_workspace_reads_the_files_of_the_checkout(share, with_share, monkeypatch, tmp_path):
    shutil.rmtree(RAW)
    shutil.rmtree(SHARE)
    monkeypatch.setenv("DVC_ROOT", str(with_share))
    prepare_stage(changed(share), "share")
    assert content(SHARE) == content(with_share / SHARE)


# -- a dataset that fails, and a process that is killed


@pytest.mark.parametrize(
    ("dataset", "suite"), [("missing", "rendered_attributes"), ("share", "share_images")]
)
def test_one_that_fails_its_suite_never_takes_the_place_of_a_good_one(share, dataset, suite):
    path = Path(f"reports/expectations/prepared/{suite}.json")
    spec = json.loads(path.read_text())
    spec["expectations"].append(
        {
            "type": "expect_column_values_to_be_between",
            "kwargs": {"column": "label", "max_value": -1},
            "meta": {"notes": "No label is that low."},
        }
    )
    path.write_text(json.dumps(spec))
    folder = places(dataset).prepared
    before = content(folder)
    params = changed(share, render__root_seed=1, prepare__share__seed=1)
    with pytest.raises(ExpectationFailed) as failure:
        prepare_stage(params, dataset)
    assert content(folder) == before
    assert sorted(p.name for p in folder.parent.iterdir() if p.name.startswith(".")) == []
    message = str(failure.value)
    for part in (
        str(path),
        "label",
        "No label is that low",
        "stays as it is",
        f"dvc repro prepare@{dataset}",
    ):
        assert part in message


def test_a_process_killed_between_two_renames_loses_nothing(share):
    before = content(MISSING)
    old = Path("data/prepared/.missing.partial/old/missing")
    old.parent.mkdir(parents=True)
    MISSING.rename(old)
    with pytest.raises(RuntimeError), swapped_in(MISSING):
        raise RuntimeError
    assert content(MISSING) == before
    assert not old.parent.parent.exists()


# -- links


def test_a_dataset_can_be_a_link_to_another_disk(share, tmp_path):
    disk = tmp_path / "disk/large"
    shutil.move(MISSING, disk)
    MISSING.symlink_to(disk)
    prepare_stage(changed(share, render__root_seed=1), "missing")
    assert MISSING.is_symlink()
    assert json.loads((disk / "meta.json").read_text())["root_seed"] == 1
    assert [path.name for path in disk.parent.iterdir()] == ["large"]
    load_prepared(changed(share, render__root_seed=1), "missing")


@pytest.mark.parametrize("target", ["nowhere", "missing", "../raw/share/mnist/t10k-labels-idx1-ubyte.gz"])
def test_a_link_to_no_folder_is_refused(share, target):
    shutil.rmtree(MISSING)
    MISSING.symlink_to(target)
    with pytest.raises(DataError, match=r"data/prepared/missing is a link to no folder: .*remove the link"):
        prepare_stage(changed(share), "missing")
    assert str(MISSING.readlink()) == target


# -- what is asked for


def edited_seed(params):
    spoil_meta(MISSING, root_seed=7)


def other_folder(params):
    shutil.rmtree(MISSING)
    shutil.copytree(SHARE, MISSING)


def other_ceilings(params):
    spoil_meta(MISSING, ceilings={"rare": 0.5, "frequent": 1.0, "rare+frequent": 1.0})


def other_style(params):
    meta = json.loads((MISSING / "meta.json").read_text())
    spoil_meta(MISSING, style={**meta["style"], "image_size": 17})


def other_absence(params):
    spoil_meta(MISSING, absence={"rare": 0.9})


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (edited_seed, r"root_seed is 7, but scales\.tiny\.render\.root_seed says 2603"),
        (other_folder, r"dataset is 'share', but .* says 'missing'"),
        (other_ceilings, r"ceilings\.rare is 0\.5, but its declaration in src/mindgap/data says 1\.0"),
        (other_style, r"style\.image_size is 17, but scales\.tiny\.render\.image_size says 16"),
        (
            other_absence,
            r"absence\.frequent is None, but scales\.tiny\.prepare\.missing\.absence\.frequent says 0\.1",
        ),
    ],
)
def test_data_that_is_not_what_the_parameters_ask_for_is_refused(share, spoil, message):
    params = changed(share)
    load_prepared(params, "missing")
    spoil(params)
    with pytest.raises(DataError, match=rf"meta\.json: {message}.*`dvc repro -f prepare@missing`"):
        load_prepared(params, "missing")


def test_a_run_is_another_where_its_recipe_says_more(share):
    recipe = small()["scales"]["tiny"]["recipe"]["missing"]["all"]
    cell, dataset = Cell("missing", "low", "none", 0), load_prepared(changed(share), "missing")
    draws = {"recipe__missing__low": {**recipe, "min_samples_per_epoch": 64}}
    same, other = {"recipe__missing__low": recipe}, run_of(changed(share, **draws), cell, dataset)
    assert run_of(changed(share, **same), cell, dataset) == run_of(changed(share), cell, dataset)
    assert other.digest != run_of(changed(share), cell, dataset).digest
    assert other.provenance["settings"]["setting"]["training"]["min_samples_per_epoch"] == 64


def test_parameters_that_ask_for_other_data_are_refused(share):
    for dataset, entry, message in (
        ("missing", {"render__train_size": 250}, r"sizes\.train is 200, but .*render\.train_size says 250"),
        (
            "missing",
            {"prepare__missing__style": {"rare": {"erase": [0.1, 0.4]}}},
            r"own_style\.rare is None, but scales\.tiny\.prepare\.missing\.style\.rare says",
        ),
        (
            "share",
            {"prepare__share__mirror_digits": True},
            r"settings\.mirror_digits is False, but .* says True",
        ),
    ):
        with pytest.raises(DataError, match=message):
            load_prepared(changed(share, **entry), dataset)


def test_an_array_that_is_not_what_was_written_is_refused(share):
    spoil_array(MISSING, "train.label.npy", lambda label_N: label_N + 100)
    with pytest.raises(DataError, match="labels outside"):
        load_prepared(changed(share), "missing")


def test_an_unknown_dataset_is_answered_with_the_known_ones(share):
    with pytest.raises(
        ParamsError, match=r"unknown 'mising'; known in .*: missing, unique, synergy, trio, share"
    ):
        prepare_stage(changed(share), "mising")


def test_the_mend_names_the_dataset_and_not_the_folder_in_which_it_is_made():
    aside = Path("data/prepared/.share.partial/share")
    assert mend(aside) == mend(SHARE)
    assert "`dvc checkout -f data/prepared/share`" in mend(SHARE)
    assert mend(Path("data/mimic/prepared/mimic")).startswith(
        "in data/mimic run `dvc checkout -f prepared/mimic`"
    )


# -- what a stage depends on


def test_a_dataset_depends_on_its_own_code(share):
    renderer = {f"data/quintfeatures/{name}.py" for name in ("render", "images", "pairing", "colors")}
    readers = {f"data/{name}.py" for name in ("share/pairs", "share/cifar10", "share/mnist", "fetch")}
    assert renderer <= set(code_of("missing"))
    assert readers <= set(code_of("share"))
    for dataset in ("missing", "trio"):
        assert not [
            path for path in code_of(dataset) if path in readers or "food101" in path or "mimic" in path
        ]
    for dataset in ("share", "food101", "mimic"):
        assert not renderer & set(code_of(dataset))
        assert "data/prepared.py" in code_of(dataset)
        assert not {"data/contact_sheet.py", "base/progress.py"} & set(code_of(dataset))


def test_a_blueprint_changes_with_what_its_dataset_is_made_by_and_nothing_else(share):
    def written(params: Params) -> dict[str, bytes]:
        write_blueprints(params)
        return content(Path("data/blueprints"))

    first = written(changed(share))
    assert set(first) == {"missing.json", "plug_ins.json", "share.json"}
    assert written(changed(share, training__momentum=0.5)) == first
    rendered = written(changed(share, render__train_size=250))
    assert rendered["share.json"] == first["share.json"]
    assert rendered["missing.json"] != first["missing.json"]
    paired = written(changed(share, prepare__share__seed=7))
    assert paired["missing.json"] == first["missing.json"]
    assert paired["share.json"] != first["share.json"]
    for entry in ({"label_values": 5}, {"style": {"rare": {"erase": [0.1, 0.4]}}}):
        (own,) = entry.items()
        asked = written(changed(share, **{f"prepare__missing__{own[0]}": own[1]}))
        assert asked["missing.json"] != first["missing.json"]
        assert asked["share.json"] == first["share.json"]
    suite = Path("reports/expectations/prepared/share_pairs.json")
    suite.write_text(suite.read_text() + "\n")
    suited = written(changed(share))
    assert suited["missing.json"] == first["missing.json"]
    assert suited["share.json"] != first["share.json"]


# -- what other selections left


def test_files_of_results_that_the_parameters_name_no_more_are_listed(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in (
        "curves/missing-low.csv",
        "curves/missing-mid.csv",
        "provenance/share-low.json",
        "flow/share.csv",
    ):
        path = Path("reports") / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("")
    params = params_in(tmp_path, dataset=["missing"], regime=["low"])
    left = ["reports/curves/missing-mid.csv", "reports/flow/share.csv", "reports/provenance/share-low.json"]
    assert [str(path) for path in left_over(params)] == left
    assert len(left_over(params_in(tmp_path, dataset=["missing", "share"], regime=["low", "mid"]))) == 0


# -- with DVC, as a user goes


@pytest.fixture(scope="module")
def clone(reproduced, tmp_path_factory) -> Clone:
    """A clone of which the data stages have run, committed, and its raw files are away since."""
    clone = reproduced.copied(tmp_path_factory.mktemp("prepare") / "clone")
    clone.set(dataset=["missing", "share"])
    file = clone.folder / "dvc.yaml"
    stages = yaml.safe_load(file.read_text())["stages"]
    file.write_text(yaml.safe_dump({"stages": {name: stages[name] for name in ("check_params", "prepare")}}))
    share_raw(clone.folder / RAW, per_class=20)
    clone.run("dvc", "repro")
    clone.commit("Prepared")
    (clone.folder / RAW).rename(clone.folder / "data/raw/away")
    return clone


@pytest.mark.slow
def test_repro_without_raw_files_leaves_a_prepared_dataset_in_place(clone):
    share, flow = clone.folder / SHARE, clone.folder / FLOW / "share.csv"
    lock = (clone.folder / "dvc.lock").read_text().split("prepare@share")[1]
    before, counts = content(share), flow.read_bytes()
    # What cannot change its bytes does not touch it.
    for name in ("contact_sheet", "share/pairs", "quintfeatures/images"):
        with (clone.folder / f"src/mindgap/data/{name}.py").open("a") as file:
            file.write("\n# A comment.\n")
    with (clone.folder / "src/mindgap/data/contact_sheet.py").open("a") as file:
        file.write("\n\nGAP = 15\n")
    output = clone.run("dvc", "repro")
    assert "Running stage 'check_params'" in output
    assert "Running stage 'prepare" not in output
    with (clone.folder / "src/mindgap/data/quintfeatures/colors.py").open("a") as file:
        file.write("\n\nMORE = 1\n")
    output = clone.run("dvc", "exp", "run", "-S", "scales.tiny.render.train_size=210")
    assert "Running stage 'prepare@missing'" in output
    assert "Running stage 'prepare@share'" not in output
    assert content(share) == before
    assert (clone.folder / "dvc.lock").read_text().split("prepare@share")[1].split("\n  prepare")[0] in lock
    # What would change them stops the stage; data, table and lock stay.
    clone.git("checkout", "-q", ".")
    seed = "scales.tiny.prepare.share.seed"
    output = clone.run("dvc", "exp", "run", "-S", f"{seed}=7", expect=1)
    assert f"left as it is, but settings.seed is 2603, but {seed} says 7" in output
    assert content(share) == before
    assert flow.read_bytes() == counts
    clone.git("checkout", "-q", ".")


@pytest.mark.slow
def test_mends_that_are_printed_work(clone):
    share = clone.folder / SHARE
    before = content(share)
    # Gone: brought back from the cache.
    shutil.rmtree(share)
    assert "dvc checkout -f prepare@share" in clone.run("dvc", "repro", expect=1)
    clone.run("dvc", "checkout", "-f", "prepare@share")
    assert content(share) == before
    # Altered.
    (share / "meta.json").write_text("{}")
    clone.run("dvc", "checkout", "-f", "data/prepared/share")
    assert content(share) == before
    # Other code of its own, which leaves the data the same.
    with (clone.folder / "src/mindgap/data/share/labelled.py").open("a") as file:
        file.write("\n\nUNUSED = 1\n")
    assert "`dvc commit -f prepare@share`" in clone.run("dvc", "repro", expect=1)
    assert content(share) == before
    _, output = clone.dvc(("commit", "-f", "prepare@share"), ("repro",))
    assert "Running stage" not in output
    # A suite of its own: checked and kept.
    suite = clone.folder / "reports/expectations/prepared/share_pairs.json"
    suite.write_text(suite.read_text() + "\n")
    clone.git("checkout", "-q", "src")
    clone.run("dvc", "repro")
    assert content(share) == before
    # The files again: a queued experiment finds those of the checkout.
    (clone.folder / "data/raw/away").rename(clone.folder / RAW)
    clone.run("dvc", "exp", "run", "--temp", "-n", "seven", "-S", "scales.tiny.prepare.share.seed=7")
    assert content(share) == before
    clone.git("checkout", "-q", ".")
    clone.run("dvc", "exp", "apply", "seven")
    assert json.loads((share / "meta.json").read_text())["settings"]["seed"] == 7

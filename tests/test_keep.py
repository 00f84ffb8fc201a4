"""Kept records: copied once they are complete, and a report made from them alone, the same each time."""

import contextlib
import errno
import itertools
import json
import os
import re
import shutil
import sys
from pathlib import Path

import pytest
import yaml

from mindgap.base.errors import MindGapError, ParamsError
from mindgap.core.params import load_kept, load_params
from mindgap.core.records import digest_of, seal, text_digest
from mindgap.results.reading import ReportError
from mindgap.stages.keep import keep_stage
from mindgap.stages.report import (
    MARKERS,
    kept_report_stage,
    kept_selection,
    record_files,
    report_stage,
    restore_kept,
    set_aside,
)
from mindgap.stages.runs import acquire_stage, train_stage
from small_project import ROOT, params_in, small, working_copy
from test_cli import run as command

KEPT = Path("reports/reference")


@pytest.fixture
def project(finished, tmp_path, monkeypatch) -> Path:
    """A project with four runs as the working folder."""
    return working_copy(finished / "project", tmp_path, monkeypatch)


@pytest.fixture
def kept(project):
    """The parameters of the kept records in the working folder."""
    params = load_params(project / "params.yaml")
    keep_stage(params, KEPT, "Four runs on little images.")
    return params


@pytest.fixture(scope="module")
def with_page(finished, tmp_path_factory) -> Path:
    """The same with kept records and their report; tests take copies."""
    folder = tmp_path_factory.mktemp("with_page") / "project"
    shutil.copytree(finished / "project", folder)
    with contextlib.chdir(folder):
        keep_stage(load_params(folder / "params.yaml"), KEPT, "Four runs on little images.")
        kept_report_stage(KEPT)
    return folder


@pytest.fixture
def reported(with_page, tmp_path, monkeypatch):
    """The parameters of kept records and their report in the working folder."""
    return load_params(working_copy(with_page, tmp_path, monkeypatch) / "params.yaml")


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_keep_copies_the_records_and_says_what_they_are(kept):
    assert set(files(KEPT)) == {
        *("curves/missing-low.csv", "flow/missing.csv", "provenance/missing-low.json"),
        *("search/missing-low.csv", "selection.yaml", "diagnosis/.gitkeep", "measured/.gitkeep"),
    }


def test_a_report_is_made_from_kept_records_alone_and_is_the_same_each_time(reported):
    first = files(KEPT)
    for folder in ("data/prepared", "data/runs", "data/models", "reports/curves"):
        shutil.rmtree(folder)
    Path("params.yaml").unlink()
    kept_report_stage(KEPT)
    assert files(KEPT) == first
    page = (KEPT / "index.html").read_text()
    assert "Four runs on little images." in page
    for name in ("index.html", "comparison.html"):
        for link in re.findall(r'(?:src|href)="([^"#:]+)"', (KEPT / name).read_text()):
            assert (KEPT / link).exists(), link


def test_the_kept_report_says_what_the_first_one_said(reported):
    report_stage(reported)
    for name in ("tables/aulc.csv", "tables/claims.csv", "comparison.html", "metrics.json"):
        assert (KEPT / name).read_bytes() == (Path("reports") / name).read_bytes()


def test_a_number_can_be_traced_from_the_page_to_its_parameters_and_commit(reported):
    page = (KEPT / "index.html").read_text()
    provenance = json.loads((KEPT / "provenance/missing-low.json").read_text())
    for run, made in provenance["runs"].items():
        assert f"<code>{run}</code>" in page
        assert made["commit"][0][:12] in page
        settings = provenance["settings"][made["settings"]]
        assert settings["setting"]["recipe"]["epochs"] == 2
        assert settings["data"]["render"]["image_size"] == 16
    # These are no runs of scale tiny: what differs stands on the page, of the data too.
    assert "Scale: tiny, changed: " in page
    for change in ("recipe.missing.epochs 12 → 2", "render.image_size 32 → 16", "model.width 96 → 16"):
        assert f"<li>{change}</li>" in page
    assert "not recorded" not in page
    assert 'href="provenance/missing-low.json"' in page


def test_replacing_forgets_what_was_kept_before_and_its_page(reported):
    (KEPT / ".gitignore").write_text("/validation/\n")
    # Whatever the report writes is no stranger to the next keep.
    keep_stage(params_in(Path(), query=["random"]), KEPT, "Two runs.", replace=True)
    assert not (KEPT / "index.html").exists()
    assert (KEPT / ".gitignore").read_text() == "/validation/\n"
    selection = yaml.safe_load((KEPT / "selection.yaml").read_text())
    assert (selection["query"], selection["about"]) == (["random"], "Two runs.")
    assert sorted(path.name for path in KEPT.parent.glob(".*")) == []


def test_keep_takes_an_empty_folder(kept):
    Path("mine").mkdir()
    keep_stage(kept, Path("mine"), "Mine.")
    assert set(files(Path("mine"))) == set(files(KEPT))


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("flow/thesis.csv", "all my work"),
        ("tables/notes.md", "all my work"),
        ("figures/curves-missing-mine.svg", "all my work"),
        ("README.md", "all my work"),
        (".hidden/thesis", "all my work"),
        ("curves/share-low.csv", "of no selection"),
        ("flow/link.csv", None),
        ("more", None),
    ],
)
def test_a_kept_folder_with_something_else_in_it_is_left_as_it_is(kept, name, text):
    path = KEPT / name
    path.parent.mkdir(exist_ok=True)
    if text is None:
        path.symlink_to("/etc")
    else:
        path.write_text(text)
    before = files(KEPT)
    with pytest.raises(MindGapError, match="which neither keep nor report writes") as error:
        keep_stage(kept, KEPT, "Again.")
    assert name.split("/")[0] in str(error.value)
    if name.startswith(("tables", "figures")):
        with pytest.raises(MindGapError, match="would be lost: no report writes it"):
            kept_report_stage(KEPT)
    assert files(KEPT) == before
    path.unlink()  # the mend that is printed
    if name.startswith("."):
        path.parent.rmdir()
    keep_stage(kept, KEPT, "Again.")


@pytest.mark.parametrize(
    ("folder", "message"),
    [
        (".", "is neither empty nor a folder of kept records"),
        ("..", "is neither empty nor a folder of kept records"),
        ("reports/reference/..", "is where every run writes"),
        ("a_file", "is neither empty nor a folder of kept records"),
        ("a_file/below", r"cannot be written \(.*Not a directory"),
        ("thesis", "is neither empty nor a folder of kept records"),
        ("damaged", "seedz: unknown parameter"),
        ("a_link", "is a link: name the folder that it leads to"),
        ("dangling", "is a link"),
        ("loop/below", "cannot be written"),
        ("/proc/mindgap", "cannot be written"),
        ("reports/tables/mine", "is in reports/tables, where the pipeline reads and writes"),
        ("data/mine", "is in data"),
        ("/", "is neither empty nor a folder of kept records"),
        ("reports/reference/mine", "is inside a kept folder"),
    ],
)
def test_keep_refuses_a_place_where_something_would_be_lost(kept, project, folder, message):
    Path("a_file").write_text("mine")
    Path("thesis/flow").mkdir(parents=True)
    Path("thesis/flow/chapter").write_text("mine")
    Path("damaged").mkdir()
    Path("damaged/selection.yaml").write_text("seedz: 1\n")
    Path("a_link").symlink_to(KEPT)
    Path("dangling").symlink_to("nowhere")
    Path("loop").symlink_to("loop")
    before = files(Path())
    with pytest.raises(MindGapError, match=message) as error:
        keep_stage(kept, Path(folder), "Mine.")
    assert "\n" not in str(error.value)
    assert files(Path()) == before


def test_an_empty_selection_is_refused_with_one_mend(tmp_path):
    (tmp_path / "selection.yaml").touch()
    with pytest.raises(MindGapError, match=r"selection\.yaml is empty.*git: git checkout -- ") as error:
        kept_selection(tmp_path)
    assert str(error.value).count("git checkout") == 1


KILLED = 9


def stopped_at(step: int, params, fail: bool) -> int:
    """The exit status of a process whose keep is killed, or meets a full disk, at its nth change of files."""
    child = os.fork()
    if child:
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    steps = itertools.count()

    def stop(event: str, arguments: tuple) -> None:
        changes = event in ("os.mkdir", "os.rename", "os.remove", "os.rmdir")
        if event == "open":
            changes = isinstance(arguments[1], str) and arguments[1].startswith("w")
        if changes and next(steps) == step:
            if not fail:
                os._exit(KILLED)
            raise OSError(errno.ENOSPC, "No space left on device")

    sys.addaudithook(stop)
    try:
        keep_stage(params, KEPT, "Newer.")
    except MindGapError as error:
        os._exit(2 if "No space left on device" in str(error) else 3)
    except BaseException:
        os._exit(4)
    os._exit(0)


@pytest.mark.parametrize("fail", [False, True], ids=["killed", "full disk"])
def test_whatever_stops_it_leaves_the_old_or_the_new_records_whole(kept, fail):
    (KEPT / "index.html").write_text("The page of the old records.")
    old, states = files(KEPT), set()
    shutil.copytree(KEPT, "older")
    new = {*record_files(kept), "selection.yaml", *MARKERS}
    for step in itertools.count():
        status = stopped_at(step, kept, fail)
        restore_kept(KEPT)  # as keep and report do first
        about = load_kept(KEPT / "selection.yaml").about
        assert files(KEPT) == old if about != "Newer." else set(files(KEPT)) == new
        states.add(about)
        beside = {path.resolve() for path in KEPT.parent.glob(".*")}
        if status == 0 and not beside:
            break
        # What cannot be removed in the end stops nothing.
        assert status == ((0 if about == "Newer." else 2) if fail else KILLED)
        assert beside <= set(set_aside(KEPT))  # where the next keep removes it
        if about == "Newer.":
            shutil.rmtree(KEPT)
            shutil.copytree("older", KEPT)
    assert len(states) == 2


def test_what_is_not_complete_is_not_kept(kept, project, tmp_path):
    before = files(KEPT)
    with pytest.raises(ReportError, match="run entropy, moddrop, seed 0 is missing"):
        keep_stage(params_in(project, query=["random", "entropy"]), KEPT, "More.")
    with pytest.raises(MindGapError, match="--about is empty"):
        keep_stage(kept, KEPT, " ")
    with pytest.raises(MindGapError, match="reports is where every run writes: name another folder"):
        keep_stage(kept, Path("reports"), "Here.")
    assert files(KEPT) == before


def test_a_selection_that_is_damaged_is_named(kept):
    path = KEPT / "selection.yaml"
    path.write_text(path.read_text().replace("seeds:", "seedz:"))
    with pytest.raises(ParamsError, match=r"selection\.yaml: seedz: unknown parameter") as error:
        kept_report_stage(KEPT)
    assert str(error.value).endswith(f"; where it lies in git: git checkout -- {path}")
    assert "\n" not in str(error.value)
    path.unlink()
    with pytest.raises(MindGapError, match=r"reference holds no kept records, as .*\.yaml is"):
        kept_report_stage(KEPT)


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        (
            lambda lines: [*lines[:4], *lines[5:]],
            r"run \w{16} \(random, moddrop, seed 0\), subset .* lacks rounds 1",
        ),
        (lambda lines: [*lines, lines[4]], r"run random, moddrop, seed 0 is there twice"),
        (lambda lines: [*lines[:4], re.sub(r"0\.\d+", "nan", lines[4], count=1)], "is nan, not a number"),
        (
            lambda lines: [line.replace("tiny,", "paper,", 1) for line in lines],
            "is of scale 'paper', not 'tiny'",
        ),
    ],
)
def test_damaged_records_are_refused_by_the_name_of_the_run(kept, fault, message):
    path = KEPT / "curves" / "missing-low.csv"
    path.write_text("\n".join(fault(path.read_text().splitlines())) + "\n")
    with pytest.raises(ReportError, match=message) as error:
        kept_report_stage(KEPT)
    assert str(path) in str(error.value)
    assert not (KEPT / "index.html").exists()


@pytest.mark.parametrize(
    ("name", "old", "new"),
    [
        ("flow/missing.csv", r"(absent,\d+,\d+),0,", r"\1,1,"),
        ("search/missing-low.csv", r"\Z", "tiny,missing,low,grid,0,2,0.05,0.0005,basic,1,0.9,4,True\n"),
        ("search/missing-low.csv", None, None),
    ],
)
def test_a_plausible_edit_of_a_kept_record_is_refused(kept, name, old, new):
    path = KEPT / name
    text = path.read_text()
    if old is None:
        path.unlink()
    else:
        path.write_text(re.sub(old, new, text, count=1))
        assert path.read_text() != text
    with pytest.raises(ReportError, match=rf"{name} is not .*: git checkout -- reports") as error:
        kept_report_stage(KEPT)
    assert "\n" not in str(error.value)


def test_records_are_the_same_with_other_ends_of_lines_and_older_ones_have_no_digests(kept):
    for name in ("flow/missing.csv", "search/missing-low.csv"):  # as git may check them out
        (KEPT / name).write_bytes((KEPT / name).read_bytes().replace(b"\n", b"\r\n"))
    kept_report_stage(KEPT)
    path = KEPT / "flow/missing.csv"
    path.write_text(re.sub(r"(absent,\d+,\d+),0,", r"\1,1,", path.read_text(), count=1))
    with pytest.raises(ReportError, match=r"flow/missing\.csv is not what was kept"):
        kept_report_stage(KEPT)
    # Records that were kept before their digests were have none.
    selection = yaml.safe_load((KEPT / "selection.yaml").read_text())
    del selection["records"]
    (KEPT / "selection.yaml").write_text(yaml.safe_dump(selection))
    kept_report_stage(KEPT)


def test_a_kept_curve_and_its_provenance_come_back_together(kept):
    path = KEPT / "curves/missing-low.csv"
    path.write_text(
        re.sub(r"(,rare,0\.)(\d)", lambda m: f"{m[1]}{(int(m[2]) + 1) % 10}", path.read_text(), count=1)
    )
    with pytest.raises(
        ReportError, match=rf": git checkout -- {path} {KEPT}/provenance/missing-low.json, or"
    ):
        kept_report_stage(KEPT)


@pytest.mark.parametrize(
    ("name", "old", "new"),
    [
        ("paper_aulc.csv", "low,BALD,Both,1.02", "low,BALD,Both,1.12"),
        ("paper_rank_sums.csv", "low,KCG,11", "low,KCG,12"),
    ],
)
def test_no_report_stands_beside_altered_numbers_of_the_paper(kept, project, monkeypatch, name, old, new):
    shutil.copytree(ROOT / "data/paper", "altered")
    path = Path("altered") / name
    text = path.read_text()
    assert old in text
    monkeypatch.setattr("mindgap.stages.report.PAPER", Path("altered"))
    path.write_text(text.replace(old, new))
    with pytest.raises(ReportError, match=rf"{path} is not what was read from the paper; it is in git"):
        kept_report_stage(KEPT)


def test_a_search_that_no_report_would_read_is_not_kept(kept):
    Path("reports/search/missing-low.csv").write_text("rung,epochs\n")
    with pytest.raises(ReportError, match=r"search/missing-low\.csv lacks the columns"):
        keep_stage(kept, KEPT, "Newer.")


def test_the_page_shows_searches_and_what_other_choices_come_to(project):
    raw = small(query=["random", "bald"])
    raw["search"] |= {"method": "grid", "learning_rate": [0.05], "weight_decay": [5e-4]}
    (project / "params.yaml").write_text(yaml.safe_dump(raw, sort_keys=False))
    params = load_params(project / "params.yaml")
    train_stage(params, "missing", "low")
    acquire_stage(params, "missing", "low")
    shutil.copytree(ROOT / "reports" / "sensitivity", "reports/sensitivity")
    report_stage(params)
    page = Path("reports/index.html").read_text()
    assert 'id="search"' in page
    assert "<td>randaugmc</td>" in page
    assert len(Path("reports/tables/search.csv").read_text().splitlines()) == 1 + 2
    assert 'id="sensitivity"' in page
    assert "<code>scale=small dataset=[missing,unique] regime=[mid] " in page
    assert "at the small scale" not in page
    assert re.search(
        r"<td>samples per epoch</td><td>the labels</td><td>0\.160 ± 0\.012 \(-0\.005\)</td>", page
    )
    assert (
        (Path("reports/tables") / "sensitivity_bald.csv").read_text().startswith("question,value,is_default")
    )


def test_a_search_table_of_another_form_is_refused(kept):
    path = KEPT / "search" / "missing-low.csv"
    path.write_text("rung,epochs\n")
    with pytest.raises(
        ReportError,
        match=r"search/missing-low\.csv lacks the columns scale, .*; it is in git: git checkout -- reports",
    ):
        kept_report_stage(KEPT)


# A union


def resealed(change, name: str = "missing-low") -> None:
    """Change the table of curves and the provenance of reports/, as another computation would write them."""
    curves, provenance = (
        Path("reports") / kind for kind in (f"curves/{name}.csv", f"provenance/{name}.json")
    )
    text, made = change(curves.read_text(), json.loads(provenance.read_text()))
    curves.write_text(text)
    body = {key: value for key, value in made.items() if key != "sha256"}
    provenance.write_text(json.dumps(seal(body | {"curves": text_digest(text)})))


def test_runs_of_selections_that_are_no_product_add_up(project, monkeypatch):
    """Random with both mitigations and BADGE with one of them, each as it was computed; then its page."""
    keep_stage(load_params(project / "params.yaml"), KEPT, "Two methods with ModDrop.")
    assert load_kept(KEPT / "selection.yaml").there == {}
    whole = files(KEPT)
    random_alone = params_in(project, mitigation=["none"], query=["random"])
    train_stage(random_alone, "missing", "low")
    acquire_stage(random_alone, "missing", "low")
    assert command(monkeypatch, "keep", str(KEPT)) == 0
    kept = load_kept(KEPT / "selection.yaml")
    assert (kept.mitigation, kept.query, kept.seeds) == (["none", "moddrop"], ["random", "badge"], [0, 1])
    assert (kept.there, kept.about) == ({"missing": ["low"]}, "Two methods with ModDrop.")
    assert command(monkeypatch, "report", str(KEPT)) == 0
    page = (KEPT / "index.html").read_text()
    assert "6 of 8 combinations; the other 2 are holes" in page
    assert "not recorded" not in page
    assert "| BADGE | · | · | · |" in (KEPT / "tables/missing-none.md").read_text()
    first = files(KEPT)
    kept_report_stage(KEPT)
    assert files(KEPT) == first
    # Again: nothing changes but that the page goes. And a folder of another's is added as the own runs are.
    keep_stage(random_alone, KEPT)
    assert files(KEPT) == {name: first[name] for name in [*record_files(kept), "selection.yaml", *MARKERS]}
    both = files(KEPT)
    keep_stage(random_alone, Path("other"), "Two methods with ModDrop.")
    for name, data in whole.items():
        (Path("theirs") / name).parent.mkdir(parents=True, exist_ok=True)
        (Path("theirs") / name).write_bytes(data)
    assert command(monkeypatch, "keep", "other", "--from", "theirs") == 0
    assert files(Path("other")) == both


def test_seeds_of_one_method_add_up_and_keep_every_byte(kept, project):
    whole = files(KEPT)
    for query, seeds in (("badge", [1]), ("random", [0, 1]), ("badge", [0])):
        keep_stage(
            params_in(project, query=[query], seeds=seeds), Path("parts"), "Four runs on little images."
        )
        holes = load_kept(Path("parts/selection.yaml")).there
    assert holes == {}  # the union is a product again
    assert files(Path("parts")) == whole


def test_what_a_folder_with_holes_lacks_is_what_was_not_kept(kept, project):
    """A run that goes missing later is no hole, however its files are sealed."""
    keep_stage(params_in(project, query=["random"]), Path("parts"), "Three runs.")
    older = files(Path("parts"))
    keep_stage(params_in(project, query=["badge"], seeds=[0]), Path("parts"))
    for name in ("curves/missing-low.csv", "provenance/missing-low.json"):
        (Path("parts") / name).write_bytes(older[name])
    with pytest.raises(ReportError, match=r"provenance/missing-low\.json is not what was kept"):
        kept_report_stage(Path("parts"))
    selection = Path("parts/selection.yaml")
    raw = yaml.safe_load(selection.read_text())
    selection.write_text(yaml.safe_dump(raw | {"there": {"share": ["low"]}}))
    with pytest.raises(ParamsError, match="`there` has other datasets or regimes than the lists"):
        kept_report_stage(Path("parts"))
    selection.write_text(yaml.safe_dump(raw | {"there": {}}))
    with pytest.raises(ReportError, match="run badge, moddrop, seed 0 is missing"):
        kept_report_stage(Path("parts"))


def other_number(text, made):
    changed = re.sub(r"(,rare,0\.)(\d)", lambda m: f"{m[1]}{(int(m[2]) + 1) % 10}", text, count=1)
    return changed, made


def of_all(name, value):
    def change(text, made):
        return text, made | {"runs": {key: one | {name: value} for key, one in made["runs"].items()}}

    return change


def other_setting(text, made):
    """Every run with another rate of ModDrop."""
    settings, named = {}, {}
    for digest, one in made["settings"].items():
        other = one | {"mitigation_settings": one["mitigation_settings"] | {"rate": 0.9}}
        named[digest] = digest_of(other)[:16]
        settings[named[digest]] = other
    runs = {key: one | {"settings": named[one["settings"]]} for key, one in made["runs"].items()}
    return text, made | {"settings": settings, "runs": runs}


def other_scale(text, made):
    return re.sub("^tiny", "small", text, flags=re.M), made


CLASHES = {
    "numbers": (other_number, {}, r"run missing, low, random, moddrop, seed 0 with other numbers"),
    "settings": (other_setting, {}, r"run missing, low, \w+, moddrop, seed [01] with other settings"),
    "data": (of_all("data", "d" * 64), {}, r"run missing, low, \w+, moddrop, seed [01] with other data"),
    "code": (of_all("code", "c" * 64), {}, r"run missing, low, \w+, moddrop, seed [01] with other code"),
    "scale": (other_scale, {"scale": "small"}, r"has runs of scale tiny, reports of scale small"),
}


@pytest.mark.parametrize("clash", CLASHES)
def test_a_run_that_is_there_otherwise_is_refused_and_replacing_mends_it(kept, project, capsys, clash):
    change, asked, message = CLASHES[clash]
    resealed(change)
    params, before = params_in(project, **asked), files(KEPT)
    with pytest.raises(ReportError, match=message) as error:
        keep_stage(params, KEPT)
    assert "\n" not in str(error.value)
    assert f"mindgap keep {KEPT} --replace --about" in str(error.value)
    assert files(KEPT) == before
    keep_stage(params, KEPT, "Anew.", replace=True)
    assert "4 runs kept;" in capsys.readouterr().out


def test_runs_of_other_code_are_refused_also_where_no_run_is_there_twice(kept, project):
    keep_stage(params_in(project, query=["random"]), Path("parts"), "Two runs.")
    resealed(of_all("numerics", "n" * 64))
    with pytest.raises(ReportError, match=r"parts: the code of the numerics of run .* --replace") as error:
        keep_stage(params_in(project, query=["badge"]), Path("parts"))
    assert "(missing, low, badge, moddrop, seed 0) is not that of run" in str(error.value)
    assert load_kept(Path("parts/selection.yaml")).query == ["random"]


def test_a_flow_and_a_search_that_are_there_otherwise_are_refused(kept, project):
    shutil.rmtree("data/prepared")
    path = Path("reports/flow/missing.csv")
    text = path.read_text()
    path.write_text(re.sub(r"absent", "gone", text))
    with pytest.raises(ReportError, match=r"reference/flow/missing.csv is not what reports/flow/miss.* says"):
        keep_stage(kept, KEPT)


def test_a_new_folder_needs_a_text(project):
    with pytest.raises(MindGapError, match="--about is missing: say in a sentence or two"):
        keep_stage(load_params(project / "params.yaml"), Path("mine"))
    assert not Path("mine").exists()


# What extra evaluators measured


def test_what_extra_evaluators_measured_is_kept_and_vouched_for(project):
    """A run with one evaluator more beside two without, and a hole; an older folder gets its table later."""
    beyond, table = Path("beyond"), Path("beyond/measured/missing-low.csv")
    keep_stage(params_in(project, query=["badge"]), beyond, "Two methods.")
    evaluate = ["balanced_accuracy", "accuracy", "ece", "nll"]
    more = params_in(project, query=["random"], seeds=[0], evaluate=evaluate)
    train_stage(more, "missing", "low")
    acquire_stage(more, "missing", "low")
    measured = Path("reports/measured/missing-low.csv")
    lines = measured.read_text().splitlines()
    keep_stage(more, beyond)
    assert load_kept(beyond / "selection.yaml").there == {"missing": ["low"]}
    extra = [lines[0], *(line for line in lines if ",nll," in line)]
    assert table.read_text().splitlines() == extra
    assert len(extra) == 1 + 3 * 3  # rounds, subsets
    kept_report_stage(beyond)
    assert (beyond / "validation/measured-missing-low.html").exists()
    whole = files(beyond)
    keep_stage(None, Path("again"), source=beyond)
    assert (Path("again") / "measured/missing-low.csv").read_bytes() == whole["measured/missing-low.csv"]
    # A number that is changed, and a table that is gone, are refused by name.
    for text in (re.sub(r"\d\n", lambda m: f"{(int(m[0]) + 1) % 10}\n", "\n".join(extra) + "\n"), None):
        table.unlink() if text is None else table.write_text(text)
        message = r"measured/missing-low\.csv is not .*: git checkout -- beyond/measured/missing-low\.csv"
        with pytest.raises(ReportError, match=message) as error:
            kept_report_stage(beyond)
        assert "\n" not in str(error.value)
    # A folder from before such tables were kept is read as it is, and completed by its own runs.
    selection = beyond / "selection.yaml"
    raw = yaml.safe_load(selection.read_text())
    del raw["records"]["measured/missing-low.csv"]
    selection.write_text(yaml.safe_dump(raw, sort_keys=False))
    keep_stage(more, beyond)
    assert table.read_bytes() == whole["measured/missing-low.csv"]
    # Of other numbers, or without the table that the runs' settings speak of, nothing is kept.
    measured.unlink()
    with pytest.raises(ReportError, match=r"measured/missing-low\.csv is not there; write it anew: dvc rep"):
        keep_stage(more, beyond)
    measured.write_text("".join(f"{line}{'1' * (',nll,' in line)}\n" for line in lines))
    provenance = Path("reports/provenance/missing-low.json")
    body = {key: value for key, value in json.loads(provenance.read_text()).items() if key != "sha256"}
    provenance.write_text(json.dumps(seal(body | {"measured": text_digest(measured.read_text())})))
    with pytest.raises(ReportError, match="run missing, low, random, moddrop, seed 0 with other numbers"):
        keep_stage(more, beyond)

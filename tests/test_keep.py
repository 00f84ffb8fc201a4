"""Kept records: copied once they are complete, and a report made from them alone, the same each time."""

import json
import re
import shutil
from pathlib import Path

import pytest
import yaml

from mindgap.errors import MindGapError
from mindgap.params import ParamsError, load_params
from mindgap.report.flow import ReportError
from mindgap.stages.keep import keep_stage
from mindgap.stages.report import kept_report_stage, report_stage
from mindgap.stages.runs import acquire_stage, train_stage
from small_project import ROOT, params_in, small

KEPT = Path("reports/reference")


@pytest.fixture
def kept(project):
    """A project with kept records of four runs, and the parameters they are of."""
    params = params_in(project)
    train_stage(params, "missing", "low")
    acquire_stage(params, "missing", "low")
    keep_stage(params, KEPT, "Four runs on little images.")
    return params


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_report_is_made_from_kept_records_alone_and_is_the_same_each_time(kept, project):
    assert set(files(KEPT)) == {
        *("curves/missing-low.csv", "flow/missing.csv", "provenance/missing-low.json"),
        *("search/missing-low.csv", "selection.yaml"),
    }
    for folder in ("data/prepared", "data/runs", "data/models", "reports/curves"):
        shutil.rmtree(folder)
    (project / "params.yaml").unlink()
    kept_report_stage(KEPT)
    first = files(KEPT)
    kept_report_stage(KEPT)
    assert files(KEPT) == first
    page = (KEPT / "index.html").read_text()
    assert "Four runs on little images." in page
    for name in ("index.html", "comparison.html"):
        for link in re.findall(r'(?:src|href)="([^"#:]+)"', (KEPT / name).read_text()):
            assert (KEPT / link).exists(), link


def test_the_kept_report_says_what_the_first_one_said(kept):
    report_stage(kept)
    kept_report_stage(KEPT)
    for name in ("tables/aulc.csv", "tables/claims.csv", "comparison.html", "metrics.json"):
        assert (KEPT / name).read_bytes() == (Path("reports") / name).read_bytes()


def test_a_number_can_be_traced_from_the_page_to_its_parameters_and_commit(kept):
    kept_report_stage(KEPT)
    page = (KEPT / "index.html").read_text()
    provenance = json.loads((KEPT / "provenance/missing-low.json").read_text())
    for run, made in provenance["runs"].items():
        assert f"<code>{run}</code>" in page
        assert made["commit"][0][:12] in page
        assert provenance["settings"][made["settings"]]["setting"]["recipe"]["epochs"] == 2
    assert 'href="provenance/missing-low.json"' in page


def test_keeping_again_forgets_what_was_kept_before(kept, project):
    (KEPT / "curves" / "share-low.csv").write_text("old")
    keep_stage(params_in(project, query=["random"]), KEPT, "Two runs.")
    assert not (KEPT / "curves" / "share-low.csv").exists()
    selection = yaml.safe_load((KEPT / "selection.yaml").read_text())
    assert (selection["query"], selection["about"]) == (["random"], "Two runs.")


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
    with pytest.raises(ParamsError, match=r"selection\.yaml: seedz: unknown parameter"):
        kept_report_stage(KEPT)
    path.unlink()
    with pytest.raises(ParamsError, match=r"selection\.yaml is not here"):
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
    assert re.search(
        r"<td>samples per epoch</td><td>the labels</td><td>0\.119 ± 0\.003 \(-0\.049\)</td>", page
    )
    assert (
        (Path("reports/tables") / "sensitivity_bald.csv").read_text().startswith("question,value,is_default")
    )


def test_a_search_table_of_another_form_is_refused(kept):
    path = KEPT / "search" / "missing-low.csv"
    path.write_text("rung,epochs\n")
    with pytest.raises(
        ReportError, match=r"search/missing-low\.csv needs the columns scale, .*train@missing-low"
    ):
        kept_report_stage(KEPT)

"""The pipeline as a user runs it: DVC commands in a clone of the project, cut down to seconds."""

import json
import os
import random
import re
import shutil
import signal
import time
from pathlib import Path

import pytest

from clone import ROOT, Clone

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def clone(tmp_path_factory) -> Clone:
    """A clone in which `dvc repro` has run."""
    clone = Clone(tmp_path_factory.mktemp("clone"))
    output = clone.run("dvc", "repro")
    assert "acquire missing-low: 4 runs, 0 finished before" in output
    clone.commit("Results")
    return clone


def test_repro_makes_the_report_and_a_second_one_has_nothing_to_do(clone):
    reports = clone.folder / "reports"
    page = (reports / "index.html").read_text()
    for link in re.findall(r'(?:src|href)="([^"#:]+)"', page):
        assert (reports / link).exists(), link
    assert (clone.folder / "data/prepared/missing/contact_sheet.png").stat().st_size > 1000
    assert list(clone.folder.glob("src/mindgap/data/__pycache__/*"))
    output = clone.run("dvc", "repro")
    assert output.count("didn't change, skipping") == 5
    assert "up to date" in output
    assert clone.git("status", "--porcelain") == ""


def test_the_readmes_method_is_one_file_and_one_line_and_runs_only_what_is_missing(clone):
    readme = (ROOT / "README.md").read_text()
    file, code, line = re.search(
        r"`(src/mindgap/query/\w+\.py)`.*?```python\n(.*?)```.*?```python\n(.*?)```", readme, re.DOTALL
    ).groups()
    (clone.folder / file).write_text(code)
    name = Path(file).stem
    table = clone.folder / "src/mindgap/query/__init__.py"
    text = table.read_text()
    importing, entry = line.strip().splitlines()
    text = text.replace("from mindgap.query.margin", f"{importing}\nfrom mindgap.query.margin")
    table.write_text(text.replace('    "margin":', f'{entry}\n    "margin":'))
    clone.set(query=["random", "badge", name])
    output = clone.run("dvc", "repro")
    assert "acquire missing-low: 6 runs, 4 finished before" in output
    assert "Running stage 'train" not in output
    assert name in (clone.folder / "reports/tables/aulc.csv").read_text()
    clone.git("checkout", "-q", ".")
    clone.git("clean", "-fdq", "src")


def test_experiments_change_the_grid_and_are_compared_by_a_few_aulc_columns(clone):
    # In a temporary workspace, as a queue does: it shares the store of finished rounds with the checkout.
    only_new = ("-S", "query=[random,entropy]", "-S", "seeds=[0]")
    output = clone.run("dvc", "exp", "run", "--temp", "-n", "entropy", *only_new)
    assert "acquire missing-low: 2 runs, 1 finished before" in output
    shown = clone.run("dvc", "exp", "show", "--csv")
    header, *rows = shown.strip().splitlines()
    assert "aulc.missing.all" in header
    assert "aulc.missing.weak" in header
    assert len([c for c in header.split(",") if c.startswith(("aulc", "runs"))]) == 3
    assert any("entropy" in row for row in rows)
    typo = clone.run("dvc", "exp", "run", "-S", "qery=[entropy]", expect=1)
    assert "qery" in typo
    clone.run("dvc", "plots", "show", "-o", "plots")
    assert "learning curves" in (clone.folder / "plots/index.html").read_text()
    clone.git("checkout", "-q", ".")
    clone.git("clean", "-fdq", "-e", "data", ".")
    clone.run("dvc", "checkout")


def test_a_run_killed_three_times_ends_in_the_same_bytes(clone):
    clone.run("dvc", "repro")
    expected = clone.tables()
    store = clone.folder / ".mindgap" / "store"
    for run in store.iterdir():
        if not (run / "weights.safetensors").exists():
            shutil.rmtree(run)
    stage = ("dvc", "repro", "--force", "--single-item", "acquire@missing-low")
    chance, total = random.Random(), 2 + 4 * 3
    for rounds in (4, 7, 10):
        process = clone.start(*stage)
        while len(list(store.glob("*/round_*.json"))) < rounds:
            assert process.poll() is None, process.communicate()[0]
            time.sleep(0.01)
        time.sleep(chance.uniform(0.0, 0.3))
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
    assert len(list(store.glob("*/round_*.json"))) < total
    assert "acquire missing-low: 4 runs" in clone.run(*stage)
    clone.run("dvc", "repro")
    assert clone.tables() == expected


def test_a_typo_stops_before_any_compute_and_leaves_what_is_there(clone):
    before = clone.tables()
    clone.set(query=["random", "entropi"])
    output = clone.run("dvc", "repro", expect=1)
    assert "mindgap: query: unknown 'entropi'; known" in output
    assert "Running stage 'acquire" not in output
    assert clone.tables() == before
    clone.git("checkout", "-q", ".")


def test_a_failing_expectation_fails_the_stage_and_leaves_its_page(clone):
    suite = clone.folder / "reports/expectations/aulc.json"
    spec = json.loads(suite.read_text())
    spec["expectations"].append(
        {
            "type": "expect_column_values_to_be_between",
            "kwargs": {"column": "aulc_mean", "min_value": 100.0},
            "meta": {"notes": "no AULC is that high"},
        }
    )
    suite.write_text(json.dumps(spec))
    page = clone.folder / "reports/validation/aulc.html"
    page.unlink()
    output = clone.run("dvc", "repro", expect=1)
    assert re.search(r"table AULC: 1 of \d+ expectations fail", output)
    assert "aulc_mean" in output
    assert "no AULC is that high" in page.read_text()
    clone.git("checkout", "-q", ".")

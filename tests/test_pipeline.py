"""The pipeline as a user runs it: DVC commands in a clone of the project, cut down to seconds."""

import csv
import io
import json
import os
import random
import re
import shlex
import shutil
import signal
import time
from pathlib import Path

import pytest

from clone import ROOT, Clone

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def clone(reproduced, tmp_path_factory) -> Clone:
    """A clone in which `dvc repro` has run."""
    clone = reproduced.copied(tmp_path_factory.mktemp("pipeline") / "clone")
    assert "acquire missing-low: 4 runs, 0 finished before" in (clone.folder / ".git/repro.log").read_text()
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


def test_what_a_new_dataset_makes_is_ignored_so_that_dvc_edits_no_gitignore(clone):
    for folder in ("prepared", "models", "runs"):
        assert clone.git("check-ignore", f"data/{folder}/new", f"data/{folder}/new-low")
        assert not clone.git("status", "--porcelain", f"data/{folder}/.gitignore")


def test_the_readmes_method_is_one_file_and_one_line_and_runs_only_what_is_missing(clone):
    readme = (ROOT / "README.md").read_text()
    file, code, line = re.search(
        r"`(src/mindgap/parts/query/\w+\.py)`.*?```python\n(.*?)```.*?```python\n(.*?)```", readme, re.DOTALL
    ).groups()
    (clone.folder / file).write_text(code)
    name = Path(file).stem
    table = clone.folder / "src/mindgap/parts/query/__init__.py"
    text = table.read_text()
    importing, entry = line.strip().splitlines()
    text = text.replace("from mindgap.parts.query.margin", f"{importing}\nfrom mindgap.parts.query.margin")
    table.write_text(text.replace('    "margin":', f'{entry}\n    "margin":'))
    clone.set(query=["random", "badge", name])
    output = clone.run("dvc", "repro")
    assert "acquire missing-low: 6 runs, 4 finished before" in output
    assert "Running stage 'train" not in output
    assert name in (clone.folder / "reports/tables/aulc.csv").read_text()
    clone.git("checkout", "-q", ".")
    clone.git("clean", "-fdq", "src")


def test_experiments_change_the_grid_and_are_compared_by_method_beside_their_state(clone):
    # In a temporary workspace, as a queue does: it shares the store of finished rounds with the checkout.
    only_new = ("-S", "query=[random,badge,entropy]")
    output = clone.run("dvc", "exp", "run", "--temp", "-n", "entropy", *only_new)
    assert "acquire missing-low: 6 runs, 4 finished before" in output
    queue = ("exp", "run", "--queue", "-n")
    clone.dvc((*queue, "fails", "-S", "query=[nobody]"), ("queue", "start"))
    end = time.time() + 60
    while "Failed" not in clone.run("dvc", "queue", "status"):
        assert time.time() < end
        time.sleep(2.0)
    readme = (ROOT / "README.md").read_text()
    show, diff = (
        shlex.split(re.search(rf"^dvc ({command} .*)$", readme, re.MULTILINE)[1], comments=True)
        for command in ("exp show", "metrics diff")
    )
    diff = ["entropy" if word == "<experiment>" else word for word in diff]
    waits = (*queue, "waits", "-S", "mitigation=[none]")
    _, shown, told, _ = clone.dvc(waits, (*show, "--csv"), (*diff, "--json"), ("queue", "remove", "--all"))
    rows = list(csv.DictReader(io.StringIO(shown)))
    found = {row["Experiment"] or row["rev"]: row for row in rows}
    states = {name: row["State"] for name, row in found.items()}
    assert states == {"workspace": "", "master": "", "entropy": "", "fails": "Failed", "waits": "Queued"}
    scores = [f"weak.missing.low.moddrop.{query}" for query in ("random", "badge", "entropy")]
    assert [name for name in rows[0] if name.startswith("weak.")] == scores
    # Another method moved no number.
    assert [found["master"][name] for name in scores[:2]] == [found["entropy"][name] for name in scores[:2]]
    assert [bool(found[name][scores[2]]) for name in ("master", "entropy", "waits")] == [False, True, False]
    assert json.loads(told)["reports/metrics_full.json"].keys() == {
        f"missing.low.moddrop.entropy.{name}"
        for name in ("n_seeds", "weak.aulc", "weak.difference", "all.aulc", "all.difference")
    }
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
    assert "acquire missing-low: 4 runs" in clone.run(*stage, warm=False)
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

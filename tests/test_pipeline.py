"""The pipeline as a user runs it: DVC commands in a clone of the project, cut down to seconds."""

import json
import os
import random
import re
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest
import yaml

from test_sweep import small

ROOT = Path(__file__).parents[1]
pytestmark = pytest.mark.slow


class Clone:
    """A checkout with small parameters and a store of its own."""

    def __init__(self, folder: Path):
        self.folder = folder
        listed = self._git("ls-files", "-co", "--exclude-standard", cwd=ROOT).splitlines()
        made = ("dvc.lock", "reports/curves/", "reports/tables/", "reports/figures/", "reports/plots/")
        for name in listed:
            if (ROOT / name).is_file() and not name.startswith(made):
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                (folder / name).write_bytes((ROOT / name).read_bytes())
        self.set()
        self._git("init", "-q")
        self.commit("Start")

    def _git(self, *arguments: str, cwd: Path | None = None) -> str:
        name = ("-c", "user.name=Tester", "-c", "user.email=tester@example.org")
        command = ["git", *name, *arguments]
        return subprocess.run(
            command, cwd=cwd or self.folder, check=True, capture_output=True, text=True
        ).stdout

    def commit(self, message: str) -> None:
        self._git("add", "-A")
        self._git("commit", "-qm", message)

    def set(self, **changes) -> None:
        raw = small(**changes)
        # Rounds long enough for a kill to fall into one.
        raw["scales"]["tiny"]["recipe"]["missing"]["all"]["epochs"] = 12
        (self.folder / "params.yaml").write_text(yaml.safe_dump(raw, sort_keys=False))

    @property
    def environment(self) -> dict[str, str]:
        # As a user has it: bytecode is written too, which must not count as a change of code.
        left_out = ("DVC_", "MINDGAP_", "COV_", "PYTHON")
        ours = {k: v for k, v in os.environ.items() if not k.startswith(left_out)}
        path = f"{Path(os.sys.executable).parent}{os.pathsep}{ours['PATH']}"
        git = {"GIT_AUTHOR_NAME": "T", "GIT_AUTHOR_EMAIL": "t@example.org"}
        git |= {"GIT_COMMITTER_NAME": "T", "GIT_COMMITTER_EMAIL": "t@example.org"}
        return {**ours, **git, "PATH": path, "DVC_NO_ANALYTICS": "1"}

    def start(self, *command: str) -> subprocess.Popen:
        return subprocess.Popen(
            command,
            cwd=self.folder,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    def run(self, *command: str, expect: int = 0) -> str:
        process = self.start(*command)
        output, _ = process.communicate(timeout=400)
        assert (process.returncode != 0) == (expect != 0), output
        return output

    def tables(self) -> dict[str, bytes]:
        folder = self.folder / "reports"
        files = [*(folder / "tables").iterdir(), *(folder / "curves").iterdir(), folder / "metrics.json"]
        return {path.name: path.read_bytes() for path in files}


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
    assert clone._git("status", "--porcelain") == ""


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
    clone._git("checkout", "-q", ".")
    clone._git("clean", "-fdq", "src")


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
    clone._git("checkout", "-q", ".")
    clone._git("clean", "-fdq", "-e", "data", ".")
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
    clone._git("checkout", "-q", ".")


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
    clone._git("checkout", "-q", ".")

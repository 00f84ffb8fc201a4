import json
import re
import shutil
import subprocess
import sys
import tomllib

import pytest
import yaml

from mindgap.base.progress import Progress
from mindgap.data import DATASETS
from mindgap.parts.encoders import ENCODERS
from mindgap.parts.evaluators import EVALUATORS
from mindgap.parts.fusions import FUSIONS
from mindgap.parts.mitigations import MITIGATIONS
from mindgap.parts.query import METHODS
from mindgap.parts.starts import STARTS
from mindgap.stages import cli
from small_project import ROOT, params_in, working_copy


def run(monkeypatch, *arguments: str) -> int:
    monkeypatch.setattr(sys, "argv", ["mindgap", *arguments])
    with pytest.raises(SystemExit) as stop:
        cli.main()
    return stop.value.code


def test_a_mendable_error_is_one_message_and_no_traceback(monkeypatch, capsys, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MINDGAP_WORKERS", "1")
    for command in (["check-params"], ["prepare", "missing"], ["train", "missing", "low"], ["report"]):
        assert run(monkeypatch, *command) == 1
        error = capsys.readouterr().err
        assert error.startswith("mindgap: params.yaml is not here")
        assert "Traceback" not in error
    assert run(monkeypatch, "acquire", "missing", "low") == 1


def test_a_stage_by_hand_is_checked_before_it_begins(monkeypatch, capsys, tmp_path):
    params_in(tmp_path, query_settings={"bald": {"passes": 0}})
    monkeypatch.chdir(tmp_path)
    for command, message in (
        (["prepare", "mising"], "mindgap: dataset: unknown 'mising'; known in"),
        (["train", "missing", "../evil"], "mindgap: query_settings.bald.passes: Input should be"),
        (["acquire", "missing", "low"], "mindgap: query_settings.bald.passes: Input should be"),
        (["plan", "mising"], "mindgap: query_settings.bald.passes: Input should be"),
        (
            ["plan", "-S", "query_settings.new.alpha=0.3"],
            "append to your config use +query_settings.new.alpha",
        ),
    ):
        assert run(monkeypatch, *command) == 1
        error = capsys.readouterr().err
        assert message in error
        assert error.count("\n") == 1


def test_a_report_by_hand_names_a_name_that_is_none(monkeypatch, capsys, tmp_path):
    params_in(tmp_path, dataset=["mising"])
    monkeypatch.chdir(tmp_path)
    for command in (["report"], ["keep", "kept", "--about", "x"]):
        assert run(monkeypatch, *command) == 1
        assert capsys.readouterr().err.startswith("mindgap: dataset: unknown 'mising'; known in")


def test_a_stage_by_hand_refuses_a_regime_that_is_not_in_the_file(monkeypatch, capsys, tmp_path):
    params_in(tmp_path)
    monkeypatch.chdir(tmp_path)
    assert run(monkeypatch, "train", "missing", "../../evil") == 1
    assert "mindgap: regime: unknown '../../evil'; known in scales.tiny" in capsys.readouterr().err


def test_a_folder_that_cannot_be_written_is_one_line(monkeypatch, capsys, tmp_path):
    params_in(tmp_path)
    (tmp_path / "data").write_text("")
    monkeypatch.chdir(tmp_path)
    assert run(monkeypatch, "check-params") == 1
    error = capsys.readouterr().err
    assert error.startswith("mindgap: data")
    assert error.count("\n") == 1


def test_the_version_is_that_of_the_project(monkeypatch, capsys):
    assert run(monkeypatch, "--version") == 0
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert capsys.readouterr().out == f"mindgap {project['version']}\n"
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert (cited["version"], cited["license"]) == (project["version"], project["license"])


def test_a_version_needs_no_installed_package(tmp_path):
    """A GPU host has the package on its path and nothing in its metadata."""
    shutil.copytree(ROOT / "src" / "mindgap", tmp_path / "mindgap", ignore=shutil.ignore_patterns("*.pyc"))
    code = (
        "import importlib.metadata as m, sys\n"
        "found = m.version\n"
        "def version(name):\n"
        "    if name == 'mindgap': raise m.PackageNotFoundError(name)\n"
        "    return found(name)\n"
        "m.version = version\n"
        "from mindgap.core.digest import versions\n"
        "print(versions()['mindgap'])\n"
        "from mindgap.stages.cli import main\n"
        "sys.argv = ['mindgap', '--version']\n"
        "main()\n"
    )
    shown = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert (shown.stdout, shown.stderr) == (f"{version}\nmindgap {version}\n", "")


def test_the_list_has_every_plug_in_on_a_line_with_its_settings(monkeypatch, capsys):
    assert run(monkeypatch, "list") == 0
    lines = {line.split()[0]: line for line in capsys.readouterr().out.splitlines() if line[:1] == " "}
    tables = (DATASETS, METHODS, MITIGATIONS, FUSIONS, EVALUATORS, STARTS, *ENCODERS.values())
    assert set(lines) == {name for table in tables for name in table}
    assert lines["bald"].endswith("dropout mask. [passes=50]")
    assert "(control)" in lines["presence_balanced"]
    assert "(reconstruction)" in lines["grace_r"]
    assert "(ours) " in lines["teach"]
    assert "credentialed" in lines["mimic"]
    assert lines["moddrop"].endswith("[rate=0.3, form='independent']")
    assert "lab_units={}" in lines["mimic"]


def test_help_names_every_step(monkeypatch, capsys):
    assert run(monkeypatch, "--help") == 0
    shown = capsys.readouterr().out
    steps = (
        "check-params",
        "plan",
        "prepare",
        "train",
        "acquire",
        "report",
        "keep",
        "publish",
        "watch",
        "list",
        "sensitivity",
    )
    assert all(step in shown for step in steps)


def test_checked_parameters_leave_blueprints_and_say_what_is_to_be_done(monkeypatch, capsys, tmp_path):
    params_in(tmp_path)
    (tmp_path / "data").mkdir()
    monkeypatch.chdir(tmp_path)
    assert run(monkeypatch, "check-params") == 0
    assert {path.name for path in (tmp_path / "data" / "blueprints").iterdir()} == {
        "missing.json",
        "plug_ins.json",
    }
    assert capsys.readouterr().out.startswith("4 runs at scale tiny: ")


def test_progress_is_a_bar_in_a_terminal_and_lines_elsewhere(monkeypatch, capsys):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    with Progress("acquire", total=3) as progress:
        for _ in range(3):
            progress.advance()
    assert "3/3" in capsys.readouterr().err
    monkeypatch.setattr(sys.stderr, "isatty", lambda: False)
    monkeypatch.setattr("mindgap.base.progress.LINE_SECONDS", 0.0)
    with Progress("acquire", total=3, unit="rounds") as progress:
        progress.advance(2)
    assert "acquire: 2/3 rounds" in capsys.readouterr().out


def test_a_failing_expectation_fails_the_stage_and_leaves_its_page(finished, tmp_path, monkeypatch, capsys):
    folder = working_copy(finished / "project", tmp_path, monkeypatch)
    suite = folder / "reports/expectations/aulc.json"
    spec = json.loads(suite.read_text())
    spec["expectations"].append(
        {
            "type": "expect_column_values_to_be_between",
            "kwargs": {"column": "aulc_mean", "min_value": 100.0},
            "meta": {"notes": "no AULC is that high"},
        }
    )
    suite.write_text(json.dumps(spec))
    assert run(monkeypatch, "report") == 1
    error = capsys.readouterr().err
    assert re.search(r"table AULC: 1 of \d+ expectations fail", error)
    assert "aulc_mean" in error
    assert "no AULC is that high" in (folder / "reports/validation/aulc.html").read_text()

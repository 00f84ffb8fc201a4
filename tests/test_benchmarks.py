"""Every benchmark runs to its end at a small size; no time is asserted."""

import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(p.stem for p in BENCHMARKS.glob("*.py") if p.stem != "machine"))
def test_a_quick_benchmark_runs_and_writes_nothing(name):
    results = {path: path.read_bytes() for path in (BENCHMARKS / "results").iterdir()}
    command = [sys.executable, str(BENCHMARKS / f"{name}.py"), "--quick"]
    shown = subprocess.run(command, check=True, capture_output=True, text=True, timeout=300).stdout
    assert shown.strip()
    assert {path: path.read_bytes() for path in (BENCHMARKS / "results").iterdir()} == results

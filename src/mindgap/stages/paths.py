"""Where the stages read and write, relative to the project's top folder (or an experiment's copy of it)."""

from pathlib import Path

PREPARED = Path("data/prepared")
MODELS = Path("data/models")
RUNS = Path("data/runs")
PAPER = Path("data/paper")
REPORTS = Path("reports")
CURVES = REPORTS / "curves"
EXPECTATIONS = REPORTS / "expectations"
VALIDATION = REPORTS / "validation"

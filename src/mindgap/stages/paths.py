"""Where the stages read and write, relative to the project's top folder (or an experiment's copy of it)."""

from dataclasses import dataclass
from pathlib import Path

from mindgap.core.records import named_store, store_root
from mindgap.data import CREDENTIALED

PAPER = Path("data/paper")
REPORTS = Path("reports")
PLUG_INS = Path("data/blueprints/plug_ins.json")
CURVES = REPORTS / "curves"
DIAGNOSIS = REPORTS / "diagnosis"
FLOW = REPORTS / "flow"
EXPECTATIONS = REPORTS / "expectations"
PROVENANCE = REPORTS / "provenance"
SENSITIVITY = REPORTS / "sensitivity"
# Folders of results that each dataset's project has.
OF_REPORTS = ("curves", "measured", "diagnosis", "flow", "provenance", "search", "validation")


@dataclass(frozen=True)
class Places:
    """Where one dataset lies, and all that is derived from it."""

    prepared: Path
    blueprint: Path
    models: Path
    runs: Path
    curves: Path
    measured: Path
    diagnosis: Path
    flow: Path
    provenance: Path
    search: Path
    validation: Path
    store: Path
    stage: str  # the DVC stage that prepares it

    @property
    def inside(self) -> str:
        """Where its DVC commands are to be run, as the end of a sentence: empty for the top folder."""
        home = self.prepared.parent.parent
        return "" if home == Path("data") else f" in {home}"


def places(dataset: str) -> Places:
    """The places of a dataset; a credentialed one keeps everything inside its own DVC project."""
    if dataset in CREDENTIALED:
        home = Path("data", dataset)
        store = named_store(f"MINDGAP_STORE_{dataset.upper()}", home / ".mindgap/store")
        return _places(dataset, home, home / "reports", store, f"extract_{dataset}")
    return _places(dataset, Path("data"), REPORTS, store_root(), f"prepare@{dataset}")


def _places(dataset: str, home: Path, reports: Path, store: Path, stage: str) -> Places:
    return Places(
        prepared=home / "prepared" / dataset,
        blueprint=home / "blueprints" / f"{dataset}.json",
        models=home / "models",
        runs=home / "runs",
        **{name: reports / name for name in OF_REPORTS},
        store=store,
        stage=stage,
    )

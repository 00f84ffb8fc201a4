"""Seconds of the report stage for the paper's whole grid at 10 rounds, with checks, figures and pages.

The curves are drawn at random (no table of them means anything); everything else is what `mindgap report`
does with kept records.

    python benchmarks/report.py                  # writes results/report.json
    python benchmarks/report.py --quick          # one dataset and regime; asserts no times, writes nothing
"""

import argparse
import json
import os
import tempfile
import time
from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd
import yaml

from machine import machine
from mindgap.core.params import Params, load_params
from mindgap.core.records import CURVE_COLUMNS, digest_of
from mindgap.results.paper import PAPER_CLASSES, PAPER_METHODS, SUBSETS, TIMES_TEN, paper_rounds
from mindgap.stages.report import kept_report_stage

ROOT = Path(__file__).parents[1]
RESULT = Path(__file__).parent / "results" / "report.json"
# Synthetic datasets with and without ModDrop and real ones with it are 630 runs; a selection is a product, so
# the real ones get both here: 756.
FULL = {"dataset": list(PAPER_CLASSES), "regime": ["low", "mid", "high"], "mitigation": ["none", "moddrop"]}
QUICK = {"dataset": ["missing"], "regime": ["low"], "mitigation": ["moddrop"]}


def curves_of(
    params: Params, dataset: str, regime: str, rng: np.random.Generator
) -> tuple[pd.DataFrame, dict]:
    """Random learning curves of all runs of a dataset and regime, and their provenance."""
    setting, rounds = params.setting(dataset, regime), paper_rounds(dataset, regime)
    budget, rows, runs = setting.budget, [], {}
    settings = {"setting": {"model": setting.model.model_dump(), "recipe": setting.recipe.model_dump()}}
    digest = digest_of(settings)[:16]
    made = {"settings": digest, "code": "c", "data": dataset, "numerics": "n", "seconds": 1.0}
    made |= {"commit": ["none"], "device": ["none"], "versions": [{"mindgap": "0"}]}
    for mitigation, query, seed in product(FULL["mitigation"], PAPER_METHODS.values(), (0, 1, 2)):
        run = digest_of([dataset, regime, mitigation, query, seed])[:16]
        runs[run] = made
        for round, subset in product(range(rounds), SUBSETS[dataset].values()):
            ceiling = 0.1 if (dataset, subset) in TIMES_TEN else 1.0
            accuracy = float(rng.uniform(0, ceiling))
            labelled = budget.initial + round * budget.acquisition
            cell = ("paper", dataset, regime, mitigation, query, seed, run, rounds, round, labelled)
            rows.append((*cell, subset, accuracy, accuracy, 0.1, 1 / PAPER_CLASSES[dataset], ceiling))
    return pd.DataFrame(rows, columns=list(CURVE_COLUMNS)), {"runs": runs, "settings": {digest: settings}}


def write_records(folder: Path, selected: dict) -> int:
    """A kept folder of random records; how many rows its curves have."""
    params, rng, rows = load_params(ROOT / "params.yaml"), np.random.default_rng(2603), 0
    params = params.model_copy(update={"scale": "paper"})
    for name in ("curves", "provenance", "flow"):
        (folder / name).mkdir(parents=True)
    for dataset, regime in product(selected["dataset"], selected["regime"]):
        curves, provenance = curves_of(params, dataset, regime, rng)
        curves = curves[curves["mitigation"].isin(selected["mitigation"])]
        curves.to_csv(folder / "curves" / f"{dataset}-{regime}.csv", index=False)
        (folder / "provenance" / f"{dataset}-{regime}.json").write_text(json.dumps(provenance))
        rows += len(curves)
    for dataset in selected["dataset"]:
        flow = "part,step,reason,rows_in,excluded,repaired,rows_out\nimages,drawn,,1,0,0,1\n"
        (folder / "flow" / f"{dataset}.csv").write_text(flow)
    kept = selected | {"published": [], "query": list(PAPER_METHODS.values()), "seeds": [0, 1, 2]}
    kept |= {"scale": "paper", "about": "Random curves."}
    (folder / "selection.yaml").write_text(yaml.safe_dump(kept))
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true")
    quick = parser.parse_args().quick
    facts, selected = machine("matplotlib", "pandas", "great-expectations"), QUICK if quick else FULL
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        for name in ("reports/expectations", "data/paper"):
            Path(name).parent.mkdir(parents=True, exist_ok=True)
            Path(name).symlink_to(ROOT / name)
        rows = write_records(Path("kept"), selected)
        begin, processor = time.perf_counter(), time.process_time()
        kept_report_stage(Path("kept"))
        row = {"rows": rows, "seconds": time.perf_counter() - begin}
        row["processor_seconds"] = time.process_time() - processor
        row |= {"figures": len(list(Path("kept/figures").glob("*.svg")))}
        os.chdir(ROOT)
    row["runs"] = len(PAPER_METHODS) * 3 * len(list(product(*selected.values())))
    row = {name: round(value, 1) for name, value in row.items()}
    print(json.dumps(row))
    if not quick:
        result = {"command": "python benchmarks/report.py", "machine": facts, **row}
        RESULT.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()

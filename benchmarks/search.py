"""What successive halving saves of the grid search for a recipe, and whether the two agree.

Both search the paper's twelve recipes on the start set of one seed, each with a store of its own and one run
at a time; halving by the factors 3 and 4. Steps are exact; seconds are of this machine. "agree" compares the
chosen recipes, "regret" is what the grid's best validation score is above its own score of halving's choice.

    python benchmarks/search.py                  # writes results/search.json
    python benchmarks/search.py --quick          # one dataset, few samples; asserts no times, writes nothing
"""

import argparse
import csv
import json
import os
import tempfile
import time
from pathlib import Path

import yaml

from machine import machine
from mindgap.core.params import Params, load_params
from mindgap.stages.paths import places
from mindgap.stages.prepare import prepare_stage
from mindgap.stages.runs import train_stage

ROOT = Path(__file__).parents[1]
RESULT = Path(__file__).parent / "results" / "search.json"
FULL = (("missing", "low"), ("missing", "mid"), ("unique", "low"), ("synergy", "low"))
QUICK = (("missing", "low"),)
GRID = {"method": "grid"}
HALVING = {f"halving_{factor}": {"method": "halving", "factor": factor} for factor in (3, 4)}


def params_with(search: dict, quick: bool) -> Params:
    """The shipped parameters with that search and one seed, in the working folder."""
    raw = yaml.safe_load((ROOT / "params.yaml").read_text())
    raw["search"] |= search
    raw |= {"seeds": [0], "mitigation": ["none"]}
    if quick:
        tiny = raw["scales"]["tiny"]
        tiny["render"] |= {"train_size": 220, "test_size": 50}
        tiny["recipe"]["missing"]["all"]["epochs"] = 3
        tiny["training"]["min_samples_per_epoch"] = 32
    Path("params.yaml").write_text(yaml.safe_dump(raw))
    return load_params()


def searched(dataset: str, regime: str, search: dict, quick: bool) -> dict:
    """Steps, seconds and trials of one search."""
    with tempfile.TemporaryDirectory() as store:
        os.environ["MINDGAP_STORE"] = store
        begin = time.perf_counter()
        train_stage(params_with(search, quick), dataset, regime)
        seconds = time.perf_counter() - begin
    table = places(dataset).search / f"{dataset}-{regime}.csv"
    trials = list(csv.DictReader(table.read_text().splitlines()))
    return {"seconds": seconds, "steps": sum(int(t["steps"]) for t in trials), "trials": trials}


def recipe(trial: dict) -> tuple:
    return trial["learning_rate"], trial["weight_decay"], trial["augmentation"]


def compared(dataset: str, regime: str, quick: bool) -> dict:
    """The searches of a dataset and regime, side by side."""
    grid = searched(dataset, regime, GRID, quick)
    scores = {recipe(t): float(t["validation"] or "-inf") for t in grid["trials"]}
    row = {"dataset": dataset, "regime": regime, "grid": told(grid)}
    for name, search in HALVING.items():
        made = searched(dataset, regime, search, quick)
        row[name] = told(made) | {
            "share_of_steps": round(made["steps"] / grid["steps"], 3),
            "share_of_seconds": round(made["seconds"] / grid["seconds"], 3),
            "agree": chosen(made) == chosen(grid),
            "regret": round(max(scores.values()) - scores[chosen(made)], 4),
        }
    return row


def chosen(made: dict) -> tuple:
    return next(recipe(trial) for trial in made["trials"] if trial["chosen"] == "True")


def told(made: dict) -> dict:
    return {"steps": made["steps"], "seconds": round(made["seconds"], 2), "chose": list(chosen(made))}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true")
    quick = parser.parse_args().quick
    os.environ["MINDGAP_WORKERS"] = "1"
    before = Path.cwd()
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        suites = Path("reports/expectations")
        suites.parent.mkdir()
        suites.symlink_to(ROOT / "reports" / "expectations")
        settings = QUICK if quick else FULL
        for dataset in dict(settings):
            prepare_stage(params_with({}, quick), dataset)
        rows = [compared(dataset, regime, quick) for dataset, regime in settings]
        os.chdir(before)
    for row in rows:
        print(json.dumps(row))
    if not quick:
        result = {"command": "python benchmarks/search.py", "machine": machine(), "searches": rows}
        RESULT.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()

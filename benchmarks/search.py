"""What successive halving saves of the grid search for a recipe, and whether the two agree.

Both search the paper's twelve recipes on the start set of one seed, each with a store of its own and one run
at a time. Steps are exact; seconds are of this machine. "agree" compares the chosen recipes, "regret" is what
the grid's best validation score is above the grid's own score of the recipe that halving chose.

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
from mindgap.params import Params, load_params
from mindgap.stages.paths import places
from mindgap.stages.prepare import prepare_stage
from mindgap.stages.runs import train_stage

ROOT = Path(__file__).parents[1]
RESULT = Path(__file__).parent / "results" / "search.json"
FULL = (("missing", "low"), ("missing", "mid"), ("unique", "low"), ("synergy", "low"))
QUICK = (("missing", "low"),)
METHODS = ("grid", "halving")


def params_with(method: str, quick: bool) -> Params:
    """The shipped parameters with a search by that method and one seed, in the working folder."""
    raw = yaml.safe_load((ROOT / "params.yaml").read_text())
    raw["search"]["method"] = method
    raw |= {"seeds": [0], "mitigation": ["none"]}
    if quick:
        tiny = raw["scales"]["tiny"]
        tiny["render"] |= {"train_size": 220, "test_size": 50}
        tiny["recipe"]["missing"]["all"]["epochs"] = 3
        tiny["training"]["min_samples_per_epoch"] = 32
    Path("params.yaml").write_text(yaml.safe_dump(raw))
    return load_params()


def searched(dataset: str, regime: str, method: str, quick: bool) -> dict:
    """Steps, seconds and trials of one search."""
    with tempfile.TemporaryDirectory() as store:
        os.environ["MINDGAP_STORE"] = store
        begin = time.perf_counter()
        train_stage(params_with(method, quick), dataset, regime)
        seconds = time.perf_counter() - begin
    table = places(dataset).search / f"{dataset}-{regime}.csv"
    trials = list(csv.DictReader(table.read_text().splitlines()))
    return {"seconds": seconds, "steps": sum(int(t["steps"]) for t in trials), "trials": trials}


def recipe(trial: dict) -> tuple:
    return trial["learning_rate"], trial["weight_decay"], trial["augmentation"]


def compared(dataset: str, regime: str, quick: bool) -> dict:
    """The two searches of a dataset and regime, side by side."""
    made = {method: searched(dataset, regime, method, quick) for method in METHODS}
    scores = {recipe(t): float(t["validation"] or "-inf") for t in made["grid"]["trials"]}
    best = {m: next(recipe(t) for t in made[m]["trials"] if t["chosen"] == "True") for m in METHODS}
    return {
        "dataset": dataset,
        "regime": regime,
        **{f"{m}_{name}": round(made[m][name], 2) for m in METHODS for name in ("steps", "seconds")},
        "share_of_steps": round(made["halving"]["steps"] / made["grid"]["steps"], 3),
        "share_of_seconds": round(made["halving"]["seconds"] / made["grid"]["seconds"], 3),
        **{f"{m}_chose": list(best[m]) for m in METHODS},
        "agree": best["grid"] == best["halving"],
        "regret": round(max(scores.values()) - scores[best["halving"]], 4),
    }


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
            prepare_stage(params_with("none", quick), dataset)
        rows = [compared(dataset, regime, quick) for dataset, regime in settings]
        os.chdir(before)
    for row in rows:
        print(json.dumps(row))
    if not quick:
        result = {"command": "python benchmarks/search.py", "machine": machine(), "searches": rows}
        RESULT.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()

"""What two workers save, and what Ray costs: `mindgap acquire` as a user calls it, start-up included.

The same runs of the tiny scale, each time with an empty store: one after the other, in two worker processes,
on two cores of a Ray cluster that stands, and on a Ray that the command begins itself. All must end in the
same bytes. A run has one thread, so two workers want two free cores. With twice the epochs of the tiny scale
a run lasts over ten seconds; beginning a Ray costs the same for any.

    python benchmarks/executors.py               # about five minutes; writes results/executors.json
    python benchmarks/executors.py --quick       # few samples; asserts no times, writes nothing
"""

import contextlib
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import yaml

from machine import machine
from measure import arguments, in_turns, medians, target, write
from mindgap.core.params import load_params
from mindgap.stages.paths import CURVES
from mindgap.stages.prepare import prepare_stage

ROOT = Path(__file__).parents[1]
MINDGAP = [sys.executable, "-c", "from mindgap.stages.cli import main; main()"]
SIDES = {
    "one": {"MINDGAP_EXECUTOR": "local", "MINDGAP_WORKERS": "1"},
    "two": {"MINDGAP_EXECUTOR": "local", "MINDGAP_WORKERS": "2"},
    "ray_joined": {"MINDGAP_EXECUTOR": "ray", "MINDGAP_WORKERS": "2"},
    "ray_begun": {"MINDGAP_EXECUTOR": "ray", "MINDGAP_WORKERS": "2"},
}
QUICK_SIDES = ("two", "ray_joined")
FULL = {"query": ["random", "badge"], "seeds": [0, 1], "epochs": 24}
QUICK = {"query": ["random"], "seeds": [0, 1], "epochs": 2}


@contextlib.contextmanager
def project(size: dict, quick: bool) -> Iterator[None]:
    """A working folder with the shipped parameters, the rendered Missing and its initial models."""
    raw = yaml.safe_load((ROOT / "params.yaml").read_text())
    raw |= {"dataset": ["missing"], "regime": ["low"], "query": size["query"], "seeds": size["seeds"]}
    if quick:
        tiny = raw["scales"]["tiny"]
        tiny["render"] |= {"train_size": 220, "test_size": 50}
        tiny["budget"]["missing"]["low"] = {"initial": 20, "validation": 20, "acquisition": 10, "rounds": 2}
    raw["scales"]["tiny"]["recipe"]["missing"]["all"]["epochs"] = size["epochs"]
    raw["scales"]["tiny"]["training"]["warmup_epochs"] = min(2, size["epochs"] / 2)
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
        suites = Path("reports/expectations")
        suites.parent.mkdir()
        suites.symlink_to(ROOT / "reports" / "expectations")
        Path("params.yaml").write_text(yaml.safe_dump(raw))
        prepare_stage(load_params(), "missing")
        called("train", SIDES["one"], Path(folder) / "train")
        yield


@contextlib.contextmanager
def standing_cluster() -> Iterator[dict[str, str]]:
    """The environment that joins a Ray cluster of two cores on this machine."""
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 2, "include_dashboard": False})
    try:
        yield {"RAY_ADDRESS": cluster.address}
    finally:
        cluster.shutdown()


def called(stage: str, environment: dict[str, str], store: Path) -> float:
    """Seconds of a command, from its call to its end."""
    ours = {name: value for name, value in os.environ.items() if not name.startswith(("RAY_", "MINDGAP_"))}
    env = ours | environment | {"MINDGAP_STORE": str(store), "MINDGAP_DEVICES": "cpu"}
    begin = time.perf_counter()
    subprocess.run([*MINDGAP, stage, "missing", "low"], env=env, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - begin


def acquired(environment: dict[str, str], curves: set[bytes]) -> float:
    """Seconds of the acquire stage with an empty store; its table goes to `curves`."""
    with tempfile.TemporaryDirectory() as store:
        seconds = called("acquire", environment, Path(store))
    curves.add((CURVES / "missing-low.csv").read_bytes())
    return seconds


def main() -> None:
    quick = arguments(__doc__).quick
    size, facts, curves = QUICK if quick else FULL, machine("torch", "ray"), set()
    with standing_cluster() as address, project(size, quick):
        sides = {
            name: lambda own=environment | (address if name == "ray_joined" else {}): acquired(own, curves)
            for name, environment in SIDES.items()
        }
        # A quick run has no turn to warm up, nor sides that differ in a number or in who begins the cluster.
        figures = {name: [sides[name]()] for name in QUICK_SIDES} if quick else in_turns(sides, 1)
    assert len(curves) == 1, "the executors' tables differ"
    seconds = medians(figures)
    runs = len(size["query"]) * len(size["seeds"])
    print({"runs": runs, **{name: round(value, 1) for name, value in seconds.items()}})
    if not quick:
        targets = [
            target("two workers: times one", seconds["one"] / seconds["two"], at_least=1.7),
            target("Ray that stands: times local", seconds["ray_joined"] / seconds["two"], at_most=1.1),
            target("Ray begun here: times local", seconds["ray_begun"] / seconds["two"], at_most=1.1),
        ]
        result = {"command": "python benchmarks/executors.py", "machine": facts, "runs": runs}
        result |= {
            "seconds_a_run": seconds["one"] / runs,
            "to_join_a_ray": seconds["ray_joined"] - seconds["two"],
            "to_begin_a_ray": seconds["ray_begun"] - seconds["two"],
            "seconds": figures,
            "medians": seconds,
        }
        write("executors", result | {"targets": targets})


if __name__ == "__main__":
    main()

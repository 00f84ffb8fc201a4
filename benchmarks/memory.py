"""Peak host memory of a paper-scale Missing run on the CPU: rendering with its checks, training, one query.

The three commands of the pipeline, with the parameters of scale paper: 60,000 and 10,000 samples at 64 px,
EfficientNet-B0, width 512, batch 128, regime high with BADGE over the whole pool. Only what costs time and no
memory is cut: epochs, rounds, seeds (CUT). Peaks are high-water marks, pages of mapped files included;
"anonymous" is what the kernel could not drop.

    python benchmarks/memory.py            # eight minutes, 2 GB of disk; writes results/memory.json
    python benchmarks/memory.py --quick    # 300 samples at 16 px and the tiny encoder, nothing written
"""

import json
import os
import sys
import tempfile
import time
from pathlib import Path

import yaml

from machine import machine
from measure import arguments, target, watched, write

ROOT = Path(__file__).parents[1]
CUT = {"epochs": [60, 1], "rounds": [10, 2], "seeds": [3, 1], "query": ["all", "badge"]}
# Each with its number of workers: a run is one process, rendering takes two.
COMMANDS = {
    "prepare": (["missing"], "2"),
    "train": (["missing", "high"], "1"),
    "acquire": (["missing", "high"], "1"),
}
PROGRAM = "from mindgap.stages.cli import main; main()"
AT_MOST_GIB = 8


def shortened() -> dict:
    """The shipped parameters at scale paper, for one short run."""
    raw = yaml.safe_load((ROOT / "params.yaml").read_text())
    paper = raw["scales"]["paper"]
    paper["recipe"]["missing"]["all"]["epochs"] = CUT["epochs"][1]
    paper["training"]["warmup_epochs"] = 0.5
    paper["budget"]["missing"]["high"]["rounds"] = CUT["rounds"][1]
    return raw | {
        "scale": "paper",
        "dataset": ["missing"],
        "regime": ["high"],
        "query": [CUT["query"][1]],
        "mitigation": ["none"],
        "seeds": [0],
    }


def small(raw: dict) -> dict:
    """The same at a toy size."""
    paper = raw["scales"]["paper"]
    paper["render"] |= {"train_size": 240, "test_size": 60, "image_size": 16, "texture_period": 0.25}
    paper["model"]["encoder"]["image"] = {"name": "tiny"}
    paper["budget"]["missing"]["high"] = {"initial": 40, "validation": 40, "acquisition": 20, "rounds": 2}
    return raw


def measure(raw: dict) -> list[dict]:
    """Seconds and memory of each command, in a folder of its own."""
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "reports").mkdir()
        (Path(folder) / "reports" / "expectations").symlink_to(ROOT / "reports" / "expectations")
        (Path(folder) / "params.yaml").write_text(yaml.safe_dump(raw, sort_keys=False))
        environment = os.environ | {"MINDGAP_STORE": str(Path(folder) / "store"), "MINDGAP_DEVICES": "cpu"}
        rows = []
        for name, (names, workers) in COMMANDS.items():
            command, begin = [sys.executable, "-c", PROGRAM, name, *names], time.perf_counter()
            _, memory = watched(command, cwd=folder, env=environment | {"MINDGAP_WORKERS": workers})
            rows.append({"command": name, "seconds": time.perf_counter() - begin, **memory})
            print(json.dumps(rows[-1]), flush=True)
        return rows


def main() -> None:
    quick = arguments(__doc__).quick
    facts = machine("torch", "numpy")
    rows = measure(small(shortened()) if quick else shortened())
    if quick:
        return
    highest = max(row["peaks_gib"] for row in rows)
    what = "peak host memory of a paper-scale Missing run, GiB"
    result = {
        "command": "python benchmarks/memory.py",
        "machine": facts,
        "targets": [target(what, highest, at_most=AT_MOST_GIB)],
        "cut_from_to": CUT,
        "commands": rows,
    }
    write("memory", result)


if __name__ == "__main__":
    main()

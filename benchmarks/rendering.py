"""Images a second of `render_dataset`, process start and hashing included: 64 and 32 px, one and two workers.

The variants take turns, so that a busy machine slows them alike; medians are reported.

    python benchmarks/rendering.py            # a minute; writes results/rendering.json
    python benchmarks/rendering.py --quick    # few images, nothing written
"""

import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path

from rich.console import Console
from rich.table import Table

from machine import machine
from mindgap.data.quintfeatures import Style
from mindgap.data.render import render_dataset

RESULT = Path(__file__).parent / "results" / "rendering.json"
FULL = {"samples": 5000, "repeats": 3}  # of Unique: two images a sample
QUICK = {"samples": 50, "repeats": 1}
VARIANTS = [(size, workers) for size in (64, 32) for workers in (1, 2)]


def images_per_second(size: int, workers: int, samples: int) -> float:
    with tempfile.TemporaryDirectory() as folder:
        begin = time.perf_counter()
        render_dataset(
            "unique",
            Path(folder) / "unique",
            root_seed=0,
            style=Style(image_size=size),
            train_size=samples - 1,
            test_size=1,
            contact_sheet_size=0,
            workers=workers,
            progress=False,
        )
        return 2 * samples / (time.perf_counter() - begin)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="few images, nothing written")
    quick = parser.parse_args().quick
    amount, facts = QUICK if quick else FULL, machine("numpy", "noise")
    rates = {variant: [] for variant in VARIANTS}
    for _ in range(amount["repeats"]):
        for variant in VARIANTS:
            rates[variant].append(images_per_second(*variant, amount["samples"]))
    rows = [
        {
            "image_size": size,
            "workers": workers,
            "images_per_second": round(statistics.median(rates[size, workers])),
            "slowest": round(min(rates[size, workers])),
            "fastest": round(max(rates[size, workers])),
        }
        for size, workers in VARIANTS
    ]
    table = Table(*rows[0], title="Rendering: medians")
    for row in rows:
        table.add_row(*map(str, row.values()))
    Console().print(table)
    if quick:
        return
    result = {"command": "python benchmarks/rendering.py", "machine": facts, **amount, "rows": rows}
    RESULT.parent.mkdir(exist_ok=True)
    RESULT.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()

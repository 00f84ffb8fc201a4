"""Images a second of `render_dataset`, process start and hashing included: 64 and 32 px, one and two workers.

The variants take turns, so that a busy machine slows them alike; medians are reported.
"""

import json
import os
import platform
import statistics
import tempfile
import time
from importlib.metadata import version
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

from mindgap.data.quintfeatures import Style
from mindgap.data.render import render_dataset, usable_cores

RESULT = Path(__file__).parent / "results" / "rendering.json"
SAMPLES = 5000  # of Unique: two images each
REPEATS = 3
VARIANTS = [(size, workers) for size in (64, 32) for workers in (1, 2)]


def cpu_model() -> str:
    """The processor's name, from where Linux keeps it if it does."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), "unknown")


def images_per_second(size: int, workers: int) -> float:
    with tempfile.TemporaryDirectory() as folder:
        begin = time.perf_counter()
        render_dataset(
            "unique",
            Path(folder) / "unique",
            root_seed=0,
            style=Style(image_size=size),
            train_size=SAMPLES - 1,
            test_size=1,
            contact_sheet_size=0,
            workers=workers,
            progress=False,
        )
        return 2 * SAMPLES / (time.perf_counter() - begin)


def main() -> None:
    rates = {variant: [] for variant in VARIANTS}
    for _ in range(REPEATS):
        for variant in VARIANTS:
            rates[variant].append(images_per_second(*variant))
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
    machine = {
        "cpu": cpu_model(),
        "cores": usable_cores(),
        "load_at_end": round(os.getloadavg()[0], 1),
        "python": platform.python_version(),
        "numpy": np.__version__,
        "noise": version("noise"),
    }
    table = Table(*rows[0], title="Rendering, median of three")
    for row in rows:
        table.add_row(*map(str, row.values()))
    Console().print(table)
    RESULT.parent.mkdir(exist_ok=True)
    RESULT.write_text(json.dumps({"machine": machine, "images": 2 * SAMPLES, "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()

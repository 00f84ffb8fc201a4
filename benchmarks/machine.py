"""The facts about a machine that a reader of a benchmark needs: no paths, no host name."""

import os
import platform
from importlib.metadata import version
from pathlib import Path


def machine(*packages: str, threads: int | None = None) -> dict:
    """Processor, cores, load, and versions of Python and of `packages`; threads where they were fixed."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.split(":")[1].strip() for line in lines if line.startswith("model name")]
    return {
        "cpu": names[0] if names else platform.machine(),
        "cores": os.cpu_count(),
        **({"threads": threads} if threads else {}),
        "load_at_start": round(os.getloadavg()[0], 1),
        "python": platform.python_version(),
        **{name: version(name) for name in packages},
    }

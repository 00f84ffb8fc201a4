"""The facts about a machine that a reader of a benchmark needs: no paths, no host name."""

import os
import platform
import shutil
import subprocess
from importlib.metadata import version
from pathlib import Path

GPU_FACTS = {
    "gpu": "name",
    "gpu_memory": "memory.total",
    "driver": "driver_version",
    "sm_clock": "clocks.sm",
    "sm_clock_most": "clocks.max.sm",
    "memory_clock": "clocks.mem",
}


def machine(*packages: str, threads: int | None = None) -> dict:
    """Processor, cores, GPU, load, versions of Python and of `packages`; threads where they were fixed."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.split(":")[1].strip() for line in lines if line.startswith("model name")]
    return {
        "cpu": names[0] if names else platform.machine(),
        "cores": os.cpu_count(),
        **gpu(),
        **({"threads": threads} if threads else {}),
        "load_at_start": round(os.getloadavg()[0], 1),
        "python": platform.python_version(),
        **{name: version(name) for name in packages},
    }


def gpu() -> dict[str, str]:
    """Name, memory, driver and clocks of the first GPU, as nvidia-smi says them; nothing without one."""
    if not shutil.which("nvidia-smi"):
        return {}
    query = ["nvidia-smi", "-i", "0", f"--query-gpu={','.join(GPU_FACTS.values())}", "--format=csv,noheader"]
    answer = subprocess.run(query, capture_output=True, text=True)
    return (
        dict(zip(GPU_FACTS, answer.stdout.strip().split(", "), strict=True)) if not answer.returncode else {}
    )

"""What the benchmarks share: sides that take turns, targets, results, and the memory of a process tree."""

import argparse
import json
import statistics
import subprocess
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import torch

RESULTS = Path(__file__).parent / "results"
GIB = 2**20  # of the KiB that /proc counts in

# What only a GPU can reach, by benchmark: the page names these with their commands while there is no figure.
GPU_TARGETS = {
    "engine_gpu": {
        "graph": {"what": "CUDA-graph step: times faster than eager, 64 px, batch 128", "at_least": 2.5},
        "first": {"what": "first step of a process, recording included, seconds", "at_most": 30},
        "step": {
            "what": "a recorded step, two EfficientNet-B0, 64 px, batch 128: milliseconds",
            "at_most": 15,
        },
        "together": {"what": "eight runs at once: times one after the other, Missing low", "at_least": 3.0},
        "images": {
            "what": "images a second, all runs at once, Missing low, padding included",
            "at_least": 5e4,
        },
        "passes": {"what": "images a second, forward passes, 64 px", "at_least": 1.7e5},
        "busy": {"what": "share of time the GPU is busy, a mid-regime run", "at_least": 0.8},
        "busy_together": {"what": "share of time the GPU is busy, eight mid-regime runs", "at_least": 0.85},
        "memory": {"what": "GPU memory of a run above its data, 64 px, batch 128, GiB", "at_most": 2.0},
    },
    "selection_gpu": {
        "badge": {"what": "BADGE, 5,050 of 60,000, 101 classes, width 512: seconds", "at_most": 1.0},
    },
}


def arguments(doc: str) -> argparse.Namespace:
    """The command line of a benchmark: `--quick` only."""
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="small sizes; asserts no figure, writes nothing")
    return parser.parse_args()


def gpu_arguments(doc: str, name: str) -> argparse.Namespace:
    """The command line of a benchmark that needs a GPU but for `--quick`: also where its result goes."""
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a toy size, on a CPU too; nothing written")
    parser.add_argument("--out", type=Path, default=RESULTS, help=f"the folder of {name}.json")
    options = parser.parse_args()
    if not options.quick and not torch.cuda.is_available():
        raise SystemExit(f"{name}: no CUDA device here; --quick runs the same code on a CPU at a toy size")
    return options


def in_turns(sides: Mapping[str, Callable[[], float]], repeats: int) -> dict[str, list[float]]:
    """What each side returns, so many times, one after the other: a busy machine slows all alike."""
    figures = {name: [] for name in sides}
    for side in sides.values():
        side()  # what is loaded or built on first use
    for _ in range(repeats):
        for name, side in sides.items():
            figures[name].append(side())
    return figures


def medians(figures: Mapping[str, Sequence[float]]) -> dict[str, float]:
    return {name: statistics.median(values) for name, values in figures.items()}


def target(what: str, reached: float, *, at_least: float | None = None, at_most: float | None = None) -> dict:
    """A figure beside what it is held against, as every result lists them."""
    bound = {"at_least": True} if at_least is not None else {"at_most": True}
    return {"what": what, "target": at_most if at_least is None else at_least, **bound, "reached": reached}


def gpu_target(benchmark: str, name: str, reached: float | None) -> dict:
    """One of `GPU_TARGETS` with its figure, None where there is none."""
    return target(reached=reached, **GPU_TARGETS[benchmark][name])


def rounded(value: object, digits: int = 4) -> object:
    """Floats to so many significant digits, at any depth: the rest is noise."""
    if isinstance(value, float):
        return float(f"{value:.{digits}g}")
    if isinstance(value, Mapping):
        return {key: rounded(one, digits) for key, one in value.items()}
    return [rounded(one, digits) for one in value] if isinstance(value, list | tuple) else value


def verdict(one: Mapping) -> str:
    if one["reached"] is None:
        return "not measured"
    met = one["reached"] >= one["target"] if "at_least" in one else one["reached"] <= one["target"]
    return "met" if met else "MISSED"


def write(name: str, result: Mapping, folder: Path = RESULTS) -> None:
    """results/<name>.json, and each target with its figure on the screen."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}.json").write_text(json.dumps(rounded(result), indent=1) + "\n")
    for one in rounded(result["targets"]):
        print(f"{verdict(one)}: {one['what']}: {one['reached']} (target {one['target']})")


def status_kib(pid: int) -> dict[str, int]:
    """The sizes of a process in KiB as /proc has them (VmHWM, RssAnon, ...); empty once it is gone."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return {}
    fields = (line.split() for line in lines)
    return {one[0][:-1]: int(one[1]) for one in fields if len(one) == 3 and one[2] == "kB"}


def family(root: int) -> list[int]:
    """A process and all below it."""
    children: dict[int, list[int]] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            parent = int(stat.read_text().rpartition(")")[2].split()[1])
        except OSError:  # it ended in between
            continue
        children.setdefault(parent, []).append(int(stat.parent.name))
    found = [root]
    for pid in found:
        found += children.get(pid, [])
    return found


class Watch:
    """Peak memory of a process and all its children, looked at ten times a second (Linux).

    `peaks_gib` sums the processes' own high-water marks, whenever they were: never too little. It counts
    pages of mapped files, which the kernel drops when memory is short; `anonymous_gib`, the most that all had
    at one moment, does not.
    """

    def __init__(self, pid: int):
        self.pid, self.highest, self.anonymous, self.over = pid, {}, 0, threading.Event()
        self.thread = threading.Thread(target=self._look, daemon=True)

    def _look(self) -> None:
        while not self.over.wait(0.1):
            now = {pid: status_kib(pid) for pid in family(self.pid)}
            for pid, sizes in now.items():
                self.highest[pid] = max(self.highest.get(pid, 0), sizes.get("VmHWM", 0))
            self.anonymous = max(self.anonymous, sum(sizes.get("RssAnon", 0) for sizes in now.values()))

    def __enter__(self) -> "Watch":
        self.thread.start()
        return self

    def __exit__(self, *_) -> None:
        self.over.set()
        self.thread.join()

    @property
    def memory(self) -> dict[str, float]:
        return {
            "processes": len(self.highest),
            "peaks_gib": sum(self.highest.values()) / GIB,
            "anonymous_gib": self.anonymous / GIB,
        }


def watched(command: Sequence[str], **settings) -> tuple[str, dict[str, float]]:
    """What a command printed, and the peak memory of its processes."""
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, **settings)
    with Watch(process.pid) as watch:
        shown = process.communicate()[0]
    if process.returncode:
        raise SystemExit(f"{' '.join(command)} ended with {process.returncode}")
    return shown, watch.memory

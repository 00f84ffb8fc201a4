"""make gpu: what ten minutes of a GPU can tell, the most telling first.

Each part is a process of its own with a time limit. What a part found is written as soon as it ends: a host
that goes away in between takes only the part that was under way. Nothing here imports MindGap, DVC or torch.

    python cluster/gpu_check.py --out FOLDER                  # on a GPU host, 570 seconds
    python cluster/gpu_check.py --out FOLDER --seconds 3000   # longer: the rest goes to runs at scale paper
    python cluster/gpu_check.py --quick --out FOLDER          # the same at a toy size, on a CPU too

FOLDER gets `gpu_check.json` (seconds, exit status and last lines of each part), a log for each part, the
results of the benchmarks, curves and provenance of the runs, and `records.tar.gz`: their finished rounds. The
store in `.mindgap/gpu` also has the weights that runs start from: the next call goes on where this one ended.
"""

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[1]
WORK = ROOT / ".mindgap" / "gpu"
STORE = WORK / "store"
LEAST = 15.0  # seconds: with fewer left no part begins
GRACE = 10.0  # seconds to end after SIGTERM


@dataclass(frozen=True)
class Part:
    """A command, the most seconds it may take, and the folder it runs in."""

    name: str
    command: Sequence[str]
    limit: float
    folder: Path = ROOT
    environment: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Study:
    """Real runs: a dataset and regime with changes of params.yaml, keys joined by dots, seed by seed."""

    name: str
    dataset: str
    regime: str
    changes: Mapping[str, Any]
    seeds: Sequence[int]


SEVEN = ["random", "entropy", "bald", "kcenter_greedy", "badge", "bmmal", "grace_r"]
BOTH = ["none", "moddrop"]


def studies(quick: bool) -> list[Study]:
    """The runs worth most first. Share's need its files in data/raw/share."""
    scale = "tiny" if quick else "paper"
    absent, epoch = f"scales.{scale}.model.absent", f"scales.{scale}.training.min_samples_per_epoch"
    base: dict[str, Any] = {"scale": scale}
    if quick:
        base |= {f"scales.tiny.render.{name}_size": size for name, size in (("train", 400), ("test", 50))}
        base |= {
            f"scales.tiny.budget.missing.low.{name}": 20 for name in ("initial", "validation", "acquisition")
        }
        base |= {"scales.tiny.budget.missing.low.rounds": 2, "scales.tiny.recipe.missing.all.epochs": 3}
        return [Study("missing-low", "missing", "low", base | {"query": ["random"], "mitigation": BOTH}, [0])]
    missing = base | {"query": SEVEN, "mitigation": ["moddrop"]}
    unique = base | {"query": ["random"], "mitigation": BOTH}
    share = base | {"query": ["random"], "mitigation": ["none"]}
    return [
        Study("missing-low", "missing", "low", missing, [0, 1, 2]),
        *(
            Study(f"unique-low-{way}", "unique", "low", unique | {absent: way}, [0])
            for way in ("zeros", "skip")
        ),
        *(Study(f"share-low-epoch-{n}", "share", "low", share | {epoch: n}, [0]) for n in (0, 5500)),
    ]


def checks(out: Path, quick: bool) -> list[Part]:
    """The tests marked `gpu` and the two benchmarks of a GPU."""
    files = [str(p) for p in sorted((ROOT / "tests").glob("test_*.py")) if "pytest.mark.gpu" in p.read_text()]
    if quick:
        files = [str(ROOT / "tests" / "test_gpu.py")]
    size = ["--quick"] if quick else ["--out", str(out)]
    test = [sys.executable, "-m", "pytest", "-q", "-m", "gpu", "-p", "no:cacheprovider", *files]
    return [
        Part("tests", test, 150),
        Part("engine", [sys.executable, "benchmarks/engine_gpu.py", *size], 200),
        Part("selection", [sys.executable, "benchmarks/selection_gpu.py", *size], 60),
    ]


def parts_of(study: Study, seed_count: int, limit: float) -> Iterator[Part]:
    """Prepare, train and acquire a study with its first seeds, in a project folder of its own."""
    folder = project(study, study.seeds[:seed_count])
    machine = {"MINDGAP_RAW_SHARE": str(ROOT / "data/raw/share"), "MINDGAP_STORE": str(STORE)}
    machine["MINDGAP_RUNS_PER_GPU"] = os.environ.get("MINDGAP_RUNS_PER_GPU", "8")
    for step, *arguments in (
        ("prepare", study.dataset),
        ("train", study.dataset, study.regime),
        ("acquire", study.dataset, study.regime),
    ):
        if step == "prepare" and (folder / "data/prepared" / study.dataset / "meta.json").exists():
            continue
        name = f"{study.name}-{seed_count}-{step}"
        yield Part(name, [sys.executable, "-m", "mindgap", step, *arguments], limit, folder, machine)


def project(study: Study, seeds: Sequence[int]) -> Path:
    """A project folder with the parameters of a study; studies of one dataset share it and its data."""
    folder = WORK / study.dataset
    shutil.copytree(ROOT / "reports/expectations", folder / "reports/expectations", dirs_exist_ok=True)
    changes = {**study.changes, "dataset": [study.dataset], "regime": [study.regime], "seeds": list(seeds)}
    (folder / "params.yaml").write_text(yaml.safe_dump(changed(changes), sort_keys=False))
    return folder


def changed(changes: Mapping[str, Any]) -> dict[str, Any]:
    """params.yaml with changes; a key that is not there is an error."""
    params = yaml.safe_load((ROOT / "params.yaml").read_text())
    for key, value in changes.items():
        *above, last = key.split(".")
        block = params
        for name in above:
            block = block[name]
        if last not in block:
            raise SystemExit(f"gpu_check: params.yaml has no {key}")
        block[last] = value
    return params


class Check:
    """Runs parts until the time is over and writes down what each one found."""

    def __init__(self, out: Path, seconds: float):
        self.out, self.begin, self.end = out, time.monotonic(), time.monotonic() + seconds
        self.told: dict[str, Any] = {"seconds": seconds, "device": device(), "parts": []}
        out.mkdir(parents=True, exist_ok=True)

    @property
    def left(self) -> float:
        return self.end - time.monotonic()

    def run(self, part: Part) -> bool:
        """Whether the part ended well within its limit and the time that is left."""
        if self.left < LEAST:
            self._tell({"part": part.name, "left_out": "no time was left"})
            return False
        limit, begin = min(part.limit, self.left), time.monotonic()
        log = self.out / f"{part.name}.log"
        with log.open("wb") as file:
            code = watched(part, file, limit)
        tail = log.read_text(errors="replace").splitlines()[-12:]
        seconds = round(time.monotonic() - begin, 1)
        self._tell(
            {"part": part.name, "seconds": seconds, "limit": round(limit, 1), "exit": code, "tail": tail}
        )
        return code == 0

    def study(self, study: Study) -> None:
        """Seed by seed; the curves of what is complete are copied, and all finished rounds packed."""
        for count in range(1, len(study.seeds) + 1):
            whole = all(self.run(part) for part in parts_of(study, count, self.left))
            pack(self.out)
            if not whole:
                return
            name = f"{study.dataset}-{study.regime}"
            for kind, ending in (("curves", "csv"), ("provenance", "json")):
                made = WORK / study.dataset / "reports" / kind / f"{name}.{ending}"
                (self.out / kind).mkdir(exist_ok=True)
                (self.out / kind / f"{study.name}.{ending}").write_bytes(made.read_bytes())

    def _tell(self, found: Mapping[str, Any]) -> None:
        self.told["parts"].append(found)
        (self.out / "gpu_check.json").write_text(json.dumps(self.told, indent=1) + "\n")
        print(json.dumps({key: value for key, value in found.items() if key != "tail"}), flush=True)


def watched(part: Part, log, limit: float) -> int | str:
    """The exit status of a part, or that it was stopped: finished rounds are in the store by then."""
    path = os.pathsep.join([str(ROOT / "src"), *filter(None, [os.environ.get("PYTHONPATH")])])
    environment = {**os.environ, "PYTHONPATH": path, "PYTHONUNBUFFERED": "1", **part.environment}
    process = subprocess.Popen(
        part.command, cwd=part.folder, env=environment, stdout=log, stderr=log, start_new_session=True
    )
    try:
        return process.wait(limit)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGTERM)
        try:
            process.wait(GRACE)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        return f"stopped after {limit:.0f} s"


def pack(out: Path) -> None:
    """The finished rounds of all runs, without weights, which are trained again where they are missing."""
    with tarfile.open(out / "records.tar.gz", "w:gz") as tar:
        for record in sorted(STORE.glob("*/round_*.json")):
            tar.add(record, record.relative_to(STORE))


def device() -> str:
    """What nvidia-smi says of the first GPU."""
    query = ["nvidia-smi", "-i", "0", "--query-gpu=name,memory.total,driver_version", "--format=csv,noheader"]
    try:
        return subprocess.run(query, check=True, capture_output=True, text=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "no GPU"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, required=True, help="where everything is written that is found")
    parser.add_argument("--seconds", type=float, default=570, help="after which nothing runs any more")
    parser.add_argument("--quick", action="store_true", help="a toy size, on a CPU too")
    parser.add_argument("--only", choices=["checks", "runs"], help="leave the other half out")
    options = parser.parse_args()
    check = Check(options.out.resolve(), options.seconds)
    if check.told["device"] == "no GPU" and not options.quick:
        raise SystemExit("gpu_check: no GPU here; --quick runs the same at a toy size on a CPU")
    if options.only != "runs":
        for part in checks(check.out, options.quick):
            check.run(part)
    if options.only != "checks":
        for study in studies(options.quick):
            if study.dataset == "share" and not (ROOT / "data/raw/share").exists():
                check._tell({"part": study.name, "left_out": "data/raw/share is not here"})
            elif check.left >= LEAST:
                check.study(study)
    failed = [one["part"] for one in check.told["parts"] if one.get("exit", 0) != 0]
    print(f"{options.out}: {len(check.told['parts'])} parts, not ended well: {', '.join(failed) or 'none'}")


if __name__ == "__main__":
    main()

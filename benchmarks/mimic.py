"""The extraction of MIMIC-IV at size: seconds and peak memory of the lab part, seconds per ECG.

Labs: the open demo's rows (physionet.org, MIMIC-IV demo 2.2), 200 times with shifted subjects, as a .csv.gz;
then the same file five times over, which is as long as the smaller release. What is timed is the whole lab
part, from the packed file to the first value of each lab and admission, in a process of its own. ECG: records
in MIMIC-IV-ECG's form, read by wfdb and by ours in turns (medians), and a whole extraction's ECG part.

    python benchmarks/mimic.py --demo hosp    # of the demo; 4 GB of disk; writes results/mimic.json
    python benchmarks/mimic.py --quick        # made-up rows, small sizes, nothing written
"""

import argparse
import gzip
import json
import statistics
import subprocess
import sys
import tempfile
import time
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
import polars as pl

from machine import machine
from mindgap.data.flow import Flow
from mindgap.data.mimic.ecg import LEADS, RATE, SAMPLES, quiet_wfdb, read_by_wfdb, read_ecg, write_ecgs
from mindgap.data.mimic.labs import LABS, Lab, lab_values, usual_values
from mindgap.data.mimic.raw import RELEASES, TIME, Checks

RESULT = Path(__file__).parent / "results" / "mimic.json"
FULL = {"copies": 200, "times": [1, 5], "records": 4000, "read": 200, "samples": [1000, 5000]}
QUICK = {"copies": 3, "times": [1, 2], "records": 70, "read": 3, "samples": [500]}
REPEATS = 3


def made_up_demo() -> tuple[pl.DataFrame, pl.DataFrame]:
    """labevents and admissions of twenty subjects, as text, for a quick run without the demo."""
    rng, noon = np.random.default_rng(0), datetime(2150, 1, 1, 12)
    subjects = [10_000_000 + k for k in range(20)]
    rows = [
        (
            subjects[i % 20],
            LABS[i % 50].itemid,
            noon + timedelta(hours=float(rng.normal(0, 40))),
            *_usual(LABS[i % 50]),
        )
        for i in range(4000)
    ]
    labevents = pl.DataFrame(
        [(i, s, item, t.strftime(TIME), value, unit) for i, (s, item, t, value, unit) in enumerate(rows)],
        schema=["labevent_id", "subject_id", "itemid", "charttime", "valuenum", "valueuom"],
        orient="row",
    )
    admissions = pl.DataFrame({"subject_id": subjects, "admittime": [noon.strftime(TIME)] * 20})
    return labevents.cast(pl.String), admissions.cast(pl.String)


def _usual(lab: Lab) -> tuple[str, str]:
    """A value and its unit."""
    usual = usual_values()[lab.itemid]
    middle = (usual["median_low"] + usual["median_high"]) / 2
    return str(min(max(middle, usual["low"]), usual["high"])), lab.units[0]


def read_demo(hosp: Path) -> tuple[pl.DataFrame, pl.DataFrame]:
    return tuple(
        pl.read_csv(hosp / f"{name}.csv.gz", infer_schema=False) for name in ("labevents", "admissions")
    )


def write_labs(folder: Path, demo: tuple[pl.DataFrame, pl.DataFrame], size: dict) -> dict:
    """Packed files of the demo's rows, repeated with other subjects; and how long they are."""
    labevents, admissions = (table.with_columns(pl.col("subject_id").cast(pl.Int64)) for table in demo)
    shifted = [pl.col("subject_id") + 40_000 * k for k in range(size["copies"])]
    pl.concat(admissions.with_columns(s) for s in shifted).write_parquet(folder / "admissions.parquet")
    header = gzip.compress(labevents.head(0).write_csv().encode())
    with gzip.open(folder / "body.gz", "wb", compresslevel=4) as body:
        for subject in shifted:
            body.write(labevents.with_columns(subject).write_csv(include_header=False).encode())
    files = {}
    for times in size["times"]:  # a .gz may have any number of members
        path = folder / f"labevents-{times}.csv.gz"
        with path.open("wb") as file:
            file.write(header)
            for _ in range(times):
                file.write((folder / "body.gz").read_bytes())
        files[path.name] = {"rows": len(labevents) * size["copies"] * times, "bytes": path.stat().st_size}
    return files


def lab_part(path: Path) -> dict:
    """Seconds, values found and peak memory of this process (a fresh one), packages' 0.1 GiB included."""
    admissions = pl.read_parquet(path.parent / "admissions.parquet")
    when = pl.col("admittime").str.to_datetime(TIME)
    admissions = admissions.select(pl.col("subject_id").cast(pl.Int32), when)
    start = time.perf_counter()
    with tempfile.TemporaryDirectory(dir=path.parent) as scratch:
        settings = {"release": None, "flow": Flow(), "checks": Checks()}
        x_NI = lab_values(path, admissions, 24, Path(scratch), **settings)
    return {
        "seconds": time.perf_counter() - start,
        "admissions": len(x_NI),
        "values": int(np.isfinite(x_NI).sum()),
        "peak_gib": peak_gib(),
    }


def peak_gib() -> float:
    """This process's largest resident size so far (Linux; ru_maxrss would begin with its parent's)."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line.split()[1] for line in lines if line.startswith("VmHWM:"))) / 2**20


def in_own_process(what: str, path: Path) -> dict:
    command = [sys.executable, __file__, "--worker", what, "--path", str(path)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return json.loads(done.stdout.splitlines()[-1])


def measure_labs(folder: Path, demo: tuple[pl.DataFrame, pl.DataFrame], size: dict) -> dict:
    """Both lengths, and what the longer one means for the releases."""
    files = write_labs(folder, demo, size)
    results = {}
    for name, about in files.items():
        runs = [in_own_process("labs", folder / name) for _ in range(REPEATS)]
        median = statistics.median(run["seconds"] for run in runs)
        results[name] = {
            **about,
            "seconds": median,
            "peak_gib": max(run["peak_gib"] for run in runs),
            "runs": runs,
        }
    longest = results[list(files)[-1]]
    per_row = longest["seconds"] / longest["rows"]
    releases = {name: RELEASES[name]["labevents"] * per_row for name in ("2.2", "3.1")}
    return {"files": results, "extrapolated_seconds": releases}


def write_records(folder: Path, records: int) -> list[Path]:
    """Made-up recordings in MIMIC-IV-ECG's form: a few are written, the others are copies."""
    originals = []
    for k in range(min(8, records)):
        steps = np.random.default_rng(k).integers(-9, 10, (SAMPLES, len(LEADS)))
        stem, n = folder / f"original{k}", len(LEADS)
        fields = {"fs": RATE, "units": ["mV"] * n, "sig_name": list(LEADS), "fmt": ["16"] * n}
        fields |= {"adc_gain": [200.0] * n, "baseline": [0] * n, "write_dir": str(folder)}
        with quiet_wfdb() as wfdb:
            wfdb.wrsamp(stem.name, d_signal=steps.cumsum(axis=0).astype(np.int16), **fields)
        originals.append(stem)
    stems = []
    for k in range(records):
        source, stem = originals[k % len(originals)], folder / f"{k}"
        stem.with_suffix(".hea").write_text(
            source.with_suffix(".hea").read_text().replace(source.name, stem.name)
        )
        stem.with_suffix(".dat").write_bytes(source.with_suffix(".dat").read_bytes())
        stems.append(stem)
    return stems


def measure_reading(stems: list[Path]) -> dict:
    """Milliseconds for a record, by wfdb and by ours in turns; the files are in the page cache."""
    runs = {"wfdb": [], "ours": []}
    for stem in stems[:3]:
        assert np.array_equal(np.float32(read_by_wfdb(stem)[1].T), read_ecg(stem))
    for _ in range(REPEATS):
        for name, read in (("wfdb", read_by_wfdb), ("ours", read_ecg)):
            start = time.perf_counter()
            for stem in stems:
                read(stem)
            runs[name].append(1000 * (time.perf_counter() - start) / len(stems))
    medians = {f"{name}_ms": statistics.median(values) for name, values in runs.items()}
    return {**medians, "times_faster": medians["wfdb_ms"] / medians["ours_ms"], "runs": runs}


def ecg_part(folder: Path, records: int, samples: int, workers: int) -> dict:
    """Seconds and peak memory for one record per admission; with one worker this process reads them."""
    ids = np.arange(records)
    candidates = pl.DataFrame(
        {"admission": ids, "subject_id": ids, "study_id": ids, "path": [str(i) for i in ids]}
    )
    start = time.perf_counter()
    choice = {"samples": samples, "scaling": "joint", "workers": workers, "progress": False}
    taken_N, _ = write_ecgs(candidates, records, folder, folder / "ecg.npy", **choice)
    return {
        "records": int((taken_N >= 0).sum()),
        "samples": samples,
        "workers": workers,
        "seconds": time.perf_counter() - start,
        "peak_gib": peak_gib(),
    }


def worker(what: str, path: Path) -> dict:
    """In a process of its own, for its memory; `path` of an ECG part is folder/records/samples/workers."""
    if what == "labs":
        return lab_part(path)
    records, samples, workers = map(int, path.parts[-3:])
    return ecg_part(path.parents[2], records, samples, workers)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="small sizes, nothing written")
    parser.add_argument("--demo", type=Path, help="hosp folder of the MIMIC-IV demo")
    parser.add_argument("--worker", choices=("labs", "ecg"), help=argparse.SUPPRESS)
    parser.add_argument("--path", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        print(json.dumps(worker(options.worker, options.path)))
        return
    if not options.quick and not options.demo:
        parser.error("--demo names the hosp folder of the MIMIC-IV demo; --quick does without")
    size = QUICK if options.quick else FULL
    command = f"python benchmarks/mimic.py {'--quick' if options.quick else '--demo hosp'}"
    result = {"command": command, "machine": machine("polars", "numpy", "wfdb"), "size": size}
    with tempfile.TemporaryDirectory() as name:
        demo = read_demo(options.demo) if options.demo else made_up_demo()
        result["labs"] = measure_labs(Path(name), demo, size)
        print(json.dumps(result["labs"], indent=1), flush=True)
    with tempfile.TemporaryDirectory() as name:
        stems = write_records(Path(name), size["records"])
        result["reading"] = measure_reading(stems[: size["read"]])
        parts = [
            f"{size['records']}/{samples}/{workers}" for samples in size["samples"] for workers in (1, 2)
        ]
        result["ecg"] = [in_own_process("ecg", Path(name) / part) for part in parts]
        print(json.dumps({key: result[key] for key in ("reading", "ecg")}, indent=1), flush=True)
    if not options.quick:
        RESULT.parent.mkdir(exist_ok=True)
        RESULT.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()

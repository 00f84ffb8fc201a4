"""Selection kernels beside what is commonly used, in one process: seconds per pick and extra peak memory.

BADGE: scikit-learn's kmeans_plusplus on the written-out n x (C d) embedding, one trial per centre. k-center:
the common implementation, scikit-learn distances with an n x m matrix at the start and n x 1 per pick.
Both sides take turns, three times; figures are medians. k-center picks are timed with 10 labelled samples
and its first pass over the labelled set on its own: in the difference of two full runs they drown in noise.
Extra memory is what a call adds to its inputs; the written-out embedding is an input, and stated beside it.

    python benchmarks/selection.py            # needs about 6 GB; writes results/selection.json
    python benchmarks/selection.py --quick    # small sizes, nothing written
"""

import argparse
import json
import statistics
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import torch
from sklearn.cluster import kmeans_plusplus
from sklearn.metrics import pairwise_distances

from machine import machine
from mindgap.query.badge import residuals
from mindgap.query.kernels import k_center_greedy, k_means_pp

RESULT = Path(__file__).parent / "results" / "selection.json"
FULL = {"n": 10_000, "classes": 100, "width": 512, "labelled": 5_000, "picks": 1_000, "their_picks": 4}
QUICK = {"n": 400, "classes": 5, "width": 16, "labelled": 100, "picks": 50, "their_picks": 4}


def inputs(size: dict) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Residuals, pool features and labelled features of a made-up, fairly confident classifier."""
    rng = torch.Generator().manual_seed(0)
    r_NC = residuals((3 * torch.randn(size["n"], size["classes"], generator=rng)).softmax(1))
    h_ND = torch.randn(size["n"], size["width"], generator=rng).relu_()
    return r_NC, h_ND, torch.randn(size["labelled"], size["width"], generator=rng).relu_()


def our_badge(size: dict, picks: int) -> float:
    """Seconds for all picks."""
    r_NC, h_ND, _ = inputs(size)
    return seconds(lambda: k_means_pp(r_NC, h_ND, picks, torch.Generator().manual_seed(0)))


def their_badge(size: dict, picks: int) -> float:
    r_NC, h_ND, _ = inputs(size)
    written_out = (r_NC[:, :, None] * h_ND[:, None, :]).flatten(1).numpy()
    norms = np.einsum("ij,ij->i", written_out, written_out)
    run = {"x_squared_norms": norms, "n_local_trials": 1, "random_state": 0}
    return seconds(lambda: kmeans_plusplus(written_out, picks, **run))


def our_k_center(size: dict, picks: int) -> float:
    _, h_ND, labelled_LD = inputs(size)
    return seconds(lambda: k_center_greedy(h_ND, labelled_LD, picks, torch.Generator().manual_seed(0)))


def their_k_center(size: dict, picks: int) -> float:
    _, h_ND, labelled_LD = inputs(size)
    return seconds(lambda: pairwise_k_center(h_ND.numpy(), labelled_LD.numpy(), picks))


def pairwise_k_center(x: np.ndarray, centres: np.ndarray, picks: int) -> list[int]:
    """The common k-center greedy: all n x m distances first, one column per pick after."""
    nearest = pairwise_distances(x, centres).min(axis=1)
    chosen = []
    for _ in range(picks):
        chosen.append(int(nearest.argmax()))
        nearest = np.minimum(nearest, pairwise_distances(x, x[chosen[-1:]])[:, 0])
    return chosen


def seconds(call) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


KERNELS = {f.__name__: f for f in (our_badge, their_badge, our_k_center, their_k_center)}
SIDES = ("our", "their")
REPEATS = 3


def timed(kernel: str, size: dict) -> dict[str, dict]:
    """Seconds per pick, and of a first pick with its set-up, of ours and theirs in turns."""
    few_labelled = {**size, "labelled": 10} if kernel == "k_center" else size
    figures = {f"{side}_{kernel}": {"seconds_of_first_pick": [], "seconds_per_pick": []} for side in SIDES}
    for name in figures:
        KERNELS[name](QUICK, 5)  # load what is loaded on first use
    for _ in range(REPEATS):
        for name, lists in figures.items():
            later = size["their_picks"] if name == "their_badge" else size["picks"]
            lists["seconds_of_first_pick"].append(KERNELS[name](size, 1))
            # one centre of scikit-learn costs a scan of 2 GB before the first pick: left out in its favour
            start = KERNELS[name](few_labelled, 1)
            lists["seconds_per_pick"].append((KERNELS[name](few_labelled, 1 + later) - start) / later)
    return {
        name: {"runs": lists} | {key: statistics.median(values) for key, values in lists.items()}
        for name, lists in figures.items()
    }


def extra_mib(name: str, size: dict) -> float:
    """Peak memory above the inputs, measured in a process of its own."""
    command = [sys.executable, __file__, "--worker", name, "--size", json.dumps(size)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return json.loads(done.stdout.splitlines()[-1])


def worker(name: str, size: dict) -> float:
    """Extra peak in MiB: high-water mark after the call, less what was resident when it began (Linux)."""
    global seconds
    KERNELS[name](QUICK, 5)
    resident = []

    def watched(call) -> float:
        # reset the high-water mark, which the making of the inputs has raised
        Path("/proc/self/clear_refs").write_text("5")
        resident.append(status_kib("VmRSS"))
        call()
        return 0.0

    seconds = watched
    KERNELS[name](size, min(size["picks"], 200) if name.startswith("our") else 3)
    return (status_kib("VmHWM") - resident[0]) / 1024


def status_kib(field: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line.split()[1] for line in lines if line.startswith(field + ":")))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="small sizes, nothing written")
    parser.add_argument("--worker", choices=KERNELS, help=argparse.SUPPRESS)
    parser.add_argument("--size", type=json.loads, help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.worker:
        print(json.dumps(worker(options.worker, options.size)))
        return
    size = QUICK if options.quick else FULL
    command = "python benchmarks/selection.py" + (" --quick" if options.quick else "")
    embedding_mib = size["n"] * size["classes"] * size["width"] * 4 / 2**20
    result = {
        "command": command,
        "machine": machine("torch", "numpy", "scikit-learn", threads=1),
        "size": size,
        "written_out_mib": embedding_mib,
    }
    for kernel in ("badge", "k_center"):
        ours, theirs = timed(kernel, size).values()
        result[f"our_{kernel}"] = {**ours, "extra_mib": extra_mib(f"our_{kernel}", size)}
        result[f"their_{kernel}"] = {**theirs, "extra_mib": extra_mib(f"their_{kernel}", size)}
        result[f"{kernel}_times_faster"] = theirs["seconds_per_pick"] / ours["seconds_per_pick"]
        print(
            json.dumps({key: value for key, value in result.items() if kernel in key}, indent=1), flush=True
        )
    if not options.quick:
        RESULT.parent.mkdir(exist_ok=True)
        RESULT.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()

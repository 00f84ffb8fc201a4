"""Selection kernels beside what is commonly used, in one process: seconds per pick and extra peak memory.

BADGE: scikit-learn's kmeans_plusplus on the written-out n x (C d) embedding, one trial per centre. k-center:
the common implementation, scikit-learn distances with an n x m matrix at the start and n x 1 per pick.
Both sides have one thread and take turns, three times; figures are medians. k-center picks are timed with 10
labelled samples and its first pass over the labelled set on its own: in the difference of two full runs they
drown in noise.
Extra memory is what a call adds to its inputs; the written-out embedding is an input, and stated beside it.

    python benchmarks/selection.py            # about six minutes and 4 GB; writes results/selection.json
    python benchmarks/selection.py --quick    # small sizes, nothing written
"""

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from sklearn.cluster import kmeans_plusplus
from sklearn.metrics import pairwise_distances
from threadpoolctl import threadpool_limits

from machine import machine
from measure import in_turns, medians, status_kib, target, write
from mindgap.parts.query.badge import residuals
from mindgap.parts.query.kernels import k_center_greedy, k_means_pp

# Each of their picks costs the same: a few are enough.
PICKS = {"picks": 1_000, "their_badge_picks": 4, "their_k_center_picks": 25}
LABELLED = {"width": 512, "labelled": 5_000}
FULL = [  # the targets are of the first
    {"n": 50_000, "classes": 10, **LABELLED, **PICKS},
    {"n": 10_000, "classes": 100, **LABELLED, **PICKS},
]
SMALL = {"n": 400, "classes": 5, "width": 16, "labelled": 100}
QUICK = [SMALL | {"picks": 50, "their_badge_picks": 4, "their_k_center_picks": 4}]
REPEATS = 3
SIDES = ("our", "their")
# Memory that is freed goes back at once: else what a process keeps for later is counted, or hides a peak.
GIVE_BACK = {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536"}


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


def timed(kernel: str, size: dict, repeats: int) -> dict[str, dict]:
    """Seconds per pick, and of a first pick with its set-up, of ours and theirs in turns."""
    few_labelled = {**size, "labelled": 10} if kernel == "k_center" else size

    def of_a_pick(name: str, picks: int) -> float:
        # one centre of scikit-learn costs a scan of the embedding before the first pick: left out
        start = KERNELS[name](few_labelled, 1)
        return (KERNELS[name](few_labelled, 1 + picks) - start) / picks

    sides = {}
    for side in SIDES:
        name, picks = f"{side}_{kernel}", size["picks" if side == "our" else f"their_{kernel}_picks"]
        sides[f"{name} first"] = lambda name=name: KERNELS[name](size, 1)
        sides[f"{name} pick"] = lambda name=name, picks=picks: of_a_pick(name, picks)
    runs = in_turns(sides, repeats)
    middle = medians(runs)
    return {
        f"{side}_{kernel}": {
            "seconds_of_first_pick": middle[f"{side}_{kernel} first"],
            "seconds_per_pick": middle[f"{side}_{kernel} pick"],
            "runs": {key.split()[1]: runs[key] for key in runs if key.startswith(side)},
        }
        for side in SIDES
    }


def extra_mib(names: Sequence[str], size: dict, repeats: int, together: bool) -> dict[str, float]:
    """Peak memory of each above the inputs: the median of some processes of its own, or one for all."""
    answers = {name: [] for name in names}
    for group in [names] if together else [[name] for name in names]:
        command = [sys.executable, __file__, "--worker", *group, "--size", json.dumps(size)]
        run = {"check": True, "capture_output": True, "text": True, "env": os.environ | GIVE_BACK}
        for _ in range(repeats):
            for name, mib in json.loads(subprocess.run(command, **run).stdout.splitlines()[-1]).items():
                answers[name].append(mib)
    return medians(answers)


def worker(name: str, size: dict) -> float:
    """Extra peak in MiB: high-water mark after the call, less what was resident when it began (Linux)."""
    global seconds
    KERNELS[name](SMALL, 5)
    resident = []

    def watched(call) -> float:
        # reset the high-water mark, which the making of the inputs has raised
        Path("/proc/self/clear_refs").write_text("5")
        resident.append(status_kib(os.getpid())["VmRSS"])
        call()
        return 0.0

    seconds = watched
    KERNELS[name](size, size["picks"] if name.startswith("our") else 3)
    return (status_kib(os.getpid())["VmHWM"] - resident[0]) / 1024


def compared(size: dict, repeats: int, quick: bool) -> dict:
    """Both kernels at one size, and what ours are to theirs."""
    written_out_mib = size["n"] * size["classes"] * size["width"] * 4 / 2**20
    row = {**size, "written_out_mib": written_out_mib}
    extra = extra_mib(list(KERNELS), size, repeats, together=quick)
    for kernel in ("badge", "k_center"):
        for name, figures in timed(kernel, size, repeats).items():
            row[name] = figures | {"extra_mib": extra[name]}
        ours, theirs = row[f"our_{kernel}"], row[f"their_{kernel}"]
        row[f"{kernel}_times_faster"] = theirs["seconds_per_pick"] / ours["seconds_per_pick"]
        if kernel == "k_center":
            first = "seconds_of_first_pick"
            row["k_center_first_pass_times_faster"] = theirs[first] / ours[first]
    all_of_theirs = written_out_mib + row["their_badge"]["extra_mib"]
    row["badge_share_of_their_memory"] = row["our_badge"]["extra_mib"] / all_of_theirs
    return row


def targets(row: dict) -> list[dict]:
    what = f"{row['n']:,} samples, {row['classes']} classes, width {row['width']}"
    badge = f"BADGE, {what}: times faster per pick than scikit-learn's kmeans_plusplus"
    memory = f"BADGE, {what}: extra memory, share of the written-out embedding and what it needs beside it"
    k_center = f"k-center, {what}: times faster per pick than scikit-learn's distances"
    return [
        target(badge, row["badge_times_faster"], at_least=50),
        target(memory, row["badge_share_of_their_memory"], at_most=0.01),
        target(k_center, row["k_center_times_faster"], at_least=5),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="small sizes, nothing written")
    parser.add_argument("--worker", nargs="+", choices=KERNELS, help=argparse.SUPPRESS)
    parser.add_argument("--size", type=json.loads, help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(1)
    threadpool_limits(1)  # NumPy's and scikit-learn's own: a single pick over 50,000 samples would use them
    if options.worker:
        print(json.dumps({name: worker(name, options.size) for name in options.worker}))
        return
    facts, rows = machine("torch", "numpy", "scikit-learn", threads=1), []
    for size in QUICK if options.quick else FULL:
        rows.append(compared(size, 1 if options.quick else REPEATS, options.quick))
        print(json.dumps(rows[-1], indent=1), flush=True)
    if not options.quick:
        command = "python benchmarks/selection.py"
        write("selection", {"command": command, "machine": facts, "targets": targets(rows[0]), "rows": rows})


if __name__ == "__main__":
    main()

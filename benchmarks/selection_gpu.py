"""BADGE and k-center on a GPU: seconds for a round's picks, and memory; picks beside the CPU's.

At these sizes the written-out embedding would be 12.4 and 20.5 GB. Seconds are of whole calls, from features
on the device to picks on the host, the recording included; the median of five. The floor is what must be
read, 8 n (C + d) bytes a pick, at the 4.8 TB/s of an H200. k-center begins from as many labelled samples as
it picks. The CPU's picks, compared on 5,000 samples, are a float64 brute force's.

    python benchmarks/selection_gpu.py                 # on a GPU, a minute; writes results/selection_gpu.json
    python benchmarks/selection_gpu.py --out FOLDER    # writes it there
    python benchmarks/selection_gpu.py --quick         # a toy size, on a CPU too; nothing written
"""

import json
import time
from collections.abc import Callable

import torch
from torch import Tensor

from machine import machine
from measure import gpu_arguments, gpu_target, in_turns, medians, write
from mindgap.parts.query import kernels, resident
from mindgap.parts.query.badge import residuals

BANDWIDTH = 4.8e12  # of an H200, bytes a second
FULL = [  # the target is of the first
    {"n": 60_000, "classes": 101, "width": 512, "picks": 5_050},
    {"n": 100_000, "classes": 100, "width": 512, "picks": 5_000},
]
QUICK = [{"n": 500, "classes": 7, "width": 16, "picks": 40}]
COMPARED = {"n": 5_000, "classes": 101, "width": 512, "picks": 1_000}
REPEATS = 5


def inputs(size: dict, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """Residuals and features of the pool, and of the labelled, of a made-up, fairly confident classifier."""
    rng = torch.Generator().manual_seed(0)
    r_NC = residuals((3 * torch.randn(size["n"], size["classes"], generator=rng)).softmax(1))
    h_ND = torch.randn(size["n"], size["width"], generator=rng).relu_()
    labelled_LD = torch.randn(size["picks"], size["width"], generator=rng).relu_()
    return r_NC.to(device), h_ND.to(device), labelled_LD.to(device)


def calls(kind, size: dict, device: torch.device) -> dict[str, Callable[[], Tensor]]:
    """Both selections by the kernels of a module, picks on the host."""
    r_NC, h_ND, labelled_LD = inputs(size, device)
    rng = torch.Generator()
    return {
        "badge": lambda: kind.k_means_pp(r_NC, h_ND, size["picks"], rng.manual_seed(1)).cpu(),
        "k_center": lambda: kind.k_center_greedy(h_ND, labelled_LD, size["picks"], rng.manual_seed(1)).cpu(),
    }


def seconds(call: Callable[[], Tensor]) -> float:
    start = time.perf_counter()
    call()  # its end waits for the device: the picks are on the host
    return time.perf_counter() - start


def peak_mib(call: Callable[[], Tensor], device: torch.device) -> float | None:
    """The most memory that a call added on the device, as the allocator counts; None on a CPU."""
    if device.type != "cuda":
        return None
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    call()
    return (torch.cuda.max_memory_allocated() - before) / 2**20


def measured(size: dict, device: torch.device, repeats: int) -> dict:
    both = calls(resident, size, device)
    runs = in_turns({name: lambda call=call: seconds(call) for name, call in both.items()}, repeats)
    middle = medians(runs)
    read = {"badge": size["classes"] + size["width"], "k_center": 1 + size["width"]}
    return size | {
        name: {
            "seconds": middle[name],
            "runs": runs[name],
            "floor_seconds": 8 * size["n"] * read[name] * size["picks"] / BANDWIDTH,
            "extra_mib": peak_mib(call, device),
        }
        for name, call in both.items()
    }


def equal_picks(size: dict, device: torch.device) -> dict[str, dict[str, int]]:
    """How many picks come before the first that is not the CPU's."""
    ours, cpu = calls(resident, size, device), calls(kernels, size, torch.device("cpu"))
    answer = {}
    for name in ours:
        same = (ours[name]() == cpu[name]()).long().cumprod(0)
        answer[name] = {"picks": len(same), "equal_up_to_first_difference": int(same.sum())}
    return {"n": size["n"], **answer}


def main() -> None:
    options = gpu_arguments(__doc__, "selection_gpu")
    if not torch.cuda.is_available():
        print("selection_gpu: no CUDA device here; the kernels of a GPU run on the CPU, at a toy size")
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    torch.set_num_threads(1)
    facts = machine("torch", threads=1)
    rows = [
        measured(size, device, 1 if options.quick else REPEATS) for size in (QUICK if options.quick else FULL)
    ]
    compared = equal_picks(QUICK[0] if options.quick else COMPARED, device)
    print(json.dumps({"rows": rows, "compared": compared}, indent=1))
    if not options.quick:
        targets = [gpu_target("selection_gpu", "badge", rows[0]["badge"]["seconds"])]
        result = {"command": "python benchmarks/selection_gpu.py", "machine": facts, "targets": targets}
        write("selection_gpu", result | {"rows": rows, "compared_with_cpu": compared}, options.out)


if __name__ == "__main__":
    main()

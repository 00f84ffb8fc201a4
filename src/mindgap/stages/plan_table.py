"""What `mindgap plan` prints and writes: tables for people, the exact numbers as JSON."""

import math
import textwrap
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from mindgap.core.params import Params
from mindgap.engine.layout import Layout
from mindgap.engine.machine import executor
from mindgap.engine.plan import (
    CONTEXT,
    Actual,
    Disk,
    Estimate,
    bytes_text,
    count_text,
    prepared_disk,
    time_text,
    total,
)

WORK = ("", "runs", "finished", "trainings", "to do", "steps", "drawn", "passed")
COST = ("", "disk", "on a GPU", "on a CPU", "in all", "left", "planned", "took", "ratio")
WIDTH = 110
Cells = Sequence[str]


@dataclass(frozen=True)
class Plan:
    """A selection with its estimates. `absent`: of which datasets nothing is looked up, and why.

    `workers`: how many runs are at work at once, on `devices` in turn, of which the first is named
    `device_name` in records and each has `capacity` bytes of memory.
    """

    params: Params
    layouts: Mapping[str, Layout]
    absent: Mapping[str, str]
    estimates: Sequence[Estimate]
    workers: int
    devices: tuple[str, ...]
    device_name: str
    capacity: int

    @property
    def kind(self) -> str:
        return self.devices[0].partition(":")[0]

    @property
    def measured(self) -> bool:
        return all(estimate.seconds for estimate in self.estimates)

    @property
    def disk(self) -> Disk:
        prepared = (prepared_disk(layout) for layout in self.layouts.values())
        return sum((*prepared, *(estimate.disk for estimate in self.estimates)), Disk())


def show(plan: Plan) -> None:
    """Print the plan: two tables, and what is to be known of them."""
    print(f"scale {plan.params.scale}")
    for table in (work_rows(plan), cost_rows(plan)):
        widths = [max(map(len, column)) for column in zip(*table, strict=True)]
        for first, *rest in table:
            cells = [cell.rjust(width) for cell, width in zip(rest, widths[1:], strict=True)]
            print("  ".join([first.ljust(widths[0]), *cells]))
        print()
    for line in remarks(plan):
        print(textwrap.fill(line, WIDTH, subsequent_indent="  "))


def work_rows(plan: Plan) -> list[Cells]:
    """What is to be done: a header, a row for each dataset and regime, and their sum if there are several."""
    return [WORK, *_rows(plan, _work)]


def cost_rows(plan: Plan) -> list[Cells]:
    """What it costs, in the same rows; without the columns that have nothing in any row."""
    columns = zip(COST, *_rows(plan, _cost), strict=True)
    used = [column for column in columns if not column[0] or set(column[1:]) != {"-"}]
    return list(zip(*used, strict=True))


def _rows(plan: Plan, cells: Callable[[Sequence[Estimate]], Cells]) -> list[Cells]:
    each = [(f"{e.part.dataset}-{e.part.regime}", *cells([e])) for e in plan.estimates]
    return [*each, ("total", *cells(plan.estimates))] if len(each) > 1 else each


def _work(estimates: Sequence[Estimate]) -> Cells:
    numbers, work = _numbers(estimates), total(e.part.work for e in estimates)
    return (
        f"{numbers['runs']:,}",
        f"{numbers['finished_runs']:,}",
        f"{work.trainings:,}",
        f"{numbers['left']['trainings']:,}",
        *map(count_text, (work.steps, work.drawn, work.passed)),
    )


def _cost(estimates: Sequence[Estimate]) -> Cells:
    """Of several, the memory is that of the largest: parts wait for one another."""
    numbers, done = _numbers(estimates), _done(estimates)
    processes = [[e.memory[kind].process for e in estimates if kind in e.memory] for kind in ("cuda", "cpu")]
    took = (done.planned, done.seconds) if done.rounds else (None, None)
    return (
        bytes_text(sum(e.disk.total for e in estimates)),
        *(bytes_text(max(sizes)) if sizes else "-" for sizes in processes),
        *(
            "-" if one is None else time_text(one)
            for one in (numbers["seconds"], numbers["seconds_left"], *took)
        ),
        "-" if done.ratio is None else f"{done.ratio:.2f}",
    )


def _done(estimates: Sequence[Estimate]) -> Actual:
    return sum((estimate.actual for estimate in estimates), Actual())


def remarks(plan: Plan) -> list[str]:
    """What the columns mean, what is assumed, and what is not in them."""
    disk = plan.disk
    lines = [
        "to do: trainings that the store does not have; drawn: training samples, repetitions included; "
        "passed: samples that are only passed forward (validation, test, what queries look at).",
        f"Disk with prepared data: {bytes_text(disk.total)} (prepared data {bytes_text(disk.prepared)}, "
        f"models {bytes_text(disk.models)}, records {bytes_text(disk.records)}, store "
        f"{bytes_text(disk.store)}, DVC's cache {bytes_text(disk.cache)}; the cache takes nothing where the "
        f"file system shares blocks).",
    ]
    for name, layout in plan.layouts.items():
        if name in plan.absent:
            lines.append(f"{name}: {plan.absent[name]}, so all of it is counted as to do.")
        if not layout.exact:
            lines.append(f"{name}: {layout.train:,} training samples are assumed; preparing will tell.")
    if plan.params.search.method != "none":
        lines.append("A search is counted whole, and runs with the recipe that stands in params.yaml.")
    lines += _memory_remarks(plan)
    return lines + (_time_remarks(plan) if plan.measured else []) + _actual_remarks(plan)


def _memory_remarks(plan: Plan) -> list[str]:
    """What memory is made of, how many runs it is enough for, and whether more are asked for."""
    largest = max(plan.estimates, key=lambda e: e.memory[plan.kind].process)
    name, there = f"{largest.part.dataset}-{largest.part.regime}", largest.memory["cuda"]
    where = "each GPU's memory" if plan.kind == "cuda" else "this machine's memory"
    fit = largest.memory[plan.kind].fits(plan.capacity)
    how = "measured here" if there.measured else "computed from small passes, without augmentation"
    lines = [
        f"Memory: of one run in a process of its own; on a GPU {how}. Of {name} there: dataset "
        f"{bytes_text(there.dataset)}, weights, gradients, momentum and best weights "
        f"{bytes_text(there.state)}, activations {bytes_text(max(there.step, there.forward))}, CUDA graphs "
        f"(at most) "
        f"{bytes_text(there.recordings)}, CUDA context (assumed) {bytes_text(CONTEXT)}.",
        f"In {where} ({bytes_text(plan.capacity)}) fit {fit:,} runs of {name}, the largest.",
    ]
    if math.ceil(plan.workers / len(plan.devices)) > fit:
        most = max(1, fit) * (len(plan.devices) if plan.kind == "cuda" else 1)
        lines.append(
            f"WARNING: {plan.workers} runs at once are more than fit: set MINDGAP_WORKERS to {most} or less"
            f"{'' if fit else '; even one is too large: lower its batch size'}."
        )
    return lines


def _actual_remarks(plan: Plan) -> list[str]:
    """What the plan of finished rounds is compared with."""
    done = _done(plan.estimates)
    if not done.rounds:
        return []
    spent = ", ".join(f"{what} {time_text(seconds)}" for what, seconds in done.parts.items())
    told, by, ratio = ("took", ",", "")
    if plan.measured:
        told, by, ratio = "planned and took", ", by these speeds and", "; ratio: planned / took"
    lines = [
        f"{told}: seconds of the {len(done.taken):,} finished rounds, added up over all runs, also those "
        f"that ran side by side{by} by their records ({spent}){ratio}."
    ]
    others = {name: count for name, count in done.rounds.items() if name != plan.device_name}
    if plan.measured and others:
        listed = ", ".join(f"{count:,} on {name}" for name, count in sorted(others.items()))
        lines.append(
            f"Of these rounds other devices made {listed}; speeds are those of {plan.device_name}, so the "
            f"ratio compares devices too."
        )
    return lines


def _time_remarks(plan: Plan) -> list[str]:
    where, gpus = ", ".join(plan.devices), len(plan.devices)
    lines = [
        f"Times are estimates: steps and passes measured just now on random inputs, {plan.workers} runs at a "
        f"time on {where} and nothing beside them. Not in them: preparing data, what a query does after its "
        f"passes, loading Python and data (some seconds a stage), DVC's own work."
    ]
    if plan.devices != ("cpu",) and plan.workers > gpus:
        lines.append(f"{plan.workers} runs share {gpus} GPUs: estimated as if they did not slow each other.")
    if executor() == "ray":
        lines.append(
            "MINDGAP_EXECUTOR and RAY_ADDRESS are not looked at: times are as if all ran on this machine."
        )
    return lines


def as_json(plan: Plan) -> dict[str, Any]:
    """The plan in exact numbers: counts, bytes, and seconds or null."""
    return {
        "scale": plan.params.scale,
        "machine": {
            "workers": plan.workers,
            "devices": list(plan.devices),
            "device": plan.device_name,
            "memory": plan.capacity,
        },
        "datasets": {
            name: {
                "train": layout.train,
                "test": layout.test,
                "sizes_are_exact": layout.exact,
                "prepared": name not in plan.absent,
                "disk": asdict(prepared_disk(layout)),
            }
            for name, layout in plan.layouts.items()
        },
        "parts": [
            {
                "dataset": e.part.dataset,
                "regime": e.part.regime,
                **_numbers([e]),
                "disk": asdict(e.disk),
                "memory": {kind: asdict(one) | {"process": one.process} for kind, one in e.memory.items()},
                "runs_that_fit": e.memory[plan.kind].fits(plan.capacity),
            }
            for e in plan.estimates
        ],
        "total": {**_numbers(plan.estimates), "disk": {**asdict(plan.disk), "total": plan.disk.total}},
    }


def _numbers(estimates: Sequence[Estimate]) -> dict[str, Any]:
    times, done = [e.seconds for e in estimates if e.seconds], _done(estimates)
    took = {name: getattr(done, name) for name in ("rounds", "seconds", "planned", "ratio")}
    return {
        "runs": sum(len(e.part.runs) for e in estimates),
        "finished_runs": sum(e.part.finished_runs for e in estimates),
        "work": asdict(total(e.part.work for e in estimates)),
        "left": asdict(total(e.part.left for e in estimates)),
        "seconds": sum(whole for whole, _ in times) if times else None,
        "seconds_left": sum(left for _, left in times) if times else None,
        "actual": took | {"seconds_by_part": done.parts} if done.rounds else None,
    }

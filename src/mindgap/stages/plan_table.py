"""What `mindgap plan` prints and writes: tables for people, the exact numbers as JSON."""

import math
import sys
import textwrap
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from rich.console import Console
from rich.table import Table

from mindgap.core.params import Params
from mindgap.engine.layout import Layout
from mindgap.engine.machine import executor
from mindgap.engine.plan import (
    CONTEXT,
    Actual,
    Disk,
    Estimate,
    Memory,
    bytes_text,
    count_text,
    prepared_disk,
    time_text,
    together,
    total,
)

WORK = ("", "runs", "finished", "trainings", "to do", "steps", "drawn", "passed")
COST = ("", "disk", "on a GPU", "on a CPU", "in all", "left", "planned", "took", "ratio")
KINDS = {"cuda": "on a GPU", "cpu": "on a CPU"}
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
    def workers_a_device(self) -> int:
        return math.ceil(self.workers / len(self.devices))

    @property
    def measured(self) -> bool:
        return all(estimate.seconds for estimate in self.estimates)

    @property
    def disk(self) -> Disk:
        prepared = (prepared_disk(layout) for layout in self.layouts.values())
        return sum((*prepared, *(estimate.disk for estimate in self.estimates)), Disk())


def show(plan: Plan) -> None:
    """Print the plan: drawn tables in a terminal, plain text elsewhere."""
    title, tables = f"scale {plan.params.scale}", (work_rows(plan), cost_rows(plan))
    if sys.stdout.isatty():
        _show_drawn(title, tables, remarks(plan))
        return
    print(title)
    for table in tables:
        widths = [max(map(len, column)) for column in zip(*table, strict=True)]
        for first, *rest in table:
            cells = [cell.rjust(width) for cell, width in zip(rest, widths[1:], strict=True)]
            print("  ".join([first.ljust(widths[0]), *cells]))
        print()
    for line in remarks(plan):
        print(textwrap.fill(line, WIDTH, subsequent_indent="  "))


def _show_drawn(title: str, tables: Iterable[Sequence[Cells]], lines: Sequence[str]) -> None:
    console = Console()
    for header, *rows in tables:
        drawn = Table(title=title, title_justify="left")
        for i, name in enumerate(header):
            drawn.add_column(name, justify="right" if i else "left")
        for row in rows:
            drawn.add_row(*row, style="bold" if row[0] == "total" else None)
        console.print(drawn)
        title = None
    for line in lines:
        console.print(line, highlight=False, markup=False)


def work_rows(plan: Plan) -> list[Cells]:
    """What is to be done: a header, a row for each dataset and regime, and their sum if there are several."""
    return [WORK, *_rows(plan, _work)]


def cost_rows(plan: Plan) -> list[Cells]:
    """What it costs, in the same rows; without the columns that have nothing in any row."""
    rows = [COST, *_rows(plan, _cost)]
    used = [
        not i or any(cell != "-" for cell in column[1:]) for i, column in enumerate(zip(*rows, strict=True))
    ]
    return [tuple(cell for cell, keep in zip(row, used, strict=True) if keep) for row in rows]


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
    numbers, done = _numbers(estimates), together(e.actual for e in estimates)
    processes = {kind: [e.memory[kind].process for e in estimates if kind in e.memory] for kind in KINDS}
    times = (
        numbers["seconds"],
        numbers["seconds_left"],
        done.planned if done.rounds else None,
        done.seconds if done.rounds else None,
    )
    return (
        bytes_text(sum(e.disk.total for e in estimates)),
        *(bytes_text(max(sizes)) if sizes else "-" for sizes in processes.values()),
        *("-" if seconds is None else time_text(seconds) for seconds in times),
        "-" if done.ratio is None else f"{done.ratio:.2f}",
    )


def remarks(plan: Plan) -> list[str]:
    """What the columns mean, what is assumed, and what is not in them."""
    sizes = {
        "prepared data": plan.disk.prepared,
        "models": plan.disk.models,
        "records": plan.disk.records,
        "store": plan.disk.store,
        "DVC's cache": plan.disk.cache,
    }
    listed = ", ".join(f"{name} {bytes_text(size)}" for name, size in sizes.items())
    lines = [
        "to do: trainings that the store does not have; drawn: training samples, repetitions included; "
        "passed: samples that are only passed forward (validation, test, what queries look at).",
        f"Disk with prepared data: {bytes_text(plan.disk.total)} ({listed}; the cache takes nothing where "
        f"the file system shares blocks).",
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
    name = f"{largest.part.dataset}-{largest.part.regime}"
    where = "each GPU's memory" if plan.kind == "cuda" else "this machine's memory"
    fit = largest.memory[plan.kind].fits(plan.capacity)
    lines = [
        f"Memory: of one run in a process of its own; on a GPU {_parts(largest.memory['cuda'], name)}.",
        f"In {where} ({bytes_text(plan.capacity)}) fit {fit:,} runs of {name}, the largest.",
    ]
    if plan.workers_a_device > fit:
        most = max(1, fit) * (len(plan.devices) if plan.kind == "cuda" else 1)
        lines.append(
            f"WARNING: {plan.workers} runs at once are more than fit: set MINDGAP_WORKERS to {most} or less"
            f"{'' if fit else '; even one is too large: lower its batch size'}."
        )
    return lines


def _parts(memory: Memory, name: str) -> str:
    how = "measured here" if memory.measured else "computed from small passes, without augmentation"
    sizes = {
        "dataset": memory.dataset,
        "weights, gradients, momentum and best weights": memory.state,
        "activations": max(memory.step, memory.forward),
        "CUDA graphs (at most)": memory.recordings,
        "CUDA context (assumed)": CONTEXT,
    }
    return f"{how}. Of {name} there: {', '.join(f'{what} {bytes_text(n)}' for what, n in sizes.items())}"


def _actual_remarks(plan: Plan) -> list[str]:
    """What the plan of finished rounds is compared with."""
    done = together(e.actual for e in plan.estimates)
    if not done.rounds:
        return []
    spent = ", ".join(f"{what} {time_text(seconds)}" for what, seconds in sorted(done.parts.items()))
    lines = [
        f"{'planned and took' if plan.measured else 'took'}: seconds of the {sum(done.rounds.values()):,} "
        f"finished rounds, added up over all runs, also those that ran side by side"
        f"{', by these speeds and' if plan.measured else ','} by their records ({spent})"
        f"{'; ratio: planned / took' if plan.measured else ''}."
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
                "memory": {kind: _memory(memory) for kind, memory in e.memory.items()},
                "runs_that_fit": e.memory[plan.kind].fits(plan.capacity),
                "actual": _actual(e.actual),
            }
            for e in plan.estimates
        ],
        "total": {
            **_numbers(plan.estimates),
            "disk": {**asdict(plan.disk), "total": plan.disk.total},
            "actual": _actual(together(e.actual for e in plan.estimates)),
        },
    }


def _memory(memory: Memory) -> dict[str, Any]:
    return {**asdict(memory), "process": memory.process}


def _actual(done: Actual) -> dict[str, Any] | None:
    if not done.rounds:
        return None
    return {
        "rounds": dict(done.rounds),
        "seconds": done.seconds,
        "seconds_by_part": dict(done.parts),
        "planned": done.planned,
        "ratio": done.ratio,
    }


def _numbers(estimates: Sequence[Estimate]) -> dict[str, Any]:
    times = [e.seconds for e in estimates if e.seconds]
    return {
        "runs": sum(len(e.part.runs) for e in estimates),
        "finished_runs": sum(e.part.finished_runs for e in estimates),
        "work": asdict(total(e.part.work for e in estimates)),
        "left": asdict(total(e.part.left for e in estimates)),
        "seconds": sum(whole for whole, _ in times) if times else None,
        "seconds_left": sum(left for _, left in times) if times else None,
    }

"""What `mindgap plan` prints and writes: a table for people, the exact numbers as JSON."""

import sys
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from rich.console import Console
from rich.table import Table

from mindgap.layout import Layout
from mindgap.params import Params
from mindgap.plan import Disk, Estimate, bytes_text, count_text, prepared_disk, time_text, total

HEADER = (
    "", "runs", "finished", "trainings", "to do", "steps", "drawn", "passed", "disk", "in all", "left",
)  # fmt: skip
WIDTH = 110


@dataclass(frozen=True)
class Plan:
    """A selection with its estimates. `absent`: of which datasets nothing is looked up, and why.

    `workers`: how many runs are at work at once.
    """

    params: Params
    layouts: Mapping[str, Layout]
    absent: Mapping[str, str]
    estimates: Sequence[Estimate]
    workers: int
    devices: tuple[str, ...]

    @property
    def measured(self) -> bool:
        return all(estimate.seconds for estimate in self.estimates)

    @property
    def disk(self) -> Disk:
        prepared = (prepared_disk(layout) for layout in self.layouts.values())
        return sum((*prepared, *(estimate.disk for estimate in self.estimates)), Disk())


def show(plan: Plan) -> None:
    """Print the plan: a drawn table in a terminal, plain text elsewhere."""
    title, table = f"scale {plan.params.scale}", rows(plan)
    if sys.stdout.isatty():
        _show_drawn(title, table, remarks(plan))
        return
    widths = [max(map(len, column)) for column in zip(HEADER, *table, strict=True)]
    print(title)
    for first, *rest in (HEADER, *table):
        cells = [cell.rjust(width) for cell, width in zip(rest, widths[1:], strict=True)]
        print("  ".join([first.ljust(widths[0]), *cells]))
    for line in remarks(plan):
        print(textwrap.fill(line, WIDTH, subsequent_indent="  "))


def _show_drawn(title: str, table: Sequence[Sequence[str]], lines: Sequence[str]) -> None:
    console, drawn = Console(), Table(title=title, title_justify="left")
    for i, name in enumerate(HEADER):
        drawn.add_column(name, justify="right" if i else "left")
    for row in table:
        drawn.add_row(*row, style="bold" if row[0] == "total" else None)
    console.print(drawn)
    for line in lines:
        console.print(line, highlight=False, markup=False)


def rows(plan: Plan) -> list[tuple[str, ...]]:
    """A row for each dataset and regime, and their sum where there are several."""
    each = [_row(f"{e.part.dataset}-{e.part.regime}", [e]) for e in plan.estimates]
    return [*each, _row("total", plan.estimates)] if len(each) > 1 else each


def _row(name: str, estimates: Sequence[Estimate]) -> tuple[str, ...]:
    numbers = _numbers(estimates)
    work, times = total(e.part.work for e in estimates), (numbers["seconds"], numbers["seconds_left"])
    return (
        name,
        f"{numbers['runs']:,}",
        f"{numbers['finished_runs']:,}",
        f"{work.trainings:,}",
        f"{numbers['left']['trainings']:,}",
        *map(count_text, (work.steps, work.drawn, work.passed)),
        bytes_text(sum(e.disk.total for e in estimates)),
        *("-" if seconds is None else time_text(seconds) for seconds in times),
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
    return lines + (_time_remarks(plan) if plan.measured else [])


def _time_remarks(plan: Plan) -> list[str]:
    where, gpus = ", ".join(plan.devices), len(plan.devices)
    lines = [
        f"Times are estimates: steps and passes measured just now on random inputs, {plan.workers} runs at a "
        f"time on {where} and nothing beside them. Not in them: preparing data, what a query does after its "
        f"passes, loading Python and data (some seconds a stage), DVC's own work."
    ]
    if plan.devices != ("cpu",) and plan.workers > gpus:
        lines.append(f"{plan.workers} runs share {gpus} GPUs: estimated as if they did not slow each other.")
    return lines


def as_json(plan: Plan) -> dict[str, Any]:
    """The plan in exact numbers: counts, bytes, and seconds or null."""
    return {
        "scale": plan.params.scale,
        "machine": {"workers": plan.workers, "devices": list(plan.devices)},
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
            {"dataset": e.part.dataset, "regime": e.part.regime, **_numbers([e]), "disk": asdict(e.disk)}
            for e in plan.estimates
        ],
        "total": {**_numbers(plan.estimates), "disk": {**asdict(plan.disk), "total": plan.disk.total}},
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

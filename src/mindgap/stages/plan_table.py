"""What `mindgap plan` prints and writes: tables for people, the exact numbers as JSON."""

import math
import textwrap
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Any

from mindgap.engine.machine import executor
from mindgap.engine.plan import total
from mindgap.stages.plan import Disk, Part, Plan, prepared_disk

WORK = ("", "runs", "finished", "trainings", "to do", "steps", "drawn", "passed")
COST = ("", "disk", "memory", "in all", "left", "planned", "took", "ratio")
WIDTH = 110
Texts = Sequence[str]


def numbers(parts: Sequence[Part], workers: int) -> dict[str, Any]:
    """The sums over some parts: runs, work, seconds, and what finished rounds took; None where unknown."""
    known = all(part.speeds for part in parts)
    whole, left = (
        sum(part.seconds(workers, left) for part in parts) if known else None for left in (False, True)
    )
    return {
        "runs": sum(len(part.runs) for part in parts),
        "finished_runs": sum(job.finished == len(job.rounds) for part in parts for job in part.runs),
        "work": asdict(total(part.work for part in parts)),
        "left": asdict(total(part.left for part in parts)),
        "seconds": whole,
        "seconds_left": left,
        "actual": _actual(parts, sum(part.planned for part in parts) if known else None),
    }


def _actual(parts: Sequence[Part], planned: float | None) -> dict[str, Any] | None:
    """Finished rounds, by the device that made them; their seconds, by what they were spent on.

    What runs share counts once.
    """
    taken = [one for part in parts for job in part.jobs for one in job.taken]
    if not taken:
        return None
    spent = sorted({what for one in taken for what in one.seconds})
    seconds = math.fsum(second for one in taken for second in one.seconds.values())
    return {
        "rounds": Counter(one.device for one in taken),
        "seconds": seconds,
        "planned": planned,
        "ratio": planned / seconds if planned is not None and seconds else None,
        "seconds_by_part": {what: math.fsum(one.seconds.get(what, 0.0) for one in taken) for what in spent},
    }


def disk_of(plan: Plan) -> Disk:
    """Of all parts, with their prepared data."""
    return sum([*map(prepared_disk, plan.layouts.values()), *(part.disk for part in plan.parts)], Disk())


def runs_that_fit(plan: Plan, parts: Sequence[Part]) -> int | None:
    """How many have room beside each other where they compute, as far as it is known what they hold."""
    most = max((part.memory or 0 for part in parts), default=0)
    return plan.capacity // most if most else None


def as_json(plan: Plan) -> dict[str, Any]:
    """The plan in exact numbers: counts, bytes, and seconds; null where something is not known."""
    disk = disk_of(plan)
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
                "dataset": part.dataset,
                "regime": part.regime,
                **numbers([part], plan.workers),
                "disk": asdict(part.disk),
                "memory": part.memory,
                "memory_recorded": part.recorded,
                "runs_that_fit": runs_that_fit(plan, [part]),
            }
            for part in plan.parts
        ],
        "total": {**numbers(plan.parts, plan.workers), "disk": {**asdict(disk), "total": disk.total}},
    }


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


def work_rows(plan: Plan) -> list[Texts]:
    """What is to be done: a header, a row for each dataset and regime, and their sum if there are several."""

    def cells(parts: Sequence[Part]) -> Texts:
        found = numbers(parts, plan.workers)
        work = total(part.work for part in parts)
        told = (found["runs"], found["finished_runs"], work.trainings, found["left"]["trainings"])
        return (*(f"{n:,}" for n in told), *map(count_text, (work.steps, work.drawn, work.passed)))

    return [WORK, *_rows(plan, cells)]


def cost_rows(plan: Plan) -> list[Texts]:
    """What it costs, in the same rows; without the columns that have nothing in any row.

    Of several, the memory is that of the largest: parts wait for one another.
    """

    def cells(parts: Sequence[Part]) -> Texts:
        found, most = numbers(parts, plan.workers), max(part.memory or 0 for part in parts)
        done = found["actual"] or dict.fromkeys(("planned", "seconds", "ratio"))
        times = (found["seconds"], found["seconds_left"], done["planned"], done["seconds"])
        return (
            bytes_text(sum(part.disk.total for part in parts)),
            bytes_text(most) if most else "-",
            *("-" if one is None else time_text(one) for one in times),
            "-" if done["ratio"] is None else f"{done['ratio']:.2f}",
        )

    columns = zip(COST, *_rows(plan, cells), strict=True)
    used = [column for column in columns if not column[0] or set(column[1:]) != {"-"}]
    return list(zip(*used, strict=True))


def _rows(plan: Plan, cells: Callable[[Sequence[Part]], Texts]) -> list[Texts]:
    each = [(f"{part.dataset}-{part.regime}", *cells([part])) for part in plan.parts]
    return [*each, ("total", *cells(plan.parts))] if len(each) > 1 else each


def remarks(plan: Plan) -> list[str]:
    """What the columns mean, what is assumed, and what is not in them."""
    disk = disk_of(plan)
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
        lines.append("A search is counted whole; until it is finished, no run counts as begun.")
    return [*lines, *_memory_remarks(plan), *_time_remarks(plan), *_actual_remarks(plan)]


def _memory_remarks(plan: Plan) -> list[str]:
    """What memory is, of which parts it is not recorded, how many runs it is enough for, and whether more are
    asked for.
    """
    fit, gpus, lines = runs_that_fit(plan, plan.parts), plan.devices[0] != "cpu", []
    lacking = [part for part in plan.parts if not part.recorded]
    if len(lacking) < len(plan.parts):
        lines = ["Memory: the most that a process has held for a run, by the records of finished rounds."]
    if lacking:
        which = f" of {', '.join(f'{part.dataset}-{part.regime}' for part in lacking)}" * bool(lines)
        held = f"what this process held, {'data included' if gpus else 'with few samples, so at least that'}"
        known = held if any(part.memory for part in lacking) else "not known, as nothing is measured"
        lines.append(f"Memory{which}: {known}; records of finished rounds will tell.")
    if fit is None:
        return lines
    largest = max(plan.parts, key=lambda part: part.memory or 0)
    name = f"{largest.dataset}-{largest.regime}"
    where = "each GPU's memory" if gpus else "this machine's memory"
    lines.append(f"In {where} ({bytes_text(plan.capacity)}) fit {fit:,} runs of {name}, the largest.")
    if math.ceil(plan.workers / len(plan.devices)) > fit:
        most = max(1, fit) * (len(plan.devices) if gpus else 1)
        lines.append(
            f"WARNING: {plan.workers} runs at once are more than fit: set MINDGAP_WORKERS to {most} or less"
            f"{'' if fit else '; even one is too large: lower its batch size'}."
        )
    return lines


def _time_remarks(plan: Plan) -> list[str]:
    if not all(part.speeds for part in plan.parts):
        return []
    where, gpus = ", ".join(plan.devices), len(plan.devices)
    lines = [
        f"Times are estimates: steps and passes measured just now on made-up inputs, {plan.workers} runs at "
        f"a time on {where} and nothing beside them. Not in them: preparing data, choosing start sets "
        f"(typical clusters the data for each initial model), what a query does after its passes, loading "
        f"Python and data (some seconds a stage), DVC's own work."
    ]
    if plan.devices != ("cpu",) and plan.workers > gpus:
        lines.append(f"{plan.workers} runs share {gpus} GPUs: estimated as if they did not slow each other.")
    if executor() == "ray":
        lines.append(
            "MINDGAP_EXECUTOR and RAY_ADDRESS are not looked at: times are as if all ran on this machine."
        )
    return lines


def _actual_remarks(plan: Plan) -> list[str]:
    """What the plan of finished rounds is compared with."""
    done = numbers(plan.parts, plan.workers)["actual"]
    if done is None:
        return []
    measured = done["planned"] is not None
    spent = ", ".join(f"{what} {time_text(seconds)}" for what, seconds in done["seconds_by_part"].items())
    told, by, ratio = ("took", ",", "")
    if measured:
        told, by, ratio = "planned and took", ", by these speeds and", "; ratio: planned / took"
    lines = [
        f"{told}: seconds of the {sum(done['rounds'].values()):,} finished rounds, added up over all runs, "
        f"also those that ran side by side{by} by their records ({spent}){ratio}."
    ]
    others = {name: count for name, count in done["rounds"].items() if name != plan.device_name}
    if measured and others:
        listed = ", ".join(f"{count:,} on {name}" for name, count in sorted(others.items()))
        lines.append(
            f"Of these rounds other devices made {listed}; speeds are those of {plan.device_name}, so the "
            f"ratio compares devices too."
        )
    return lines


def count_text(number: int) -> str:
    """A count, from ten thousand up in k, M or G."""
    for least, size, unit in ((10**9, 1e9, "G"), (10**6, 1e6, "M"), (10**4, 1e3, "k")):
        if number >= least:
            value = number / size
            return f"{value:,.{0 if value >= 100 else 1}f} {unit}"
    return f"{number:,}"


def time_text(seconds: float) -> str:
    """In the two largest units that matter."""
    minutes = round(seconds / 60)
    if seconds < 100:
        return f"{seconds:.0f} s"
    if minutes < 100:
        return f"{minutes} min"
    if minutes < 48 * 60:
        return f"{minutes // 60} h {minutes % 60:02d} min"
    return f"{minutes / 60 / 24:.1f} days"


def bytes_text(number: int) -> str:
    """In KiB, MiB, GiB or TiB."""
    for power, unit in ((4, "TiB"), (3, "GiB"), (2, "MiB")):
        if number >= 1024**power:
            return f"{number / 1024**power:.1f} {unit}"
    return f"{number / 1024:.0f} KiB"

"""One page of all figures in results/: what was to be reached, what was, on which machine, by which command.

Charts have a logarithmic axis of ratios, so that half and double are equally far from 1. A target that only a
GPU can reach and that has no figure says so, with the command that would measure it.

    python benchmarks/page.py            # writes results/index.html
    python benchmarks/page.py --quick    # the same page into a temporary file
"""

import ast
import json
import math
import re
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup, escape

from measure import GPU_TARGETS, RESULTS, arguments

HERE = Path(__file__).parent
NO_GPU = "not measured: no GPU"
# Keys of a row that say which row it is; all others are figures.
NAMING = (
    "recipe",
    "kernel",
    "method",
    "dataset",
    "scale",
    "samples",
    "modalities",
    "image_size",
    "batch",
    "workers",
)
NAMING = (*NAMING, "images", "runs", "threads", "device", "side", "classes", "n")
TICKS = (1, 2, 5)
LEFT, RIGHT, ROW = 24, 700, 40  # of a chart, in its own units


@dataclass(frozen=True)
class Target:
    """What a benchmark is to reach; `reached` is None while nobody measured it."""

    benchmark: str
    what: str
    bound: float
    at_least: bool
    reached: float | None
    unmeasured: str = "not measured"

    @property
    def wanted(self) -> str:
        return f"{'≥' if self.at_least else '≤'} {self.bound:,g}"

    @property
    def times(self) -> float:
        """How many times better than asked for: 1 is just met."""
        above = self.reached / self.bound
        return above if self.at_least else 1 / above

    @property
    def met(self) -> bool:
        return self.reached >= self.bound if self.at_least else self.reached <= self.bound

    @property
    def verdict(self) -> str:
        if self.reached is None:
            return self.unmeasured
        return "met" if self.met else f"missed by {abs(self.reached / self.bound - 1):.0%}"


def number(value: float) -> str:
    """Three significant digits, without an exponent."""
    if value == 0 or abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.{max(0, 2 - math.floor(math.log10(abs(value))))}f}"


def target_of(benchmark: str, entry: Mapping[str, Any], **settings) -> Target:
    """One entry of a result's targets; the bound may also stand in `at_least` or `at_most` itself."""
    side = "at_least" if entry.get("at_least") not in (None, False) else "at_most"
    bound = entry.get("target", entry.get(side))
    what = entry.get("what") or entry["name"]
    return Target(benchmark, what, float(bound), side == "at_least", entry.get("reached"), **settings)


def targets_of(results: Mapping[str, Mapping]) -> list[Target]:
    """All targets by benchmark, those too that wait for a GPU."""
    found = [target_of(name, one) for name, result in results.items() for one in result.get("targets", ())]
    waiting = {name: wanted for name, wanted in GPU_TARGETS.items() if name not in results}
    found += [
        target_of(name, one, unmeasured=NO_GPU) for name, wanted in waiting.items() for one in wanted.values()
    ]
    return sorted(found, key=lambda one: (one.benchmark, one.reached is None))


def ratios(node: Any, names: Sequence[str] | None = None) -> Iterator[tuple[str, float]]:
    """Every figure at any depth whose key says that it is a ratio of two sides, with a title."""
    if isinstance(node, list):
        for one in node:
            yield from ratios(one, names or ())
    elif isinstance(node, Mapping):
        # What the whole result has in common tells no row from another.
        naming = NAMING if names is not None else ()
        own = (
            f"{key.replace('_', ' ')} {node[key]}" for key in naming if isinstance(node.get(key), str | int)
        )
        here = [*(names or ()), *own]
        for key, value in node.items():
            sides = value.items() if isinstance(value, Mapping) else [("", value)]
            if is_ratio(key):
                for side, ratio in sides:
                    title = [*here, f"{key.replace('_', ' ')} ({side})" if side else key.replace("_", " ")]
                    yield ", ".join(title), float(ratio)
            elif isinstance(value, Mapping | list) and key not in ("targets", "machine"):
                yield from ratios(value, here if isinstance(value, list) else [*here, key.replace("_", " ")])


def is_ratio(key: str) -> bool:
    return key.startswith("times_") or key.endswith("_times_faster") or "_over_" in key


@dataclass(frozen=True)
class Bar:
    title: str
    value: float
    label: str
    kind: str


def chart(bars: Sequence[Bar]) -> dict[str, Any]:
    """Where everything of a chart is drawn: bars from 1 outwards on a logarithmic axis."""
    low, high = axis([bar.value for bar in bars])

    def x(value: float) -> float:
        return round(LEFT + (RIGHT - LEFT) * math.log(value / low) / math.log(high / low), 1)

    drawn = []
    for i, bar in enumerate(bars):
        begin, end = sorted((x(1), x(bar.value)))
        # Inside the bar where there is no room beside it.
        inside = end > RIGHT - 60
        text = {"x": end - 6 if inside else end + 6, "inside": inside}
        drawn.append(
            {"y": ROW * i, "x": begin, "width": round(max(end - begin, 1.5), 1), "text": text, "bar": bar}
        )
    ticks = [(x(value), f"{value:,g}") for value in ticks_between(low, high)]
    return {"bars": drawn, "ticks": ticks, "one": x(1), "left": LEFT, "height": ROW * len(bars)}


def axis(values: Sequence[float]) -> tuple[float, float]:
    """The ends of an axis that has 1 and all values, with a tick at either end."""
    return lower_tick(min(1, *values)), 1 / lower_tick(1 / max(1.5, *values))


def lower_tick(value: float) -> float:
    power = 10.0 ** math.floor(math.log10(value))
    return max(tick * power for tick in TICKS if tick * power <= value * (1 + 1e-9))


def ticks_between(low: float, high: float) -> list[float]:
    """1, 2 and 5 of each decade; over more than two decades the powers of ten only."""
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    kinds = TICKS if high / low <= 120 else (1,)
    values = (tick * 10.0**k for k in decades for tick in kinds)
    return [value for value in values if low * 0.999 <= value <= high * 1.001]


def target_bars(targets: Sequence[Target]) -> list[Bar]:
    kinds = {True: "met", False: "missed"}
    return [
        Bar(f"{one.what} ({one.wanted})", one.times, number(one.reached), kinds[one.met])
        for one in targets
        if (one.reached or 0) > 0  # others have no place on a logarithmic axis
    ]


def section(name: str, result: Mapping, targets: Sequence[Target]) -> dict[str, Any]:
    """What the page has of one result: its charts, its command, its machine."""
    bars, found = target_bars(targets), [(title, value) for title, value in ratios(result) if value > 0]
    return {
        "name": name,
        "about": about(name),
        "command": command_of(name, result),
        "machine": machine_line(result.get("machine", {})),
        "targets": chart(bars) if bars else None,
        "ratios": chart([Bar(title, value, f"{number(value)}", "ratio") for title, value in found])
        if found
        else None,
    }


def about(name: str) -> str:
    """The first line of a benchmark's docstring."""
    file = HERE / f"{name}.py"
    text = ast.get_docstring(ast.parse(file.read_text())) if file.exists() else None
    return (text or "").partition("\n")[0]


def command_of(name: str, result: Mapping) -> str:
    return result.get("command", f"python benchmarks/{name}.py")


def machine_line(machine: Mapping[str, Any]) -> str:
    """A machine's facts in a line."""
    shown = {key: f"{value:.2g}" if isinstance(value, float) else value for key, value in machine.items()}
    return ", ".join(
        f"{value}" if key in ("cpu", "gpu") else f"{key.replace('_', ' ')} {value}"
        for key, value in shown.items()
    )


def code(text: str) -> Markup:
    """HTML of a text whose `names` are code."""
    return Markup(re.sub("`([^`]+)`", r"<code>\1</code>", str(escape(text))))


def read_results(folder: Path) -> dict[str, dict]:
    return {path.stem: json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))}


def render(results: Mapping[str, Mapping]) -> str:
    """The page; the same results give the same bytes."""
    targets = targets_of(results)
    commands = {one.benchmark: command_of(one.benchmark, results.get(one.benchmark, {})) for one in targets}
    sections = [
        section(name, result, [one for one in targets if one.benchmark == name])
        for name, result in results.items()
    ]
    loaders = [jinja2.FileSystemLoader(HERE), jinja2.PackageLoader("mindgap", "results/site")]
    environment = jinja2.Environment(
        loader=jinja2.ChoiceLoader(loaders),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
    )
    environment.filters |= {"number": number, "code": code}
    counts = [
        sum(one.reached is not None and one.met for one in targets),
        sum(one.reached is not None and not one.met for one in targets),
        sum(one.reached is None for one in targets),
    ]
    page = environment.get_template("benchmarks.html.j2")
    return page.render(targets=targets, commands=commands, sections=sections, counts=counts)


def main() -> None:
    quick, folder = arguments(__doc__).quick, RESULTS
    results = read_results(folder)
    for one in targets_of(results):
        print(f"{one.benchmark}: {one.what}: {one.wanted}: {one.verdict}")
    if quick:
        folder = Path(tempfile.mkdtemp())
    (folder / "index.html").write_text(render(results), encoding="utf-8", newline="\n")
    print(f"{folder / 'index.html'}: {len(results)} results")


if __name__ == "__main__":
    main()

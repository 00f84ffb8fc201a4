"""Every benchmark runs to its end at a small size, no time asserted; and the page says what results say."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
SHARED = ("machine", "measure")
NAMES = sorted(p.stem for p in BENCHMARKS.glob("*.py") if p.stem not in SHARED)
NOT_MEASURED = "not measured: no GPU"


@pytest.fixture
def page(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import page

    return page


@pytest.fixture
def measure(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import measure

    return measure


@pytest.fixture(scope="module")
def ended(tmp_path_factory) -> dict[str, dict]:
    """How every benchmark ended at its small size: tests/benchmarks_in_turns.py."""
    out = tmp_path_factory.mktemp("benchmarks") / "ended.json"
    # The first one forks workers, before there are threads.
    names = sorted(NAMES, key=lambda name: name != "training_input")
    runner = Path(__file__).with_name("benchmarks_in_turns.py")
    subprocess.run([sys.executable, runner, out, *names], check=True, timeout=900)
    return json.loads(out.read_text())


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_a_quick_benchmark_runs_and_writes_nothing(ended, name):
    assert ended[name]["error"] is None, ended[name]["error"]
    assert ended[name]["shown"].strip()
    assert not ended[name]["wrote"]


def test_the_readme_names_every_benchmark():
    named = set(re.findall(r"^\| `(\w+)\.py`", (BENCHMARKS / "README.md").read_text(), re.MULTILINE))
    assert named | {"page", *SHARED} == {path.stem for path in BENCHMARKS.glob("*.py")}


@pytest.mark.parametrize(
    ("bound", "reached", "verdict", "times"),
    [
        ({"at_least": 10}, 12.5, "met", 1.25),
        ({"at_least": 10}, 10, "met", 1),
        ({"at_least": 10}, 8, "missed by 20%", 0.8),
        ({"at_most": 1.3}, 1.3, "met", 1),
        ({"at_most": 2}, 3, "missed by 50%", 2 / 3),
        ({"at_most": 8}, 2, "met", 4),
    ],
)
def test_a_target_is_met_or_missed_by_so_much(page, measure, bound, reached, verdict, times):
    one = page.target_of("made_up", measure.target("a ratio", reached, **bound))
    assert one.verdict == verdict
    assert one.times == pytest.approx(times)


def test_a_gpu_target_is_not_measured_until_there_is_a_result(page, measure):
    wanted = measure.GPU_TARGETS["engine_gpu"]
    waiting = [one for one in page.targets_of({}) if one.benchmark == "engine_gpu"]
    assert [one.what for one in waiting] == [one["what"] for one in wanted.values()]
    assert {one.verdict for one in waiting} == {NOT_MEASURED}
    result = {"targets": [measure.gpu_target("engine_gpu", "graph", 3.0)]}
    result["targets"].append(measure.gpu_target("engine_gpu", "busy", None))
    measured = [one for one in page.targets_of({"engine_gpu": result}) if one.benchmark == "engine_gpu"]
    assert [one.verdict for one in measured] == ["met", "not measured"]


def test_the_page_has_each_target_with_its_command_and_is_the_same_twice(page, measure):
    target = measure.target("all subsets < one & more", 1.44, at_most=1.3)
    results = {
        "evaluation": {
            "command": "python benchmarks/evaluation.py",
            "machine": {"cpu": "A CPU", "cores": 2},
            "targets": [target],
            "rows": [{"scale": "tiny", "naive_over_all": 2.5}],
        },
        "bare": {"seconds": 3},
    }
    html = page.render(results)
    assert html == page.render(json.loads(json.dumps(results)))
    assert "all subsets &lt; one &amp; more" in html
    for text in ("≤ 1.3", "missed by 11%", "A CPU, cores 2", "scale tiny, naive over all", NOT_MEASURED):
        assert text in html
    assert "python benchmarks/engine_gpu.py" in html
    assert "<script" not in html
    assert not re.findall(r"(?:src|href)=.https?:", html)


def test_a_chart_is_logarithmic_and_begins_at_one(page):
    bars = [page.Bar(str(value), value, "", "ratio") for value in (0.1, 1, 10)]
    drawn = page.chart(bars)
    tenth, one, ten = drawn["bars"]
    assert tenth["width"] == pytest.approx(ten["width"], abs=0.2)
    assert tenth["x"] + tenth["width"] == pytest.approx(drawn["one"], abs=0.2) == ten["x"]
    assert one["width"] < 2
    assert [label for _, label in drawn["ticks"]] == ["0.1", "0.2", "0.5", "1", "2", "5", "10"]


@pytest.mark.parametrize(
    ("values", "ends"), [([1], (1, 2)), ([3], (1, 5)), ([0.7], (0.5, 2)), ([1199, 16], (1, 2000))]
)
def test_an_axis_has_one_and_all_values(page, values, ends):
    assert page.axis(values) == pytest.approx(ends)


def test_only_keys_that_say_so_are_ratios(page):
    rows = [{"recipe": "basic", "image_size": 32, "times_pillow": 20.0, "images_per_second": 5}]
    rows.append({"batch": 32, "step_over_bare": {"none": 1.0, "basic": 1.25}})
    result = {"images": 7, "rows": rows, "badge_times_faster": 3, "targets": [{"times_x": 1.0}]}
    assert list(page.ratios(result)) == [
        ("recipe basic, image size 32, times pillow", 20.0),
        ("batch 32, step over bare (none)", 1.0),
        ("batch 32, step over bare (basic)", 1.25),
        ("badge times faster", 3.0),
    ]


def test_the_watch_sees_what_a_child_holds(measure):
    hold = "import time; held = bytearray(200 * 2**20); time.sleep(0.5); print(len(held))"
    parent = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {hold!r}], check=True)"
    shown, memory = measure.watched([sys.executable, "-c", parent])
    assert int(shown) == 200 * 2**20
    assert memory["processes"] == 2
    assert 0.2 < memory["anonymous_gib"] <= memory["peaks_gib"] < 0.5


def test_a_command_that_fails_is_named(measure):
    with pytest.raises(SystemExit, match=r"raise SystemExit\(3\) ended with 3"):
        measure.watched([sys.executable, "-c", "raise SystemExit(3)"])


def test_a_full_gpu_run_without_a_gpu_says_so():
    import torch

    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    command = [sys.executable, str(BENCHMARKS / "engine_gpu.py")]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 1
    assert "no CUDA device here; --quick" in done.stderr

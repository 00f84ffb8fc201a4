"""Damaged inputs of the report: refused in one line that names the file, or the same report as before."""

import random
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

from mindgap.base.errors import MindGapError
from mindgap.core.params import load_params
from mindgap.results.expectations import validate
from mindgap.results.flow import read_flow
from mindgap.results.paper import load_paper, published_rank_sums, verify_paper
from mindgap.results.reading import ReportError
from mindgap.stages.paths import PAPER, REPORTS, SENSITIVITY
from mindgap.stages.report import read_inputs, selection_of
from small_project import ROOT

NAME = "missing-low"
SEARCH = """\
scale,dataset,regime,method,rung,epochs,learning_rate,weight_decay,augmentation,seeds,validation,steps,chosen
tiny,missing,low,grid,0,12,0.05,0.0005,basic,1,0.31,96,True
tiny,missing,low,grid,0,12,0.1,0.0005,basic,1,,96,False
tiny,missing,low,grid,0,12,0.01,0.0005,basic,1,0.2,96,False
"""


@pytest.fixture(scope="module")
def params():
    params = load_params(ROOT / "params.yaml")
    return params.model_copy(update={"dataset": ["missing"], "query": ["random", "badge"]})


@pytest.fixture
def reports(tmp_path, monkeypatch) -> Path:
    """The inputs of the committed report in the working folder: one dataset, and a search of its recipe."""
    for folder in ("reports/expectations", "data/paper", "reports/sensitivity"):
        shutil.copytree(ROOT / folder, tmp_path / folder)
    files = [f"curves/{NAME}.csv", f"provenance/{NAME}.json", "flow/missing.csv"]
    for file in files:
        (tmp_path / "reports" / file).parent.mkdir(parents=True)
        shutil.copyfile(ROOT / "reports" / file, tmp_path / "reports" / file)
    (tmp_path / "data/prepared/missing").mkdir(parents=True)
    shutil.copyfile(ROOT / "reports/flow/missing.csv", tmp_path / "data/prepared/missing/flow.csv")
    (tmp_path / "reports/search").mkdir()
    (tmp_path / f"reports/search/{NAME}.csv").write_text(SEARCH)
    monkeypatch.chdir(tmp_path)
    return tmp_path / "reports"


def inputs_of(params, damaged: Path = REPORTS) -> list[str]:
    """All that a report is made of; of the paper and of the experiments only where they are damaged."""
    sensitivity = [SENSITIVITY] if damaged.is_relative_to(SENSITIVITY) else []
    selection = selection_of(params, REPORTS)
    inputs = read_inputs(selection, REPORTS, variants=sensitivity)
    found = [selection, inputs.origins, inputs.curves, inputs.searches]
    for one in inputs.variants:
        found += [one.curves, one.variants]
    if damaged.is_relative_to(PAPER):
        verify_paper(PAPER)
        found += [load_paper(PAPER), published_rank_sums(PAPER)]
    return [one.to_csv(index=False) if isinstance(one, pd.DataFrame) else str(one) for one in found]


def cut(data: bytes, rng: random.Random) -> bytes:
    return data[: rng.randrange(len(data))]


def in_lines(change: Callable[[list[bytes], int, random.Random], object]) -> Callable:
    def damage(data: bytes, rng: random.Random) -> bytes:
        lines = data.splitlines(keepends=True)
        change(lines, rng.randrange(len(lines)), rng)
        return b"".join(lines)

    return damage


def in_fields(value: Callable[[bytes, random.Random], bytes]) -> Callable:
    """Another text in one field of a line; in JSON in one line."""

    def change(lines: list[bytes], at: int, rng: random.Random) -> None:
        fields = lines[at].rstrip(b"\n").split(b",")
        place = rng.randrange(len(fields))
        fields[place] = value(fields[place], rng)
        lines[at] = b",".join(fields) + b"\n"

    return in_lines(change)


def swap(lines: list[bytes], at: int, rng: random.Random) -> None:
    other = rng.randrange(len(lines))
    lines[at], lines[other] = lines[other], lines[at]


JUNK = (
    b"nan",
    b"-1",
    b"",
    b"1e999",
    b"x",
    b'"',
    b"\x00",
    b"\xff",
    b"null",
    b"[]",
    b"12_3",
    b"0x1",
    b"\xd9\xa3",
)
DAMAGE: dict[str, Callable[[bytes, random.Random], bytes]] = {
    "nothing": lambda data, rng: b"",
    "cut": cut,
    "foreign": lambda data, rng: rng.choice(
        (b"null\n", b"[]\n", b"{}\n", b"a,b\n1,2\n", b"\x89PNG\r\n\x1a\n")
    ),
    "line lost": in_lines(lambda lines, at, rng: lines.pop(at)),
    "line twice": in_lines(lambda lines, at, rng: lines.insert(at, lines[at])),
    "lines swapped": in_lines(swap),
    "line blank": in_lines(lambda lines, at, rng: lines.insert(at, b"\n")),
    "junk": in_fields(lambda field, rng: rng.choice(JUNK)),
    "field lost": in_lines(lambda lines, at, rng: lines.__setitem__(at, lines[at].split(b",", 1)[-1])),
    "letter": in_fields(lambda field, rng: field + bytes([rng.choice(b"abc:;'}]{")])),
    "line ends": lambda data, rng: data.replace(b"\n", b"\r\n"),
    "byte order mark": lambda data, rng: b"\xef\xbb\xbf" + data,
}
FILES = (
    f"reports/curves/{NAME}.csv",
    f"reports/provenance/{NAME}.json",
    f"reports/search/{NAME}.csv",
    "reports/flow/missing.csv",
    "reports/sensitivity/default.csv",
    "reports/sensitivity/default.json",
    "data/paper/paper_aulc.csv",
    "data/paper/paper_rank_sums.csv",
)


@pytest.mark.parametrize("file", FILES)
@pytest.mark.parametrize("kind", DAMAGE)
def test_damage_is_named_or_changes_nothing(params, reports, file, kind):
    path, rng = Path(file), random.Random(f"{file} {kind}")
    whole, before = path.read_bytes(), inputs_of(params, path)
    for _ in range(2):
        path.write_bytes(DAMAGE[kind](whole, rng))
        after = message_or_inputs(params, path)
        if isinstance(after, str):
            assert "\n" not in after
            assert str(path) in after or str(path.parent) in after
            path.write_bytes(whole)
            assert inputs_of(params, path) == before
        else:
            same = after == before or (kind == "lines swapped" and sorted(str(after)) == sorted(str(before)))
            assert same or is_only_told(path, kind), path.read_bytes()


def message_or_inputs(params, path: Path) -> str | list[str]:
    try:
        return inputs_of(params, path)
    except MindGapError as error:
        return str(error)


def is_only_told(path: Path, kind: str) -> bool:
    """What no other number tells: commits, devices and seconds in provenance, a trial that did not win."""
    told = {"provenance": ("letter", "junk", "line twice", "line lost", "field lost", "lines swapped")}
    return kind in (told | {"search": ("line lost",)}).get(path.parent.name, ())


@pytest.mark.parametrize("file", FILES)
@pytest.mark.parametrize("kind", ["folder", "dangling link", "loop", "gone"])
def test_what_is_no_file_is_named(params, reports, file, kind):
    path = Path(file)
    path.unlink()
    make = {"folder": path.mkdir, "dangling link": lambda: path.symlink_to("nowhere")}
    make.get(kind, lambda: kind == "loop" and path.symlink_to(path.name))()
    if kind == "gone" and ("search" in file or file.endswith("default.csv")):
        return  # nothing was searched, or nothing of it collected
    with pytest.raises(MindGapError, match=f"{path}( is not there|.* cannot be read)") as error:
        inputs_of(params, path)
    assert "\n" not in str(error.value)


FLOW = """\
part,step,reason,rows_in,excluded,repaired,rows_out
images,read,,100,0,0,100
images,opened,no image,100,3,0,97
images,opened,truncated,97,0,2,97
texts,read,,90,0,0,90
"""


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("100,3,0,97", "100,4,0,97", "line 3: rows_out is 97, but 100 rows_in less 4 excluded is 96"),
        ("100,3,0,97", "100,3,0,9", "line 3: rows_out is 9, but"),
        ("97,0,2,97", "96,0,2,96", "line 4: rows_in is 96, but the line before left 97 of 'images'"),
        ("97,0,2,97", "97,0,98,97", "line 4: repaired is 98 of 97 rows_in"),
        ("90,0,0,90", "90,0,0,9O", "line 5: rows_out is '9O', not a whole number from 0 on"),
        ("90,0,0,90", "90,-1,0,91", "line 5: excluded is '-1', not a whole number"),
        ("images,read,,100,0,0,100\n", "", "line 2: reason is 'no image' in the first line of 'images'"),
        ("texts,read", "texts,", "line 5: step is empty"),
        ("texts,read", "skipped,read", "says that the dataset was skipped, and more"),
        ("90,0,0,90\n", "90,0,0,90", "its last line has no end, as if the file was cut"),
        ("90,0,0,90", "90,0,0,90,1", "line 5: 8 fields, the header has 7"),
        ("reason", "reasons", "lacks the columns reason"),
        (",step", ",part,step", "has a column twice"),
    ],
)
def test_a_flow_that_does_not_add_up_is_refused_by_line_and_column(tmp_path, old, new, message):
    path = tmp_path / "missing.csv"
    path.write_text(FLOW)
    assert len(read_flow(path)) == 4
    path.write_text(FLOW.replace(old, new, 1))
    with pytest.raises(ReportError, match=message) as error:
        read_flow(path)
    assert str(error.value).startswith(str(path))
    assert str(error.value).endswith("; write it anew: dvc repro -f -s prepare@missing")


def test_published_counts_are_rounded_each_by_itself(tmp_path):
    path = tmp_path / "mimic.csv"
    path.write_text(FLOW.replace("100,3,0,97", "100,0,0,100").replace("97,0,2,97", "100,20,0,90"))
    assert read_flow(path)[2]["rows_out"] == "90"
    path.write_text(FLOW.replace("90,0,0,90", "90,0,0,70"))
    with pytest.raises(ReportError, match="rows_out is 70, but 90 rows_in"):
        read_flow(path)


def test_a_flow_is_that_of_the_prepared_dataset_where_it_is_at_hand(params, reports):
    path = reports / "flow/missing.csv"
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:-1]))
    with pytest.raises(ReportError, match=r"is not what data/prepared/missing/flow\.csv says; take") as error:
        inputs_of(params)
    mend = str(error.value).rsplit(": ", 1)[1]
    path.unlink()
    path.mkdir()
    subprocess.run(mend, shell=True, check=True)
    assert inputs_of(params)
    # Without it nothing else tells that a last line is lost.
    path.write_text(FLOW)
    shutil.rmtree("data/prepared")
    assert inputs_of(params)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("0.31,96,True", "0.31,96,False", ": 0 trials are chosen"),
        ("0.2,96,False", "0.2,96,True", r": 2 trials are chosen \(lines 2, 4\), not one"),
        ("0.2,96", "0.32,96", ", line 2: chosen, but not the best validation of the last rung, 0.32"),
        ("12,0.05", "12,0.5", ", line 2: chosen with learning_rate 0.5, but its runs have 0.05"),
        (",basic,1,0.31", ",none,1,0.31", ", line 2: chosen with augmentation none, but its runs have basic"),
        ("0.31", "1.31", "line 2: validation is '1.31', not a number from 0 to 1"),
        ("0,12,0.01", "0,1.5,0.01", "line 4: epochs is '1.5', not a whole number"),
        ("0.01,0.0005", "nan,0.0005", "line 4: learning_rate is 'nan', not a number from 0 on"),
        ("tiny", "paper", "line 2: scale is 'paper', not 'tiny'"),
        ("grid", "luck", "line 2: method is 'luck', not one of grid, halving"),
        ("12,0.01", "12,0.05", "line 4: the trial is there twice"),
    ],
)
def test_a_search_that_cannot_have_been_is_refused(params, reports, old, new, message):
    path = Path(f"reports/search/{NAME}.csv")
    assert inputs_of(params)
    path.write_text(SEARCH.replace(old, new, 1))
    with pytest.raises(ReportError, match=message) as error:
        inputs_of(params)
    assert str(error.value).startswith(str(path))
    assert str(error.value).endswith("; write it anew: dvc repro -f -s train@missing-low")


SUITES = {
    "not JSON": ("{", "half written or not JSON"),
    "no expectations": ('{"name": "aulc"}', "is no suite: expectations: Field required"),
    "no kwargs": ('{"name": "a", "expectations": [{"type": "x"}]}', "expectations.0.kwargs: Field required"),
    "unknown": (
        '{"name": "a", "expectations": [{"type": "expect_luck", "kwargs": {}}]}',
        "asks for what cannot be checked",
    ),
    "wrong": (
        '{"name": "a", "expectations": [{"type": "expect_column_values_to_be_between", "kwargs": {}}]}',
        "asks for what cannot be checked",
    ),
}


@pytest.mark.parametrize("fault", SUITES)
def test_a_damaged_suite_is_named(tmp_path, fault):
    text, message = SUITES[fault]
    path = tmp_path / "aulc.json"
    path.write_text(text)
    with pytest.raises(MindGapError, match=message) as error:
        validate("AULC", pd.DataFrame({"a": [1]}), path, tmp_path / "page.html")
    assert str(error.value).endswith(f"it is in git: git checkout -- {path}")
    assert "\n" not in str(error.value)


def test_a_selection_that_cannot_be_meant_is_named(params, reports):
    twice = params.model_copy(update={"seeds": [0, 1, 0]})
    with pytest.raises(ReportError, match="the selection has seeds twice: 0, 1, 0; name each once"):
        inputs_of(twice)
    with pytest.raises(MindGapError, match=r"dataset: unknown 'mising'; known in .*: missing, unique"):
        inputs_of(params.model_copy(update={"dataset": ["mising"]}))


def test_settings_that_were_changed_do_not_fit_their_digest(params, reports):
    path = Path(f"reports/provenance/{NAME}.json")
    path.write_text(path.read_text().replace('"epochs": 12', '"epochs": 13'))
    with pytest.raises(ReportError, match=r"settings\.\w{16} were changed .*-f -s acquire"):
        inputs_of(params)

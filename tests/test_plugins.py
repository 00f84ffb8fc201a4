"""Plug-ins of packages that are installed beside MindGap, sound and broken."""

import copy
import json
import os
import subprocess
import sys

import pytest

from beside import install
from mindgap.base.plugins import PluginError
from mindgap.core.check import check_params
from mindgap.core.run_code import digest_here
from mindgap.data import DATASETS, RENDERED, SOURCES
from mindgap.parts.encoders import ENCODERS
from mindgap.parts.fusions import FUSIONS
from mindgap.parts.mitigations import MITIGATIONS
from mindgap.parts.query import METHODS
from mindgap.parts.starts import STARTS
from mindgap.results.curves import read_curve_file
from mindgap.results.expectations import validate_curves
from mindgap.stages.blueprint import write_blueprints
from mindgap.stages.catalogue import catalogue, faults
from mindgap.stages.paths import CURVES, EXPECTATIONS, PLUG_INS, places
from mindgap.stages.prepare import prepare_stage
from mindgap.stages.runs import acquire_stage, train_stage
from small_project import params_in, small

TABLES = [RENDERED, SOURCES, METHODS, MITIGATIONS, FUSIONS, STARTS, *ENCODERS.values()]


@pytest.fixture
def beside(tmp_path, monkeypatch):
    """Installs entry points in this process: (entries) -> the package's folder."""
    monkeypatch.syspath_prepend(tmp_path / "site")

    def made(*entries, **kwargs):
        for module in [name for name in sys.modules if name.startswith("beside_mindgap")]:
            monkeypatch.delitem(sys.modules, module)
        for table in TABLES:
            monkeypatch.setattr(table, "_loaded", {})
        package = install(tmp_path / "site", *entries, **kwargs)
        # A folder that was there before is another search path to the cache of what is installed.
        monkeypatch.setattr(sys, "path", [*sys.path, str(tmp_path / str(len(sys.path)))])
        return package

    return made


def test_parts_of_another_package_are_in_the_tables_and_in_the_list(beside):
    beside()
    assert {"least", "ruler"} <= set(METHODS)
    assert METHODS["least"].kind == "query"
    assert METHODS["ruler"].kind == "control"
    assert "half" in MITIGATIONS
    assert "mean" in FUSIONS
    assert STARTS["first"].fn(None, 2, None) == [0, 1]
    assert "colour" in ENCODERS["image"]
    assert "colour" not in ENCODERS["table"]
    assert DATASETS["patterned"] is RENDERED["patterned"]
    assert "patterned" not in SOURCES
    assert faults() == []
    listed = {line[0]: line for lines in catalogue().values() for line in lines}
    assert listed["least"][1:] == (
        "Least confidence, with a scale of its own. (from beside_mindgap 1.5)",
        "power=1.0",
    )
    for name in ("ruler", "half", "mean", "colour", "patterned"):
        assert "(from beside_mindgap 1.5)" in listed[name][1]
    assert "from" not in listed["badge"][1]


def test_nothing_is_imported_before_it_is_asked_for(beside):
    beside()
    assert METHODS["badge"]
    assert "least" in METHODS.names
    assert "beside_mindgap" not in sys.modules


BROKEN = {
    "no module": ("query", "gone = beside_mindgap.gone:x", "cannot be imported (ModuleNotFoundError: No mod"),
    "no attribute": ("query", "gone = beside_mindgap.parts:gone", "cannot be imported (AttributeError"),
    "no entry point": ("query", "gone = ???", "cannot be imported"),
    "a name of ours": ("query", "badge = beside_mindgap.parts:least", "MindGap has a 'badge' of its own"),
    "too few arguments": ("query", "gone = beside_mindgap.parts:short", "take view and n first"),
    "no function": ("query", "gone = beside_mindgap.scale:SCALE", "is no function or class"),
    "no policy": ("query", "gone = beside_mindgap.model:Half", "is a class without pick"),
    "no name": ("query", "go-ne = beside_mindgap.parts:least", "letters, digits and _ only"),
    "no mitigation": ("mitigation", "gone = beside_mindgap.parts:least", "it is no subclass of mindgap"),
    "no encoder": ("encoder", "image.gone = beside_mindgap.model:Mean", "has no `prepare`"),
    "no kind": ("encoder", "video.gone = beside_mindgap.model:Colour", "begin with one of image., tokens."),
    "no fusion": ("fusion", "gone = beside_mindgap.parts:short", "number of modalities and the width"),
    "no start": ("start", "gone = beside_mindgap.parts:short", "take candidates, n and rng first"),
    "a start with settings": ("start", "gone = beside_mindgap.parts:asking", "'more'"),
    "no dataset": ("dataset", "gone = beside_mindgap.parts:least", "it is neither a mindgap.data.Pairing"),
    "a dataset of ours": (
        "dataset",
        "missing = beside_mindgap.model:PATTERNED",
        "has a 'missing' of its own",
    ),
}


@pytest.mark.parametrize(("group", "entry", "reason"), BROKEN.values(), ids=BROKEN)
def test_a_broken_plug_in_is_named_and_stops_nobody_else(beside, tmp_path, group, entry, reason):
    beside(f"[mindgap.{group}]\n{entry}\n")
    (line,) = faults()
    assert line.startswith(f"beside_mindgap 1.5, entry point mindgap.{group}: {entry}: ")
    assert reason in line
    catalogue()
    used = "badge" not in entry and "missing" not in entry
    check_params(params_in(tmp_path, **({} if used else {"query": ["random"], "dataset": ["share"]})))


def test_using_a_broken_plug_in_is_an_error_that_names_it(beside, tmp_path):
    beside("[mindgap.query]\nbadge = beside_mindgap.parts:least\ngone = beside_mindgap.gone:x\n")
    for name in ("badge", "gone"):
        with pytest.raises(PluginError, match=f"beside_mindgap 1.5, entry point mindgap.query: {name} = "):
            check_params(params_in(tmp_path, query=["random", name]))


def test_one_name_of_two_packages_is_neither_s(beside):
    beside("[mindgap.fusion]\nmean = beside_mindgap.model:Mean\n", name="another")
    beside("[mindgap.fusion]\nmean = beside_mindgap.model:Mean\n")
    with pytest.raises(PluginError, match=r"another 1.5.*'mean' is also that of beside_mindgap 1.5"):
        FUSIONS["mean"]


def test_a_dataset_of_ours_is_no_other_s_whichever_kind_either_is(beside):
    entries = "missing = beside_mindgap.model:FILES\nshare = beside_mindgap.model:PATTERNED\n"
    package = beside(f"[mindgap.dataset]\n{entries}")
    with (package / "model.py").open("a") as file:
        file.write("\nfrom mindgap.data.source import Source\n")
        file.write("FILES = Source('files', ('a',), None, (), code='beside_mindgap.parts')\n")
    for table, name in (
        (DATASETS, "missing"),
        (SOURCES, "missing"),
        (RENDERED, "share"),
        (DATASETS, "share"),
    ):
        with pytest.raises(PluginError, match=f"MindGap has a '{name}' of its own"):
            table[name]


def test_a_control_is_declared_as_one(beside):
    package = beside("[mindgap.query]\nruler = beside_mindgap.parts:RULER\n")
    with (package / "parts.py").open("a") as file:
        file.write("\nfrom mindgap.parts.query.contract import Method\nRULER = Method(least, 'control')\n")
    with pytest.raises(PluginError, match=r"declare it in the group mindgap\.control"):
        METHODS["ruler"]


def of_run(query: str) -> set[str]:
    lines = (places("missing").runs / "missing-low/records.jsonl").read_text().splitlines()
    return {one["run"] for one in map(json.loads, lines) if one["cell"]["query"] == query}


def test_runs_of_another_package_s_parts_are_valid_and_follow_their_code(
    project, beside, tmp_path, monkeypatch
):
    package = beside()
    settings = small(query=["random", "least"], seeds=[0], mitigation=["half"])
    settings["query_settings"]["least"] = {"power": 2.0}
    model = settings["scales"]["tiny"]["model"]
    model["encoder"]["image"], model["fusion"] = {"name": "colour"}, {"name": "mean"}
    params = params_in(project, **settings)
    check_params(params)
    train_stage(params, "missing", "low")
    monkeypatch.setenv("MINDGAP_WORKERS", "2")  # processes of their own
    acquire_stage(params, "missing", "low")
    first, other = of_run("least"), of_run("random")
    path = CURVES / "missing-low.csv"
    assert set(read_curve_file(path)["query"]) == {"random", "least"}
    validate_curves(path, EXPECTATIONS, tmp_path)
    write_blueprints(params)
    before = PLUG_INS.read_bytes()
    (package / "scale.py").write_text("SCALE = 2.0\n")
    write_blueprints(params)
    assert PLUG_INS.read_bytes() != before  # DVC starts the stages again
    digest_here.cache_clear()  # another process
    acquire_stage(params, "missing", "low")
    assert of_run("least") != first
    assert of_run("random") == other


def test_another_package_s_dataset_is_prepared_and_checked(project, beside):
    beside()
    changes = copy.deepcopy(small(dataset=["patterned"]))
    for block in ("prepare", "recipe", "budget"):
        changes["scales"]["tiny"][block]["patterned"] = changes["scales"]["tiny"][block]["missing"]
    changes["scales"]["tiny"]["prepare"]["patterned"] = {"absence": {"second": 0.5}}
    params = params_in(project, **changes)
    check_params(params)
    prepare_stage(params, "patterned")
    assert json.loads((places("patterned").prepared / "meta.json").read_text())["weak"] == "second"


def test_a_command_finds_what_is_installed(project, tmp_path):
    install(tmp_path / "site")
    path = os.pathsep.join([os.environ.get("PYTHONPATH", ""), str(tmp_path / "site")])
    params_in(project, query=["least"])
    command = [sys.executable, "-m", "mindgap", "check-params"]
    subprocess.run(command, cwd=project, env={**os.environ, "PYTHONPATH": path}, check=True)
    assert "beside_mindgap 1.5, entry point mindgap.query: least" in PLUG_INS.read_text()

"""The shape of the code: imports point one way, and what is numerics is in a run's digest."""

import ast
import functools
import importlib
import shutil
from pathlib import Path

import pytest
import yaml

from mindgap.core import digest
from mindgap.core.digest import SOURCE, _meaning, code_digest, code_files, files_of
from mindgap.core.run_code import part_files
from mindgap.parts.encoders import ENCODERS
from mindgap.parts.fusions import FUSIONS
from mindgap.parts.mitigations import MITIGATIONS
from mindgap.parts.query import METHODS
from mindgap.parts.query.select import select
from mindgap.parts.starts import STARTS
from mindgap.results.names import CONTROLS, OUR_METHODS
from mindgap.results.names import METHOD_NAMES as NAMES

# A folder may import itself and what stands in a line before its own.
LAYERS = [["base"], ["data"], ["parts"], ["core"], ["engine", "results"], ["stages"]]
LEVEL = {name: level for level, names in enumerate(LAYERS) for name in names}
MODULES = sorted(SOURCE.rglob("*.py"))


def imports(path: Path) -> set[tuple[str, ...]]:
    """The modules of MindGap that a file imports, anywhere in it, without "mindgap" in front."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        names = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
        names += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        found |= {tuple(name.split(".")[1:]) for name in names if name.startswith("mindgap.")}
    return found


def test_every_module_lies_in_a_folder_of_a_layer():
    places = {path.relative_to(SOURCE).parts[0] for path in MODULES}
    assert places == {"__init__.py", "__main__.py", *LEVEL}


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(SOURCE)))
def test_imports_point_down(path):
    folder = path.relative_to(SOURCE).parts[0]
    if folder == "__main__.py":
        return
    below = {name for name, level in LEVEL.items() if level < LEVEL.get(folder, 0)}
    wrong = {".".join(module) for module in imports(path) if module[0] not in {folder, *below}}
    assert not wrong, f"{folder} imports {wrong}, which does not lie below it"


def test_a_type_s_name_is_that_of_one_thing():
    """But `Settings`, which every dataset from files has of its own."""
    found: dict[str, set[Path]] = {}
    for path in MODULES:
        for node in ast.parse(path.read_text()).body:
            targets = node.targets if isinstance(node, ast.Assign) else []
            names = [node.name] if isinstance(node, ast.ClassDef) else [getattr(t, "id", "") for t in targets]
            for name in names:
                if name[:1].isupper() and not name.isupper() and name != "Settings":
                    found.setdefault(name, set()).add(path)
    twice = {name: paths for name, paths in found.items() if len(paths) > 1}
    assert not twice


PARTS = sorted((SOURCE / "parts").glob("*/*.py"))


@pytest.mark.parametrize("path", PARTS, ids=lambda p: str(p.relative_to(SOURCE)))
def test_a_part_knows_its_own_kind_and_nothing_of_data_training_or_the_loop(path):
    others = {module for module in imports(path) if module[:2] != ("parts", path.parent.name)}
    assert {module[0] for module in others} <= {"base"}


def test_comments_do_not_count_and_code_does(tmp_path):
    plain = _meaning(b"def f(x):\n    return x + 1\n")
    assert _meaning(b'"""Text."""\ndef f(x):  # why\n    """What."""\n\n    return x + 1\n') == plain
    assert _meaning(b"def f(x):\n    return x + 2\n") != plain
    extra = tmp_path / "method.py"
    extra.write_text("A = 1\n")
    first = code_digest([extra])
    extra.write_text("A = 1  # one\n")
    assert code_digest([extra]) == first != code_digest()


def test_the_report_knows_every_control():
    controls = {name for name, method in METHODS.items() if method.kind == "control"}
    assert set(CONTROLS) == controls, "name each control in results/names.py: reports load no torch"


def test_the_report_has_a_name_for_every_method_and_knows_ours():
    assert set(NAMES) == set(METHODS)
    assert set(OUR_METHODS) <= set(METHODS)


def names(*roots: Path) -> set[str]:
    return {path.relative_to(SOURCE).as_posix() for path in code_files(roots)}


def test_the_code_of_a_run_is_what_it_passes_through():
    loop = names()
    core = ("batches", "evaluation", "loop", "network", "pool", "rng", "training")
    assert {f"core/{name}.py" for name in core} < loop
    assert {
        "base/gpu.py",
        "base/hosted.py",
        "base/view.py",
        "base/modality.py",
        "parts/mitigations/base.py",
    } < loop
    assert {"parts/augment/images.py", "parts/augment/resized_crop.py"} < loop
    assert not loop & {"core/records.py", "core/params.py", "core/digest.py", "core/search.py"}
    assert not any(
        name.startswith(("data/", "parts/query/", "engine/", "results/", "stages/")) for name in loop
    )
    loop |= names(SOURCE / "base/settings.py")
    own = names(*files_of(METHODS["bmmal"].fn)) - loop
    assert own == {f"parts/query/{name}.py" for name in ("bmmal", "badge", "kernels", "resident", "contract")}
    select = SOURCE / "parts/query/select.py"
    assert names(select) - loop == {f"parts/query/{name}.py" for name in ("select", "contract", "policy")}
    assert names(*files_of(FUSIONS["transformer"])) - loop == {"parts/fusions/transformer.py"}
    own = names(*part_files(STARTS, "typical")) - loop
    assert own == {"parts/starts/typical.py", "parts/starts/features.py", "base/typicality.py"}
    assert names(*part_files(STARTS, "stratified")) <= loop
    assert "base/minilm.py" in names(*files_of(ENCODERS["tokens"]["minilm"]))


@pytest.fixture
def package(tmp_path, monkeypatch) -> Path:
    """A copy of the package, of which `digest` reads the sources."""
    copy = tmp_path / "copy" / "mindgap"
    shutil.copytree(SOURCE, copy, ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setattr(digest, "SOURCE", copy)
    for name in ("REGISTRIES", "LOOK_UP", "NOT_OF_THE_LOOP"):
        moved = frozenset(copy / path.relative_to(SOURCE) for path in getattr(digest, name))
        monkeypatch.setattr(digest, name, moved)
    return copy


# A line that a plug-in imports something with, and the file behind it.
IMPORTS = {
    "another folder": ("from mindgap.results.aulc import aulc", "results/aulc.py"),
    "what that imports": ("from mindgap.results.curves import read_curves", "base/errors.py"),
    "as another name": ("import mindgap.data.quintfeatures.colors as c", "data/quintfeatures/colors.py"),
    "a submodule": ("from mindgap.data.quintfeatures import colors", "data/quintfeatures/colors.py"),
    "a star": ("from mindgap.data.flow import *", "data/flow.py"),
    "in a function": ("def f():\n    from mindgap.engine.machine import workers", "engine/machine.py"),
    "by name": ("import importlib; importlib.import_module('mindgap.engine.layout')", "engine/layout.py"),
    "by name, relative": (
        "from importlib import import_module as i; i('.helper', __package__)",
        "parts/query/helper.py",
    ),
    "by name, in a package": (
        "import importlib; importlib.import_module('.colors', 'mindgap.data')",
        "data/quintfeatures/colors.py",
    ),
    "by name, as another": (
        "from importlib import import_module as i; i('mindgap.engine.layout')",
        "engine/layout.py",
    ),
    "by name, of any loader": (
        "import runpy; runpy.run_module('mindgap.parts.query.helper')",
        "parts/query/helper.py",
    ),
    "an attribute of a package": (
        "import mindgap\ndef f(): return mindgap.data.quintfeatures.colors.NAMES",
        "data/quintfeatures/colors.py",
    ),
    "an attribute of an alias": (
        "from . import deeper as p\ndef f(): return p.deep.x",
        "parts/query/deeper/deep.py",
    ),
    "a registry's table": ("from mindgap.parts.query import METHODS", "parts/query/badge.py"),
    "a file beside": ("from mindgap.parts.query.helper import x", "parts/query/helper.py"),
    "a star that imports a module": ("from .deeper import *", "parts/query/deeper/deep.py"),
    "relative": ("from .helper import x", "parts/query/helper.py"),
    "relative, all of it": ("from . import helper", "parts/query/helper.py"),
    "relative, from above": ("from ..encoders.table import TableMLP", "parts/encoders/table.py"),
    "a package": ("from mindgap.parts.query.deeper.deep import x", "parts/query/deeper/__init__.py"),
    "a registry's name": ("from mindgap.parts.query import random", "parts/query/random_.py"),
    "all of a registry": ("import mindgap.parts.query as q", "parts/query/badge.py"),
    "of the package itself": ("from mindgap import __version__", "__init__.py"),
}


@pytest.mark.parametrize(("line", "file"), IMPORTS.values(), ids=IMPORTS)
def test_what_a_plug_in_imports_is_in_its_digest(package, line, file):
    (package / "parts/query/deeper").mkdir()
    for name in ("helper.py", "deeper/__init__.py", "deeper/deep.py"):
        (package / "parts/query" / name).write_text("__all__ = ['deep']\n")
    method = package / "parts/query" / "new.py"
    method.write_text(f"{line}\n")
    before, loop = code_digest([method]), code_digest()
    with (package / file).open("a") as other:
        other.write("\n# A comment.\n")
    assert code_digest([method]) == before
    with (package / file).open("a") as other:
        other.write("\nchanged = True\n")
    assert code_digest([method]) != before
    assert (code_digest() != loop) == (file == "base/errors.py")


@pytest.mark.parametrize(
    "line",
    [
        "(Path(__file__).parent / 'deeper' / 'weights.json')",
        "Path(__file__).with_name('deeper/weights.json')",
    ],
)
def test_a_file_of_numbers_that_a_plug_in_names_is_in_its_digest(package, line):
    method, table = package / "parts/query/new.py", package / "parts/query/deeper/weights.json"
    table.parent.mkdir()
    table.write_text("[1]")
    method.write_text(f"from pathlib import Path\nNUMBERS = {line}.read_text()\n")
    before = code_digest([method])
    table.write_text("[2]")
    assert code_digest([method]) != before


def test_a_new_method_changes_the_digest_of_no_other(package):
    before = {
        name: code_digest([package / "parts/query" / f"{name}.py"]) for name in ("badge", "margin", "select")
    }
    (package / "parts/query/new.py").write_text(
        "from mindgap.parts.query.kernels import top_k\nnew = top_k\n"
    )
    table = package / "parts/query/__init__.py"
    table.write_text(f"from mindgap.parts.query.new import new\n{table.read_text()}")
    assert {name: code_digest([package / "parts/query" / f"{name}.py"]) for name in before} == before


def test_a_plug_in_from_outside_is_followed_where_nothing_was_installed(tmp_path, monkeypatch):
    own = tmp_path / "plug_in_of_tests"
    (own / "parts").mkdir(parents=True)
    for name in ("__init__", "near", "parts/__init__", "parts/far"):
        (own / f"{name}.py").write_text("x = 1\n")
    (tmp_path / "helper_of_tests.py").write_text("x = 1\n")
    method = own / "method.py"
    method.write_text(
        "import torch, numpy.linalg, json, helper_of_tests\nfrom .near import x\n"
        "from plug_in_of_tests.parts.far import x as y\nfrom mindgap.parts.query.kernels import top_k\n"
        "def method(view, n):\n    return x\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    found = {path.name for path in code_files([method]) if not path.is_relative_to(SOURCE)}
    assert found == {"method.py", "near.py", "__init__.py", "far.py", "helper_of_tests.py"}
    assert SOURCE / "parts/query/kernels.py" in code_files([method])
    made = importlib.import_module("plug_in_of_tests.method").method
    assert files_of(functools.partial(made, None)) == files_of(made) == {method}


@pytest.mark.parametrize("project", [".", "data/mimic"])
def test_dvc_runs_stages_again_when_whose_models_have_dropout_changes(project):
    """Both stages choose a model by it, whatever else they depend on."""
    stages = yaml.safe_load((SOURCE.parents[1] / project / "dvc.yaml").read_text())["stages"]
    key = "scales.${scale}.model.head_dropout_for"
    for stage in ("train", "acquire"):
        listed = stages[stage]["params"]
        names = listed if project == "." else listed[0]["../../params.yaml"]
        assert any(key == name or key.startswith(f"{name}.") for name in names), stage


@pytest.mark.parametrize("project", [".", "data/mimic"])
def test_dvc_runs_stages_again_when_their_code_changes(project):
    root = SOURCE.parents[1]
    stages = yaml.safe_load((root / project / "dvc.yaml").read_text())["stages"]

    def unwatched(stage: str, things: list) -> set[Path]:
        deps = {(root / project / dep).resolve() for dep in stages[stage]["deps"]}
        files = code_files(set().union(*map(files_of, things)))
        return {path for path in files if not deps & {path, *path.parents}}

    kinds = [one for kind in ENCODERS.values() for one in kind.values()]
    assert unwatched("train", [*kinds, *FUSIONS.values(), *MITIGATIONS.values()]) == set()
    assert unwatched("train", [start.fn for start in STARTS.values()]) == set()
    # What train stands on reaches acquire with the models.
    left = unwatched("acquire", [select, *(method.fn for method in METHODS.values())])
    assert left <= code_files()

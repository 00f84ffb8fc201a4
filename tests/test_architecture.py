"""The shape of the code: imports point one way, and what is numerics is in a run's digest."""

import ast
from pathlib import Path

import pytest
import yaml

from mindgap.provenance import NUMERICS, SOURCE, _meaning, code_digest, with_siblings
from mindgap.query import METHODS
from mindgap.report.names import CONTROLS

# A module may import what stands before its own layer, and its own.
LAYERS = [
    ["errors", "rng", "progress", "minilm", "settings"],
    ["data", "machine", "gpu"],
    ["params"],
    ["augment", "models", "resized_crop"],
    ["mitigations"],
    ["evaluation", "batches"],
    ["training"],
    ["pool"],
    ["query"],
    ["provenance", "records", "status"],
    ["loop"],
    ["jobs"],
    ["processes", "cluster"],
    ["sweep"],
    ["search"],
    ["layout", "plan", "calibration"],
    ["report", "expectations"],
    ["stages"],
    ["cli", "__main__"],
]
LEVEL = {name: level for level, names in enumerate(LAYERS) for name in names}
# Checks that params.yaml can be run ask the tables of plug-ins, when called.
ALLOWED = {("params", "augment"), ("params", "models"), ("params", "mitigations"), ("params", "query")}
MODULES = sorted(SOURCE.rglob("*.py"))


def part(module: str) -> str:
    return module.split(".")[1]


def imports(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        names = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
        names += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        found |= {part(name) for name in names if name.startswith("mindgap.")}
    return found


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(SOURCE)))
def test_imports_point_one_way(path):
    name = path.relative_to(SOURCE).parts[0].removesuffix(".py")
    if name == "__init__":
        assert not imports(path)
        return
    wrong = {i for i in imports(path) if LEVEL[i] > LEVEL[name] and (name, i) not in ALLOWED}
    assert not wrong, f"{name} imports {wrong}, which build on it"


@pytest.mark.parametrize("path", sorted((SOURCE / "query").glob("*.py")), ids=lambda p: p.name)
def test_a_query_method_knows_nothing_of_data_training_or_the_loop(path):
    assert not imports(path) & {"data", "training", "loop", "params", "sweep"}


def test_numerics_are_all_there_and_comments_do_not_count(tmp_path):
    assert all((SOURCE / name).exists() for name in NUMERICS)
    plain = _meaning("def f(x):\n    return x + 1\n")
    assert _meaning('"""Text."""\ndef f(x):  # why\n    """What."""\n\n    return x + 1\n') == plain
    assert _meaning("def f(x):\n    return x + 2\n") != plain
    extra = tmp_path / "method.py"
    extra.write_text("A = 1\n")
    first = code_digest([extra])
    extra.write_text("A = 1  # one\n")
    assert code_digest([extra]) == first != code_digest()


def test_the_report_knows_every_control():
    controls = {name for name, method in METHODS.items() if method.kind == "control"}
    assert set(CONTROLS) == controls, "name each control in report/names.py: reports load no torch"


def test_the_code_of_a_method_is_its_file_and_what_it_stands_on():
    def code(name: str) -> set[str]:
        return {path.stem for path in with_siblings(SOURCE / "query" / f"{name}.py")}

    assert code("bmmal") == {"bmmal", "badge", "kernels", "resident", "contract"}
    assert code("random_") == {"random_", "contract"}
    assert code("select") == {"select", "contract"}  # not all methods, though it knows their table


def test_modules_that_import_each_other_are_found_once(tmp_path):
    for name, other in (("one", "two"), ("two", "one")):
        (tmp_path / f"{name}.py").write_text(f"from mindgap.query import {other}\nimport json\n")
    assert {path.stem for path in with_siblings(tmp_path / "one.py")} == {"one", "two"}


@pytest.mark.parametrize("project", [".", "data/mimic"])
def test_dvc_trains_again_when_the_numerics_change(project):
    root = SOURCE.parents[1]
    stages = yaml.safe_load((root / project / "dvc.yaml").read_text())["stages"]
    deps = {(root / project / dep).resolve() for dep in stages["train"]["deps"]}
    watched = [{SOURCE / name, (SOURCE / name).parent} & deps for name in NUMERICS]
    assert all(watched), [name for name, seen in zip(NUMERICS, watched, strict=True) if not seen]

"""The shape of the code: imports point one way, and what is numerics is in a run's digest."""

import ast
from pathlib import Path

import pytest

from mindgap.provenance import NUMERICS, SOURCE, _meaning, code_digest
from mindgap.query import METHODS
from mindgap.report.names import CONTROLS

# A module may import what stands before its own layer, and its own.
LAYERS = [
    ["errors", "rng", "progress", "minilm"],
    ["data", "machine"],
    ["params"],
    ["augment", "models", "resized_crop"],
    ["mitigations"],
    ["evaluation"],
    ["training"],
    ["pool"],
    ["query"],
    ["provenance", "records"],
    ["loop"],
    ["sweep"],
    ["search"],
    ["layout", "plan", "calibration"],
    ["report", "expectations"],
    ["stages"],
    ["cli"],
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

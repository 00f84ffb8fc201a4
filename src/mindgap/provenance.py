"""Where a number comes from: the code that made it, the commit, versions and device."""

import ast
import functools
import hashlib
import platform
import subprocess
from collections.abc import Iterable, Iterator
from importlib import metadata
from pathlib import Path

SOURCE = Path(__file__).parent

# The modules that every run's numbers pass through. A method's, a mitigation's or an encoder's own file is
# added by the run that uses it, so a new one invalidates nothing; reading, writing, commands and figures are
# not in it.
NUMERICS = (
    "augment.py",
    "batches.py",
    "evaluation.py",
    "gpu.py",
    "loop.py",
    "mitigations/base.py",
    "models/fusion.py",
    "models/network.py",
    "pool.py",
    "resized_crop.py",
    "rng.py",
    "training.py",
)


def code_digest(extra: Iterable[Path] = ()) -> str:
    """Digest of the code behind a run's numbers; comments, docstrings and layout do not count."""
    digest = hashlib.sha256()
    for path in [*(SOURCE / name for name in NUMERICS), *sorted(extra)]:
        digest.update(path.name.encode())
        digest.update(_meaning(path.read_text()).encode())
    return digest.hexdigest()


def module_digest(path: Path) -> str:
    """Digest of a module's code, as in `code_digest`, and the same on every version of Python."""
    return hashlib.sha256(_meaning(path.read_text()).replace(", type_params=[]", "").encode()).hexdigest()


@functools.cache
def with_siblings(path: Path) -> frozenset[Path]:
    """A module, the modules of its folder that it imports, those that these import, and so on."""
    found, waiting = set(), [path]
    while waiting:
        module = waiting.pop()
        if module not in found:
            found.add(module)
            waiting += [f for name in _imported(module) if (f := path.parent / f"{name}.py").exists()]
    return frozenset(found)


def _imported(path: Path) -> Iterator[str]:
    """Last parts of the names of modules that are imported from MindGap."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("mindgap."):
            yield node.module.split(".")[-1]
            yield from (alias.name for alias in node.names)


@functools.cache
def _meaning(source: str) -> str:
    tree = ast.parse(source)
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        if isinstance(body, list) and body and _is_text(body[0]):
            node.body = body[1:]
    return ast.dump(tree)


def _is_text(node: ast.AST) -> bool:
    return (
        isinstance(node, ast.Expr)
        and isinstance(node.value, ast.Constant)
        and isinstance(node.value.value, str)
    )


@functools.cache
def commit() -> str:
    """The checkout's commit, "+" behind it when code differs from it; "unknown" outside a checkout."""
    try:
        head = _git("rev-parse", "HEAD")
        return head + ("+" if _git("status", "--porcelain", "--untracked-files=no", "--", ".") else "")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def inside_git() -> bool:
    """Whether there is a git, and the working folder is in a checkout."""
    try:
        return not subprocess.run(["git", "rev-parse", "--git-dir"], capture_output=True).returncode
    except OSError:
        return False


def _git(*arguments: str) -> str:
    return subprocess.run(
        ["git", *arguments], cwd=SOURCE, check=True, capture_output=True, text=True
    ).stdout.strip()


@functools.cache
def versions() -> dict[str, str]:
    packages = ("mindgap", "torch", "numpy")
    return {"python": platform.python_version(), **{name: metadata.version(name) for name in packages}}

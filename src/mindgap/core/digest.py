"""Where a number comes from: a digest of the code that made it, the commit and the versions.

`code_digest` follows imports from the loop and from a run's own parts, and hashes the meaning of each file.
"""

import ast
import functools
import hashlib
import importlib.util
import inspect
import json
import platform
import re
import subprocess
import sys
from collections.abc import Iterable, Iterator, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

from mindgap import __version__

SOURCE = Path(__file__).parents[1]

# The files that list plug-ins. A name imported from a list is followed to the file that makes it; the list
# itself does not count, so a new line in it changes the digest of no other plug-in's runs.
REGISTRIES = frozenset(
    place / "__init__.py" for place in (SOURCE / "data", SOURCE / "parts", *(SOURCE / "parts").iterdir())
)
# Code that looks up a run's own plug-ins by name. Other code that takes a table depends on all in it.
LOOK_UP = frozenset(SOURCE / name for name in ("core", "parts/query/select.py"))
# What the loop imports and does not compute with: data, which have a digest of their own, parameters, and the
# call of query methods, on which only runs with a query depend.
NOT_OF_THE_LOOP = frozenset(SOURCE / name for name in ("data", "core/params.py", "parts/query/select.py"))
INSTALLED = {"site-packages", "dist-packages"}


def code_digest(roots: Iterable[Path] = ()) -> str:
    """Digest of the code behind a run's numbers; comments, docstrings and layout do not count.

    It is that of the loop, of the files `roots` (a run's own method, mitigation, encoders and fusion), and of
    all that these import. The same on every host and version of Python.
    """
    parts = sorted([_label(path), _content(path)] for path in code_files(roots))
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def module_digests(root: Path, left_out: Iterable[Path] = ()) -> dict[str, str]:
    """Digests, as in `code_digest`, of a module and all that it imports, by their paths."""
    files = sorted(_reached([root], frozenset(left_out)))
    return {_label(path): hashlib.sha256(_content(path).encode()).hexdigest() for path in files}


def code_files(roots: Iterable[Path] = ()) -> frozenset[Path]:
    """The files behind `code_digest`."""
    loop = _reached([SOURCE / "core/loop.py"], NOT_OF_THE_LOOP)
    return loop | _reached(roots, loop)


def files_of(thing: Any) -> set[Path]:
    """Where a function or class is written, and what it wraps; an instance is of its class."""
    if isinstance(thing, functools.partial):
        return files_of(thing.func)
    wrapped = getattr(thing, "__wrapped__", None)
    made = thing if inspect.isclass(thing) or inspect.isroutine(thing) else type(thing)
    return {Path(inspect.getfile(made)).resolve()} | (files_of(wrapped) if wrapped else set())


def _label(path: Path) -> str:
    inside = path.is_relative_to(SOURCE)
    return path.relative_to(SOURCE).as_posix() if inside else path.name


def _content(path: Path) -> str:
    """What a file says: code without its comments, else all of it."""
    data = path.read_bytes()
    return _meaning(data) if path.suffix == ".py" else hashlib.sha256(data).hexdigest()


def _reached(roots: Iterable[Path], left_out: frozenset[Path]) -> frozenset[Path]:
    """Some files, those that they import, and so on, without these files and folders."""
    found, waiting = set(), [path for path in roots if not _within(path, left_out)]
    while waiting:
        path = waiting.pop()
        if path not in found:
            found.add(path)
            inside = [*_imported(path), *_data_of(path)] if path.suffix == ".py" else []
            waiting += [file for file in inside if not _within(file, left_out)]
    return frozenset(found)


def _within(path: Path, places: frozenset[Path]) -> bool:
    """Whether a file is one of these, or lies in one of them."""
    return path in places or not places.isdisjoint(path.parents)


def _imported(path: Path) -> Iterator[Path]:
    """The files that a file imports, anywhere in it: of MindGap, or of what is not installed beside it."""
    for level, module, names in _imports(path.read_bytes()):
        parts = module.split(".") if module else []
        top = path.parents[level - 1] if level else _folder_of(parts[0], path)
        if top is None:
            continue
        packages = [top.joinpath(*parts[:n]) for n in range(1, len(parts) + 1)]
        for folder in packages[:-1]:
            if folder != SOURCE and (init := folder / "__init__.py") not in REGISTRIES and init.is_file():
                yield init
        yield from _named(packages[-1] if packages else top, names, tables=not _within(path, LOOK_UP))


def _data_of(path: Path) -> Iterator[Path]:
    """The files that lie beside or below a source and that it names, such as a table that it reads."""
    for text in _texts(path.read_bytes()):
        if re.fullmatch(r"(?!/)[\w./-]*\w\.\w+", text) and not text.endswith(".py"):
            parts = Path(text).parts
            yield from (
                p for p in path.parent.rglob(parts[-1]) if p.parts[-len(parts) :] == parts and p.is_file()
            )


def _named(module: Path, names: Sequence[str], tables: bool = True) -> Iterator[Path]:
    """The files behind names that are imported from a module; none or "*" is all of it.

    A table that a registry makes stands for all that is in it, unless `tables` is false.
    """
    file = _file(module)
    listing = file is not None and (file in REGISTRIES or file == SOURCE / "__init__.py")
    if file and (not listing or not names or "*" in names or file.name != "__init__.py"):
        yield file
    if file is None or file.name == "__init__.py":
        # A star takes what __all__ lists, which may be modules.
        listed = _texts(file.read_bytes()) if file and "*" in names else ()
        for name in (*names, *filter(str.isidentifier, listed)):
            if inside := _file(module / name):
                yield inside
            elif file in REGISTRIES:
                origin = _origins(file.read_bytes()).get(name)
                if origin:
                    yield from _named(SOURCE.parent.joinpath(*origin[0].split(".")), origin[1:])
                elif tables:
                    yield file
            elif file and listing:
                yield file


def _file(module: Path) -> Path | None:
    """The file of a module or package, if there is one."""
    candidates = (module.with_name(f"{module.name}.py"), module / "__init__.py")
    return next((file for file in candidates if file.is_file()), None)


def _folder_of(top: str, importer: Path) -> Path | None:
    """The folder that a top-level module lies in; None for what Python has or what was installed.

    A plug-in that was installed is followed within its own package.
    """
    if top == SOURCE.name:
        return SOURCE.parent
    if top in sys.stdlib_module_names:
        return None
    try:
        spec = importlib.util.find_spec(top)
    except (ImportError, ValueError):
        spec = None
    places = [*(spec.submodule_search_locations or []), spec.origin] if spec else []
    folder = Path(places[0]).resolve().parent if places and places[0] else importer.parent
    installed = INSTALLED & set(folder.parts) and folder / top not in importer.parents
    return None if installed else folder


@functools.cache
def _imports(source: bytes) -> tuple[tuple[int, str, tuple[str, ...]], ...]:
    """The imports of a source: dots in front, module, names (none: the module itself).

    So count attributes of MindGap's modules, which may be modules too, and texts that name one.
    """
    found: list[tuple[int, str, tuple[str, ...]]] = []
    bound: dict[str, tuple[int, str]] = {}  # what the names that are imported stand for
    nodes = list(ast.walk(ast.parse(source)))
    for node in nodes:
        if isinstance(node, ast.ImportFrom):
            module, level = node.module or "", node.level
            found.append((level, module, tuple(alias.name for alias in node.names)))
            bound |= {a.asname or a.name: (level, f"{module}.{a.name}".lstrip(".")) for a in node.names}
        elif isinstance(node, ast.Import):
            found += [(0, alias.name, ()) for alias in node.names]
            tops = {alias: alias.name.partition(".")[0] for alias in node.names}
            bound |= {a.asname or top: (0, a.name if a.asname else top) for a, top in tops.items()}
    for text in _texts(source):
        module, _, name = text.rpartition(".")
        if text.startswith(f"{SOURCE.name}.") and text.replace(".", "_").isidentifier():
            found.append((0, module, (name,)))
    for node in nodes:
        base, *attributes = _chain(node.func if isinstance(node, ast.Call) else node)
        level, module = bound.get(base, (0, base))
        if isinstance(node, ast.Call):
            if ".".join([module, *attributes]).endswith(("import_module", "__import__")):
                found += _by_text([*node.args, *(keyword.value for keyword in node.keywords)])
        elif attributes and (level or module.partition(".")[0] == SOURCE.name):
            *inside, name = attributes
            found.append((level, ".".join(filter(None, [module, *inside])), (name,)))
    return tuple(dict.fromkeys(found))


def _by_text(arguments: Sequence[ast.expr]) -> list[tuple[int, str, tuple[str, ...]]]:
    """The import of a call of import_module, by the texts that it is given: a module, and a package."""
    name, package = ([one.value for one in arguments if isinstance(one, ast.Constant)] + ["", ""])[:2]
    if not isinstance(name, str) or not name:
        return []
    module = name.lstrip(".")
    if name[0] != "." or not isinstance(package, str) or not package:
        return [(len(name) - len(module), module, ())]
    return [(0, importlib.util.resolve_name(name, package), ())]


def _chain(node: ast.AST) -> list[str]:
    """The names of `a.b.c`; an empty one for what is no such chain."""
    if isinstance(node, ast.Attribute):
        return [*inside, node.attr] if (inside := _chain(node.value)) != [""] else inside
    return [node.id if isinstance(node, ast.Name) else ""]


@functools.cache
def _texts(source: bytes) -> frozenset[str]:
    """The texts in a source that may name something."""
    nodes = ast.walk(ast.parse(source))
    return frozenset(n.value for n in nodes if isinstance(n, ast.Constant) and isinstance(n.value, str))


@functools.cache
def _origins(source: bytes) -> dict[str, tuple[str, str]]:
    """Where a registry imports its names from: module and name there."""
    return {
        alias.asname or alias.name: (node.module, alias.name)
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.ImportFrom) and node.module and not node.level
        for alias in node.names
    }


@functools.cache
def _meaning(source: bytes) -> str:
    tree = ast.parse(source)
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        if isinstance(body, list) and body and _is_text(body[0]):
            del body[0]
    return _plain(tree)


def _plain(node: Any) -> str:
    """A syntax tree as text, without what is empty: versions of Python differ in that."""
    if isinstance(node, list):
        return f"[{','.join(map(_plain, node))}]"
    if not isinstance(node, ast.AST):
        return repr(node)
    fields = [f"{name}={_plain(value)}" for name, value in ast.iter_fields(node) if value not in (None, [])]
    return f"{type(node).__name__}({','.join(fields)})"


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


def _git(*arguments: str) -> str:
    return subprocess.run(
        ["git", *arguments], cwd=SOURCE, check=True, capture_output=True, text=True
    ).stdout.strip()


@functools.cache
def versions() -> dict[str, str]:
    packages = {name: metadata.version(name) for name in ("torch", "numpy")}
    return {"python": platform.python_version(), "mindgap": __version__, **packages}

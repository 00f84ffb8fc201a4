"""sensitivity: one experiment per variant of reports/sensitivity/variants.yaml, queued, then collected.

Experiments live in git refs that a clone or a push does not carry. So what they found is copied to files of
git, checked as a report checks its curves, and only if their parameters are the ones that were asked for.
"""

import json
import re
import subprocess
import sys
from collections.abc import Mapping, Sequence
from itertools import combinations, product
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from mindgap.base.errors import MindGapError
from mindgap.core.digest import inside_git
from mindgap.core.params import Params, check_params, load_params
from mindgap.core.records import write_atomically
from mindgap.results.curves import Selection, read_curves
from mindgap.results.provenance import flat, read_origins
from mindgap.results.sensitivity import VARIANTS, Variants, collected_json, read_sensitivity, read_variants
from mindgap.stages.paths import SENSITIVITY
from mindgap.stages.plan import overridden

# What an experiment's copy of the project is made of must be known to git.
COPIED = ("src", "reports/expectations", "dvc.yaml", "params.yaml")


class SensitivityError(MindGapError):
    """A variant cannot be queued or collected; the message names it and the mend."""


def queue_stage(keys: Sequence[str] = (), force: bool = False) -> None:
    """Queue the experiments of these variants, or of all, once every variant was checked.

    An experiment that is there already, queued or done, is an error; `force` removes it.
    """
    variants = read_variants(SENSITIVITY / VARIANTS)
    strange = [key for key in keys if key not in variants.keys]
    if strange:
        raise SensitivityError(f"unknown variant {', '.join(strange)}; known: {', '.join(variants.keys)}")
    check_variants(variants)
    keys = [key for key in variants.keys if not keys or key in keys]
    _check_copied()
    _make_room(keys, force)
    for key in keys:
        changes = [part for one in variants.overrides(key) for part in ("-S", one)]
        _dvc("exp", "run", "--queue", "-n", name_of(key), *changes)
        print(f"queued {name_of(key)}", flush=True)
    print("start them: dvc queue start; watch: dvc queue status; then: mindgap sensitivity collect")


def collect_stage() -> None:
    """Copy curves and provenance of all variants' experiments to reports/sensitivity, each if it is sound.

    What was collected before stays where an experiment is gone or at fault; faults are one error at the end.
    """
    variants = read_variants(SENSITIVITY / VARIANTS)
    commits, faults = _experiments(), []
    states = _queue() if any(name_of(key) not in commits for key in variants.keys) else []
    for key in variants.keys:
        name, path = name_of(key), SENSITIVITY / f"{key}.csv"
        if name in commits:
            try:
                _collect(key, commits[name], variants.overrides(key))
                print(f"{path}: collected", flush=True)
            except MindGapError as error:
                faults.append(f"{name}: {error}; queue it anew: mindgap sensitivity queue --force {key}")
        elif path.exists():
            print(f"{path}: kept as it is, {_lacking(name, states)}", flush=True)
        else:
            faults.append(f"{_lacking(name, states)}; queue it: mindgap sensitivity queue {key}")
    if faults:
        raise SensitivityError(
            f"{len(faults)} of {len(variants.keys)} variants were not collected:\n" + "\n".join(faults)
        )
    read_sensitivity(SENSITIVITY)  # that they belong together


def name_of(key: str) -> str:
    """The experiment of a variant."""
    return f"sensitivity-{key}"


def check_variants(variants: Variants) -> None:
    """Every variant can be run, and no two are the same."""
    params = {}
    for key in variants.keys:
        try:
            params[key] = overridden(variants.overrides(key))
            check_params(params[key])
        except MindGapError as error:
            raise SensitivityError(f"{SENSITIVITY / VARIANTS}: {key}: {error}") from error
    for one, other in combinations(params, 2):
        if _asked(params[one]) == _asked(params[other]):
            raise SensitivityError(
                f"{SENSITIVITY / VARIANTS}: {one} and {other} ask for the same: take one out"
            )


def _asked(params: Params) -> list[Any]:
    """What the runs of an experiment are made with, in which a recipe wins over `training`."""
    scale, runs = params.at_scale, product(params.dataset, params.regime)
    data = [scale.render, scale.model, *(scale.prepare.get(dataset) for dataset in params.dataset)]
    return [params.model_dump(exclude={"scales"}), *data, *(params.setting(*run) for run in runs)]


def _check_copied() -> None:
    """DVC copies what git knows: a module that is not added would be missing in every experiment."""
    unknown = _git("ls-files", "--others", "--exclude-standard", *COPIED).splitlines()
    if unknown:
        raise SensitivityError(
            f"git does not know {', '.join(unknown)}: experiments run in copies without it; git add it first"
        )


def _make_room(keys: Sequence[str], force: bool) -> None:
    """No experiment or task of these names is there, or with `force` no longer."""
    names = [name_of(key) for key in keys]
    refs = [ref for ref, _ in _refs() if ref.rsplit("/", 1)[1] in names]
    tasks = [(task, name) for task, name, _ in _queue() if name in names]
    there = sorted({ref.rsplit("/", 1)[1] for ref in refs} | {name for _, name in tasks})
    if there and not force:
        raise SensitivityError(
            f"{', '.join(there)}: there already, done or in the queue. Queue the others by name (mindgap "
            f"sensitivity queue <key> ...), or remove these: dvc exp remove {' '.join(there)}, or --force"
        )
    if refs:
        _dvc("exp", "remove", *refs)
    if tasks:
        _dvc("queue", "remove", *(task for task, _ in tasks))


def _collect(key: str, commit: str, overrides: Sequence[str]) -> None:
    """Check the experiment at a commit, then write its curves and provenance as the files of a variant."""
    asked = overridden(overrides)
    with TemporaryDirectory() as folder:
        try:
            curves, provenance = _checked(Path(folder), commit, asked)
        except MindGapError as error:
            raise SensitivityError(str(error).replace(f"{folder}/", "")) from error
    write_atomically(SENSITIVITY / f"{key}.csv", curves)
    write_atomically(SENSITIVITY / f"{key}.json", collected_json(overrides, curves, provenance).encode())


def _checked(folder: Path, commit: str, asked: Params) -> tuple[bytes, list[dict]]:
    """The curves of an experiment as one table, and the provenance of each of its files."""
    made = load_params(_extract(folder, commit, "params.yaml"))
    differences = _differences(_settings(made), _settings(asked))
    if differences:
        raise SensitivityError(f"it was made with other parameters: {'; '.join(differences)}")
    names = [f"{dataset}-{regime}" for dataset, regime in product(asked.dataset, asked.regime)]
    files = [_extract(folder, commit, f"reports/curves/{name}.csv") for name in names]
    origins = [_extract(folder, commit, f"reports/provenance/{name}.json") for name in names]
    selection = Selection(
        asked.scale, asked.dataset, asked.regime, asked.query, asked.mitigation, asked.seeds
    )
    frame = read_curves(folder / "reports/curves", selection)
    read_origins(folder / "reports/provenance", frame, selection)
    header, *_ = files[0].read_text().splitlines(keepends=True)
    curves = header + "".join(path.read_text().removeprefix(header) for path in files)
    return curves.encode(), [json.loads(path.read_text()) for path in origins]


def _extract(folder: Path, commit: str, file: str) -> Path:
    """A file of an experiment's commit, written below the folder."""
    path = folder / file
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(_git("show", f"{commit}:./{file}"), newline="\n")
    return path


def _settings(params: Params) -> dict[str, Any]:
    """All parameters that a number of the experiment may depend on, by their names in params.yaml."""
    dump = params.model_dump(exclude={"published", "scales"})
    scale = params.at_scale.model_dump()
    for name in ("prepare", "recipe", "budget"):
        scale[name] = {dataset: scale[name].get(dataset) for dataset in params.dataset}
    return flat({**dump, "scales": {params.scale: scale}})


def _differences(made: Mapping[str, Any], asked: Mapping[str, Any]) -> list[str]:
    keys = [key for key in {**asked, **made} if made.get(key) != asked.get(key)]
    return [f"{key} was {made.get(key)}, {asked.get(key)} is asked for" for key in keys]


def _experiments() -> dict[str, str]:
    """The commit of every experiment by its name; of those of several baselines the newest."""
    newest_last = reversed(_refs())
    return {ref.rsplit("/", 1)[1]: commit for ref, commit in newest_last}


def _refs() -> list[tuple[str, str]]:
    """Refs and commits of all experiments, the newest first: refs/exps/<baseline, in two parts>/<name>."""
    form = "--format=%(refname) %(objectname)"
    lines = _git("for-each-ref", "--sort=-committerdate", form, "refs/exps").splitlines()
    pairs = [tuple(line.split()) for line in lines]
    return [(ref, commit) for ref, commit in pairs if re.match(r"refs/exps/[0-9a-f]{2}/[0-9a-f]{38}/", ref)]


def _queue() -> list[tuple[str, str, str]]:
    """Task, name and state (Queued, Running, Failed, Success) of what `dvc queue status` lists."""
    rows = re.findall(r"^([0-9a-f]{7}) +(\S+) .* (\w+) *$", _dvc("queue", "status"), re.MULTILINE)
    return [(task, name, state) for task, name, state in rows]


def _lacking(name: str, states: Sequence[tuple[str, str, str]]) -> str:
    """Why there is no experiment of that name, as far as the queue knows."""
    state = next((state for _, one, state in states if one == name), None)
    if state == "Failed":
        return f"{name} failed (dvc queue logs {name})"
    if state in ("Queued", "Running"):
        return f"{name} is {state.lower()} (dvc queue start, dvc queue status)"
    return f"there is no experiment {name}"


def _git(*arguments: str) -> str:
    if not inside_git():
        raise SensitivityError(
            "experiments are kept in git, and this is no git checkout: `git init && git add -A && git commit "
            "-m start` makes it one"
        )
    return _run(["git", *arguments])


def _dvc(*arguments: str) -> str:
    return _run([sys.executable, "-m", "dvc", *arguments])


def _run(command: Sequence[str]) -> str:
    """What a command printed; one that fails is an error that ends in its own words."""
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        shown = " ".join(command).replace(f"{sys.executable} -m ", "")
        raise SensitivityError(f"`{shown}` failed: {done.stderr.strip() or done.stdout.strip()}")
    return done.stdout

"""Whether runs are what their scale's name says: their recorded settings against the scales' definitions.

An override (`dvc exp run -S`) changes params.yaml itself, so that file cannot say what a scale is. The
definitions lie with what else is expected of results, in FILE; a test holds it to the params.yaml that is
shipped. After a default was changed on purpose, write it anew: `python -m mindgap.results.scales`.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from functools import cache
from itertools import product
from pathlib import Path
from typing import Any

import yaml

from mindgap.base.settings import defaults
from mindgap.core.asked import pairing_asked, source_settings
from mindgap.core.params import Params, load_params
from mindgap.data import RENDERED
from mindgap.data.storage import OLDER
from mindgap.results.curves import Selection
from mindgap.results.names import NOT_RECORDED, dataset_name, method_name, mitigation_name
from mindgap.results.provenance import Origin
from mindgap.results.reading import read_text

FILE = Path("reports/expectations/scales.yaml")
OF_MACHINE = ("fetch",)  # settings of a dataset that change none of its bytes
# What plug-ins did before they had a setting: records from then lack it.
BEFORE = {"mitigation_settings.moddrop": {"form": "independent"}}

CellName = tuple[str, str, str, str]  # dataset, regime, mitigation, query
SettingBlocks = dict[str, Mapping[str, Any] | None]  # None: nothing is known of a block
AXES: Sequence[tuple[str, Callable[[str], str]]] = (
    ("dataset", dataset_name),
    ("regime", str),
    ("mitigation", mitigation_name),
    ("query", method_name),
)


def changes_of(origins: Sequence[Origin], selection: Selection) -> dict[CellName, list[str]]:
    """How the settings of each cell differ from its scale's, in the order of `selection`; empty for none.

    A change reads "recipe.missing.epochs 12 → 3", a block that the records lack "not recorded: render".
    """
    recorded = {
        (one.dataset, one.regime, *cell): made for one in origins for cell, made in one.settings.items()
    }
    cells = product(selection.datasets, selection.regimes, selection.mitigations, selection.queries)
    wanted = [cell for cell in cells if not selection.there or cell in recorded]
    return {cell: _changes(selection.scale, cell, recorded.get(cell)) for cell in wanted}


def summary_of(changes: Mapping[CellName, Sequence[str]]) -> list[str]:
    """Each change once, and the cells that have it unless all do: "... (Missing; Random)"."""
    cells_of: dict[str, list[CellName]] = {}
    for cell, texts in changes.items():
        for text in texts:
            cells_of.setdefault(text, []).append(cell)
    lines: list[str] = []
    lacking: dict[str, None] = {}
    for text, cells in cells_of.items():
        if text.startswith(NOT_RECORDED):
            lacking |= dict.fromkeys(text.removeprefix(f"{NOT_RECORDED}: ").split(", "))
            continue
        places = []
        for place, (_, name) in enumerate(AXES):
            values = dict.fromkeys(cell[place] for cell in cells)
            named = not set(values).isdisjoint(text.replace(".", " ").split())
            if not named and len(values) < len({cell[place] for cell in changes}):
                places.append(", ".join(map(name, values)))
        lines.append(f"{text} ({'; '.join(places)})" if places else text)
    return lines + ([f"{NOT_RECORDED}: {', '.join(lacking)}"] if lacking else [])


def _changes(scale: str, cell: CellName, recorded: Mapping[str, Any] | None) -> list[str]:
    if recorded is None:
        return [f"{NOT_RECORDED}: all settings"]
    found = _recorded(recorded, cell)
    defined = _defined(scale, cell, found)
    if defined is None:
        return [f"{cell[0]} {cell[1]} is not among what scale {scale} defines"]
    changed, lacking = [], []
    for block, wanted in defined.items():
        if wanted is None:  # a plug-in's, which no scale fixes
            continue
        made = found[block]
        if made is None:
            lacking.append(block)
            continue
        for key in dict.fromkeys([*wanted, *made]):
            if key not in made:
                lacking.append(f"{block}.{key}")
            elif key not in wanted or made[key] != wanted[key]:
                changed.append(f"{block}.{key} {_text(wanted.get(key))} → {_text(made[key])}")
                if (block, key) == ("model", "head_dropout") and 0 in (wanted[key], made[key]):
                    whose = "all" if made[key] else "bald_only"
                    changed[-1] += f", as by model.head_dropout_for: {whose}"
    return changed + ([f"{NOT_RECORDED}: {', '.join(lacking)}"] if lacking else [])


def _text(value: Any) -> str:
    return value if isinstance(value, str) else "–" if value is None else json.dumps(value)


def _blocks(cell: CellName, **parts: Mapping[str, Any] | None) -> SettingBlocks:
    """The settings of a cell by their names in params.yaml, `parts` being the innermost mappings."""
    dataset, regime, mitigation, query = cell
    names = {
        "budget": f"budget.{dataset}.{regime}",
        "recipe": f"recipe.{dataset}",
        "prepare": f"prepare.{dataset}",
        "encoder": "model.encoder",
        "mitigation_settings": f"mitigation_settings.{mitigation}",
        "query_settings": f"query_settings.{query}",
    }
    return {names.get(name, name): part for name, part in parts.items()}


def _recorded(made: Mapping[str, Any], cell: CellName) -> SettingBlocks:
    setting, data = made["setting"], made.get("data", {})
    model, prepare = _model(setting.get("model", {})), prepare_of(cell[0], data)
    found = _blocks(
        cell,
        loop={"start": setting["start"]} if "start" in setting else None,
        training=setting.get("training"),
        model={key: value for key, value in model.items() if key != "encoder"} or None,
        encoder=model.get("encoder"),
        recipe=setting.get("recipe"),
        budget=setting.get("budget"),
        render=data.get("render"),
        prepare=prepare and {key: value for key, value in prepare.items() if key not in OF_MACHINE},
        mitigation_settings=made.get("mitigation_settings"),
        query_settings=made.get("query_settings"),
    )
    return found | {name: {**one, **told} for name, one in BEFORE.items() if (told := found.get(name))}


def prepare_of(dataset: str, data: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """What a dataset's stage was told by the records; of a rendered one also what older ones do not say."""
    told = data.get("prepare")
    return {**OLDER, **told} if told is not None and dataset in RENDERED else told


def _model(recorded: Mapping[str, Any]) -> Mapping[str, Any]:
    """The model's settings in today's form: older records have those of the fusion beside its name."""
    if not isinstance(recorded.get("fusion"), str):
        return recorded
    flat = {key: value for key, value in recorded.items() if key.startswith("fusion_")}
    fusion = {"name": recorded["fusion"], **{k.removeprefix("fusion_"): v for k, v in flat.items()}}
    return {key: value for key, value in recorded.items() if key not in flat} | {"fusion": fusion}


def _defined(scale: str, cell: CellName, found: SettingBlocks) -> SettingBlocks | None:
    """None for what FILE does not define: another scale or dataset than those shipped.

    `found` is recorded: encoders of kinds of modalities that the dataset lacks change nothing.
    """
    dataset, regime, mitigation, query = cell
    table = definitions()
    one = table["scales"].get(scale, {})
    if regime not in one.get("budget", {}).get(dataset, {}):
        return None
    recipes = one["recipe"][dataset]
    recipe = recipes.get(regime) or recipes["all"]
    own_training = {key: value for key, value in recipe.items() if key in one["training"]}
    return _blocks(
        cell,
        loop=table["loop"],
        training={**one["training"], **own_training},
        model=_defined_model(one["model"], query, found["model"] or {}),
        encoder={k: value for k, value in one["encoder"].items() if k in (found["model.encoder"] or {})},
        recipe={key: value for key, value in recipe.items() if key not in own_training},
        budget=one["budget"][dataset][regime],
        render=one["render"] if dataset in RENDERED else None,
        prepare=one["prepare"][dataset],
        mitigation_settings=table["mitigation_settings"].get(mitigation),
        query_settings=table["query_settings"].get(query),
    )


def _defined_model(model: Mapping[str, Any], query: str, found: Mapping[str, Any]) -> dict[str, Any]:
    """The model of a query method's runs: `head_dropout_for` says which have dropout. Of a method that
    FILE does not know, the record says whether it needs it.
    """
    table, rate = definitions(), model["head_dropout"]
    needs_it = query in table["needs_dropout"]
    if query not in table["query_settings"]:
        needs_it = found.get("head_dropout") != 0
    has_it = needs_it or model["head_dropout_for"] == "all"
    settings = {key: value for key, value in model.items() if key != "head_dropout_for"}
    return settings | {"head_dropout": rate if has_it else 0.0}


@cache
def definitions() -> dict[str, Any]:
    """What FILE says; see `table_of`."""
    table: dict[str, Any] = yaml.safe_load(read_text(FILE, f"it is in git: git checkout -- {FILE}"))
    return table


def table_of(params: Params) -> dict[str, Any]:
    """The definitions that parameters make of the scales, with all defaults of the code filled in."""
    # Reports are made without torch.
    from mindgap.parts.mitigations import MITIGATIONS
    from mindgap.parts.query import METHODS
    from mindgap.parts.query.select import hyperparameters

    scales = {}
    for name, scale in params.scales.items():
        of_scale = params.model_copy(update={"scale": name})
        model = scale.model.model_dump()
        scales[name] = {
            "render": scale.render.model_dump(),
            "training": scale.training.model_dump(),
            "encoder": model.pop("encoder"),
            "model": model,
            "prepare": {dataset: _prepare(of_scale, dataset) for dataset in scale.prepare},
            **scale.model_dump(include={"recipe", "budget"}, exclude_none=True),
        }
    settings = {
        "mitigation_settings": {name: defaults(one, 0) for name, one in MITIGATIONS.ours.items()},
        "query_settings": {name: hyperparameters(name) for name in METHODS.ours},
    }
    for block, plug_ins in settings.items():
        settings[block] = {name: one | getattr(params, block).get(name, {}) for name, one in plug_ins.items()}
    needs_dropout = [name for name, method in METHODS.ours.items() if method.dropout]
    table = {"loop": params.loop.model_dump(), **settings, "needs_dropout": needs_dropout, "scales": scales}
    made: dict[str, Any] = json.loads(json.dumps(table))  # as records have it: no tuples
    return made


def _prepare(params: Params, dataset: str) -> dict[str, Any]:
    if dataset in RENDERED:
        pairing = pairing_asked(params, dataset)
        return {"absence": pairing.absence, "label_values": pairing.label_values, "style": pairing.style}
    settings = asdict(source_settings(params, dataset))
    return {key: value for key, value in settings.items() if key not in OF_MACHINE}


if __name__ == "__main__":
    HEAD = "# What each scale is: params.yaml as shipped. Written by `python -m mindgap.results.scales`."
    made = yaml.safe_dump(table_of(load_params()), sort_keys=False, default_flow_style=None, width=110)
    FILE.write_text(f"{HEAD}\n{made}", encoding="utf-8", newline="\n")

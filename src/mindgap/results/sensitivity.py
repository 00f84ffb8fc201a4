"""Variants: one choice changed at a time, against a default: what the paper leaves open, or fusions.

A seed keys the same random streams in every variant, so differences are taken seed by seed. Compared is the
mean accuracy along the curve, AULC / (N - 1), of the query methods without the controls: on the weak
modality, each other one, and all together.
"""

import hashlib
import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
import pandas as pd
from pydantic import Field
from scipy.stats import kendalltau

from mindgap.core.params import Block, load_block
from mindgap.results.aulc import per_seed, summary, with_roles
from mindgap.results.curves import read_curve_file
from mindgap.results.names import (
    CONTROLS,
    dataset_name,
    method_name,
    mitigation_name,
    subset_title,
)
from mindgap.results.reading import Fault, ReportError, checking, parts_of, read_json, read_text, rows_of

DEFAULT = "default"
VARIANTS = "variants.yaml"

PARTS = ["weak", "strong", "single", "all"]
ASKED = ["question", "value", "is_default"]
WHERE = ["dataset", "mitigation", "regime", "subset", "part"]
NUMBERS = ["n_seeds", "mean", "std", "difference", "difference_std", "difference_ci95"]
TABLE_COLUMNS = [*ASKED, *WHERE, "query", *NUMBERS]
METHODS_COLUMNS = [*ASKED, *WHERE, "n_queries", *NUMBERS, "order", "tau", "same_order"]
LEAD_COLUMNS = [*ASKED, *WHERE, "n_seeds", "lead", "lead_std", "change", "change_std", "change_ci95"]


class Variant(Block):
    """One answer to a question: the value as people read it, and the overrides that make it."""

    question: str
    value: str
    set: list[str] = Field(min_length=1)


class Variants(Block):
    """`questions`: each with the default's value; the variant `default` is `base` alone.

    `title` and `about` are what the page says over the table.
    """

    title: str = "Sensitivity"
    about: str = "How far results depend on what the paper leaves open."
    base: list[str] = Field(min_length=1)
    questions: dict[str, str] = Field(min_length=1)
    variants: dict[str, Variant] = Field(min_length=1)

    @property
    def keys(self) -> list[str]:
        return [DEFAULT, *self.variants]

    def overrides(self, key: str) -> list[str]:
        """The changes of a variant, as `dvc exp run -S` takes them."""
        return self.base + (self.variants[key].set if key != DEFAULT else [])

    def answers(self, question: str) -> dict[str, str]:
        """The variants that answer a question, the default first, each with its value."""
        asked = {key: one.value for key, one in self.variants.items() if one.question == question}
        return {DEFAULT: self.questions[question], **asked}


@dataclass(frozen=True)
class Collected:
    """The variants of a folder of reports/: its name, all curves by `variant`, and what was asked."""

    name: str
    curves: pd.DataFrame
    variants: Variants


def run_command(folder: Path) -> str:
    """What runs the variants of a folder of reports/."""
    other = folder.parent.name == "reports" and folder.name != "sensitivity"
    return f"mindgap sensitivity run{f' --folder {folder}' * other}"


def mend_of(key: str, folder: Path) -> str:
    """What to do about a variant whose results are not what they should be."""
    return f"run `{run_command(folder)} {key}`"


def read_variants(path: Path) -> Variants:
    """What variants.yaml asks; what cannot be meant is a ReportError or a ParamsError that names the key."""
    variants = load_block(path, Variants)
    for key, one in variants.variants.items():
        _check_variant(f"{path}: variants.{key}", key, one, variants)
    for question in variants.questions:
        values = list(variants.answers(question).values())
        if len(values) == 1 or len(set(values)) < len(values):
            raise ReportError(
                f"{path}: {question!r} has the values {', '.join(values)}: give it two or more, each once"
            )
    return variants


def _check_variant(where: str, key: str, one: Variant, variants: Variants) -> None:
    if key == DEFAULT:
        raise ReportError(f"{where}: the default is `base` alone; take it out")
    if not re.fullmatch(r"[a-z0-9]+([-._][a-z0-9]+)*", key):
        raise ReportError(
            f"{where}: this names files: lower-case letters and digits, with single - . _ between"
        )
    if one.question not in variants.questions:
        known = ", ".join(variants.questions)
        raise ReportError(f"{where}: unknown question {one.question!r}; known in questions: {known}")


def read_sensitivity(folder: Path) -> pd.DataFrame | None:
    """The curves of all variants that were collected, with the column `variant`; None if there are none.

    Raises ReportError where a file is not as it was collected, or not what variants.yaml asks for.
    """
    folder = Path(folder)
    files = sorted(folder.glob("*.csv"))
    if not files:
        return None
    variants = read_variants(folder / VARIANTS)
    for path in files:
        if path.stem not in variants.keys:
            raise ReportError(f"{path} is of no variant in {folder / VARIANTS}; remove it and its .json")
    if not (folder / f"{DEFAULT}.csv").exists():
        raise ReportError(
            f"{folder / DEFAULT}.csv is not there, the reference of all others; {mend_of(DEFAULT, folder)}"
        )
    found = [key for key in variants.keys if (folder / f"{key}.csv").exists()]
    _check_code(folder, {key: _read_code(folder / f"{key}.json", variants.overrides(key)) for key in found})
    return pd.concat(
        [read_curve_file(folder / f"{key}.csv").assign(variant=key) for key in found], ignore_index=True
    )


def read_collected(folder: Path) -> Collected | None:
    """As `read_sensitivity`, together with what variants.yaml asks."""
    curves = read_sensitivity(folder)
    return None if curves is None else Collected(folder.name, curves, read_variants(folder / VARIANTS))


def collected_json(
    overrides: Sequence[str], curves: bytes, provenance: Iterable[Mapping[str, Any]], loop: str = ""
) -> str:
    """What lies beside a variant's curves: how they were asked for, their checksum, where they come from.

    `loop`: the digest of the code of the numerics without the fusion's, where it is known.
    """
    made: dict[str, dict[str, Any]] = {"runs": {}, "settings": {}}
    for one in provenance:
        for name, values in made.items():
            values.update(one[name])
    told = {"curves": hashlib.sha256(curves).hexdigest(), "set": list(overrides)}
    told |= {"loop": loop} if loop else {}
    return json.dumps({**made, **told}, indent=1, sort_keys=True) + "\n"


@dataclass(frozen=True)
class Code:
    """Of a run: digests of the code of its numerics, and of that without its fusion's (empty: not known)."""

    fusion: str
    numerics: str
    loop: str


def _read_code(path: Path, overrides: Sequence[str]) -> dict[str, Code]:
    """The code of each run of a variant; the files beside it are checked."""
    curves, mend = path.with_suffix(".csv"), mend_of(path.stem, path.parent)
    made = read_json(path, mend)
    with checking(path, mend):
        try:
            checksum, asked = made["curves"], [str(one) for one in made["set"]]
            loop = str(made.get("loop", ""))
            code = {
                run: Code(fusion_of(made["settings"], told), str(told["numerics"]), loop)
                for run, told in made["runs"].items()
            }
        except (KeyError, TypeError, AttributeError) as error:
            raise Fault(f" is no record of provenance ({error!r})") from error
    with checking(curves, mend):
        if hashlib.sha256(read_text(curves, mend).encode()).hexdigest() != checksum:
            raise Fault(" was changed after it was collected")
        if asked != list(overrides):
            wanted = f"{VARIANTS} asks for `{' '.join(overrides)}`"
            raise Fault(f" was made with `{' '.join(asked)}`, but {wanted}")
    return code


def fusion_of(settings: Mapping[str, Any], told: Mapping[str, Any]) -> str:
    """The name of a run's fusion, by its settings; older records may lack them."""
    made = settings.get(told.get("settings", ""), {})
    return str(made.get("setting", {}).get("model", {}).get("fusion", {}).get("name", ""))


def _check_code(folder: Path, code: Mapping[str, Mapping[str, Code]]) -> None:
    """A difference between variants is the parameter's only if the code of the numerics is one.

    A fusion's own code is part of it. So runs of one fusion share all of it, those of two the rest.
    """
    runs = [(key, run, one) for key, of_key in code.items() for run, one in of_key.items()]
    first: dict[str, tuple[str, Code]] = {}
    for key, run, one in runs:
        beside, other = first.setdefault(one.fusion, (key, one))
        ours, theirs = one.numerics, other.numerics
        if ours == theirs and one.fusion != runs[0][2].fusion:
            beside, other = runs[0][0], runs[0][2]
            ours, theirs = one.loop, other.loop
        if ours != theirs or not ours:
            ours, theirs = ours[:12] or "not known", theirs[:12] or "not known"
            raise ReportError(
                f"{folder / key}.csv: run {run} was made by other code ({ours}) than {beside} ({theirs}), so "
                f"differences need not be the parameter's: run `{run_command(folder)}`"
            )


def sensitivity_table(frame: pd.DataFrame, variants: Variants, weak: Mapping[str, str]) -> pd.DataFrame:
    """Each method under each value: TABLE_COLUMNS, in the order of variants.yaml and of the runs.

    `part` is one of PARTS (`with_roles`; all is joint), `subset` its name. `difference` is to the default,
    paired by seed, with the half width of Student's 95 % interval; NaN for the default itself.
    """
    return _over_seeds(_answers(frame, variants, weak), [*ASKED, *WHERE, "query"])[TABLE_COLUMNS]


def over_methods(frame: pd.DataFrame, variants: Variants, weak: Mapping[str, str]) -> pd.DataFrame:
    """The mean over methods under each value, and whether their order is the default's: METHODS_COLUMNS.

    `order` names the methods from the best mean on; `tau` is Kendall's tau-b to the default's order. With
    three seeds orders are often luck: a tau below 1 says that an order is not safe, not what turned it.
    """
    answers = _answers(frame, variants, weak)
    keys = [*ASKED, *WHERE]
    means = answers.groupby([*keys, "seed"], sort=False, as_index=False)[["accuracy", "reference"]]
    table = _over_seeds(means.agg(fmean), keys)
    orders = _orders(_over_seeds(answers, [*keys, "query"]))
    return table.merge(orders, on=keys, validate="one_to_one")[METHODS_COLUMNS]


def wide_table(methods: pd.DataFrame) -> pd.DataFrame:
    """`over_methods` for a page: a row per value, a column per dataset and part, "0.123 ± 0.004 (+0.010)"."""
    label = methods["dataset"].map(dataset_name)
    for name, names in (("mitigation", mitigation_name), ("regime", str)):
        if methods[name].nunique() > 1:
            label = label + ", " + methods[name].map(names)
    sizes = {name: part["subset"] for name, part in parts_of(methods, "dataset")}
    subsets = [subset_title(s, sizes[d]) for s, d in zip(methods["subset"], methods["dataset"], strict=True)]
    cells = methods.assign(label=label + ": " + subsets, cell=_cells(methods))
    wide = cells.pivot(index=["question", "value"], columns="label", values="cell").fillna("–")
    rows = pd.MultiIndex.from_frame(methods[["question", "value"]].drop_duplicates())
    return wide.reindex(index=rows, columns=cells["label"].unique()).rename_axis(columns=None).reset_index()


def bald_against_random(frame: pd.DataFrame, variants: Variants, weak: Mapping[str, str]) -> pd.DataFrame:
    """By how much BALD leads Random under each value, and the change of the lead: LEAD_COLUMNS.

    All are paired by seed. Asked for the two questions on dropout, told for all. Empty without both methods.
    """
    answers = _answers(frame, variants, weak)
    keys, numbers = [*ASKED, *WHERE], ["accuracy", "reference"]
    bald, random = (
        answers[answers["query"] == query].set_index([*keys, "seed"])[numbers] for query in ("bald", "random")
    )
    lead = (bald - random).reindex(bald.index).dropna(subset="accuracy").reset_index()
    names = {"mean": "lead", "std": "lead_std"}
    names |= {name: name.replace("difference", "change") for name in NUMBERS if "difference" in name}
    return _over_seeds(lead, keys).rename(columns=names)[LEAD_COLUMNS]


def sentences(methods: pd.DataFrame) -> list[str]:
    """What each question came to, in a sentence each: the largest change, and how often the order changed."""
    changed = methods[~methods["is_default"]]
    return [_sentence(question, part) for question, part in parts_of(changed, "question")]


def _sentence(question: str, part: pd.DataFrame) -> str:
    top = part.iloc[int(part["difference"].abs().argmax())]
    beyond = int((part["difference"].abs() > part["difference_ci95"]).sum())
    sizes = part.loc[part["dataset"] == top["dataset"], "subset"]
    subset = subset_title(top["subset"], sizes)
    text = (
        f"{question[0].upper()}{question[1:]}: the mean over methods changes most by "
        f"{_signed(top['difference'])} ({top['value']}; {dataset_name(top['dataset'])}, {subset}), beyond "
        f"the 95 % interval over seeds in {beyond} of {len(part)} cells"
    )
    ordered = part[part["n_queries"] > 1]
    if ordered.empty:
        return f"{text}."
    return f"{text}; the order of methods differs in {int((~ordered['same_order']).sum())} of {len(ordered)}."


# Rows of one seed: the answers to every question, each beside the default's run of that seed.


def _answers(frame: pd.DataFrame, variants: Variants, weak: Mapping[str, str]) -> pd.DataFrame:
    """ASKED, WHERE, query, seed, accuracy and reference; the default answers every question."""
    accuracies = _accuracies(frame, weak)
    keys = [*WHERE, "query", "seed"]
    reference = accuracies.loc[accuracies["variant"] == DEFAULT, [*keys, "accuracy"]]
    paired = accuracies.merge(
        reference.rename(columns={"accuracy": "reference"}), "left", on=keys, validate="many_to_one"
    )
    alone = paired[paired["reference"].isna()]
    if len(alone):
        one = alone.iloc[0]
        names = ", ".join([*one[[*WHERE[:4], "query"]], f"seed {one['seed']}"])
        raise ReportError(
            f"{one['variant']} has a run that {DEFAULT} lacks ({names}): collect {DEFAULT} with it"
        )
    parts = []
    for question in variants.questions:
        for key, value in variants.answers(question).items():
            part = paired[paired["variant"] == key]
            parts.append(part.assign(question=question, value=value, is_default=key == DEFAULT))
    # A question of which no variant was collected has nothing to say.
    answers = pd.concat(parts, ignore_index=True)
    return answers[~answers.groupby("question")["is_default"].transform("all")].reset_index(drop=True)


def _accuracies(frame: pd.DataFrame, weak: Mapping[str, str]) -> pd.DataFrame:
    """Mean accuracy along the curve of every variant, cell, seed and part."""
    curves = with_roles(frame[~frame["query"].isin(CONTROLS)], weak)
    curves = curves.assign(part=curves["role"].replace("joint", "all"))
    parts = [
        per_seed(part).assign(variant=variant, part=name)
        for (variant, name), part in parts_of(curves, ["variant", "part"])
    ]
    areas = pd.concat(parts, ignore_index=True)
    areas["accuracy"] = areas["aulc"] / (areas["rounds"] - 1)
    # Of each variant dataset by dataset, the weak modality before all of them.
    order = {name: list(areas[name].unique()) for name in ("variant", "dataset", "mitigation", "regime")}
    order["part"] = PARTS
    keys = [areas[name].map(order[name].index) for name in reversed(order)]
    return areas.iloc[np.lexsort(keys)][["variant", *WHERE, "query", "seed", "accuracy"]]


def _over_seeds(rows: pd.DataFrame, keys: Sequence[str]) -> pd.DataFrame:
    """Mean and spread over seeds of the accuracy and of its difference to the reference: NUMBERS."""
    table = []
    for key, part in rows.groupby(list(keys), sort=False):
        mean, std, _ = summary(part["accuracy"])
        is_default = part["is_default"].iloc[0]
        change = (math.nan,) * 3 if is_default else summary(part["accuracy"] - part["reference"])
        table.append((*key, len(part), mean, std, *change))
    return pd.DataFrame(table, columns=[*keys, *NUMBERS])


def _orders(table: pd.DataFrame) -> pd.DataFrame:
    """The order of methods by mean under each value, and Kendall's tau to the default's."""
    rows, reference = [], dict[tuple[Any, ...], pd.Series]()
    for key, part in parts_of(table, [*ASKED, *WHERE]):
        one = dict(zip([*ASKED, *WHERE], key, strict=True))
        place, means = key[:1] + key[len(ASKED) :], part.set_index("query")["mean"]
        ours = reference.setdefault(place, means)  # the default comes first
        tau = float(kendalltau(means, ours.reindex(means.index)).statistic) if len(means) > 1 else math.nan
        best_first = means.sort_values(ascending=False, kind="stable").index
        order = " > ".join(method_name(query) for query in best_first)
        same = bool((means.rank() == ours.reindex(means.index).rank()).all())
        rows.append(one | {"n_queries": len(means), "order": order, "tau": tau, "same_order": same})
    return pd.DataFrame(rows)


def _cells(methods: pd.DataFrame) -> list[str]:
    texts = []
    for one in rows_of(methods):
        text = f"{one.mean:.3f}" + ("" if math.isnan(one.std) else f" ± {one.std:.3f}")
        texts.append(text if one.is_default else f"{text} ({_signed(one.difference)})")
    return texts


def _signed(value: float) -> str:
    return f"{round(value, 3) + 0.0:+.3f}"  # no -0.000

"""The whole report from the curves: everything is read and checked before the first file is written."""

import json
import shutil
from collections.abc import Mapping, Sequence
from itertools import product
from pathlib import Path

import pandas as pd

from mindgap.report import figures, tables
from mindgap.report.aulc import tidy
from mindgap.report.curves import Selection, read_curves
from mindgap.report.names import CONTROLS, modalities_of, subset_order
from mindgap.report.page import render_page
from mindgap.report.paper import with_paper


def build_report(curves_dir: Path, out_dir: Path, paper_dir: Path, selection: Selection) -> None:
    """Write tables/, figures/, plots/, metrics.json and index.html under `out_dir`.

    The three folders are emptied first, so that nothing of an older selection is left. Raises ReportError.
    """
    curves = read_curves(curves_dir, selection)
    order = {
        d: subset_order(list(part["subset"].unique())) for d, part in curves.groupby("dataset", sort=False)
    }
    table = with_paper(tidy(curves, order), paper_dir)
    made = all_tables(table, selection)
    out_dir = Path(out_dir)
    for name in ("tables", "figures", "plots"):
        shutil.rmtree(out_dir / name, ignore_errors=True)
        (out_dir / name).mkdir(parents=True)
    for one, (ending, render) in product(made, tables.RENDERERS.items()):
        _write(out_dir / "tables" / f"{one.name}.{ending}", render(one))
    _write(out_dir / "tables" / "aulc.csv", table.to_csv(index=False, lineterminator="\n"))
    _write(
        out_dir / "plots" / "curves.csv",
        plot_points(curves, selection).to_csv(index=False, lineterminator="\n"),
    )
    _write(out_dir / "metrics.json", json.dumps(metrics(table, curves, selection), indent=2) + "\n")
    all_figures(curves, table, order, selection, out_dir / "figures")
    _write(out_dir / "index.html", render_page(curves, table, made, order, selection))


def all_tables(table: pd.DataFrame, selection: Selection) -> list[tables.Table]:
    """Weak modality and ranks first, then each dataset with each mitigation."""
    made = []
    for mitigation in selection.mitigations:
        made += [
            tables.weak_table(table, mitigation, selection),
            tables.rank_table(table, mitigation, selection),
        ]
    for dataset, mitigation in product(selection.datasets, selection.mitigations):
        made.append(tables.dataset_table(table, dataset, mitigation, selection))
    return [one for one in made if one is not None]


def all_figures(
    curves: pd.DataFrame,
    table: pd.DataFrame,
    order: Mapping[str, Sequence[str]],
    selection: Selection,
    folder: Path,
) -> None:
    keys = ["dataset", "regime", "mitigation"]
    areas = dict(iter(table.groupby(keys, sort=False)))
    for key, part in curves.groupby(keys, sort=False):
        subsets, weak = order[key[0]], selection.weak.get(key[0])
        figures.learning_curves(part, subsets, weak, folder / f"curves-{'-'.join(key)}")
        figures.aulc_bars(areas[key], subsets, weak, folder / f"bars-{'-'.join(key)}")


def metrics(table: pd.DataFrame, curves: pd.DataFrame, selection: Selection) -> dict:
    """A few numbers for `dvc exp show`: AULC/(N-1) per dataset, over all query methods but the controls."""
    methods = table[~table["query"].isin(CONTROLS)]
    aulc = {}
    for dataset, part in methods.groupby("dataset", sort=False):
        subsets = {"all": "+".join(modalities_of(list(part["subset"]))), "weak": selection.weak.get(dataset)}
        means = {
            name: part.loc[part["subset"] == subset, "mean_accuracy"] for name, subset in subsets.items()
        }
        aulc[dataset] = {name: round(float(mean.mean()), 4) for name, mean in means.items() if len(mean)}
    return {"aulc": aulc, "runs": int(curves["run"].nunique())}


def plot_points(curves: pd.DataFrame, selection: Selection) -> pd.DataFrame:
    """What `dvc plots` draws: mean accuracy over seeds with all modalities, and on the weak one."""
    modalities = curves.groupby("dataset")["subset"].agg(lambda names: "+".join(modalities_of(list(names))))
    is_all = curves["subset"] == curves["dataset"].map(modalities)
    is_weak = curves["subset"] == curves["dataset"].map(dict(selection.weak))
    shown = pd.concat([curves[is_all].assign(subset="all"), curves[is_weak].assign(subset="weak")])
    keys = ["dataset", "regime", "mitigation", "subset", "query", "labelled"]
    return shown.groupby(keys, sort=False, as_index=False)["balanced_accuracy"].mean()


def _write(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8", newline="\n")

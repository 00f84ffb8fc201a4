"""Our numbers beside all 1032 that the paper publishes: value by value, and whether the patterns agree.

Only runs with scale paper's settings and the paper's number of points on the curve can reproduce a value. All
else is a counterpart: its order of methods may be compared, as shares of the ceiling; values say nothing.
"""

import math
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import kendalltau, spearmanr

from mindgap.results.aulc import MIN_SEEDS
from mindgap.results.errata import DETAIL, PAPER_CELL
from mindgap.results.names import method_name, mitigation_name, scale_name
from mindgap.results.paper import load_paper, mended_paper, paper_rounds, printed_factor, remarks
from mindgap.results.reading import ReportError, parts_of, rows_of

REPRODUCED, NOT_REPRODUCED, NOT_RUN = "reproduced", "not reproduced", "not yet run"
STATUSES = (REPRODUCED, NOT_REPRODUCED, NOT_RUN)
LIMIT = 2.0
# What a printed standard deviation of 0.00 can be at most.
ROUNDING = 0.005

COMPARISON_COLUMNS = [
    *("table", *PAPER_CELL, "printed", "printed_std", "paper_mean", "paper_std"),
    *("scale", "n_seeds", "ours_mean", "ours_std", "difference", "deviations", "status", "why"),
    *("paper_mean_accuracy", "paper_mean_accuracy_std", "ours_mean_accuracy", "ours_mean_accuracy_std"),
    *("remark", "anchor"),
]
SUMMARY_COLUMNS = [
    *("table", "published", "counterparts", "reproduced", "not_reproduced", "not_yet_run"),
    *("median_deviations", "mean_difference", "spearman", "kendall", "columns"),
]
COLUMN = ["dataset", "mitigation", "regime", "subset"]

NOTES = (
    "Reproduced: our mean lies within two standard deviations of the published one, a deviation being the "
    "root of the sum of the squares of both spreads over seeds. That is lenient: means of three runs scatter "
    "less than runs. A spread printed as 0.00 counts as 0.005, the most that it can be.",
    "Only runs with the settings of scale paper and as many points on the curve as the paper's are compared "
    f"by value, from {MIN_SEEDS} seeds on. All others are counterparts: compare the order of methods, not "
    "values.",
    "Where the paper's tables disagree, our value stands against the one taken as right; a remark says so. "
    "GRACE has no public code: GRACE-R, which stands beside it, is a reconstruction.",
    "Spearman's correlation is over the cells of a table, as shares of the ceiling: most of it is how hard a "
    "regime and a subset are. Kendall's tau is of the order of methods within a column (a dataset, "
    "mitigation, regime and subset), averaged over the columns with at least three methods whose gate has "
    "not failed. Neither is tested: of few cells or methods either may be far from 0 by chance.",
)


def compare(table: pd.DataFrame, paper_dir: Path) -> pd.DataFrame:
    """One row for each of the 1032 published values, in the file's order: COMPARISON_COLUMNS.

    `table` is our tidy AULC table, of one scale. `printed` and `printed_std` are the paper's text (partial
    modalities times ten); `paper_mean` and `paper_std` are unscaled, mended where tables disagree, and filled
    from Tables 7 to 16 where a table prints no deviation. `difference` (ours - paper) is NaN unless settings
    and N are the paper's, `deviations` (the same in standard deviations) also for fewer than MIN_SEEDS seeds:
    `status` is "not yet run" then; `why` tells the reason, empty for what is compared. Mean accuracies are
    shares of the ceiling. `n_seeds` is 0 and `scale` (as of `scale_name`) empty without a run.
    """
    frame = _paper_side(paper_dir).merge(_our_side(table), "left", on=PAPER_CELL, validate="many_to_one")
    frame = frame.assign(n_seeds=frame["n_seeds"].fillna(0).astype(int), scale=frame["scale"].fillna(""))
    why = np.array(_reasons(frame, table))
    # The difference of few seeds' mean is known; how many deviations it is, is not.
    comparable = (frame["scale"] == "paper") & (frame["rounds"] == frame["paper_rounds"])
    difference = (frame["ours_mean"] - frame["paper_mean"]).where(comparable)
    deviations: pd.Series = (difference / np.hypot(frame["ours_std"], known_spread(frame))).where(why == "")
    return frame.assign(
        difference=difference,
        deviations=deviations,
        status=statuses(deviations),
        why=why,
        anchor=[anchor(row) for row in rows_of(frame)],
    )[COMPARISON_COLUMNS]


def known_spread(frame: pd.DataFrame) -> pd.Series:
    """The paper's standard deviations, of which one printed as 0.00 is taken for the most that it can be."""
    return pd.Series(np.maximum(frame["paper_std"], ROUNDING / printed_factor(frame)))


def statuses(deviations: pd.Series) -> np.ndarray:
    compared = np.where(deviations.abs() <= LIMIT, REPRODUCED, NOT_REPRODUCED)
    return np.where(deviations.isna(), NOT_RUN, compared)


def anchor(row: Any) -> str:
    """The name of a published value as the target of a link: t11-unique-moddrop-mid-badge-partial."""
    names = [getattr(row, name).replace("+", "-") for name in PAPER_CELL]
    return "-".join([f"t{row.table}", *names])


def _paper_side(paper_dir: Path) -> pd.DataFrame:
    printed, mended = load_paper(paper_dir), mended_paper(paper_dir)
    factor = printed_factor(printed)
    detail = printed[printed["table"] >= DETAIL].set_index(PAPER_CELL)["paper_std"].rename("detail_std")
    std = printed["paper_std"].fillna(printed.join(detail, on=PAPER_CELL)["detail_std"])
    rounds = [paper_rounds(*cell) for cell in zip(printed["dataset"], printed["regime"], strict=True)]
    intervals = np.array(rounds) - 1
    frame = printed.rename(columns={"paper_mean": "printed", "paper_std": "printed_std"}).assign(
        paper_mean=mended["paper_mean"] / factor,
        paper_std=std / factor,
        paper_rounds=rounds,
        # As printed: ten times a value whose ceiling is a tenth is its share of the ceiling.
        paper_mean_accuracy=mended["paper_mean"] / intervals,
        paper_mean_accuracy_std=std / intervals,
    )
    notes = remarks(paper_dir).groupby(["table", *PAPER_CELL])["remark"].agg("; ".join)
    return frame.join(notes, on=["table", *PAPER_CELL]).fillna({"remark": ""})


def _our_side(table: pd.DataFrame) -> pd.DataFrame:
    scales = sorted(set(table["scale"]))
    if len(scales) > 1:
        raise ReportError(f"the AULC table mixes the scales {', '.join(scales)}: compare the runs of one")
    ours = table[[*PAPER_CELL, "scale", "n_seeds", "rounds"]]
    return ours.assign(
        scale=np.array([scale_name(*one) for one in table[["scale", "changed"]].to_numpy()], dtype=object),
        ours_mean=table["aulc_mean"],
        ours_std=table["aulc_std"],
        ours_mean_accuracy=table["aulc_mean"] / table["ceiling_aulc"],
        ours_mean_accuracy_std=table["aulc_std"] / table["ceiling_aulc"],
    )


def _reasons(frame: pd.DataFrame, table: pd.DataFrame) -> list[str]:
    """Why a value is not compared; empty for one that is."""
    order = ["dataset", "regime", "mitigation", "query", "subset"]
    there = {cell[:n] for cell in table[order].itertuples(index=False, name=None) for n in range(1, 6)}
    return [
        _lacking(tuple(getattr(row, name) for name in order), there) or _incomparable(row)
        for row in rows_of(frame)
    ]


def _lacking(cell: tuple[str, ...], there: set[tuple[str, ...]]) -> str:
    """The first of dataset, regime, mitigation, method and subset of which there is no run."""
    _, _, mitigation, query, _ = cell
    lacks = (
        "no run of this dataset",
        "no run in this regime",
        "no run without mitigation" if mitigation == "none" else f"no run with {mitigation_name(mitigation)}",
        f"no run of {method_name(query)}",
        "no such subset in our runs",
    )
    return next((text for n, text in enumerate(lacks, 1) if cell[:n] not in there), "")


def _incomparable(row: Any) -> str:
    if row.scale != "paper":
        return f"counterpart at scale {row.scale}"
    if row.rounds != row.paper_rounds:
        return f"{row.rounds:.0f} points on the curve where the paper has {row.paper_rounds}"
    if row.n_seeds >= MIN_SEEDS:
        return ""
    return f"only {row.n_seeds} seed{'s' * (row.n_seeds > 1)}: a spread needs {MIN_SEEDS}"


def summary(
    comparison: pd.DataFrame, ranks: pd.DataFrame, unranked: Collection[tuple[str, str, str]] = ()
) -> pd.DataFrame:
    """One row per table of the paper, Table 3 (of `rank_sum_comparison`) among them: SUMMARY_COLUMNS.

    `counterparts` have a run of ours at any scale. `median_deviations` (absolute) and `mean_difference`
    (unscaled AULC) are over the compared values; `spearman` and `kendall` over all counterparts, `kendall`
    without the settings (dataset, regime, mitigation) that are `unranked`.
    """
    rows = [
        {"table": int(table)} | _table_summary(part, unranked)
        for table, part in parts_of(comparison, "table", sort=True)
    ]
    rows.append({"table": 3} | _rank_summary(ranks))
    return pd.DataFrame(rows, columns=SUMMARY_COLUMNS).sort_values("table").reset_index(drop=True)


def _table_summary(part: pd.DataFrame, unranked: Collection[tuple[str, str, str]]) -> dict[str, Any]:
    run = part[part["n_seeds"] > 0]
    taus = [
        _correlation(kendalltau, column["ours_mean_accuracy"], column["paper_mean_accuracy"])
        for (dataset, mitigation, regime, _), column in run.groupby(COLUMN, sort=False)
        if (dataset, regime, mitigation) not in unranked
    ]
    differences = part["difference"].dropna().tolist()
    return _counts(part) | {
        "counterparts": len(run),
        "median_deviations": part["deviations"].abs().median(),
        "mean_difference": fmean(differences) if differences else math.nan,
        "spearman": _correlation(spearmanr, run["ours_mean_accuracy"], run["paper_mean_accuracy"]),
        **_averaged(taus),
    }


def _rank_summary(ranks: pd.DataFrame) -> dict[str, Any]:
    run = ranks.dropna(subset=["ours"])
    taus = [
        _correlation(kendalltau, part["ours"], part["paper"]) for _, part in run.groupby("regime", sort=False)
    ]
    return _counts(ranks) | {
        "counterparts": len(run),
        "median_deviations": ranks["deviations"].abs().median(),
        # Zero by construction: the ranks of a column always have one sum.
        "mean_difference": math.nan,
        "spearman": _correlation(spearmanr, run["ours"], run["paper"]),
        **_averaged(taus),
    }


def _counts(part: pd.DataFrame) -> dict[str, int]:
    counts = {status.replace(" ", "_"): int((part["status"] == status).sum()) for status in STATUSES}
    return {"published": len(part)} | counts


def _averaged(taus: Sequence[float]) -> dict[str, Any]:
    known = [tau for tau in taus if not math.isnan(tau)]
    return {"kendall": fmean(known) if known else math.nan, "columns": len(known)}


def _correlation(test: Callable[..., Any], ours: pd.Series, theirs: pd.Series) -> float:
    """Of a test of scipy; NaN unless there are three cells, and two values on either side.

    Kendall's is tau-b: values of the paper that are equal when rounded count for neither order.
    """
    ordered = len(ours) >= 3 and ours.nunique() > 1 and theirs.nunique() > 1
    return float(test(ours, theirs).statistic) if ordered else math.nan

"""The paper's published numbers (data/paper), under our names.

The files hold what is printed. Misprints and the order of tied values are in errata.yaml beside them, and the
factor ten on Unique/partial and Synergy/partial_a, partial_b is taken out wherever numbers leave this module
unless said otherwise.
"""

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pandas as pd

from mindgap.core.records import text_digest
from mindgap.results.aulc import ACCURACY_COLUMNS
from mindgap.results.errata import DETAIL, PAPER_CELL, disagreements, read_errata, remarks_on
from mindgap.results.names import CONTROLS, dataset_name, method_name, mitigation_name
from mindgap.results.reading import ReportError, parts_of, read_text, rows_of

# By the paper's words, which are those that we show, but for GRACE: it stands beside our GRACE-R.
PAPER_DATASETS = {
    dataset_name(one): one for one in ("missing", "share", "unique", "synergy", "food101", "mimic")
}
PAPER_METHODS = {
    method_name(one): one for one in ("random", "entropy", "bald", "kcenter_greedy", "badge", "bmmal")
}
PAPER_METHODS["GRACE"] = "grace_r"
PAPER_MITIGATIONS = {"yes": "moddrop", "no": "none"}
SUBSETS = {
    "missing": {"Rare": "rare", "Frequent": "frequent", "Both": "rare+frequent"},
    "share": {"CIFAR-10": "cifar10", "MNIST": "mnist", "Both": "cifar10+mnist"},
    "unique": {"Full": "full", "Partial": "partial", "Both": "full+partial"},
    "synergy": {"Partial A": "partial_a", "Partial B": "partial_b", "Both": "partial_a+partial_b"},
    "food101": {"Image": "image", "Text": "text", "Both": "image+text"},
    "mimic": {"ECG": "ecg", "Bloodlabs": "bloodlabs", "Both": "ecg+bloodlabs"},
}
TIMES_TEN = {("unique", "partial"), ("synergy", "partial_a"), ("synergy", "partial_b")}
WEAK = {"missing": "rare", "share": "cifar10", "unique": "partial", "synergy": "partial_b"}
ITALIC = WEAK | {"food101": "image", "mimic": "ecg"}  # what Tables 2 and 4 set in italics: the weak modality
# Tables 2 to 4 show runs with ModDrop where it helps, and Synergy without it (6.1).
SHOWN_WITH = {dataset: "none" if dataset == "synergy" else "moddrop" for dataset in SUBSETS}
REGIMES = ("low", "mid", "high")
PAPER_CLASSES = {"missing": 10, "share": 10, "unique": 100, "synergy": 100, "food101": 101, "mimic": 2}
SEEDS = 3


def not_in_paper(queries: Iterable[str], mitigations: Iterable[str] = ()) -> list[str]:
    """Names of the query methods (controls are none) and mitigations that the paper does not have."""
    methods = [q for q in queries if q not in PAPER_METHODS.values() and q not in CONTROLS]
    others = [m for m in mitigations if m not in PAPER_MITIGATIONS.values()]
    return [*map(method_name, methods), *map(mitigation_name, others)]


# Of the text of each file (`text_digest`): another digit would be as plausible.
DIGESTS = {
    "errata.yaml": "62959621f5c287a45ce81056f54d4238e15f0bfe4f26dbb44c1c16a0e770c445",
    "paper_aulc.csv": "dd8028e30f6d3edec70a284e2922385383e39b528d9df9c422d41c0f0e20e6c2",
    "paper_rank_sums.csv": "af1be3843c7ecba48d5aa7aaba1c509ade79c15de4d4392a0c436626c428f18e",
}


def verify_paper(paper_dir: Path) -> None:
    """Whether the paper's numbers are those that were read from it; a ReportError names the other file."""
    for name, known in DIGESTS.items():
        path = Path(paper_dir) / name
        mend = f"it is in git: git checkout -- {path}"
        found = text_digest(read_text(path, mend))
        if found != known:
            raise ReportError(
                f"{path} is not what was read from the paper; {mend}. After a correction on purpose, "
                f"its digest in mindgap.results.paper.DIGESTS is {found}"
            )


def load_paper(paper_dir: Path) -> pd.DataFrame:
    """All 1032 cells as printed (misprint and factor ten included), under our names.

    `verify_paper` says whether a file is whole; here it is taken to be.
    """
    frame = pd.read_csv(Path(paper_dir) / "paper_aulc.csv", dtype=str)
    frame = frame.astype({"table": int, "aulc_mean": float, "aulc_std": float})
    dataset = frame["dataset"].map(PAPER_DATASETS)
    return pd.DataFrame(
        {
            "table": frame["table"],
            "dataset": dataset,
            "mitigation": frame["moddrop"].map(PAPER_MITIGATIONS),
            "regime": frame["regime"],
            "query": frame["query_method"].map(PAPER_METHODS),
            "subset": [SUBSETS[d][m] for d, m in zip(dataset, frame["modality"], strict=True)],
            "paper_mean": frame["aulc_mean"],
            "paper_std": frame["aulc_std"],
        }
    )


def published_rank_sums(paper_dir: Path) -> pd.DataFrame:
    """Table 3 as printed."""
    frame = pd.read_csv(Path(paper_dir) / "paper_rank_sums.csv")
    query = frame["query_method"].map(PAPER_METHODS)
    return pd.DataFrame(
        {"regime": frame["regime"], "query": query, "rank_sum": frame["rank_sum"].astype(float)}
    )


def misprints(paper_dir: Path) -> pd.DataFrame:
    """Where tables print different means for one cell, and which is right: MISPRINT_COLUMNS, as printed."""
    return disagreements(load_paper(paper_dir), read_errata(paper_dir))


def remarks(paper_dir: Path) -> pd.DataFrame:
    """Misprints, unequal standard deviations and such of 0.00: table, cell, remark."""
    return remarks_on(load_paper(paper_dir), misprints(paper_dir))


def mended_paper(paper_dir: Path) -> pd.DataFrame:
    """As `load_paper`, but where tables disagree all of them have the value that `misprints` takes."""
    frame = load_paper(paper_dir)
    for row in rows_of(disagreements(frame, read_errata(paper_dir))):
        cell = (frame[PAPER_CELL] == [getattr(row, name) for name in PAPER_CELL]).all(axis=1)
        frame.loc[cell, "paper_mean"] = row.taken
    return frame


def published_cells(paper_dir: Path) -> pd.DataFrame:
    """Tables 7 to 16, which have every cell with its standard deviation: not scaled by ten."""
    frame = mended_paper(paper_dir)
    frame = frame[frame["table"] >= DETAIL].drop(columns="table").reset_index(drop=True)
    return frame.assign(**{name: frame[name] / printed_factor(frame) for name in ("paper_mean", "paper_std")})


def printed_factor(frame: pd.DataFrame) -> pd.Series:
    """10 for the rows whose values are printed ten times as large as they are, else 1."""
    scaled = [cell in TIMES_TEN for cell in zip(frame["dataset"], frame["subset"], strict=True)]
    return pd.Series(np.where(scaled, 10.0, 1.0), index=frame.index)


def paper_rounds(dataset: str, regime: str) -> int:
    """Points on a curve of the paper (Table 6)."""
    return 5 if (dataset, regime) == ("food101", "high") else 10


def paper_accuracies(paper_dir: Path) -> pd.DataFrame:
    """Tables 7 to 16 as mean accuracies along the curve: columns as in `mean_accuracies`, 630 rows.

    Values of Table 2's weak modality that tie when rounded are set apart as in `ordered_weak_cells`.
    """
    frame = published_cells(paper_dir)
    shown = (frame["subset"] == frame["dataset"].map(WEAK)) & (
        frame["mitigation"] == frame["dataset"].map(SHOWN_WITH)
    )
    frame.loc[shown, "paper_mean"] -= _order_of_ties(frame[shown], paper_dir) / printed_factor(frame[shown])
    intervals = [paper_rounds(*cell) - 1 for cell in zip(frame["dataset"], frame["regime"], strict=True)]
    return frame.assign(
        n_seeds=SEEDS,
        mean=frame["paper_mean"] / intervals,
        std=frame["paper_std"] / intervals,
        chance=1 / frame["dataset"].map(PAPER_CLASSES),
        ceiling=1 / printed_factor(frame),
    )[ACCURACY_COLUMNS]


def with_paper(table: pd.DataFrame, paper_dir: Path) -> pd.DataFrame:
    """The tidy table with `paper_mean` and `paper_std` where the cell is the paper's: scale, settings, N."""
    merged = table.drop(columns=["paper_mean", "paper_std"]).merge(
        published_cells(paper_dir), "left", on=PAPER_CELL
    )
    rounds = [paper_rounds(*cell) for cell in zip(merged["dataset"], merged["regime"], strict=True)]
    comparable = (merged["scale"] == "paper") & (merged["rounds"] == rounds) & (merged["changed"] == "")
    merged.loc[~comparable, ["paper_mean", "paper_std"]] = float("nan")
    return merged[table.columns.tolist()]


def weak_cells(paper_dir: Path) -> pd.DataFrame:
    """Table 2's weak modality, misprints mended: rows of regime, dataset, query, aulc_mean."""
    weak = weak_of_table2(mended_paper(paper_dir)).rename(columns={"paper_mean": "aulc_mean"})
    return weak[["regime", "dataset", "query", "aulc_mean"]].reset_index(drop=True)


def weak_of_table2(frame: pd.DataFrame) -> pd.DataFrame:
    """The cells of Table 2 that Table 3 ranks."""
    return frame[(frame["table"] == 2) & (frame["subset"] == frame["dataset"].map(WEAK))]


def ordered_weak_cells(paper_dir: Path) -> pd.DataFrame:
    """As `weak_cells`, values that tie when rounded set apart in Table 3's order, by far less than 0.01."""
    weak = weak_cells(paper_dir)
    return weak.assign(aulc_mean=weak["aulc_mean"] - _order_of_ties(weak, paper_dir))


def _order_of_ties(weak: pd.DataFrame, paper_dir: Path) -> pd.Series:
    """What to take off each printed value of Table 2's weak modality so that ties follow Table 3's order."""
    taken = pd.Series(0.0, index=weak.index)
    for (regime, dataset), order in weak_orders(paper_dir).items():
        column = (weak["regime"] == regime) & (weak["dataset"] == dataset)
        taken[column] = weak.loc[column, "query"].map(order.index) * 1e-6
    return taken


def weak_orders(paper_dir: Path) -> dict[tuple[str, str], tuple[str, ...]]:
    """The methods by Table 2's weak modality, the highest first, by (regime, dataset); ties by errata."""
    ties = {(tie["regime"], tie["dataset"]): tie["order"] for tie in read_errata(paper_dir)["ties"]}
    orders: dict[tuple[str, str], tuple[str, ...]] = {}
    for (regime, dataset), column in parts_of(weak_cells(paper_dir), ["regime", "dataset"]):
        place = {query: number for number, query in enumerate(ties.get((regime, dataset), ()))}
        values = zip(-column["aulc_mean"], column["query"].map(place), column["query"], strict=True)
        orders[regime, dataset] = tuple(query for _, _, query in sorted(values))
    return orders

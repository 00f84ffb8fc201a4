"""Table 3 beside our rank sums on the weak modality, with the spread that a rank sum has by its own cells.

Methods that lie close swap ranks from run to run: by the paper's standard deviations its rank sums, which lie
between 6 and 22, would scatter by 2.4 to 3.4. A sum without its spread can be neither reproduced nor refuted.
"""

import math
from collections.abc import Collection
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.stats import norm

from mindgap.results.aulc import rank_sums
from mindgap.results.comparison import NOT_RUN, known_spread, statuses
from mindgap.results.names import dataset_name
from mindgap.results.paper import SEEDS, WEAK, ordered_weak_cells, published_rank_sums
from mindgap.results.tables import ranked_part

RANK_COLUMNS = [
    *("regime", "query", "published", "paper", "paper_spread", "ours", "ours_spread", "difference"),
    *("deviations", "datasets", "methods", "status", "why"),
]
RANK_NOTES = (
    "Rank sums on the weak modality (rank 1 = highest), added over datasets. Beside the published sums, of "
    "four datasets and seven methods, stand the paper's over what we have runs of: ours compare with these. "
    "Synergy is ranked without ModDrop, the others with it, as in the paper's Table 2. The rank sums on the "
    "report's first page are of other runs (one mitigation, all datasets and methods there), so they differ.",
    "The spread of a rank sum is what the spreads over seeds make of it, if each cell's mean were drawn anew "
    "(normal, with its standard error). Reproduced: within two of both spreads together.",
)


def rank_sum_comparison(
    comparison: pd.DataFrame, paper_dir: Path, unranked: Collection[tuple[str, str, str]] = ()
) -> pd.DataFrame:
    """Table 3, 21 rows in the file's order: our rank sums beside the paper's (RANK_COLUMNS).

    `published` is printed. `paper` and `ours` are over the datasets, and the methods (a count), of which we
    have runs with Table 2's mitigation; NaN without any. `deviations` is `difference` (ours - paper) in
    spreads, NaN unless `status` may be told. Runs of `unranked` settings (dataset, regime, mitigation) count
    as not there.
    """
    weak = comparison[(comparison["table"] == 2) & (comparison["subset"] == comparison["dataset"].map(WEAK))]
    settings = zip(weak["dataset"], weak["regime"], weak["mitigation"], strict=True)
    weak = weak.assign(n_seeds=weak["n_seeds"].mask(np.array([one in unranked for one in settings], bool), 0))
    ordered = ordered_weak_cells(paper_dir).rename(columns={"aulc_mean": "paper_value"})
    seeds = weak["n_seeds"].where(weak["n_seeds"] > 0)
    weak = weak.assign(
        paper_error=known_spread(weak) / math.sqrt(SEEDS),
        ours_error=weak["ours_std"] / np.sqrt(seeds),
        ours_value=weak["ours_mean"],
    ).merge(ordered, on=["regime", "dataset", "query"])
    published = published_rank_sums(paper_dir).rename(columns={"rank_sum": "published"})
    parts = [_regime_ranks(weak[weak["regime"] == regime]) for regime in published["regime"].unique()]
    frame = published.merge(pd.concat(parts), on=["regime", "query"])
    difference, spread = frame["ours"] - frame["paper"], np.hypot(frame["paper_spread"], frame["ours_spread"])
    # Methods that lie far apart give sums without a spread: they are the same, or they are not.
    deviations: pd.Series = (difference / np.maximum(spread, 1e-9)).where(frame["why"] == "")
    return frame.assign(difference=difference, deviations=deviations, status=statuses(deviations))[
        RANK_COLUMNS
    ]


def _regime_ranks(weak: pd.DataFrame) -> pd.DataFrame:
    """Both rank sums over the `ranked_part` of our runs of one regime."""
    shared = ranked_part(weak[weak["n_seeds"] > 0].assign(aulc_mean=weak["ours_value"]))
    datasets = list(shared["dataset"].unique())
    rows = weak[["regime", "query"]].drop_duplicates()
    for side in ("paper", "ours"):
        rows = rows.merge(_sums(shared, side), "left", on="query")
    why = [_reason(weak, query) for query in rows["query"]]
    return rows.assign(datasets="+".join(datasets), methods=shared["query"].nunique(), why=why)


def _sums(weak: pd.DataFrame, side: str) -> pd.DataFrame:
    """Rank sum and its spread by query, in columns named by the side."""
    sums = rank_sums(weak.assign(aulc_mean=weak[f"{side}_value"]))[["query", "rank_sum"]]
    variances = dict.fromkeys(sums["query"], 0.0)
    for _, column in weak.groupby("dataset"):
        spreads_M = rank_spreads(column[f"{side}_mean"].to_numpy(), column[f"{side}_error"].to_numpy())
        for query, spread in zip(column["query"], spreads_M, strict=True):
            variances[query] += float(spread) ** 2
    spreads = [math.sqrt(variances[query]) for query in sums["query"]]
    return sums.rename(columns={"rank_sum": side}).assign(**{f"{side}_spread": spreads})


def rank_spreads(means_M: np.ndarray, errors_M: np.ndarray, nodes: int = 400) -> np.ndarray:
    """Standard deviations of the methods' ranks if their values were drawn anew, normal and independent.

    Given one method's value, the others lie above it independently of each other: the variance within and
    between its values, of which `nodes` equally likely ones stand for all (Q).
    """
    errors_M = np.maximum(errors_M, 1e-9)
    x_MQ = means_M[:, None] + errors_M[:, None] * norm.ppf((np.arange(nodes) + 0.5) / nodes)
    above_MMQ = norm.sf((x_MQ[:, None] - means_M[:, None]) / errors_M[:, None])
    above_MMQ[np.diag_indices(len(means_M))] = 0
    within_M = (above_MMQ * (1 - above_MMQ)).sum(axis=1).mean(axis=-1)
    return np.asarray(np.sqrt(within_M + above_MMQ.sum(axis=1).var(axis=-1)))


def _reason(weak: pd.DataFrame, query: str) -> str:
    """What keeps a rank sum from comparison: a value of its method, else one that it is ranked among."""
    lacking = weak[weak["status"] == NOT_RUN]
    if lacking.empty:
        return ""
    own = lacking[lacking["query"] == query]
    row = (own if len(own) else lacking).iloc[0]
    # All datasets of a report have one scale: that needs no dataset's name.
    if row["why"].startswith("counterpart"):
        return str(row["why"])
    return f"{dataset_name(row['dataset'])}: {row['why']}"

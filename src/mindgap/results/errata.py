"""What the paper prints that is not so: data/paper/errata.yaml, held to the tables as printed."""

from pathlib import Path
from typing import Literal

import pandas as pd
from pydantic import Field

from mindgap.core.params import Block, load_block
from mindgap.results.reading import ReportError

PAPER_CELL = ["dataset", "mitigation", "regime", "query", "subset"]
DETAIL = 7  # the first of the tables that print every cell once, with its standard deviation

MISPRINT_COLUMNS = [
    *("table", *PAPER_CELL, "printed", "detail_table", "detail_printed", "wrong", "taken", "verdict"),
]
REMARK_COLUMNS = ["table", *PAPER_CELL, "remark"]


class Misprint(Block):
    """A cell that two tables print differently: the table that is wrong, and the right value."""

    dataset: str
    mitigation: str
    regime: str
    query: str
    subset: str
    wrong: int
    right: float
    verdict: str


class Tie(Block):
    """Methods whose values of Table 2's weak modality are printed alike, from the highest on."""

    regime: Literal["low", "mid", "high"]
    dataset: str
    order: list[str] = Field(min_length=2)


class Errata(Block):
    misprints: list[Misprint]
    ties: list[Tie]

    def order(self, regime: str, dataset: str) -> list[str]:
        """The methods that tie in a column, from the highest on."""
        ties = (tie for tie in self.ties if (tie.regime, tie.dataset) == (regime, dataset))
        return [query for tie in ties for query in tie.order]


def read_errata(paper_dir: Path) -> Errata:
    """The file beside the tables. Raises a ParamsError that names the key which cannot be meant."""
    return load_block(Path(paper_dir) / "errata.yaml", Errata)


def disagreements(frame: pd.DataFrame, errata: Errata, paper_dir: Path) -> pd.DataFrame:
    """The cells of Tables 1, 2 and 4 with another mean in Tables 7 to 16: MISPRINT_COLUMNS, as printed.

    `wrong`: the table with the misprint, `taken`: the value to go on with. Raises a ReportError where the
    tables differ in another cell than the errata say: then they are not the paper's.
    """
    pairs = repeated(frame)
    found = pairs[pairs["printed"] != pairs["detail_printed"]]
    known = pd.DataFrame([one.model_dump() for one in errata.misprints], columns=list(Misprint.model_fields))
    known = known.rename(columns={"right": "taken"})
    both = found.merge(known, "outer", on=PAPER_CELL, indicator=True)
    for row in both[both["_merge"] != "both"].itertuples():
        cell = ", ".join(getattr(row, name) for name in PAPER_CELL)
        raise ReportError(
            f"{Path(paper_dir) / 'paper_aulc.csv'}: the tables differ in {cell} otherwise than errata.yaml "
            f"says: it is not the paper's; both are in git: git checkout -- {paper_dir}"
        )
    return both.astype({"wrong": str})[MISPRINT_COLUMNS]


def repeated(frame: pd.DataFrame) -> pd.DataFrame:
    """Each cell of Tables 1, 2 and 4 beside the same in Tables 7 to 16: 402 rows."""
    names = {"table": "detail_table", "paper_mean": "detail_printed", "paper_std": "detail_std"}
    detail = frame[frame["table"] >= DETAIL].rename(columns=names)
    main = frame[frame["table"] < DETAIL].rename(columns={"paper_mean": "printed", "paper_std": "std"})
    return main.merge(detail, on=PAPER_CELL)


def remarks_on(frame: pd.DataFrame, misprints: pd.DataFrame) -> pd.DataFrame:
    """What a reader of the printed values should know: REMARK_COLUMNS, one row per table and cell."""
    found = [
        (row, f"Table {row.detail_table} prints {row.detail_printed:.2f}; {row.verdict}")
        for row in misprints.itertuples()
    ]
    pairs = repeated(frame).dropna(subset=["std"])
    for row in pairs[pairs["std"] != pairs["detail_std"]].itertuples():
        found.append(
            (row, f"standard deviation {row.std:.2f}; Table {row.detail_table}: {row.detail_std:.2f}")
        )
    for row in frame[frame["paper_std"] == 0].itertuples():
        found.append((row, "standard deviation printed as 0.00: below 0.005, or one run instead of three"))
    rows = [(row.table, *(getattr(row, name) for name in PAPER_CELL), text) for row, text in found]
    return pd.DataFrame(rows, columns=REMARK_COLUMNS)

"""Misprints of the paper: data/paper/errata.yaml, applied to the tables as they are printed."""

from pathlib import Path
from typing import Any

import pandas as pd
import yaml

PAPER_CELL = ["dataset", "mitigation", "regime", "query", "subset"]
DETAIL = 7  # the first of the tables that print every cell once, with its standard deviation

MISPRINT_COLUMNS = [
    *("table", *PAPER_CELL, "printed", "detail_table", "detail_printed", "wrong", "taken", "verdict"),
]
REMARK_COLUMNS = ["table", *PAPER_CELL, "remark"]


def read_errata(paper_dir: Path) -> dict[str, Any]:
    """The file beside the tables, which says what its entries mean: `misprints` and `ties`."""
    errata: dict[str, Any] = yaml.safe_load((Path(paper_dir) / "errata.yaml").read_text(encoding="utf-8"))
    return errata


def disagreements(frame: pd.DataFrame, errata: dict[str, Any]) -> pd.DataFrame:
    """The cells of Tables 1, 2 and 4 with another mean in Tables 7 to 16: MISPRINT_COLUMNS, as printed.

    `wrong`: the table with the misprint, `taken`: the value to go on with.
    """
    pairs = repeated(frame)
    known = pd.DataFrame(errata["misprints"]).rename(columns={"right": "taken"})
    both = pairs[pairs["printed"] != pairs["detail_printed"]].merge(known, on=PAPER_CELL)
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

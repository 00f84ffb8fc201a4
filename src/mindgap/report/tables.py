"""Tables in the paper's layout, as CSV, Markdown and LaTeX: methods down, regimes and subsets across.

Subsets that can reach only a share of the labels (a ceiling under 1) are scaled to fill the same range, as
the paper multiplies its 10 % modalities by ten.
"""

import csv
import io
import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import pandas as pd

from mindgap.report.aulc import rank_sums
from mindgap.report.curves import Selection
from mindgap.report.names import CONTROLS, dataset_name, method_name, mitigation_name, subset_name

CONTROLS_NOTE = "Controls stand below the rule and are no query methods: they are never the best of a column."
ONE_SEED = "“–” after ± : one seed, so the spread is unknown."


@dataclass(frozen=True)
class Column:
    """A column: its group (the regime), its title, whether it is a weak modality, and its scaling factor."""

    group: str
    title: str
    weak: bool = False
    factor: float = 1.0


@dataclass(frozen=True)
class Cell:
    """A number, its spread (NaN: unknown; None: it has none), and whether it is the best of its column."""

    mean: float
    std: float | None
    best: bool = False
    digits: int = 2

    @property
    def text(self) -> str:
        if math.isnan(self.mean):
            return ""
        mean = f"{self.mean:.{self.digits}f}"
        if self.std is None:
            return mean.removesuffix(".0")
        return f"{mean} ± {'–' if math.isnan(self.std) else f'{self.std:.{self.digits}f}'}"


@dataclass(frozen=True)
class Row:
    """A row; `kind` is method, control or paper (the published numbers of the method above)."""

    title: str
    kind: str
    cells: tuple[Cell | None, ...]


@dataclass(frozen=True)
class Table:
    """What all renderings of a table share."""

    name: str
    title: str
    columns: tuple[Column, ...]
    rows: tuple[Row, ...]
    notes: tuple[str, ...] = field(default=())

    @property
    def groups(self) -> list[tuple[str, int]]:
        """The column groups with their widths."""
        names = list(dict.fromkeys(column.group for column in self.columns))
        return [(name, sum(column.group == name for column in self.columns)) for name in names]

    def first_control(self, row: Row) -> bool:
        """Whether the rule is drawn above this row."""
        controls = [r for r in self.rows if r.kind == "control"]
        return bool(controls) and row is controls[0] and row is not self.rows[0]


def dataset_table(tidy: pd.DataFrame, dataset: str, mitigation: str, selection: Selection) -> Table:
    """One of the paper's Tables 7 to 16: a dataset with or without a mitigation."""
    frame = tidy[(tidy["dataset"] == dataset) & (tidy["mitigation"] == mitigation)]
    subsets = frame["subset"].unique().tolist()
    modalities = tuple(max(subsets, key=lambda subset: subset.count("+")).split("+"))
    weak = selection.weak.get(dataset)
    keys, columns = [], []
    for regime in selection.regimes:
        for subset in subsets:
            factor = _factor(frame[(frame["regime"] == regime) & (frame["subset"] == subset)])
            keys.append((dataset, regime, subset))
            columns.append(Column(regime, subset_name(subset, modalities), subset == weak, factor))
    title = f"{dataset_name(dataset)}, {mitigation_name(mitigation)}: AULC on every subset of modalities"
    return _aulc_table(f"{dataset}-{mitigation}", title, frame, keys, columns, selection)


def weak_table(tidy: pd.DataFrame, mitigation: str, selection: Selection) -> Table | None:
    """The weak modality of every dataset that has one (of the paper's Table 2); None without any."""
    frame = weak_rows(tidy, mitigation, selection)
    keys, columns = [], []
    for regime in selection.regimes:
        for dataset in frame["dataset"].unique():
            subset = selection.weak[dataset]
            factor = _factor(frame[(frame["regime"] == regime) & (frame["dataset"] == dataset)])
            keys.append((dataset, regime, subset))
            title = f"{dataset_name(dataset)}: {subset_name(subset, (subset,))}"
            columns.append(Column(regime, title, True, factor))
    if not keys:
        return None
    title = f"The weak modality of each dataset, {mitigation_name(mitigation)}: AULC"
    return _aulc_table(f"weak-{mitigation}", title, frame, keys, columns, selection)


def rank_table(tidy: pd.DataFrame, mitigation: str, selection: Selection) -> Table | None:
    """The paper's Table 3 over our datasets: rank sums on the weak modality, the lower the better."""
    frame = weak_rows(tidy, mitigation, selection)
    frame = frame[~frame["query"].isin(CONTROLS)]
    if frame.empty:
        return None
    sums = rank_sums(frame).pivot(index="query", columns="regime", values="rank_sum")
    best = sums.min()
    rows = []
    for query in frame["query"].unique():
        cells = [
            Cell(sums.at[query, r], None, sums.at[query, r] == best[r], digits=1) for r in selection.regimes
        ]
        rows.append(Row(method_name(query), "method", tuple(cells)))
    names = ", ".join(f"{dataset_name(d)}/{selection.weak[d]}" for d in frame["dataset"].unique())
    columns = tuple(Column("rank sum", regime) for regime in selection.regimes)
    notes = (
        f"Ranks by the unrounded mean AULC on the weak modality (rank 1 = highest), added over {names}: the "
        "lower the better. Exactly equal means share their mean rank. Best per column in bold; controls are "
        "not ranked.",
    )
    title = f"Rank sums on the weak modality, {mitigation_name(mitigation)}"
    return Table(f"rank_sums-{mitigation}", title, columns, tuple(rows), notes)


def weak_rows(tidy: pd.DataFrame, mitigation: str, selection: Selection) -> pd.DataFrame:
    """The rows of `tidy` on each dataset's weak modality."""
    return tidy[
        (tidy["mitigation"] == mitigation) & (tidy["subset"] == tidy["dataset"].map(dict(selection.weak)))
    ]


def _factor(frame: pd.DataFrame) -> float:
    """1 / ceiling: what fills the range 0..N-1."""
    row = frame.iloc[0]
    return float(round((row["rounds"] - 1) / row["ceiling_aulc"], 6))


def _aulc_table(
    name: str,
    title: str,
    frame: pd.DataFrame,
    keys: Sequence[tuple[str, str, str]],
    columns: Sequence[Column],
    selection: Selection,
) -> Table:
    cells = frame.set_index(["query", "dataset", "regime", "subset"])
    methods = [query for query in selection.queries if query not in CONTROLS]
    best = {key: max((cells.at[(q, *key), "aulc_mean"] for q in methods), default=None) for key in keys}
    rows = []
    for query in [*methods, *(q for q in selection.queries if q in CONTROLS)]:
        kind = "method" if query in methods else "control"
        ours, theirs = [], []
        for key, column in zip(keys, columns, strict=True):
            row = cells.loc[(query, *key)]
            top = kind == "method" and row["aulc_mean"] == best[key]
            ours.append(Cell(row["aulc_mean"] * column.factor, row["aulc_std"] * column.factor, top))
            theirs.append(Cell(row["paper_mean"] * column.factor, row["paper_std"] * column.factor))
        rows.append(Row(method_name(query), kind, tuple(ours)))
        if not all(math.isnan(cell.mean) for cell in theirs):
            label = "GRACE, paper" if query == "grace_r" else f"{method_name(query)}, paper"
            rows.append(Row(label, "paper", tuple(theirs)))
    return Table(name, title, tuple(columns), tuple(rows), tuple(_notes(frame, columns, rows, selection)))


def _notes(
    frame: pd.DataFrame, columns: Sequence[Column], rows: Sequence[Row], selection: Selection
) -> list[str]:
    levels = sorted({int(n) for n in frame["rounds"]})
    top = ", ".join(str(n - 1) for n in levels)
    notes = [
        f"Mean ± standard deviation over {len(selection.seeds)} seed{'s' * (len(selection.seeds) > 1)}; "
        f"the curves have N = {', '.join(map(str, levels))} points, so AULC lies in 0..{top}. "
        f"Best method of a column in bold (by unrounded means)."
    ]
    if len(selection.seeds) == 1:
        notes.append(ONE_SEED)
    if any(column.weak for column in columns):
        notes.append("Weak modality in italics.")
    if any(column.factor != 1 for column in columns):
        factors = ", ".join(f"×{f:g}" for f in sorted({c.factor for c in columns if c.factor != 1}))
        notes.append(
            f"Columns marked {factors} cannot reach more than a part of the labels and are scaled by it."
        )
    if any(row.kind == "control" for row in rows):
        notes.append(CONTROLS_NOTE)
    if any(row.kind == "paper" for row in rows):
        notes.append(
            "Rows “paper” repeat the published numbers; GRACE-R is a reconstruction beside its GRACE."
        )
    return notes


def to_csv(table: Table) -> str:
    """Numbers to six digits, scaled as the header says: two columns (mean, std) where there is a spread."""
    spread = any(cell.std is not None for row in table.rows for cell in row.cells)
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    header = ["method", "kind"]
    for column in table.columns:
        name = " ".join([column.group, column.title, *([_times(column)] if column.factor != 1 else [])])
        header += [f"{name} mean", f"{name} std"] if spread else [name]
    writer.writerow(header)
    for row in table.rows:
        line = [row.title, row.kind]
        for cell in row.cells:
            line += [_number(cell.mean), _number(cell.std)] if spread else [_number(cell.mean)]
        writer.writerow(line)
    return file.getvalue()


def _number(value: float | None) -> str:
    return "" if value is None or math.isnan(value) else f"{value:.6f}".rstrip("0").rstrip(".")


def _times(column: Column) -> str:
    return f"×{column.factor:g}"


def to_markdown(table: Table) -> str:
    """A pipe table with the notes below it."""
    header = [""]
    for column in table.columns:
        title = f"*{column.title}*" if column.weak else column.title
        header.append(
            " ".join([f"{column.group}:", title, *([_times(column)] if column.factor != 1 else [])])
        )
    lines = [f"**{table.title}**", "", _pipe(header), _pipe(["---", *["---:"] * len(table.columns)])]
    for row in table.rows:
        if table.first_control(row):
            lines.append(_pipe(["*controls*", *[""] * len(table.columns)]))
        title = f"*{row.title}*" if row.kind == "paper" else row.title
        lines.append(_pipe([title, *(f"**{cell.text}**" if cell.best else cell.text for cell in row.cells)]))
    return "\n".join([*lines, "", *(f"- {note}" for note in table.notes)]) + "\n"


def _pipe(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", r"\|") for cell in cells) + " |"


def to_latex(table: Table) -> str:
    """A table environment; needs \\usepackage{booktabs}."""
    spans, rules, first = [], [], 2
    for group, width in table.groups:
        spans.append(rf"\multicolumn{{{width}}}{{c}}{{{_tex(group)}}}")
        rules.append(rf"\cmidrule(lr){{{first}-{first + width - 1}}}")
        first += width
    titles = []
    for column in table.columns:
        title = rf"\textit{{{_tex(column.title)}}}" if column.weak else _tex(column.title)
        titles.append(rf"{title} $\times${column.factor:g}" if column.factor != 1 else title)
    lines = [
        "% needs \\usepackage{booktabs}",
        r"\begin{table}",
        r"\centering\footnotesize",
        rf"\caption{{{_tex(table.title)}. {_tex(' '.join(table.notes))}}}",
        rf"\label{{tab:{table.name.replace('_', '-')}}}",
        rf"\begin{{tabular}}{{l{'r' * len(table.columns)}}}",
        r"\toprule",
        _amp(["", *spans]),
        " ".join(rules),
        _amp(["", *titles]),
        r"\midrule",
    ]
    for row in table.rows:
        if table.first_control(row):
            lines.append(r"\midrule")
        title = rf"\quad\textit{{{_tex(row.title)}}}" if row.kind == "paper" else _tex(row.title)
        lines.append(
            _amp(
                [
                    title,
                    *(
                        rf"\textbf{{{_tex(cell.text)}}}" if cell.best else _tex(cell.text)
                        for cell in row.cells
                    ),
                ]
            )
        )
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}", r"\end{table}"]) + "\n"


def _amp(cells: Sequence[str]) -> str:
    return " & ".join(cells) + r" \\"


TEX = {
    **{c: f"\\{c}" for c in "&%$#_{}"},
    **{"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"},
    **{"±": r"$\pm$", "×": r"$\times$", "–": "--", "“": "``", "”": "''"},
}


def _tex(text: str) -> str:
    return "".join(TEX.get(letter, letter) for letter in text)


RENDERERS = {"csv": to_csv, "md": to_markdown, "tex": to_latex}

"""The record of what was dropped: for every step of a data stage rows in, rows excluded by reason, rows out.

A flow is a chain per `part` (such as "train images"): a step begins with what the one before it left.
"""

import csv
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

FLOW_COLUMNS = ("part", "step", "reason", "rows_in", "excluded", "repaired", "rows_out")


@dataclass
class Flow:
    """Counts are whole rows of `part`. A repaired row was changed and kept."""

    rows: list[dict] = field(default_factory=list)

    def start(self, part: str, step: str, count: int) -> None:
        """What there was before anything was looked at."""
        self._add(part, step, "", count, 0, 0)

    def step(
        self,
        part: str,
        step: str,
        excluded: Mapping[str, int] | None = None,
        repaired: Mapping[str, int] | None = None,
    ) -> None:
        """One line per reason, also for a count of 0: a reason that never occurred is a finding too."""
        reasons = [(reason, count, 0) for reason, count in (excluded or {}).items()]
        reasons += [(reason, 0, count) for reason, count in (repaired or {}).items()]
        for reason, out, mended in reasons or [("", 0, 0)]:
            self._add(part, step, reason, self.left(part), out, mended)

    def left(self, part: str) -> int:
        """Rows of a part that are still there."""
        for row in reversed(self.rows):
            if row["part"] == part:
                return row["rows_out"]
        raise ValueError(f"flow of {part!r} has no start")

    def _add(self, part: str, step: str, reason: str, rows_in: int, excluded: int, repaired: int) -> None:
        rows_in, excluded, repaired = int(rows_in), int(excluded), int(repaired)
        if not 0 <= excluded <= rows_in:
            raise ValueError(f"{part}, {step}: {excluded} of {rows_in} rows cannot be excluded ({reason})")
        values = (part, step, reason, rows_in, excluded, repaired, rows_in - excluded)
        self.rows.append(dict(zip(FLOW_COLUMNS, values, strict=True)))

    def write(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, FLOW_COLUMNS, lineterminator="\n")
            writer.writeheader()
            writer.writerows(self.rows)

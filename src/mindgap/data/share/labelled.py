"""What the readers of raw image files give back, and the checks that they share."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from mindgap.data.errors import DataError
from mindgap.data.fetch import md5_of


@dataclass(frozen=True)
class LabelledImages:
    """One split: images (uint8, N x H x W x C) and their classes (int64, N), in the order of the files.

    `md5` is that of the files they came from, by name. `excluded` counts by reason what the files held
    besides the images; `repaired` the images that were changed.
    """

    x_NHWC: np.ndarray
    y_N: np.ndarray
    md5: Mapping[str, str]
    excluded: Mapping[str, int] = field(default_factory=dict)
    repaired: Mapping[str, int] = field(default_factory=dict)

    @property
    def seen(self) -> int:
        """How many there were before anything was excluded."""
        return len(self.y_N) + sum(self.excluded.values())


def checked_md5(path: Path, content: bytes, original: str | None, mend: str) -> str:
    """The MD5 of a file's content, which must be the original's unless that is None."""
    found = md5_of(content)
    if original is not None and found != original:
        raise DataError(
            f"{path} is not the original: MD5 {found}, not {original}; {mend}, or set canonical: false to "
            "take another copy"
        )
    return found


def checked_labels(path: Path, y_N: np.ndarray, classes: int) -> np.ndarray:
    """Class ids as int64; DataError where one is none of the classes."""
    wrong = np.flatnonzero((y_N < 0) | (y_N >= classes))
    if len(wrong):
        raise DataError(
            f"{path}: the label of row {wrong[0]} is {y_N[wrong[0]]}, not one of 0..{classes - 1}: "
            "replace the file"
        )
    return y_N.astype(np.int64)

"""What a start set is chosen from, what a choice must return, and the error where it breaks a rule."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor

from mindgap.base.errors import MindGapError
from mindgap.base.modality import Modality


class StartError(MindGapError, ValueError):
    """What chooses start sets broke the contract."""


@dataclass(frozen=True)
class Candidates:
    """The N samples that can be labelled, before there is a model.

    `modalities`: by name, in the order of axis M of `present_NM` (bool). `stored(name, rows)`: a modality of
    the samples at these positions, as it is stored; what is absent is a placeholder and means nothing.
    `oracle_y_N`: their labels, for a `Start` that is an oracle; None for all others.
    """

    modalities: Mapping[str, Modality]
    present_NM: np.ndarray
    stored: Callable[[str, np.ndarray], np.ndarray]
    oracle_y_N: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.present_NM)


@dataclass(frozen=True)
class Start:
    """A function `fn(candidates, n, rng)` of n distinct positions in the candidates; n is at most N.

    `rng` is a numpy generator, the only source of randomness it may use. `oracle`: it sees labels.
    """

    fn: Callable[[Candidates, int, np.random.Generator], np.ndarray]
    oracle: bool = False


def check_start(name: str, rows: Any, n: int, size: int) -> np.ndarray:
    """The positions, sorted, once they are n distinct ones below size; else a StartError."""
    try:
        found = np.asarray(rows.detach().cpu() if isinstance(rows, Tensor) else rows)
    except (TypeError, ValueError):  # ragged
        found = np.array(None)
    fault = ""
    if found.ndim != 1 or found.dtype.kind not in "iu":
        fault = f"{found.dtype} of shape {found.shape}, not a 1-d array of whole numbers"
    elif len(found) != n:
        fault = f"{len(found)} positions, {n} were asked for"
    elif len(outside := found[(found < 0) | (found >= size)]):
        fault = f"positions outside 0..{size - 1}: {outside[:5].tolist()}"
    elif len(np.unique(found)) < n:
        fault = "a position more than once"
    if fault:
        raise StartError(f"start {name!r} returned {fault}: mend its code, or take another start")
    return np.sort(found)

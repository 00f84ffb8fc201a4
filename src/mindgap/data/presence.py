"""Who lacks what: presence masks and the subsets of modalities, for any number of modalities."""

from collections.abc import Iterable, Mapping, Sequence
from itertools import combinations

import numpy as np


def subsets(modalities: Sequence[str]) -> list[tuple[str, ...]]:
    """All non-empty subsets, smaller ones first, each in the dataset's order."""
    return [subset for size in range(1, len(modalities) + 1) for subset in combinations(modalities, size)]


def subset_name(subset: Iterable[str], modalities: Sequence[str]) -> str:
    """A subset's key in every table: its modalities joined with "+" in the dataset's order."""
    subset = set(subset)
    unknown = subset - set(modalities)
    if unknown or not subset:
        raise ValueError(f"no subset of {', '.join(modalities)}: {sorted(subset)}")
    return "+".join(name for name in modalities if name in subset)


def absence_rates(modalities: Sequence[str], absence: Mapping[str, float]) -> np.ndarray:
    """Probability of absence per modality, zero where none is given."""
    for name, rate in absence.items():
        if name not in modalities:
            raise ValueError(f"absence names {name!r}; the modalities are {', '.join(modalities)}")
        if not 0 <= rate <= 1:
            raise ValueError(f"absence of {name} is {rate!r}: make it a probability in 0..1")
    return np.array([absence.get(name, 0.0) for name in modalities])


def draw_presence(size: int, absence_M: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Presence mask (bool, N x M): each modality is absent with its own probability, never all of them.

    Where all would go, one of them, each as likely, is kept (paper, the Missing dataset).
    """
    present_NM = rng.random((size, len(absence_M))) >= absence_M
    empty = np.flatnonzero(~present_NM.any(axis=1))
    present_NM[empty, rng.integers(len(absence_M), size=len(empty))] = True
    return present_NM

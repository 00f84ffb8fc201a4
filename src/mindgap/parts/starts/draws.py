"""Start sets that are drawn."""

import numpy as np

from mindgap.parts.starts.contract import Candidates


def stratified(candidates: Candidates, n: int, rng: np.random.Generator) -> np.ndarray:
    """At random, with equal class counts: it knows the labels of what it draws."""
    assert candidates.oracle_y_N is not None
    return by_class(candidates.oracle_y_N, n, rng)


def random(candidates: Candidates, n: int, rng: np.random.Generator) -> np.ndarray:
    """At random, without a look at labels."""
    return rng.permutation(len(candidates))[:n]


def by_class(y_N: np.ndarray, n: int, rng: np.random.Generator) -> np.ndarray:
    """n positions at random whose class counts differ by at most one while every class has samples."""
    order = rng.permutation(len(y_N))
    # Rank of each sample within its class: taking the lowest ranks first takes the classes in turn. Which
    # classes get the odd ones is random too.
    y = y_N[order]
    turn = np.zeros(len(order), dtype=np.int64)
    for c in np.unique(y):
        turn[y == c] = np.arange((y == c).sum())
    return order[np.lexsort((rng.random(len(order)), turn))[:n]]

"""What each mitigation and each query method does to the weak, the strong and all modalities together.

Numbers are levels (`aulc.level`), the mean along the curve; differences are paired by seed, with Student's
interval, of one cell each and not corrected for their number.
"""

from collections.abc import Mapping

import pandas as pd

from mindgap.results.aulc import levels, paired, spread, with_roles
from mindgap.results.curves import OVER_SEEDS
from mindgap.results.reading import parts_of
from mindgap.results.statistics import BASELINE

PLAIN = "none"
PAIRED = ("n", "difference", "low", "high")
EFFECT_COLUMNS = [
    *(*OVER_SEEDS, "role", "subset", "n_seeds", "level", "std"),
    *(f"{name}_to_{other}" for other in (PLAIN, BASELINE) for name in PAIRED),
]


def effects(seeds: pd.DataFrame, weak: Mapping[str, str]) -> pd.DataFrame:
    """A row per cell and role: EFFECT_COLUMNS. `seeds` is as of `per_seed`.

    `difference_to_none` is to the same query method without mitigation, `difference_to_random` to Random with
    the same mitigation, each over the `n` seeds that both have; NaN where there is no such run.
    """
    runs = {}
    for key, part in parts_of(leveled(seeds, weak), [*OVER_SEEDS, "role", "subset"]):
        runs[key] = part.set_index("seed")["level"].sort_index()
    rows = []
    for key, own in runs.items():
        dataset, regime, mitigation, query, *subset = key
        plain = runs.get((dataset, regime, PLAIN, query, *subset)) if mitigation != PLAIN else None
        random = runs.get((dataset, regime, mitigation, BASELINE, *subset)) if query != BASELINE else None
        numbers = (len(own), own.mean(), spread(own.tolist()))
        rows.append((*key, *numbers, *paired(own, plain), *paired(own, random)))
    return pd.DataFrame(rows, columns=EFFECT_COLUMNS)


def leveled(seeds: pd.DataFrame, weak: Mapping[str, str]) -> pd.DataFrame:
    """Rows of `per_seed` with their role and `level`; those of other subsets are left out."""
    areas = with_roles(seeds, weak)
    return areas.assign(level=levels(areas))

"""Who is labelled and who may be: ids of a training split."""

import numpy as np


class Pool:
    """The unlabelled and the labelled ids of a training split of which some ids are set aside."""

    def __init__(self, size: int, initial_ids: np.ndarray, set_aside_ids: np.ndarray):
        self._free = np.ones(size, dtype=bool)
        self._free[set_aside_ids] = False
        self.labelled_ids = np.zeros(0, dtype=np.int64)
        self.label(initial_ids)

    @property
    def ids(self) -> np.ndarray:
        """Ids of the unlabelled samples, ascending: position p of a view is `ids[p]`."""
        return np.flatnonzero(self._free)

    def label(self, ids: np.ndarray) -> None:
        """Move ids from the pool to the labelled set; one that is not in the pool is an error."""
        ids = np.asarray(ids, dtype=np.int64)
        taken = ids[~self._free[ids]]
        if len(taken) or len(np.unique(ids)) != len(ids):
            raise ValueError(
                f"these ids are not in the pool, or come twice: {taken[:5].tolist() or ids.tolist()}"
            )
        self._free[ids] = False
        self.labelled_ids = np.concatenate([self.labelled_ids, ids])

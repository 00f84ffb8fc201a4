"""A dataset as tensors: what training, querying and evaluation see. The arrays stay as stored (images are
uint8).

Any number of modalities; which of them a sample has is a matrix. N samples, M modalities.
"""

from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from mindgap.data.errors import DataError
from mindgap.data.presence import subset_name, subsets
from mindgap.data.storage import data_digest, digest_of, mend, read_array, read_meta

__all__ = ["DataError", "Dataset", "Split", "data_digest", "load_dataset", "subset_name", "subsets"]


@dataclass(frozen=True)
class Split:
    """The samples of a split. Rows of `x` where `present_NM` is false are placeholders and mean nothing."""

    x: dict[str, Tensor]
    present_NM: Tensor
    y_N: Tensor

    def __len__(self) -> int:
        return len(self.y_N)

    def select(self, ids: Tensor) -> "Split":
        """These samples, in this order."""
        return Split({name: x[ids] for name, x in self.x.items()}, self.present_NM[ids], self.y_N[ids])

    def to(self, device: torch.device | str) -> "Split":
        x = {name: x.to(device) for name, x in self.x.items()}
        return Split(x, self.present_NM.to(device), self.y_N.to(device))


@dataclass(frozen=True)
class Dataset:
    """Two splits and what is known about them; `ceilings` are keyed like `subset_name`."""

    name: str
    modalities: tuple[str, ...]
    shapes: dict[str, tuple[int, ...]]
    weak: str | None
    num_classes: int
    ceilings: dict[str, float]
    train: Split
    test: Split
    digest: str

    @property
    def device(self) -> torch.device:
        return self.train.y_N.device

    def to(self, device: torch.device | str) -> "Dataset":
        return replace(self, train=self.train.to(device), test=self.test.to(device))


def load_dataset(path: Path | str, *, verify: bool = True, device: torch.device | str = "cpu") -> Dataset:
    """The dataset in a folder; a missing, truncated or altered file raises a DataError that names the mend.

    `verify=False` skips the hashes (1 s per 1.5 GB) and still checks shapes, dtypes, presence and labels.
    """
    path = Path(path)
    meta = read_meta(path)
    return Dataset(
        name=meta["dataset"],
        modalities=tuple(meta["modalities"]),
        shapes={name: tuple(modality["shape"]) for name, modality in meta["modalities"].items()},
        weak=meta["weak"],
        num_classes=meta["num_classes"],
        ceilings=meta["ceilings"],
        train=_load_split(path, meta, "train", verify).to(device),
        test=_load_split(path, meta, "test", verify).to(device),
        digest=digest_of(meta),
    )


def _load_split(path: Path, meta: dict, split: str, verify: bool) -> Split:
    def tensor(part: str) -> Tensor:
        return torch.from_numpy(read_array(path, f"{split}.{part}.npy", meta, verify=verify))

    loaded = Split({name: tensor(name) for name in meta["modalities"]}, tensor("present"), tensor("label"))
    if not loaded.present_NM.any(dim=1).all():
        raise DataError(f"{path / split}.present.npy has samples without any modality: {mend(path)}")
    if len(loaded) and not 0 <= int(loaded.y_N.min()) <= int(loaded.y_N.max()) < meta["num_classes"]:
        raise DataError(
            f"{path / split}.label.npy has labels outside 0..{meta['num_classes'] - 1}: {mend(path)}"
        )
    return loaded

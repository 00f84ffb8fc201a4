"""A dataset as tensors: what training, querying and evaluation see. The arrays stay as stored (images are
uint8, signals float16, text token ids).

Any number of modalities; which of them a sample has is a matrix. N samples, M modalities.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from torch import Tensor

from mindgap.base.forms import first_fault
from mindgap.base.modality import Modality
from mindgap.data.errors import DataError, SourceMissing
from mindgap.data.presence import subset_name, subsets
from mindgap.data.storage import (
    SPLITS,
    data_digest,
    mend,
    meta_digest,
    modalities_of,
    read_array,
    read_meta,
    settings_of,
    skipped_line,
)

__all__ = ["DataError", "Dataset", "Split", "data_digest", "load_dataset", "subset_name", "subsets"]


@dataclass(frozen=True)
class Split:
    """The samples of a split. Rows of `x` where `present_NM` is false are placeholders and mean nothing.

    Samples with one number in `group_N` belong together, such as the admissions of a patient: they never lie
    on both sides of labelled pool and validation set. Without groups every sample is its own.
    """

    x: dict[str, Tensor]
    present_NM: Tensor
    y_N: Tensor
    group_N: Tensor | None = None

    def __len__(self) -> int:
        return len(self.y_N)

    @cached_property
    def host_present_NM(self) -> Tensor:
        """The host's own copy, by which it decides without waiting for the device."""
        return self.present_NM.cpu()

    def select(self, ids: Tensor) -> "Split":
        """These samples, in this order."""
        group_N = None if self.group_N is None else self.group_N[ids]
        return Split(
            {name: x[ids] for name, x in self.x.items()}, self.present_NM[ids], self.y_N[ids], group_N
        )

    def to(self, device: torch.device | str) -> "Split":
        x = {name: x.to(device) for name, x in self.x.items()}
        return replace(self, x=x, present_NM=self.present_NM.to(device), y_N=self.y_N.to(device))


@dataclass(frozen=True)
class Dataset:
    """Two splits and what is known about them; `ceilings` are keyed like `subset_name`.

    `settings`: what it was made with (`storage.settings_of`).
    """

    name: str
    modalities: dict[str, Modality]
    weak: str | None
    num_classes: int
    ceilings: dict[str, float]
    train: Split
    test: Split
    digest: str
    settings: Mapping[str, Any] = field(default_factory=dict)

    @property
    def device(self) -> torch.device:
        return self.train.y_N.device

    def to(self, device: torch.device | str) -> "Dataset":
        return replace(self, train=self.train.to(device), test=self.test.to(device))


def load_dataset(path: Path | str, *, verify: bool = True, device: torch.device | str = "cpu") -> Dataset:
    """The dataset in a folder; a missing, truncated or altered file raises a DataError that names the mend.

    On the CPU the arrays stay mapped: all processes of a machine share one copy of what they read.
    `verify=False` skips the hashes (1 s per 1.5 GB) and still checks shapes, dtypes, presence and labels. A
    dataset that was skipped for want of its files raises SourceMissing with the line that says which.
    """
    path = Path(path)
    if (line := skipped_line(path)) is not None and not (path / "meta.json").exists():
        raise SourceMissing(line)
    meta = read_meta(path)
    _check_form(path, meta)
    return Dataset(
        name=meta["dataset"],
        modalities=modalities_of(meta),
        weak=meta["weak"],
        num_classes=meta["num_classes"],
        ceilings=meta["ceilings"],
        train=_load_split(path, meta, "train", verify).to(device),
        test=_load_split(path, meta, "test", verify).to(device),
        digest=meta_digest(meta),
        settings=settings_of(meta),
    )


class _Form(BaseModel):
    model_config = ConfigDict(strict=True)

    dataset: str
    modalities: dict[str, dict[str, Any]] = Field(min_length=1)
    weak: str | None
    num_classes: int
    class_names: list[str]
    ceilings: dict[str, Annotated[float, Field(ge=0, le=1)]]
    sizes: dict[Literal[SPLITS], int]
    grouped: bool
    sha256: dict[str, str]


def _check_form(path: Path, meta: dict) -> None:
    """A DataError where a meta.json with a right checksum is not one that `write_meta` writes."""
    try:
        _Form.model_validate(meta)
        fault = ""
    except ValidationError as error:
        fault = first_fault(error)
    if not fault and meta["num_classes"] != len(meta["class_names"]):
        fault = f"num_classes is {meta['num_classes']}, but there are {len(meta['class_names'])} class_names"
    if not fault and set(meta["sizes"]) != set(SPLITS):
        fault = f"sizes are of {', '.join(meta['sizes'])}, not of {', '.join(SPLITS)}"
    if fault:
        raise DataError(f"{path / 'meta.json'} describes no dataset: {fault}: {mend(path)}")


def _load_split(path: Path, meta: dict, split: str, verify: bool) -> Split:
    def tensor(part: str) -> Tensor:
        return torch.from_numpy(read_array(path, f"{split}.{part}.npy", meta, verify=verify, mmap=True))

    group_N = tensor("group") if meta["grouped"] else None
    x = {name: tensor(name) for name in meta["modalities"]}
    loaded = Split(x, tensor("present"), tensor("label"), group_N)
    if not loaded.present_NM.any(dim=1).all():
        raise DataError(f"{path / split}.present.npy has samples without any modality: {mend(path)}")
    if len(loaded) and not 0 <= int(loaded.y_N.min()) <= int(loaded.y_N.max()) < meta["num_classes"]:
        raise DataError(
            f"{path / split}.label.npy has labels outside 0..{meta['num_classes'] - 1}: {mend(path)}"
        )
    return loaded

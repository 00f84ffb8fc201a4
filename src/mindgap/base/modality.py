"""What a modality is made of: its kind says how it is stored, which encoders read it and what augments it."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

# How each kind is stored. Scaled signals lose nothing in half precision: a recording has fewer levels.
DTYPES: dict[str, np.dtype[Any]] = {
    "image": np.dtype(np.uint8),  # height x width x channels
    "tokens": np.dtype(np.int32),  # token ids, padded with 0 at the end
    "table": np.dtype(np.float32),  # columns, scaled
    "signal": np.dtype(np.float16),  # channels x time, scaled
}


@dataclass(frozen=True)
class Modality:
    """`shape` is that of one sample. `mirrors`: whether augmentation may mirror an image."""

    kind: str
    shape: tuple[int, ...]
    mirrors: bool = True

    def __post_init__(self) -> None:
        if self.kind not in DTYPES:
            raise ValueError(f"unknown kind of modality {self.kind!r}; known: {', '.join(DTYPES)}")

    @property
    def dtype(self) -> np.dtype[Any]:
        return DTYPES[self.kind]

    @classmethod
    def from_meta(cls, meta: Mapping[str, Any]) -> "Modality":
        return cls(meta["kind"], tuple(meta["shape"]), meta.get("mirrors", True))

    def to_meta(self) -> dict[str, Any]:
        return {**asdict(self), "shape": list(self.shape)}

"""Randomness by purpose: a stream from (seed, dataset, regime, round, purpose), never global state.

So results do not depend on where or in which order runs execute, and query methods and mitigations with one
seed share split, initial set, initial weights, batch order and augmentation: their comparison is paired.
"""

import hashlib

import numpy as np
import torch


def stream_seed(*key: object) -> int:
    """63 bits from a key of strings and integers; the same on every machine and Python."""
    text = "/".join(str(part) for part in key)
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def torch_rng(*key: object) -> torch.Generator:
    return torch.Generator().manual_seed(stream_seed(*key))


def numpy_rng(*key: object) -> np.random.Generator:
    return np.random.default_rng(stream_seed(*key))

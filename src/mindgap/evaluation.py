"""`encode` produces, `evaluate` reduces: metrics on every subset of modalities from one encoder pass."""

import contextlib
from collections.abc import Iterator, Mapping

import torch
from torch import Tensor

from mindgap.data.dataset import Split, subset_name, subsets
from mindgap.errors import DivergenceError
from mindgap.gpu import send
from mindgap.models.network import MultimodalNet

# Rows a pass, and numbers of the largest modality a pass (images of 64 px: 1,365 rows, of 224 px: 111; ten
# seconds of ECG: 279) bound memory. The results of a row do not depend on them beyond float rounding.
CHUNK = 1024
NUMBERS_A_PASS = 2**24
# A GPU gets four times as much: 1,024 images of 64 px are over before all their kernels are launched.
ON_A_GPU = 4
ECE_BINS = 15

_divisor = 1


@contextlib.contextmanager
def smaller_chunks(divisor: int) -> Iterator[None]:
    """So many times fewer rows a pass: for a device whose memory did not do."""
    global _divisor
    before, _divisor = _divisor, divisor
    try:
        yield
    finally:
        _divisor = before


def autocast(device: torch.device) -> torch.autocast:
    """bf16 on a GPU, where it halves the bytes of a memory-bound step; a CPU would emulate it.

    Without the cache of cast weights, which a recording cannot share with what is around it.
    """
    gpu = device.type == "cuda"
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=gpu, cache_enabled=False)


def rows_a_pass(split: Split) -> int:
    """How many samples are encoded at once."""
    largest = max(x[0].numel() for x in split.x.values()) if len(split) else 1
    more = ON_A_GPU if split.y_N.device.type == "cuda" else 1
    return max(1, min(more * CHUNK, more * NUMBERS_A_PASS // largest) // _divisor)


@torch.no_grad()
def encode(model: MultimodalNet, split: Split, ids: Tensor | None = None, chunk: int | None = None) -> Tensor:
    """Tokens N x M x D (float32) of a split's rows `ids` (all by default), in eval mode."""
    model.eval()
    device = split.y_N.device
    ids = torch.arange(len(split), device=device) if ids is None else ids.to(device)
    # The host knows who has what and gathers by it; in the loop it need not wait for the device.
    ids_N, present_NM = ids.cpu(), split.present_NM[ids].cpu()
    chunk = chunk or rows_a_pass(split)
    parts = zip(ids_N.split(chunk), present_NM.split(chunk), strict=True)
    with autocast(device):
        return torch.cat([_encode(model, split, *part) for part in parts])


def _encode(model: MultimodalNet, split: Split, ids_N: Tensor, present_NM: Tensor) -> Tensor:
    device, rows = split.y_N.device, model.rows_to_encode(present_NM)
    x = {name: split.x[name][send(ids_N[rows[name]], device)] for name in rows}
    rows = {name: send(rows[name], device) for name in rows}
    return model.tokens(x, rows, send(present_NM, device))


@torch.no_grad()
def predict(model: MultimodalNet, tokens_NMD: Tensor, present_NM: Tensor, chunk: int = 8 * CHUNK) -> Tensor:
    """Class probabilities N x C (float32) had only `present_NM` been there."""
    model.eval()
    chunk = max(1, chunk // _divisor)
    parts = zip(tokens_NMD.split(chunk), present_NM.split(chunk), strict=True)
    return torch.cat([model.logits(t, p).float().softmax(dim=1) for t, p in parts])


def check_finite(probs_NC: Tensor, where: str) -> None:
    """A NaN has an argmax too, and would be scored as an answer."""
    broken = ~probs_NC.isfinite().all(dim=1)
    if broken.any():
        raise DivergenceError(
            f"{where}: {int(broken.sum())} of {len(probs_NC)} predictions are not finite. Lower the learning "
            f"rate, or raise model.min_present (batch statistics of too few rows) in params.yaml"
        )


def evaluate(model: MultimodalNet, split: Split, where: str) -> dict[str, dict[str, float]]:
    """Metrics of each non-empty subset of modalities, keyed by its name ("rare", "rare+frequent", ...).

    A sample of which nothing is left in a subset is not scored there; `n` says how many were. `where` names
    the run in errors.
    """
    tokens_NMD = encode(model, split)
    modalities = tuple(split.x)
    metrics = {}
    for subset in subsets(modalities):
        keep_M = torch.tensor([name in subset for name in modalities], device=tokens_NMD.device)
        present_NM = split.present_NM & keep_M
        rows = present_NM.any(dim=1)
        probs_NC = predict(model, tokens_NMD[rows], present_NM[rows])
        check_finite(probs_NC, f"{where}, test with {subset_name(subset, modalities)}")
        metrics[subset_name(subset, modalities)] = score(probs_NC, split.y_N[rows])
    return metrics


def score(probs_NC: Tensor, y_N: Tensor) -> Mapping[str, float]:
    """Balanced accuracy, accuracy, expected calibration error and the number of samples."""
    return {
        "balanced_accuracy": balanced_accuracy(probs_NC, y_N),
        "accuracy": (probs_NC.argmax(dim=1) == y_N).double().mean().item() if len(y_N) else float("nan"),
        "ece": expected_calibration_error(probs_NC, y_N),
        "n": len(y_N),
    }


def balanced_accuracy(probs_NC: Tensor, y_N: Tensor) -> float:
    """Mean recall over the classes that occur in `y_N`."""
    classes = probs_NC.shape[1]
    count_C = torch.bincount(y_N, minlength=classes).double()
    right_C = torch.bincount(y_N[probs_NC.argmax(dim=1) == y_N], minlength=classes).double()
    seen_C = count_C > 0
    return (right_C[seen_C] / count_C[seen_C]).mean().item()


def expected_calibration_error(probs_NC: Tensor, y_N: Tensor, bins: int = ECE_BINS) -> float:
    """Mean |accuracy - confidence| over equal-width bins, weighted by size (Guo et al. 2017)."""
    if not len(y_N):
        return float("nan")
    confidence_N, predicted_N = probs_NC.double().max(dim=1)
    bin_N = (confidence_N * bins).ceil().long().clamp(1, bins) - 1
    gap_N = (predicted_N == y_N).double() - confidence_N
    gap_B = torch.zeros(bins, dtype=torch.float64, device=y_N.device).index_add_(0, bin_N, gap_N)
    return (gap_B.abs().sum() / len(y_N)).item()

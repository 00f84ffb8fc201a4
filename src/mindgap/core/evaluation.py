"""`encode` produces, evaluators reduce: rows of what was measured from one encoder pass."""

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from functools import partial
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

from mindgap.base.at_work import at_work
from mindgap.base.errors import DivergenceError
from mindgap.base.gpu import PASS, Engine, send
from mindgap.base.view import Metrics
from mindgap.core.network import MultimodalNet
from mindgap.data.dataset import Split, subset_name, subsets
from mindgap.parts.evaluators import make_evaluator
from mindgap.parts.evaluators.accuracy import share_right
from mindgap.parts.evaluators.balanced_accuracy import mean_recall
from mindgap.parts.evaluators.contract import Context, Predictions, check_rows
from mindgap.parts.evaluators.ece import calibration_error
from mindgap.parts.evaluators.nll import negative_log_likelihood

# Rows a pass, and numbers of the largest modality a pass (images of 64 px: 1,365 rows, of 224 px: 111; ten
# seconds of ECG: 279) bound memory. The results of a row do not depend on them beyond float rounding.
CHUNK = 1024
NUMBERS_A_PASS = 2**24
ON_A_GPU = 4  # times the numbers


def autocast(device: torch.device) -> torch.autocast:
    """bf16 on a GPU, where it halves the bytes of a memory-bound step; a CPU would emulate it.

    Without the cache of cast weights, which a recording cannot share with what is around it.
    """
    gpu = device.type == "cuda"
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=gpu, cache_enabled=False)


def rows_a_pass(split: Split, engine: Engine) -> int:
    """How many rows are encoded at once."""
    largest = max(x[0].numel() for x in split.x.values()) if len(split) else 1
    return most_rows(largest, engine.device.type, engine.divisor)


def most_rows(largest: int, kind: str, divisor: int = 1) -> int:
    """How many rows of so many numbers are encoded at once on a kind of device."""
    chunk, numbers = (PASS, ON_A_GPU * NUMBERS_A_PASS) if kind == "cuda" else (CHUNK, NUMBERS_A_PASS)
    return max(1, min(chunk, numbers // largest) // divisor)


def passes(rows: int, most: int, few: int | None) -> Iterator[tuple[slice, int]]:
    """Which of so many rows pass at once, at most `most`, and how many are computed then.

    With `few`, the other number of rows that a pass may have, they are `most` or `few`: whole large passes,
    then small ones where these compute half as much at most.
    """
    begin = 0
    while begin < rows:
        left = rows - begin
        size = min(most, left)
        if few is not None:
            size = few if 2 * math.ceil(left / few) * few <= most else most
        yield slice(begin, min(rows, begin + size)), size
        begin += size


def filled(x_K: Tensor, rows: int) -> Tensor:
    """With rows of zeros below, so many in all."""
    return x_K if len(x_K) == rows else torch.cat([x_K, x_K.new_zeros(rows - len(x_K), *x_K.shape[1:])])


@torch.no_grad()
def encode(model: MultimodalNet, split: Split, ids: Tensor | None = None, chunk: int | None = None) -> Tensor:
    """Tokens N x M x D (float32) of a split's rows `ids` (all by default), in eval mode.

    The host gathers by what it knows itself: if `ids` are there, it does not wait for the device.
    """
    model.eval()
    device, width = split.y_N.device, model.spec.width
    ids_N = torch.arange(len(split)) if ids is None else ids.cpu()
    present_NM = split.host_present_NM[ids_N]
    few = model.batch_size if model.engine.pad else None
    most = chunk or max(rows_a_pass(split, model.engine), few or 1)
    shape = (len(ids_N), len(split.x), width)
    tokens_NMD = torch.zeros(shape, dtype=model.head.weight.dtype, device=device)
    with autocast(device):
        model.know_blank()
        for m, (name, rows_K) in enumerate(model.rows_to_encode(present_NM).items()):
            keep = (present_NM[:, m],) if model.spec.absent == "zeros" else ()
            for part, size in passes(len(rows_K), most, few):
                rows = rows_K[part]
                inputs = [split.x[name].index_select(0, send(ids_N[rows], device))]
                inputs += [send(keep_N[rows], device) for keep_N in keep]
                if few is not None:
                    inputs = [filled(x, size) for x in inputs]
                tokens = model.passes(model.engine.record, name, partial(model.tokens_of, name), *inputs)
                tokens_NMD[:, m].index_copy_(0, send(rows, device), tokens[: len(rows)])
    return tokens_NMD


@torch.no_grad()
def predict(model: MultimodalNet, tokens_NMD: Tensor, present_NM: Tensor, chunk: int = 8 * CHUNK) -> Tensor:
    """Class probabilities N x C (float32) had only `present_NM` been there."""
    model.eval()
    model.know_blank()
    few = model.batch_size if model.engine.pad else None
    most, parts = max(1, chunk // model.engine.divisor, few or 1), []
    for part, size in passes(len(tokens_NMD), most, few):
        inputs = [tokens_NMD[part], present_NM[part]]
        if few is not None:
            inputs = [filled(x, size) for x in inputs]
        logits = model.passes(model.engine.record, "logits", model.logits, *inputs)
        parts.append(logits[: len(tokens_NMD[part])].float().softmax(dim=1))
    return torch.cat(parts) if parts else tokens_NMD.new_zeros((0, model.head.out_features))


def check_predictions(probs_NC: Tensor, where: str) -> None:
    """A NaN has an argmax too, and would be scored as an answer."""
    if broken := int(not_finite(probs_NC)):
        raise diverged(where, broken, len(probs_NC))


def not_finite(probs_NC: Tensor) -> Tensor:
    """How many predictions."""
    return (~probs_NC.isfinite().all(dim=1)).sum()


def diverged(where: str, broken: int, of: int) -> DivergenceError:
    return DivergenceError(
        f"{where}: {broken} of {of} predictions are not finite. Lower the learning rate, or raise "
        f"model.min_present (batch statistics of too few rows) in params.yaml"
    )


@torch.no_grad()
def evaluate(
    model: MultimodalNet,
    split: Split,
    where: str,
    evaluators: Mapping[str, Mapping[str, Any]],
    rng_of: Callable[[str], torch.Generator],
    **known: Any,
) -> list[dict[str, Any]]:
    """The rows of evaluators on the test split: `evaluator`, `subset`, `name`, `value`.

    One encoder pass for all, and a fusion pass for each subset. `evaluators`: names with their settings. Each
    has a generator of its own, so that its numbers do not depend on who runs beside it. `known`: the rest of
    their context. `where` names the run in errors.
    """
    tokens_NMD = encode(model, split)
    seen = predict_subsets(model, tokens_NMD, split.present_NM, split.y_N, f"{where}, test")
    context = Context(tuple(model.modalities), tokens_NMD, seen, partial(predict, model), **known)
    rows, shared = [], shared_with_all(model, split, context)
    for name, settings in evaluators.items():
        own, evaluator = replace(context, rng=rng_of(name)), make_evaluator(name, settings)
        with at_work(f"{where}: evaluator {name!r}", evaluator, "context.rng", shared):
            rows += check_rows(name, evaluator(model, split, own), own, where)
    return rows


def shared_with_all(model: MultimodalNet, split: Split, context: Context) -> dict[str, Tensor]:
    """What an evaluator could change for the others, or for the rest of the run, by its name there."""
    held: dict[str, object] = {"split": split, "context": context, "context.train": context.train}
    held |= {f"context.subsets[{name!r}]": seen for name, seen in context.subsets.items()}
    held |= {"split.x": SimpleNamespace(**split.x), "context.train.x": SimpleNamespace(**context.train.x)}
    found = {f"{name}.{key}": one for name, of in held.items() for key, one in vars(of).items()}
    found |= {f"model.{name}": one for name, one in model.state_dict().items()}
    return {name: one for name, one in found.items() if isinstance(one, Tensor)}


def predict_subsets(
    model: MultimodalNet, tokens_NMD: Tensor, present_NM: Tensor, y_N: Tensor, where: str
) -> dict[str, Predictions]:
    """Predictions of each non-empty subset of modalities, keyed by its name ("rare", "rare+frequent", ...).

    A sample of which nothing is left in a subset is not in it. `where` names run and samples in errors.
    """
    modalities = tuple(model.modalities)
    found = {}
    for subset in subsets(modalities):
        keep_M = torch.tensor([name in subset for name in modalities], device=tokens_NMD.device)
        kept_NM = present_NM & keep_M
        rows = kept_NM.any(dim=1)
        probs_NC = predict(model, tokens_NMD[rows], kept_NM[rows])
        check_predictions(probs_NC, f"{where} with {subset_name(subset, modalities)}")
        found[subset_name(subset, modalities)] = Predictions(rows, probs_NC, y_N[rows])
    return found


def metrics_of(seen: Predictions) -> Metrics:
    """What the validation set says of a model, by which policies learn: always the same numbers."""
    scores: dict[str, Callable[[Tensor, Tensor], float | Tensor]] = {
        "balanced_accuracy": mean_recall,
        "accuracy": share_right,
        "ece": calibration_error,
        "nll": negative_log_likelihood,
    }
    found = {name: float(score(seen.probs_KC, seen.y_K)) for name, score in scores.items()}
    return Metrics(**found, n=len(seen.y_K))

from collections.abc import Iterator
from typing import Annotated, Any

import torch
from pydantic import Field
from torch import Tensor
from torch.nn.functional import cross_entropy

from mindgap.parts.evaluators.contract import Context, Row

ROWS = 64  # a pass: gradients of so many samples are in memory at once


def gradient_share(
    model: Any, split: Any, context: Context, samples: Annotated[int, Field(ge=1)] = 256
) -> Iterator[Row]:
    """Share of each modality's encoder, with its projection, in the gradient's norm of the loss.

    Of the mean cross-entropy of the first `samples` of the validation set, which are the same in all rounds
    and for all methods. The model is the finished one: dropout is off and batch norms do not move. Nothing is
    drawn and no gradient is kept, so no other number depends on it. No rows where all norms are 0.
    """
    norms = gradient_norms(model, context, context.validation_V[:samples])
    total = sum(norms.values())
    for name, norm in norms.items() if total > 0 else ():
        yield "gradient_share", name, norm / total


def gradient_norms(model: Any, context: Context, ids_V: Tensor) -> dict[str, float]:
    """L2 norms of the gradient in each modality's encoder, of the mean loss of these training samples."""
    weights = {
        name: [w for module in model.parts[name] for w in module.parameters() if w.requires_grad]
        for name in context.modalities
    }
    flat = [w for some in weights.values() for w in some]
    sums = [torch.zeros_like(w) for w in flat]
    model.eval()
    for part_B in ids_V.split(ROWS) if flat else ():
        x = {name: of_modality[part_B] for name, of_modality in context.train.x.items()}
        present_BM, y_B = context.train.present_NM[part_B], context.train.y_N[part_B]
        with torch.enable_grad():
            logits_BC = model.logits(model.encode(x, present_BM), present_BM)
            loss = cross_entropy(logits_BC.float(), y_B, reduction="sum") / len(ids_V)
            found = torch.autograd.grad(loss, flat, allow_unused=True)
        for total, one in zip(sums, found, strict=True):
            if one is not None:
                total += one
    squares = iter([total.double().square().sum() for total in sums])
    return {name: float(sum(next(squares) for _ in some)) ** 0.5 for name, some in weights.items()}

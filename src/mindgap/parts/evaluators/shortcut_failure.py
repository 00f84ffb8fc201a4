from collections.abc import Iterator
from typing import Any

from torch import Tensor

from mindgap.parts.evaluators.compared import compared
from mindgap.parts.evaluators.contract import Context, Row, WholeSplit


def shortcut_failure(model: Any, split: WholeSplit, context: Context) -> Iterator[Row]:
    """SFD of each modality as a shortcut (Li et al., ICML 2025), over the samples that have it and another.

    The source asks a proxy that was trained beside the model. Ours asks the model itself with the modality
    alone. No row where it is right alone on every sample, or on none.
    """
    for m, name in enumerate(context.modalities):
        every, alone = (seen.probs_KC.argmax(dim=1) == seen.y_K for seen in compared(split, context, m, name))
        if 0 < alone.sum() < len(alone):
            yield "sfd", name, failure_degree(every, alone).item()


def failure_degree(right_N: Tensor, proxy_right_N: Tensor) -> Tensor:
    """SFD, the shortcut's failure degree: accuracy where a proxy is right, less that where it is wrong.

    `right_N` and `proxy_right_N` (bool): whether the model and the proxy are right on each of N samples. NaN
    where the proxy is never right, or always.
    """
    right_N = right_N.double()
    return right_N[proxy_right_N].mean() - right_N[~proxy_right_N].mean()

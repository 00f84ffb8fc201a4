"""The contract of a mitigation: up to three hooks into training; this one does nothing in each."""

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy


class Mitigation:
    """Plain training. Subclasses replace the hooks they need; their arguments are their settings."""

    def drop(self, present_NM: Tensor, rng: torch.Generator) -> Tensor:
        """What a training batch may use: of each sample at least one of its present modalities."""
        return present_NM

    def loss(self, logits_NC: Tensor, y_N: Tensor) -> Tensor:
        """The scalar to minimise."""
        return cross_entropy(logits_NC, y_N)

    def after_backward(self, model) -> None:
        """A chance to change gradients before the optimiser's step."""

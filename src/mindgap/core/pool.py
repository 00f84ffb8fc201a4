"""Who is labelled, and what a query method may see of those who are not.

A `PoolView` has no pool labels and no way to the test split; every quantity is computed on first use, in eval
mode, with test-time inputs, modality dropout off and each sample's own presence mask.
"""

from collections.abc import Callable
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from mindgap.core.network import MultimodalNet


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


class PoolView:
    """The unlabelled pool as one model sees it. N pool, L labelled, M modalities, C classes, K passes.

    `encode_pool` and `encode_labelled` return projected tokens; they run once, when first needed, so a method
    that needs no model (Random) costs no pass. `oracle_y_N` is given to control methods that are allowed the
    labels; it is None for every other method.
    """

    def __init__(
        self,
        model: MultimodalNet,
        encode_pool: Callable[[], Tensor],
        encode_labelled: Callable[[], Tensor],
        present_NM: Tensor,
        labelled_present_LM: Tensor,
        labelled_y_L: Tensor,
        rng: torch.Generator,
        round: int,
        rounds: int,
        memory: dict,
        oracle_y_N: Tensor | None = None,
    ):
        self._model, self._encode_pool, self._encode_labelled = model, encode_pool, encode_labelled
        self.present_NM, self.labelled_present_LM, self.labelled_y_L = (
            present_NM,
            labelled_present_LM,
            labelled_y_L,
        )
        self.rng, self.round, self.rounds, self.memory = rng, round, rounds, memory
        self.oracle_y_N = oracle_y_N
        self._masks: dict[int, Tensor] = {}

    def __len__(self) -> int:
        return len(self.present_NM)

    @property
    def size(self) -> int:
        return len(self)

    @property
    def device(self) -> torch.device:
        return self.present_NM.device

    @property
    def num_classes(self) -> int:
        return self._model.head.out_features

    @property
    def head_weight_CH(self) -> Tensor:
        return self._model.head.weight.detach()

    @property
    def head_bias_C(self) -> Tensor:
        return self._model.head.bias.detach()

    @property
    def head_dropout(self) -> float:
        """Probability of dropout before the linear layer."""
        return self._model.dropout.p

    # One deterministic pass over the pool -----------------------------------------------------------------

    @cached_property
    def _pool_tokens_NMD(self) -> Tensor:
        return self._encode_pool()

    @cached_property
    def tokens_NMD(self) -> Tensor:
        """Projected unimodal latents, exactly 0 where a modality is absent."""
        return self._pool_tokens_NMD * self.present_NM.unsqueeze(-1)

    @cached_property
    def fused_NH(self) -> Tensor:
        return self._fuse(self._pool_tokens_NMD, self.present_NM)

    @cached_property
    def logits_NC(self) -> Tensor:
        return self._classify(self.fused_NH)

    @cached_property
    def log_probs_NC(self) -> Tensor:
        return self.logits_NC.log_softmax(dim=1)

    @cached_property
    def probs_NC(self) -> Tensor:
        return self.log_probs_NC.exp()

    # The labelled set -------------------------------------------------------------------------------------

    @cached_property
    def _labelled_raw_LMD(self) -> Tensor:
        return self._encode_labelled()

    @cached_property
    def labelled_tokens_LMD(self) -> Tensor:
        return self._labelled_raw_LMD * self.labelled_present_LM.unsqueeze(-1)

    @cached_property
    def labelled_fused_LH(self) -> Tensor:
        return self._fuse(self._labelled_raw_LMD, self.labelled_present_LM)

    @cached_property
    def labelled_probs_LC(self) -> Tensor:
        return self._classify(self.labelled_fused_LH).softmax(dim=1)

    # What else may be asked of the model ------------------------------------------------------------------

    def probs_with(self, keep_M: Tensor) -> Tensor:
        """Predictions N x C had only the modalities `keep_M` been there (and present): fusion passes only."""
        return self._probs(self._pool_tokens_NMD, self.present_NM & keep_M.to(self.device))

    def labelled_probs_with(self, keep_M: Tensor) -> Tensor:
        return self._probs(self._labelled_raw_LMD, self.labelled_present_LM & keep_M.to(self.device))

    def mc_log_probs_NKC(self, k: int, rows: slice = slice(None)) -> Tensor:
        """Log-probabilities of `rows` under k dropout masks that all samples share: one product a chunk.

        The K masked copies of the linear layer are stacked to (K C) x H, so no pass is repeated.
        """
        if self.head_dropout <= 0:
            raise ValueError(
                "Monte-Carlo dropout needs a model with dropout before its linear layer: "
                "set model.head_dropout above 0 for this scale"
            )
        masks_KH = self._masks_KH(k)
        weight_KCH = self.head_weight_CH * masks_KH.unsqueeze(1)
        logits = self.fused_NH[rows] @ weight_KCH.flatten(0, 1).T
        return (logits.unflatten(1, (k, self.num_classes)) + self.head_bias_C).log_softmax(dim=2)

    def _masks_KH(self, k: int) -> Tensor:
        if k not in self._masks:
            keep = 1 - self.head_dropout
            draws = torch.rand((k, self._model.head.in_features), generator=self.rng)
            self._masks[k] = ((draws < keep).float() / keep).to(self.device)
        return self._masks[k]

    @torch.no_grad()
    def _fuse(self, tokens, present) -> Tensor:
        self._model.eval()
        return self._model.fuse(tokens, present).float()

    @torch.no_grad()
    def _classify(self, fused) -> Tensor:
        self._model.eval()
        return self._model.classify(fused).float()

    def _probs(self, tokens, present) -> Tensor:
        return self._classify(self._fuse(tokens, present)).softmax(dim=1)

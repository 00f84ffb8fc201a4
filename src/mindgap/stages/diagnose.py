"""Whether a trained model's reliabilities decide anything: the permutation diagnostic on its test set."""

import numpy as np
import torch

from mindgap.core.evaluation import encode, predict
from mindgap.core.network import MultimodalNet
from mindgap.data.dataset import Split
from mindgap.parts.fusions.weighing import Weighing
from mindgap.results.permutation import RULES, DiagnosticError, Gap, permutation_gap

# Axes: N samples, M modalities, E of what a modality brings, C classes.


@torch.no_grad()
def diagnose(
    model: MultimodalNet, split: Split, truth_NM: np.ndarray | None = None, seed: int = 0
) -> list[Gap]:
    """The gap of each rule, with the model's predictions of one modality each as experts.

    Reliabilities are those that its fusion gives, or `truth_NM` (in 0..1) instead. Where the fusion weighs by
    its own, the last gap is of the model itself ("own"), with weights of other samples in its fusion. Raises
    a DiagnosticError for a fusion without reliabilities, by name.
    """
    tokens_NMD, present_NM = encode(model, split), split.present_NM
    _, reliability_NM = model.fuse_and_weigh(tokens_NMD, present_NM)
    if truth_NM is None and reliability_NM is None:
        name = model.spec.fusion["name"]
        raise DiagnosticError(
            f"model.fusion: {name!r} gives no reliabilities, so there is nothing to permute: take gated, "
            f"quality, moe, evidential or cross_attention, or give reliabilities from elsewhere"
        )
    given_NM = reliability_NM.cpu().numpy() if truth_NM is None else truth_NM
    alone_MM = torch.eye(len(model.modalities), dtype=torch.bool, device=present_NM.device)
    probs_NMC = torch.stack([predict(model, tokens_NMD, present_NM & one_M) for one_M in alone_MM], dim=1)
    arrays = probs_NMC.cpu().numpy(), given_NM, split.y_N.cpu().numpy(), present_NM.cpu().numpy()
    gaps = [permutation_gap(*arrays, rule=rule, seed=seed) for rule in RULES if rule != "mean"]
    if truth_NM is None and isinstance(model.fusion, Weighing):
        whole = present_NM.all(dim=1)
        part_NME, _ = model.fusion.weigh(tokens_NMD[whole], present_NM[whole])

        def own(weight_NM: np.ndarray) -> np.ndarray:
            fused_NH = model.fusion.combine(part_NME, torch.from_numpy(weight_NM).to(part_NME))
            return model.classify(fused_NH).double().cpu().numpy()

        # Shares add to 1, so those of a sample stay together.
        gaps.append(permutation_gap(*arrays, rule=own, how="joint", seed=seed))
    return gaps

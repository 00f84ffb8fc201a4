"""fit(): one training from scratch on the labelled samples, as in Table 5 and realistic-al."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from mindgap.batches import Batch, Batches, Recipe
from mindgap.data.dataset import Split
from mindgap.errors import DivergenceError
from mindgap.evaluation import autocast, balanced_accuracy, check_finite, encode, predict
from mindgap.mitigations import Mitigation
from mindgap.models.network import MultimodalNet


@dataclass(frozen=True)
class Fit:
    """What a training left behind; the model holds the weights of `best_epoch`."""

    best_epoch: int
    best_validation: float
    losses: list[float]
    steps: int


def fit(
    model: MultimodalNet,
    train: Split,
    labelled_ids: Tensor,
    validation_ids: Tensor,
    recipe: Recipe,
    mitigation: Mitigation,
    rng: torch.Generator,
    where: str,
) -> Fit:
    """Train in place; the model ends with the weights of the best validation balanced accuracy.

    `train` is the training split on its device, `where` names the run in errors. Every draw comes from `rng`.
    Between two epochs nothing is read back from the device.
    """
    device = train.y_N.device
    batches = Batches(train, labelled_ids, recipe, mitigation, model, rng)
    validation_ids = validation_ids.to(device)
    optimiser = make_optimiser(model, recipe, device)
    per_epoch = recipe.batches_per_epoch(len(labelled_ids))
    best_score, best_epoch, best_state, losses, step = -1.0, -1, None, [], 0

    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        # Dropout layers draw from the default generator; seeding it here keeps them a function of `rng` too.
        torch.manual_seed(torch.randint(2**62, (), generator=rng).item())
        for epoch in range(recipe.epochs):
            model.train()
            loss_sum = torch.zeros((), device=device)
            for batch in batches.epoch():
                for group in optimiser.param_groups:
                    group["lr"] = learning_rate((step + 0.5) / per_epoch, recipe)
                loss_sum += train_step(model, batch, optimiser, mitigation)
                step += 1
            losses.append(loss_sum.item() / per_epoch)
            here = f"{where}, epoch {epoch}"
            if not math.isfinite(losses[-1]):
                raise DivergenceError(
                    f"{here}: the loss is {losses[-1]}. Lower the learning rate ({recipe.learning_rate}) "
                    f"of this dataset in params.yaml; finished rounds are kept"
                )
            if epoch + 1 >= recipe.validate_from * recipe.epochs:
                score = validate(model, train, validation_ids, here)
                if score > best_score:
                    best_score, best_epoch = score, epoch
                    best_state = {k: v.detach().clone() for k, v in model.state_dict().items()}
    model.load_state_dict(best_state)
    return Fit(best_epoch, best_score, losses, step)


def train_step(
    model: MultimodalNet, batch: Batch, optimiser: torch.optim.Optimizer, mitigation: Mitigation
) -> Tensor:
    """One step of the optimiser; the batch's loss, still on its device."""
    with autocast(batch.y_B.device):
        tokens_BMD = model.tokens(batch.x, batch.rows, batch.present_BM)
        loss = mitigation.loss(model.logits(tokens_BMD, batch.present_BM), batch.y_B)
    optimiser.zero_grad(set_to_none=True)
    loss.backward()
    mitigation.after_backward(model)
    optimiser.step()
    return loss.detach()


def make_optimiser(model: nn.Module, recipe: Recipe, device: torch.device) -> torch.optim.SGD:
    """SGD with Nesterov momentum (realistic-al); on a GPU all weights in one kernel."""
    groups = parameter_groups(model, recipe.weight_decay)
    nesterov, fused = recipe.momentum > 0, True if device.type == "cuda" else None
    return torch.optim.SGD(groups, lr=0.0, momentum=recipe.momentum, nesterov=nesterov, fused=fused)


def validate(model: MultimodalNet, train: Split, ids: Tensor, where: str) -> float:
    """Balanced accuracy on the validation samples as they are: with the modalities each one has."""
    probs_NC = predict(model, encode(model, train, ids), train.present_NM[ids])
    check_finite(probs_NC, f"{where}, validation")
    return balanced_accuracy(probs_NC, train.y_N[ids])


def learning_rate(epoch: float, recipe: Recipe) -> float:
    """Linear warm-up to the base rate, then a cosine to 0 at the last epoch, by the step."""
    if epoch < recipe.warmup_epochs:
        return recipe.learning_rate * epoch / recipe.warmup_epochs
    progress = (epoch - recipe.warmup_epochs) / max(recipe.epochs - recipe.warmup_epochs, 1e-8)
    return recipe.learning_rate * 0.5 * (1 + math.cos(math.pi * min(progress, 1.0)))


def parameter_groups(model: nn.Module, weight_decay: float) -> list[dict]:
    """Weight decay on matrices and kernels only: biases, norms and embeddings of one axis are left alone.

    By the number of axes, not by name: a search for "bn" misses torchvision's batch norms.
    """
    decayed, free = [], []
    for name, parameter in model.named_parameters():
        free_one = parameter.dim() <= 1 or name.endswith("modality_MD")
        (free if free_one else decayed).append(parameter)
    return [{"params": decayed, "weight_decay": weight_decay}, {"params": free, "weight_decay": 0.0}]

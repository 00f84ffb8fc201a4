"""fit(): one training from scratch on the labelled samples, as in Table 5 and realistic-al."""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from mindgap.augment import augment_sample
from mindgap.data.dataset import Split
from mindgap.errors import DivergenceError
from mindgap.evaluation import autocast, balanced_accuracy, check_finite, encode, predict
from mindgap.mitigations import Mitigation
from mindgap.models.network import MultimodalNet


@dataclass(frozen=True)
class Recipe:
    """How a model is trained. Epochs are counted in draws: see `min_samples_per_epoch`."""

    epochs: int
    batch_size: int
    learning_rate: float
    weight_decay: float
    augmentation: str
    class_balanced: bool
    momentum: float
    warmup_epochs: float
    min_samples_per_epoch: int
    validate_from: float


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
    """
    device = train.y_N.device
    labelled_ids, validation_ids = labelled_ids.to(device), validation_ids.to(device)
    groups = parameter_groups(model, recipe.weight_decay)
    optimiser = torch.optim.SGD(groups, lr=0.0, momentum=recipe.momentum, nesterov=recipe.momentum > 0)
    per_epoch = math.ceil(max(len(labelled_ids), recipe.min_samples_per_epoch) / recipe.batch_size)
    best_score, best_epoch, best_state, losses, step = -1.0, -1, None, [], 0

    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        # Dropout layers draw from the default generator; seeding it here keeps them a function of `rng` too.
        torch.manual_seed(torch.randint(2**62, (), generator=rng).item())
        for epoch in range(recipe.epochs):
            model.train()
            loss_sum = torch.zeros((), device=device)
            for rows in epoch_batches(labelled_ids, train.y_N, recipe, rng):
                for group in optimiser.param_groups:
                    group["lr"] = learning_rate((step + 0.5) / per_epoch, recipe)
                x = {
                    name: augment_sample(recipe.augmentation, train.x[name][rows], modality, rng)
                    for name, modality in model.modalities.items()
                }
                present_NM = mitigation.drop(train.present_NM[rows], rng)
                with autocast(device):
                    loss = mitigation.loss(model(x, present_NM), train.y_N[rows])
                optimiser.zero_grad(set_to_none=True)
                loss.backward()
                mitigation.after_backward(model)
                optimiser.step()
                loss_sum += loss.detach()
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


def epoch_batches(
    labelled_ids: Tensor, y_N: Tensor, recipe: Recipe, rng: torch.Generator
) -> Iterator[Tensor]:
    """Batches of ids: a permutation, cycled until it has `min_samples_per_epoch` draws.

    Without the minimum, 50 labels at batch 128 and 60 epochs would get 60 steps in all. With `class_balanced`
    the draws are with replacement, each class equally likely.
    """
    draws = max(len(labelled_ids), recipe.min_samples_per_epoch)
    if recipe.class_balanced:
        y_L = y_N[labelled_ids].cpu()
        weight_L = 1.0 / torch.bincount(y_L)[y_L]
        order = torch.multinomial(weight_L, draws, replacement=True, generator=rng)
    else:
        cycles = math.ceil(draws / len(labelled_ids))
        order = torch.cat([torch.randperm(len(labelled_ids), generator=rng) for _ in range(cycles)])[:draws]
    yield from labelled_ids[order.to(labelled_ids.device)].split(recipe.batch_size)


def parameter_groups(model: nn.Module, weight_decay: float) -> list[dict]:
    """Weight decay on matrices and kernels only: biases, norms and embeddings of one axis are left alone.

    By the number of axes, not by name: a search for "bn" misses torchvision's batch norms.
    """
    decayed, free = [], []
    for name, parameter in model.named_parameters():
        free_one = parameter.dim() <= 1 or name.endswith("modality_MD")
        (free if free_one else decayed).append(parameter)
    return [{"params": decayed, "weight_decay": weight_decay}, {"params": free, "weight_decay": 0.0}]

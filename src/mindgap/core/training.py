"""fit(): one training from scratch on the labelled samples, as in Table 5 and realistic-al."""

import copy
import math
from collections.abc import Callable, Container, Generator, Mapping, Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from mindgap.base.at_work import at_work, failed, file_of, out_of_memory
from mindgap.base.errors import DivergenceError, MindGapError
from mindgap.base.gpu import culprit, culprit_of, fetched, recorded_step, send
from mindgap.base.hosted import counting, draw, dropping, hosted, norms, settle
from mindgap.core.batches import Batch, Batches
from mindgap.core.evaluation import autocast, diverged, encode, not_finite, predict
from mindgap.core.network import REST, MultimodalNet
from mindgap.core.recipe import Recipe
from mindgap.core.rng import stream_seed
from mindgap.data.dataset import Split
from mindgap.parts.evaluators.balanced_accuracy import mean_recall
from mindgap.parts.mitigations import Lesson, Mitigation, Step, check_gradients, check_losses

T = TypeVar("T")
Turns = Generator[str | None, None, "Fit"]
State = tuple[Any, ...]  # of a mitigation, as `state_of` tells it


@dataclass(frozen=True)
class Fit:
    """What a training left behind; the model holds the weights of `best_epoch`."""

    best_epoch: int
    best_validation: float
    losses: list[float]
    steps: int


def fit(*args: Any, **kwargs: Any) -> Fit:
    """`fit_in_turns` without a pause."""
    return to_the_end(fit_in_turns(*args, **kwargs))


def to_the_end(turns: Generator[Any, None, T]) -> T:
    """What a generator returns; what it yields is passed over."""
    while True:
        try:
            next(turns)
        except StopIteration as end:
            result: T = end.value
            return result


def fit_in_turns(
    model: MultimodalNet,
    train: Split,
    labelled_ids: Tensor,
    validation_ids: Tensor,
    recipe: Recipe,
    mitigation: Mitigation,
    key: Sequence[object],
    where: str,
    lesson: Lesson | None = None,
) -> Turns:
    """Train in place; the model ends with the weights of the best validation balanced accuracy.

    `train` is the training split on its device, `key` that of all random streams, `where` names the run in
    errors, `lesson` is what a mitigation taught. Control is handed back after each step, with a line where
    there is something to say. Once an epoch two numbers are read back from the device, and until they are
    there others may have their turn.
    """
    batches = Batches(train, labelled_ids, recipe, mitigation, model, key, lesson)
    met = {"ids": batches.ids_L, "labels": batches.y_L, "present": batches.present_LM}
    with at_work(f"{where}: {type(mitigation).__name__}.meet", type(mitigation), shared=met):
        mitigation.meet(model, *met.values())
    validation_ids = validation_ids.cpu()
    steps = Steps.of(model, recipe, mitigation, key)
    per_epoch = recipe.batches_per_epoch(len(labelled_ids))
    best_score, best_epoch, step = -1.0, -1, 0
    best_state: dict[str, Tensor] = {}
    losses: list[float] = []
    for epoch in range(recipe.epochs):
        steps.start_epoch(epoch)
        for batch in batches.epoch():
            yield steps.take(batch, where)
            step += 1
        scored = recipe.validates(epoch)
        told = [steps.loss_sum.double() / per_epoch]
        if scored:
            told += validation(model, train, validation_ids)
        loss, *numbers = yield from fetched(torch.stack(told))
        losses.append(loss)
        here = f"{where}, epoch {epoch}"
        if not math.isfinite(losses[-1]):
            raise DivergenceError(
                f"{here}: the loss is {losses[-1]}. Lower the learning rate ({recipe.learning_rate}) "
                f"of this dataset in params.yaml; finished rounds are kept"
            )
        if scored:
            score, broken = numbers
            if broken:
                raise diverged(f"{here}, validation", int(broken), len(validation_ids))
            if score > best_score:
                best_score, best_epoch = score, epoch
                best_state = {k: v.detach().clone() for k, v in model.state_dict().items()}
    model.load_state_dict(best_state)
    return Fit(best_epoch, best_score, losses, step)


class Optimiser:
    """SGD with Nesterov momentum (realistic-al), all weights of a part of the model in one kernel.

    A modality that sits a step out does not move at all: neither gradient nor momentum nor decay.
    """

    def __init__(self, model: MultimodalNet, extra: nn.Module | None, recipe: Recipe):
        self.momentum = recipe.momentum
        trained = nn.ModuleList([model, *([extra] if extra else [])])
        self.parameters = [p for p in trained.parameters() if p.requires_grad]
        self.velocity = [torch.zeros_like(p) for p in self.parameters]
        place = {id(p): k for k, p in enumerate(self.parameters)}
        parts = ((m, module) for m, name in enumerate(model.modalities) for module in model.parts[name])
        part = {id(p): m for m, module in parts for p in module.parameters()}
        # Positions of the parameters of each part that may sit out, or of none; decayed or not.
        self.groups: dict[tuple[int | None, float], list[int]] = {}
        for group in parameter_groups(trained, recipe.weight_decay):
            for p in group["params"]:
                if p.requires_grad:
                    key = part.get(id(p)), group["weight_decay"]
                    self.groups.setdefault(key, []).append(place[id(p)])

    @torch.no_grad()
    def step(self, gradients: Sequence[Tensor], rate: Tensor, still_M: Tensor) -> None:
        # The kernel goes through memory: it takes for granted that both lie there alike, which those of
        # convolutions, or of a sum, do not.
        gradients = [
            g if g.stride() == p.stride() else torch.empty_like(p).copy_(g)
            for p, g in zip(self.parameters, gradients, strict=True)
        ]
        for (part, decay), places in self.groups.items():
            torch._fused_sgd_(
                [self.parameters[k] for k in places],
                [gradients[k] for k in places],
                [self.velocity[k] for k in places] if self.momentum else [],
                weight_decay=decay,
                momentum=self.momentum,
                lr=rate,
                dampening=0.0,
                nesterov=self.momentum > 0,
                maximize=False,
                is_first_step=False,
                found_inf=None if part is None else still_M[part],
            )


class Steps:
    """The steps of a training, launched or replayed: the same function, and the same bits."""

    def __init__(self, model: MultimodalNet, recipe: Recipe, mitigation: Mitigation, extra: nn.Module | None):
        self.model, self.mitigation = model, mitigation
        own = [hosted(extra)] if extra else []
        self.norms = [*model.norms[REST], *norms(*own)]
        self.dropping = {**model.dropping, REST: [*model.dropping[REST], *dropping(*own)]}
        self.optimiser = Optimiser(model, extra, recipe)
        self.loss_sum = self.optimiser.parameters[0].new_zeros(()).detach()
        self.checked, self.launched = False, False
        self.held: Batch | None = None
        self.known: State | None = None
        self.replay: tuple[State, Callable[[], None]] | None = None
        self.passing: Container[str] = ()  # what hooks leave for later hooks of the same step

    @classmethod
    def of(
        cls, model: MultimodalNet, recipe: Recipe, mitigation: Mitigation, key: Sequence[object] = ()
    ) -> "Steps":
        """For a new training: as recorded before where nothing else could be recorded now."""
        device = model.head.weight.device
        with torch.random.fork_rng([device] if device.type == "cuda" else []):
            torch.manual_seed(stream_seed(*key, "mitigation"))
            with at_work(f"{type(mitigation).__name__}.start", type(mitigation)):
                extra = mitigation.start(model, recipe.epochs)
        if not model.engine.record or extra is not None or contents(vars(mitigation))[0]:
            return cls(model, recipe, mitigation, extra)
        alike = (id(model), recipe.weight_decay, recipe.momentum, recipe.batch_size, state_of(mitigation))
        steps: Steps = model.engine.keep("steps", alike, lambda: cls(model, recipe, mitigation, None))
        torch._foreach_zero_(steps.optimiser.velocity)
        steps.mitigation = mitigation
        return steps

    def start_epoch(self, epoch: int) -> None:
        self.model.train()
        self.loss_sum.zero_()
        with at_work(f"{type(self.mitigation).__name__}.start_epoch", type(self.mitigation)):
            self.mitigation.start_epoch(self.model, epoch)
        self.known = None

    def take(self, batch: Batch, where: str) -> str | None:
        """One step. What there is to tell of it: that it could not be recorded. A PartError, with its name,
        for what a part of the model or a hook raises.
        """
        try:
            return self._take(batch, where)
        except Exception as error:
            owner, name = culprit_of(error, (Mitigation, nn.Module))
            if isinstance(error, MindGapError) or out_of_memory(error):
                raise
            raise failed(f"{where}: {name or 'a step'}", error, file_of(type(owner))) from error

    def _take(self, batch: Batch, where: str) -> str | None:
        if not self.model.engine.record or self.launched:
            self.launch(batch, where)
            return None
        if self.held is None:
            self.held = batch.copy()
        torch._foreach_copy_(self.held.tensors, batch.tensors)
        # Between the steps of an epoch no hook runs, so nothing a mitigation holds changes there.
        self.known = self.known or state_of(self.mitigation, self.passing)
        if self.replay is None or self.replay[0] != self.known:
            recorded = self._record(self.held, where)
            if isinstance(recorded, str):
                self.launched, self.replay = True, None
                self.launch(self.held, where)
                return f"{where}: {recorded}: the steps of this run are launched one by one, which is slower"
            self.replay = self.known, recorded
        self.replay[1]()
        return None

    def _record(self, batch: Batch, where: str) -> Callable[[], None] | str:
        """The step as a recording; or why it cannot be done, and then the mitigation is as it was."""
        held: dict[str, Any] = vars(self.mitigation)
        made: list[list[Any]] = []
        tensors, modules, _ = contents(held)
        state = [*self.model.state_dict().values(), *self.optimiser.parameters, *self.optimiser.velocity]
        same = {id(x): x for x in (*tensors, *modules)}  # their values are put back, the rest is a copy
        before = {name: copied(value, same) for name, value in held.items()}

        def step() -> None:
            self.launch(batch, where)
            made.append([value for name, value in held.items() if name not in before])

        try:
            replay = recorded_step(step, [*state, self.loss_sum, *tensors])
            passing = held.keys() - before
            if passes_on(made) and state_of(self.mitigation, passing) == self.known:
                self.passing = passing
                return replay
            reason = f"{type(self.mitigation).__name__} changes in a step what is no tensor, or not in place"
        except torch.OutOfMemoryError:
            raise
        except RuntimeError as error:
            reason = f"{culprit(error, (Mitigation, nn.Module))} looks at a value, so no step can be recorded"
        held.clear()
        held.update(before)
        return reason

    def launch(self, batch: Batch, where: str) -> None:
        """The step itself. The first is watched: whatever draws from torch's own generators is refused."""
        if self.checked:
            return self._step(batch)
        before = random_states(self.loss_sum.device)
        self._step(batch)
        self.checked = True
        if not all(map(torch.equal, before, random_states(self.loss_sum.device))):
            raise MindGapError(
                f"{where}: a layer, or a hook of the mitigation, draws from torch's own generator, so no run "
                f"could be repeated. Use nn.Dropout as a module of the model, or of what `start` returns, or "
                f"mindgap.base.hosted"
            )

    def _step(self, batch: Batch) -> None:
        model, mitigation, padded = self.model, self.mitigation, not batch.rows
        weight_B = batch.weight_B if padded else None
        counting(self.norms, model.rows_of(batch.weight_B) if padded and self.norms else None)
        for part, key_B in batch.keys.items():
            draw(self.dropping[part], key_B)
        with autocast(self.loss_sum.device):
            tokens_BMD = model.tokens(batch.x, batch.rows, batch.present_BM, weight_B)
            fused_BH, reliability_BM = model.fuse_and_weigh(tokens_BMD, batch.present_BM)
            step = Step(
                batch.ids_B,
                batch.x,
                batch.present_BM,
                tokens_BMD,
                model.classify(fused_BH),
                batch.y_B,
                batch.epoch,
                model,
                batch.weight_B,
                reliability_BM,
            )
            losses = check_losses(f"{type(mitigation).__name__}.loss", mitigation.loss(step))
        settle(self.norms)
        gradients = mitigation.gradients(step, self._gradients(losses))
        hook = f"{type(mitigation).__name__}.gradients"
        gradients = check_gradients(hook, gradients, self.optimiser.parameters)
        self.optimiser.step(gradients, batch.rate, batch.still_M)
        mitigation.after_step(step)
        self.loss_sum.add_(sum(loss.detach() for loss in losses.values()))

    def _gradients(self, losses: Mapping[str, Tensor]) -> dict[str, Sequence[Tensor]]:
        last, parameters = list(losses)[-1], self.optimiser.parameters
        return {
            name: torch.autograd.grad(loss, parameters, retain_graph=name != last, materialize_grads=True)
            for name, loss in losses.items()
        }


def random_states(device: torch.device) -> list[Tensor]:
    """Of the generators that torch's own operations draw from."""
    on_gpu = [torch.cuda.get_rng_state(device)] if device.type == "cuda" else []
    return [torch.get_rng_state(), *on_gpu]


def contents(held: object) -> tuple[list[Tensor], list[nn.Module], list[str]]:
    """All tensors in a value and in what it holds, those of modules too; the modules; all else as text."""
    tensors: list[Tensor] = []
    modules: list[nn.Module] = []
    texts: list[str] = []
    left, seen = [held], set[int]()
    while left:
        one = left.pop()
        if isinstance(one, Tensor):
            tensors.append(one)
        elif isinstance(one, nn.Module):
            modules += one.modules()
            tensors += [*one.parameters(), *one.buffers()]
        elif (parts := held_parts(one)) is None:
            texts.append(repr(one))
        elif id(one) not in seen:
            seen.add(id(one))
            left += parts
    return tensors, modules, texts


def held_parts(held: object) -> list[Any] | None:
    """What a container or an object holds; None where there are no parts."""
    if isinstance(held, Mapping):
        return [*held, *held.values()]
    if isinstance(held, list | tuple | set | frozenset):
        return list(held)
    if isinstance(held, type | ModuleType | Callable) or not hasattr(held, "__dict__"):
        return None
    return list(vars(held).values())


def copied(held: object, same: dict[int, Any]) -> object:
    """A deep copy but for what is in `same`; what cannot be copied is the same one too."""
    try:
        return copy.deepcopy(held, same)
    except TypeError:
        return held


def passes_on(made: Sequence[object]) -> bool:
    """Whether what hooks made in several steps are tensors, others in each: passed on from hook to hook."""
    found = [contents(one) for one in made]
    tensors = [{id(x) for x in tensors} for tensors, _, _ in found]
    return not set.intersection(*tensors) and not any(texts for _, _, texts in found)


def state_of(mitigation: Mitigation, without: Container[str] = ()) -> State:
    """What a mitigation is and holds, where its tensors lie: a recording is of one such state."""
    held = {name: value for name, value in vars(mitigation).items() if name not in without}
    tensors, _, texts = contents(held)
    return type(mitigation), *texts, *((x.data_ptr(), x.shape, x.stride(), x.dtype) for x in tensors)


def validation(model: MultimodalNet, train: Split, ids: Tensor) -> tuple[Tensor, Tensor]:
    """Balanced accuracy on the validation samples as they are, with the modalities each one has, and how many
    of the predictions are not finite; still on their device. `ids` on the host.
    """
    there = send(ids, train.y_N.device)
    probs_NC = predict(model, encode(model, train, ids), train.present_NM[there])
    return mean_recall(probs_NC, train.y_N[there]), not_finite(probs_NC).double()


def parameter_groups(model: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Weight decay on matrices and kernels only: biases, norms and embeddings of one axis are left alone.

    By the number of axes, not by name: a search for "bn" misses torchvision's batch norms.
    """
    decayed: list[nn.Parameter] = []
    free: list[nn.Parameter] = []
    for name, parameter in model.named_parameters():
        free_one = parameter.dim() <= 1 or name.endswith("modality_MD")
        (free if free_one else decayed).append(parameter)
    return [{"params": decayed, "weight_decay": weight_decay}, {"params": free, "weight_decay": 0.0}]

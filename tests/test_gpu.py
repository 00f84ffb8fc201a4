"""What a GPU needs, checked without one as far as that goes: tensors without memory have its device."""

import contextlib
import copy
import dataclasses
import re

import pytest
import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn.functional import cross_entropy

from mindgap.base import gpu, hosted
from mindgap.base.gpu import Engine
from mindgap.base.modality import Modality
from mindgap.base.settings import parameters
from mindgap.core import training
from mindgap.core.batches import Batch, Batches, Recipe
from mindgap.core.evaluation import encode, predict
from mindgap.core.network import REST, STORED, ModelSpec, build_model, place
from mindgap.parts.fusions import FUSIONS
from mindgap.parts.mitigations import MITIGATIONS, Mitigation

RECIPE = Recipe(
    epochs=4,
    batch_size=16,
    learning_rate=0.1,
    weight_decay=5e-4,
    augmentation="basic",
    class_balanced=False,
    momentum=0.9,
    warmup_epochs=1,
    min_samples_per_epoch=0,
    validate_from=0.5,
)
CPU = torch.device("cpu")
IMAGE, TOKENS = Modality("image", (32, 32, 3)), Modality("tokens", (12,))
SIGNAL, TABLE = Modality("signal", (12, 250)), Modality("table", (7,))


def on_a_pretended_gpu(model: nn.Module) -> nn.Module:
    """Its weights as tensors without memory that say they are on a GPU; under a FakeTensorMode."""
    for module in model.modules():
        for name, weight in module._parameters.items():
            if weight is not None:
                module._parameters[name] = nn.Parameter(torch.empty(weight.shape, device="cuda"))
        for name, buffer in module._buffers.items():
            if buffer is not None:
                module._buffers[name] = torch.empty(buffer.shape, dtype=buffer.dtype, device="cuda")
    return model


def pretended_batch(modalities, size: int = 8) -> Batch:
    """A padded batch on the pretended GPU."""
    there = torch.device("cuda")
    zeros = {
        name: torch.zeros((size, *m.shape), dtype=STORED[m.kind]).to(there) for name, m in modalities.items()
    }
    key_B = torch.zeros(size, dtype=torch.int64).to(there)
    present_BM = torch.ones((size, len(modalities)), dtype=torch.bool).to(there)
    one_B, one = torch.ones(size).to(there), torch.ones(()).to(there)
    keys = dict.fromkeys((*modalities, REST), key_B)
    return Batch(zeros, {}, keys, key_B, present_BM, key_B, one_B, present_BM[0].float(), one, one)


def without_kernels_of_a_gpu(monkeypatch) -> None:
    """Twins in place of the kernels that a CPU's torch has no pretended ones of."""
    monkeypatch.setattr(training, "autocast", lambda device: contextlib.nullcontext())
    monkeypatch.setattr(hosted, "_fused", hosted._plain)
    monkeypatch.setattr(torch, "_fused_sgd_", lambda *_, **__: None)
    monkeypatch.setattr(training, "random_states", lambda device: [])
    # Autograd asks the driver for the device's context.
    monkeypatch.setattr(
        training.Steps, "_gradients", lambda s, losses: dict.fromkeys(losses, s.optimiser.parameters)
    )


ENCODERS = {
    "tiny": {"image": {"name": "tiny"}, "tokens": {"name": "bag"}, "signal": {"name": "tiny"}},
    "paper": {
        "image": {"name": "efficientnet_b0"},
        "tokens": {"name": "minilm", "pretrained": False},
        "signal": {"name": "efficientnet1d_b0"},
    },
}


@pytest.mark.filterwarnings("ignore:Accessing the data pointer of FakeTensor")
@pytest.mark.parametrize("absent", ["skip", "zeros"])
@pytest.mark.parametrize(
    ("kind", "fusion"), [("paper", "transformer"), *(("tiny", name) for name in FUSIONS)]
)
@pytest.mark.parametrize("modalities", [{"a": IMAGE, "b": IMAGE}, {"a": TOKENS, "b": SIGNAL, "c": TABLE}])
def test_a_step_reads_no_value_and_stays_on_the_device(modalities, kind, fusion, absent, monkeypatch):
    """With models of all kinds, and several losses."""
    without_kernels_of_a_gpu(monkeypatch)
    own = {"dropout": 0.1} if "dropout" in parameters(FUSIONS[fusion], 2) else {}
    encoders = {**ENCODERS[kind], "table": {"name": "mlp"}}
    spec = ModelSpec(encoders, {"name": fusion, **own}, 32, 0.1, absent=absent)
    model = build_model(modalities, 10, spec, seed=0)
    with FakeTensorMode():
        on_a_pretended_gpu(model)
        batch = pretended_batch(modalities)
        steps = training.Steps(model.train(), RECIPE, Subsets(), None)
        steps.launch(batch, "here")
        assert steps.loss_sum.device.type == "cuda"
        assert {x.device.type for x in steps.mitigation.seen} == {"cuda"}
        model.eval()
        with torch.no_grad():
            tokens_BMD = model.tokens(batch.x, {}, batch.present_BM, batch.weight_B)
            logits = model.logits(tokens_BMD, batch.present_BM)
        assert (logits.device.type, logits.shape) == ("cuda", (8, 10))


class Subsets(Mitigation):
    """A loss of all modalities and one of the first, weights of samples, gradients of both."""

    seen = ()

    def loss(self, step):
        first_M = torch.arange(step.present.shape[1], device=step.present.device) == 0
        alone = step.logits if step.model.spec.absent == "zeros" else step.logits_of(first_M)
        losses_B = cross_entropy(alone, step.labels, reduction="none")
        return {"all": super().loss(step), "first": step.mean(losses_B, losses_B.detach() * step.epoch)}

    def gradients(self, step, gradients):
        self.seen = [*gradients["all"], *gradients["first"], step.weight, step.tokens]
        return [a + 0.5 * b for a, b in zip(gradients["all"], gradients["first"], strict=True)]


@pytest.mark.filterwarnings("ignore:Accessing the data pointer of FakeTensor")
def test_a_pass_that_reads_presence_on_the_device_is_noticed():
    model = build_model({"a": IMAGE}, 3, ModelSpec(width=8), seed=0)
    with FakeTensorMode():
        on_a_pretended_gpu(model)
        batch = pretended_batch({"a": IMAGE})
        with pytest.raises(Exception, match=r"nonzero"):
            model.encode(batch.x, batch.present_BM)


@pytest.mark.parametrize("mitigation", MITIGATIONS)
@pytest.mark.parametrize("augmentation", ["basic", "randaugmc"])
def test_batches_made_at_once_are_those_made_one_by_one(make_dataset, augmentation, mitigation):
    """A GPU's way, in blocks, beside the CPU's, on the CPU."""
    dataset = make_dataset(absent=0.5)
    spec = ModelSpec(width=16, min_present=4)
    model = build_model(dataset.modalities, dataset.num_classes, spec, seed=0)
    recipe = dataclasses.replace(RECIPE, augmentation=augmentation)

    def epochs(at_once: int) -> list[Batch]:
        batches = Batches(dataset.train, torch.arange(70), recipe, MITIGATIONS[mitigation](), model, (0,))
        batches.at_once = at_once
        return [batch for _ in range(3) for batch in batches.epoch()]

    one_by_one, at_once = epochs(1), epochs(3)
    assert [len(b.y_B) for b in one_by_one] == [16, 16, 16, 16, 6] * 3
    for one, other in zip(one_by_one, at_once, strict=True):
        assert all(map(torch.equal, one.tensors, other.tensors))
        for m, name in enumerate(dataset.modalities):
            assert torch.equal(one.rows[name], one.present_BM[:, m].nonzero().squeeze(1))


def test_a_modality_with_too_few_rows_sits_the_step_out(make_dataset):
    dataset = make_dataset(absent=0.7)
    model = build_model(dataset.modalities, dataset.num_classes, ModelSpec(width=16, min_present=7), seed=0)
    batches = Batches(dataset.train, torch.arange(160), RECIPE, Mitigation(), model, (0,))
    counts = [batch.present_BM[:, m].sum().item() for batch in batches.epoch() for m in range(2)]
    assert 0 in counts
    assert min(count for count in counts if count) >= 7


def test_what_is_not_recorded_is_called_plainly(monkeypatch):
    monkeypatch.setattr(gpu, "_recorded_pass", lambda *_: pytest.fail("recorded"))
    passes, layer = gpu.Passes(), nn.Linear(3, 2)
    x = torch.rand(4, 3)
    for _ in range(2 * gpu.RECORD_AT):
        assert torch.equal(passes(True, "linear", layer, x), layer(x))  # with gradients
        with torch.no_grad():
            assert torch.equal(passes(False, "linear", layer, x), layer(x))
    assert gpu.send(x, CPU) is x


def test_a_pass_is_recorded_when_its_shape_comes_again(monkeypatch):
    made = []
    monkeypatch.setattr(
        gpu, "_recorded_pass", lambda f, inputs: made.append(len(inputs[0])) or (lambda *x: 7)
    )
    passes = gpu.Passes()
    with torch.no_grad():
        given = [passes(True, "name", lambda x: 1, torch.zeros(rows)) for rows in (4, 5, 4, 4, 5)]
    assert (given, made) == ([1, 1, 7, 7, 7], [4, 5])


def test_the_hook_in_which_an_error_arose_is_named():
    class Looking(Mitigation):
        def loss(self, step):
            return self.helped()

        def helped(self):
            raise RuntimeError("called a synchronizing CUDA operation")

    with pytest.raises(RuntimeError) as caught:
        Looking().loss(None)
    assert gpu.culprit(caught.value, (Mitigation,)) == "Looking.helped"
    assert gpu.culprit(RuntimeError("CUDA error\nmore"), (Mitigation,)) == "CUDA error"


def test_the_hook_is_named_where_ending_the_recording_fails_too(monkeypatch):
    class Looking(Mitigation):
        def loss(self, step):
            raise RuntimeError("not permitted when a stream is capturing")

    @contextlib.contextmanager
    def graph(*_, **__):
        try:
            yield
        except RuntimeError:
            raise RuntimeError("capture was invalidated")  # noqa: B904

    monkeypatch.setattr(torch.cuda, "CUDAGraph", object)
    monkeypatch.setattr(torch.cuda, "graph", graph)
    with pytest.raises(RuntimeError, match="invalidated") as caught:
        gpu.captured(lambda: Looking().loss(None))
    assert gpu.culprit(caught.value, (Mitigation,)) == "Looking.loss"
    try:
        Looking().loss(None)
    except RuntimeError:
        with pytest.raises(RuntimeError) as caught:
            raise RuntimeError("another")  # noqa: B904
    assert gpu.culprit(caught.value, (Mitigation,)) == "another"


def recording_on_the_cpu(monkeypatch) -> list[int]:
    """In place of CUDA graphs: warm-ups that leave no trace, then the step itself. Counts recordings."""
    made = []

    def recorded_step(step, state):
        before = [x.clone() for x in state]
        try:
            for _ in range(gpu.WARM_UP):
                step()
        finally:
            torch._foreach_copy_([x.detach() for x in state], before)
        made.append(len(state))
        return step

    monkeypatch.setattr(training, "recorded_step", recorded_step)
    monkeypatch.setattr(gpu, "_recorded_pass", lambda function, inputs: function)
    return made


class Momentum(Mitigation):
    """Keeps a mean of its losses in a tensor and weighs samples by it; a new one each training."""

    def start(self, model, epochs):
        self.mean = torch.zeros((), device=model.head.weight.device)

    def loss(self, step):
        losses_B = cross_entropy(step.logits, step.labels, reduction="none")
        return step.mean(losses_B, 1 + (losses_B.detach() > self.mean))

    def after_step(self, step):
        self.mean.mul_(0.9).add_(
            step.mean(cross_entropy(step.logits, step.labels, reduction="none")).detach()
        )


@pytest.mark.parametrize(("mitigation", "recordings"), [(MITIGATIONS["moddrop"], 1), (Momentum, 2)])
def test_warm_ups_leave_no_trace_and_a_recording_serves_all_that_is_alike(
    make_dataset, monkeypatch, mitigation, recordings
):
    """What a mitigation keeps in tensors is another in each training, so nothing older may be replayed."""
    dataset, made = make_dataset(), recording_on_the_cpu(monkeypatch)
    expected = [trained(dataset, mitigation, Engine(CPU, True, False), seed=seed) for seed in (0, 1)]
    engine = gpu.Engine(CPU, pad=True, record=True)
    shared = build_model(dataset.modalities, dataset.num_classes, SPEC, 0)
    for seed, (result, weights, probs) in enumerate(expected):
        shared.load_state_dict(build_model(dataset.modalities, dataset.num_classes, SPEC, seed).state_dict())
        again, others, probs_again = trained(dataset, mitigation, engine, seed=seed, model=shared)
        assert again == result
        assert all(torch.equal(weights[name], others[name]) for name in weights)
        assert torch.equal(probs, probs_again)
    assert len(made) == recordings


class Replacing(Mitigation):
    """Keeps its losses in ways that a recording cannot follow."""

    def start(self, model, epochs):
        self.mean, self.told, self.steps = torch.zeros((), dtype=torch.float64), {"losses": []}, 0

    def after_step(self, step):
        self.mean = 0.5 * self.mean + step.logits.detach().double().mean()
        self.told["losses"].append(self.mean)
        self.steps += 1


def test_what_a_mitigation_keeps_is_as_if_no_recording_had_been_tried(make_dataset, monkeypatch):
    dataset, made = make_dataset(), recording_on_the_cpu(monkeypatch)
    kept = []
    for record in (False, True):
        model = build_model(dataset.modalities, dataset.num_classes, SPEC, 0)
        place(model, gpu.Engine(CPU, pad=True, record=record), RECIPE.batch_size)
        mitigation, ids = Replacing(), torch.arange(160)
        turns = training.fit_in_turns(
            model, dataset.train, ids[:96], ids[96:], RECIPE, mitigation, (0,), "here"
        )
        assert len([turn for turn in turns if turn]) == record
        kept.append(
            (mitigation.steps, mitigation.mean.item(), torch.stack(mitigation.told["losses"]).tolist())
        )
    assert len(made) == 1
    assert kept[0] == kept[1]


class Passing(Mitigation):
    """One hook leaves its losses for the next."""

    def loss(self, step):
        self.losses_B = cross_entropy(step.logits, step.labels, reduction="none")
        return step.mean(self.losses_B)

    def after_step(self, step):
        assert self.losses_B.shape == step.labels.shape


class Lazy(Mitigation):
    """Makes what it keeps when it first needs it."""

    def after_step(self, step):
        if not hasattr(self, "mean"):
            self.mean = torch.zeros(())
        self.mean.add_(1)


@pytest.mark.parametrize(("mitigation", "recorded"), [(Passing, True), (Lazy, False)])
def test_what_passes_from_hook_to_hook_is_recorded_and_what_stays_is_not(
    make_dataset, monkeypatch, mitigation, recorded
):
    dataset, made = make_dataset(), recording_on_the_cpu(monkeypatch)
    model = build_model(dataset.modalities, dataset.num_classes, SPEC, 0)
    place(model, gpu.Engine(CPU, pad=True, record=True), RECIPE.batch_size)
    mitigation, ids = mitigation(), torch.arange(160)
    turns = training.fit_in_turns(model, dataset.train, ids[:96], ids[96:], RECIPE, mitigation, (0,), "here")
    turns = list(turns)
    assert any(turns) != recorded
    assert len(made) == 1
    if not recorded:
        assert mitigation.mean == len(turns)


def test_a_tensor_that_is_replaced_between_epochs_is_recorded_anew(make_dataset, monkeypatch):
    class Weighing(Mitigation):
        def start_epoch(self, model, epoch):
            self.factor = torch.full((), 1.0 + epoch)
            self.shares = [torch.ones(()), 0.5 * epoch]

        def loss(self, step):
            return super().loss(step) * self.factor

    dataset, made = make_dataset(), recording_on_the_cpu(monkeypatch)
    engine = gpu.Engine(CPU, pad=True, record=True)
    trained(dataset, Weighing, engine)
    assert len(made) == RECIPE.epochs


def test_a_copy_of_a_model_replays_nothing_of_the_original(monkeypatch):
    monkeypatch.setattr(gpu, "_recorded_pass", lambda function, inputs: function)
    model = build_model({"a": Modality("table", (3,))}, 2, SPEC, 0)
    place(model, gpu.Engine(CPU, pad=True, record=True), 4).eval()
    x = torch.rand(2, 3)
    with torch.no_grad():
        for _ in range(2):
            model.passes(True, "a", lambda x: model.tokens_of("a", x), x)
        twin = copy.deepcopy(model)
        torch.nn.init.zeros_(twin.projections["a"][-1].weight)
        again = twin.passes(True, "a", lambda x: twin.tokens_of("a", x), x)
    assert torch.equal(again, twin.tokens_of("a", x))
    assert twin.engine is model.engine


@pytest.mark.parametrize(
    ("hook", "line"),
    [
        ("loss", r"here: \w+\.loss looks at a value, so no step can be recorded: the steps of this run are"),
        (
            "after_step",
            r"here: Counting changes in a step what is no tensor, or not in place: the steps of this run are",
        ),
    ],
)
def test_a_run_that_cannot_be_recorded_is_launched_and_says_why(make_dataset, monkeypatch, hook, line):
    class Counting(Mitigation):
        steps = 0

        def loss(self, step):
            if hook == "loss" and watched:
                raise RuntimeError("called a synchronizing CUDA operation")
            return super().loss(step)

        def after_step(self, step):
            self.steps += hook == "after_step"

    dataset, watched = make_dataset(), []
    recording_on_the_cpu(monkeypatch)
    recorded_step = training.recorded_step

    def watching(step, state):
        watched.append(True)
        try:
            return recorded_step(step, state)
        finally:
            watched.clear()

    monkeypatch.setattr(training, "recorded_step", watching)
    model = build_model(dataset.modalities, dataset.num_classes, SPEC, 0)
    place(model, gpu.Engine(CPU, pad=True, record=True), RECIPE.batch_size)
    ids = torch.arange(160)
    turns = training.fit_in_turns(model, dataset.train, ids[:96], ids[96:], RECIPE, Counting(), (0,), "here")
    said = [turn for turn in turns if turn]
    assert len(said) == 1
    assert re.match(line, said[0])
    _, weights, _ = trained(dataset, Mitigation, Engine(CPU, True, False))
    assert all(torch.equal(weights[name], value) for name, value in model.state_dict().items())


def test_repeat_calls_as_often_as_asked():
    counter = torch.zeros(())
    gpu.repeat(lambda: counter.add_(1), 11, CPU)
    assert counter == 11


SPEC = ModelSpec(
    fusion={"name": "transformer", "dropout": 0.1}, width=16, projection_dropout=0.1, head_dropout=0.25
)


def trained(dataset, mitigation: type, engine: Engine, seed: int = 0, model=None):
    """Result, weights and predictions of a training."""
    ids = torch.arange(len(dataset.train))
    model = model or build_model(dataset.modalities, dataset.num_classes, SPEC, seed)
    model = place(model, engine, RECIPE.batch_size)
    result = training.fit(model, dataset.train, ids[:96], ids[96:], RECIPE, mitigation(), (seed,), "here")
    weights = {name: value.cpu().clone() for name, value in model.state_dict().items()}
    tokens_NMD = encode(model, dataset.test)
    return result, weights, predict(model, tokens_NMD, dataset.test.present_NM).cpu()


@pytest.mark.gpu
@pytest.mark.parametrize("mitigation", [*MITIGATIONS.values(), Momentum, Subsets])
def test_recorded_steps_give_the_numbers_of_launched_ones(make_dataset, mitigation):
    """Bit for bit: else a run would depend on what its worker had recorded before."""
    dataset, device = make_dataset().to("cuda"), torch.device("cuda")
    eager, weights, probs = trained(dataset, mitigation, Engine(device, pad=True, record=False))
    engine = Engine.of(device)
    for _ in range(3):
        recorded, again, probs_again = trained(dataset, mitigation, engine)
        assert recorded == eager
        assert all(torch.equal(weights[name], again[name]) for name in weights)
        assert torch.equal(probs, probs_again)


@pytest.mark.gpu
@pytest.mark.parametrize("fusion", FUSIONS)
def test_recorded_steps_of_every_fusion_give_the_numbers_of_launched_ones(make_dataset, fusion):
    dataset, device = make_dataset().to("cuda"), torch.device("cuda")
    spec, ids, found = dataclasses.replace(SPEC, fusion={"name": fusion}), torch.arange(160), []
    for engine in (Engine(device, pad=True, record=False), Engine.of(device)):
        model = build_model(dataset.modalities, dataset.num_classes, spec, 0)
        model = place(model, engine, RECIPE.batch_size)
        training.fit(model, dataset.train, ids[:96], ids[96:], RECIPE, Mitigation(), (0,), "here")
        found.append(predict(model, encode(model, dataset.test), dataset.test.present_NM))
    assert torch.equal(*found)


@pytest.mark.gpu
def test_a_hook_that_looks_at_a_value_is_named_and_its_run_goes_on(make_dataset):
    class Looking(Mitigation):
        def loss(self, step):
            return super().loss(step) * (1 if step.logits.sum().item() else 2)

    dataset, ids = make_dataset().to("cuda"), torch.arange(160)
    model = build_model(dataset.modalities, dataset.num_classes, SPEC, 0)
    model = place(model, Engine.of("cuda"), RECIPE.batch_size)
    said = [
        turn
        for turn in training.fit_in_turns(
            model, dataset.train, ids[:96], ids[96:], RECIPE, Looking(), (0,), "here"
        )
        if turn
    ]
    assert len(said) == 1
    assert "Looking.loss looks at a value" in said[0]


@pytest.mark.gpu
def test_a_training_on_a_gpu_follows_the_cpu(make_dataset):
    """bf16 has 8 bits: the first epochs' losses agree to 5 %."""
    dataset = make_dataset()
    here, *_ = trained(dataset, Mitigation, Engine.of("cpu"))
    there, *_ = trained(dataset.to("cuda"), Mitigation, Engine.of("cuda"))
    assert there.losses[:2] == pytest.approx(here.losses[:2], rel=0.05)


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_kernels_of_a_masked_norm_give_what_plain_operations_give(dtype):
    torch.manual_seed(0)
    x = torch.randn(12, 8, 5, 5, device="cuda").to(dtype).to(memory_format=torch.channels_last)
    weight_B = (torch.arange(12, device="cuda") % 3 > 0).float()
    towards = torch.randn(12, 8, 5, 5, device="cuda") * weight_B.view(-1, 1, 1, 1)
    found = []
    for function in (hosted._fused, hosted._plain):
        gamma, beta = torch.full((8,), 1.5, device="cuda"), torch.full((8,), 0.5, device="cuda")
        inputs = [one.detach().clone().requires_grad_() for one in (x, gamma, beta)]
        out, mean, var = function(inputs[0], hosted.Rows(weight_B), 25, *inputs[1:], 1e-5)
        (out.float() * towards).sum().backward()
        found.append([out[weight_B > 0], mean, var, *(one.grad for one in inputs)])
    tolerance = 1e-4 if dtype == torch.float32 else 0.05
    for one, other in zip(*found, strict=True):
        assert torch.allclose(one.float(), other.float(), rtol=tolerance, atol=tolerance)


@pytest.mark.gpu
def test_repeated_steps_on_a_gpu_all_count():
    counter = torch.zeros((), device="cuda")
    gpu.repeat(lambda: counter.add_(1), 11, counter.device)
    assert counter == 11

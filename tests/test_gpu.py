"""What a GPU needs, checked without one as far as that goes: tensors without memory have its device."""

import contextlib
import dataclasses

import pytest
import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode

from mindgap import gpu, training
from mindgap.batches import Batch, Batches, Recipe
from mindgap.data.modality import Modality
from mindgap.evaluation import encode, predict
from mindgap.mitigations import MITIGATIONS, Mitigation
from mindgap.models.network import STORED, ModelSpec, build_model, place

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


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


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


def pretended_batch(modalities, counts, size: int = 8) -> Batch:
    x = {
        name: torch.zeros((count, *modality.shape), dtype=STORED[modality.kind])
        for (name, modality), count in zip(modalities.items(), counts, strict=True)
    }
    rows = {name: torch.zeros(len(x[name]), dtype=torch.long, device="cuda") for name in x}
    present = torch.ones((size, len(x)), dtype=torch.bool, device="cuda")
    y = torch.zeros(size, dtype=torch.long, device="cuda")
    return Batch({name: v.to("cuda") for name, v in x.items()}, rows, present, y)


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
@pytest.mark.parametrize("kind", ENCODERS)
@pytest.mark.parametrize("modalities", [{"a": IMAGE, "b": IMAGE}, {"a": TOKENS, "b": SIGNAL, "c": TABLE}])
def test_a_forward_pass_reads_no_value_and_stays_on_the_device(modalities, kind, absent, monkeypatch):
    monkeypatch.setattr(training, "autocast", lambda device: contextlib.nullcontext())
    spec = ModelSpec(width=32, encoder={**ENCODERS[kind], "table": {"name": "mlp"}}, absent=absent)
    model = build_model(modalities, 10, spec, seed=0)
    counts = [8] * len(modalities) if absent == "zeros" else [8, 5, 0][: len(modalities)]
    with FakeTensorMode(), gpu.graphs(False):
        on_a_pretended_gpu(model)
        batch = pretended_batch(modalities, counts)
        loss = Mitigation().loss(
            model.logits(model.tokens(batch.x, batch.rows, batch.present_BM), batch.present_BM), batch.y_B
        )
        assert (loss.device.type, loss.shape) == ("cuda", ())
        model.eval()
        with torch.no_grad():
            logits = model.logits(model.tokens(batch.x, batch.rows, batch.present_BM), batch.present_BM)
        assert (logits.device.type, logits.shape) == ("cuda", (8, 10))


@pytest.mark.filterwarnings("ignore:Accessing the data pointer of FakeTensor")
def test_a_pass_that_reads_presence_on_the_device_is_noticed():
    model = build_model({"a": IMAGE}, 3, ModelSpec(width=8), seed=0)
    with FakeTensorMode():
        on_a_pretended_gpu(model)
        batch = pretended_batch({"a": IMAGE}, [8])
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
        batches = Batches(dataset.train, torch.arange(70), recipe, MITIGATIONS[mitigation](), model, rng())
        batches.at_once = at_once
        return [batch for _ in range(3) for batch in batches.epoch()]

    one_by_one, at_once = epochs(1), epochs(3)
    assert [len(b.y_B) for b in one_by_one] == [16, 16, 16, 16, 6] * 3
    for one, other in zip(one_by_one, at_once, strict=True):
        assert torch.equal(one.y_B, other.y_B)
        assert torch.equal(one.present_BM, other.present_BM)
        for m, name in enumerate(dataset.modalities):
            assert torch.equal(one.rows[name], one.present_BM[:, m].nonzero().squeeze(1))
            assert torch.equal(one.rows[name], other.rows[name])
            assert torch.equal(one.x[name], other.x[name])


def test_a_modality_with_too_few_rows_sits_the_step_out(make_dataset):
    dataset = make_dataset(absent=0.7)
    model = build_model(dataset.modalities, dataset.num_classes, ModelSpec(width=16, min_present=7), seed=0)
    batches = Batches(dataset.train, torch.arange(160), RECIPE, Mitigation(), model, rng())
    counts = [batch.present_BM[:, m].sum().item() for batch in batches.epoch() for m in range(2)]
    assert 0 in counts
    assert min(count for count in counts if count) >= 7


def test_what_is_not_on_a_gpu_is_called_plainly(monkeypatch):
    monkeypatch.setattr(gpu, "record_training", lambda *_: pytest.fail("recorded"))
    recordings, layer = gpu.Recordings(), nn.Linear(3, 2)
    x = torch.rand(4, 3)
    for _ in range(2 * gpu.RECORD_AT):
        assert torch.equal(recordings("linear", layer, (layer,), x), layer(x))
    assert gpu.send(x, CPU) is x


@pytest.mark.filterwarnings("ignore:Accessing the data pointer of FakeTensor")
def test_a_shape_is_recorded_when_it_comes_again_and_again(monkeypatch):
    made = []

    def recorder(kind):
        def record(function, modules, inputs, pool):
            made.append((kind, len(inputs[0]), pool))
            return lambda *inputs: "replayed"

        return record

    monkeypatch.setattr(gpu, "record_training", recorder("training"))
    monkeypatch.setattr(gpu, "record_inference", recorder("inference"))
    monkeypatch.setattr(gpu, "MOST_RECORDINGS", 2)
    monkeypatch.setattr(torch.cuda, "graph_pool_handle", lambda: len(made))
    recordings, layer = gpu.Recordings(), nn.Linear(3, 2)

    def call(rows: int) -> bool:
        x = torch.empty((rows, 3), device="cuda")
        return recordings("name", lambda x: x, (layer,), x) == "replayed"

    with FakeTensorMode():
        assert [call(4) for _ in range(gpu.RECORD_AT + 1)] == [False] * (gpu.RECORD_AT - 1) + [True] * 2
        assert not call(5)
        layer.eval()
        assert not any(call(4) for _ in range(5))  # with gradients but not in training: plain
        with torch.no_grad():
            assert [call(4) for _ in range(gpu.RECORD_AT)][-1]
        layer.train()
        assert [call(rows) for rows in (6, 7) for _ in range(gpu.RECORD_AT)].count(True) == 1  # full at two
        with gpu.graphs(False):
            assert not call(4)
    assert [(kind, rows) for kind, rows, _ in made] == [("training", 4), ("inference", 4), ("training", 6)]
    assert made[0][2] == made[2][2] != made[1][2]


def test_repeat_calls_as_often_as_asked():
    counter = torch.zeros(())
    gpu.repeat(lambda: counter.add_(1), 11, CPU)
    assert counter == 11


def trained(dataset, mitigation: str, recorded: bool, seed: int = 0, repeats: int = 1):
    """Weights after `repeats` equal trainings in a row, which share what is recorded."""
    spec = ModelSpec(width=16, head_dropout=0.25, fusion_dropout=0.1)
    ids = torch.arange(len(dataset.train))
    with gpu.graphs(recorded):
        for _ in range(repeats):
            model = place(build_model(dataset.modalities, dataset.num_classes, spec, seed), dataset.device)
            hook = MITIGATIONS[mitigation]()
            result = training.fit(model, dataset.train, ids[:96], ids[96:], RECIPE, hook, rng(seed), "here")
    weights = {name: value.cpu().clone() for name, value in model.state_dict().items()}
    tokens_NMD = encode(model, dataset.test)
    return result, weights, predict(model, tokens_NMD, dataset.test.present_NM).cpu()


@pytest.mark.parametrize("mitigation", MITIGATIONS)
def test_a_placed_model_is_trained_like_any_other_on_the_cpu(make_dataset, mitigation):
    """The CPU twin of the next test: switching recordings off changes nothing."""
    dataset = make_dataset()
    (first, weights, probs), (second, again, probs_again) = (
        trained(dataset, mitigation, recorded) for recorded in (True, False)
    )
    assert first == second
    assert all(torch.equal(weights[name], again[name]) for name in weights)
    assert torch.equal(probs, probs_again)


@pytest.mark.gpu
@pytest.mark.parametrize("mitigation", MITIGATIONS)
def test_recorded_steps_give_the_numbers_of_launched_ones(make_dataset, mitigation):
    """Bit for bit: else a run would depend on what its worker had recorded before."""
    torch.backends.cudnn.deterministic = True
    dataset = make_dataset().to("cuda")
    eager, weights, probs = trained(dataset, mitigation, recorded=False)
    for repeats in (1, 3):
        recorded, again, probs_again = trained(dataset, mitigation, recorded=True, repeats=repeats)
        assert recorded == eager
        assert all(torch.equal(weights[name], again[name]) for name in weights)
        assert torch.equal(probs, probs_again)


@pytest.mark.gpu
def test_a_training_on_a_gpu_follows_the_cpu(make_dataset):
    """bf16 has 8 bits: the first epochs' losses agree to 5 %."""
    dataset = make_dataset()
    here, *_ = trained(dataset, "none", recorded=False)
    there, *_ = trained(dataset.to("cuda"), "none", recorded=True)
    assert there.losses[:2] == pytest.approx(here.losses[:2], rel=0.05)


@pytest.mark.gpu
def test_repeated_steps_on_a_gpu_all_count():
    counter = torch.zeros((), device="cuda")
    gpu.repeat(lambda: counter.add_(1), 11, counter.device)
    assert counter == 11

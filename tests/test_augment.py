"""Augmentation against Pillow, byte for byte: each operation alone, then the whole recipes."""

from contextlib import nullcontext

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw, ImageEnhance, ImageOps
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.overrides import TorchFunctionMode

from mindgap.base.gpu import nobody_waits
from mindgap.base.modality import Modality
from mindgap.parts.augment import images as augment
from mindgap.parts.augment import resized_crop
from mindgap.parts.augment.images import (
    AUGMENTATIONS,
    OPERATIONS,
    AugmentationError,
    Draws,
    apply_augmentation,
    apply_operations,
    augmentation,
    blend,
    cutout,
    draw_augmentation,
    draw_cutout,
    draw_flip_crop,
    draw_operations,
    flip_crop,
    pad_black,
    pad_reflected,
)

SIGNED_LEVELS = [sign * level for level in range(1, 10) for sign in (1, -1)]
PADDING = {pad_black: {"mode": "constant"}, pad_reflected: {"mode": "reflect"}}


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def drawn(name: str, x_BHWC: torch.Tensor, rng: torch.Generator, mirrors: bool = True) -> Draws:
    modality = Modality("image", tuple(x_BHWC.shape[1:]), mirrors)
    return draw_augmentation(name, modality, len(x_BHWC), rng)


def augmented(name: str, x_BHWC: torch.Tensor, rng: torch.Generator, mirrors: bool = True) -> torch.Tensor:
    return apply_augmentation(name, x_BHWC, drawn(name, x_BHWC, rng, mirrors))


def in_pillow(name: str, image: Image.Image, level: int) -> Image.Image:
    """The operation as FixMatch states it; the level's sign is the coin flip."""
    strength, shift = abs(level), level * 0.3 / 10
    factor = strength * 0.9 / 10 + 0.05
    left, down = int(shift * image.width), int(shift * image.height)
    call = {
        "AutoContrast": lambda: ImageOps.autocontrast(image),
        "Brightness": lambda: ImageEnhance.Brightness(image).enhance(factor),
        "Color": lambda: ImageEnhance.Color(image).enhance(factor),
        "Contrast": lambda: ImageEnhance.Contrast(image).enhance(factor),
        "Equalize": lambda: ImageOps.equalize(image),
        "Identity": lambda: image,
        "Posterize": lambda: ImageOps.posterize(image, 4 + int(strength * 4 / 10)),
        "Rotate": lambda: image.rotate(int(np.sign(level)) * int(strength * 30 / 10)),
        "Sharpness": lambda: ImageEnhance.Sharpness(image).enhance(factor),
        "ShearX": lambda: affine(image, 1, shift, 0, 0, 1, 0),
        "ShearY": lambda: affine(image, 1, 0, 0, shift, 1, 0),
        "Solarize": lambda: ImageOps.solarize(image, 256 - int(strength * 256 / 10)),
        "TranslateX": lambda: affine(image, 1, 0, left, 0, 1, 0),
        "TranslateY": lambda: affine(image, 1, 0, 0, 0, 1, down),
    }
    return call[name]()


def affine(image: Image.Image, *matrix: float) -> Image.Image:
    return image.transform(image.size, Image.Transform.AFFINE, matrix)


def to_pillow(x_HWC: torch.Tensor) -> Image.Image:
    array = x_HWC.numpy()
    return Image.fromarray(array if array.shape[2] == 3 else array[:, :, 0])


def from_pillow(image: Image.Image) -> torch.Tensor:
    return torch.from_numpy(np.asarray(image).copy()).reshape(image.height, image.width, -1)


def noise(count: int, height: int, width: int, channels: int = 3, seed: int = 0) -> torch.Tensor:
    shape = (count, height, width, channels)
    return torch.randint(256, shape, generator=seeded(seed), dtype=torch.uint8)


def pictures(height: int, width: int, channels: int) -> torch.Tensor:
    """Noise, waves, one value, two neighbouring values, some dark pixels, half white, a narrow range."""
    rough = noise(1, height, width, channels)[0]
    y, x = torch.meshgrid(torch.linspace(0, 1, height), torch.linspace(0, 1, width), indexing="ij")
    waves = torch.stack([(torch.sin(3 * x + c) + torch.cos(5 * y - c) + 2) / 4 for c in range(channels)], -1)
    left = torch.arange(width)[None, :, None] < width // 2
    return torch.stack(
        [
            rough,
            (20 + 200 * waves).to(torch.uint8),
            torch.full_like(rough, 77),
            (10 + left.expand(rough.shape).int()).to(torch.uint8),
            torch.where(rough < 3, rough, 200),
            torch.where(left, rough, 255),
            100 + rough % 8,
        ]
    )


@pytest.mark.parametrize("size", [(32, 32), (64, 64), (24, 40), (17, 5)])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("name", OPERATIONS)
def test_operation_gives_pillows_bytes(name, channels, size):
    images = pictures(*size, channels)
    x_BHWC = images.repeat_interleave(len(SIGNED_LEVELS), 0)
    levels = SIGNED_LEVELS * len(images)
    before = x_BHWC.clone()
    out_BHWC = OPERATIONS[name](x_BHWC, torch.tensor(levels))
    assert torch.equal(x_BHWC, before)
    assert out_BHWC.dtype == torch.uint8
    for x, level, out in zip(x_BHWC, levels, out_BHWC, strict=True):
        assert torch.equal(out, from_pillow(in_pillow(name, to_pillow(x), level))), level


@pytest.mark.parametrize("level", range(1, 10))
def test_blends_of_all_pairs_of_bytes(level):
    x = torch.arange(256, dtype=torch.uint8).expand(256, 256)
    image, towards = Image.fromarray(x.numpy()), Image.fromarray(x.T.contiguous().numpy())
    ours = blend(x[None, :, :, None], x.T[None, :, :, None], torch.tensor([level]))
    assert torch.equal(ours[0], from_pillow(Image.blend(towards, image, level * 0.9 / 10 + 0.05)))


def test_the_pool_is_the_fourteen():
    assert len(OPERATIONS) == 14


def test_every_operation_but_identity_changes_noise():
    x_BHWC = noise(18, 32, 32) // 2 + 60
    for name, operation in OPERATIONS.items():
        assert torch.equal(operation(x_BHWC, torch.tensor(SIGNED_LEVELS)), x_BHWC) == (name == "Identity"), (
            name
        )


@pytest.mark.parametrize("pad", PADDING)
@pytest.mark.parametrize("size", [(32, 32), (16, 24), (9, 7)])
def test_flip_and_crop_against_brute_force(pad, size):
    height, width = size
    x_BHWC = noise(40, height, width)
    flip_B, top_B, left_B = draw_flip_crop(x_BHWC.shape, seeded())
    out_BHWC = flip_crop(x_BHWC, flip_B, top_B, left_B, pad)
    for x, flip, top, left, out in zip(x_BHWC.numpy(), flip_B, top_B, left_B, out_BHWC, strict=True):
        around = ((height // 8,) * 2, (width // 8,) * 2, (0, 0))
        padded = np.pad(x[:, ::-1] if flip else x, around, **PADDING[pad])
        np.testing.assert_array_equal(out, padded[top : top + height, left : left + width])


def test_every_offset_and_orientation_is_drawn():
    flip_B, top_B, left_B = draw_flip_crop(torch.Size((4000, 32, 16, 3)), seeded())
    assert 0.45 < flip_B.double().mean() < 0.55
    assert top_B.unique().tolist() == list(range(9))
    assert left_B.unique().tolist() == list(range(5))


def test_operations_and_levels_are_uniform():
    op_KB, level_KB = draw_operations(14_000, seeded())
    assert op_KB.shape == level_KB.shape == (2, 14_000)
    per_op = op_KB.flatten().bincount()
    assert len(per_op) == 14
    assert per_op.min() > 1800
    assert per_op.max() < 2200
    per_level = level_KB.abs().flatten().bincount(minlength=10)
    assert per_level[0] == 0
    assert len(per_level) == 10  # never 10
    assert per_level[1:].min() > 2900
    assert 0.48 < (level_KB > 0).double().mean() < 0.52
    assert (op_KB[0] == op_KB[1]).any()  # with replacement


def test_samples_of_one_operation_keep_their_levels_and_places():
    x_BHWC = noise(60, 16, 16)
    (op_B, _), (level_B, _) = draw_operations(60, seeded(3))
    together = apply_operations(x_BHWC, op_B, level_B)
    for row in range(60):
        alone = apply_operations(x_BHWC[row : row + 1], op_B[row : row + 1], level_B[row : row + 1])
        assert torch.equal(together[row], alone[0])


@pytest.mark.parametrize("channels", [1, 3])
def test_cutout_is_pillows_rectangle_clipped_at_borders(channels):
    x_BHWC = noise(300, 32, 24, channels)
    top_B, left_B = draw_cutout(x_BHWC.shape, seeded())
    assert top_B.min() == left_B.min() == 0
    assert (top_B.max(), left_B.max()) == (32 - 6 - 1, 24 - 6 - 1)
    out_BHWC = cutout(x_BHWC, top_B, left_B)
    for x, top, left, out in zip(x_BHWC, top_B.tolist(), left_B.tolist(), out_BHWC, strict=True):
        image = to_pillow(x)
        grey = (127,) * 3 if channels == 3 else 127
        ImageDraw.Draw(image).rectangle((left, top, min(24, left + 12), min(32, top + 12)), grey)
        assert torch.equal(out, from_pillow(image))


def test_randaugmc_is_the_recipe_in_pillow():
    x_BHWC = noise(64, 32, 32)
    out_BHWC = augmented("randaugmc", x_BHWC, seeded(9))
    rng = seeded(9)
    flips = draw_flip_crop(x_BHWC.shape, rng)
    op_KB, level_KB = draw_operations(64, rng)
    patches = draw_cutout(x_BHWC.shape, rng)
    names = list(OPERATIONS)
    for row, x in enumerate(x_BHWC.numpy()):
        flip, top, left = (int(drawn[row]) for drawn in flips)
        padded = np.pad(x[:, ::-1] if flip else x, ((4, 4), (4, 4), (0, 0)), mode="reflect")
        image = Image.fromarray(padded[top : top + 32, left : left + 32].copy())
        for op, level in zip(op_KB[:, row], level_KB[:, row], strict=True):
            image = in_pillow(names[op], image, int(level))
        y, x = (int(drawn[row]) for drawn in patches)
        image = image.copy()
        ImageDraw.Draw(image).rectangle((x, y, min(32, x + 16), min(32, y + 16)), (127, 127, 127))
        assert torch.equal(out_BHWC[row], from_pillow(image))


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("count", [0, 1, 33])
@pytest.mark.parametrize("name", AUGMENTATIONS)
def test_every_augmentation_keeps_its_contract(name, count, channels):
    x_BHWC = noise(count, 32, 32, channels)
    before, global_state = x_BHWC.clone(), torch.get_rng_state()
    out_BHWC = augmented(name, x_BHWC, seeded(1))
    assert out_BHWC.shape == x_BHWC.shape
    assert out_BHWC.dtype == torch.uint8
    assert torch.equal(x_BHWC, before)
    assert torch.equal(torch.get_rng_state(), global_state)
    assert torch.equal(augmented(name, x_BHWC, seeded(1)), out_BHWC)
    strided = x_BHWC.permute(0, 3, 1, 2).contiguous().permute(0, 2, 3, 1)
    assert torch.equal(augmented(name, strided, seeded(1)), out_BHWC)
    if name != "none" and count > 1:
        assert not torch.equal(augmented(name, x_BHWC, seeded(2)), out_BHWC)


@pytest.mark.parametrize("name", ["basic", "randaugmc"])
def test_samples_of_one_batch_are_augmented_differently(name):
    out_BHWC = augmented(name, noise(1, 32, 32).expand(64, -1, -1, -1), seeded())
    assert len({out.numpy().tobytes() for out in out_BHWC}) > 40


def test_none_leaves_the_batch_and_the_generator_alone():
    x_BHWC, rng = noise(3, 8, 8), seeded()
    assert augmented("none", x_BHWC, rng) is x_BHWC
    assert torch.equal(rng.get_state(), seeded().get_state())


def test_an_unknown_name_lists_the_known_ones():
    assert augmentation("basic") is AUGMENTATIONS["basic"]
    with pytest.raises(
        AugmentationError, match="unknown augmentation 'mixup'; known: none, basic, randaugmc"
    ):
        augmentation("mixup")


def test_large_images_are_cropped_and_resized_instead_of_shifted():
    x = noise(4, 128, 128)
    out = augmented("basic", x, seeded(1))
    draws = seeded(1)
    flip_B = torch.randint(2, (4,), generator=draws)
    crop = resized_crop.draw_resized_crop(x.shape, draws)
    mirrored = torch.stack([image.flip(1) if flip else image for image, flip in zip(x, flip_B, strict=True)])
    assert torch.equal(out, resized_crop.resized_crop(mirrored, *crop))
    for op_B, level_B in zip(*draw_operations(4, draws), strict=True):
        out = apply_operations(out, op_B, level_B)
    assert torch.equal(augmented("randaugmc", x, seeded(1)), out)


def test_what_may_not_be_mirrored_never_is():
    x = torch.arange(32).byte().expand(64, 32, 32).unsqueeze(-1).contiguous() * 8
    kept = flip_crop(x, *draw_flip_crop(x.shape, seeded(), mirrors=False), pad=pad_black)
    rows_BW = kept[:, 16, :, 0].int()
    inside = (rows_BW[:, 1:] > 0) & (rows_BW[:, :-1] > 0)
    assert ((rows_BW.diff(dim=1) > 0) | ~inside).all()
    for name in ("basic", "randaugmc"):
        draws, mirrored = drawn(name, x, seeded(), mirrors=False), drawn(name, x, seeded())
        assert not draws.pop("flip_B").any()
        assert mirrored.pop("flip_B").any()
        assert all(torch.equal(draws[key], mirrored[key]) for key in mirrored)
    assert torch.equal(augmented("basic", x, seeded(), mirrors=False), kept)


def test_only_images_are_augmented():
    ids, rng = torch.arange(10).view(2, 5), seeded()
    draws = draw_augmentation("randaugmc", Modality("tokens", (5,)), 2, rng)
    assert draws == {}
    assert torch.equal(rng.get_state(), seeded().get_state())
    assert apply_augmentation("randaugmc", ids, draws) is ids


@pytest.mark.parametrize("size", [32, 128])
@pytest.mark.parametrize("name", ["basic", "randaugmc"])
def test_batches_augmented_at_once_and_rows_of_them_are_those_of_each_batch(name, size):
    rng, batches = seeded(5), [noise(count, size, size, seed=count) for count in (9, 0, 16, 1)]
    draws = [drawn(name, x, rng) for x in batches]
    alone = torch.cat([apply_augmentation(name, x, d) for x, d in zip(batches, draws, strict=True)])
    x, together = torch.cat(batches), {key: torch.cat([d[key] for d in draws]) for key in draws[0]}
    assert torch.equal(apply_augmentation(name, x, together), alone)
    for rows in (torch.tensor([20, 3, 3, 11]), torch.tensor([], dtype=torch.long)):
        part = {key: values[rows] for key, values in together.items()}
        assert torch.equal(apply_augmentation(name, x[rows], part), alone[rows])


@pytest.mark.parametrize("name", ["basic", "randaugmc"])
def test_more_than_a_cache_holds_is_augmented_in_parts(name, monkeypatch):
    x = noise(50, 32, 32)
    whole, calls = augmented(name, x, seeded()), []
    monkeypatch.setattr(augment, "RECIPE_BYTES", 8 * x[0].numel())
    monkeypatch.setattr(augment, "MOVE_BYTES", 3 * x[0].numel())
    monkeypatch.setitem(AUGMENTATIONS, name, counting(AUGMENTATIONS[name], calls))
    assert torch.equal(augmented(name, x, seeded()), whole)
    assert calls == [8, 8, 8, 8, 8, 8, 2]


def counting(whole: augment.Augmentation, calls: list[int]) -> augment.Augmentation:
    def apply(x_BHWC: torch.Tensor, **draws: torch.Tensor) -> torch.Tensor:
        calls.append(len(x_BHWC))
        return whole.apply(x_BHWC, **draws)

    return whole._replace(apply=apply)


class PretendedGpu(TorchFunctionMode):
    """Tensors made on a GPU have no memory; those of the host meet none of them unless they were sent."""

    def __init__(self):
        super().__init__()
        self.fake = FakeTensorMode()

    def send(self, x: torch.Tensor, device: torch.device) -> torch.Tensor:
        assert device.type == "cuda"
        return self.images(x.shape, x.dtype)

    def images(self, shape: torch.Size, dtype: torch.dtype = torch.uint8) -> torch.Tensor:
        with self.fake:
            return torch.empty(shape, dtype=dtype, device="cuda")

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        there = torch.device(kwargs.get("device") or "cpu").type == "cuda"
        with self.fake if there or any(isinstance(a, FakeTensor) for a in args) else nullcontext():
            return func(*args, **kwargs)


@pytest.fixture
def pretended(monkeypatch):
    gpu, tables = PretendedGpu(), (augment.source_pixels, augment.source_rows)
    for module in (augment, resized_crop):
        monkeypatch.setattr(module, "send", gpu.send)
    for table in tables:
        table.cache_clear()
    yield gpu
    for table in tables:
        table.cache_clear()


@pytest.mark.parametrize("shape", [(32, 32, 3), (24, 40, 1), (128, 128, 3)])
@pytest.mark.parametrize("name", ["basic", "randaugmc"])
def test_a_gpu_is_not_waited_for(name, shape, pretended):
    """Twin of the test on a GPU: a tensor without memory has no value that the host could read."""
    x_BHWC = pretended.images((200, *shape))
    draws = drawn(name, x_BHWC, seeded())
    with pretended:
        out_BHWC = apply_augmentation(name, x_BHWC, draws)
    assert (out_BHWC.device.type, out_BHWC.shape, out_BHWC.dtype) == ("cuda", x_BHWC.shape, torch.uint8)


def test_waiting_for_a_gpu_is_noticed(pretended, monkeypatch):
    monkeypatch.setattr(augment, "bin_counts", lambda bin_N, bins: bin_N.bincount(minlength=bins))
    with pretended, pytest.raises(Exception, match="bincount"):
        OPERATIONS["Equalize"](pretended.images((2, 32, 32, 3)), torch.tensor([1, 2]))


def test_both_ways_to_count_agree():
    bin_N = torch.randint(70, (999,), generator=seeded()).int()
    on_a_gpu = torch.zeros(80, dtype=torch.long).index_add_(
        0, bin_N, torch.ones_like(bin_N, dtype=torch.long)
    )
    assert torch.equal(augment.bin_counts(bin_N, 80), on_a_gpu)


@pytest.mark.gpu
@pytest.mark.parametrize("shape", [(32, 32, 3), (24, 40, 1), (128, 128, 3)])
@pytest.mark.parametrize("name", AUGMENTATIONS)
def test_one_draw_gives_the_same_images_on_cuda_without_waiting(name, shape):
    x_BHWC = torch.cat([noise(200, *shape), pictures(*shape).repeat(40, 1, 1, 1)])
    draws = drawn(name, x_BHWC, seeded(4))
    sent = x_BHWC.cuda()
    with nobody_waits():
        there = apply_augmentation(name, sent, draws)
    assert there.device.type == "cuda"
    assert torch.equal(there.cpu(), apply_augmentation(name, x_BHWC, draws))

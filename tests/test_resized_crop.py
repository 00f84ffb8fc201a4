import math

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.stats import ks_2samp
from torchvision.transforms import RandomResizedCrop

from mindgap.parts.augment.resized_crop import central_crop, draw_resized_crop, resized_crop


def noise(*shape: int) -> torch.Tensor:
    return torch.randint(0, 256, shape, generator=torch.Generator().manual_seed(0), dtype=torch.uint8)


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def by_pillow(x_HWC: torch.Tensor, top: int, left: int, height: int, width: int) -> torch.Tensor:
    image = Image.fromarray(x_HWC.squeeze(-1).numpy())
    image = image.crop((left, top, left + width, top + height))
    image = image.resize((x_HWC.shape[1], x_HWC.shape[0]), Image.Resampling.BILINEAR)
    return torch.from_numpy(np.asarray(image).copy()).view(x_HWC.shape)


def test_a_crop_of_two_pixels_by_hand():
    x_BHWC = torch.tensor([10, 99, 20, 40], dtype=torch.uint8).view(1, 1, 4, 1)
    one, two = torch.tensor([1]), torch.tensor([2])
    # Output centres lie at 0, 0.25, 0.75 and 1 between the two pixels, clamped at the crop's edges.
    assert resized_crop(x_BHWC, 0 * one, two, one, two).flatten().tolist() == [20, 25, 35, 40]


def test_the_whole_image_stays_as_it_is():
    x_BHWC = noise(3, 17, 23, 3)
    zero_B = torch.zeros(3, dtype=torch.long)
    assert torch.equal(resized_crop(x_BHWC, zero_B, zero_B, zero_B + 17, zero_B + 23), x_BHWC)


@pytest.mark.parametrize("shape", [(200, 32, 32, 3), (40, 64, 64, 1), (9, 224, 224, 3), (60, 20, 50, 3)])
def test_every_crop_has_the_bytes_of_pillow(shape):
    x_BHWC = noise(*shape)
    crops = draw_resized_crop(x_BHWC.shape, seeded(1))
    expected = [by_pillow(x, *map(int, crop)) for x, *crop in zip(x_BHWC, *crops, strict=True)]
    assert torch.equal(resized_crop(x_BHWC, *crops), torch.stack(expected))


def test_crops_of_one_pixel_and_no_images_at_all():
    x_BHWC = noise(4, 8, 8, 3)
    place_B = torch.arange(4)
    flat = resized_crop(x_BHWC, place_B, place_B, torch.ones_like(place_B), torch.ones_like(place_B))
    assert torch.equal(flat, x_BHWC[place_B, place_B, place_B][:, None, None].expand(-1, 8, 8, -1))
    assert resized_crop(x_BHWC[:0], *[place_B[:0]] * 4).shape == (0, 8, 8, 3)


def test_a_sample_does_not_depend_on_its_batch():
    x_BHWC = noise(20, 224, 224, 3)  # several blocks
    crops = draw_resized_crop(x_BHWC.shape, seeded(2))
    alone = [resized_crop(x_BHWC[i : i + 1], *(c[i : i + 1] for c in crops)) for i in range(20)]
    assert torch.equal(torch.cat(alone), resized_crop(x_BHWC, *crops))


@pytest.mark.parametrize("size", [(224, 224), (32, 100), (100, 60)])
def test_crops_are_drawn_as_torchvision_draws_them(size):
    height, width = size
    ours = torch.stack(draw_resized_crop((4000, height, width, 3), seeded(3)), 1)
    image = torch.empty(3, height, width)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(4)
        theirs = [RandomResizedCrop.get_params(image, (0.08, 1.0), (3 / 4, 4 / 3)) for _ in range(4000)]
    theirs = torch.tensor(theirs)
    assert (ours[:, :2] >= 0).all()
    assert (ours[:, 2:] >= 1).all()
    assert (ours[:, :2] + ours[:, 2:] <= torch.tensor(size)).all()
    for column in range(4):
        assert ks_2samp(ours[:, column], theirs[:, column]).pvalue > 0.01
    assert ks_2samp(ours[:, 3] / ours[:, 2], theirs[:, 3] / theirs[:, 2]).pvalue > 0.01
    assert ks_2samp(ours[:, 2] * ours[:, 3], theirs[:, 2] * theirs[:, 3]).pvalue > 0.01


@pytest.mark.parametrize(
    ("size", "crop"), [((8, 900), (0, 444, 8, 11)), ((900, 8), (444, 0, 11, 8)), ((9, 10), (0, 0, 9, 10))]
)
def test_where_no_try_fits_the_crop_is_the_central_one_of_torchvision(size, crop):
    assert central_crop(*size) == crop
    if max(size) > 100:  # 8 % of the area does not fit at any ratio
        drawn = torch.stack(draw_resized_crop((50, *size, 3), seeded(5)), 1)
        assert (drawn == torch.tensor(crop)).all()
        image = torch.empty(3, *size)
        assert RandomResizedCrop.get_params(image, (0.08, 1.0), (3 / 4, 4 / 3)) == crop


def test_areas_and_ratios_are_uniform():
    _, _, height_B, width_B = draw_resized_crop((20000, 10**5, 10**5, 3), seeded(6))
    ratio_B = (width_B / height_B).log()
    assert abs(ratio_B.mean()) < 0.01
    assert ratio_B.abs().max() <= math.log(4 / 3) + 1e-4
    area_B = height_B * width_B / 1e10
    assert 0.08 <= area_B.min() < 0.081
    # Larger ones do not fit at every ratio, and so are drawn less often.
    assert area_B[area_B < 0.75].median() == pytest.approx((0.08 + 0.75) / 2, abs=0.01)


@pytest.mark.gpu
def test_one_generator_gives_the_same_crops_on_cuda():
    x_BHWC = noise(64, 224, 224, 3)
    crops = draw_resized_crop(x_BHWC.shape, seeded(7))
    there = resized_crop(x_BHWC.cuda(), *crops)
    assert there.device.type == "cuda"
    assert torch.equal(there.cpu(), resized_crop(x_BHWC, *crops))
    on_cuda = draw_resized_crop(x_BHWC.shape, torch.Generator("cuda").manual_seed(7))
    assert resized_crop(x_BHWC.cuda(), *on_cuda).shape == x_BHWC.shape

import itertools

import numpy as np
import pytest

from mindgap.data.quintfeatures.colors import (
    ANCHORS_LAB,
    COLORS,
    MAX_JITTER,
    jitter,
    nearest_color,
    oklab,
    to_bytes,
)
from mindgap.data.quintfeatures.images import (
    BITS,
    FEATURES,
    SHAPES,
    TEXTURES,
    VALUES,
    Style,
    bright_pixels,
    caption,
    erase,
    image_seed,
    perlin,
    pinned_sample_digest,
    render_image,
    render_layers,
    shape_mask,
    texture_mask,
    value_id,
)

EASY = Style(
    image_size=32, max_rotation=10, half_width=(0.36, 0.43), erase=(0.0, 0.15), texture_period=0.1875
)
# Pinned on x86-64. A change of the renderer changes these; so may a compiler that fuses multiply and add
# inside pnoise2 (64-bit ARM).
PINNED = {
    Style(): "87cfd832343e438c6153dd129cf7d3a6aa48010d1a269688ee6359bbe003b38f",
    EASY: "b83c87563e0be026d09b97d66293fac2b3e6da560cc773d285e23b6e92bbf13a",
}


def sample(count, seed=0):
    """Feature ids of `count` images; fg and bg colours differ."""
    rng = np.random.default_rng(seed)
    features = rng.integers(10, size=(count, len(FEATURES)))
    features[:, 3] = (features[:, 1] + rng.integers(1, 10, size=count)) % 10
    return features.tolist()


def seed_of(i):
    return image_seed(7, "test", 0, i, 0)


@pytest.mark.parametrize("style", PINNED, ids=["default", "easy"])
def test_the_pinned_sample_has_not_changed(style):
    assert pinned_sample_digest(style) == PINNED[style]


def test_an_image_is_a_pure_function_of_features_seed_and_style():
    seed = seed_of(3)
    first, erased = render_image(sample(1)[0], seed, Style())
    render_image(sample(2)[1], seed_of(4), EASY)
    again, erased_again = render_image(sample(1)[0], seed, Style())
    assert np.array_equal(first, again)
    assert erased == erased_again
    assert first.shape == (64, 64, 3)
    assert first.dtype == np.uint8
    assert not np.array_equal(first, render_image(sample(1)[0], seed_of(4), Style())[0])


@pytest.mark.parametrize("size", [16, 33, 64])
@pytest.mark.parametrize("supersample", [1, 2, 3, 8])
def test_pixels_are_the_mean_of_their_samples(size, supersample):
    style = Style(image_size=size, supersample=supersample, texture_period=0.25)
    features = sample(1, seed=size)[0]
    shade, shades, _ = render_layers(features, seed_of(size), style)
    blocks = shades[shade].reshape(size, supersample, size, supersample, 3)
    mean = np.floor(blocks.astype(float).mean(axis=(1, 3)) + 0.5)
    assert np.array_equal(mean, render_image(features, seed_of(size), style)[0])


@pytest.mark.parametrize(
    "style", [Style(), EASY, Style(erase=(0.25, 0.25))], ids=["default", "easy", "fixed"]
)
def test_the_erased_share_is_exact_and_within_its_bounds(style):
    whole = Style(**{**vars(style), "erase": (0.0, 0.0)})
    for i, features in enumerate(sample(60)):
        shade, _, erased = render_layers(features, seed_of(i), style)
        area = np.count_nonzero(render_layers(features, seed_of(i), whole)[0] < 2)
        assert np.count_nonzero(shade < 2) == round(area * (1 - erased))
        slack = 1 / area if style.erase[0] == style.erase[1] else 0
        assert style.erase[0] - slack <= erased <= style.erase[1] + slack


def test_erase_takes_the_highest_noise_and_of_equal_values_the_first():
    mask = np.array([[True, True, False], [True, True, True]])
    noise = np.array([[5.0, 1.0, 9.0], [3.0, 3.0, 3.0]], dtype=np.float32)
    visible, share = erase(mask, noise, 0.4, (0.0, 1.0))
    assert share == 0.4
    assert visible.tolist() == [[False, True, False], [False, True, True]]
    visible, share = erase(mask, noise, 0.0, (0.0, 1.0))
    assert (visible.tolist(), share) == (mask.tolist(), 0.0)


def test_a_window_of_noise_is_the_whole_field_cut_out():
    whole = perlin(slice(0, 64), slice(0, 64), 64, 3.3, 110.1)
    assert np.array_equal(perlin(slice(13, 50), slice(29, 64), 64, 3.3, 110.1), whole[13:50, 29:64])
    assert whole.std() > 0.1


def test_an_object_lies_inside_the_image():
    style = Style(image_size=32, supersample=1, half_width=(0.35, 0.353), erase=(0.0, 0.0))
    square = SHAPES.index("square")
    for i in range(100):
        shade, _, _ = render_layers((square, 0, 0, 1, 0), seed_of(i), style)
        area = (2 * 0.3515 * 32) ** 2
        assert np.count_nonzero(shade < 2) == pytest.approx(area, rel=0.03)


def test_shapes_can_be_told_apart():
    axis = (np.arange(64, dtype=np.float32) + 0.5) / 32 - 1
    u, v = np.meshgrid(axis, axis)
    masks = [shape_mask(shape, u, v) for shape in range(10)]
    assert all(mask.mean() > 0.2 for mask in masks)
    for a, b in itertools.combinations(range(10), 2):
        assert (masks[a] != masks[b]).mean() > 0.08, (SHAPES[a], SHAPES[b])
    outside = shape_mask(SHAPES.index("square"), u * 1.5, v * 1.5)
    assert not outside[0].any()


def test_textures_can_be_told_apart_at_any_phase():
    rng = np.random.default_rng(0)
    bits = rng.random((BITS, BITS)) < 0.5
    axis = np.arange(64, dtype=np.float32) / 16  # four periods of sixteen samples
    p, q = np.meshgrid(axis, axis)
    shifts = [i / 8 for i in range(8)]
    for a, b in itertools.combinations(range(10), 2):
        still = texture_mask(a, p, q, bits)
        differing = [
            (still != texture_mask(b, p + np.float32(x), q + np.float32(y), bits)).mean()
            for x in shifts
            for y in shifts
        ]
        assert min(differing) > 0.08, (TEXTURES[a], TEXTURES[b])
    shares = {name: texture_mask(i, p, q, bits).mean() for i, name in enumerate(TEXTURES)}
    assert shares.pop("solid") == 1
    assert all(0.2 < share < 0.6 for share in shares.values()), shares


def test_anchors_are_further_apart_than_two_jitters():
    gaps = [np.linalg.norm(a - b) for a, b in itertools.combinations(ANCHORS_LAB, 2)]
    assert min(gaps) == pytest.approx(0.181, abs=1e-3)
    assert min(gaps) > 2 * MAX_JITTER


@pytest.mark.parametrize("radius", [0.0, 0.05, 0.0899])
def test_jittered_colors_decode_to_their_names_and_stay_apart(radius):
    rng = np.random.default_rng(1)
    draws = [[to_bytes(jitter(color, radius, rng)) for _ in range(300)] for color in range(10)]
    rgb = np.array(draws, dtype=np.uint8)
    assert np.array_equal(nearest_color(rgb), np.repeat(np.arange(10)[:, None], 300, axis=1))
    lab = oklab(rgb)
    rounding = 0.01
    assert (np.linalg.norm(lab - ANCHORS_LAB[:, None], axis=-1) <= radius + rounding).all()
    if radius == 0.05:
        for a, b in itertools.combinations(range(10), 2):
            gaps = np.linalg.norm(lab[a][:, None] - lab[b][None], axis=-1)
            assert gaps.min() > 0.181 - 2 * radius - rounding, (COLORS[a], COLORS[b])
        assert (rgb.std(axis=1) > 0).any(axis=1).all()


@pytest.mark.parametrize("off_lightness", [0.3, 0.45])
def test_of_all_dark_shades_only_that_of_purple_decodes_to_its_own_name(off_lightness):
    rng, named = np.random.default_rng(0), set()
    for color, name in enumerate(COLORS):
        for _ in range(50):
            lightness, a, b = jitter(color, 0.05, rng)
            dark = to_bytes((lightness * off_lightness, a * 0.6, b * 0.6))
            if color == nearest_color(np.array(dark)):
                named.add(name)
            else:
                assert COLORS[nearest_color(np.array(dark))] in ("purple", "ocean")
    assert named == {"purple"}


def test_images_show_their_foreground_color():
    for i, features in enumerate(sample(60)):
        image, _ = render_image(features, seed_of(i), Style())
        bright = image[bright_pixels(render_layers(features, seed_of(i), Style())[0], 2)]
        assert len(bright)
        assert nearest_color(np.median(bright, axis=0).round()) == features[1]


def test_captions_are_the_papers_and_pulses_are_pluses():
    names = ("circle", "blue", "grid", "red", "grid")
    features = [value_id(feature, name) for feature, name in zip(FEATURES, names, strict=True)]
    assert caption(features) == "Blue Circle with Grid texture on Red Grid texture"
    assert value_id("fg_texture", "Pulses") == TEXTURES.index("pluses")
    assert all(len(set(values)) == 10 for values in VALUES.values())
    with pytest.raises(ValueError, match=r"unknown fg_color 'grey'; the known ones are red, green"):
        value_id("fg_color", "grey")
    with pytest.raises(ValueError, match=r"unknown feature 'colour'; the features are fg_shape"):
        value_id("colour", "red")


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"image_size": 8}, "image_size is 8: make it a whole number in 16..512"),
        ({"supersample": 0}, "supersample is 0"),
        ({"erase": (0.4, 0.1)}, r"erase is \(0.4, 0.1\): make it two shares"),
        ({"half_width": (0.3, 0.44)}, "at most 0.353, to stay in the image .or lower max_rotation"),
        ({"half_width": (0.36, 0.44), "max_rotation": 10}, "at most 0.431"),
        ({"max_texture_rotation": -1}, "max_texture_rotation is -1: make it degrees in 0..180"),
        ({"image_size": 16}, "texture_period is 0.125: make it a number in 0.25..0.5"),
        ({"color_jitter": 0.09}, "color_jitter is 0.09: make it a radius from 0 to below 0.09"),
        ({"off_lightness": 1}, "off_lightness is 1"),
        ({"allow_same_color": "no"}, "allow_same_color is 'no': make it true or false"),
    ],
)
def test_an_impossible_style_names_the_parameter_and_the_mend(wrong, message):
    with pytest.raises(ValueError, match=message):
        Style(**wrong)

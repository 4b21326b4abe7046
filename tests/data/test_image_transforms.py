"""Image and scene draws: sizes, crops, matrices, ranges."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from streampetr_vit.data.transforms import (
    ImageAugmentation,
    ImageDraw,
    SceneAugmentation,
    SceneDraw,
)


@pytest.mark.parametrize(
    ("final_size", "scale", "resized", "origin"),
    [
        ((320, 800), 0.5, (800, 450), (0, 130)),
        ((256, 704), 0.44, (704, 396), (0, 140)),
        ((800, 1600), 1.0, (1600, 900), (0, 100)),
        ((640, 1600), 1.0, (1600, 900), (0, 260)),
    ],
)
def test_fixed_draws_of_the_published_sizes(final_size, scale, resized, origin) -> None:
    augmentation = ImageAugmentation(final_size=final_size, resize_range=(0.4, 0.6))
    assert augmentation.fixed((1600, 900)) == ImageDraw(scale, resized, origin, final_size, False)


def test_random_draws_stay_in_their_ranges() -> None:
    augmentation = ImageAugmentation((320, 800), (0.47, 0.625), bottom_crop_range=(0.0, 0.2))
    sizes = [(1600, 900)] * 6
    frames = [augmentation.draw(sizes, np.random.default_rng(n)) for n in range(300)]
    assert all(frame == frame[:1] * 6 for frame in frames)  # one draw serves all cameras
    draws = [frame[0] for frame in frames]
    assert all(0.47 <= d.scale <= 0.625 for d in draws)
    assert min(d.scale for d in draws) < 0.48 and max(d.scale for d in draws) > 0.61
    assert all(d.resized_size == (int(1600 * d.scale), int(900 * d.scale)) for d in draws)
    for draw in draws:
        assert 0 <= draw.crop_origin[0] <= max(0, draw.resized_size[0] - 800)
        bottom = draw.crop_origin[1] + 320
        assert int(0.8 * draw.resized_size[1]) <= bottom <= draw.resized_size[1]
    assert 100 < sum(d.flip for d in draws) < 200
    assert draws[7] == augmentation.draw(sizes, np.random.default_rng(7))[0]


def test_limits_are_relative_to_the_stored_picture() -> None:
    full = ImageAugmentation((320, 800), (0.5, 0.5)).fixed((1600, 900))
    half = ImageAugmentation((320, 800), (1.0, 1.0)).fixed((800, 450))
    assert (full.resized_size, full.crop_origin) == (half.resized_size, half.crop_origin)


@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize("origin", [(3, 5), (-4, 2), (0, -6), (30, 30), (200, 5)])
def test_apply_is_resize_crop_flip(origin: tuple[int, int], flip: bool) -> None:
    image = np.random.default_rng(0).integers(0, 256, (45, 80, 3), dtype=np.uint8)
    draw = ImageDraw(0.5, (40, 22), origin, (16, 24), flip)
    # PIL fills what lies outside of the picture with 0.
    left, top = origin
    expected = Image.fromarray(image).resize((40, 22)).crop((left, top, left + 24, top + 16))
    if flip:
        expected = expected.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    np.testing.assert_array_equal(draw.apply(image), np.asarray(expected))


def test_matrix_maps_pixels() -> None:
    """A bright dot is found where the matrix says, before and after a flip."""
    image = np.zeros((90, 160, 3), np.uint8)
    image[40:44, 100:104] = 255
    center = np.array([101.5, 41.5, 1.0])
    for flip in (False, True):
        draw = ImageDraw(0.75, (120, 67), (10, 7), (48, 96), flip)
        rows, columns = np.nonzero(draw.apply(image)[:, :, 0] > 128)
        u, v, _ = draw.matrix() @ center
        # Half a pixel for the missing half-pixel term, and one for a flip about W, not W - 1.
        assert abs(columns.mean() - u) < 1.2
        assert abs(rows.mean() - v) < 0.7
        assert draw.matrix().dtype == np.float32


def test_no_resize_means_no_work(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "fromarray", None)  # a call of it would fail
    image = np.zeros((90, 160, 3), np.uint8)
    draw = ImageDraw(1.0, (160, 90), (0, 0), (90, 160), False)
    assert np.shares_memory(draw.apply(image), image)


def test_scene_draws() -> None:
    augmentation = SceneAugmentation(translation_std_m=(0.5, 0.5, 0.0))
    draws = [augmentation.draw(np.random.default_rng(n)) for n in range(100)]
    assert all(abs(d.yaw_rad) <= 0.3925 and 0.95 <= d.scale <= 1.05 for d in draws)
    assert np.std([d.translation_m[0] for d in draws]) == pytest.approx(0.5, rel=0.3)
    assert {d.translation_m[2] for d in draws} == {0.0}
    quarter = SceneDraw(np.pi / 2, 2.0, (1.0, 0.0, 5.0)).matrix() @ [1.0, 0.0, 1.0, 1.0]
    np.testing.assert_allclose(quarter, [1.0, 2.0, 7.0, 1.0], atol=1e-15)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"final_size": (320,)}, "final_size must be two numbers"),
        ({"final_size": 320}, "final_size must be two numbers, not 320"),
        ({"final_size": "12"}, "final_size must be two numbers, not 12"),
        ({"final_size": (0, 800)}, "final_size must be .H, W."),
        ({"resize_range": (0.6, 0.4)}, "resize_range must be 0 < low <= high"),
        ({"flip_probability": 2}, "flip_probability"),
        ({"bottom_crop_range": (0.0, 1.0)}, "bottom_crop_range"),
    ],
)
def test_image_options_are_checked(values: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ImageAugmentation(**{"final_size": (320, 800), "resize_range": (0.47, 0.625), **values})


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"scale_range": (0.0, 1.0)}, "scale_range"),
        ({"yaw_range_rad": (1.0,)}, "yaw_range_rad must be two numbers"),
        ({"translation_std_m": (1.0, 1.0)}, "translation_std_m must be three"),
    ],
)
def test_scene_options_are_checked(values: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SceneAugmentation(**values)

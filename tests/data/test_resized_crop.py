"""The part of a resized picture equals the whole resized picture, bit by bit."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from streampetr_vit.data.resized_crop import resized_crop
from streampetr_vit.data.transforms import ImageAugmentation

Box = tuple[int, int, int, int]


def noise(width: int, height: int) -> np.ndarray:
    """The hardest picture: every weight of the filter counts."""
    return np.random.default_rng(width).integers(0, 256, (height, width, 3), dtype=np.uint8)


def expected(image: np.ndarray, size: tuple[int, int], box: Box) -> np.ndarray:
    return np.asarray(Image.fromarray(image).resize(size, Image.Resampling.BICUBIC).crop(box))


@pytest.mark.parametrize(
    ("stored", "final_size", "resize_range"),
    [
        ((400, 225), (80, 200), (0.47, 0.625)),
        ((400, 225), (160, 400), (0.94, 1.25)),
        ((160, 90), (90, 240), (1.5, 2.1)),
        ((78, 235), (100, 40), (0.45, 0.62)),  # tall: filtered along the columns first
    ],
)
def test_draws_of_the_recipes_are_exact(
    stored: tuple[int, int], final_size: tuple[int, int], resize_range: tuple[float, float]
) -> None:
    image = noise(*stored)
    augmentation = ImageAugmentation(final_size, resize_range, 0.5, (0.0, 0.2))
    draws = [augmentation.draw([stored], np.random.default_rng(n))[0] for n in range(40)]
    for draw in [*draws, augmentation.fixed(stored)]:
        (x, y), (height, width) = draw.crop_origin, final_size
        whole = expected(image, draw.resized_size, (x, y, x + width, y + height))
        np.testing.assert_array_equal(draw.apply(image), whole[:, ::-1] if draw.flip else whole)


@pytest.mark.parametrize(
    "size",
    [(33, 7), (100, 90), (160, 61), (301, 200), (1, 1), (9, 333), (301, 40), (150, 20), (159, 89)],
)
def test_any_rectangle_is_exact(size: tuple[int, int]) -> None:
    image, (width, height) = noise(160, 90), size
    rng = np.random.default_rng(0)
    boxes = [(0, 0, width, height), (0, 0, 1, 1), (width - 1, height - 1, width, height)]
    for _ in range(20):
        left, right = sorted(rng.integers(0, width + 1, 2).tolist())
        top, bottom = sorted(rng.integers(0, height + 1, 2).tolist())
        boxes.append((left, top, right, bottom))
    for box in boxes:
        found = resized_crop(image, size, box)
        assert found.shape == (box[3] - box[1], box[2] - box[0], 3)
        if found.size:
            np.testing.assert_array_equal(found, expected(image, size, box))

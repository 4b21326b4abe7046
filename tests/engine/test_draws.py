"""Random numbers that depend on their place in a run."""

from __future__ import annotations

import random
from itertools import product

import numpy as np
import torch

from streampetr_vit.engine.draws import seed_draws


def numbers(*place: int) -> tuple[float, float, float]:
    seed_draws(*place)
    return float(torch.rand((), dtype=torch.float64)), float(np.random.rand()), random.random()


def test_a_place_gives_the_same_numbers_whatever_was_drawn_before() -> None:
    first = numbers(3, 100, 1, 2)
    torch.rand(7), np.random.rand(7), random.random()
    assert numbers(3, 100, 1, 2) == first


def test_other_places_give_other_numbers_to_each_generator() -> None:
    places = list(product((0, 1), (0, 1, 1000, 2**31 - 1), (0, 1), (0, 1, 15)))
    drawn = [numbers(*place) for place in places]
    for values in zip(*drawn, strict=True):
        assert len(set(values)) == len(places)


def test_the_largest_seed_is_allowed() -> None:
    numbers(2**32 - 1, 2**31 - 1, 1000, 10_000)

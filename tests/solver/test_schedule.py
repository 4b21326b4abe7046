"""The published learning-rate curve, in numbers."""

from __future__ import annotations

import pytest

from streampetr_vit.solver import batch_lr_factor, iterations_per_epoch, warmup_cosine

MAX_ITER = 42192


@pytest.mark.parametrize(
    ("iteration", "expected"),
    [
        (0, 1.3333e-4),
        (250, 2.6664e-4),
        (499, 3.9933e-4),
        (500, 3.9986e-4),
        (21096, 2.0020e-4),
        (42191, 4.000e-7),
    ],
)
def test_published_values(iteration: int, expected: float) -> None:
    lr = 4e-4 * warmup_cosine(iteration, iteration / MAX_ITER)
    assert lr == pytest.approx(expected, rel=5e-5)


def test_warm_up_starts_at_its_factor_and_can_be_left_out() -> None:
    assert warmup_cosine(0, 0.0, warmup_iters=10, warmup_factor=0.25) == pytest.approx(0.25)
    assert warmup_cosine(0, 0.0, warmup_iters=0) == pytest.approx(1.0)


def test_progress_beyond_the_end_stays_at_the_end() -> None:
    assert warmup_cosine(10**6, 1.7, end_factor=0.01) == pytest.approx(0.01)


def test_cosine_follows_progress_not_iterations() -> None:
    # A run limited by time: the iteration only matters for the warm-up.
    assert warmup_cosine(700, 0.5) == warmup_cosine(21096, 0.5)


def test_iterations_per_epoch_of_the_published_runs() -> None:
    assert iterations_per_epoch(28130, 16) == 1758
    assert 24 * iterations_per_epoch(28130, 16) == MAX_ITER
    assert iterations_per_epoch(28130, 8) == 3516


def test_fewer_samples_than_lanes_is_an_error() -> None:
    with pytest.raises(ValueError, match="15 samples, fewer than the 16 of a step"):
        iterations_per_epoch(15, 16)


@pytest.mark.parametrize(
    ("batch", "lr"),
    [(1, 0.25e-4), (8, 2e-4), (12, 3e-4), (16, 4e-4), (24, 5e-4), (32, 6e-4), (64, 6e-4)],
)
def test_learning_rates_over_batches(batch: int, lr: float) -> None:
    """8, 16 and 32 are published; straight lines between, nothing beyond."""
    assert 4e-4 * batch_lr_factor(batch, 16) == pytest.approx(lr)
    assert 2e-4 * batch_lr_factor(batch, 8) == pytest.approx(lr)
    assert batch_lr_factor(batch, batch) == 1


@pytest.mark.parametrize("batches", [(0, 16), (16, 0)])
def test_a_batch_of_nothing_is_an_error(batches: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match="schedule.lr_batch=.*must be 1 or more"):
        batch_lr_factor(*batches)

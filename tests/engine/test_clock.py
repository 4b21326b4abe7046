"""Steps and epochs when the batch changes on the way."""

from __future__ import annotations

import pytest

from streampetr_vit.engine.clock import Clock


def test_a_run_with_one_batch_counts_its_steps() -> None:
    clock = Clock(epoch_iters=1758, max_iter=42192, epochs=24.0)
    for iteration in (0, 1, 500, 42191, 42192):
        assert clock.progress(iteration) == iteration / 42192  # to the last bit, as ever
        assert clock.epochs_done(iteration) == iteration / 1758


def test_another_batch_goes_on_at_the_same_progress_and_ends_at_the_end() -> None:
    large = Clock(epoch_iters=100, max_iter=1000, epochs=10.0)
    epochs = large.epochs_done(330)
    small = Clock(epoch_iters=250, max_iter=2500, epochs=10.0).begun_at(330, epochs)
    assert small.progress(330) == pytest.approx(large.progress(330), rel=1e-15)
    assert small.max_iter == 330 + round(6.7 * 250)
    assert small.progress(small.max_iter) == 1.0
    assert small.epochs_done(small.max_iter) == pytest.approx(10.0)
    assert small.progress(331) > small.progress(330)


def test_a_second_change_counts_from_the_first() -> None:
    first = Clock(epoch_iters=100, max_iter=1000, epochs=10.0).begun_at(0, 0.0)
    second = Clock(epoch_iters=50, max_iter=500, epochs=10.0).begun_at(200, first.epochs_done(200))
    third = Clock(epoch_iters=100, max_iter=1000, epochs=10.0)
    third = third.begun_at(250, second.epochs_done(250))
    assert third.start_epochs == 3.0 and third.max_iter == 950


def test_more_epochs_are_counted_from_what_is_done() -> None:
    clock = Clock(epoch_iters=50, max_iter=1000, epochs=20.0).begun_at(200, 2.0)
    assert clock.max_iter == 200 + 18 * 50


def test_nothing_is_left_of_epochs_that_are_over() -> None:
    clock = Clock(epoch_iters=50, max_iter=100, epochs=2.0).begun_at(400, 4.0)
    assert clock.max_iter == 400


def test_steps_that_were_asked_for_stay_the_measure() -> None:
    clock = Clock(epoch_iters=50, max_iter=80).begun_at(40, 3.0)
    assert clock.max_iter == 80
    assert (clock.progress(40), clock.progress(60)) == (0.5, 0.75)
    assert clock.epochs_done(45) == 3.1  # a further batch finds its place in the epoch by it

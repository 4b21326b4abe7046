"""GridMask by hand, its randomness, and what it refuses."""

from __future__ import annotations

import pytest
import torch

from streampetr_vit.modeling.image.grid_mask import GridDraw, GridMask


def test_stripes_by_hand() -> None:
    """Height 8: canvas 12, cropped from row 2. Width 4: canvas 6, cropped from column 1."""
    mask = GridMask(ratio=0.5).mask((8, 4), GridDraw(period=4, row_start=3, column_start=0))
    # Rows 3, 4 and 7, 8 of the canvas, columns 0, 1; no stripe begins before the start, and
    # 6 // 4 = 1 is the number of vertical stripes.
    kept_rows, kept_columns = {1, 2, 5, 6}, {0}
    expected = [[float(r in kept_rows or c in kept_columns) for c in range(4)] for r in range(8)]
    assert mask.tolist() == expected
    hidden = GridMask(ratio=0.5, keep_stripes=False).mask((8, 4), GridDraw(4, 3, 0))
    assert torch.equal(hidden, 1 - mask)


def test_nothing_lies_before_the_first_stripe() -> None:
    """Stripes are 6 to 9 of a canvas of 12; one from -1 to 2 would reach row 2, the first."""
    mask = GridMask().mask((8, 8), GridDraw(period=7, row_start=6, column_start=6))
    expected = torch.ones(8, 8)
    expected[:4, :4] = 0
    assert torch.equal(mask, expected)


def test_a_stripe_is_neither_empty_nor_the_whole_period() -> None:
    for ratio in (0.01, 0.99):
        mask = GridMask(ratio=ratio).mask((6, 6), GridDraw(2, 0, 0))
        assert mask.tolist() == GridMask().mask((6, 6), GridDraw(2, 0, 0)).tolist()


def test_draws_are_uniform_and_as_frequent_as_asked() -> None:
    generator = torch.Generator().manual_seed(0)
    draws = [GridMask(0.7).draw(6, generator) for _ in range(4000)]
    made = [draw for draw in draws if draw is not None]
    assert len(made) / len(draws) == pytest.approx(0.7, abs=0.03)
    assert {draw.period for draw in made} == {2, 3, 4, 5}
    for period in range(2, 6):
        of_period = [draw for draw in made if draw.period == period]
        assert len(of_period) / len(made) == pytest.approx(1 / 4, abs=0.04)
        assert {draw.row_start for draw in of_period} == set(range(period))
        assert {draw.column_start for draw in of_period} == set(range(period))


def test_certain_and_impossible_masks() -> None:
    assert all(GridMask(1.0).draw(9) is not None for _ in range(50))
    assert all(GridMask(0.0).draw(9) is None for _ in range(50))


def test_the_seed_governs_the_draws() -> None:
    def some() -> list[GridDraw | None]:
        return [GridMask().draw(64) for _ in range(20)]

    torch.manual_seed(3)
    first = some()
    torch.manual_seed(3)
    assert some() == first
    assert some() != first


@pytest.mark.parametrize("options", [{"probability": 1.2}, {"probability": -0.1}, {"ratio": 1.0}])
def test_settings_that_mean_nothing_are_refused(options: dict[str, float]) -> None:
    ((name, value),) = options.items()
    with pytest.raises(ValueError, match=f"{name} of GridMask is {value}"):
        GridMask(**options)


def test_too_low_images_and_impossible_draws_are_refused() -> None:
    with pytest.raises(ValueError, match="at least 3 rows, not 2"):
        GridMask().draw(2)
    with pytest.raises(ValueError, match="period=1.* period must be at least 2"):
        GridDraw(1, 0, 0)
    with pytest.raises(ValueError, match="column_start=4.* column_start from 0 to 3"):
        GridDraw(4, 0, 4)

"""GridMask: hides a grid of rectangles in all images of a step, in training.

Source: arXiv 2001.04086, as in StreamPETR: never rotated, with a constant probability.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from streampetr_vit.errors import InputError

_MIN_HEIGHT = 3  # a period is drawn from 2 up to, not including, the height


@dataclass(frozen=True)
class GridDraw:
    """What is random about one mask, in pixels of a canvas larger than the image.

    Attributes:
        period: from the start of one stripe to the start of the next, at least 2.
        row_start: first row of the first horizontal stripe, below `period`.
        column_start: first column of the first vertical stripe, below `period`.
    """

    period: int
    row_start: int
    column_start: int

    def __post_init__(self) -> None:
        starts = (self.row_start, self.column_start)
        if self.period < 2 or min(starts) < 0 or max(starts) >= self.period:
            raise ValueError(
                f"{self}: the period must be at least 2, and row_start and column_start from 0 to "
                f"{self.period - 1}, less than the period"
            )


@dataclass(frozen=True)
class GridMask:
    """Makes masks of horizontal and vertical stripes.

    Attributes:
        probability: of a mask in a step, in [0, 1].
        ratio: width of a stripe as a share of the period, in (0, 1).
        keep_stripes: True keeps the stripes and hides the rectangles between them, as published;
            False hides the stripes.
    """

    probability: float = 0.7
    ratio: float = 0.5
    keep_stripes: bool = True

    def __post_init__(self) -> None:
        if not 0 <= self.probability <= 1:
            raise ValueError(
                f"probability of GridMask is {self.probability}; it must be in [0, 1] "
                "(0 or no GridMask at all hides nothing)"
            )
        if not 0 < self.ratio < 1:
            raise ValueError(f"ratio of GridMask is {self.ratio}; it must be above 0 and below 1")

    def draw(self, height: int, generator: torch.Generator | None = None) -> GridDraw | None:
        """Draws the random part of a mask on the CPU; None if this step has no mask.

        Args:
            height: of the images in pixels.

        Raises:
            InputError: the images are too low.
        """
        if height < _MIN_HEIGHT:
            raise InputError(
                f"GridMask needs images of at least {_MIN_HEIGHT} rows, not {height}; give the "
                "height in pixels of the images, not of a feature map"
            )
        if float(torch.rand((), generator=generator)) >= self.probability:
            return None

        def below(limit: int, start: int = 0) -> int:
            return int(torch.randint(start, limit, (), generator=generator))

        period = below(height, start=2)  # Quirk: the height alone bounds it, not the width
        return GridDraw(period, row_start=below(period), column_start=below(period))

    def mask(
        self, size: tuple[int, int], draw: GridDraw, device: torch.device | str = "cpu"
    ) -> Tensor:
        """(height, width) float32, 0 where the normalised images are to be hidden, else 1."""
        rows = self._stripes(size[0], draw.period, draw.row_start, device)
        columns = self._stripes(size[1], draw.period, draw.column_start, device)
        striped = rows[:, None] | columns  # (height, 1), (width,) -> (height, width)
        return (striped if self.keep_stripes else ~striped).float()

    def _stripes(self, length: int, period: int, start: int, device: torch.device | str) -> Tensor:
        """(length,) bool: what lies on a stripe."""
        # Source: the reference, which draws on a larger canvas (to rotate it) and cuts the middle.
        canvas = int(1.5 * length)
        width = min(max(int(period * self.ratio + 0.5), 1), period - 1)
        first = (canvas - length) // 2 - start
        # From the start of the first stripe; before it there is none, nor after the last.
        place = torch.arange(first, first + length, device=device)
        number = place.div(period, rounding_mode="floor")
        on_stripe = place - number * period < width
        return on_stripe & (number >= 0) & (number < canvas // period)

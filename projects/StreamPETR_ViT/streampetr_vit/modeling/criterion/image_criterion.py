"""What a training step asks of the losses of any 2D head."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from torch import Tensor

from streampetr_vit.structures import Boxes2D


class ImageCriterion(Protocol):
    """Losses of one kind of 2D head.

    In two steps, so that one copy to the host serves the assignment of the whole training step.
    """

    def costs(
        self, output: Any, targets: Sequence[Boxes2D], image_size: tuple[int, int]
    ) -> list[Tensor]:
        """Matrices for `assign`; empty if nothing is to be solved on the host.

        Args:
            output: of I images, as the 2D head returns it.
            targets: I of them, on the device of `output`.
            image_size: (height, width) of the padded images in pixels.
        """

    def losses(
        self,
        output: Any,
        targets: Sequence[Boxes2D],
        image_size: tuple[int, int],
        pairs: Sequence[Tensor],
    ) -> dict[str, Tensor]:
        """Scalars by their published names.

        Args:
            output, targets, image_size: as for `costs`.
            pairs: `assign(costs(...))`.
        """

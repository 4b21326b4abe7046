"""Which frames of a training step have gradients and losses, and what is drawn for them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from torch import nn

from streampetr_vit.modeling.heads.denoising_queries import DenoisingQueries
from streampetr_vit.modeling.image.grid_mask import GridDraw


@dataclass(frozen=True)
class TrainingDraws:
    """The random choices of a training step, but for dropout and drop path.

    Attributes:
        grid: stripes to hide in the frames that the backbone sees with gradients; None for none.
        denoising: of each frame that the heads see with gradients its denoising queries, or None.
    """

    grid: GridDraw | None
    denoising: list[DenoisingQueries | None]


@dataclass(frozen=True)
class TrainingWindow:
    """The last frames of a window train; those before fill the memory as in evaluation.

    Attributes:
        num_frame_losses: the last so many frames have losses.
        num_frame_head_grads: the heads see so many in training mode, with gradients.
        num_frame_backbone_grads: the backbone does so many.
    """

    # One frame of all: a step of streaming training.
    num_frame_losses: int = 1
    num_frame_head_grads: int = 1
    num_frame_backbone_grads: int = 1

    def __post_init__(self) -> None:
        if not 1 <= self.num_frame_losses <= self.num_frame_head_grads:
            raise ValueError(
                f"num_frame_losses ({self.num_frame_losses}) must be at least 1 and at most "
                f"num_frame_head_grads ({self.num_frame_head_grads})"
            )
        if self.num_frame_backbone_grads < 1:
            raise ValueError(
                f"num_frame_backbone_grads ({self.num_frame_backbone_grads}) must be at least 1"
            )


@contextmanager
def evaluation_mode(module: nn.Module) -> Iterator[None]:
    """Puts every submodule into evaluation mode for a while."""
    trained = [part for part in module.modules() if part.training]
    module.eval()
    try:
        yield
    finally:  # also when an evaluation fails
        # Not module.train(): parts that were in evaluation mode before, stay in it.
        for part in trained:
            part.training = True

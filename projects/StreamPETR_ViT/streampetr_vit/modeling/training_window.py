"""What a training step does with a window of frames: which of them have gradients and losses.

Shape letters: B streams, N cameras, T frames of a window.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from streampetr_vit.modeling.criterion.training_loss import FrameResult, FrameTargets
from streampetr_vit.modeling.grid_mask import GridDraw
from streampetr_vit.modeling.queries import DenoisingQueries
from streampetr_vit.modeling.temporal.memory import TemporalMemory
from streampetr_vit.structures import Frame

if TYPE_CHECKING:
    from streampetr_vit.modeling.detector import StreamPETR


@dataclass(frozen=True)
class TrainingDraws:
    """The random choices of a training step, but for dropout and drop path.

    Attributes:
        grid: stripes to hide in the frames that the backbone sees with gradients; None for none.
        denoising: per frame its denoising queries, or None.
    """

    grid: GridDraw | None
    denoising: list[DenoisingQueries | None]


@dataclass(frozen=True)
class TrainingWindow:
    """The last frames of a window train; those before fill the memory as in evaluation.

    A step of streaming training is a window of one frame.

    Attributes:
        num_frame_losses: the last so many frames have losses.
        num_frame_head_grads: so many are seen by the heads in training mode, with gradients.
        num_frame_backbone_grads: so many are seen so by the backbone.
    """

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

    def draw(
        self, detector: StreamPETR, frames: Sequence[Frame], targets: Sequence[FrameTargets]
    ) -> TrainingDraws:
        """Draws for one step. Source of the mask: torch's CPU generator; of the noise: the
        generator of the detector's device."""
        height, _ = detector.padded_size(frames[0].image_size)
        grid = None if detector.grid_mask is None else detector.grid_mask.draw(height)
        denoising: list[DenoisingQueries | None] = [None] * len(frames)
        noise, head = detector.denoising, detector.head
        for time in range(self._first(frames, self.num_frame_head_grads), len(frames)):
            if noise is not None:
                boxes, labels = targets[time].boxes, targets[time].labels
                denoising[time] = noise.make(
                    boxes, labels, head.point_cloud_range, head.num_classes
                )
        return TrainingDraws(grid, denoising)

    def run(
        self,
        detector: StreamPETR,
        frames: Sequence[Frame],
        memory: TemporalMemory,
        draws: TrainingDraws,
    ) -> tuple[list[FrameResult], TemporalMemory]:
        """Plays a window; keeps no state.

        Args:
            detector: in training mode.
            frames: T frames of B streams in temporal order, on the detector's device.
            memory: before the first frame.
            draws: of `draw`.

        Returns:
            Results of the frames that have losses, and the memory after the last frame.
        """
        features = self._features(detector, frames, draws.grid)
        size = detector.padded_size(frames[0].image_size)
        results = []
        for time, frame in enumerate(frames):
            if time < self._first(frames, self.num_frame_head_grads):
                with torch.no_grad(), evaluation_mode(detector):
                    _, memory = detector.head(features[time], frame, memory)
                continue
            image_output = None
            if detector.image_head is not None:
                image_output = detector.image_head(features[time], size)
            tokens = detector.chosen_tokens(image_output, len(features[time]))
            denoising = draws.denoising[time]
            output, memory = detector.head(features[time], frame, memory, denoising, tokens)
            results.append(FrameResult(output, denoising, image_output, size))
        return results[-self.num_frame_losses :], memory

    def _features(
        self, detector: StreamPETR, frames: Sequence[Frame], grid: GridDraw | None
    ) -> list[Tensor]:
        """Per frame (B, N, C, h, w)."""
        cameras = frames[0].images.shape[1]
        first = self._first(frames, self.num_frame_backbone_grads)

        def embed(part: Sequence[Frame], grid: GridDraw | None) -> list[Tensor]:
            if not part:
                return []
            images = torch.cat([frame.images for frame in part], dim=1)  # (B, T * N, 3, H, W)
            return list(detector.image_features(images, grid).split(cameras, dim=1))

        with torch.no_grad(), evaluation_mode(detector):
            history = embed(frames[:first], None)
        return history + embed(frames[first:], grid)

    @staticmethod
    def _first(frames: Sequence[Frame], count: int) -> int:
        """Index of the first of the last `count` frames."""
        return max(len(frames) - count, 0)


@contextmanager
def evaluation_mode(module: nn.Module) -> Iterator[None]:
    """Puts every submodule into evaluation mode for a while."""
    trained = [part for part in module.modules() if part.training]
    module.eval()
    try:
        yield
    finally:
        for part in trained:
            part.training = True

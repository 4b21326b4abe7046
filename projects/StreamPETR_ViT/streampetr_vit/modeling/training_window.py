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

from streampetr_vit.errors import InputError
from streampetr_vit.modeling.criterion.training_loss import FrameResult
from streampetr_vit.modeling.heads.denoising_queries import DenoisingQueries
from streampetr_vit.modeling.heads.temporal_head import Features
from streampetr_vit.modeling.image.grid_mask import GridDraw
from streampetr_vit.modeling.temporal.memory import TemporalMemory
from streampetr_vit.structures import Frame
from streampetr_vit.structures.targets import FrameTargets

if TYPE_CHECKING:
    from streampetr_vit.modeling.detector import StreamPETR


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
        self, detector: StreamPETR, image_size: tuple[int, int], targets: Sequence[FrameTargets]
    ) -> TrainingDraws:
        """Draws for one step: the mask by torch's CPU generator, the noise by the device's.

        Args:
            detector: whose mask and noise.
            image_size: (height, width) of the pictures.
            targets: of the frames that the heads see with gradients.
        """
        height, _ = detector.padded_size(image_size)
        grid = None if detector.grid_mask is None else detector.grid_mask.draw(height)
        noise, head = detector.denoising, detector.head
        denoising = [
            None
            if noise is None
            else noise.make(true.boxes, true.labels, head.point_cloud_range, head.num_classes)
            for true in targets
        ]
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

        Raises:
            InputError: fewer frames than have losses.
        """
        if len(frames) < self.num_frame_losses:
            raise InputError(
                f"model.window.num_frame_losses is {self.num_frame_losses}, but the loader gives "
                f"{len(frames)} frame(s) per step: use build_window_loader as dataloader.train, "
                "with a window_length of at least as many"
            )
        features = self._features(detector, frames, draws.grid)
        size = detector.padded_size(frames[0].image_size)
        history = max(len(frames) - self.num_frame_head_grads, 0)
        if history:
            with torch.no_grad(), evaluation_mode(detector):
                for frame, seen in zip(frames[:history], features[:history], strict=True):
                    tokens = detector.chosen_tokens(seen, size)
                    _, memory = detector.head(seen, frame, memory, None, tokens, size)
        results = []
        trained = zip(frames[history:], features[history:], draws.denoising, strict=True)
        for frame, seen, denoising in trained:
            image_output = detector.image_head(seen, size) if detector.image_head else None
            tokens = detector.chosen_tokens(seen, size, image_output)
            output, memory = detector.head(seen, frame, memory, denoising, tokens, size)
            results.append(FrameResult(output, denoising, image_output, size))
        return results[-self.num_frame_losses :], memory

    def _features(
        self, detector: StreamPETR, frames: Sequence[Frame], grid: GridDraw | None
    ) -> list[Features]:
        """Those of each frame."""
        cameras = frames[0].images.shape[1]
        history = max(len(frames) - self.num_frame_backbone_grads, 0)

        def embed(part: Sequence[Frame], grid: GridDraw | None) -> list[Features]:
            images = torch.cat([frame.images for frame in part], dim=1)  # (B, T * N, 3, H, W)
            features = detector.image_features(images, grid)
            if isinstance(features, Tensor):
                return list(features.split(cameras, dim=1))
            levels = [level.split(cameras, dim=1) for level in features]
            return [list(of_frame) for of_frame in zip(*levels, strict=True)]

        # First: weights that autocast rounds without gradient are kept, and would be used again.
        trained = embed(frames[history:], grid)
        if not history:
            return trained
        with torch.no_grad(), evaluation_mode(detector):
            return embed(frames[:history], None) + trained


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

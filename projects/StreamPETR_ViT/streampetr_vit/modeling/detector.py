"""The detector: images of one moment and a memory in, boxes and the next memory out.

Shape letters: B streams, N cameras, C channels, H W height and width.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from streampetr_vit.modeling.criterion.denoising import DenoisingNoise
from streampetr_vit.modeling.criterion.detection_loss import DetectionLoss
from streampetr_vit.modeling.heads.streampetr import StreamPETRHead
from streampetr_vit.modeling.queries import DenoisingQueries, HeadOutput
from streampetr_vit.modeling.temporal.memory import TemporalMemory
from streampetr_vit.structures import Detections, Frame


class StreamPETR(nn.Module):
    """Multi-view temporal 3D detector.

    `step` is a pure function of a frame and a memory. `forward` wraps it for detectron2's loops,
    which know neither frames nor memories: it keeps one memory for training and one for inference.

    Args:
        backbone: maps (B * N, 3, H, W) to a dict of features.
        head: the 3D head.
        criterion: training losses; needed in training only.
        denoising: noise of the denoising queries in training; None trains without them.
        in_feature: key of the backbone's output that the head reads.
        pixel_mean, pixel_std: RGB, on the 0..255 scale.
        size_divisibility: images are zero-padded at the right and bottom to multiples of this.
        memory_at_test: False makes every frame of inference a stream of its own.
    """

    pixel_mean: Tensor
    pixel_std: Tensor

    def __init__(
        self,
        backbone: nn.Module,
        head: StreamPETRHead,
        criterion: DetectionLoss | None = None,
        denoising: DenoisingNoise | None = None,
        in_feature: str = "last_feat",
        pixel_mean: Sequence[float] = (123.675, 116.28, 103.53),
        pixel_std: Sequence[float] = (58.395, 57.12, 57.375),
        size_divisibility: int = 32,
        memory_at_test: bool = True,
    ) -> None:
        super().__init__()
        self.backbone, self.head = backbone, head
        self.criterion, self.denoising = criterion, denoising
        self.in_feature, self.size_divisibility = in_feature, size_divisibility
        self.memory_at_test = memory_at_test
        for name, value in (("pixel_mean", pixel_mean), ("pixel_std", pixel_std)):
            buffer = torch.tensor(value, dtype=torch.float32).view(3, 1, 1)
            self.register_buffer(name, buffer, persistent=False)
        self.reset_streams()

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.pixel_mean.device

    def reset_streams(self, training: bool = True, inference: bool = True) -> None:
        """Forgets streams, as if no frame had been seen.

        Args:
            training: the streams of training.
            inference: the streams of inference.
        """
        if training:
            self._training_memory: TemporalMemory | None = None
        if inference:
            self._test_memory: TemporalMemory | None = None
            # (scene token, time) of the last frame in each row of an inference batch.
            self._test_position: list[tuple[str, float]] = []

    def step(
        self, frame: Frame, memory: TemporalMemory, denoising: DenoisingQueries | None = None
    ) -> tuple[HeadOutput, TemporalMemory]:
        """One frame of B streams; keeps no state.

        Args:
            frame: on this module's device.
            memory: what the previous call returned, or `empty_memory(B)`.
            denoising: extra queries in training.

        Returns:
            Predictions of all decoder layers, and the memory for the next frame.
        """
        return self.head(self.image_features(frame.images), frame, memory, denoising)

    def empty_memory(self, batch: int) -> TemporalMemory:
        """The memory before the first frame of `batch` streams."""
        return self.head.empty_memory(batch, self.device)

    def image_features(self, images: Tensor) -> Tensor:
        """Normalises, pads and embeds images (B, N, 3, H, W), uint8 or normalised float32.

        Returns:
            (B, N, C, h, w).
        """
        batch, cameras = images.shape[:2]
        images = images.flatten(0, 1)  # (B * N, 3, H, W), camera fastest
        if images.dtype == torch.uint8:
            images = (images.float() - self.pixel_mean) / self.pixel_std
        pad_h, pad_w = (-size % self.size_divisibility for size in images.shape[-2:])
        images = F.pad(images, (0, pad_w, 0, pad_h))
        return self.backbone(images)[self.in_feature].unflatten(0, (batch, cameras))

    def forward(self, samples: list[dict[str, Any]]) -> dict[str, Tensor] | list[dict[str, Any]]:
        """detectron2's contract: a list of samples, one per stream (see `data.mapper`).

        Returns:
            In training a dict of scalar losses; else a list of {"detections": Detections}.
        """
        frame = Frame.collate(samples).to(self.device)
        if self.training:
            return self._losses(samples, frame)
        return [{"detections": found} for found in self._detect(samples, frame)]

    def _losses(self, samples: list[dict[str, Any]], frame: Frame) -> dict[str, Tensor]:
        if self.criterion is None:
            raise ValueError("training needs a criterion: set model.criterion in the config")
        boxes = [sample["gt_boxes"].to(self.device) for sample in samples]
        labels = [sample["gt_labels"].to(self.device) for sample in samples]
        denoising = None
        if self.denoising is not None:
            denoising = self.denoising.make(
                boxes, labels, self.head.point_cloud_range, self.head.num_classes
            )
        memory = self._training_memory
        if memory is None:
            memory = self.empty_memory(len(samples))
            # Whatever the samples say: after a reset there is nothing to continue.
            anew = torch.zeros_like(frame.continues_stream)
            frame = replace(frame, continues_stream=anew)
        output, self._training_memory = self.step(frame, memory, denoising)
        return self.criterion(output, boxes, labels, denoising)

    @torch.no_grad()
    def _detect(self, samples: list[dict[str, Any]], frame: Frame) -> list[Detections]:
        position = [(s["scene_token"], float(s["timestamp_s"])) for s in samples]
        continues = torch.tensor(self._continues(position), device=self.device)
        frame = replace(frame, continues_stream=continues)
        memory = self._test_memory
        if memory is None or len(memory.embedding) != len(samples):
            memory = self.empty_memory(len(samples))
        output, self._test_memory = self.step(frame, memory)
        self._test_position = position
        return self.head.detections(output)

    def _continues(self, position: list[tuple[str, float]]) -> list[bool]:
        """Whether each row of an inference batch continues the scene of the batch before."""
        if not self.memory_at_test or len(position) != len(self._test_position):
            return [False] * len(position)
        flags = []
        for (scene, time), (old_scene, old_time) in zip(position, self._test_position, strict=True):
            if scene == old_scene and time < old_time:
                raise ValueError(
                    f"frames of scene {scene} are out of order: timestamp_s {time:.6f} comes after "
                    f"{old_time:.6f}; sort them by time, or call reset_streams() to start over"
                )
            flags.append(scene == old_scene)
        return flags

"""What runs the frames of a stream: the detector in PyTorch, or its exported graphs.

Shape letters: B streams, M entries of the memory.
"""

from __future__ import annotations

from typing import Any, Protocol

import torch

from streampetr_vit.modeling.temporal.memory import TemporalMemory
from streampetr_vit.structures import CameraRig, Frame, PaddedDetections


class Detector(Protocol):
    """A function (frame, memory) -> (detections, memory), and what its callers ask it for.

    `modeling.StreamPETR` is one, `export.OnnxDetector` another.
    """

    @property
    def training(self) -> bool:
        """Whether it is being trained; then no frame is detected in."""

    @property
    def device(self) -> torch.device:
        """Where it takes pictures and memories, and gives detections."""

    @property
    def memory_length(self) -> int:
        """Entries M of the memory that a frame sees."""

    @property
    def fixed_cameras(self) -> int | None:
        """Cameras that every frame must have; None where any number will do."""

    @property
    def num_frame_queries(self) -> int:
        """Queries of a frame, learned and propagated."""

    @property
    def max_detections(self) -> int:
        """Detections of a frame at most."""

    def empty_memory(self, batch: int) -> TemporalMemory:
        """The memory before the first frame of `batch` streams."""

    def padded_size(self, image_size: tuple[int, int]) -> tuple[int, int]:
        """(height, width) in pixels that pictures of a (height, width) are padded to."""

    def encode_rig(self, rig: CameraRig, image_size: tuple[int, int]) -> Any:
        """What is the same for all frames of a rig, for `detect`.

        Args:
            rig: of B streams, on the device.
            image_size: the padded one.
        """

    def detect(
        self, frame: Frame, memory: TemporalMemory, rig_code: Any
    ) -> tuple[PaddedDetections, TemporalMemory]:
        """Detections, on the device, and the memory for the next frame.

        Args:
            frame: of B streams, on the device.
            memory: of B streams, of `empty_memory` or of the call before; at least M entries.
            rig_code: of `encode_rig` for the frame's rig and padded size.
        """

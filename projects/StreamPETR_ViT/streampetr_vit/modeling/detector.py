"""The detector: images of one moment and a memory in, boxes and the next memory out.

Shape letters: B streams, N cameras, C channels, H W height and width, K image tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from streampetr_vit.errors import InputError
from streampetr_vit.modeling.criterion.denoising import DenoisingNoise
from streampetr_vit.modeling.criterion.training_loss import TrainingLoss
from streampetr_vit.modeling.heads.denoising_queries import DenoisingQueries
from streampetr_vit.modeling.heads.focal import FocalHead
from streampetr_vit.modeling.heads.outputs import HeadOutput, ImageOutput, YOLOXOutput
from streampetr_vit.modeling.heads.temporal_head import Features, TemporalHead
from streampetr_vit.modeling.heads.yolox import YOLOXHead
from streampetr_vit.modeling.image.grid_mask import GridDraw, GridMask
from streampetr_vit.modeling.image.rig_code import RigCode, RigCodeCache
from streampetr_vit.modeling.temporal.memory import TemporalMemory
from streampetr_vit.modeling.training_window import TrainingWindow
from streampetr_vit.structures import Detections, Frame, PaddedDetections, packed_to
from streampetr_vit.structures.targets import FrameTargets

Sample = dict[str, Any]


class StreamPETR(nn.Module):
    """Multi-view temporal 3D detector.

    `step` is a pure function of a frame and a memory. `forward` wraps it for detectron2's loops,
    which know neither frames nor memories: it keeps one memory for training and one for inference.

    Args:
        backbone: maps (B * N, 3, H, W) to a dict of features.
        head: the 3D head, of StreamPETR or RepDETR3D.
        neck: maps the backbone's dict to another one; None for none.
        image_head: the 2D head. It trains the features and, where `token_ratio` is below 1, chooses
            the tokens that the 3D head sees.
        criterion: training losses; needed in training only.
        denoising: noise of the denoising queries in training; None trains without them.
        grid_mask: hides stripes of the pictures in training; None for none.
        in_feature: key of the neck's or backbone's output that the heads read; a list of keys, the
            finest level first, for heads that read several.
        pixel_mean, pixel_std: RGB, on the 0..255 scale.
        size_divisibility: images are zero-padded at the right and bottom to multiples of this.
        token_ratio: share of the image tokens, in training and in inference, that the 3D head sees;
            1 for all, without running the 2D head in inference.
        memory_at_test: False makes every frame of inference a stream of its own.
        window: which frames of a training window have gradients and losses.
    """

    pixel_mean: Tensor
    pixel_std: Tensor

    def __init__(
        self,
        backbone: nn.Module,
        head: TemporalHead,
        *,
        neck: nn.Module | None = None,
        image_head: FocalHead | YOLOXHead | None = None,
        criterion: TrainingLoss | None = None,
        denoising: DenoisingNoise | None = None,
        grid_mask: GridMask | None = None,
        in_feature: str | Sequence[str] = "last_feat",
        pixel_mean: Sequence[float] = (123.675, 116.28, 103.53),
        pixel_std: Sequence[float] = (58.395, 57.12, 57.375),
        size_divisibility: int = 32,
        token_ratio: float = 1.0,
        memory_at_test: bool = True,
        window: TrainingWindow | None = None,
    ) -> None:
        super().__init__()
        if not 0 < token_ratio <= 1 or (token_ratio < 1 and not isinstance(image_head, FocalHead)):
            raise ValueError(
                f"token_ratio ({token_ratio}) must be in (0, 1], and below 1 it needs a FocalHead "
                f"as image_head, which chooses the tokens, not {type(image_head).__name__}"
            )
        if criterion is not None and (criterion.image is None) != (image_head is None):
            raise ValueError(
                "model.image_head and model.criterion.image belong together: give both, or set "
                "both to None"
            )
        for name, part in (("head", head), ("image_head", image_head)):
            if getattr(part, "reads_levels", None) is isinstance(in_feature, str):
                wanted = "a list of names" if isinstance(in_feature, str) else "one name"
                raise ValueError(
                    f"model.in_feature is {in_feature!r}, but model.{name} "
                    f"({type(part).__name__}) reads {wanted}"
                )
        self.backbone, self.neck, self.head, self.image_head = backbone, neck, head, image_head
        self.criterion, self.denoising, self.grid_mask = criterion, denoising, grid_mask
        self.in_feature = in_feature if isinstance(in_feature, str) else tuple(in_feature)
        self.size_divisibility = size_divisibility
        self.token_ratio, self.memory_at_test = token_ratio, memory_at_test
        self.window = window or TrainingWindow()
        for name, value in (("pixel_mean", pixel_mean), ("pixel_std", pixel_std)):
            buffer = torch.tensor(value, dtype=torch.float32).view(3, 1, 1)
            self.register_buffer(name, buffer, persistent=False)
        self._rig_codes = RigCodeCache()
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
            self._rig_codes.clear()

    def train(self, mode: bool = True) -> StreamPETR:
        """Sets the mode, and drops what inference computed from the weights before."""
        self._rig_codes.clear()
        return super().train(mode)

    def step(
        self,
        frame: Frame,
        memory: TemporalMemory,
        denoising: DenoisingQueries | None = None,
        rig_code: RigCode | None = None,
    ) -> tuple[HeadOutput, TemporalMemory]:
        """One frame of B streams; keeps no state.

        Args:
            frame: on this module's device.
            memory: what the previous call returned, or `empty_memory(B)`.
            denoising: extra queries in training.
            rig_code: of `head.encode_rig` for the frame's rig and padded size, which is the same
                for many frames; None computes it.

        Returns:
            Predictions of all decoder layers, and the memory for the next frame.
        """
        features = self.image_features(frame.images)
        size = self.padded_size(frame.image_size)
        tokens = self.chosen_tokens(features, size)
        code = rig_code or self.head.encode_rig(frame.rig, size)
        return self.head(features, frame, memory, denoising, tokens, size, code)

    @torch.no_grad()
    def detect(
        self, frame: Frame, memory: TemporalMemory, rig_code: RigCode | None = None
    ) -> tuple[PaddedDetections, TemporalMemory]:
        """One frame of inference, up to the boxes; keeps no state.

        With `rig_code`, nothing in it waits for the device or depends on the values of a tensor in
        its shapes, so that the whole of it can be captured in a graph. (The sampling kernel
        "gather" does both.)

        Args:
            frame, memory, rig_code: as in `step`.

        Returns:
            Detections on the device, and the memory for the next frame.
        """
        output, memory = self.step(frame, memory, rig_code=rig_code)
        return self.head.decode(output), memory

    def empty_memory(self, batch: int) -> TemporalMemory:
        """The memory before the first frame of `batch` streams."""
        return self.head.empty_memory(batch, self.device)

    def padded_size(self, image_size: tuple[int, int]) -> tuple[int, int]:
        """(height, width) in pixels that pictures of a (height, width) are padded to."""
        height, width = (size + -size % self.size_divisibility for size in image_size)
        return height, width

    def image_features(self, images: Tensor, grid: GridDraw | None = None) -> Features:
        """Normalises, pads and embeds images (B, N, 3, H, W), uint8 or normalised float32.

        Args:
            images: the pictures.
            grid: stripes to hide, the same in all of them.

        Returns:
            (B, N, C, h, w), or a list of them where `in_feature` is one.
        """
        batch, cameras = images.shape[:2]
        images = images.flatten(0, 1)  # (B * N, 3, H, W), camera fastest
        if images.dtype == torch.uint8:
            images = (images.float() - self.pixel_mean) / self.pixel_std
        size = self.padded_size((images.shape[-2], images.shape[-1]))
        images = F.pad(images, (0, size[1] - images.shape[-1], 0, size[0] - images.shape[-2]))
        if grid is not None and self.grid_mask is not None:
            images = images * self.grid_mask.mask(size, grid, images.device)
        features = self.backbone(images)
        if self.neck is not None:
            features = self.neck(features)
        names = [self.in_feature] if isinstance(self.in_feature, str) else self.in_feature
        if not set(names) <= set(features):
            raise InputError(
                f"model.in_feature is {self.in_feature!r}, but the features are {list(features)}"
            )
        if isinstance(self.in_feature, str):
            return features[self.in_feature].unflatten(0, (batch, cameras))
        return [features[name].unflatten(0, (batch, cameras)) for name in self.in_feature]

    def forward(
        self, samples: Sequence[Sample] | Sequence[Sequence[Sample]]
    ) -> dict[str, Tensor] | list[dict[str, Any]]:
        """detectron2's contract: a list of samples, one per stream (see `data.mapper`).

        Args:
            samples: in training an entry may also be a window: samples in temporal order, as many
                in each entry.

        Returns:
            In training a dict of scalar losses; else a list of {"detections": Detections}.
        """
        windows = [[entry] if isinstance(entry, dict) else list(entry) for entry in samples]
        lengths = {len(window) for window in windows}
        if len(lengths) != 1 or 0 in lengths:
            raise ValueError(
                f"a batch needs windows of one length and at least one frame, not {sorted(lengths)}"
            )
        moments = list(zip(*windows, strict=True))
        frames = [Frame.collate(moment, images_to=self.device) for moment in moments]
        if self.training:
            if self.criterion is None:
                raise InputError("training needs a criterion: set model.criterion in the config")
            trained = moments[-self.window.num_frame_head_grads :]
            targets = [FrameTargets.collate(moment) for moment in trained]
            return self._losses(*packed_to((frames, targets), self.device))
        if len(frames) != 1:
            raise ValueError(f"inference takes one frame per stream at a time, not {len(frames)}")
        return [{"detections": found} for found in self._detect(moments[0], frames[0])]

    def chosen_tokens(
        self,
        features: Features,
        image_size: tuple[int, int],
        output: ImageOutput | YOLOXOutput | None = None,
    ) -> Tensor | None:
        """(B, K) int64 tokens that the 3D head sees, or None for all.

        Args:
            features: of `image_features`.
            image_size: (height, width) of the padded pictures in pixels.
            output: of the 2D head, where it ran already.
        """
        if self.token_ratio == 1:
            return None
        assert isinstance(self.image_head, FocalHead) and isinstance(features, Tensor)
        if output is None:
            output = self.image_head(features, image_size)
        assert isinstance(output, ImageOutput)
        return self.image_head.token_indexes(output, len(features), self.token_ratio)

    def _losses(self, frames: list[Frame], targets: list[FrameTargets]) -> dict[str, Tensor]:
        assert self.criterion is not None
        if self.criterion.image is not None and targets[-1].boxes2d is None:
            raise InputError(
                'the 2D head trains on "boxes2d", which the samples do not have: set '
                "dataloader.train.mapper.boxes2d=True, or model.image_head and "
                "model.criterion.image to None"
            )
        memory, streams = self._training_memory, len(targets[0].boxes)
        if memory is None or len(memory.embedding) != streams:
            memory = self.empty_memory(streams)
            # Whatever the samples say: after a reset there is nothing to continue.
            anew = torch.zeros_like(frames[0].continues_stream)
            frames[0] = replace(frames[0], continues_stream=anew)
        draws = self.window.draw(self, frames[0].image_size, targets)
        results, self._training_memory = self.window.run(self, frames, memory, draws)
        return self.criterion(results, targets[-len(results) :])

    def _detect(self, samples: Sequence[Sample], frame: Frame) -> list[Detections]:
        """Detects in a frame whose pictures are on the device, and whose calibration is not yet.

        Waits for the device once, for the boxes.
        """
        position = [(s["scene_token"], float(s["timestamp_s"])) for s in samples]
        frame = replace(frame, continues_stream=torch.tensor(self._continues(position)))
        memory = self._test_memory
        if memory is None or len(memory.embedding) != len(samples):
            memory = self.empty_memory(len(samples))
        code = self._rig_codes.get(self.head, frame.rig, self.padded_size(frame.image_size))
        found, self._test_memory = self.detect(packed_to(frame, self.device), memory, code)
        self._test_position = position
        return found.unpad()

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

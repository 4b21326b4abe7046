"""The detector: images of one moment and a memory in, boxes and the next memory out.

Everything here is a function of its inputs and of the weights. Who keeps a memory from frame to
frame: `inference.Stream` in inference, the trainer in training.

Shape letters: B streams, N cameras, C channels, H W height and width, T frames of a window, K image
tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from streampetr_vit.errors import InputError
from streampetr_vit.modeling.criterion.denoising import DenoisingNoise
from streampetr_vit.modeling.criterion.ray_denoising import Views
from streampetr_vit.modeling.criterion.training_loss import FrameResult, TrainingLoss
from streampetr_vit.modeling.heads.denoising_queries import DenoisingQueries
from streampetr_vit.modeling.heads.focal import FocalHead
from streampetr_vit.modeling.heads.outputs import HeadOutput, ImageOutput, YOLOXOutput
from streampetr_vit.modeling.heads.temporal_head import Features, TemporalHead
from streampetr_vit.modeling.heads.yolox import YOLOXHead
from streampetr_vit.modeling.image.grid_mask import GridDraw, GridMask
from streampetr_vit.modeling.image.normalization import normalized
from streampetr_vit.modeling.image.rig_code import RigCode
from streampetr_vit.modeling.loading_warning import warn_of_partial_loading
from streampetr_vit.modeling.temporal.memory import TemporalMemory
from streampetr_vit.modeling.training_window import TrainingDraws, TrainingWindow, evaluation_mode
from streampetr_vit.structures import (
    CameraRig,
    Frame,
    FrameTargets,
    PaddedDetections,
    Sample,
    collate_windows,
)


class StreamPETR(nn.Module):
    """Multi-view temporal 3D detector.

    Args:
        backbone: maps (B * N, 3, H, W) to a dict of features.
        neck: maps the backbone's dict to another one.
        image_head: the 2D head. It trains the features and, where `token_ratio` is below 1, chooses
            the tokens that the 3D head sees.
        criterion, denoising, grid_mask: for training only; None leaves out what it does.
        in_feature: key of the neck's or backbone's output that the heads read; a list of keys, the
            finest level first, for heads that read several.
        pixel_mean, pixel_std: on the 0..255 scale, in the order of `input_format`.
        input_format: "RGB" or "BGR", the channel order that the backbone was trained with. Samples
            are RGB in any case.
        size_divisibility: images are zero-padded at the right and bottom to multiples of this.
        token_ratio: share of the image tokens, in training and in inference, that the 3D head sees;
            1 for all, without running the 2D head in inference.
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
        input_format: str = "RGB",
        size_divisibility: int = 32,
        token_ratio: float = 1.0,
        window: TrainingWindow | None = None,
    ) -> None:
        super().__init__()
        # Here, and not in the first step: a training may start hours after it was configured.
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
        if input_format not in ("RGB", "BGR"):
            raise ValueError(f"model.input_format is {input_format!r}; it must be 'RGB' or 'BGR'")
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
        self.size_divisibility, self.token_ratio = size_divisibility, token_ratio
        self.input_format, self.window = input_format, window or TrainingWindow()
        for name, value in (("pixel_mean", pixel_mean), ("pixel_std", pixel_std)):
            buffer = torch.tensor(value, dtype=torch.float32).view(3, 1, 1)
            self.register_buffer(name, buffer, persistent=False)  # of the configuration, no weights
        warn_of_partial_loading(self)

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.pixel_mean.device

    @property
    def memory_length(self) -> int:
        """Entries of the memory that a frame sees."""
        return self.head.memory_length

    @property
    def fixed_cameras(self) -> None:
        """Cameras that every frame must have: any number will do."""
        return None

    @property
    def num_frame_queries(self) -> int:
        """Queries of a frame, learned and propagated."""
        return self.head.num_frame_queries

    @property
    def max_detections(self) -> int:
        """Detections of a frame at most."""
        return self.head.max_detections

    def empty_memory(self, batch: int) -> TemporalMemory:
        """The memory before the first frame of `batch` streams."""
        return self.head.empty_memory(batch, self.device)

    def padded_size(self, image_size: tuple[int, int]) -> tuple[int, int]:
        """(height, width) in pixels that pictures of a (height, width) are padded to."""
        height, width = (size + -size % self.size_divisibility for size in image_size)
        return height, width

    def encode_rig(self, rig: CameraRig, image_size: tuple[int, int]) -> RigCode:
        """What is the same for all frames of a rig with pictures of a padded size."""
        return self.head.encode_rig(rig, image_size)

    def step(
        self,
        frame: Frame,
        memory: TemporalMemory,
        denoising: DenoisingQueries | None = None,
        rig_code: RigCode | None = None,
    ) -> tuple[HeadOutput, TemporalMemory]:
        """One frame of B streams, on this module's device.

        Args:
            memory: what the previous call returned, or `empty_memory(B)`.
            rig_code: of `encode_rig` for the frame's rig and padded size; None computes it.

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
        """Detections, on the device, and the memory for the next frame; arguments as in `step`."""
        # With `rig_code` nothing here waits for the device, and no shape depends on values, so that
        # a graph can capture all of it. (The sampling kernel "gather" does both.)
        output, memory = self.step(frame, memory, rig_code=rig_code)
        return self.head.decode(output), memory

    def image_features(self, images: Tensor, grid: GridDraw | None = None) -> Features:
        """Normalises, pads, masks and embeds images (B, N, 3, H, W), uint8 or normalised float32.

        Returns:
            (B, N, C, h, w), or a list of them where `in_feature` is one.
        """
        batch, cameras = images.shape[:2]
        images = images.flatten(0, 1)  # (B, N, 3, H, W) -> (B * N, 3, H, W), camera fastest
        images = normalized(images, self.pixel_mean, self.pixel_std, self.input_format)
        # Zeros after the normalisation, that is mean grey, as the released weights were trained.
        size = self.padded_size((images.shape[-2], images.shape[-1]))
        images = F.pad(images, (0, size[1] - images.shape[-1], 0, size[0] - images.shape[-2]))
        if grid is not None and self.grid_mask is not None:
            images = images * self.grid_mask.mask(size, grid, images.device)
        features = self.backbone(images)  # {name: (B * N, C, h, w)}
        if self.neck is not None:
            features = self.neck(features)
        names = [self.in_feature] if isinstance(self.in_feature, str) else self.in_feature
        if not set(names) <= set(features):
            raise InputError(
                f"model.in_feature is {self.in_feature!r}, but the features are {list(features)}"
            )
        # (B * N, C, h, w) -> (B, N, C, h, w)
        if isinstance(self.in_feature, str):
            return features[self.in_feature].unflatten(0, (batch, cameras))
        return [features[name].unflatten(0, (batch, cameras)) for name in self.in_feature]

    def chosen_tokens(
        self,
        features: Features,
        image_size: tuple[int, int],
        output: ImageOutput | YOLOXOutput | None = None,
    ) -> Tensor | None:
        """(B, K) int64 tokens that the 3D head sees in pictures of a padded size; None for all."""
        if self.token_ratio == 1:
            return None
        assert isinstance(self.image_head, FocalHead) and isinstance(features, Tensor)
        if output is None:  # the 2D head has not run yet
            output = self.image_head(features, image_size)
        assert isinstance(output, ImageOutput)
        return self.image_head.token_indexes(output, len(features), self.token_ratio)

    def losses(
        self,
        samples: Sequence[Sample | Sequence[Sample]],
        memory: TemporalMemory | None = None,
    ) -> tuple[dict[str, Tensor], TemporalMemory]:
        """One training step.

        Args:
            samples: one for each stream; or for each a window, samples in temporal order, as many
                in each.
            memory: what the previous step returned. None starts every stream anew, whatever the
                samples say.

        Returns:
            Scalar losses, and the memory for the next step, without gradients.

        Raises:
            InputError: there is no criterion, or the samples lack what it needs.
        """
        if self.criterion is None:
            raise InputError("training needs a criterion: set model.criterion in the config")
        frames, targets = collate_windows(samples, self.device, self.window.num_frame_head_grads)
        if self.criterion.image is not None and targets[-1].boxes2d is None:
            raise InputError(
                'the 2D head trains on "boxes2d", which the samples do not have: set '
                "dataloader.train.mapper.boxes2d=True, or model.image_head and "
                "model.criterion.image to None"
            )
        if memory is None:
            # The samples may say that they continue: after a resume, or a step that was skipped.
            memory = self.empty_memory(len(samples))
            anew = torch.zeros_like(frames[0].continues_stream)
            frames[0] = replace(frames[0], continues_stream=anew)
        elif len(memory.embedding) != len(samples):
            # One row would be broadcast to all streams without an error.
            raise ValueError(
                f"the memory is of {len(memory.embedding)} stream(s), the batch of {len(samples)}: "
                "give None to start all streams anew"
            )
        draws = self.draw(frames, targets)
        results, memory = self.play(frames, memory, draws)
        # Of the frames that the heads see in training mode, only the last may have losses.
        return self.criterion(results, targets[-len(results) :]), memory

    def draw(self, frames: Sequence[Frame], targets: Sequence[FrameTargets]) -> TrainingDraws:
        """Draws for one step.

        Args:
            frames: of the window, in temporal order.
            targets: of those that the heads train on, the last ones.
        """
        size = self.padded_size(frames[0].image_size)
        # The mask by torch's CPU generator, then the noise by the device's, and that along rays by
        # the CPU's: the order is part of what makes a training repeatable.
        grid = None if self.grid_mask is None else self.grid_mask.draw(size[0])
        trained = frames[len(frames) - len(targets) :]
        denoising = [
            self._draw_denoising(frame, true, size)
            for frame, true in zip(trained, targets, strict=True)
        ]
        return TrainingDraws(grid, denoising)

    def _draw_denoising(
        self, frame: Frame, true: FrameTargets, image_size: tuple[int, int]
    ) -> DenoisingQueries | None:
        if self.denoising is None:
            return None
        return self.denoising.make(
            true.boxes,
            true.labels,
            self.head.point_cloud_range,
            self.head.num_classes,
            views=Views(frame.rig.lidar_to_image, image_size),
        )

    def play(
        self, frames: Sequence[Frame], memory: TemporalMemory, draws: TrainingDraws
    ) -> tuple[list[FrameResult], TemporalMemory]:
        """Plays a training window: T frames of B streams in temporal order, on this device.

        Returns:
            Results of the frames that have losses, and the memory after the last frame.

        Raises:
            InputError: fewer frames than have losses.
        """
        window = self.window
        if len(frames) < window.num_frame_losses:
            raise InputError(
                f"model.window.num_frame_losses is {window.num_frame_losses}, but the loader gives "
                f"{len(frames)} frame(s) per step: use build_window_loader as dataloader.train, "
                "with a window_length of at least as many"
            )
        features = self._window_features(frames, draws.grid)
        size = self.padded_size(frames[0].image_size)
        history = max(len(frames) - window.num_frame_head_grads, 0)
        if history:
            # They only fill the memory: no dropout, no denoising, as the detector will be used.
            with torch.no_grad(), evaluation_mode(self):
                for frame, seen in zip(frames[:history], features[:history], strict=True):
                    tokens = self.chosen_tokens(seen, size)
                    _, memory = self.head(seen, frame, memory, None, tokens, size)
        results = []
        trained = zip(frames[history:], features[history:], draws.denoising, strict=True)
        for frame, seen, denoising in trained:
            image_output = self.image_head(seen, size) if self.image_head else None
            tokens = self.chosen_tokens(seen, size, image_output)  # the 2D head runs once
            output, memory = self.head(seen, frame, memory, denoising, tokens, size)
            results.append(FrameResult(output, denoising, image_output, size))
        return results[-window.num_frame_losses :], memory

    def _window_features(self, frames: Sequence[Frame], grid: GridDraw | None) -> list[Features]:
        """The features of each frame, with gradients for the last ones."""
        cameras = frames[0].images.shape[1]
        history = max(len(frames) - self.window.num_frame_backbone_grads, 0)

        def embed(part: Sequence[Frame], grid: GridDraw | None) -> list[Features]:
            # T times (B, N, 3, H, W) -> (B, T * N, 3, H, W): one pass of the backbone
            images = torch.cat([frame.images for frame in part], dim=1)
            features = self.image_features(images, grid)
            if isinstance(features, Tensor):
                return list(features.split(cameras, dim=1))  # T times (B, N, C, h, w)
            levels = [level.split(cameras, dim=1) for level in features]
            return [list(of_frame) for of_frame in zip(*levels, strict=True)]  # frame by frame

        # Frames with gradients first: autocast keeps the weights that it rounds, and those that it
        # rounded without gradients would be used again.
        trained = embed(frames[history:], grid)
        if not history:
            return trained
        with torch.no_grad(), evaluation_mode(self):
            return embed(frames[:history], None) + trained

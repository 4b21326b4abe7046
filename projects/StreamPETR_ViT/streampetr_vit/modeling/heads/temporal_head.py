"""What StreamPETR's and RepDETR3D's heads share: object queries, a memory, and their boxes.

Shape letters: B streams, N cameras, C feature channels, H W feature height and width, T image
tokens, Q learned queries, P propagated queries, M memory entries, S denoising slots, L decoder
layers, E channels.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor, nn

from streampetr_vit.modeling.decoder.decoder import Decoder
from streampetr_vit.modeling.heads.box_coding import CODE_SIZE, decode_padded
from streampetr_vit.modeling.heads.denoising_queries import DenoisingQueries
from streampetr_vit.modeling.heads.outputs import HeadOutput
from streampetr_vit.modeling.image.rig_code import RigCode
from streampetr_vit.modeling.ops.geometry import denormalize_from_range, inverse_sigmoid
from streampetr_vit.modeling.ops.linear import Linear
from streampetr_vit.modeling.temporal import memory as temporal_memory
from streampetr_vit.modeling.temporal.alignment import AlignedQueries, TemporalAlignment
from streampetr_vit.modeling.temporal.memory import TemporalMemory
from streampetr_vit.structures import CameraRig, Detections, Frame, PaddedDetections

_PRIOR_PROBABILITY = 0.01  # of a class before training; keeps the first focal losses small

# One map (B, N, C, H, W), or one for each level, the finest first.
Features = Tensor | Sequence[Tensor]


class TemporalHead(nn.Module):
    """Temporal 3D detection head.

    Subclasses say how queries look at the image (`look`), and what of that depends on nothing but
    the cameras (`encode_rig`).

    Args:
        decoder: its `embed_dim` is E.
        num_classes: classes, without background.
        num_queries: learned queries Q.
        num_propagated: memory entries P that are queries again in the next frame.
        memory_length: entries M in the memory. 0 is the single-frame detector, PETR with
            denoising: set num_propagated and num_remembered to 0 as well.
        num_remembered: queries K that enter the memory each frame; at least `num_propagated`.
        point_cloud_range: x y z minimum and maximum in metres; normalises reference points.
        center_range: detections outside are dropped.
        max_detections: per frame.
        score_threshold: None keeps all.
        with_ego_pose: see `TemporalAlignment`.
        num_branch_layers: hidden layers of the class and the box branch.
    """

    # Whether the features are a list of levels, or one map.
    reads_levels: ClassVar[bool]
    point_cloud_range: Tensor
    center_range: Tensor
    start_points: Tensor

    def __init__(
        self,
        decoder: Decoder,
        num_classes: int = 10,
        num_queries: int = 644,
        num_propagated: int = 256,
        memory_length: int = 1024,
        num_remembered: int = 256,
        point_cloud_range: tuple[float, ...] = (-51.2, -51.2, -5.0, 51.2, 51.2, 3.0),
        center_range: tuple[float, ...] = (-61.2, -61.2, -10.0, 61.2, 61.2, 10.0),
        max_detections: int = 300,
        score_threshold: float | None = None,
        with_ego_pose: bool = True,
        num_branch_layers: int = 2,
    ) -> None:
        super().__init__()
        if num_propagated > memory_length or num_remembered > num_queries + num_propagated:
            raise ValueError(
                f"num_propagated ({num_propagated}) must not exceed memory_length "
                f"({memory_length}), nor num_remembered ({num_remembered}) the number of queries "
                f"({num_queries} + {num_propagated})"
            )
        dim = decoder.embed_dim
        self.num_classes, self.num_queries = num_classes, num_queries
        self.num_propagated, self.num_remembered = num_propagated, num_remembered
        self.memory_length, self.embed_dim = memory_length, dim
        self.max_detections, self.score_threshold = max_detections, score_threshold
        self.register_buffer("point_cloud_range", torch.tensor(point_cloud_range), persistent=False)
        self.register_buffer("center_range", torch.tensor(center_range), persistent=False)

        temporal = memory_length > 0
        self.alignment = TemporalAlignment(
            dim,
            point_cloud_range,
            num_propagated,
            with_ego_pose=with_ego_pose and temporal,
            with_time=temporal,
        )
        self.decoder = decoder
        self.reference_points = nn.Parameter(torch.rand(num_queries, 3))
        # Where the propagated queries of a stream's first frame start: random, fixed, saved.
        self.register_buffer("start_points", torch.rand(num_propagated, 3))
        # Quirk: one class branch and one box branch serve all decoder layers.
        self.class_branch = _branch(dim, num_classes, num_branch_layers, with_norm=True)
        self.box_branch = _branch(dim, CODE_SIZE, num_branch_layers, with_norm=False)
        bias = -math.log((1 - _PRIOR_PROBABILITY) / _PRIOR_PROBABILITY)
        nn.init.constant_(self.class_branch[-1].get_parameter("bias"), bias)

    @abstractmethod
    def encode_rig(self, rig: CameraRig, image_size: tuple[int, int]) -> RigCode:
        """What `look` needs that is the same for all frames of a rig.

        Runs in float32 under any ambient autocast.

        Args:
            rig: on the device of the weights.
            image_size: (height, width) in pixels of the padded pictures.
        """

    @abstractmethod
    def look(
        self,
        features: Features,
        frame: Frame,
        points_m: Tensor,
        token_indexes: Tensor | None,
        image_size: tuple[int, int],
        rig_code: RigCode | None = None,
    ) -> object:
        """What the decoder's queries look at in one frame.

        Args:
            features: float32.
            frame: calibration of the same streams.
            points_m: (B, S + Q + P, 3) reference points of the queries, metres, lidar frame.
            token_indexes: (B, K) int64 selects image tokens; None keeps all.
            image_size: (height, width) in pixels of the padded pictures.
            rig_code: of `encode_rig` for the frame's rig; None computes what of it is needed.
        """

    def empty_memory(self, batch: int, device: torch.device | str = "cpu") -> TemporalMemory:
        """The memory before the first frame of `batch` streams."""
        return TemporalMemory.empty(batch, self.memory_length, self.embed_dim, device)

    def forward(
        self,
        features: Features,
        frame: Frame,
        memory: TemporalMemory,
        denoising: DenoisingQueries | None = None,
        token_indexes: Tensor | None = None,
        image_size: tuple[int, int] | None = None,
        rig_code: RigCode | None = None,
    ) -> tuple[HeadOutput, TemporalMemory]:
        """Detects in one frame.

        Runs in float32 (time in float64) under any ambient autocast.

        Args:
            features: as the subclass says, any float dtype.
            frame: calibration, pose and time of the same B streams; its images are not read.
            memory: as the previous call returned it, or `empty_memory`.
            denoising: extra queries in training.
            token_indexes: (B, K) int64 selects image tokens; None keeps all.
            image_size: (height, width) in pixels of the padded pictures; None if they are as in
                `frame`.
            rig_code: of `encode_rig` for the frame's rig and this size; None computes what of it is
                needed.

        Returns:
            Predictions, and the memory for the next frame.
        """
        with torch.autocast(frame.timestamp_s.device.type, enabled=False):
            aligned = self.align_memory(memory, frame)
            queries = self.make_queries(aligned, denoising)
            points_m = denormalize_from_range(queries.reference_points, self.point_cloud_range)
            if isinstance(features, Tensor):
                features = features.float()
            else:
                features = [level.float() for level in features]
            size = image_size or frame.image_size
            image = self.look(features, frame, points_m, token_indexes, size, rig_code)
            output = self._decode(queries, image, points_m, denoising)
            return output, self._remember(output, aligned, frame)

    def align_memory(self, memory: TemporalMemory, frame: Frame) -> TemporalMemory:
        """The memory in the current lidar frame, void where a stream starts anew."""
        return temporal_memory.align(
            memory,
            self.memory_length,
            frame.continues_stream,
            frame.global_to_lidar,
            frame.timestamp_s,
            denormalize_from_range(self.start_points, self.point_cloud_range),
        )

    def make_queries(
        self, memory: TemporalMemory, denoising: DenoisingQueries | None = None
    ) -> AlignedQueries:
        """Learned and denoising queries, joined with an aligned memory."""
        batch = len(memory.embedding)
        reference_points = self.reference_points.expand(batch, -1, -1)
        if denoising is not None:
            reference_points = torch.cat((denoising.reference_points, reference_points), dim=1)
        position = self.alignment.embed_points(reference_points)
        return self.alignment(torch.zeros_like(position), position, reference_points, memory)

    def decode(self, output: HeadOutput) -> PaddedDetections:
        """Detections of the last layer, on the device."""
        return decode_padded(
            output.logits[-1],
            output.codes[-1],
            self.max_detections,
            self.center_range,
            self.score_threshold,
        )

    def detections(self, output: HeadOutput) -> list[Detections]:
        """Detections of the last layer, one per stream, on the CPU."""
        return self.decode(output).unpad()

    def _decode(
        self,
        queries: AlignedQueries,
        image: object,
        points_m: Tensor,
        denoising: DenoisingQueries | None,
    ) -> HeadOutput:
        slots = 0 if denoising is None else denoising.num_slots
        blocked = None
        if denoising is not None and slots:
            real = queries.content.shape[1] - slots
            blocked = denoising.blocked(real, real + queries.memory_content.shape[1])
        states = self.decoder(
            queries.content,
            queries.position,
            image,
            points_m,
            queries.memory_content,
            queries.memory_position,
            blocked,
        )  # (L, B, S + Q + P, E)
        logits = self.class_branch(states)
        raw = self.box_branch(states)
        # Quirk: all layers start from the same reference points; nothing is refined in between.
        center = (raw[..., :3] + inverse_sigmoid(queries.reference_points)).sigmoid()
        codes = torch.cat(
            (denormalize_from_range(center, self.point_cloud_range), raw[..., 3:]), dim=-1
        )
        output = HeadOutput(logits[:, :, slots:], codes[:, :, slots:], states[:, :, slots:])
        if not slots:
            return output
        return HeadOutput(
            output.logits, output.codes, output.states, logits[:, :, :slots], codes[:, :, :slots]
        )

    def _remember(
        self, output: HeadOutput, aligned: TemporalMemory, frame: Frame
    ) -> TemporalMemory:
        codes = output.codes[-1]
        return temporal_memory.push(
            aligned,
            scores=output.logits[-1].sigmoid().amax(-1),
            embedding=output.states[-1],
            center_m=codes[..., :3],
            velocity_mps=codes[..., -2:],
            count=self.num_remembered,
            lidar_to_global=frame.lidar_to_global,
            timestamp_s=frame.timestamp_s,
        )


def _branch(dim: int, out_channels: int, num_layers: int, with_norm: bool) -> nn.Sequential:
    layers: list[nn.Module] = []
    for _ in range(num_layers):
        layers += [Linear(dim, dim), *([nn.LayerNorm(dim)] if with_norm else []), nn.ReLU()]
    return nn.Sequential(*layers, Linear(dim, out_channels))

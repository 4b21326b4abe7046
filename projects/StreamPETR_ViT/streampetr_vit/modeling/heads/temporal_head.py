"""What StreamPETR's and RepDETR3D's heads share: object queries, a memory, and their boxes.

Shape letters: B streams, N cameras, C feature channels, H W feature height and width, T image
tokens, Q learned queries, P propagated queries, M memory entries, S denoising slots, L decoder
layers, E channels.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import replace
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from streampetr_vit.modeling.decoder.decoder import Decoder
from streampetr_vit.modeling.heads.box_coding import CODE_SIZE, decode_padded
from streampetr_vit.modeling.heads.denoising_queries import DenoisingQueries
from streampetr_vit.modeling.heads.outputs import HeadOutput
from streampetr_vit.modeling.heads.prior_bias import set_prior_bias
from streampetr_vit.modeling.heads.quality import QualityBranch, centerness_of
from streampetr_vit.modeling.image.rig_code import RigCode
from streampetr_vit.modeling.ops.geometry import denormalize_from_range, inverse_sigmoid
from streampetr_vit.modeling.ops.linear import Linear
from streampetr_vit.modeling.temporal import memory as temporal_memory
from streampetr_vit.modeling.temporal.alignment import AlignedQueries, TemporalAlignment
from streampetr_vit.modeling.temporal.memory import NO_LINEAGE, TemporalMemory, best_queries
from streampetr_vit.structures import CameraRig, Frame, PaddedDetections

# One map (B, N, C, H, W), or one for each level, the finest first.
Features = Tensor | Sequence[Tensor]


class TemporalHead(nn.Module):
    """Temporal 3D detection head.

    A subclass makes what the queries attend to (`image_for_queries`), and of that what only the
    cameras decide (`encode_rig`).

    Args:
        decoder: its `embed_dim` is E.
        num_queries: learned queries Q.
        num_propagated: memory entries P that are queries again in the next frame.
        memory_length: entries M in the memory; 0, with num_propagated and num_remembered 0 as well,
            is the single-frame detector PETR.
        num_remembered: queries K that enter the memory each frame; at least `num_propagated`.
        point_cloud_range: x y z minimum and maximum in metres; normalises reference points.
        center_range, max_detections, score_threshold: see `decode_padded`.
        with_ego_pose: see `TemporalAlignment`.
        num_branch_layers: hidden layers of the class and the box branch.
        with_quality: predict how well each box is placed, and multiply scores by it; see
            `QualityBranch` and `decode_padded`.
        remember_by_quality: choose what enters the memory by the product.
    """

    reads_levels: ClassVar[bool]  # whether the features are a list of levels, or one map
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
        with_quality: bool = False,
        remember_by_quality: bool = False,
    ) -> None:
        super().__init__()
        if num_propagated > memory_length or num_remembered > num_queries + num_propagated:
            raise ValueError(
                f"num_propagated ({num_propagated}) must not exceed memory_length "
                f"({memory_length}), nor num_remembered ({num_remembered}) the number of queries "
                f"({num_queries} + {num_propagated})"
            )
        if remember_by_quality and not (with_quality and num_remembered):
            raise ValueError(
                "remember_by_quality is True, but "
                + ("nothing is remembered" if with_quality else "the head has no quality")
                + ": set remember_by_quality=False, or with_quality=True and num_remembered above 0"
            )
        dim = decoder.embed_dim
        self.num_classes, self.num_queries = num_classes, num_queries
        self.num_propagated, self.num_remembered = num_propagated, num_remembered
        self.memory_length, self.embed_dim = memory_length, dim
        self.max_detections, self.score_threshold = max_detections, score_threshold
        self.remember_by_quality = remember_by_quality
        self.register_buffer("point_cloud_range", torch.tensor(point_cloud_range), persistent=False)
        self.register_buffer("center_range", torch.tensor(center_range), persistent=False)

        temporal = memory_length > 0  # else there is neither motion nor age to encode
        self.alignment = TemporalAlignment(
            dim,
            point_cloud_range,
            num_propagated,
            with_ego_pose=with_ego_pose and temporal,
            with_time=temporal,
        )
        self.decoder = decoder
        self.reference_points = nn.Parameter(torch.rand(num_queries, 3))  # fractions of the range
        # Where the propagated queries of a stream's first frame start: drawn once, never trained,
        # and saved, because the other weights are trained with them.
        self.register_buffer("start_points", torch.rand(num_propagated, 3))
        # Quirk: one class branch and one box branch serve all decoder layers.
        self.class_branch = _branch(dim, num_classes, num_branch_layers, with_norm=True)
        self.box_branch = _branch(dim, CODE_SIZE, num_branch_layers, with_norm=False)
        set_prior_bias([self.class_branch[-1]])
        # The other weights start the same with and without it. (What is drawn next begins with the
        # numbers that this one begins with.)
        with torch.random.fork_rng(devices=[]):
            self.quality_branch = QualityBranch(dim) if with_quality else None

    @property
    def num_frame_queries(self) -> int:
        """Queries of a frame, Q + P, without those of denoising."""
        return self.num_queries + self.num_propagated

    @abstractmethod
    def encode_rig(self, rig: CameraRig, image_size: tuple[int, int]) -> RigCode:
        """What `image_for_queries` needs that is the same for all frames of a rig.

        Runs in float32 under any ambient autocast. Arguments as there.
        """

    @abstractmethod
    def image_for_queries(
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
            image_size: (height, width) of the padded pictures in pixels.
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
        """Detects in one frame, in float32 (time in float64) under any ambient autocast.

        Args:
            features: as the subclass says, any float dtype.
            frame: calibration, pose and time of the same B streams; its images are not read.
            memory: as the previous call returned it, or `empty_memory`.
            token_indexes, rig_code: as for `image_for_queries`.
            image_size: likewise; None for the frame's own.

        Returns:
            Predictions, and the memory for the next frame.
        """
        # Points pass through map coordinates of 1e3 m and more: half precision would lose metres.
        with torch.autocast(frame.timestamp_s.device.type, enabled=False):
            aligned = self.align_memory(memory, frame)
            queries = self.make_queries(aligned, denoising)
            points_m = denormalize_from_range(queries.reference_points, self.point_cloud_range)
            if isinstance(features, Tensor):
                features = features.float()
            else:
                features = [level.float() for level in features]
            size = image_size or frame.image_size
            image = self.image_for_queries(features, frame, points_m, token_indexes, size, rig_code)
            output = self.predict(queries, image, points_m, aligned.lineage, denoising)
            after = self.remember(output, aligned, frame.lidar_to_global, frame.timestamp_s)
            return output, after

    def align_memory(self, memory: TemporalMemory, frame: Frame) -> TemporalMemory:
        """The memory in the current lidar frame, void where a stream starts anew."""
        return temporal_memory.align(
            memory,
            self.memory_length,
            frame.continues_stream,
            frame.global_to_lidar,
            frame.timestamp_s,
            self.start_points_m,
        )

    @property
    def start_points_m(self) -> Tensor:
        """(P, 3) where the propagated queries of a stream's first frame start, lidar frame."""
        return denormalize_from_range(self.start_points, self.point_cloud_range)

    def make_queries(
        self, memory: TemporalMemory, denoising: DenoisingQueries | None = None
    ) -> AlignedQueries:
        """Learned and denoising queries, joined with an aligned memory."""
        batch = len(memory.embedding)
        reference_points = self.reference_points.expand(batch, -1, -1)
        if denoising is not None:
            # (B, S, 3), (B, Q, 3) -> (B, S + Q, 3)
            reference_points = torch.cat((denoising.reference_points, reference_points), dim=1)
        position = self.alignment.embed_points(reference_points)  # (B, S + Q, E)
        # The content starts at zero: what a learned query knows is in its position.
        return self.alignment(torch.zeros_like(position), position, reference_points, memory)

    def decode(self, output: HeadOutput) -> PaddedDetections:
        """Detections of the last layer, on the device."""
        return decode_padded(output, self.max_detections, self.center_range, self.score_threshold)

    def predict(
        self,
        queries: AlignedQueries,
        image: object,
        points_m: Tensor,
        lineage: Tensor,
        denoising: DenoisingQueries | None = None,
        last_only: bool = False,
    ) -> HeadOutput:
        """Lets the queries look at the image, and says what they have found.

        Args:
            queries: of `make_queries`.
            image: of `image_for_queries`.
            points_m: (B, S + Q + P, 3) reference points of the queries, metres, lidar frame.
            lineage: (B, M) int64 of the memory.
            last_only: of the last decoder layer alone, L = 1.
        """
        slots = 0 if denoising is None else denoising.num_slots
        blocked = None  # without denoising every query sees every other
        if denoising is not None and slots:
            real = queries.content.shape[1] - slots  # Q + P
            blocked = denoising.blocked(real, real + queries.memory_content.shape[1])
        states = self.decoder(
            queries.content,
            queries.position,
            image,
            points_m,
            queries.memory_content,
            queries.memory_position,
            blocked,
            last_only,
        )  # (L, B, S + Q + P, E)
        logits = self.class_branch(states)  # (L, B, S + Q + P, classes)
        raw = self.box_branch(states)  # (L, B, S + Q + P, 10)
        # Quirk: all layers start from the same reference points; nothing is refined in between.
        center = (raw[..., :3] + inverse_sigmoid(queries.reference_points)).sigmoid()
        center_m = denormalize_from_range(center, self.point_cloud_range)
        codes = torch.cat((center_m, raw[..., 3:]), dim=-1)  # 3 + 7 numbers -> 10
        # The first S along the queries are those of denoising: the memory must not see them.
        logits, noised_logits = logits[:, :, slots:], logits[:, :, :slots]
        states = states[:, :, slots:]
        quality = None
        if self.quality_branch is not None:
            quality = self.quality_branch(states, queries.position[:, slots:])
        output = HeadOutput(
            logits,
            codes[:, :, slots:],
            states,
            # (B, M) -> (B, P) -> (B, Q + P): the learned queries come first, and have none.
            lineage=F.pad(
                lineage[:, : self.num_propagated], (self.num_queries, 0), value=NO_LINEAGE
            ),
            remembered=best_queries(self._memory_scores(logits, quality), self.num_remembered),
            quality=quality,
        )
        if not slots:
            return output
        return replace(output, denoising_logits=noised_logits, denoising_codes=codes[:, :, :slots])

    def _memory_scores(self, logits: Tensor, quality: Tensor | None) -> Tensor:
        """(B, Q + P), by which queries enter the memory, from all layers' logits."""
        scores = logits[-1].sigmoid().amax(-1)  # the best class
        if quality is None or not self.remember_by_quality:
            return scores
        return scores * centerness_of(quality[-1])

    def remember(
        self,
        output: HeadOutput,
        aligned: TemporalMemory,
        lidar_to_global: Tensor,
        timestamp_s: Tensor,
    ) -> TemporalMemory:
        """The memory for the next frame; the last two as in `Frame`."""
        codes = output.codes[-1]  # of the last layer: (B, Q + P, 10)
        return temporal_memory.push(
            aligned,
            best=output.remembered,
            embedding=output.states[-1],
            center_m=codes[..., :3],
            velocity_mps=codes[..., -2:],
            lineage=output.lineage,
            lidar_to_global=lidar_to_global,
            timestamp_s=timestamp_s,
        )


def _branch(dim: int, out_channels: int, num_layers: int, with_norm: bool) -> nn.Sequential:
    layers: list[nn.Module] = []
    for _ in range(num_layers):
        layers += [Linear(dim, dim), *([nn.LayerNorm(dim)] if with_norm else []), nn.ReLU()]
    return nn.Sequential(*layers, Linear(dim, out_channels))

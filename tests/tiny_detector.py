"""A detector of a few thousand weights and random driving frames, for tests of behaviour."""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable
from dataclasses import replace
from typing import Any, TypeVar

import torch

from streampetr_vit.inference.bare_model import BareStreamPETR
from streampetr_vit.modeling.backbone import SimpleFeaturePyramid, SingleScale, ViT
from streampetr_vit.modeling.criterion.denoising import DenoisingNoise
from streampetr_vit.modeling.criterion.detection_loss import DetectionLoss
from streampetr_vit.modeling.criterion.image_loss import ImageLoss
from streampetr_vit.modeling.criterion.training_loss import TrainingLoss
from streampetr_vit.modeling.criterion.yolox_loss import YOLOXLoss
from streampetr_vit.modeling.decoder.decoder import SamplingDecoder, TemporalDecoder
from streampetr_vit.modeling.detector import StreamPETR
from streampetr_vit.modeling.heads.focal import FocalHead
from streampetr_vit.modeling.heads.outputs import HeadOutput
from streampetr_vit.modeling.heads.repdetr3d import RepDETR3DHead
from streampetr_vit.modeling.heads.streampetr import StreamPETRHead
from streampetr_vit.modeling.heads.yolox import YOLOXHead
from streampetr_vit.modeling.image.grid_mask import GridMask
from streampetr_vit.modeling.image.position_encoder import ImagePositionEncoder
from streampetr_vit.modeling.temporal.memory import NO_LINEAGE, best_queries
from streampetr_vit.modeling.training_window import TrainingWindow
from streampetr_vit.structures import Boxes2D, Sample, invert_rigid
from streampetr_vit.structures.tensors import tensors_of

HEIGHT, WIDTH = 32, 64
T = TypeVar("T", bound=StreamPETR)


def last_layer(logits: torch.Tensor, codes: torch.Tensor) -> HeadOutput:
    """What a head says with (B, Q, classes) logits and (B, Q, 10) codes; the memory takes none."""
    lineage = torch.full(logits.shape[:2], NO_LINEAGE)
    return HeadOutput(
        logits[None], codes[None], codes[None], lineage, best_queries(logits[..., 0], 0)
    )


def make_detector(
    seed: int = 0, window: TrainingWindow | None = None, token_ratio: float = 1.0, **head: Any
) -> StreamPETR:
    """A detector with a ViT of two blocks, eight queries and a memory of eight entries.

    Its training has everything: denoising, the 2D head and GridMask. `head` changes the 3D head.
    """
    return _make(StreamPETR, seed, head, window=window, token_ratio=token_ratio)


def make_bare_detector(seed: int = 0, **options: Any) -> BareStreamPETR:
    """The same detector as detectron2's own loops call it."""
    return _make(BareStreamPETR, seed, {}, **options)


def _make(kind: type[T], seed: int, head: dict[str, Any], **options: Any) -> T:
    torch.manual_seed(seed)
    dim = 32
    vit = ViT(
        img_size=HEIGHT,
        embed_dim=dim,
        depth=2,
        num_heads=2,
        window_size=2,
        global_window_size=2,
        window_block_indexes=(0, 1),
        pretrain_img_size=HEIGHT,
    )
    head = dict(num_queries=8, num_propagated=4, memory_length=8, num_remembered=4) | head
    detector = kind(
        SingleScale(vit),
        StreamPETRHead(
            in_channels=dim,
            decoder=TemporalDecoder(dim, 2, 32, num_layers=2, dropout=0.0),
            position_encoder=ImagePositionEncoder(dim, (-61.2, -61.2, -10, 61.2, 61.2, 10), 32),
            max_detections=20,
            **head,
        ),
        image_head=FocalHead(dim, embed_dim=32),
        criterion=TrainingLoss(DetectionLoss(), ImageLoss()),
        denoising=DenoisingNoise(groups=2),
        grid_mask=GridMask(),
        size_divisibility=16,
        **options,
    )
    for parameter in detector.parameters():  # a zero-initialised layer would hide a wrong wiring
        if not parameter.any():
            torch.nn.init.normal_(parameter, std=0.1)
    return detector


def make_repdetr3d(
    seed: int = 0,
    window: TrainingWindow | None = None,
    sampling_kernel: str = "grid_sample",
    **head: Any,
) -> StreamPETR:
    """The same with RepDETR3D's head, on two levels of features, and the YOLOX head."""
    streampetr = make_detector(seed, window)
    torch.manual_seed(seed)
    dim = 32
    decoder = SamplingDecoder(
        dim,
        2,
        32,
        2,
        num_levels=2,
        num_points=3,
        num_groups=2,
        dropout=0.0,
        sampling_kernel=sampling_kernel,
    )
    detector = StreamPETR(
        SimpleFeaturePyramid(streampetr.backbone.net, "last_feat", dim, [2, 1]),
        RepDETR3DHead(
            decoder,
            num_queries=8,
            num_propagated=4,
            memory_length=8,
            num_remembered=4,
            max_detections=20,
            **head,
        ),
        image_head=YOLOXHead(dim, strides=(8, 16), embed_dim=16),
        criterion=TrainingLoss(DetectionLoss(), YOLOXLoss()),
        denoising=DenoisingNoise(groups=2),
        grid_mask=GridMask(),
        in_feature=["p3", "p4"],
        size_divisibility=16,
        window=window,
    )
    for parameter in detector.parameters():
        if not parameter.any():
            torch.nn.init.normal_(parameter, std=0.1)
    return detector


def make_sample(
    time: int, scene: str = "a", seed: int = 0, continues: bool | None = None, **changes: Any
) -> Sample:
    """A random frame of a car that drives along x; the same arguments give the same frame.

    `changes` replace attributes of the sample.
    """
    generator = torch.Generator().manual_seed(zlib.crc32(f"{scene} {time} {seed}".encode()))
    intrinsics = torch.eye(4).repeat(6, 1, 1)
    intrinsics[:, 0, 0] = torch.linspace(40, 60, 6)
    intrinsics[:, 1, 1] = torch.linspace(41, 61, 6)
    intrinsics[:, 0, 2], intrinsics[:, 1, 2] = WIDTH / 2, HEIGHT / 2
    lidar_to_camera = torch.stack([_looking_to(angle) for angle in (0, -55, 55, 180, 110, -110)])
    lidar_to_global = torch.eye(4)
    lidar_to_global[0, 3] = 600 + 2.0 * time
    boxes = torch.rand(3, 9, generator=generator) * 20 - 10
    boxes[:, 3:6] = boxes[:, 3:6].abs() + 0.5
    labels = torch.randint(0, 10, (3,), generator=generator)
    sample = Sample(
        images=torch.randint(0, 256, (6, 3, HEIGHT, WIDTH), generator=generator, dtype=torch.uint8),
        intrinsics=intrinsics,
        lidar_to_camera=lidar_to_camera,
        lidar_to_image=intrinsics @ lidar_to_camera,
        lidar_to_global=lidar_to_global,
        global_to_lidar=invert_rigid(lidar_to_global),
        timestamp_s=torch.tensor(1.5e9 + 0.5 * time, dtype=torch.float64),
        continues_stream=torch.tensor(time > 0 if continues is None else continues),
        scene_token=scene,
        sample_token=f"{scene}-{time}",
        gt_boxes=boxes,
        gt_labels=labels,
        boxes2d=[_boxes2d(labels[:count], generator) for count in (1, 0, 2, 0, 3, 1)],
    )
    return replace(sample, **changes)


def with_boxes(sample: Sample, count: int) -> Sample:
    """The sample with its first `count` boxes, and as many 2D boxes in each picture."""
    return replace(
        sample,
        gt_boxes=sample.gt_boxes[:count],
        gt_labels=sample.gt_labels[:count],
        boxes2d=[boxes[torch.arange(min(len(boxes), count))] for boxes in sample.boxes2d],
    )


def cameras(sample: Sample, change: Callable[[torch.Tensor], torch.Tensor]) -> Sample:
    """The sample with what belongs to its cameras changed: pictures and calibration."""
    names = ("images", "intrinsics", "lidar_to_camera", "lidar_to_image")
    return replace(sample, **{name: change(getattr(sample, name)) for name in names})


def same(a: Any, b: Any) -> bool:
    """Whether two values hold equal tensors, bit by bit."""
    first, second = tensors_of(a), tensors_of(b)
    return len(first) == len(second) and all(map(torch.equal, first, second))


def _boxes2d(labels: torch.Tensor, generator: torch.Generator) -> Boxes2D:
    """Boxes around random centres."""
    count = len(labels)
    centers = torch.rand(count, 2, generator=generator) * torch.tensor([WIDTH, HEIGHT])
    reach = torch.rand(count, 2, generator=generator) * 10 + 2
    corners = torch.cat((centers - reach, centers + reach), dim=1)
    corners = corners.clamp(min=0).minimum(torch.tensor([WIDTH, HEIGHT, WIDTH, HEIGHT]))
    return Boxes2D(corners, centers, labels, torch.full((count,), 10.0))


def _looking_to(degrees: float) -> torch.Tensor:
    """lidar_to_camera of a camera 1.5 m above the origin that looks `degrees` left of +x."""
    c, s = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    return torch.tensor(
        [[s, -c, 0.0, 0.0], [0.0, 0.0, -1.0, 1.5], [c, s, 0.0, 0.0], [0.0, 0.0, 0.0, 1.0]]
    )

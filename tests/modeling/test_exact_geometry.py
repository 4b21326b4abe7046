"""Geometry is computed in full precision, however coarse matrix products are."""

from __future__ import annotations

import ast
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from coarse_products import CoarseProducts
from tiny_detector import last_layer, make_detector, make_repdetr3d, make_sample, same
from torch import Tensor

import streampetr_vit
from streampetr_vit.modeling.criterion.denoising import DenoisingNoise
from streampetr_vit.modeling.criterion.matcher import HungarianMatcher
from streampetr_vit.modeling.criterion.ray_denoising import RayDenoising, Views
from streampetr_vit.modeling.decoder.camera_sampling import project
from streampetr_vit.modeling.detector import StreamPETR
from streampetr_vit.modeling.heads.box_coding import decode_padded, encode_boxes
from streampetr_vit.modeling.heads.geometric_prior import projection_bias
from streampetr_vit.modeling.image.position_encoder import ImagePositionEncoder
from streampetr_vit.modeling.ops.encodings import encode_points, fourier_encoding, sine_encoding
from streampetr_vit.modeling.ops.geometry import (
    matrix_product,
    normalize_to_range,
    token_centers,
    transform_points,
)
from streampetr_vit.modeling.temporal import memory as temporal_memory
from streampetr_vit.modeling.temporal.memory import NO_LINEAGE, TemporalMemory
from streampetr_vit.structures import (
    Frame,
    Pose,
    box_corners,
    invert_rigid,
    rotate_scale_translate_boxes,
)

torch.manual_seed(0)
RANGE = torch.tensor([-61.2, -61.2, -10.0, 61.2, 61.2, 10.0])
# Turned, and a kilometre from the origin: nothing that ten bits could hold.
POSE = Pose(np.array([1234.567, -876.543, 12.345]), np.array([0.9, 0.05, -0.05, 0.4])).matrix()
FRAME = Frame.collate(
    [
        make_sample(
            1,
            lidar_to_global=torch.from_numpy(POSE),
            global_to_lidar=torch.from_numpy(np.linalg.inv(POSE)),
        )
    ]
)
RIG, POSES = FRAME.rig, FRAME.lidar_to_global.float()  # (1, 4, 4)
POINTS = 100 * torch.rand(1, 7, 3) - 50  # (1, 7, 3) metres, lidar frame
BOXES = torch.cat((POINTS[0], torch.rand(7, 6) + 0.5), dim=1)
LABELS = torch.zeros(7, dtype=torch.long)
ENCODER = ImagePositionEncoder(8, tuple(RANGE.tolist()), 32)


def full_memory() -> TemporalMemory:
    """Of one stream, eight entries around the car, as the frame before left it."""
    generator = torch.Generator().manual_seed(1)

    def numbers(*shape: int) -> Tensor:
        return torch.randn(1, 8, *shape, generator=generator)

    pose = FRAME.lidar_to_global.expand(1, 8, 4, 4)
    center = pose[..., :3, 3] + 30 * numbers(3).double()
    time = (0.5 - FRAME.timestamp_s).expand(1, 8, 1)
    lineage = torch.full((1, 8), NO_LINEAGE)
    return TemporalMemory(numbers(32), center, time, pose, numbers(2), lineage)


MEMORY = full_memory()


def aligned() -> TemporalMemory:
    goes_on = torch.tensor([True])
    place = (FRAME.global_to_lidar, FRAME.timestamp_s, POINTS[0, :4])
    return temporal_memory.align(MEMORY, 8, goes_on, *place)


def pushed() -> TemporalMemory:
    lineage = torch.full((1, 7), NO_LINEAGE)
    new = (torch.arange(4)[None], torch.ones(1, 7, 32), POINTS, POINTS[..., :2], lineage)
    kept = replace(MEMORY, center_m=POINTS.repeat(1, 2, 1)[:, :8])
    return temporal_memory.push(kept, *new, FRAME.lidar_to_global, FRAME.timestamp_s)


GEOMETRY: dict[str, Callable[[], Any]] = {
    "points": lambda: transform_points(POINTS, POSES),
    "poses": lambda: matrix_product(POSES, POSES.mT.contiguous()),
    "inverse": lambda: invert_rigid(POSES),
    "memory of the next frame": aligned,
    "memory of this frame": pushed,
    "prior": lambda: projection_bias(
        POINTS, RIG.lidar_to_image, token_centers(2, 4, 16, torch.device("cpu")), 5.0
    ),
    "rays": lambda: ENCODER.ray_points(
        RIG.lidar_to_image, token_centers(2, 4, 16, torch.device("cpu"))
    ),
    "projection": lambda: project(POINTS[:, :, None], RIG.lidar_to_image, (32, 64)),
    "point codes": lambda: encode_points(normalize_to_range(POINTS, RANGE), 16),
    "time codes": lambda: sine_encoding(torch.linspace(0, 1.1, 5, dtype=torch.float64), 16),
    "motion codes": lambda: fourier_encoding(POINTS),
    "detections": lambda: decode_padded(
        last_layer(POINTS.mT, encode_boxes(BOXES)[None, :3]), 5, RANGE
    ),
    "matching": lambda: HungarianMatcher().cost(
        POINTS[0].clamp(-5, 5), encode_boxes(BOXES), BOXES, LABELS
    ),
    "matching of many": lambda: HungarianMatcher().cost(  # torch.cdist changes its way at 25 rows
        POINTS[0].clamp(-5, 5).repeat(20, 1),
        encode_boxes(BOXES).repeat(20, 1),
        BOXES.repeat(20, 1),
        LABELS.repeat(20),
    ),
    "denoising": lambda: DenoisingNoise(2).make(
        [BOXES], [LABELS], RANGE, 10, torch.linspace(0, 0.9, 42).view(14, 3)
    ),
    "points on rays": lambda: RayDenoising(groups=2, min_depth_m=1.0).place(
        torch.linspace(-3, 3, 70).view(2, 5, 7),
        BOXES,
        torch.zeros(7, dtype=torch.long),
        Views(RIG.lidar_to_image, (32, 64)),
    ),
    "corners": lambda: box_corners(BOXES),
    "tilted corners": lambda: box_corners(BOXES, POSES[:, :3, :3].expand(7, 3, 3) * 0.123456),
    "scene augmentation": lambda: rotate_scale_translate_boxes(BOXES, 0.3, 1.02),
}
functions = pytest.mark.parametrize("function", GEOMETRY.values(), ids=GEOMETRY)


@functions
def test_coarse_products_change_no_geometry(function: Callable[[], Any]) -> None:
    exact = function()
    with CoarseProducts() as products:
        found = function()
    assert same(found, exact)
    assert products.count == 0  # not by luck: there is no product that could be rounded


@functions
def test_autocast_changes_no_geometry(function: Callable[[], Any]) -> None:
    exact = function()
    with torch.autocast("cpu", torch.bfloat16):
        found = function()
    assert same(found, exact)


def test_coarse_products_are_coarse() -> None:
    """Else the tests above could not fail."""
    homogeneous = torch.cat((POINTS, torch.ones(1, 7, 1)), dim=2)
    with CoarseProducts() as products:
        rounded = homogeneous @ POSES.mT
        torch.einsum("bij,bqj->bqi", POSES[:, :3, :3], POINTS)
        torch.linalg.inv_ex(POSES)
        torch.nn.functional.linear(POINTS, POSES[0, :3, :3])
    assert products.count == 4
    error = (rounded[..., :3] - transform_points(POINTS, POSES)).abs().max()
    assert 0.1 < error < 2  # metres, at a kilometre


@pytest.mark.parametrize("make", [make_detector, make_repdetr3d])
def test_coarse_products_move_no_remembered_place(make: Callable[[], StreamPETR]) -> None:
    """Through the whole head, whose layers are coarse here: what it remembers stays in place."""
    detector = make().eval()
    head, memory = detector.head, MEMORY
    with torch.no_grad():
        exact = head.align_memory(memory, FRAME)
        with CoarseProducts():
            assert same(head.align_memory(memory, FRAME), exact)
            output, after = detector.step(FRAME, memory)
    best = output.logits[-1].sigmoid().amax(-1).topk(head.num_remembered, dim=1).indices
    places = output.codes[-1][:, best[0], :3]
    wanted = transform_points(torch.cat((places, exact.center_m), 1), FRAME.lidar_to_global)
    assert torch.equal(after.center_m, wanted)


# Attention is of a network. The others are products of numpy, whose float64 nothing makes coarse.
ALLOWED = {
    "inference/checks/camera_axes.py",
    "inference/checks/cut_horizon.py",
    "inference/checks/trajectory.py",
    "inference/preparation.py",
    "inference/sources/nuscenes.py",
    "modeling/ops/attention.py",
    "structures/objects.py",
    "structures/pose.py",
    "structures/rigid.py",
    "structures/sample_checks.py",
}
NAMES = {"matmul", "mm", "bmm", "addmm", "baddbmm", "einsum", "tensordot", "linalg.inv", "solve"}
NAMES |= {"torch.inverse", "mv", "addmv", "dot", "inner"}


def test_products_are_written_where_networks_are_and_nowhere_else() -> None:
    """Linear layers go through `ops.linear`; who needs a product of geometry finds it in `ops`."""
    package = Path(streampetr_vit.__file__).parent
    found = set()
    for folder in ("modeling", "structures", "inference"):
        for path in (package / folder).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text())):
                is_product = isinstance(node, ast.BinOp) and isinstance(node.op, ast.MatMult)
                name = ast.unparse(node) if isinstance(node, ast.Attribute) else ""
                if is_product or any(f".{name}".endswith(f".{wanted}") for wanted in NAMES):
                    found.add(path.relative_to(package).as_posix())
    assert found == ALLOWED

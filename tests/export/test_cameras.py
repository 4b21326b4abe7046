"""Cameras inside a graph: inverses without an operator, and cameras read off the cone code."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from streampetr_vit.export.cameras import ConeCameras, invert_projection, lidar_to_camera
from streampetr_vit.export.parity import made_frames
from streampetr_vit.modeling.image.position_encoder import ImagePositionEncoder
from streampetr_vit.modeling.ops.geometry import token_centers, transform_points

RANGE = (-61.2, -61.2, -10.0, 61.2, 61.2, 10.0)
SIZES = [(64, 96), (320, 800), (640, 1600)]


def rig_of(size: tuple[int, int]) -> tuple[Tensor, Tensor, Tensor]:
    """lidar_to_image, intrinsics, lidar_to_camera of five cameras, (1, 5, 4, 4) each."""
    rig = next(iter(made_frames(5, size, seed=0))).rig
    return rig.lidar_to_image, rig.intrinsics, rig.lidar_to_camera


def pixels_apart(one: Tensor, other: Tensor, size: tuple[int, int]) -> float:
    """The largest distance in pixels, of points from 1 m to 60 m in the pictures of `other`."""
    generator = torch.Generator().manual_seed(0)
    height, width = size
    uv = torch.rand(200, 2, generator=generator, dtype=torch.float64) * torch.tensor(
        [width, height]
    )
    depth = torch.logspace(0, 1.78, 200, dtype=torch.float64)[:, None]
    homogeneous = torch.cat((uv * depth, depth), dim=1)
    points = transform_points(homogeneous, torch.linalg.inv(other.double()))  # (1, N, 200, 3)
    seen = transform_points(points, one.double())
    return float((seen[..., :2] / seen[..., 2:] - uv).abs().max())


@pytest.mark.parametrize("size", SIZES)
def test_a_projection_is_inverted_to_a_thousandth_of_a_pixel(size: tuple[int, int]) -> None:
    lidar_to_image, _, _ = rig_of(size)
    inverse = torch.linalg.inv(lidar_to_image.double()).float()
    assert pixels_apart(invert_projection(inverse), lidar_to_image, size) < 1e-3


def test_the_pose_of_a_camera_is_what_its_matrix_leaves() -> None:
    lidar_to_image, intrinsics, expected = rig_of((320, 800))
    inverse = torch.linalg.inv(lidar_to_image.double()).float()
    assert (lidar_to_camera(inverse, intrinsics) - expected).abs().max() < 1e-5


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("tile_intrinsics", [True, False])
def test_the_cone_code_tells_where_its_camera_is(
    size: tuple[int, int], tile_intrinsics: bool
) -> None:
    lidar_to_image, intrinsics, _ = rig_of(size)
    encoder = ImagePositionEncoder(8, RANGE, tile_intrinsics=tile_intrinsics)
    pixels = token_centers(size[0] // 16, size[1] // 16, 16, torch.device("cpu"))
    _, cone = encoder(lidar_to_image, intrinsics, pixels)
    read = ConeCameras(pixels, *encoder.cone_depths_m, encoder.position_range)(cone, 5)
    assert read.shape == lidar_to_image.shape
    # A pixel's hundredth of a token: the prior falls off over tokens.
    assert pixels_apart(invert_projection(read), lidar_to_image, size) < 5e-3

"""Sampling of image features: its weights, cameras, what is out of sight, and the plain maths."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from streampetr_vit.modeling.decoder.camera_sampling import CameraMaps, CameraSampling, project
from streampetr_vit.modeling.ops.deformable_aggregation import KERNELS, deformable_aggregation
from streampetr_vit.modeling.temporal.motion_layer_norm import MotionLayerNorm

SIZE = (32, 64)  # height, width in pixels
LEVELS = ((4, 8), (2, 4), (1, 2))
KERNEL_NAMES = sorted(KERNELS)


def example(
    dtype: torch.dtype = torch.float64, levels: tuple[tuple[int, int], ...] = LEVELS
) -> tuple[list[Tensor], Tensor, Tensor]:
    """Maps (2, 3, 6, h, w), locations of 5 queries with 4 points, and weights of 2 groups."""
    draw = torch.Generator().manual_seed(7)
    maps = [torch.randn(2, 3, 6, *size, generator=draw, dtype=dtype) for size in levels]
    locations = torch.rand(2, 3, 5, 4, 2, generator=draw, dtype=dtype) * 1.8 - 0.4
    weights = torch.rand(2, 5, 3, len(levels), 4, 2, generator=draw, dtype=dtype)
    return maps, locations, weights


def naive(maps: list[Tensor], locations: Tensor, weights: Tensor) -> Tensor:
    """The sum over four neighbours, one scalar at a time."""
    batch, cameras, queries, points = locations.shape[:4]
    groups, channels = weights.shape[-1], maps[0].shape[2]
    out = locations.new_zeros(batch, queries, groups, channels // groups)
    for b, n, q, p in torch.cartesian_prod(*map(torch.arange, (batch, cameras, queries, points))):
        for level, values in enumerate(maps):
            height, width = values.shape[3:]
            x, y = (locations[b, n, q, p] * locations.new_tensor([width, height]) - 0.5).tolist()
            sample = locations.new_zeros(channels)
            for row in range(height):
                for column in range(width):
                    share = max(0.0, 1 - abs(x - column)) * max(0.0, 1 - abs(y - row))
                    sample += share * values[b, n, :, row, column]
            out[b, q] += weights[b, q, n, level, p, :, None] * sample.view(groups, -1)
    return out.flatten(2)


def rig(cameras: int = 3, streams: int = 2) -> Tensor:
    """(B, N, 4, 4) lidar_to_image: camera n looks along +x turned by 2 n pi / N about +z."""
    focal, (height, width) = 20.0, SIZE
    matrices = []
    for yaw in torch.arange(cameras) * (2 * torch.pi / cameras):
        cos, sin = float(yaw.cos()), float(yaw.sin())
        ahead, right = torch.tensor([cos, sin, 0.0]), torch.tensor([sin, -cos, 0.0])
        matrix = torch.eye(4)
        matrix[0, :3] = focal * right + width / 2 * ahead
        matrix[1, :3] = torch.tensor([0.0, 0.0, -focal]) + height / 2 * ahead
        matrix[2, :3] = ahead
        matrices.append(matrix)
    return torch.stack(matrices).expand(streams, -1, -1, -1)


def scene(**options: object) -> tuple[CameraSampling, Tensor, Tensor, Tensor, CameraMaps]:
    """A module with all weights drawn, two streams of queries, and three cameras."""
    torch.manual_seed(3)
    module = CameraSampling(16, num_groups=4, num_levels=len(LEVELS), num_points=5, **options)
    for parameter in module.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    image = CameraMaps([torch.randn(2, 3, 16, *size) for size in LEVELS], rig(), SIZE)
    points_m = torch.randn(2, 7, 3) * torch.tensor([20.0, 20.0, 2.0])
    return module, torch.randn(2, 7, 16), torch.randn(2, 7, 16), points_m, image


@pytest.mark.parametrize("kernel", KERNEL_NAMES)
def test_the_sum_is_that_over_four_neighbours(kernel: str) -> None:
    maps, locations, weights = example()
    out = deformable_aggregation(maps, locations, weights, kernel=kernel)
    torch.testing.assert_close(out, naive(maps, locations, weights), rtol=0, atol=1e-12)


@pytest.mark.parametrize("kernel", KERNEL_NAMES)
@pytest.mark.parametrize("max_queries", [None, 3])
def test_gradients(kernel: str, max_queries: int | None) -> None:
    maps, locations, weights = example(levels=((2, 3), (1, 2)))
    maps, locations, weights = [m[:1, :2, :2] for m in maps], locations[:1, :2], weights[:1, :, :2]
    inputs = [value.clone().requires_grad_() for value in (*maps, locations, weights)]

    def run(*values: Tensor) -> Tensor:
        return deformable_aggregation(
            values[:-2], *values[-2:], max_queries=max_queries, kernel=kernel
        )

    assert torch.autograd.gradcheck(run, inputs)


@pytest.mark.parametrize("kernel", KERNEL_NAMES)
@pytest.mark.parametrize("max_queries", [1, 2, 5, 9])
def test_parts_give_the_whole(kernel: str, max_queries: int) -> None:
    results = []
    for limit in (None, max_queries):
        inputs = example(torch.float32)
        leaves = [value.requires_grad_() for value in (*inputs[0], *inputs[1:])]
        out = deformable_aggregation(*inputs, max_queries=limit, kernel=kernel)
        out.square().sum().backward()
        results.append((out, *(leaf.grad for leaf in leaves)))
        with torch.no_grad():
            again = deformable_aggregation(*inputs, max_queries=limit, kernel=kernel)
        assert torch.equal(out, again)
    torch.testing.assert_close(*results, rtol=1e-6, atol=1e-5)


@pytest.mark.parametrize("kernel", KERNEL_NAMES)
@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf"), 1e30, -1e30])
def test_points_that_are_nowhere_add_nothing(kernel: str, bad: float) -> None:
    maps, locations, weights = example(torch.float32)
    elsewhere = locations.clone()
    elsewhere[:, :, 1, 2, 0] = bad
    elsewhere[:, :, 3, :, 1] = bad
    without = weights.clone()
    without[:, 1, :, :, 2] = 0
    without[:, 3] = 0
    leaves = [value.requires_grad_() for value in (*maps, elsewhere, weights)]
    out = deformable_aggregation(maps, elsewhere, weights, kernel=kernel)
    wanted = deformable_aggregation(maps, locations, without, kernel=kernel)
    torch.testing.assert_close(out, wanted)
    out.sum().backward()
    assert all(bool(leaf.grad.isfinite().all()) for leaf in leaves)
    assert not elsewhere.grad[:, :, 3].any()


def test_kernels_read_channels_last_maps() -> None:
    maps, locations, weights = example(torch.float32)
    last = [m.flatten(0, 1).to(memory_format=torch.channels_last).view_as(m) for m in maps]
    wanted = deformable_aggregation(maps, locations, weights)
    for kernel in KERNEL_NAMES:
        out = deformable_aggregation(last, locations, weights, kernel=kernel)
        torch.testing.assert_close(out, wanted)


def test_the_operator_ignores_autocast_and_works_in_float32() -> None:
    maps, locations, weights = example(torch.float32)
    wanted = deformable_aggregation(maps, locations, weights)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(deformable_aggregation(maps, locations, weights), wanted)
    half = deformable_aggregation([m.bfloat16() for m in maps], locations, weights)
    assert half.dtype == torch.float32


def test_arguments_that_do_not_fit_are_named() -> None:
    maps, locations, weights = example(torch.float32)
    with pytest.raises(ValueError, match="kernel 'cuda' is unknown.*gather.*grid_sample"):
        deformable_aggregation(maps, locations, weights, kernel="cuda")
    with pytest.raises(ValueError, match="max_queries must be at least 1.*got 0"):
        deformable_aggregation(maps, locations, weights, max_queries=0)
    with pytest.raises(ValueError, match="locations must be"):
        deformable_aggregation(maps, locations[..., 0], weights)
    with pytest.raises(ValueError, match=r"weights must be .*\(2, 5, 3, 2, 4, 'G'\).*2 maps"):
        deformable_aggregation(maps[:2], locations, weights)
    with pytest.raises(ValueError, match=r"maps\[1\] must be .*N = 3"):
        deformable_aggregation([maps[0], maps[1][:, :2], maps[2]], locations, weights)
    with pytest.raises(ValueError, match=r"maps\[2\] has 4 channels"):
        deformable_aggregation([*maps[:2], maps[2][:, :, :4]], locations, weights)


def test_first_weights_are_equal_and_any_sum_to_one() -> None:
    fresh = CameraSampling(16, num_groups=4, num_levels=3, num_points=5, point_spread_m=1.5)
    weights = fresh.sampling_weights(torch.randn(2, 7, 16), rig())
    assert weights.shape == (2, 7, 3, 3, 5, 4)
    torch.testing.assert_close(weights, torch.full_like(weights, 1 / 45))
    assert (
        not fresh.output.bias.any() and 0.5 < float(fresh.points.bias.detach().abs().max()) <= 1.5
    )
    module, content, *_ = scene()
    weights = module.sampling_weights(content, rig())
    torch.testing.assert_close(weights.sum((2, 3, 4)), torch.ones(2, 7, 4))
    assert float(weights.detach().std()) > 1e-3


def test_the_order_of_cameras_does_not_matter() -> None:
    module, content, position, points_m, image = scene()
    order = torch.tensor([2, 0, 1])
    turned = CameraMaps([m[:, order] for m in image.maps], image.lidar_to_image[:, order], SIZE)
    wanted = module(content, position, points_m, image)
    torch.testing.assert_close(module(content, position, points_m, turned), wanted)
    assert float((wanted - module.output.bias).detach().abs().max()) > 0.01  # something was seen


@pytest.mark.parametrize("kernel", KERNEL_NAMES)
@pytest.mark.parametrize("kind", ["behind", "infinite", "nan", "huge"])
def test_queries_that_no_camera_sees_get_the_bias(kernel: str, kind: str) -> None:
    module, content, position, points_m, image = scene(kernel=kernel)
    forward = replace(
        image,
        maps=[m[:, :1] for m in image.maps],
        lidar_to_image=image.lidar_to_image[:, :1],
    )
    values = {"behind": -500.0, "infinite": float("inf"), "nan": float("nan"), "huge": -1e38}
    points_m[:, :, 0] = values[kind]
    points_m.requires_grad_()
    out = module(content, position, points_m, forward)
    assert torch.equal(out, module.output.bias.expand_as(out))
    out.sum().backward()
    assert points_m.grad is not None and not points_m.grad.any()
    for name, parameter in module.named_parameters():
        assert parameter.grad is not None and bool(parameter.grad.isfinite().all()), name


def test_one_query_at_infinity_leaves_the_others_alone() -> None:
    module, content, position, points_m, image = scene()
    wanted = module(content, position, points_m, image)
    points_m[:, 2] = torch.tensor([float("inf"), 0.0, float("nan")])
    out = module(content, position, points_m, image)
    others = [0, 1, 3, 4, 5, 6]
    assert torch.equal(out[:, others], wanted[:, others]) and bool(out.isfinite().all())


@pytest.mark.parametrize("kernel", KERNEL_NAMES)
def test_a_constant_map_is_read_as_that_constant(kernel: str) -> None:
    maps, locations, weights = example()
    locations = 0.5 + 0 * locations  # the middle of every picture, half a cell from any edge
    maps = [torch.full_like(m, 2.5) for m in maps[:2]]
    weights = weights[:, :, :, :2] / weights[:, :, :, :2].sum((2, 3, 4), keepdim=True)
    out = deformable_aggregation(maps, locations, weights, kernel=kernel)
    torch.testing.assert_close(out, torch.full_like(out, 2.5))


def test_projection_anchor() -> None:
    points = torch.tensor([[10.0, 0.0, 0.0], [10.0, -16.0, 8.0], [-10.0, 1.0, 0.0]])
    at = project(points[None, :, None], rig(1, 1), SIZE)[0, 0, :, 0]
    torch.testing.assert_close(at[:2], torch.tensor([[0.5, 0.5], [1.0, 0.0]]))
    assert float(at[2].abs().max()) > 1e4  # behind: far outside, not mirrored into the picture


@pytest.mark.parametrize("cameras", [1, 8])
def test_any_number_of_cameras(cameras: int) -> None:
    module, content, position, points_m, _ = scene()
    maps = [torch.randn(2, cameras, 16, *size) for size in LEVELS]
    out = module(content, position, points_m, CameraMaps(maps, rig(cameras), SIZE))
    assert out.shape == (2, 7, 16)


def test_the_module_names_what_does_not_fit() -> None:
    with pytest.raises(ValueError, match=r"num_groups \(5\) must divide embed_dim \(16\)"):
        CameraSampling(16, num_groups=5)
    module, content, position, points_m, image = scene()
    with pytest.raises(ValueError, match="2 levels.*num_levels = 3"):
        module(content, position, points_m, replace(image, maps=image.maps[:2]))


def test_modulation_without_norm_starts_as_the_identity() -> None:
    mln = MotionLayerNorm(14, 16, use_ln=False)
    x, condition = torch.randn(2, 3, 16), torch.randn(2, 3, 14)
    torch.testing.assert_close(mln(x, condition), x)
    torch.nn.init.constant_(mln.beta.bias, 0.5)
    torch.nn.init.constant_(mln.gamma.bias, 2.0)
    torch.testing.assert_close(mln(x, condition), 2 * x + 0.5)

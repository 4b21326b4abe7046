"""Ray denoising: where its points are, which are positive, who sees whom, and what is refused."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import replace

import numpy as np
import pytest
import torch
from hand_made_rig import six_cameras
from synchronisation import NoSynchronisation, SynchronisationError
from tiny_detector import make_detector, make_repdetr3d, make_sample, with_boxes
from torch import Tensor

from streampetr_vit.modeling.criterion.denoising import DenoisingNoise
from streampetr_vit.modeling.criterion.ray_denoising import (
    RayDenoising,
    RayDraws,
    RaySteps,
    Views,
    rays_to,
)
from streampetr_vit.modeling.detector import StreamPETR
from streampetr_vit.modeling.ops.geometry import denormalize_from_range, transform_points

RANGE = torch.tensor([-51.2, -51.2, -5.0, 51.2, 51.2, 3.0])
HUGE = torch.tensor([-1e3] * 3 + [1e3] * 3)  # nothing is clamped
SIZE = (900, 1600)
CLASSES = 10


def views(streams: int = 1) -> Views:
    """Six cameras around a car whose lidar is at its origin, in another order for each stream."""
    matrices = []
    for camera in six_cameras().cameras:
        image = np.eye(4)
        image[:3, :3] = camera.intrinsics
        matrices.append(image @ np.linalg.inv(camera.camera_to_vehicle.matrix()))
    cameras = torch.tensor(np.stack(matrices), dtype=torch.float32)
    return Views(torch.stack([cameras.roll(n, dims=0) for n in range(streams)]), SIZE)


def boxes_around(count: int, seed: int = 0) -> Tensor:
    """Boxes of cars at 8 to 45 m, all around."""
    generator = torch.Generator().manual_seed(seed)
    angle, radius, *_ = torch.rand(2, count, generator=generator)
    angle, radius = angle * 2 * torch.pi, 8 + 37 * radius
    boxes = torch.zeros(count, 9)
    boxes[:, 0], boxes[:, 1] = radius * angle.cos(), radius * angle.sin()
    boxes[:, 2] = 0.8
    boxes[:, 3:6] = torch.tensor([4.5, 1.9, 1.6])
    return boxes


def labels_of(boxes: Tensor) -> Tensor:
    return torch.arange(len(boxes)) % CLASSES


def pixels(points_m: Tensor, camera: Tensor) -> Tensor:
    """(..., 2) in float64, of points (..., 3) in the picture of a camera (4, 4)."""
    scaled = transform_points(points_m.double(), camera.double())
    return scaled[..., :2] / scaled[..., 2:]


def ones(ray: RayDenoising, count: int) -> Tensor:
    return torch.ones(ray.groups, ray.num_points, count)


def test_points_keep_the_pixel_of_their_box_and_move_by_half_sizes() -> None:
    ray, boxes = RayDenoising(groups=1), boxes_around(40).double()
    stream, where = torch.arange(40) % 2, views(2)
    where = replace(where, lidar_to_image=where.lidar_to_image.double())
    steps = ray.steps(ray.draw(40))
    points_m, seen = ray.place(steps.step, boxes, stream, where)
    assert seen.all() and points_m.shape == (1, 5, 40, 3)
    for index, box in enumerate(boxes):
        cameras = where.lidar_to_image[stream[index]]
        depths = transform_points(box[None, :3].double(), cameras.double())[:, 0, 2]
        places = pixels(box[None, :3], cameras)[:, 0]
        inside = (depths > 0) & (places >= 0).all(-1) & (places < torch.tensor(SIZE[::-1])).all(-1)
        last = int(inside.nonzero().max())
        found = points_m[0, :, index]
        assert (pixels(found, cameras[last]) - places[last]).abs().max() < 1e-6
        depth = transform_points(found.double(), cameras[last].double())[:, 2]
        moved = (depth - depths[last]) / (box[3:6].double().mean() / 2)
        torch.testing.assert_close(moved.float(), steps.step[0, :, index], atol=1e-4, rtol=1e-4)


def test_the_last_camera_that_sees_a_box_wins() -> None:
    """A box ahead to the right is in two pictures, whose centres are half a metre apart."""
    box = boxes_around(1)
    box[0, :2] = torch.tensor([18.0, -8.4])
    where = views()
    in_order = rays_to(box[:, :3], torch.tensor([0]), where)
    turned = replace(where, lidar_to_image=where.lidar_to_image[:, [1, 0, 2, 3, 4, 5]])
    other = rays_to(box[:, :3], torch.tensor([0]), turned)
    torch.testing.assert_close(in_order[1], torch.tensor([[1.55, -0.49, 1.50]]))
    torch.testing.assert_close(other[1], torch.tensor([[1.70, 0.0, 1.51]]))


def test_a_box_that_no_camera_sees_keeps_its_points_on_its_centre() -> None:
    ray, boxes = RayDenoising(groups=1), boxes_around(2)
    boxes[1, 2] = 100.0  # above all pictures
    points_m, seen = ray.place(2 * ones(ray, 2), boxes, torch.zeros(2, dtype=torch.long), views())
    assert seen.tolist() == [True, False]
    assert torch.equal(points_m[0, :, 1], boxes[1, :3].expand(5, 3))
    assert (points_m[0, :, 0] != boxes[0, :3]).any(-1).all()


def test_a_camera_without_a_projection_sees_nothing_and_spoils_nothing() -> None:
    """Its matrix has no inverse, so its centre is no number."""
    ray, boxes, where = RayDenoising(groups=1), boxes_around(2), views()
    boxes[1, 2] = 100.0
    where.lidar_to_image[:, 0] = 0.0
    points_m, _ = ray.place(2 * ones(ray, 2), boxes, torch.zeros(2, dtype=torch.long), where)
    assert points_m.isfinite().all()
    assert torch.equal(points_m[0, :, 1], boxes[1, :3].expand(5, 3))


def test_one_point_of_each_ray_is_positive_and_near_enough() -> None:
    torch.manual_seed(0)
    ray = RayDenoising(groups=3, num_points=4)
    draws = ray.draw(500)
    steps = ray.steps(draws)
    assert steps.step.shape == steps.positive.shape == (3, 4, 500)
    assert (steps.positive.sum(1) == 1).all()
    assert steps.step[steps.positive].abs().max() <= 0.75
    # What was near enough is behind its box; what was drawn anew is on both sides.
    near = ((2 * draws.beta - 1) * ray.radius).abs().amin(1) <= 0.75
    positive = steps.step.masked_select(steps.positive)  # in the order of groups, points, boxes
    near = near[:, None].expand_as(steps.positive).masked_select(steps.positive)
    assert (positive[near] >= 0).all() and near.any()
    assert (positive[~near] < 0).any() and (positive[~near] > 0).any()


def test_statistics_of_the_published_settings() -> None:
    """Quantiles of the steps, and how often the nearest is too far. Source: spec raydn 1.2."""
    torch.manual_seed(0)
    ray = RayDenoising(groups=1)
    draws = ray.draw(40000)
    step = ((2 * draws.beta - 1) * ray.radius)[0]
    assert float(step.mean()) == pytest.approx(1.80, abs=0.01)
    assert float(step.std()) == pytest.approx(0.72, abs=0.01)
    assert float((step < 0).double().mean()) == pytest.approx(0.02, abs=0.003)
    assert float((step.abs() <= 0.75).double().mean()) == pytest.approx(0.091, abs=0.003)
    wanted = [-0.27, 0.43, 1.37, 1.92, 2.36, 2.75, 2.90]
    shares = torch.tensor([0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99])
    assert step.flatten().quantile(shares).tolist() == pytest.approx(wanted, abs=0.03)
    assert len(draws.uniform) / 40000 == pytest.approx(0.62, abs=0.01)
    near = (step.abs() <= 0.75).sum(0)
    assert float((near >= 2).double().mean()) == pytest.approx(0.069, abs=0.005)


def test_a_kept_step_loses_its_sign_unless_it_is_to_be_kept() -> None:
    beta = torch.tensor([0.45, 0.9])[None, :, None]  # steps -0.3 and 2.4
    draws = RayDraws(beta, torch.empty(0))
    published = RayDenoising(groups=1, num_points=2).steps(draws)
    signed = RayDenoising(groups=1, num_points=2, keep_sign=True).steps(draws)
    torch.testing.assert_close(published.step.flatten(), torch.tensor([0.3, 2.4]))
    torch.testing.assert_close(signed.step.flatten(), torch.tensor([-0.3, 2.4]))
    anew = RayDraws(torch.tensor([0.8, 0.9])[None, :, None], torch.tensor([0.25]))
    for keep_sign in (False, True):  # what is drawn anew has its sign in any case
        steps = RayDenoising(groups=1, num_points=2, keep_sign=keep_sign).steps(anew)
        torch.testing.assert_close(steps.step.flatten(), torch.tensor([-0.375, 2.4]))
        assert steps.positive.flatten().tolist() == [True, False]


def test_a_least_depth_keeps_points_before_the_camera() -> None:
    boxes = boxes_around(2)
    boxes[0, :3] = torch.tensor([4.7, 0.0, 1.51])  # 3 m before the front camera
    boxes[1, :3] = torch.tensor([2.2, 0.0, 1.51])  # 0.5 m
    boxes[:, 3:6] = 8.0
    back, stream = torch.full((1, 5, 2), -2.0), torch.zeros(2, dtype=torch.long)
    where = Views(views().lidar_to_image[:, :1], SIZE)
    as_published, _ = RayDenoising(groups=1).place(back, boxes, stream, where)
    guarded, _ = RayDenoising(groups=1, min_depth_m=1.0).place(back, boxes, stream, where)
    depths = [found[0, 0, :, 0] - 1.70 for found in (as_published, guarded)]  # along x
    torch.testing.assert_close(depths[0], torch.tensor([-5.0, -7.5]), atol=1e-4, rtol=0)
    torch.testing.assert_close(depths[1], torch.tensor([1.0, 0.5]), atol=1e-4, rtol=0)


def make(noise: DenoisingNoise, counts: tuple[int, ...], limits: Tensor = HUGE):
    torch.manual_seed(1)
    boxes = [boxes_around(count, seed) for seed, count in enumerate(counts)]
    labels = [labels_of(b) for b in boxes]
    return noise.make(boxes, labels, limits, CLASSES, views=views(len(counts)))


def test_rays_come_after_the_ordinary_copies_and_leave_them_as_they_are() -> None:
    """The same draws: without rays nothing differs from a builder that knows none."""
    counts = (3, 1)
    plain = make(DenoisingNoise(groups=2), counts)
    with_rays = make(DenoisingNoise(groups=2, ray=RayDenoising(groups=2, num_points=3)), counts)
    assert plain.num_slots == 2 * 3 and with_rays.num_slots == (2 + 6) * 3
    assert torch.equal(with_rays.reference_points[:, :6], plain.reference_points)
    for name in ("labels", "boxes", "stream", "slot"):
        assert torch.equal(getattr(with_rays, name)[:8], getattr(plain, name))
    # Box k of a stream is in slot k of every copy, and its centre is what is looked for.
    assert with_rays.slot[with_rays.stream == 1].tolist() == [0, 3, 6, 9, 12, 15, 18, 21]
    assert torch.equal(with_rays.boxes, plain.boxes[:4].repeat(8, 1))
    labels = with_rays.labels[8:].view(2, 3, 4)  # ray groups, points, boxes
    true = with_rays.boxes.new_tensor([0, 1, 2, 0]).long()
    assert ((labels == true).sum(1) == 1).all() and ((labels == CLASSES).sum(1) == 2).all()
    points_m = denormalize_from_range(with_rays.reference_points, HUGE)
    found = points_m[with_rays.stream, with_rays.slot]
    assert (found - with_rays.boxes[:, :3]).norm(dim=-1).max() < 3 * 8 / 6 * 4  # of their own box


def test_without_rays_the_generator_stands_where_it_stood() -> None:
    make(DenoisingNoise(groups=2), (3,))
    after_plain = torch.rand(1)
    torch.manual_seed(1)
    torch.rand(2 * 3, 3)
    assert torch.equal(after_plain, torch.rand(1))


def test_the_points_of_a_ray_see_each_other_and_nothing_else_sees_them() -> None:
    queries = make(DenoisingNoise(groups=2, ray=RayDenoising(groups=2, num_points=3)), (2, 1))
    blocked = queries.blocked(num_queries=4, num_keys=5)
    slots = queries.num_slots
    assert slots == 16 and blocked.shape == (20, 21)
    group = torch.tensor([0] * 2 + [1] * 2 + [2] * 6 + [3] * 6)
    assert torch.equal(blocked[:slots, :slots], group[:, None] != group)
    assert torch.equal(blocked[:slots, :slots], blocked[:slots, :slots].T)
    assert blocked[slots:, :slots].all()  # real queries see no true boxes
    assert not blocked[:, slots:].any()


def test_unseen_boxes_are_left_out_where_that_is_asked_for() -> None:
    boxes = boxes_around(3)
    boxes[1, 2] = 100.0
    for drop in (False, True):
        noise = DenoisingNoise(groups=1, ray=RayDenoising(groups=1, num_points=2, drop_unseen=drop))
        torch.manual_seed(0)
        queries = noise.make([boxes], [labels_of(boxes)], HUGE, CLASSES, views=views())
        kept = [0, 2] if drop else [0, 1, 2]
        assert queries.slot.tolist() == [0, 1, 2, *(3 + k for k in kept), *(6 + k for k in kept)]
        assert torch.equal(queries.boxes[3:], boxes[kept].repeat(2, 1))
        assert queries.num_slots == 9
        empty = queries.reference_points[0, [4, 7]]
        assert bool((empty == 0).all()) == drop


def test_points_beyond_the_range_are_on_its_border() -> None:
    small = torch.tensor([-10.0, -10.0, -5.0, 10.0, 10.0, 3.0])
    queries = make(DenoisingNoise(groups=1, ray=RayDenoising(groups=1)), (20,), small)
    assert queries.reference_points.min() == 0 and queries.reference_points.max() == 1


@pytest.mark.parametrize("counts", [(0,), (0, 2), (0, 0)])
def test_frames_without_boxes(counts: tuple[int, ...]) -> None:
    queries = make(DenoisingNoise(groups=2, ray=RayDenoising(groups=1)), counts)
    assert queries.num_slots == 7 * max(counts)
    assert queries.blocked(3, 4).shape == (queries.num_slots + 3, queries.num_slots + 4)
    assert len(queries.labels) == 7 * sum(counts)


@pytest.mark.parametrize("make_one", [make_detector, make_repdetr3d])
def test_a_training_step_with_rays(make_one) -> None:
    detector: StreamPETR = make_one().train()
    detector.denoising = DenoisingNoise(groups=2, ray=RayDenoising(groups=1))
    seen = []
    detector.head.register_forward_pre_hook(lambda head, inputs: seen.append(inputs[3]))
    samples = [with_boxes(make_sample(0, "a"), 3), with_boxes(make_sample(0, "b"), 0)]
    losses, _ = detector.losses(samples)
    assert seen[0].num_slots == 7 * 3 and seen[0].ray_groups == 1
    total = torch.stack(list(losses.values())).sum()
    total.backward()
    assert total.isfinite() and "dn_loss_cls" in losses
    for name, parameter in detector.named_parameters():
        assert parameter.grad is not None and parameter.grad.isfinite().all(), name


@pytest.mark.parametrize("drop_unseen", [False, True])
def test_rays_make_the_host_wait_only_where_unseen_boxes_are_left_out(
    drop_unseen: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    boxes, uniform, where = boxes_around(4), torch.rand(8, 3), views()
    on_host = RayDenoising(groups=1).steps(RayDenoising(groups=1).draw(4))

    class Drawn(RayDenoising):
        """Its draws are on the host, whatever the device, and not looked at here."""

        def steps(self, draws: RayDraws) -> RaySteps:
            return on_host

    noise = DenoisingNoise(groups=2, ray=Drawn(groups=1, drop_unseen=drop_unseen))
    # The host's own numbers too: how many boxes each stream has.
    monkeypatch.setattr(torch, "repeat_interleave", lambda counts: torch.zeros(4, dtype=torch.long))
    monkeypatch.setattr(torch, "tensor", lambda values: values)
    waits = pytest.raises(SynchronisationError, match="nonzero") if drop_unseen else nullcontext()
    with NoSynchronisation(), waits:
        draws = RayDraws(uniform, uniform)
        noise.make([boxes], [labels_of(boxes)], HUGE, CLASSES, uniform, where, draws)


def test_rays_without_views_are_refused() -> None:
    noise = DenoisingNoise(groups=1, ray=RayDenoising(groups=1))
    with pytest.raises(ValueError, match="needs the views of the frame's cameras"):
        noise.make([boxes_around(1)], [torch.tensor([0])], RANGE, CLASSES)


NAN = float("nan")


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        (dict(num_points=0), r"num_points \(0\) at least 1"),
        (dict(groups=-1), r"groups \(-1\) must be at least 0"),
        (dict(radius=0.0), "radius is 0.0; it must be a finite number above 0"),
        (dict(max_positive_step=0.0), "max_positive_step is 0.0; it must be"),
        (dict(alpha=0.0), "alpha is 0.0"),
        (dict(beta=-2.0), "beta is -2.0"),
        (dict(alpha=NAN), "alpha is nan"),
        (dict(radius=float("inf")), "radius is inf"),
        (dict(min_depth_m=0.0), "min_depth_m is 0.0"),
    ],
)
def test_impossible_settings(wrong: dict, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        RayDenoising(**wrong)


def test_more_copies_than_memory_has_room_for() -> None:
    """The figure is the mask: 328 copies of 100 boxes are 32800 queries, a byte for each pair."""
    assert 32800**2 > 2**30 > 32700**2
    DenoisingNoise(groups=7, ray=RayDenoising(groups=4, num_points=80))
    words = r"groups \(8\) \+ ray.groups \(4\) x ray.num_points \(80\) are 328 copies .* 1.0 GiB"
    with pytest.raises(ValueError, match=words):
        DenoisingNoise(groups=8, ray=RayDenoising(groups=4, num_points=80))
    with pytest.raises(ValueError, match="233.8 GiB .* use 327 copies or fewer"):
        DenoisingNoise(ray=RayDenoising(groups=1, num_points=5000))


def test_nothing_to_denoise() -> None:
    with pytest.raises(ValueError, match="model.denoising=None switches denoising off"):
        DenoisingNoise(groups=0)
    only_rays = make(DenoisingNoise(groups=0, ray=RayDenoising(groups=1)), (2,))
    assert only_rays.num_slots == 10 and not only_rays.blocked(0, 0).any()

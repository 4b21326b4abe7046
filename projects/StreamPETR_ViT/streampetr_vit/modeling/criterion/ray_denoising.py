"""Ray denoising: copies of true boxes along the rays on which cameras see them.

One camera says little about depth, so a detector finds an object several times along its ray. Of
the points of one ray only one is labelled with the object; the others, which see it, learn that
they are not it. Source: RayDN (arXiv 2402.03634).

Shape letters: g ray groups, R points of a ray, n true boxes of a batch, B streams, N cameras.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from streampetr_vit.modeling.ops.geometry import image_to_lidar_of, transform_points
from streampetr_vit.structures import packed_to

_DEPTH_EPS_M = 1e-6  # added to a depth that is divided by, as published


@dataclass(frozen=True)
class Views:
    """Where a frame's cameras see things.

    Attributes:
        lidar_to_image: (B, N, 4, 4) float32, metres to pixels times depth of the padded pictures.
        image_size: (height, width) of the padded pictures in pixels.
    """

    lidar_to_image: Tensor
    image_size: tuple[int, int]


@dataclass(frozen=True)
class RayDraws:
    """Random numbers of ray denoising, on the host.

    Attributes:
        beta: (g, R, n) in (0, 1), of the Beta distribution.
        uniform: (K,) in [0, 1), one for each box and group whose nearest step is too far, group by
            group in the order of the boxes.
    """

    beta: Tensor
    uniform: Tensor


@dataclass(frozen=True)
class RaySteps:
    """How far points are from their box along a ray, in half sizes; above 0 is farther away.

    Attributes:
        step: (g, R, n).
        positive: (g, R, n) bool, the one point of each ray that is labelled with its object.
    """

    step: Tensor
    positive: Tensor


@dataclass(frozen=True)
class RayDenoising:
    """How points are placed along rays. The defaults, with one group, are those of RayDN.

    Attributes:
        groups: rays g of every box; 0 is denoising without rays.
        num_points: R of each ray. The divisor of the class loss expects a fifth of them to be
            positive, which 5 gives.
        alpha, beta: of the Beta distribution of steps: with 8 and 2 most points lie behind the box.
        radius: steps are in (-radius, radius), in half sizes of the box, the mean over its axes.
        max_positive_step: the point nearest to its box is the positive one; where it is farther
            than this, its step is drawn anew within. From `radius` on, none is.
        keep_sign: False takes a nearest point that is near enough behind the box even if it was
            drawn before it. Quirk: as published.
        drop_unseen: True leaves out boxes whose centre no camera sees. False puts all their points
            on the centre, one positive and the others background. Quirk: as published. True
            waits for the device in each step.
        min_depth_m: points that would be nearer to the camera are put at this depth, or at their
            box's where that is less. None, as published, lets large steps lead behind the camera.
    """

    groups: int = 0
    num_points: int = 5
    alpha: float = 8.0
    beta: float = 2.0
    radius: float = 3.0
    max_positive_step: float = 0.75
    keep_sign: bool = False
    drop_unseen: bool = False
    min_depth_m: float | None = None

    def __post_init__(self) -> None:
        if self.groups < 0 or self.num_points < 1:
            raise ValueError(
                f"groups ({self.groups}) must be at least 0 and num_points ({self.num_points}) at "
                "least 1; groups=0 is denoising without rays"
            )
        for name in ("alpha", "beta", "radius", "max_positive_step"):
            _require_positive(name, getattr(self, name))
        if self.min_depth_m is not None:
            _require_positive("min_depth_m", self.min_depth_m)

    @property
    def copies(self) -> int:
        """Points of one box, g * R."""
        return self.groups * self.num_points

    def draw(self, count: int) -> RayDraws:
        """Draws for `count` boxes from torch's CPU generator, on every device."""
        # On the host, although boxes are on the device: how many are drawn anew depends on what was
        # drawn before, and the device would have to be waited for.
        concentration = torch.tensor([self.alpha, self.beta], dtype=torch.float32, device="cpu")
        distribution = torch.distributions.Beta(*concentration)
        beta = [torch.empty(0, self.num_points, count, device="cpu")]
        uniform = [torch.empty(0, device="cpu")]
        for _ in range(self.groups):
            drawn = distribution.sample((self.num_points * count,)).view(1, self.num_points, count)
            beta.append(drawn)
            uniform.append(torch.rand(int(self._too_far(drawn).sum()), device="cpu"))
        return RayDraws(torch.cat(beta), torch.cat(uniform))

    def steps(self, draws: RayDraws) -> RaySteps:
        """Turns draws into steps, on their device."""
        step = self._drawn_steps(draws.beta)
        nearest = step.abs().argmin(dim=1, keepdim=True)  # (g, 1, n)
        nearest_step = step.gather(1, nearest)
        if not self.keep_sign:
            nearest_step = nearest_step.abs()
        redrawn = (2 * draws.uniform - 1) * self.max_positive_step  # (K,)
        nearest_step = nearest_step.masked_scatter(self._too_far(draws.beta)[:, None], redrawn)
        positive = torch.zeros_like(step, dtype=torch.bool).scatter(1, nearest, True)
        return RaySteps(step.scatter(1, nearest, nearest_step), positive)

    def _drawn_steps(self, beta: Tensor) -> Tensor:
        return (2 * beta - 1) * self.radius

    def _too_far(self, beta: Tensor) -> Tensor:
        """(g, n) bool, where even the nearest of (g, R, n) points is no positive one."""
        return self._drawn_steps(beta).abs().amin(dim=1) > self.max_positive_step

    def points(
        self, draws: RayDraws, boxes: Tensor, stream: Tensor, views: Views
    ) -> tuple[Tensor, Tensor, Tensor]:
        """The points of all rays, ray group by ray group, and in each point r of all boxes first.

        Args:
            boxes: (n, 9), gravity centre.
            stream: (n,) int64, the stream of each box.

        Returns:
            (g * R * n, 3) metres, lidar frame; (g * R * n,) bool, which are positive; and (n,)
            bool, whether a camera sees the centre of a box.
        """
        steps = self.steps(draws)
        step, positive = packed_to((steps.step, steps.positive), boxes.device)
        points_m, seen = self.place(step, boxes, stream, views)
        return points_m.flatten(0, 2), positive.flatten(), seen

    def place(
        self, step: Tensor, boxes: Tensor, stream: Tensor, views: Views
    ) -> tuple[Tensor, Tensor]:
        """Puts points on the rays through the boxes' centres.

        Args:
            step: (g, R, n) of `RaySteps`, on the boxes' device.
            boxes, stream: as for `points`.

        Returns:
            (g, R, n, 3) metres, lidar frame, and (n,) bool, whether a camera sees the centre.
        """
        center = boxes[:, :3]
        depth_m, camera_m, seen = rays_to(center, stream, views)
        shift_m = step * boxes[:, 3:6].mean(-1) / 2  # along the optical axis
        if self.min_depth_m is not None:
            # Never beyond the box itself: an object may be nearer than that.
            shift_m = torch.maximum(shift_m, (self.min_depth_m - depth_m).clamp(max=0))
        # The pixel stays, the depth changes: a point at t times the depth of the centre is at t
        # times the centre's way from the camera.
        moved_m = (shift_m / depth_m)[..., None] * (center - camera_m)  # (g, R, n, 3)
        return center + torch.where(seen[:, None], moved_m, 0.0), seen


def rays_to(points_m: Tensor, stream: Tensor, views: Views) -> tuple[Tensor, Tensor, Tensor]:
    """The camera that sees each point.

    Quirk: where several do, the last in the order of cameras, as published.

    Args:
        points_m: (n, 3) lidar frame.
        stream: (n,) int64.

    Returns:
        (n,) depth in metres and (n, 3) the camera's centre, lidar frame; and (n,) bool, whether
        there is one. Without one the depth is 1.
    """
    cameras_m = image_to_lidar_of(views.lidar_to_image)[..., :3, 3]  # (B, N, 3) float64
    lidar_to_image = views.lidar_to_image[stream]  # (n, N, 4, 4)
    # (n, 1, 1, 3) by (n, N, 4, 4) -> (n, N, 1, 3) -> (n, N, 3), pixels times depth
    scaled = transform_points(points_m[:, None, None], lidar_to_image).squeeze(2)
    depth_m = scaled[..., 2]  # (n, N)
    pixels = scaled[..., :2] / (depth_m + _DEPTH_EPS_M)[..., None]
    height, width = views.image_size
    u, v = pixels.unbind(-1)
    sees = (depth_m > 0) & (u >= 0) & (u < width) & (v >= 0) & (v < height)  # (n, N)
    order = torch.arange(sees.shape[1], device=sees.device)
    last = torch.where(sees, order, -1).amax(dim=1)  # (n,)
    seen, chosen = last >= 0, last.clamp(min=0)
    depth_m = torch.where(seen, depth_m.gather(1, chosen[:, None]).squeeze(1), 1.0)
    return depth_m, cameras_m[stream, chosen].to(points_m.dtype), seen


def _require_positive(name: str, value: float) -> None:
    if not (value > 0 and math.isfinite(value)):  # refuses NaN too
        raise ValueError(f"{name} is {value}; it must be a finite number above 0")

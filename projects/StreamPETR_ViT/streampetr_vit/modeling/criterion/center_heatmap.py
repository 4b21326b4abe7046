"""Where in a picture objects have their centres, as the target of a centerness map.

Shape letters: I images, H W map height and width, n true objects of all images together.
"""

from __future__ import annotations

import torch
from torch import Tensor

from streampetr_vit.modeling.criterion.image_matcher import ImageTargets


def center_heatmaps(targets: ImageTargets, num_images: int, stride: int) -> Tensor:
    """Draws a Gaussian around every object's projected centre: (I, H, W) float32.

    Source: CenterNet (arXiv 1904.07850), as in the released models.
    """
    height, width = (side // stride for side in targets.image_size)
    low, high, centers = targets.corners[:, :2], targets.corners[:, 2:], targets.centers
    # The radius in cells: from the centre to the nearest side of the box.
    to_nearest_side = torch.cat((centers - low, high - centers), dim=1).amin(1)
    # In float64 up to the last step, as the recorded maps were made.
    radius = (to_nearest_side / stride).ceil().clamp(min=1).double()[:, None]  # (n, 1)
    # A centre on the right or lower border has its cell, and its peak of 1, outside the map.
    cell = (centers / stride).trunc().double()
    dx = torch.arange(width, device=cell.device) - cell[:, :1]  # (n, W)
    dy = torch.arange(height, device=cell.device) - cell[:, 1:]  # (n, H)
    squared = dx.square()[:, None, :] + dy.square()[:, :, None]  # (n, H, W)
    sigma = (2 * radius + 1)[:, :, None] / 6
    near = (dx.abs() <= radius)[:, None, :] & (dy.abs() <= radius)[:, :, None]
    drawn = torch.where(near, (-squared / (2 * sigma.square())).exp(), 0).float().flatten(1)
    heatmaps = drawn.new_zeros(num_images, height * width)
    # Objects of a picture meet in its row; the highest value of a cell stays: (n, HW) -> (I, HW)
    rows = targets.image[:, None].expand_as(drawn)
    return heatmaps.scatter_reduce(0, rows, drawn, "amax").view(num_images, height, width)

"""Weighted sums of image features at a few points per query, over cameras and pyramid levels.

For each query and each group of channels: the sum over cameras, levels and points of a weight times
the bilinear sample of the level's map at the point. `"grid_sample"` is the specification: dense
sampling, whose shapes depend on nothing but the arguments' shapes. `"gather"` reads only the points
that lie in a picture, usually a fifth of them; their number is read back from the device.
Source: section 3.2 of the RepDETR3D specification.

Shape letters: B streams, N cameras, C channels, G groups, J = C / G channels of a group, L levels,
h w height and width of a level's map, Q queries, P points of a query, M points that are visible.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.checkpoint import checkpoint

Kernel = Callable[[Sequence[Tensor], Tensor, Tensor], Tensor]


def deformable_aggregation(
    maps: Sequence[Tensor],
    locations: Tensor,
    weights: Tensor,
    *,
    max_queries: int | None = None,
    kernel: str = "grid_sample",
) -> Tensor:
    """Sums weighted samples over cameras, levels and points.

    Runs in float32 (float64 if that is given) under any ambient autocast. Samples are bilinear
    between cell centres; cells outside a map count as zeros. A point with a coordinate that is
    infinite or NaN contributes nothing and gets a gradient of zero.

    Args:
        maps: L tensors (B, N, C, h, w), in the order of the weights' levels. With `"gather"`, maps
            that are channels last in memory are read in place, others are copied first.
        locations: (B, N, Q, P, 2) x, y as fractions of the padded picture's width and height;
            0 and 1 are its edges. May lie outside.
        weights: (B, Q, N, L, P, G), used as they are (no normalisation here).
        max_queries: work on at most so many queries at a time, which bounds the memory of the
            samples, and makes a gradient as large as the maps for each part. None: all at once.
        kernel: one of `KERNELS`.

    Returns:
        (B, Q, C); channel g * J + j is channel j of group g.

    Raises:
        ValueError: shapes that do not fit each other, an unknown kernel, or `max_queries` < 1.
    """
    _check(maps, locations, weights, max_queries, kernel)
    with torch.autocast(locations.device.type, enabled=False):
        dtype = torch.promote_types(locations.dtype, torch.float32)
        maps = [values.to(dtype) for values in maps]
        locations, weights = locations.to(dtype), weights.to(dtype)
        run = KERNELS[kernel]
        if max_queries is None or max_queries >= locations.shape[2]:
            return run(maps, locations, weights)
        parts = zip(locations.split(max_queries, 2), weights.split(max_queries, 1), strict=True)
        if torch.is_grad_enabled():  # kept samples of all parts would need the memory after all
            return torch.cat([_recomputed(run, maps, *part) for part in parts], dim=1)
        return torch.cat([run(maps, *part) for part in parts], dim=1)


def _recomputed(run: Kernel, maps: Sequence[Tensor], locations: Tensor, weights: Tensor) -> Tensor:
    return checkpoint(run, maps, locations, weights, use_reentrant=False, preserve_rng_state=False)


def _grid_sample(maps: Sequence[Tensor], locations: Tensor, weights: Tensor) -> Tensor:
    # Moves only points that see nothing, whatever the map's size; grid_sample would make NaN of an
    # infinite coordinate, and index arithmetic could overflow on a large one.
    grid = 2 * locations.nan_to_num(nan=-1.0).clamp(-1, 2).flatten(0, 1) - 1  # (BN, Q, P, 2)
    total = locations.new_zeros(())
    # (B, Q, N, L, P, G) -> L times (N, B, G, Q, P)
    for values, of_level in zip(maps, weights.permute(3, 2, 0, 5, 1, 4), strict=True):
        total = total + _grid_sample_level(values, grid, of_level)
    return total.flatten(1, 2).transpose(1, 2)  # (B, G, J, Q) -> (B, C, Q) -> (B, Q, C)


def _grid_sample_level(values: Tensor, grid: Tensor, weights: Tensor) -> Tensor:
    """(B, G, J, Q): one level's part of the sum, of weights (N, B, G, Q, P).

    A function, so that its samples are freed before the next level's are made.
    """
    # (B * N, C, h, w) at (B * N, Q, P, 2), from -1 to 1 -> (B * N, C, Q, P)
    sampled = F.grid_sample(
        values.flatten(0, 1), grid, mode="bilinear", padding_mode="zeros", align_corners=False
    )
    # (B * N, C, Q, P) -> (B, N, G, J, Q, P)
    sampled = sampled.unflatten(0, values.shape[:2]).unflatten(2, (weights.shape[2], -1))
    total = sampled.new_zeros(())  # of (B, N, G, J, Q, P)
    # Camera by camera: the products of all cameras at once are as large as the samples.
    for sample, weight in zip(sampled.unbind(1), weights, strict=True):
        total = total + (sample * weight.unsqueeze(2)).sum(-1)
    return total


def _gather(maps: Sequence[Tensor], locations: Tensor, weights: Tensor) -> Tensor:
    locations = locations.transpose(1, 2)  # (B, Q, N, P, 2), so that a query's points are adjacent
    total = locations.new_zeros(())
    for level, values in enumerate(maps):
        total = total + _gather_level(values, locations, weights[:, :, :, level])
    return total


def _gather_level(values: Tensor, locations: Tensor, weights: Tensor) -> Tensor:
    """(B, Q, C): one level's part of the sum; a bag of table rows for each group and query.

    Locations are (B, Q, N, P, 2) and weights (B, Q, N, P, G) here.
    """
    (batch, cameras, channels, height, width), groups = values.shape, weights.shape[-1]
    queries = locations.shape[1]
    x, y = locations[..., 0] * width - 0.5, locations[..., 1] * height - 0.5
    pixels = torch.stack((x, y), dim=-1)
    visible = (x > -1) & (x < width) & (y > -1) & (y < height)  # False where NaN
    stream, query, camera, _ = where = visible.nonzero(as_tuple=True)  # (M,) each, query by query
    cell, share = _neighbours(pixels[where], height, width)  # (M, 4) each
    # From the place in a map to the place among the maps of all streams and cameras.
    cell = cell + ((stream * cameras + camera) * (height * width))[:, None]

    # (B, N, C, h, w) -> (B, N, h, w, C) -> (B * N * h * w * G, J)
    table = values.permute(0, 1, 3, 4, 2).reshape(-1, channels // groups)
    group = torch.arange(groups, device=values.device)
    rows = cell * groups + group[:, None, None]  # (G, M, 4)
    factors = weights[where].T.unsqueeze(-1) * share  # (G, M, 4)
    # Where the rows of each group and query begin: the points lie query by query, four rows each.
    per_query = torch.bincount(stream * queries + query, minlength=batch * queries)
    starts = 4 * (per_query.cumsum(0) - per_query + len(stream) * group[:, None])  # (G, BQ)
    sums = F.embedding_bag(
        rows.flatten(), table, starts.flatten(), mode="sum", per_sample_weights=factors.flatten()
    )
    # (G * B * Q, J) -> (G, B, Q, J) -> (B, Q, G, J) -> (B, Q, C)
    return sums.view(groups, batch, queries, channels // groups).permute(1, 2, 0, 3).flatten(2)


def _neighbours(pixels: Tensor, height: int, width: int) -> tuple[Tensor, Tensor]:
    """The four cells (M, 4) around points (M, 2), and their bilinear shares (M, 4).

    A cell is row * width + column, clamped to the map; those outside have the share 0. Points are
    x, y in cells; the first cell's centre is 0.
    """
    low = pixels.detach().floor()  # a cell's number has no gradient; the distance to it has
    far = pixels - low
    x, y = (low.long()[:, i, None] + torch.arange(2, device=low.device) for i in (0, 1))
    inside_x, inside_y = (x >= 0) & (x < width), (y >= 0) & (y < height)
    share_x = torch.stack((1 - far[:, 0], far[:, 0]), -1) * inside_x  # (M, 2)
    share_y = torch.stack((1 - far[:, 1], far[:, 1]), -1) * inside_y
    cell = y.clamp(0, height - 1)[:, :, None] * width + x.clamp(0, width - 1)[:, None]
    return cell.flatten(1), (share_y[:, :, None] * share_x[:, None]).flatten(1)


def _check(
    maps: Sequence[Tensor],
    locations: Tensor,
    weights: Tensor,
    max_queries: int | None,
    kernel: str,
) -> None:
    if kernel not in KERNELS:
        raise ValueError(f"aggregation kernel {kernel!r} is unknown; use one of {sorted(KERNELS)}")
    if max_queries is not None and max_queries < 1:
        raise ValueError(f"max_queries must be at least 1, or None for all; got {max_queries}")
    if locations.ndim != 5 or locations.shape[-1] != 2:
        raise ValueError(f"locations must be (B, N, Q, P, 2), got {tuple(locations.shape)}")
    batch, cameras, queries, points = locations.shape[:4]
    expected = (batch, queries, cameras, len(maps), points)
    if weights.ndim != 6 or weights.shape[:5] != expected:
        raise ValueError(
            f"weights must be (B, Q, N, L, P, G) = {(*expected, 'G')} with {len(maps)} maps and "
            f"locations {tuple(locations.shape)}, got {tuple(weights.shape)}"
        )
    for level, values in enumerate(maps):
        if values.ndim != 5 or values.shape[:2] != (batch, cameras):
            raise ValueError(
                f"maps[{level}] must be (B, N, C, h, w) with B = {batch} and N = {cameras} as in "
                f"locations, got {tuple(values.shape)}"
            )
        if values.shape[2] % weights.shape[-1] or values.shape[2] != maps[0].shape[2]:
            raise ValueError(
                f"maps[{level}] has {values.shape[2]} channels; every level needs as many as "
                f"maps[0] ({maps[0].shape[2]}), divisible by the {weights.shape[-1]} groups"
            )


KERNELS: dict[str, Kernel] = {"grid_sample": _grid_sample, "gather": _gather}

"""Square windows of a token map: cut with padding, and as an order of the real tokens.

The plain form cuts a zero-padded map into windows. The fast form never makes the padding: it puts
the tokens of all images one window after the other ("window order"). A map of any size has at most
four shapes of windows: whole ones, and those cut by the right border, the bottom border and both.

Shape letters: B images, H W token map, C channels, T window side in tokens, n = B * H * W tokens,
D head dimension.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional


def split_windows(x: Tensor, size: int) -> Tensor:
    """Cuts maps (B, H, W, C) into windows of T = `size`, zero-padded at the bottom and the right.

    Returns:
        (B * nH * nW, T, T, C) with nH = ceil(H / T), nW = ceil(W / T); the windows of an image are
        consecutive, in row-major order.
    """
    batch, height, width, channels = x.shape
    below, right = -height % size, -width % size
    if below or right:
        x = functional.pad(x, (0, 0, 0, right, 0, below))
    x = x.unflatten(2, (-1, size)).unflatten(1, (-1, size))  # (B, nH, T, nW, T, C)
    x = x.transpose(2, 3)  # (B, nH, nW, T, T, C)
    return x.reshape(-1, size, size, channels)  # (B * nH * nW, T, T, C)


def merge_windows(windows: Tensor, map_size: tuple[int, int]) -> Tensor:
    """The inverse of `split_windows`: maps (B, H, W, C) of a size (H, W), without the padding."""
    size, channels = windows.shape[1], windows.shape[3]
    height, width = map_size
    rows, columns = -(-height // size), -(-width // size)
    x = windows.reshape(-1, rows, columns, size, size, channels)  # (B, nH, nW, T, T, C)
    x = x.transpose(2, 3).flatten(3, 4).flatten(1, 2)  # (B, nH * T, nW * T, C)
    return x[:, :height, :width]


@dataclass(frozen=True)
class WindowGroup:
    """Windows of one shape.

    Attributes:
        windows: how many, in all images.
        tokens: real tokens of each.
        padded: tokens that the plain form pads each with.
    """

    windows: int
    tokens: int
    padded: int


@dataclass(frozen=True)
class WindowLayout:
    """Where every token lies in window order.

    Attributes:
        map_size: (H, W) in tokens.
        groups: their tokens follow one another, window by window.
        order: (n,) int64; the token at place i of the window order is `order[i]` in row-major order
            of (image, row, column).
        inverse: (n,) int64, the inverse permutation.
        image: (n,) int64, the image that the token at place i belongs to.
        cos, sin: (n, 1, D / 2) float32 rotary tables of the token at place i; None without.
        starts: (windows + 1,) int32, place of each window's first token, and n.
        log_padded: (n, 1) float32, logarithm of the padded tokens of the token's window; -inf
            without any.
    """

    map_size: tuple[int, int]
    batch: int
    groups: tuple[WindowGroup, ...]
    order: Tensor
    inverse: Tensor
    image: Tensor
    cos: Tensor | None
    sin: Tensor | None
    starts: Tensor
    log_padded: Tensor

    @staticmethod
    def make(
        batch: int,
        map_size: tuple[int, int],
        size: int,
        tables: tuple[Tensor, Tensor] | None,
        device: torch.device,
    ) -> WindowLayout:
        """The layout of a batch of B maps of (H, W) tokens.

        Args:
            size: T in tokens; 0 makes the whole map one window.
            tables: rotary cosines and sines, (T * T, D / 2) float32, or (H * W, D / 2) for T = 0.
        """
        height, width = map_size
        places = torch.arange(batch * height * width, device=device).view(batch, height, width)
        groups, orders, positions = [], [], []
        # Windows of one shape lie together, so that each shape is a dense batch without a copy.
        for top, left, rows, columns in _parts(map_size, size):
            # Windows of rows x columns tokens tile this part of the map.
            part = places[:, top[0] : top[1], left[0] : left[1]]
            # (B, H', W') -> (B, nH, rows, nW, columns) -> (B, nH, nW, rows, columns)
            tiles = part.unflatten(2, (-1, columns)).unflatten(1, (-1, rows)).transpose(2, 3)
            tiles = tiles.flatten(0, 2).flatten(1)  # (windows, rows * columns)
            padded = size * size - rows * columns if size else 0
            groups.append(WindowGroup(len(tiles), rows * columns, padded))
            orders.append(tiles.flatten())
            row, column = torch.arange(rows, device=device), torch.arange(columns, device=device)
            # A window's first token is the first of the table, wherever the window is.
            position = (row[:, None] * (size or width) + column).flatten()
            positions.append(position.repeat(len(tiles)))
        order = torch.cat(orders)
        lengths = [group.tokens for group in groups for _ in range(group.windows)]
        counts = torch.tensor([g.padded for g in groups for _ in range(g.windows * g.tokens)])
        cos = sin = None
        if tables is not None:
            position = torch.cat(positions)
            cos, sin = (table[position, None] for table in tables)  # (n, 1, D / 2) for all heads
        return WindowLayout(
            map_size,
            batch,
            tuple(groups),
            order,
            order.argsort(),
            order // (height * width),
            cos,
            sin,
            torch.tensor([0, *lengths]).cumsum(0).to(device, torch.int32),
            counts.to(device).float().log()[:, None],
        )

    @property
    def longest(self) -> int:
        """Tokens of the largest window."""
        return max(group.tokens for group in self.groups)

    def arrange(self, x: Tensor) -> Tensor:
        """A map (B, H, W, C) in window order: (n, C)."""
        return x.flatten(0, 2).index_select(0, self.order)

    def restore(self, x: Tensor) -> Tensor:
        """The inverse of `arrange`: (n, C) -> (B, H, W, C)."""
        x = x.index_select(0, self.inverse)  # (n, C), row by row
        return x.view(self.batch, *self.map_size, x.shape[-1])

    def slices(self) -> Iterator[tuple[WindowGroup, slice]]:
        """Each group, and the places of its tokens."""
        start = 0
        for group in self.groups:
            stop = start + group.windows * group.tokens
            yield group, slice(start, stop)
            start = stop


Part = tuple[tuple[int, int], tuple[int, int], int, int]


def _parts(map_size: tuple[int, int], size: int) -> list[Part]:
    """Parts of a map that windows of one shape tile: rows, columns, and the windows' shape."""
    height, width = map_size
    tall, wide = size or height, size or width
    return [
        (rows, columns, min(tall, rows[1] - rows[0]), min(wide, columns[1] - columns[0]))
        for rows in _bands(height, tall)
        for columns in _bands(width, wide)
    ]


def _bands(length: int, size: int) -> list[tuple[int, int]]:
    """Begin and end of what whole windows cover, and of the rest; without empty ones."""
    whole = length - length % size
    return [(begin, end) for begin, end in ((0, whole), (whole, length)) if begin < end]

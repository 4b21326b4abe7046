"""Codes of numbers as sinusoids: points and times, and Fourier features of motion."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def sine_encoding(position: Tensor, num_feats: int) -> Tensor:
    """Interleaved sines and cosines of 2 pi position at geometric wavelengths, base 10000.

    Args:
        position: any shape; float64 stays float64 (times).
        num_feats: even.

    Returns:
        (*position.shape, num_feats): sin at even, cos at odd places.
    """
    # Features 2j and 2j + 1 share a wavelength.
    index = torch.arange(num_feats, device=position.device, dtype=torch.float32)
    wavelength = 10000 ** (2 * torch.div(index, 2, rounding_mode="floor") / num_feats)
    angle = (position * (2 * math.pi))[..., None] / wavelength
    code = torch.stack((angle[..., 0::2].sin(), angle[..., 1::2].cos()), dim=-1)
    return code.flatten(-2)  # (..., n / 2, 2) -> (..., n), sine and cosine in turn


def encode_points(points: Tensor, num_feats: int) -> Tensor:
    """Sine codes (..., 3 * num_feats) of points (..., 3), fractions of the point cloud range."""
    x, y, z = points.unbind(-1)
    # Quirk: in the order y, x, z, as released weights expect.
    return torch.cat([sine_encoding(axis, num_feats) for axis in (y, x, z)], dim=-1)


def fourier_encoding(values: Tensor, octaves: int = 6) -> Tensor:
    """Sines, then cosines, of values (..., n) times 1, 2, 4, ...: (..., 2 * octaves * n)."""
    codes = [f(values * 2.0**k) for k in range(octaves) for f in (torch.sin, torch.cos)]
    return torch.cat(codes, dim=-1)

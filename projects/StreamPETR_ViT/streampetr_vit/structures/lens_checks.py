"""Tells intrinsics that cannot be those of a camera's pictures, before anything is computed."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streampetr_vit.errors import InputError
from streampetr_vit.texts import shown

FloatArray = NDArray[np.float64]

WIDEST_PINHOLE_DEG, WIDEST_FISHEYE_DEG, NARROWEST_DEG = 175.0, 360.0, 5.0
_ROUNDING = 1e-9  # of matrices that were computed
# The principal point of a camera is near the middle of its picture, unless the picture was cut.
_MIDDLE = (0.3, 0.7)
_FORM = "fx 0 cx, 0 fy cy, 0 0 1, in pixels"
# Factors by which people resize pictures.
_USUAL_SCALES = tuple(sorted({a / b for a in range(1, 6) for b in range(1, 6)} | {8.0, 0.125}))


def as_numbers(value: Any, shape: tuple[int, ...], what: str, form: str) -> FloatArray:
    """The finite numbers of a shape, as an array that nobody can write to.

    Args:
        value: what was given.
        shape: that it must have.
        what: it is, for messages.
        form: what to give, for messages.

    Raises:
        InputError: it is something else.
    """
    try:
        array = np.array(value, dtype=np.float64)
    except (TypeError, ValueError, OverflowError):
        raise InputError(f"{what} is {shown(value)}: give {form}") from None
    if array.shape != shape:
        given = f"of shape {array.shape}" if array.ndim else shown(value)
        raise InputError(f"{what} is {given}: give {form}")
    if not np.isfinite(array).all():
        raise InputError(f"{what} has NaN or infinite numbers ({numbers(array)}): give {form}")
    array.setflags(write=False)
    return array


def as_intrinsics(value: Any, what: str) -> FloatArray:
    """A camera matrix.

    Args:
        value: (3, 3), in pixels.
        what: it is, for messages: "intrinsics of camera front".

    Returns:
        (3, 3) float64, read-only.

    Raises:
        InputError: it is none.
    """
    matrix = as_numbers(value, (3, 3), what, f"the 3x3 camera matrix {_FORM}")
    if not _is_last_row(matrix[2]):
        fix = "transpose it" if _is_last_row(matrix[:, 2]) else f"give {_FORM}"
        raise InputError(f"{what} has the last row {numbers(matrix[2])}, not 0 0 1: {fix}")
    if abs(matrix[1, 0]) > _ROUNDING:
        raise InputError(f"{what} has {matrix[1, 0]:.6g} where 0 must be: give {_FORM}")
    if min(matrix[0, 0], matrix[1, 1]) <= 0:
        raise InputError(
            f"{what} has the focal lengths {matrix[0, 0]:.6g} and {matrix[1, 1]:.6g}: both must be "
            "above 0"
        )
    return matrix


def _is_last_row(row: FloatArray) -> bool:
    return bool(np.abs(row - (0, 0, 1)).max() <= _ROUNDING)


def check_fits(matrix: FloatArray, width: int, height: int, what: str, fisheye: bool) -> None:
    """Compares a camera matrix with the size of the pictures.

    Args:
        matrix: (3, 3) of `as_intrinsics`.
        width, height: of the pictures, pixels.
        what: it is, for messages.
        fisheye: whether the lens is one, which can see behind itself.

    Raises:
        InputError: the matrix is of pictures of another size, or of no camera.
    """
    focal, point = np.diag(matrix)[:2], matrix[:2, 2]
    size = np.array([width, height])
    if focal.max() < 20 and np.abs(point).max() <= 1 < size.min():
        raise InputError(
            f"{what} has the focal length {focal[0]:.4g} and the principal point "
            f"({numbers(point, ', ')}), which look normalised: multiply its first row by the width "
            f"{width} and its second row by the height {height}"
        )
    parts = point / size
    if (parts > _MIDDLE[1]).all() or (parts < _MIDDLE[0]).all():
        raise InputError(
            f"{what} has the principal point ({numbers(point, ', ')}) in pictures of "
            f"{width}x{height}: it looks like that of a {usual_size(point, size)} picture; give "
            "the size and the intrinsics of the same picture"
        )
    if (parts < 0).any() or (parts >= 1).any():
        raise InputError(
            f"{what} has the principal point ({numbers(point, ', ')}) outside of pictures of "
            f"{width}x{height}: give intrinsics of pictures of that size"
        )
    _check_view(focal, point, size, what, fisheye)


def fields_of_view_deg(
    matrix: FloatArray, width: int, height: int, fisheye: bool = False
) -> tuple[float, float]:
    """Angles that a camera sees, across and down, without the bending by its distortion."""
    focal, point = np.diag(matrix)[:2], matrix[:2, 2]
    sides = np.stack((point, np.array([width, height]) - point)) / focal  # (2, 2)
    angles = sides if fisheye else np.arctan(sides)
    across, down = np.degrees(angles.sum(axis=0)).tolist()
    return across, down


def usual_size(point: FloatArray, size: FloatArray) -> str:
    """The size of the picture that a principal point would fit, as "800x450".

    Args:
        point: (2,) principal point, pixels.
        size: (2,) width and height of the pictures that it does not fit, pixels.
    """
    parts = point / size
    scale = float(parts.sum())
    usual = min(_USUAL_SCALES, key=lambda known: abs(math.log(known / max(scale, 1e-6))))
    if parts.max() < 1.15 * parts.min() and abs(math.log(usual / scale)) < 0.1:
        width, height = np.round(size * usual).astype(int)
    else:
        width, height = np.round(2 * np.abs(point)).astype(int)
    return f"{width}x{height}"


def _check_view(
    focal: FloatArray, point: FloatArray, size: FloatArray, what: str, fisheye: bool
) -> None:
    matrix = np.diag([*focal, 1.0])
    matrix[:2, 2] = point
    view = max(fields_of_view_deg(matrix, int(size[0]), int(size[1]), fisheye))
    widest = WIDEST_FISHEYE_DEG if fisheye else WIDEST_PINHOLE_DEG
    if NARROWEST_DEG <= view <= widest:
        return
    fix = "give pixels of pictures of that size"
    if view > widest and not fisheye:
        fix += ", or distortion: {model: fisheye, ...} for such a lens"
    raise InputError(
        f"{what} has the focal lengths {numbers(focal, ' and ')} for pictures of "
        f"{size[0]}x{size[1]}, which would see {view:.3g} degrees: {fix}"
    )


def numbers(values: Any, separator: str = " ") -> str:
    """Numbers for a message."""
    return separator.join(f"{value:.6g}" for value in np.ravel(values))

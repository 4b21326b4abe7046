"""Drives of tests: a car that goes round bends, far from the origin of its map."""

from __future__ import annotations

import numpy as np


def drive(
    frames: int = 60,
    step_s: float = 0.5,
    turn: float = 0.08,
    yaw: float = 0.3,
    speeds_mps: object = 8.0,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Times (n,), yaws (n,) and places (n, 2)."""
    number = np.arange(frames)
    yaws = yaw + turn * number * np.cos(number / 15)
    middle = (yaws[1:] + yaws[:-1]) / 2
    lengths = np.broadcast_to(np.asarray(speeds_mps), frames - 1) * step_s
    steps = lengths[:, None] * np.stack((np.cos(middle), np.sin(middle)), axis=1)
    places = np.concatenate(([[600.0, 1200.0]], steps)).cumsum(axis=0)
    return number * step_s, yaws, places


def matrices(yaws: np.ndarray, places: np.ndarray) -> np.ndarray:
    """(n, 4, 4) poses on flat ground."""
    found = np.tile(np.eye(4), (len(yaws), 1, 1))
    found[:, 0, 0] = found[:, 1, 1] = np.cos(yaws)
    found[:, 1, 0] = np.sin(yaws)
    found[:, 0, 1] = -np.sin(yaws)
    found[:, :2, 3] = places
    return found

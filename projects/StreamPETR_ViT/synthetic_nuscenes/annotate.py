"""Which object is annotated in which frame: lidar returns, tracks, visibility."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from synthetic_nuscenes import lidar
from synthetic_nuscenes.categories import KIND_NAMES
from synthetic_nuscenes.rig import LIDAR_TRANSLATION, LIDAR_YAW_RAD
from synthetic_nuscenes.world import Actors, World

MAX_HOLE_FRAMES = 3  # a track survives that many frames without a return
RACK = KIND_NAMES.index("bicycle_rack")


@dataclass(frozen=True)
class Track:
    """A run of annotated frames of one actor.

    Attributes:
        actor: row in `World.actors`.
        first: first frame.
        last: last frame, inclusive; at least `first` + 1.
    """

    actor: int
    first: int
    last: int


def boxes_in_ego(boxes: np.ndarray, ego_xy: np.ndarray, ego_yaw: float) -> np.ndarray:
    """Global (n, 7) boxes in the frame of an ego pose on the ground."""
    moved = boxes.copy()
    cos, sin = np.cos(ego_yaw), np.sin(ego_yaw)
    offset = boxes[:, :2] - ego_xy
    moved[:, 0] = cos * offset[:, 0] + sin * offset[:, 1]
    moved[:, 1] = -sin * offset[:, 0] + cos * offset[:, 1]
    moved[:, 6] = boxes[:, 6] - ego_yaw
    return moved


def scan_frame(world: World, time_s: float, range_m: float, with_points: bool) -> lidar.Sweep:
    """The lidar's view of the world at one moment; counts are per actor."""
    boxes = boxes_in_ego(world.boxes(time_s), *world.ego_pose(time_s))
    actors = world.actors
    # 12 m: more than half of the longest vehicle, and the lidar's offset.
    near = np.hypot(boxes[:, 0], boxes[:, 1]) < range_m + 12.0
    # A bicycle rack is a frame of thin bars: it hides nothing.
    solid = np.flatnonzero(near & (actors.kind != RACK))
    # The lidar's own yaw turns azimuths of stored points from the ego to the lidar frame.
    sweep = lidar.scan(boxes[solid], LIDAR_TRANSLATION, range_m, -LIDAR_YAW_RAD, with_points)
    counts = np.zeros(len(actors), dtype=int)
    counts[solid] = sweep.counts
    return lidar.Sweep(with_racks(actors, counts), sweep.points)


def with_racks(actors: Actors, counts: np.ndarray) -> np.ndarray:
    """Counts (..., n) in which each bicycle rack has the counts of its bicycles."""
    counts = counts.copy()
    held = np.flatnonzero(actors.rack >= 0)
    # add.at: a rack comes once per bicycle, and `+=` would add only one of them.
    np.add.at(counts.T, actors.rack[held], counts.T[held])
    return counts


def find_tracks(counts: np.ndarray) -> list[Track]:
    """Cuts each actor's frames into tracks, which start and end with a return.

    Args:
        counts: (frames, n) lidar returns.

    Returns:
        Tracks ordered by actor, then time.
    """
    tracks = []
    for actor in range(counts.shape[1]):
        seen = np.flatnonzero(counts[:, actor])
        if len(seen) < 2:
            continue
        # A longer hole ends a track; what returns after it is a new instance.
        breaks = np.flatnonzero(np.diff(seen) > MAX_HOLE_FRAMES + 1)
        firsts = np.concatenate(([seen[0]], seen[breaks + 1]))
        lasts = np.concatenate((seen[breaks], [seen[-1]]))
        # A single annotation would have no velocity: no track.
        tracks += [
            Track(actor, int(a), int(b)) for a, b in zip(firsts, lasts, strict=True) if b > a
        ]
    return tracks


def boxes_per_kind(world: World, counts: np.ndarray, tracks: list[Track]) -> np.ndarray:
    """Number of boxes that the evaluation counts, per kind of `KIND_NAMES`."""
    total = np.zeros(len(KIND_NAMES), dtype=int)
    for track in tracks:
        # The evaluation drops bicycles in a rack.
        if world.actors.rack[track.actor] >= 0:
            continue
        frames = counts[track.first : track.last + 1, track.actor]
        total[world.actors.kind[track.actor]] += int((frames > 0).sum())
    return total


def visibility_tokens(visible_px: np.ndarray, own_px: np.ndarray) -> np.ndarray:
    """nuScenes visibility levels "1".."4" of the shares of the objects' pixels that are not hidden.

    Args:
        visible_px: pixels that show each object, any shape.
        own_px: pixels that each would cover alone, same shape.
    """
    shares = np.divide(visible_px, own_px, out=np.zeros_like(own_px), where=own_px > 0)
    return (1 + np.searchsorted((0.4, 0.6, 0.8), shares, side="right")).astype(str)

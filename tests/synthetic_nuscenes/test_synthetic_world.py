"""The synthetic world: road, lanes, lidar, tracks."""

from __future__ import annotations

import math

import numpy as np
import pytest
import shapely

from synthetic_nuscenes import PRESETS, annotate, lidar
from synthetic_nuscenes.categories import KIND_NAMES, attribute_of
from synthetic_nuscenes.lanes import build_world
from synthetic_nuscenes.occlusion import footprint_corners, paint_order
from synthetic_nuscenes.path import RoadPath
from synthetic_nuscenes.scene import MIN_BOXES_PER_FRAME, build_scene

ORIGIN = (0.94, 0.0, 1.84)


@pytest.mark.parametrize("curvature", [0.0, 1 / 90, -1 / 120])
def test_road_has_unit_speed_and_parallels_keep_their_distance(curvature: float) -> None:
    path = RoadPath(curvature, (5.0, -3.0), 0.7)
    s, step = np.linspace(-50, 80, 27), 1e-4
    forward = (path.position(s + step) - path.position(s - step)) / (2 * step)
    np.testing.assert_allclose(np.linalg.norm(forward, axis=1), 1.0, atol=1e-8)
    np.testing.assert_allclose(np.arctan2(*forward.T[::-1]), path.heading(s), atol=1e-6)
    left = path.position(s, 4.0) - path.position(s)
    np.testing.assert_allclose(np.linalg.norm(left, axis=1), 4.0, atol=1e-9)
    np.testing.assert_allclose(np.cross(forward, left), 4.0, atol=1e-6)


@pytest.mark.parametrize("preset", ["quickstart", "gpu"])
def test_nothing_overlaps(preset: str) -> None:
    """In no frame do two footprints overlap, but for the bicycles in their rack."""
    for index in range(6):
        world = build_world(PRESETS[preset], np.random.default_rng([7, index]))
        for time in np.linspace(0.0, world.duration_s, 8):
            polygons = shapely.polygons(footprint_corners(world.boxes(time)))
            first, second = shapely.STRtree(polygons).query(polygons, predicate="overlaps")
            assert first.size == 0, f"world {index}: {world.actors.category[first[0]]}"
            inside, rack = shapely.STRtree(polygons).query(polygons, predicate="within")
            different = inside != rack
            np.testing.assert_array_equal(world.actors.rack[inside[different]], rack[different])


def test_ego_car_meets_nothing() -> None:
    car = np.array([[1.4, 0.0, 0.8, 4.6, 1.9, 1.6, 0.0]])
    for index in range(6):
        world = build_world(PRESETS["quickstart"], np.random.default_rng([8, index]))
        for time in np.linspace(0.0, world.duration_s, 8):
            boxes = annotate.boxes_in_ego(world.boxes(time), *world.ego_pose(time))
            polygons = shapely.polygons(footprint_corners(np.concatenate((car, boxes))))
            assert shapely.distance(polygons[0], polygons[1:]).min() > 0.5


def test_velocities_are_the_derivative_of_positions() -> None:
    world = build_world(PRESETS["gpu"], np.random.default_rng(3))
    step = 1e-4
    moved = world.boxes(2.0 + step)[:, :2] - world.boxes(2.0 - step)[:, :2]
    np.testing.assert_allclose(moved / (2 * step), world.velocities(2.0), atol=1e-5)
    speed = np.linalg.norm(world.velocities(2.0), axis=1)
    np.testing.assert_allclose(speed, world.speeds(), atol=1e-9)


def test_small_world_is_slow() -> None:
    for index in range(5):
        world = build_world(PRESETS["quickstart"], np.random.default_rng([9, index]))
        assert 3.0 <= world.ego_speed_mps <= 6.0
        is_walker = world.actors.kind == KIND_NAMES.index("pedestrian")
        speed = world.speeds()
        assert speed[is_walker].max() <= 2.05
        moving = speed > 0
        assert moving[is_walker].any() and not moving[is_walker].all()
        assert speed[moving & ~is_walker].min() > 2.0 and speed.max() < 9.0


def _random_boxes(rng: np.random.Generator, count: int) -> np.ndarray:
    boxes = np.zeros((count, 7))
    boxes[:, :2] = rng.uniform(-20, 20, size=(count, 2))
    boxes[:, 3:6] = rng.uniform((1, 0.5, 0.8), (9, 2.5, 3.5), size=(count, 3))
    boxes[:, 2] = boxes[:, 5] / 2
    boxes[:, 6] = rng.uniform(-math.pi, math.pi, size=count)
    return boxes


def _reference_counts(boxes: np.ndarray, range_m: float) -> np.ndarray:
    """Every ray against every box in three dimensions, by the plain slab method."""
    azimuth = np.arange(lidar.AZIMUTHS) * 2 * np.pi / lidar.AZIMUTHS
    elevation = np.radians(np.linspace(-30.0, 10.0, lidar.BEAMS))
    rays = np.stack(
        (
            np.cos(azimuth)[:, None] * np.cos(elevation),
            np.sin(azimuth)[:, None] * np.cos(elevation),
            np.broadcast_to(np.sin(elevation), (lidar.AZIMUTHS, lidar.BEAMS)),
        ),
        axis=-1,
    )
    distance = np.full((len(boxes), *rays.shape[:2]), np.inf)
    for k, box in enumerate(boxes):
        cos, sin = np.cos(box[6]), np.sin(box[6])
        to_box = np.array([[cos, sin, 0], [-sin, cos, 0], [0, 0, 1]])
        eye, direction = to_box @ (np.array(ORIGIN) - box[:3]), rays @ to_box.T
        near, far = (-box[3:6] / 2 - eye) / direction, (box[3:6] / 2 - eye) / direction
        enter, leave = np.minimum(near, far).max(-1), np.maximum(near, far).min(-1)
        distance[k][(enter < leave) & (leave > 0)] = enter[(enter < leave) & (leave > 0)]
    nearest = distance.argmin(axis=0)
    counts = np.bincount(nearest[distance.min(axis=0) <= range_m], minlength=len(boxes))
    counts[np.hypot(*(boxes[:, :2] - ORIGIN[:2]).T) > range_m] = 0
    return counts


def test_lidar_counts_equal_plain_ray_casting() -> None:
    rng = np.random.default_rng(0)
    hidden = 0
    for _ in range(4):
        boxes = _random_boxes(rng, 15)
        boxes = boxes[np.hypot(*(boxes[:, :2] - ORIGIN[:2]).T) > 6.0]  # the lidar is in none
        counts = lidar.scan(boxes, ORIGIN, 18.0, 0.0, with_points=False).counts
        np.testing.assert_allclose(counts, _reference_counts(boxes, 18.0), atol=1)
        hidden += (counts == 0).sum()
    assert hidden > 0


def test_lidar_points_lie_on_the_boxes_or_the_ground() -> None:
    boxes = _random_boxes(np.random.default_rng(1), 12)
    boxes = boxes[np.hypot(*(boxes[:, :2] - ORIGIN[:2]).T) > 6.0]
    sweep = lidar.scan(boxes, ORIGIN, 25.0, 0.0, with_points=True)
    points = sweep.points[:, :3] + np.array(ORIGIN)
    assert sweep.points.dtype == np.float32 and sweep.points.shape[1] == 5
    assert np.linalg.norm(sweep.points[:, :3], axis=1).max() <= 25.0 + 1e-3
    off_ground = points[points[:, 2] > 1e-3]
    offset = off_ground[:, None, :2] - boxes[None, :, :2]
    cos, sin = np.cos(boxes[:, 6]), np.sin(boxes[:, 6])
    along = np.abs(cos * offset[..., 0] + sin * offset[..., 1]) - boxes[:, 3] / 2
    across = np.abs(-sin * offset[..., 0] + cos * offset[..., 1]) - boxes[:, 4] / 2
    above = off_ground[:, 2:3] - boxes[:, 5]
    outside = np.maximum(np.maximum(along, across), above)
    np.testing.assert_allclose(outside.min(axis=1), 0.0, atol=1e-3)


def test_what_is_farther_than_the_range_has_no_returns() -> None:
    box = np.array([[0.0, 0.0, 1.0, 4.0, 2.0, 2.0, 0.3]])
    for distance, seen in ((24.0, True), (25.5, False)):
        box[0, :2] = ORIGIN[0] + distance, 0.0
        assert bool(lidar.scan(box, ORIGIN, 25.0, 0.0, False).counts[0]) is seen


def test_tracks_end_with_returns_and_bridge_short_holes_only() -> None:
    counts = np.zeros((12, 4), dtype=int)
    counts[[1, 2, 5], 0] = 3  # a hole of two frames
    counts[[0, 1, 6, 7], 1] = 1  # a hole of four frames: two tracks
    counts[4, 2] = 9  # a single frame: no velocity, no track
    found = [(t.actor, t.first, t.last) for t in annotate.find_tracks(counts)]
    assert found == [(0, 1, 5), (1, 0, 1), (1, 6, 7)]


def _first_meetings(boxes: np.ndarray, eye: np.ndarray) -> list[list[int]]:
    """Boxes that each of 720 lines of sight meets, nearest first."""
    meetings = []
    footprints = shapely.polygons(footprint_corners(boxes))
    for angle in np.arange(720) * np.pi / 360:
        line = shapely.LineString([eye, eye + 200 * np.array([np.cos(angle), np.sin(angle)])])
        cut = shapely.intersection(line, footprints)
        met = np.flatnonzero(shapely.length(cut) > 1e-6)
        distance = shapely.distance(cut[met], shapely.Point(eye))
        meetings.append(met[np.argsort(distance)].tolist())
    return meetings


def test_paint_order_is_far_to_near_on_every_line_of_sight() -> None:
    """Also for buses and trailers, where the distance of centres gives the wrong order."""
    wrong_by_distance = 0
    for index in range(3):
        world = build_world(PRESETS["quickstart"], np.random.default_rng([2, index]))
        keep = np.flatnonzero(world.actors.rack < 0)
        keep = keep[world.actors.kind[keep] != KIND_NAMES.index("bicycle_rack")]
        boxes, eye = world.boxes(1.0)[keep], world.ego_pose(1.0)[0]
        rank = np.argsort(paint_order(boxes, eye))
        by_distance = np.argsort(np.argsort(-np.hypot(*(boxes[:, :2] - eye).T)))
        for met in _first_meetings(boxes, eye):
            assert (np.diff(rank[met]) < 0).all()
            wrong_by_distance += (np.diff(by_distance[met]) > 0).sum()
    assert wrong_by_distance > 0


def test_every_scene_has_enough_boxes_of_every_class() -> None:
    config = PRESETS["quickstart"]
    for index in (0, 41):
        scene = build_scene(config, "scene", index)
        boxes = annotate.boxes_per_kind(scene.world, scene.counts, scene.tracks)[:10]
        assert boxes.min() >= MIN_BOXES_PER_FRAME * config.frames


@pytest.mark.parametrize(
    ("kind", "speed", "attribute"),
    [
        ("car", 3.0, "vehicle.moving"),
        ("trailer", 0.0, "vehicle.parked"),
        ("bus", 0.1, "vehicle.stopped"),
        ("bicycle", 1.0, "cycle.with_rider"),
        ("motorcycle", 0.0, "cycle.without_rider"),
        ("pedestrian", 0.21, "pedestrian.moving"),
        ("pedestrian", 0.0, "pedestrian.standing"),
        ("barrier", 0.0, ""),
        ("traffic_cone", 0.0, ""),
    ],
)
def test_attributes_follow_speed(kind: str, speed: float, attribute: str) -> None:
    assert attribute_of(kind, speed) == attribute

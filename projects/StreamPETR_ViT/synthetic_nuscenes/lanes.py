"""Fills a scene with actors, lane by lane.

Everything has its own lane, so nothing collides by construction, and every mover keeps a constant
speed and a constant turn rate.
"""

from __future__ import annotations

import math

import numpy as np

from synthetic_nuscenes.categories import KIND_NAMES, KINDS, LARGE_KINDS
from synthetic_nuscenes.config import FRAME_PERIOD_S, SyntheticConfig
from synthetic_nuscenes.path import RoadPath
from synthetic_nuscenes.world import Actors, World

# Lateral offsets of the lanes in metres (+ is left). Rows are far enough from each other for the
# widest vehicles (3.2 m, and 0.2 m more at the ends of a bus on the tightest arc).
TRAFFIC_D_M = 3.45
SEPARATOR_D_M = 5.6
PARKED_D_M = 7.8
WALKER_D_M = (10.4, 11.5)
STANDING_D_M = 13.9
RACK_D_M = 17.0
ROAD_HALF_WIDTH_M = 9.5
SIDEWALK_HALF_WIDTH_M = 15.0

SIZE_SIGMA = 0.06  # log-normal
SPEED_SPREAD_MPS = 0.3
CORNER_M = 100.0  # least distance of a scene from the origin: global coordinates are never small
SMALL_WORLD_M = 35.0  # up to that range the world is slower and denser, for small models

# How often each kind comes in a round. Large vehicles are rare beside the ego car, where one of
# them hides three cameras.
TRAFFIC_BAG = {
    "car": 3,
    "motorcycle": 2,
    "bicycle": 2,
    "truck": 1,
    "construction_vehicle": 1,
    "bus": 1,
    "trailer": 1,
}
PARKED_BAG = {
    "car": 1,
    "truck": 2,
    "construction_vehicle": 2,
    "bus": 2,
    "trailer": 2,
    "motorcycle": 1,
    "bicycle": 1,
}
EGO_LANE_BAG = {"car": 2, "motorcycle": 2, "bicycle": 2}
STANDING_BAG = {"pedestrian": 5, "traffic_cone": 2, "barrier": 2}


class _Bag:
    """Draws kinds in shuffled rounds, so that every scene gets its share of every kind."""

    def __init__(self, rng: np.random.Generator, counts: dict[str, int]) -> None:
        self._rng = rng
        self._all = [kind for kind, count in counts.items() for _ in range(count)]
        self._left: list[str] = []

    def draw(self) -> str:
        if not self._left:
            self._left = [self._all[i] for i in self._rng.permutation(len(self._all))]
        return self._left.pop()


class _Builder:
    """Collects actors; knows the speeds of the scene and how far it can be seen."""

    def __init__(self, rng: np.random.Generator, config: SyntheticConfig) -> None:
        self.rng = rng
        self.small_world = config.range_m <= SMALL_WORLD_M
        self.view_m = 1.15 * config.range_m + 6.0
        # A little longer than the scene: sample times have a jitter.
        self.duration_s = (config.frames - 1) * FRAME_PERIOD_S + 0.1
        self.ego_speed_mps = float(rng.uniform(3.0, 6.0 if self.small_world else 10.0))
        self.path = _make_path(rng, config, self.ego_speed_mps)
        self._gap_scale = 1.0 if self.small_world else 1.4
        self._rows: list[tuple] = []

    def __len__(self) -> int:
        return len(self._rows)

    def add(
        self,
        kind: str,
        s: float,
        d: float,
        size_lwh: np.ndarray,
        rate: float = 0.0,
        heading: float = 0.0,
        rack: int = -1,
    ) -> None:
        category = KINDS[kind].draw_category(self.rng)
        if category.endswith("child"):  # sizes are those of adults
            size_lwh = size_lwh * np.array([0.75, 0.75, 0.68])
        # Shade and brightness are taken from different digits of one number.
        look = int(self.rng.integers(1 << 16))
        index = KIND_NAMES.index(kind)
        self._rows.append((index, category, size_lwh, s, d, rate, heading, look, rack))

    def size(self, kind: str) -> np.ndarray:
        """(3,) length, width, height around the mean of the kind."""
        w, length, h = KINDS[kind].size_wlh_m
        noise = np.clip(self.rng.normal(size=3), -1.5, 1.5) * SIZE_SIGMA
        return np.round(np.array([length, w, h]) * np.exp(noise), 3)

    def window(self, rate: float) -> tuple[float, float]:
        """Range of s0 from which a mover comes into view at any time of the scene."""
        # Seen from the ego car, the mover drifts by so much until the end of the scene.
        relative = (self.ego_speed_mps - rate) * self.duration_s
        return min(0.0, relative) - self.view_m, max(0.0, relative) + self.view_m

    def gap(self, mean_m: float) -> float:
        return mean_m * self._gap_scale * float(self.rng.uniform(0.3, 1.7))

    def actors(self) -> Actors:
        columns = list(zip(*self._rows, strict=True))  # rows -> columns
        as_array = [np.array(columns[i]) for i in (0, 2, 3, 4, 5, 6, 7, 8)]
        kind, size, s0, d, rate, heading, look, rack = as_array
        return Actors(kind, tuple(columns[1]), size, s0, d, rate, heading, look, rack)


def _make_path(rng: np.random.Generator, config: SyntheticConfig, ego_speed: float) -> RoadPath:
    """A straight road or an arc, moved so that all of the world has positive coordinates."""
    view = 1.15 * config.range_m + 30.0
    length = ego_speed * config.frames * FRAME_PERIOD_S
    # A longer scene needs a wider arc, else the ring lanes meet themselves.
    tightest = min(1 / 90.0, 1.0 / ((length + 2 * view) / (2 * math.pi) + 20.0))
    curvature = 0.0 if rng.random() < 0.2 else float(rng.uniform(-tightest, tightest))
    yaw = float(rng.uniform(-math.pi, math.pi))
    path = RoadPath(curvature, (0.0, 0.0), yaw)
    samples = path.position(np.linspace(-view, length + view, 200))
    corner = np.ceil(view + CORNER_M + rng.uniform(0, 200, size=2) - samples.min(axis=0))
    return RoadPath(curvature, (float(corner[0]), float(corner[1])), yaw)


def _heading(direction: int) -> float:
    """Heading relative to the road of something that drives or walks along (1) or against (-1)."""
    return 0.0 if direction > 0 else math.pi


def _fill_ego_lane(b: _Builder, mean_gap: float) -> None:
    """Vehicles before and behind the ego car with exactly its speed."""
    small, large = _Bag(b.rng, EGO_LANE_BAG), _Bag(b.rng, dict.fromkeys(LARGE_KINDS, 1))
    for sign, bumper in ((1, 3.8), (-1, 1.0)):
        s = bumper + float(b.rng.uniform(4.0, 14.0))
        while s < b.view_m:
            # Large ones keep away: near the ego car they would hide everything behind them.
            kind = large.draw() if s > 14.0 and b.rng.random() < 0.4 else small.draw()
            size = b.size(kind)
            b.add(kind, sign * (s + size[0] / 2), 0.0, size, b.ego_speed_mps)
            s += size[0] + 3.0 + b.gap(mean_gap)


def _fill_traffic(b: _Builder, bag: _Bag, d: float, direction: int, mean_gap: float) -> None:
    """A lane of moving vehicles, at slightly different speeds."""
    lane_speed = float(b.rng.uniform(3.0, 6.0) if b.small_world else b.rng.uniform(4.0, 10.0))
    if direction > 0:  # near the ego's own speed, else such vehicles are seen once and never again
        lane_speed = float(np.clip(b.ego_speed_mps * b.rng.uniform(0.6, 1.4), 2.5, 12.0))
    low, high = b.window(direction * b.path.arc_rate(lane_speed, d))
    s = low + b.gap(mean_gap)
    while s < high:
        kind = bag.draw()
        size = b.size(kind)
        speed = lane_speed + float(b.rng.uniform(-SPEED_SPREAD_MPS, SPEED_SPREAD_MPS))
        rate = direction * b.path.arc_rate(speed, d)
        b.add(kind, s + size[0] / 2, d, size, rate, _heading(direction))
        # The last term: two neighbours differ by at most twice the spread, so that no gap closes.
        s += size[0] + 1.0 + b.gap(mean_gap) + 2.2 * SPEED_SPREAD_MPS * b.duration_s


def _fill_parked(b: _Builder, bag: _Bag, d: float, mean_gap: float) -> None:
    """A row of parked vehicles."""
    low, high = b.window(0.0)
    s = low + b.gap(mean_gap)
    while s < high:
        kind = bag.draw()
        size = b.size(kind)
        # One of ten stands against its side's direction: the side must not tell the heading.
        direction = (1 if d < 0 else -1) * (-1 if b.rng.random() < 0.1 else 1)
        b.add(kind, s + size[0] / 2, d, size, 0.0, _heading(direction))
        s += size[0] + 0.8 + b.gap(mean_gap)


def _fill_separators(b: _Builder, d: float, mean_gap: float) -> None:
    """Groups of cones and rows of barriers between the lanes."""
    low, high = b.window(0.0)
    s = low + b.gap(mean_gap)
    while s < high:
        is_barrier = b.rng.random() < 0.5
        for _ in range(int(b.rng.integers(1, 4))):
            if is_barrier:  # the long side of a barrier is its width: it lies along the road
                size = b.size("barrier")
                turn = math.pi / 2 * float(b.rng.choice([-1, 1]))
                b.add("barrier", s + size[1] / 2, d, size, 0.0, turn)
                s += size[1] + 0.4
            else:
                turn = float(b.rng.uniform(-math.pi, math.pi))
                b.add("traffic_cone", s, d, b.size("traffic_cone"), 0.0, turn)
                s += float(b.rng.uniform(1.5, 3.0))
        s += 3.0 + b.gap(mean_gap)


def _fill_walkers(b: _Builder, d: float, direction: int, mean_gap: float) -> None:
    """People who walk one behind the other, at slightly different speeds."""
    lane_speed = float(b.rng.uniform(1.1, 1.9))
    low, high = b.window(direction * b.path.arc_rate(lane_speed, d))
    s = low + b.gap(mean_gap)
    while s < high:
        speed = lane_speed + float(b.rng.uniform(-0.1, 0.1))
        offset = d + float(b.rng.uniform(-0.1, 0.1))
        rate = direction * b.path.arc_rate(speed, offset)
        b.add("pedestrian", s, offset, b.size("pedestrian"), rate, _heading(direction))
        # As in traffic: speeds differ by at most 0.2 m/s.
        s += 1.5 + 0.25 * b.duration_s + b.gap(mean_gap)


def _fill_standing(b: _Builder, d: float, mean_gap: float, keep_free: tuple[float, float]) -> None:
    """People who wait, single cones and barriers on the edge of the sidewalk, any heading."""
    bag = _Bag(b.rng, STANDING_BAG)
    low, high = b.window(0.0)
    s = low + b.gap(mean_gap)
    while s < high:
        kind = bag.draw()
        turn = float(b.rng.uniform(-math.pi, math.pi))
        if not keep_free[0] < s < keep_free[1]:
            b.add(kind, s, d + float(b.rng.uniform(-0.3, 0.3)), b.size(kind), 0.0, turn)
        s += 3.2 + b.gap(mean_gap)


def _add_rack(b: _Builder, side: int) -> tuple[float, float]:
    """A bicycle rack with three bicycles inside; returns the range of s that it takes."""
    s = float(b.rng.uniform(0.2, 0.8)) * b.ego_speed_mps * b.duration_s
    row = len(b)
    w, length, h = KINDS["bicycle_rack"].size_wlh_m
    facing = math.pi / 2 * float(b.rng.choice([-1, 1]))
    d = side * RACK_D_M
    b.add("bicycle_rack", s, d, np.array([length, w, h]), 0.0, facing)
    for offset in (-0.85, 0.0, 0.85):
        along = s + b.path.arc_rate(offset, d)  # metres to arc length, at that distance from it
        b.add("bicycle", along, d, b.size("bicycle"), 0.0, facing, row)
    return s - 4.0, s + 4.0


def build_world(config: SyntheticConfig, rng: np.random.Generator) -> World:
    """Draws one scene.

    Args:
        config: number of frames and range; up to 35 m the world is denser and slower.
        rng: all randomness.
    """
    b = _Builder(rng, config)
    traffic, parked = _Bag(rng, TRAFFIC_BAG), _Bag(rng, PARKED_BAG)
    rack_side = int(rng.choice([-1, 0, 0, 1]))
    _fill_ego_lane(b, 10.0)
    _fill_traffic(b, traffic, TRAFFIC_D_M, -1, 12.0)
    _fill_traffic(b, traffic, -TRAFFIC_D_M, 1, 12.0)
    for side in (-1, 1):
        busy = _add_rack(b, side) if side == rack_side else (0.0, 0.0)
        _fill_parked(b, parked, side * PARKED_D_M, 9.0)
        _fill_separators(b, side * SEPARATOR_D_M, 28.0)
        _fill_walkers(b, side * WALKER_D_M[0], -side, 36.0)
        _fill_walkers(b, side * WALKER_D_M[1], side, 36.0)
        _fill_standing(b, side * STANDING_D_M, 12.0, busy)
    duration = (config.frames - 1) * FRAME_PERIOD_S
    sun = float(rng.uniform(-math.pi, math.pi))
    return World(b.path, b.ego_speed_mps, duration, b.actors(), sun)

"""One scene before its pictures: drawn from the seed until every class is there."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from synthetic_nuscenes import annotate, tables
from synthetic_nuscenes.annotate import Track
from synthetic_nuscenes.categories import KIND_NAMES, MOVING_SPEED_MPS
from synthetic_nuscenes.config import FRAME_PERIOD_S, SyntheticConfig
from synthetic_nuscenes.errors import ConfigError
from synthetic_nuscenes.lanes import build_world
from synthetic_nuscenes.looks import look_index
from synthetic_nuscenes.painter import Objects
from synthetic_nuscenes.rig import Camera, make_rig
from synthetic_nuscenes.world import World

EPOCH_US = 1_600_000_000_000_000
SCENE_SPACING_US = 600_000_000
MAX_DRAWS = 200
# A scene is drawn again until every class has so many boxes per frame, so that no split lacks a
# class: the official metric counts an absent class as zero.
MIN_BOXES_PER_FRAME = 0.8


@dataclass(frozen=True)
class Scene:
    """A scene before its pictures.

    Attributes:
        config: of the data set.
        name: scene name.
        index: number of the scene in the data set.
        world: what is where.
        cameras: calibrated cameras.
        times_s: (frames,) sample times from the start of the scene.
        counts: (frames, n) lidar returns per actor, or what replaces them without a lidar.
        tracks: annotated runs.
    """

    config: SyntheticConfig
    name: str
    index: int
    world: World
    cameras: tuple[Camera, ...]
    times_s: np.ndarray
    counts: np.ndarray
    tracks: list[Track]

    def token(self, *parts: object) -> str:
        """Token of a table row of this scene."""
        return tables.token(self.config.seed, self.name, *parts)

    def timestamp_us(self, frame: int) -> int:
        """Time stamp of a sample."""
        start = EPOCH_US + self.index * SCENE_SPACING_US
        return start + round(float(self.times_s[frame]) * 1e6)

    def objects(self, frame: int) -> Objects:
        """What the painter draws in a frame."""
        actors = self.world.actors
        moving = self.world.speeds() > MOVING_SPEED_MPS
        looks = map(look_index, actors.kind.tolist(), actors.look.tolist(), moving.tolist())
        # Eight levels of brightness, from other digits of `look` than the colour.
        shade = 0.94 + 0.12 * ((actors.look // 16) % 8) / 7.0
        return Objects(self.world.boxes(float(self.times_s[frame])), np.array(list(looks)), shade)

    def seen_by_cameras(self, visible_px: np.ndarray) -> Scene:
        """The scene annotated by what its cameras show.

        Args:
            visible_px: (frames, n) pixels that show each actor.
        """
        shown = annotate.with_racks(self.world.actors, visible_px.astype(int))
        # The pictures show a little more than the range, as shapes in the fog.
        counts = np.where(self.counts > 0, shown, 0)
        return replace(self, counts=counts, tracks=annotate.find_tracks(counts))


def build_scene(config: SyntheticConfig, name: str, index: int) -> Scene:
    """Draws a scene in which all ten classes are annotated.

    Args:
        config: of the data set.
        name: scene name.
        index: number of the scene; together with the seed it decides everything.

    Raises:
        ConfigError: no draw had enough boxes of every class.
    """
    needed = max(2.0, MIN_BOXES_PER_FRAME * config.frames)
    for attempt in range(MAX_DRAWS):
        rng = np.random.default_rng([config.seed, index, attempt])
        world = build_world(config, rng)
        cameras = make_rig(rng, config.image_width, config.image_height, config.cameras)
        # Real samples are not evenly spaced; 0.05 s keeps the first one after time 0.
        jitter = rng.integers(-15_000, 15_000, size=config.frames) / 1e6
        times = np.arange(config.frames) * FRAME_PERIOD_S + jitter + 0.05
        counts = np.stack(
            [annotate.scan_frame(world, float(t), config.range_m, False).counts for t in times]
        )
        tracks = annotate.find_tracks(counts)
        boxes = annotate.boxes_per_kind(world, counts, tracks)
        # The rack comes last and is no detection class.
        if (boxes[: KIND_NAMES.index("bicycle_rack")] >= needed).all():
            return Scene(config, name, index, world, cameras, times, counts, tracks)
    raise ConfigError(
        f"{name}: none of {MAX_DRAWS} draws has {needed:.0f} boxes of every class; "
        f"choose another seed or more frames (frames = {config.frames}, range_m = {config.range_m})"
    )

"""Writes the files of one scene: pictures, point clouds, map."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from synthetic_nuscenes import annotate, tables
from synthetic_nuscenes.config import SyntheticConfig
from synthetic_nuscenes.ground import draw_map_mask
from synthetic_nuscenes.painter import Painter
from synthetic_nuscenes.scene import Scene, build_scene
from synthetic_nuscenes.scene_tables import data_file, scene_tables
from synthetic_nuscenes.scenery import make_scenery


def _write_image(path: Path, image: np.ndarray, options: list[int]) -> None:
    done, data = cv2.imencode(path.suffix, image, options)
    if not done:
        raise RuntimeError(f"{path}: OpenCV could not encode the picture")
    path.write_bytes(data.tobytes())


def write_pictures(scene: Scene, root: Path) -> np.ndarray:
    """Paints and writes all pictures of a scene.

    Objects are where they are at the sample's time, each camera where the ego car is at the
    camera's own time: the devkit's projection of moving boxes is then exact.

    Returns:
        (frames, n) visibility tokens.
    """
    rng = np.random.default_rng([scene.config.seed, scene.index, 1 << 20])
    painter = Painter(make_scenery(rng, scene.world, scene.config.range_m))
    count = len(scene.world.actors)
    quality = [cv2.IMWRITE_JPEG_QUALITY, scene.config.jpeg_quality]
    visibility = np.full((scene.config.frames, count), "1", dtype="<U1")
    for frame, time in enumerate(scene.times_s):
        objects = scene.objects(frame)
        visible, own = np.zeros(count), np.zeros(count)
        for camera in scene.cameras:
            ego_xy, ego_yaw = scene.world.ego_pose(float(time) + camera.delay_us / 1e6)
            picture = painter.paint(camera.placed(ego_xy, ego_yaw), objects)
            visible += picture.visible_px
            own += picture.own_px
            stamp = scene.timestamp_us(frame) + camera.delay_us
            target = root / data_file(scene, camera.name, stamp)
            _write_image(target, picture.image, quality)
        for actor in np.flatnonzero(own):
            visibility[frame, actor] = annotate.visibility_token(visible[actor], own[actor])
    return visibility


def write_lidar(scene: Scene, root: Path) -> None:
    """Writes the point cloud of every sample."""
    for frame, time in enumerate(scene.times_s):
        sweep = annotate.scan_frame(scene.world, float(time), scene.config.range_m, True)
        name = data_file(scene, tables.LIDAR_CHANNEL, scene.timestamp_us(frame))
        (root / name).write_bytes(sweep.points.tobytes())


def render_scene(
    config: SyntheticConfig, name: str, index: int, root: Path
) -> dict[str, list[tables.Row]]:
    """Makes one scene.

    Args:
        config: of the data set.
        name: scene name.
        index: number of the scene in the data set.
        root: data root; the folders of the sensors exist.

    Returns:
        The scene's table rows. They are the sign that all its files are written.
    """
    scene = build_scene(config, name, index)
    visibility = write_pictures(scene, root)
    if config.lidar_files:
        write_lidar(scene, root)
    mask = draw_map_mask(scene.world, config.range_m)
    _write_image(root / f"maps/{name}.png", mask, [])
    return scene_tables(scene, visibility)

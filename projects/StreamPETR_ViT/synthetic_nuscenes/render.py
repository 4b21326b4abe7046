"""Writes the files of one scene: pictures, point clouds, map."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from synthetic_nuscenes import annotate
from synthetic_nuscenes.config import SyntheticConfig
from synthetic_nuscenes.files import write_bytes
from synthetic_nuscenes.ground import draw_map_mask
from synthetic_nuscenes.painter import Painter
from synthetic_nuscenes.rig import LIDAR_CHANNEL
from synthetic_nuscenes.scene import Scene, build_scene
from synthetic_nuscenes.scene_tables import data_file, scene_tables
from synthetic_nuscenes.scenery import make_scenery
from synthetic_nuscenes.tables import Row


def _write_image(path: Path, image: np.ndarray, options: list[int]) -> None:
    done, data = cv2.imencode(path.suffix, image, options)
    if not done:
        raise RuntimeError(f"{path}: OpenCV could not encode the picture")
    write_bytes(path, data.tobytes())


def write_pictures(scene: Scene, root: Path) -> tuple[np.ndarray, np.ndarray]:
    """Paints and writes all pictures of a scene.

    Returns:
        Pixels that show each actor, and pixels that each would cover alone: (frames, n) float64,
        sums over the cameras at half size.
    """
    rng = np.random.default_rng([scene.config.seed, scene.index, 1 << 20])
    painter = Painter(make_scenery(rng, scene.world, scene.config.range_m))
    quality = [cv2.IMWRITE_JPEG_QUALITY, scene.config.jpeg_quality]
    visible_px, own_px = np.zeros((2, scene.config.frames, len(scene.world.actors)))
    for frame, time in enumerate(scene.times_s):
        objects = scene.objects(frame)
        for camera in scene.cameras:
            # Objects stay where they are at the sample's time, the camera is where the ego car is
            # at its own time: the devkit's projection of moving boxes is then exact.
            ego_xy, ego_yaw = scene.world.ego_pose(float(time) + camera.delay_us / 1e6)
            picture = painter.paint(camera.placed(ego_xy, ego_yaw), objects)
            visible_px[frame] += picture.visible_px
            own_px[frame] += picture.own_px
            stamp = scene.timestamp_us(frame) + camera.delay_us
            target = root / data_file(scene, camera.name, stamp)
            _write_image(target, picture.image, quality)
    return visible_px, own_px


def write_lidar(scene: Scene, root: Path) -> None:
    """Writes the point cloud of every sample."""
    for frame, time in enumerate(scene.times_s):
        sweep = annotate.scan_frame(scene.world, float(time), scene.config.range_m, True)
        name = data_file(scene, LIDAR_CHANNEL, scene.timestamp_us(frame))
        write_bytes(root / name, sweep.points.tobytes())


def render_scene(
    config: SyntheticConfig, name: str, index: int, root: Path
) -> dict[str, list[Row]]:
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
    visible_px, own_px = write_pictures(scene, root)
    if not config.lidar:
        scene = scene.seen_by_cameras(visible_px)
    if config.lidar_files:
        write_lidar(scene, root)
    mask = draw_map_mask(scene.world, config.range_m)
    _write_image(root / f"maps/{name}.png", mask, [])
    return scene_tables(scene, annotate.visibility_tokens(visible_px, own_px))

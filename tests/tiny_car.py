"""A car with random pictures that drives along x, for tests of what takes moments."""

from __future__ import annotations

import zlib
from typing import Any

import numpy as np
from scipy.spatial.transform import Rotation
from tiny_detector import HEIGHT, WIDTH, make_detector

from streampetr_vit.data.nuscenes.spec import NUSCENES
from streampetr_vit.data.transforms import ImageAugmentation
from streampetr_vit.inference import Predictor
from streampetr_vit.inference.loading import LoadedDetector
from streampetr_vit.modeling.detector import StreamPETR
from streampetr_vit.structures import Camera, Moment, Pose, Rig

# Of nuScenes' lidar: x to the right, y forward.
REFERENCE = Pose(np.array([0.94, 0.0, 1.84]), np.array([0.7071068, 0.0, 0.0, -0.7071068]))
DIRECTIONS = {"front": 0, "left": 90, "rear": 180, "right": -90}
_AXES = np.array([[0, 0, 1], [-1, 0, 0], [0, -1, 0]])  # a camera that looks forward -> vehicle


def make_camera(name: str, degrees: float, size: tuple[int, int] = (WIDTH, HEIGHT)) -> Camera:
    """A camera that looks `degrees` left of forward, with pictures of (width, height)."""
    width, height = size
    pose = np.eye(4)
    pose[:3, :3] = Rotation.from_euler("z", degrees, degrees=True).as_matrix() @ _AXES
    pose[:3, 3] = (1.0, 0.0, 1.5)
    intrinsics = [[0.8 * width, 0, width / 2], [0, 0.8 * width, height / 2], [0, 0, 1]]
    return Camera(name, width, height, np.array(intrinsics), Pose.of_matrix(pose))


def make_rig(**sizes: tuple[int, int]) -> Rig:
    """Four cameras, with pictures of some (width, height)."""
    return Rig([make_camera(n, a, sizes.get(n, (WIDTH, HEIGHT))) for n, a in DIRECTIONS.items()])


RIG = make_rig()


def make_moment(time_s: float, rig: Rig = RIG, seed: int = 0, **changes: Any) -> Moment:
    """The moment of a time; the same arguments give the same one. `changes` replace attributes."""
    rng = np.random.default_rng(zlib.crc32(f"{time_s:.3f} {seed}".encode()))
    pictures = {
        camera.name: rng.integers(0, 256, (camera.height, camera.width, 3), np.uint8)
        for camera in rig.cameras
    }
    values = dict(
        pictures=pictures,
        rig=rig,
        vehicle_to_world=Pose(np.array([600 + 4.0 * time_s, 10, 0.5]), np.array([1.0, 0, 0, 0])),
        timestamp_s=1.5e9 + time_s,
    )
    return Moment(**(values | changes))


def make_predictor(
    detector: StreamPETR | None = None, memory: bool = True, **options: Any
) -> Predictor:
    """A predictor with a tiny detector, trained, so to say, at 2 Hz."""
    loaded = LoadedDetector(
        detector=detector or make_detector().eval(),
        image_aug=ImageAugmentation((HEIGHT, WIDTH), (1.0, 1.0)),
        spec=NUSCENES,
        reference_to_vehicle=REFERENCE,
        frame_period_s=0.5,
        precision="float32",
        memory=memory,
        weights="",
        identity="",
    )
    return Predictor(loaded, **options)

"""The matrices of one frame, before and after augmentation.

Shape letters: N cameras, H W height and width of the picture that the network sees.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from streampetr_vit.data.nuscenes.records import FrameRecord
from streampetr_vit.data.transforms import ImageDraw, SceneDraw
from streampetr_vit.structures import Pose, invert_rigid


@dataclass(frozen=True)
class FrameGeometry:
    """Poses and calibration of one frame."""

    lidar_to_global: Tensor  # (4, 4) float64
    global_to_lidar: Tensor  # (4, 4) float64
    lidar_to_camera: Tensor  # (N, 4, 4) float32, as calibrated; no augmentation changes it
    intrinsics: Tensor  # (N, 4, 4) float64, the 3x3 camera matrix in the upper left
    lidar_to_image: Tensor  # (N, 4, 4) float64

    @staticmethod
    def of_record(record: FrameRecord) -> FrameGeometry:
        """The geometry of a frame as it was recorded."""
        return FrameGeometry.of(
            record.lidar_to_ego,
            record.ego_to_global,
            record.camera_to_lidar,
            record.camera_intrinsics,
        )

    @staticmethod
    def of(
        lidar_to_ego: Pose,
        ego_to_global: Pose,
        camera_to_lidar: np.ndarray,
        camera_intrinsics: np.ndarray,
    ) -> FrameGeometry:
        """The geometry of stored pictures.

        Args:
            lidar_to_ego: pose on the vehicle of the lidar, or of the frame that stands for it.
            ego_to_global: pose of the vehicle at the lidar's time.
            camera_to_lidar: (N, 4, 4) float64, with the car's motion between their times.
            camera_intrinsics: (N, 3, 3) float64, in pixels of the stored picture.
        """
        # Float64 to the end. The released weights were trained with float32, which at 2.5 km from
        # the map's origin rounds positions by up to 0.3 mm: noise, nothing that they could learn.
        lidar_to_global = torch.from_numpy(ego_to_global.matrix() @ lidar_to_ego.matrix())
        # Inverted before rounding: torch.tensor copies out of the read-only mapped file.
        lidar_to_camera = invert_rigid(torch.tensor(camera_to_lidar)).float()
        # (N, 3, 3) into the upper left of (N, 4, 4)
        intrinsics = torch.eye(4, dtype=torch.float64).repeat(len(lidar_to_camera), 1, 1)
        intrinsics[:, :3, :3] = torch.tensor(camera_intrinsics)
        return FrameGeometry(
            lidar_to_global=lidar_to_global,
            global_to_lidar=invert_rigid(lidar_to_global),
            lidar_to_camera=lidar_to_camera,
            intrinsics=intrinsics,
            lidar_to_image=intrinsics @ lidar_to_camera.double(),
        )

    def matrices(self) -> dict[str, Tensor]:
        """The fields of a `Sample` of the same names."""
        return {
            # Products were made in float64; the network takes float32.
            "intrinsics": self.intrinsics.float(),
            "lidar_to_camera": self.lidar_to_camera,
            "lidar_to_image": self.lidar_to_image.float(),
            "lidar_to_global": self.lidar_to_global,
            "global_to_lidar": self.global_to_lidar,
        }

    def with_image_draws(self, draws: Sequence[ImageDraw]) -> FrameGeometry:
        """The geometry of the resized, cropped and flipped pictures, a draw for each of them."""
        # (3, 3) each, float32 -> (N, 3, 3) float64
        moves = torch.from_numpy(np.stack([draw.matrix() for draw in draws])).double()
        intrinsics = self.intrinsics.clone()
        intrinsics[:, :3, :3] = moves @ intrinsics[:, :3, :3]
        lidar_to_image = intrinsics @ self.lidar_to_camera.double()
        return replace(self, intrinsics=intrinsics, lidar_to_image=lidar_to_image)

    def with_scene_draw(self, draw: SceneDraw) -> FrameGeometry:
        """The geometry after the lidar frame was rotated, scaled and moved."""
        forward = torch.from_numpy(draw.matrix())
        backward = torch.from_numpy(np.linalg.inv(draw.matrix()))
        return replace(
            self,  # Quirk: `lidar_to_camera` stays as calibrated.
            lidar_to_image=self.lidar_to_image @ backward,
            # The poses carry the draw: what a memory keeps in the global frame stays where it is,
            # over frames with different draws.
            lidar_to_global=self.lidar_to_global.double() @ backward,
            global_to_lidar=forward @ self.global_to_lidar.double(),
        )

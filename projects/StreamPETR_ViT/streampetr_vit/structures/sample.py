"""One frame of one stream, as the mapper makes it and as training and evaluation read it.

Shape letters: N cameras, H W image height and width in pixels, n objects.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import MISSING, dataclass, fields
from typing import Any

from torch import Tensor

from streampetr_vit.errors import InputError
from streampetr_vit.structures.pose import Pose


@dataclass(frozen=True)
class Boxes2D:
    """Objects as they appear in one picture: the targets of the auxiliary 2D head.

    Attributes:
        corners: (n, 4) float32 x1, y1, x2, y2 in pixels.
        centers: (n, 2) float32, projected 3D centres in pixels.
        labels: (n,) int64.
        depths: (n,) float32, camera z of the 3D centres in metres.
    """

    corners: Tensor
    centers: Tensor
    labels: Tensor
    depths: Tensor

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, rows: Tensor) -> Boxes2D:
        return Boxes2D(self.corners[rows], self.centers[rows], self.labels[rows], self.depths[rows])


@dataclass(frozen=True)
class Sample:
    """One frame of one stream, its tensors on the CPU; `sample_checks` tells what cannot be one.

    Attributes:
        images: (N, 3, H, W) uint8 RGB, or float32 already normalised.
        intrinsics, lidar_to_camera, lidar_to_image: (N, 4, 4) float32 or float64, see `CameraRig`.
        lidar_to_global, global_to_lidar: (4, 4) float64, see `Frame`; float32 will do where the
            global frame begins within some kilometres.
        timestamp_s: () float64, seconds since the epoch or since any moment.
        continues_stream: () bool.
        scene_token, sample_token, scene_name: of the tables.
        image_paths: N absolute paths.
        lidar_to_ego, ego_to_global: as recorded, without augmentation.
        gt_boxes: (n, 9) float32 in the lidar frame; None without ground truth.
        gt_labels: (n,) int64, index into the classes of the data set.
        boxes2d: N targets of the 2D head, pixels of `images`; None without.
        bad_images: one text for each picture that was replaced by black.
    """

    images: Tensor
    intrinsics: Tensor
    lidar_to_camera: Tensor
    lidar_to_image: Tensor
    lidar_to_global: Tensor
    global_to_lidar: Tensor
    timestamp_s: Tensor
    continues_stream: Tensor  # training reads it; in inference a stream compares scenes
    scene_token: str = ""
    sample_token: str = ""
    scene_name: str = ""
    image_paths: Sequence[str] = ()
    lidar_to_ego: Pose | None = None
    ego_to_global: Pose | None = None
    gt_boxes: Tensor | None = None
    gt_labels: Tensor | None = None
    boxes2d: Sequence[Boxes2D] | None = None
    bad_images: Sequence[str] = ()

    @staticmethod
    def of(value: Sample | Mapping[str, Any]) -> Sample:
        """A sample from detectron2's form of it, a dict with the names above as keys.

        Raises:
            InputError: a key that has no default is missing, or it is no dict at all.
        """
        if isinstance(value, Sample):
            return value
        if not isinstance(value, Mapping):
            raise InputError(f"give one Sample or dict per stream, not {type(value).__name__}")
        missing = [f.name for f in fields(Sample) if f.default is MISSING and f.name not in value]
        if missing:
            raise InputError(f"a sample needs {', '.join(missing)}; it has {', '.join(value)}")
        # Other keys are passed over: loaders of other projects add their own.
        return Sample(**{f.name: value[f.name] for f in fields(Sample) if f.name in value})

    def as_dict(self) -> dict[str, Any]:
        """The inverse of `of`. Fields that are None are left out."""
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        return {name: value for name, value in values.items() if value is not None}

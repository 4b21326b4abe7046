"""One record -> one sample: pictures, matrices and boxes as the detector takes them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from streampetr_vit.data.annotations import boxes_of_record, filter_by_class, filter_by_range
from streampetr_vit.data.at_work import begin_picture
from streampetr_vit.data.boxes2d import transform_boxes2d
from streampetr_vit.data.frame_geometry import FrameGeometry
from streampetr_vit.data.image_io import BadImageError, read_image
from streampetr_vit.data.nuscenes.records import FrameRecord
from streampetr_vit.data.projected_boxes import boxes2d_of_record
from streampetr_vit.data.transforms import (
    ImageAugmentation,
    ImageDraw,
    SceneAugmentation,
    SceneDraw,
)
from streampetr_vit.errors import InputError
from streampetr_vit.structures import Boxes2D, Sample, rotate_scale_translate_boxes


@dataclass(kw_only=True, eq=False)
class NuScenesMapper:
    """Maps a `FrameRecord` to a `Sample`. Normalisation is the detector's, on its device.

    Attributes:
        training: random draws instead of the fixed one, and boxes filtered by `point_cloud_range`.
        image_aug: how pictures reach the input size.
        scene_aug: random change of the lidar frame; training only. None for none.
        point_cloud_range: (x_min, y_min, z_min, x_max, y_max, z_max) in metres.
        boxes2d: deliver the targets of an auxiliary 2D head; training only. They are all objects
            of a class that a picture shows, whatever their range and number of sensor points, but
            those that nearer ones hide; from far to near.
        class_names_2d: order of the labels in `boxes2d`; None for that of the data set. Quirk: the
            2D heads of released checkpoints learned `data.nuscenes.spec.CONVERTER_CLASS_NAMES`;
            give that to train such a head further.
        use_valid_flag: leave out boxes without a lidar or radar point.
        on_bad_image: "raise" ends the run with the sample's token; "count" delivers black pixels
            for that camera and says so in `bad_images`.
        cache_images: keep the transformed pictures in memory (pictures x 3 H W bytes in each
            worker process). Only for fixed transforms: no range of scales and no flips.

    Raises:
        InputError: an option has a value that is not allowed.
    """

    training: bool
    image_aug: ImageAugmentation
    scene_aug: SceneAugmentation | None = None
    point_cloud_range: Sequence[float] = (-51.2, -51.2, -5.0, 51.2, 51.2, 3.0)
    boxes2d: bool = False
    class_names_2d: Sequence[str] | None = None
    use_valid_flag: bool = True
    on_bad_image: str = "raise"
    cache_images: bool = False

    def __post_init__(self) -> None:
        if self.on_bad_image not in ("raise", "count"):
            raise InputError(f'on_bad_image must be "raise" or "count", not {self.on_bad_image!r}')
        self.point_cloud_range = tuple(self.point_cloud_range)  # a config file yields lists
        if len(self.point_cloud_range) != 6:
            raise InputError(f"point_cloud_range must be 6 numbers, not {self.point_cloud_range}")
        if self.class_names_2d is not None:
            self.class_names_2d = tuple(self.class_names_2d)
        if self.cache_images and self.training and not self.image_aug.is_fixed:
            raise InputError(
                "cache_images needs a fixed image transform: set image_aug.resize_range to one "
                f"scale and flip_probability to 0 (they are {self.image_aug.resize_range} and "
                f"{self.image_aug.flip_probability}), or cache_images to False"
            )
        if self.boxes2d and not self.training:
            raise InputError(
                "boxes2d=True needs training=True: they are training targets; leave boxes2d out of "
                "the evaluation mapper"
            )
        # By file; each worker process has its own.
        self._cache: dict[str, tuple[ImageDraw, np.ndarray]] = {}

    def __call__(
        self,
        record: FrameRecord,
        *,
        continues_stream: bool = False,
        rng: np.random.Generator | None = None,
    ) -> Sample:
        """Maps one frame.

        Args:
            record: the frame.
            continues_stream: whether the frame before it, in this stream, was its predecessor.
            rng: source of the draws; needed in training.

        Raises:
            BadImageError: a picture is broken, and `on_bad_image` is "raise".
        """
        # One order for all settings, pictures before the scene: a seed means the same draws.
        draws, scene = self._draw(record, rng)
        images, bad_images = self._images(record, draws)
        geometry = FrameGeometry.of_record(record).with_image_draws(draws)
        boxes, labels = self._boxes(record)  # (n, 9), (n,)
        if scene is not None:
            geometry = geometry.with_scene_draw(scene)
            boxes = rotate_scale_translate_boxes(
                boxes, scene.yaw_rad, scene.scale, torch.tensor(scene.translation_m)
            )
        annotated = record.has_annotations
        return Sample(
            images=images,
            **geometry.matrices(),
            timestamp_s=torch.tensor(record.timestamp_us / 1e6, dtype=torch.float64),
            continues_stream=torch.tensor(continues_stream),
            scene_token=record.scene_token,
            sample_token=record.token,
            scene_name=record.scene_name,
            image_paths=[str(record.picture(camera)) for camera in range(len(draws))],
            lidar_to_ego=record.lidar_to_ego,
            ego_to_global=record.ego_to_global,
            gt_boxes=boxes if annotated else None,
            gt_labels=labels if annotated else None,
            boxes2d=self._boxes2d(record, draws) if annotated and self.boxes2d else None,
            bad_images=bad_images,
        )

    def _draw(
        self, record: FrameRecord, rng: np.random.Generator | None
    ) -> tuple[list[ImageDraw], SceneDraw | None]:
        """N draws of the pictures, and the scene's."""
        sizes = [(width, height) for width, height in record.image_sizes.tolist()]  # (N, 2)
        if not self.training:
            return [self.image_aug.fixed(size) for size in sizes], None
        if rng is None:
            raise ValueError("a training mapper needs rng, the source of its random draws")
        draws = self.image_aug.draw(sizes, rng)
        return draws, None if self.scene_aug is None else self.scene_aug.draw(rng)

    def _boxes(self, record: FrameRecord) -> tuple[Tensor, Tensor]:
        """(n, 9) float32 boxes and (n,) int64 labels, before augmentation."""
        boxes, labels = boxes_of_record(record, self.use_valid_flag)
        if self.training:  # in evaluation boxes are for pictures only
            boxes, labels = filter_by_range(boxes, labels, self.point_cloud_range)
        return filter_by_class(boxes, labels)

    def _boxes2d(self, record: FrameRecord, draws: Sequence[ImageDraw]) -> list[Boxes2D]:
        """N targets."""
        # From the record's boxes: the scene's draw does not move what the pictures show.
        stored = boxes2d_of_record(record, self.class_names_2d)
        return [transform_boxes2d(*pair) for pair in zip(stored, draws, strict=True)]

    def _images(self, record: FrameRecord, draws: Sequence[ImageDraw]) -> tuple[Tensor, list[str]]:
        """(N, 3, H, W) uint8 RGB and the texts of `bad_images`."""
        # Black where a picture is broken. Its frame is neither left out nor exchanged: the temporal
        # memory of the stream would silently skip a step.
        images = np.zeros((len(draws), 3, *self.image_aug.final_size), np.uint8)
        bad = []
        for camera, draw in enumerate(draws):
            begin_picture(camera)
            try:
                self._image(record, camera, draw, images[camera])
            except BadImageError as error:
                message = f"sample {record.token}: {error}"
                if self.on_bad_image == "raise":
                    part = "train" if self.training else "test"
                    raise BadImageError(
                        f"{message}. Restore the file, or set "
                        f"dataloader.{part}.mapper.on_bad_image=count to go on with black pixels "
                        "and a log line"
                    ) from error
                bad.append(message)
        return torch.from_numpy(images), bad

    def _image(self, record: FrameRecord, camera: int, draw: ImageDraw, rgb: np.ndarray) -> None:
        """Writes a picture to (3, H, W) uint8."""
        file = str(record.picture(camera))
        known = self._cache.get(file)
        # Whole draws: where a picture is wider than the input, a place of the crop is drawn.
        if known is not None and known[0] == draw:
            rgb[:] = known[1]
            return
        width, height = record.image_sizes[camera].tolist()
        draw.write(read_image(Path(file), (width, height)), rgb[::-1])  # BGR
        if self.cache_images:
            self._cache[file] = (draw, rgb.copy())  # the caller may write into its sample

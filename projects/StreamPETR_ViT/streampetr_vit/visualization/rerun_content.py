"""What a recording for rerun's viewer holds.

Entities: /world, whose origin is where the vehicle stands in the first moment; /world/vehicle,
which moves in it; the cameras, boxes and velocities below the vehicle; the way that it went. Where
a tracker was at work, boxes have the colours and labels of their ids, and /world/trails is where
they were, on the ground.
Needs the package rerun, whose own value types (Quaternion, ClassId) do not work with numpy 1: it
gets plain arrays.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import pyarrow as pa
import rerun as rr

from streampetr_vit.structures import Moment, Objects, Pose
from streampetr_vit.structures.rigid import as_pose
from streampetr_vit.structures.tracks import NO_ID
from streampetr_vit.visualization.bird_eye_view import LEAST_SPEED_MPS, VEHICLE_OUTLINE_M
from streampetr_vit.visualization.camera_shots import CameraShot, camera_shots
from streampetr_vit.visualization.colors import EGO_COLOR, class_colors, id_color
from streampetr_vit.visualization.encoding import encode_jpeg
from streampetr_vit.visualization.rerun_layout import (
    OBJECTS,
    TRAILS,
    TRAJECTORY,
    VEHICLE,
    VELOCITIES,
    WORLD,
    camera_entity,
    layout,
)
from streampetr_vit.visualization.track_marks import ground_trails, track_text

FRAME, TIME = "frame", "time"  # timelines
IMAGE_PLANE_M = 1.5  # before the camera, where the 3D view shows its picture
EARLIEST_EPOCH_S = 1e8  # 1973: smaller times are counted from the beginning of a drive
_LINE_M = 0.05


class Way:
    """Where the vehicle was, in at most so many places, however long it drives.

    Args:
        most: number of places.
    """

    def __init__(self, most: int = 10_000) -> None:
        self._most, self._step_m = most, 0.5
        self._places: list[np.ndarray] = []

    def add(self, place: np.ndarray) -> None:
        """Adds a place (3,), if it is far enough from the last one."""
        if self._places and np.linalg.norm(place - self._places[-1]) < self._step_m:
            return
        self._places.append(place)
        if len(self._places) > self._most:
            self._places, self._step_m = self._places[::2], 2 * self._step_m

    def line(self) -> np.ndarray:
        """The places (k, 3), in their order."""
        return np.reshape(self._places, (-1, 3))


class RerunContent:
    """Logs moments to a file.

    Args:
        path: of the file.
        application: name of the application.
        score_threshold: weaker objects are left out.
        picture_width: wider pictures are made smaller.
        moment, objects: the first ones, for what does not change: names, colours, layout.
    """

    def __init__(
        self,
        path: Path,
        application: str,
        score_threshold: float,
        picture_width: int,
        moment: Moment,
        objects: Objects,
    ) -> None:
        self._score_threshold, self._picture_width = score_threshold, picture_width
        pose = as_pose(moment.vehicle_to_world, "vehicle_to_world")
        # Viewers have float32, which cannot tell the metres of a map from each other.
        self._origin_m = pose.translation_m.copy()
        self._with_dates = moment.timestamp_s >= EARLIEST_EPOCH_S
        self._way, self._has_trails = Way(), False
        views, classes = layout(moment.rig), _classes(objects.spec.class_names)
        # Last: one that is dropped without `end` may block the next one for ever.
        self._stream = rr.RecordingStream(application)
        self._stream.save(path, views)
        self._stream.send_recording_name(moment.scene or "drive")
        self._log_static(WORLD, rr.ViewCoordinates.RIGHT_HAND_Z_UP)
        self._log_static(WORLD, classes)
        self._log_static(WORLD, rr.AnyValues(origin_m=self._origin_m))
        self._log_static(f"{VEHICLE}/outline", _outline())

    def log(self, number: int, moment: Moment, objects: Objects) -> None:
        """Logs a moment, and waits until it is on its way to the file."""
        shots = camera_shots(moment)  # first: they find what is wrong
        pose = as_pose(moment.vehicle_to_world, "vehicle_to_world")
        self._set_times(number, moment.timestamp_s)
        place = pose.translation_m - self._origin_m
        self._log(VEHICLE, _transform(place, pose))
        self._way.add(place)
        for shot in shots:
            self._log_camera(shot)
        found = objects[objects.scores >= self._score_threshold]
        self._log_objects(found.to("vehicle"))
        self._log_trails(found)
        # Otherwise moments pile up in memory where the disk is slower.
        self._stream.flush(blocking=True)

    def end(self) -> None:
        """Logs the way of the vehicle, and closes the file."""
        way = self._way.line()
        self._log_static(TRAJECTORY, rr.LineStrips3D([way], colors=[EGO_COLOR], radii=_LINE_M))
        self._stream.flush(blocking=True)
        self._stream.disconnect()

    def _set_times(self, number: int, timestamp_s: float) -> None:
        self._stream.set_time(FRAME, sequence=number)
        if self._with_dates:
            self._stream.set_time(TIME, timestamp=timestamp_s)
        else:
            self._stream.set_time(TIME, duration=timestamp_s)

    def _log_camera(self, shot: CameraShot) -> None:
        camera, entity = shot.camera, camera_entity(shot.camera.name)
        scale = min(1.0, self._picture_width / camera.width)
        size = round(camera.width * scale), max(1, round(camera.height * scale))
        intrinsics = camera.intrinsics.copy()
        # Rerun counts from the edge of the first pixel, we from its centre.
        intrinsics[:2, 2] += 0.5
        resize = np.diag([size[0] / camera.width, size[1] / camera.height, 1.0])
        pinhole = rr.Pinhole(
            image_from_camera=resize @ intrinsics,
            resolution=size,
            image_plane_distance=IMAGE_PLANE_M,
        )
        pose = Pose.of_matrix(shot.camera_to_vehicle)
        self._log(entity, _transform(pose.translation_m, pose), pinhole)
        if shot.image is None:
            self._log(f"{entity}/picture", rr.Clear(recursive=False))
            return
        image = shot.image
        if scale < 1:
            image = np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), np.uint8)
        picture = rr.EncodedImage(contents=encode_jpeg(image), media_type="image/jpeg")
        self._log(f"{entity}/picture", picture)

    def _log_objects(self, objects: Objects) -> None:
        """Boxes and velocities in the frame of the vehicle."""
        labels = objects.detections.labels.cpu().numpy().astype(np.uint16)
        colors = _colors(objects)
        half_yaws = objects.yaws / 2
        zeros = np.zeros_like(half_yaws)
        boxes = rr.Boxes3D(
            centers=objects.centers,
            half_sizes=objects.sizes / 2,
            quaternions=np.stack((zeros, zeros, np.sin(half_yaws), np.cos(half_yaws)), axis=1),
            class_ids=labels,
            labels=_texts(objects),
            colors=colors,
        )
        self._log(OBJECTS, boxes)
        moves = np.hypot(*objects.velocities.T) >= LEAST_SPEED_MPS  # False for NaN
        arrows = rr.Arrows3D(
            origins=objects.centers[moves],
            vectors=np.pad(objects.velocities[moves], ((0, 0), (0, 1))),  # the way of one second
            class_ids=labels[moves],
            colors=None if colors is None else colors[moves],
        )
        self._log(VELOCITIES, arrows)

    def _log_trails(self, objects: Objects) -> None:
        """Where the objects were, in the world."""
        trails = ground_trails(objects)  # (n, T, 3)
        self._has_trails |= trails is not None
        if not self._has_trails:
            return
        # A frame without a picture has no tracks. Nothing would stay where it was.
        places = np.zeros((0, 1, 3)) if trails is None else trails - self._origin_m
        lines = [line[np.isfinite(line).all(axis=1)] for line in places]
        long = [row for row, line in enumerate(lines) if len(line) > 1]
        strips = rr.LineStrips3D(
            [lines[row] for row in long],
            colors=[id_color(int(objects.ids[row])) for row in long],
            radii=_LINE_M,
        )
        self._log(TRAILS, strips)

    def _log(self, entity: str, *what: rr.AsComponents) -> None:
        self._stream.log(entity, what[0], *what[1:], strict=True)

    def _log_static(self, entity: str, what: rr.AsComponents) -> None:
        self._stream.log(entity, what, static=True, strict=True)


def _transform(translation_m: np.ndarray, pose: Pose) -> rr.Transform3D:
    x_y_z_w = pose.rotation().as_quat()
    return rr.Transform3D(translation=translation_m, quaternion=x_y_z_w)


def _classes(names: Sequence[str]) -> rr.AnnotationContext:
    """Names and colours of the classes, by their labels."""
    entries = []
    for label, (name, color) in enumerate(class_colors(names).items()):
        info = {"id": label, "label": name, "color": int.from_bytes((*color, 255), "big")}
        described = {"info": info, "keypoint_annotations": [], "keypoint_connections": []}
        entries.append({"class_id": label, "class_description": described})
    kind = rr.components.AnnotationContextBatch([]).as_arrow_array().type
    return rr.AnnotationContext(pa.array([entries], kind))


def _texts(objects: Objects) -> list[str]:
    """Class and score of each object, behind id and age where it has an id."""
    columns = zip(objects.names, objects.scores, objects.ids, objects.ages_s, strict=True)
    return [
        f"{'' if track == NO_ID else track_text(int(track), age) + ' '}"
        f"{name.replace('_', ' ')} {score:.2f}"
        for name, score, track, age in columns
    ]


def _colors(objects: Objects) -> np.ndarray | None:
    """(n, 3) uint8, by ids, or by classes where there is none; None without a tracker."""
    if objects.tracks is None:
        return None
    of_class = class_colors(objects.spec.class_names)
    colors = [
        of_class[name] if track == NO_ID else id_color(int(track))
        for name, track in zip(objects.names, objects.ids, strict=True)
    ]
    return np.array(colors, np.uint8).reshape(-1, 3)


def _outline() -> rr.LineStrips3D:
    """The vehicle on the ground."""
    right, ahead = VEHICLE_OUTLINE_M[[*range(len(VEHICLE_OUTLINE_M)), 0]].T
    line = np.stack((ahead, -right, np.zeros_like(right)), axis=1)
    return rr.LineStrips3D([line], colors=[EGO_COLOR], radii=_LINE_M)

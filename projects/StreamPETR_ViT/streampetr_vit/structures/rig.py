"""A car's cameras as they are built in, and the file that describes them."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from streampetr_vit.errors import InputError
from streampetr_vit.structures.camera import Camera, Distortion, on_vehicle
from streampetr_vit.structures.pose import Pose
from streampetr_vit.structures.rig_file import (
    check_keys,
    plain_pose,
    pose_of,
    read_plain,
    write_plain,
)
from streampetr_vit.texts import name_list, nearest, shown

__all__ = ["Camera", "Distortion", "Rig"]


@dataclass(frozen=True, eq=False)
class Rig:
    """The cameras of a car.

    Attributes:
        cameras: at least one, each with its own name.
        reference_to_vehicle: pose on the vehicle of the frame that the network works in; None
            takes that of the network's training, which is stored with its checkpoint.
    """

    cameras: Sequence[Camera]
    reference_to_vehicle: Pose | None = None

    def __post_init__(self) -> None:
        """Checks the values.

        Raises:
            InputError: names the value and the fix.
        """
        if not isinstance(self.cameras, Sequence) or not all(
            isinstance(camera, Camera) for camera in self.cameras
        ):
            raise InputError(f"cameras is {shown(self.cameras)}: give a list of Camera")
        object.__setattr__(self, "cameras", tuple(self.cameras))
        if not self.cameras:
            raise InputError("the rig has no camera: give at least one")
        for name in self.names:
            if self.names.count(name) > 1:
                raise InputError(f"two cameras have the name {name}: give each its own")
        if self.reference_to_vehicle is not None:
            pose = on_vehicle(self.reference_to_vehicle, "reference_to_vehicle")
            object.__setattr__(self, "reference_to_vehicle", pose)

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the cameras, in their order."""
        return tuple(camera.name for camera in self.cameras)

    def camera(self, name: str) -> Camera:
        """The camera of a name.

        Raises:
            InputError: the rig has none of that name.
        """
        for camera in self.cameras:
            if camera.name == name:
                return camera
        near = nearest(str(name), self.names)
        fix = f"did you mean {near[0]}?" if near else f"it has {name_list(self.names)}"
        raise InputError(f"the rig has no camera {shown(name)}: {fix}")

    @staticmethod
    def load(path: str | os.PathLike[str]) -> Rig:
        """The rig that a YAML or JSON file describes, see docs/own_cameras.md.

        Raises:
            MissingFileError: the file cannot be read.
            InputError: names the file, the camera, the value and the fix.
        """
        values = read_plain(path)
        try:
            return Rig.of(values)
        except InputError as error:
            raise InputError(f"{os.fspath(path)}: {error}") from error

    @staticmethod
    def of(values: Mapping[str, Any]) -> Rig:
        """From plain values: the content of a file.

        Raises:
            InputError: names the camera, the value and the fix.
        """
        check_keys(values, ("cameras",), ("reference_to_vehicle",), "the rig")
        pose = values.get("reference_to_vehicle")
        return Rig(
            cameras=[Camera.of(name, rest) for name, rest in _named(values["cameras"])],
            reference_to_vehicle=None if pose is None else pose_of(pose, "reference_to_vehicle"),
        )

    def plain(self) -> dict[str, Any]:
        """What `of` reads: texts, numbers, lists and dicts."""
        values: dict[str, Any] = {"cameras": {c.name: c.plain() for c in self.cameras}}
        if self.reference_to_vehicle is not None:
            values["reference_to_vehicle"] = plain_pose(self.reference_to_vehicle)
        return values

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes a file that `load` reads: JSON where its name ends with .json, else YAML.

        Raises:
            OutputError: it cannot be written.
        """
        write_plain(path, self.plain())


def _named(cameras: Any) -> list[tuple[Any, Any]]:
    """Names and values of cameras, which a mapping has as keys and a list in the values."""
    if isinstance(cameras, Mapping):
        return list(cameras.items())
    if not isinstance(cameras, (list, tuple)):
        raise InputError(f"cameras is {shown(cameras)}: give each camera as name: values")
    named = []
    for number, values in enumerate(cameras):
        if not isinstance(values, Mapping) or "name" not in values:
            raise InputError(f"camera {number} of the list is {shown(values)}: give it a name")
        named.append((values["name"], {k: v for k, v in values.items() if k != "name"}))
    return named

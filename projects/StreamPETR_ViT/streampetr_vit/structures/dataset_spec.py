"""What a data set is made of: its classes, its cameras, and where its boxes are measured from."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

from streampetr_vit.errors import InputError
from streampetr_vit.texts import shown


@dataclass(frozen=True)
class ObjectClass:
    """One class of objects.

    Attributes:
        name: what reports, pictures and result files call it.
        categories: of the tables, whose objects are of this class.
        range_m: results farther from the vehicle are left out of result files.
        attributes: two names, for moving objects and for standing objects; "" is no attribute.
        scored_as: the class of nuScenes' metric that it counts as; None for the one of the same
            name, or for none where there is no such class.
    """

    name: str
    categories: Sequence[str]
    range_m: float = 50.0
    attributes: Sequence[str] = ("", "")
    scored_as: str | None = None

    def __post_init__(self) -> None:
        _check_texts("dataset_spec.classes: name", [self.name])
        for name in ("categories", "attributes"):
            value = getattr(self, name)
            if isinstance(value, str) or not isinstance(value, Sequence):
                raise InputError(f"class {self.name!r}: {name} must be a list, not {value!r}")
            _check_texts(f"class {self.name!r}: {name}", value)
            object.__setattr__(self, name, tuple(value))  # a config file yields lists
        if self.scored_as is not None:
            _check_texts(f"class {self.name!r}: scored_as", [self.scored_as])
        if not self.categories:
            raise InputError(f"class {self.name!r} takes no category: name at least one")
        if len(self.attributes) != 2:
            raise InputError(
                f"class {self.name!r}: attributes must be two names, of a moving object and of one "
                f"that stands, not {list(self.attributes)}"
            )
        if not _is_number(self.range_m) or not self.range_m > 0:  # refuses NaN too
            raise InputError(
                f"class {self.name!r}: range_m must be a number above 0, not {self.range_m!r}"
            )


@dataclass(frozen=True)
class DatasetSpec:
    """What a data set is made of; nuScenes is one instance (`data.nuscenes.spec.NUSCENES`).

    Attributes:
        classes: in the order of the network's class channels, and of all labels.
        cameras: channels of the tables, in the order in which the network sees them.
        lidar: channel whose frame boxes and memory live in; None where there is none. Then the
            frame is that of `lidar_to_ego`, at the time of the sample.
        lidar_to_ego: pose of that frame in the vehicle where `lidar` is None; otherwise the tables
            have it. As (x, y, z, qw, qx, qy, qz).
        moving_speed_mps: objects faster than this have the attribute of moving ones.
    """

    classes: Sequence[ObjectClass]
    cameras: Sequence[str]
    lidar: str | None = "LIDAR_TOP"
    lidar_to_ego: Sequence[float] | None = None
    moving_speed_mps: float = 0.2

    def __post_init__(self) -> None:
        for name in ("classes", "cameras"):
            value = getattr(self, name)
            # tuple() would make letters of a text.
            if isinstance(value, str) or not isinstance(value, Sequence):
                raise InputError(f"dataset_spec.{name} must be a list, not {value!r}")
        _check_texts("dataset_spec.cameras", self.cameras)
        if self.lidar is not None:
            _check_texts("dataset_spec.lidar", [self.lidar])
        if not _is_number(self.moving_speed_mps) or not self.moving_speed_mps >= 0:
            raise InputError(
                "dataset_spec.moving_speed_mps must be a number from 0 on, not "
                f"{self.moving_speed_mps!r}"
            )
        # A config file yields dicts and lists; stored as this class has them, so that equal ones
        # compare equal.
        classes = [c if isinstance(c, ObjectClass) else _class_of(c) for c in self.classes]
        object.__setattr__(self, "classes", tuple(classes))
        object.__setattr__(self, "cameras", tuple(self.cameras))
        _check_unique("dataset_spec.classes", self.class_names)
        _check_unique("dataset_spec.cameras", self.cameras)
        _check_categories_apart(self.classes)
        if self.lidar in self.cameras:
            raise InputError(f"dataset_spec: {self.lidar!r} is both lidar and one of the cameras")
        if (self.lidar is None) != (self.lidar_to_ego is not None):
            raise InputError(
                "dataset_spec: give lidar, the channel that boxes are measured from, or, for a "
                "data set without one, lidar=None and lidar_to_ego=[x,y,z,qw,qx,qy,qz], the pose "
                "of their frame in the vehicle"
            )
        if self.lidar_to_ego is not None:
            given = self.lidar_to_ego
            is_list = isinstance(given, Sequence) and all(map(_is_number, given))
            pose = tuple(float(value) for value in given) if is_list else ()
            unit = abs(math.hypot(*pose[3:]) - 1) < 1e-3  # False for NaN
            if len(pose) != 7 or not unit or not all(map(math.isfinite, pose)):
                raise InputError(
                    "dataset_spec.lidar_to_ego must be x, y, z and a unit quaternion w, x, y, z, "
                    f"not {shown(list(pose) or given)}"
                )
            object.__setattr__(self, "lidar_to_ego", pose)

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names of the classes, in their order."""
        return tuple(entry.name for entry in self.classes)

    @property
    def label_of_category(self) -> dict[str, int]:
        """Category of the tables -> label."""
        return {
            category: label
            for label, entry in enumerate(self.classes)
            for category in entry.categories
        }

    def attribute(self, label: int, speed_mps: float) -> str:
        """The attribute of an object of a speed in the global frame."""
        moving, standing = self.classes[label].attributes
        return moving if speed_mps > self.moving_speed_mps else standing

    def plain(self) -> dict[str, Any]:
        """The arguments that make this value again, as lists, dicts, texts and numbers."""
        return _with_lists(asdict(self))


def _class_of(described: Mapping[str, Any]) -> ObjectClass:
    if not isinstance(described, Mapping):
        raise InputError(
            f"dataset_spec.classes has {described!r}: each class is a dict with name and categories"
        )
    known = [f.name for f in fields(ObjectClass)]
    unknown = sorted(set(described) - set(known))
    if unknown or not {"name", "categories"} <= set(described):
        raise InputError(
            f"a class of dataset_spec.classes has {', '.join(described)}: it needs name and "
            f"categories, and may have {', '.join(known[2:])}"
        )
    return ObjectClass(**described)


def _with_lists(value: Any) -> Any:
    # A config file has no tuples.
    if isinstance(value, dict):
        return {key: _with_lists(entry) for key, entry in value.items()}
    return [_with_lists(entry) for entry in value] if isinstance(value, tuple) else value


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _check_texts(what: str, values: Sequence[Any]) -> None:
    """Names are written into tables, pictures and logs; YAML makes numbers of some."""
    for value in values:
        if not isinstance(value, str) or not value.isprintable():
            raise InputError(f"{what} has {shown(value)}; it must be a text on one line")


def _check_categories_apart(classes: Sequence[ObjectClass]) -> None:
    """One category of two classes would make the label depend on their order."""
    taken: dict[str, str] = {}
    for entry in classes:
        for category in entry.categories:
            if category in taken:
                raise InputError(
                    f"categories of dataset_spec.classes: [{category!r}] more than once, of class "
                    f"{taken[category]!r} and again of class {entry.name!r}; leave it in one"
                )
            taken[category] = entry.name


def _check_unique(what: str, names: Sequence[str]) -> None:
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice or not names:
        raise InputError(f"{what}: {f'{twice} more than once' if twice else 'there are none'}")

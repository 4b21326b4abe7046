"""Files and plain values of a rig: what YAML and JSON know, checked before it is used."""

from __future__ import annotations

import json
import math
import os
import stat
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from scipy.spatial.transform import Rotation

from streampetr_vit.errors import InputError, MissingFileError, one_line
from streampetr_vit.files import replacing
from streampetr_vit.structures.lens_checks import as_numbers, numbers
from streampetr_vit.structures.pose import Pose
from streampetr_vit.structures.rigid import as_pose
from streampetr_vit.texts import name_list, nearest, shown

_LARGEST_BYTES = 2**20  # a rig of a hundred cameras has 50,000
_POSE_KEYS = ("translation", "rotation", "roll_pitch_yaw_rad")
_POSE_FORM = (
    "a 4x4 matrix, or {translation: [x, y, z], rotation: [w, x, y, z]}, or "
    "{translation: [x, y, z], roll_pitch_yaw_rad: [r, p, y]}"
)


class _PlainLoader(yaml.SafeLoader):
    """YAML's own types; a key that is there twice, and a reference to a value, are errors."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        """A value; none that stands elsewhere in the file."""
        if self.check_event(yaml.AliasEvent):  # a few lines of them can stand for gigabytes
            event = self.peek_event()
            raise yaml.composer.ComposerError(
                problem=f"*{event.anchor} refers to another value; write that value out here",
                problem_mark=event.start_mark,
            )
        return super().compose_node(parent, index)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """A dict."""
        seen = set[str]()
        for key, _ in node.value:
            text = key.value if isinstance(key, yaml.ScalarNode) else ""
            if text in seen:
                raise yaml.constructor.ConstructorError(
                    problem=f"{text!r} is there twice; leave one out", problem_mark=key.start_mark
                )
            seen.add(text)
        return super().construct_mapping(node, deep)


def read_plain(path: str | os.PathLike[str]) -> Any:
    """The content of a YAML file, or of a JSON file where the name ends with .json.

    Raises:
        MissingFileError: it cannot be read.
        InputError: it is too large, or holds something else.
    """
    text = _text_of(Path(path))
    try:
        if Path(path).suffix.lower() == ".json":
            return json.loads(text, object_pairs_hook=_unique)
        return yaml.load(text, _PlainLoader)
    except yaml.MarkedYAMLError as error:
        line = "" if error.problem_mark is None else f", line {error.problem_mark.line + 1}"
        raise InputError(f"{path}{line}: {error.problem or error.context}") from error
    # No YAML or JSON, a number of thousands of digits, lists in lists in lists.
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise InputError(f"{path} cannot be read as plain values: {one_line(error)}") from error


def write_plain(path: str | os.PathLike[str], values: Mapping[str, Any]) -> None:
    """Writes plain values so that `read_plain` gives them back exactly.

    Raises:
        OutputError: the file cannot be written.
    """
    if Path(path).suffix.lower() == ".json":
        text = json.dumps(values, indent=2) + "\n"
    else:
        text = yaml.safe_dump(
            dict(values), sort_keys=False, default_flow_style=None, width=100, allow_unicode=True
        )
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def check_keys(
    values: Any, needed: Iterable[str], optional: Iterable[str], what: str
) -> Mapping[str, Any]:
    """The values, after a check that they are a mapping with exactly known keys.

    Raises:
        InputError: one is missing or unknown; names `what` and the nearest known key.
    """
    needed, known = tuple(needed), (*needed, *optional)
    if not isinstance(values, Mapping):
        raise InputError(f"{what} is {shown(values)}: give a mapping with {name_list(known)}")
    for key in values:
        if key not in known:
            free = [name for name in known if name not in values]
            near = nearest(key, free) if isinstance(key, str) else []
            fix = f"did you mean {near[0]}?" if near else f"it may have {name_list(known)}"
            raise InputError(f"{what} has the unknown key {shown(key)}: {fix}")
    for key in needed:
        if key not in values:
            raise InputError(f"{what} has no {key}: it needs {name_list(needed)}")
    return values


def pose_of(value: Any, what: str) -> Pose:
    """The pose that plain values say.

    Args:
        value: a 4x4 matrix, a `Pose`, or a mapping with `translation` and either `rotation`
            (w, x, y, z) or `roll_pitch_yaw_rad` (R = Rz(yaw) Ry(pitch) Rx(roll)).
        what: it is, for messages: "camera_to_vehicle of camera front".

    Raises:
        InputError: it is none; names `what`, the value and the fix.
    """
    if isinstance(value, Mapping):
        return as_pose(_pose_of_mapping(value, what), what)
    if isinstance(value, (list, tuple)):
        value = as_numbers(value, (4, 4), what, _POSE_FORM)
    elif not isinstance(value, Pose) and not hasattr(value, "__array__"):
        raise InputError(f"{what} is {shown(value)}: give {_POSE_FORM}")
    return as_pose(value, what)


def plain_pose(pose: Pose) -> dict[str, list[float]]:
    """A pose as `pose_of` reads it."""
    return {
        "translation": np.asarray(pose.translation_m, dtype=np.float64).tolist(),
        "rotation": np.asarray(pose.rotation_wxyz, dtype=np.float64).tolist(),
    }


def _pose_of_mapping(value: Mapping[str, Any], what: str) -> Pose:
    check_keys(value, ("translation",), _POSE_KEYS[1:], what)
    if len(value) != 2:
        raise InputError(
            f"{what} has {name_list(value)}: give translation, and rotation or roll_pitch_yaw_rad"
        )
    form = "[x, y, z] in metres"
    translation = as_numbers(value["translation"], (3,), f"translation of {what}", form)
    if "rotation" in value:
        form = "a unit quaternion [w, x, y, z]"
        return Pose(translation, as_numbers(value["rotation"], (4,), f"rotation of {what}", form))
    form = "[roll, pitch, yaw] in radians"
    what = f"roll_pitch_yaw_rad of {what}"
    angles = as_numbers(value["roll_pitch_yaw_rad"], (3,), what, form)
    if np.abs(angles).max() > 2 * math.pi:
        raise InputError(
            f"{what} is {numbers(angles)}, which look like degrees: multiply them by pi / 180"
        )
    x, y, z, w = Rotation.from_euler("xyz", angles).as_quat()
    return Pose(translation, np.array([w, x, y, z]))


def _text_of(path: Path) -> str:
    try:
        status = path.stat()
        # A pipe or a device would be read for ever.
        if not stat.S_ISREG(status.st_mode):
            raise InputError(f"{path} is no regular file: give a .yaml or .json file")
        if status.st_size > _LARGEST_BYTES:
            raise InputError(
                f"{path} has {status.st_size} bytes, and a rig at most {_LARGEST_BYTES}: give "
                "the file that describes the cameras"
            )
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise MissingFileError(f"{path} cannot be read: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is no UTF-8 text: write it again") from error


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"{shown(twice)} is there twice; leave one out")
    return values

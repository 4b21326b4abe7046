"""What an exported graph says of itself, in the metadata of its file."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

import numpy as np

from streampetr_vit.errors import InputError
from streampetr_vit.structures.rigid import as_pose
from streampetr_vit.texts import shown

FRAMES = ("lidar", "base_link")
PRECISIONS = ("fp32", "fp16-backbone")
_FORMAT = 1  # of what is written here; a reader refuses others


@dataclass(frozen=True)
class Description:
    """What the three graphs of one export have in common.

    Attributes:
        recipe: name of the configuration.
        weights, weights_sha256: name and checksum of the file of weights.
        detector: class of the head, "StreamPETRHead" or "RepDETR3DHead".
        classes: names, in the order of the logits.
        cameras: names, in the order of the pictures.
        image_size: height and width of the network's pictures in pixels.
        pixel_mean, pixel_std: on the 0..255 scale, in the order of `input_format`.
        input_format: "RGB" or "BGR".
        frame: of `img2lidar`, poses and boxes: "base_link" (the vehicle) or "lidar", the frame
            that the weights were trained in.
        lidar_to_base_link: 4 x 4 rows, pose of that lidar frame on the vehicle of the training.
        precision: one of `PRECISIONS`.
        center_range: x y z minimum and maximum in metres, lidar frame, of boxes that are kept.
        max_detections, score_threshold: see `box_coding.decode_padded`.
        num_queries: learned queries of a frame, before those of the memory.
        num_remembered: queries that a frame adds to the memory.
        frame_period_s: time between the frames that the memory was trained on.
        remembers: False if every frame is a stream of its own.
        program: name and version of what has written it.
    """

    recipe: str
    weights: str
    weights_sha256: str
    detector: str
    classes: tuple[str, ...]
    cameras: tuple[str, ...]
    image_size: tuple[int, int]
    pixel_mean: tuple[float, ...]
    pixel_std: tuple[float, ...]
    input_format: str
    frame: str
    lidar_to_base_link: tuple[tuple[float, ...], ...]
    precision: str
    center_range: tuple[float, ...]
    max_detections: int
    score_threshold: float | None
    num_queries: int
    num_remembered: int
    frame_period_s: float
    remembers: bool
    program: str

    def to_metadata(self) -> dict[str, str]:
        """One text for each attribute, as JSON, for the metadata of an ONNX file."""
        return {"format": str(_FORMAT)} | {
            name: json.dumps(value) for name, value in asdict(self).items()
        }

    @staticmethod
    def of_metadata(metadata: Mapping[str, str], where: str) -> Description:
        """What `to_metadata` has written.

        Args:
            where: the file, for messages.

        Raises:
            InputError: it was not written by this project, or by another version of it.
        """
        if metadata.get("format") != str(_FORMAT):
            raise InputError(
                f"{where} has no description that this version reads (format "
                f"{shown(metadata.get('format'))}, not {_FORMAT}): export it with "
                "tools/export_onnx.py"
            )
        try:
            values = {field.name: json.loads(metadata[field.name]) for field in fields(Description)}
        except (KeyError, json.JSONDecodeError) as error:
            raise InputError(
                f"{where} has a damaged description ({type(error).__name__}: {error}): export it "
                "anew with tools/export_onnx.py"
            ) from error
        said = {name: _frozen(value) for name, value in values.items()}
        _check(said, where)
        return Description(**said)

    @staticmethod
    def of_model(model: Any, where: str) -> Description:
        """That of an ONNX file which the package onnx has loaded; see `of_metadata`."""
        metadata = {entry.key: entry.value for entry in model.metadata_props}
        return Description.of_metadata(metadata, where)

    def difference(self, other: Description) -> tuple[str, Any, Any] | None:
        """Name of the first attribute that differs, its value here and there; None if none does."""
        for field in fields(self):
            here, there = getattr(self, field.name), getattr(other, field.name)
            if here != there:
                return field.name, here, there
        return None

    def lidar_to_graph_matrix(self) -> np.ndarray:
        """(4, 4) float64, from the lidar frame of the weights to the frame of the graphs."""
        return np.eye(4) if self.frame == "lidar" else self.lidar_to_base_link_matrix()

    def lidar_to_base_link_matrix(self) -> np.ndarray:
        """(4, 4) float64."""
        return np.array(self.lidar_to_base_link, dtype=np.float64)


def _frozen(value: Any) -> Any:
    """Lists as tuples."""
    return tuple(map(_frozen, value)) if isinstance(value, list) else value


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _is_number(value: Any) -> bool:
    # True is an int to Python.
    return type(value) in (int, float) and math.isfinite(value)


def _is_count(value: Any) -> bool:
    return type(value) is int and value > 0


def _are_names(value: Any) -> bool:
    return isinstance(value, tuple) and len(value) > 0 and all(map(_is_text, value))


def _are_numbers(value: Any, length: int) -> bool:
    return isinstance(value, tuple) and len(value) == length and all(map(_is_number, value))


def _is_size(value: Any) -> bool:
    return isinstance(value, tuple) and len(value) == 2 and all(map(_is_count, value))


def _is_range(value: Any) -> bool:
    return _are_numbers(value, 6) and all(a < b for a, b in zip(value[:3], value[3:], strict=True))


_COUNT = (_is_count, "a whole number above 0")
_NAMES = (_are_names, "a list of names")
_ALLOWED: Mapping[str, tuple[Callable[[Any], bool], str]] = {
    **dict.fromkeys(("recipe", "weights", "weights_sha256", "detector"), (_is_text, "a text")),
    "program": (_is_text, "a text"),
    "classes": _NAMES,
    "cameras": _NAMES,
    "image_size": (_is_size, "a height and a width"),
    "pixel_mean": (lambda value: _are_numbers(value, 3), "3 numbers"),
    "pixel_std": (lambda v: _are_numbers(v, 3) and min(v) > 0, "3 numbers above 0"),
    "input_format": (lambda value: value in ("RGB", "BGR"), "RGB or BGR"),
    "frame": (lambda value: value in FRAMES, " or ".join(FRAMES)),
    "precision": (lambda value: value in PRECISIONS, " or ".join(PRECISIONS)),
    "center_range": (_is_range, "3 numbers and 3 larger ones"),
    "max_detections": _COUNT,
    "num_queries": _COUNT,
    "num_remembered": _COUNT,
    "score_threshold": (lambda value: value is None or _is_number(value), "a number or null"),
    "frame_period_s": (lambda value: _is_number(value) and value >= 0, "seconds from 0 on"),
    "remembers": (lambda value: isinstance(value, bool), "true or false"),
}


def _check(said: Mapping[str, Any], where: str) -> None:
    """Raises InputError where a value cannot be: a file may have been altered."""
    anew = "export it anew with tools/export_onnx.py"
    for name, (allows, wanted) in _ALLOWED.items():
        if not allows(said[name]):
            raise InputError(
                f"{where} has a damaged description: its {name} is {shown(said[name])}, not "
                f"{wanted}; {anew}"
            )
    try:
        as_pose(said["lidar_to_base_link"], "its lidar_to_base_link")
    except InputError as error:
        raise InputError(f"{where} has a damaged description: {error}; {anew}") from error

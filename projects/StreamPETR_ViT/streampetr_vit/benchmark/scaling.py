"""Time of a frame against cameras, resolution, memory, queries and batch."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from omegaconf import DictConfig

from streampetr_vit.benchmark.flops import ViTShape
from streampetr_vit.benchmark.inputs import continuing, made_up_frame
from streampetr_vit.benchmark.report import Report, Row, first_line
from streampetr_vit.benchmark.session import Session, frame_tflop, require_positive
from streampetr_vit.benchmark.stages import streaming_step
from streampetr_vit.benchmark.timing import alternately, percentile
from streampetr_vit.engine.streaming import cast_weights
from streampetr_vit.errors import InputError
from streampetr_vit.modeling.detector import StreamPETR
from streampetr_vit.modeling.ops.precision import AUTOCAST_DTYPES, autocast

SERIES = ("cameras", "resolution", "memory", "queries", "batch")
SIDES = ("backbone", "frame")


@dataclass(frozen=True)
class Point:
    """One measurement.

    Attributes:
        size: (height, width) of the pictures in pixels.
        cameras, batch: of the frame.
        memory, queries: entries and learned queries of the head; None as configured.
    """

    size: tuple[int, int]
    cameras: int = 6
    batch: int = 1
    memory: int | None = None
    queries: int | None = None

    def configuration(self, cfg: DictConfig) -> DictConfig:
        """A copy of a configuration with this point's network.

        The rotary tables follow the shorter side: the global windows span it, as in the recipes.
        """
        cfg = copy.deepcopy(cfg)
        net, head = cfg.model.backbone.net, cfg.model.head
        if self.size != tuple(cfg.dataloader.train.mapper.image_aug.final_size):
            net.img_size = min(self.size)
            if net.global_window_size:  # 0 is the whole map, whatever its size
                net.global_window_size = min(self.size) // net.patch_size
        if self.memory is not None:
            head.memory_length = self.memory
        if self.queries is not None:
            head.num_queries = self.queries
        return cfg


def parse_size(text: str) -> tuple[int, int]:
    """(height, width) from "800x320", width first.

    Raises:
        InputError: not two positive numbers.
    """
    parts = text.lower().split("x")
    if len(parts) != 2 or not all(part.isdigit() and int(part) > 0 for part in parts):
        raise InputError(f"resolution {text!r} must be WIDTHxHEIGHT in pixels, such as 800x320")
    return int(parts[1]), int(parts[0])


def points_of(series: str, values: Sequence[str], base: Point) -> dict[str, Point]:
    """The points of a series, by its values.

    Args:
        series: one of `SERIES`.
        values: numbers, or WIDTHxHEIGHT for "resolution".
        base: everything that the series does not change.

    Raises:
        InputError: unknown series, or a value that is no positive number.
    """
    if series not in SERIES:
        raise InputError(f"--series {series!r} is unknown; use any of {', '.join(SERIES)}")
    if series == "resolution":
        return {value: replace(base, size=parse_size(value)) for value in values}
    for value in values:
        if not value.isdigit() or int(value) < 1:
            raise InputError(f"--series {series}: {value!r} must be a number above 0")
    changes: dict[str, dict[str, Any]] = {value: {series: int(value)} for value in values}
    return {value: replace(base, **change) for value, change in changes.items()}


def measure_scaling(
    session: Session,
    values: dict[str, Sequence[str]],
    *,
    cameras: int = 6,
    batch: int = 1,
    stage: str = "frame",
) -> Report:
    """Times each point of each series.

    Args:
        session: what to measure, and how often.
        values: of each series.
        cameras, batch: where the series does not change them.
        stage: "frame", or "backbone" for the image branch alone.

    Raises:
        InputError: unknown series, stage or value. A point that cannot be built is a row with its
            error.
    """
    if stage not in SIDES:
        raise InputError(f"--stage {stage!r} is unknown; use one of {', '.join(SIDES)}")
    require_positive("--num-cameras", cameras)
    require_positive("--batch", batch)
    base = Point(session.image_size, cameras, batch)
    series = {name: points_of(name, of_it, base) for name, of_it in values.items()}
    report = session.report("scale", stage=stage, cameras=cameras, batch=batch)
    for name, points in series.items():
        rows = []
        for value, point in points.items():
            try:
                row = _point_row(session, point, stage)
            except (RuntimeError, ValueError) as error:
                row = {"error": first_line(error)}
            rows.append({name: value, **row})
        report.tables[f"time against {name}"] = rows
    return report


def _point_row(session: Session, point: Point, stage: str) -> Row:
    cfg = point.configuration(session.cfg)
    detector = session.build(cfg).eval()
    run = _call(session, detector, point, stage)
    seconds = alternately([run], session.device, session.repeats)[0]
    median = percentile(seconds, 50)
    padded = detector.padded_size(point.size)
    height, width = ViTShape.of(cfg.model.backbone.net).token_map(padded)
    tokens = point.batch * point.cameras * height * width
    tflop = frame_tflop(cfg, padded, point.cameras, point.batch)[stage]
    return {
        "real_tokens": tokens,
        "tflop": tflop,
        "p50_ms": 1e3 * median,
        "p90_ms": 1e3 * percentile(seconds, 90),
        "us_per_token": 1e6 * median / tokens,
        "ms_per_tflop": 1e3 * median / tflop,
        "tflops": tflop / median,
    }


def _call(session: Session, detector: StreamPETR, point: Point, stage: str) -> Callable[[], object]:
    """What is timed: the next frame of a stream, or its image branch."""
    frame = made_up_frame(point.size, point.cameras, point.batch, session.device)
    if stage == "frame":
        step = streaming_step(detector, session.precision)
        _, memory = step.step(frame, detector.empty_memory(point.batch))
        following = continuing(frame)
        return lambda: step.step(following, memory)

    dtype = AUTOCAST_DTYPES[session.precision]
    if dtype is not None:
        cast_weights(detector.backbone, dtype)

    def image_branch() -> object:
        with torch.no_grad(), autocast(session.precision, session.device.type):
            return detector.image_features(frame.images)

    return image_branch

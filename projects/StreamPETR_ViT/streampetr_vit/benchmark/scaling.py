"""Time of a frame against cameras, resolution, memory, queries and batch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from streampetr_vit.benchmark.flops import frame_tflop
from streampetr_vit.benchmark.inputs import made_up_frame
from streampetr_vit.benchmark.latency import StreamRun
from streampetr_vit.benchmark.result import Result, Row, first_line
from streampetr_vit.benchmark.session import Session
from streampetr_vit.benchmark.timing import alternately, time_row
from streampetr_vit.errors import InputError

SERIES = ("cameras", "resolution", "memory", "queries", "batch")
SIDES = ("backbone", "frame")


def measure_scaling(
    session: Session,
    values: Mapping[str, Sequence[str]],
    *,
    cameras: int = 6,
    batch: int = 1,
    stage: str = "frame",
) -> Result:
    """Times each point of each series.

    Args:
        session: what to measure, and how often.
        values: of each of `SERIES`: numbers, or WIDTHxHEIGHT for "resolution".
        cameras, batch: where the series does not change them.
        stage: "frame", or "backbone" for that part of it.

    Raises:
        InputError: unknown series or value. A point that cannot be built is a row with its error.
    """
    points = [(series, value) for series, of_it in values.items() for value in of_it]
    changes = [_overrides(session, *point) for point in points]
    result = session.result("scale", stage=stage, cameras=cameras, batch=batch)
    for (series, value), overrides in zip(points, changes, strict=True):
        counts = {"cameras": cameras, "batch": batch}
        if series in counts:
            counts[series] = int(value)
        try:
            row = _point_row(session.changed(*overrides), stage, **counts)
        except (RuntimeError, ValueError) as error:
            row = {"error": first_line(error)}
        table = result.tables.setdefault(f"time against {series}", [])
        table.append({series: value, **row})
    return result


def _overrides(session: Session, series: str, value: str) -> list[str]:
    """What a value of a series changes in the configuration; refuses what is none."""
    if series not in SERIES:
        raise InputError(f"--series {series!r} is unknown; use any of {', '.join(SERIES)}")
    is_size = series == "resolution"
    parts = [int(part) if part.isdigit() else 0 for part in value.split("x")]
    if len(parts) != 1 + is_size or 0 in parts:
        allowed = "WIDTHxHEIGHT in pixels, such as 800x320" if is_size else "a number above 0"
        raise InputError(f"--series {series}: {value!r} must be {allowed}")
    if not is_size:
        keys = {"memory": "memory_length", "queries": "num_queries"}
        return [f"model.head.{keys[series]}={value}"] if series in keys else []
    width, height = parts
    changes = [f"dataloader.train.mapper.image_aug.final_size=[{height},{width}]"]
    net, side = session.cfg.model.backbone.net, min(height, width)
    if (height, width) != session.image_size:
        # The rotary tables follow the shorter side: the global windows span it, as in the recipes.
        changes.append(f"model.backbone.net.img_size={side}")
        if net.global_window_size:  # 0 is the whole map, whatever its size
            changes.append(f"model.backbone.net.global_window_size={side // net.patch_size}")
    return changes


def _point_row(session: Session, stage: str, cameras: int, batch: int) -> Row:
    size = session.image_size
    frame = made_up_frame(size, cameras, batch).to(session.device)
    run = StreamRun(session, session.build(), [frame])
    run.push()  # computes what is the same for all frames of a rig
    (seconds,) = alternately([run.push], session.device, session.repeats, session.warmup)
    if stage != "frame":
        seconds = [laps[stage] for laps in run.laps[-session.repeats :]]
    patch = session.cfg.model.backbone.net.patch_size
    height, width = run.detector.padded_size(size)
    tokens = batch * cameras * (height // patch) * (width // patch)
    row = time_row(seconds, frame_tflop(session.cfg, size, cameras, batch)[stage])
    per_token = {"us_per_token": 1e3 * row["p50_ms"] / tokens}
    return {"real_tokens": tokens, **row, **per_token, "ms_per_tflop": row["p50_ms"] / row["tflop"]}

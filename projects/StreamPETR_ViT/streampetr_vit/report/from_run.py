"""Collects the input of a report from the output folder of a run."""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
from collections.abc import Mapping, Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import torch

from streampetr_vit.data.nuscenes.catalog import open_dataset
from streampetr_vit.data.nuscenes.records import FrameRecord, FrameRecords
from streampetr_vit.data.nuscenes.spec import NUSCENES
from streampetr_vit.errors import MissingFileError
from streampetr_vit.evaluation.nuscenes_evaluator import RESULTS_FILE
from streampetr_vit.evaluation.result_format import detections_from_records, read_results
from streampetr_vit.report.page import MetricRun, ReportInput
from streampetr_vit.report.pictures import Picture, PictureGroup
from streampetr_vit.structures import DatasetSpec
from streampetr_vit.visualization.frame_picture import draw_record, visible_truth

Results = Mapping[str, Sequence[Mapping[str, Any]]]

_PACKAGES = ("torch", "detectron2", "nuscenes-devkit", "numpy", "opencv-python-headless")


def report_from_run(
    output_dir: str | Path,
    dataset: str | Mapping[str, Any],
    title: str,
    *,
    spec: DatasetSpec = NUSCENES,
    notes: Sequence[str] = (),
    facts: Mapping[str, str] | None = None,
    main_run: str = "memory on",
    other_runs: Mapping[str, str | Path] | None = None,
    consecutive_frames: int = 4,
    single_frames: int = 3,
    score_threshold: float | None = None,
    range_m: float = 51.2,
) -> ReportInput:
    """Reads metrics, curves, configuration and detections of a run, and draws some frames.

    Args:
        output_dir: folder with inference/, and metrics.json and config.yaml if it was trained.
        dataset: the evaluated data set, as the test loader takes it.
        title: heading of the report.
        spec: of the data set.
        notes: what a reader must know to judge the numbers.
        facts: name -> value; added to those about the data set.
        main_run: name of the evaluation in output_dir/inference.
        other_runs: name -> folder that holds another metrics_summary.json.
        consecutive_frames: drawn from the middle of the first scene.
        single_frames: drawn from the middle of as many other scenes.
        score_threshold: detections below it are not drawn; None takes the score above which there
            are as many detections as true boxes.
        range_m: half the width of the views from above.
    """
    output_dir = Path(output_dir)
    inference = output_dir / "inference"
    records = open_dataset(dataset, spec)
    folders = {main_run: inference, **{k: Path(v) for k, v in (other_runs or {}).items()}}
    config = output_dir / "config.yaml"
    return ReportInput(
        title=title,
        subtitle=datetime.now(timezone.utc).strftime("%d %B %Y, %H:%M UTC"),
        notes=notes,
        facts={**_dataset_facts(records), **(facts or {})},
        runs=[_metric_run(name, folder) for name, folder in folders.items()],
        metrics_json=output_dir / "metrics.json",
        picture_groups=_picture_groups(
            records,
            read_results(inference / RESULTS_FILE),
            consecutive_frames,
            single_frames,
            score_threshold,
            range_m,
        ),
        config_text=config.read_text() if config.is_file() else "",
        environment=environment(),
    )


def environment() -> dict[str, str]:
    """Versions of what the numbers depend on, and the device."""
    versions = {"Python": platform.python_version()}
    for package in _PACKAGES:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    versions["system"] = f"{platform.system()} {platform.machine()}, {os.cpu_count()} CPU cores"
    versions["device"] = torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU"
    return versions


def balanced_threshold(results: Results, num_true_boxes: int) -> float:
    """The score above which there are as many detections as true boxes.

    Scores of a briefly trained detector are low as a whole; a fixed threshold would show nothing
    or everything.

    Args:
        results: sample token -> records.
        num_true_boxes: in the same samples.

    Returns:
        A score; 0 if there are no more detections than true boxes.
    """
    scores = sorted((r["detection_score"] for rows in results.values() for r in rows), reverse=True)
    return float(scores[num_true_boxes]) if num_true_boxes < len(scores) else 0.0


def _dataset_facts(records: FrameRecords) -> dict[str, str]:
    scenes = len(records.scene_lengths)
    return {
        "evaluated on": f"{len(records)} frames of {scenes} scene{'s' if scenes > 1 else ''}",
        "tables": records.version,
    }


def _metric_run(name: str, folder: Path) -> MetricRun:
    summary = folder / "metrics_summary.json"
    if not summary.is_file():
        raise MissingFileError(f"run {name!r}: no {summary}; evaluate it first")
    details = folder / "metrics_details.json"
    return MetricRun(
        name=name,
        summary=json.loads(summary.read_text()),
        details=json.loads(details.read_text()) if details.is_file() else None,
    )


def _picture_groups(
    records: FrameRecords,
    results: Results,
    consecutive: int,
    single: int,
    score_threshold: float | None,
    range_m: float,
) -> list[PictureGroup]:
    """Consecutive frames of one scene, and single frames of others."""
    in_a_row, alone = _chosen_frames(records.scene_lengths, consecutive, single)
    if score_threshold is None:
        chosen = [records[index] for index in (*in_a_row, *alone)]
        score_threshold = balanced_threshold(
            {record.token: results.get(record.token, ()) for record in chosen},
            sum(len(visible_truth(record, range_m)[1]) for record in chosen),
        )

    def draw(index: int, caption: str) -> Picture:
        record = records[index]
        detections = detections_from_records(
            results.get(record.token, ()),
            record.lidar_to_ego,
            record.ego_to_global,
            records.spec.class_names,
        )
        return Picture(draw_record(record, detections, score_threshold, range_m), caption)

    first = records[in_a_row[0]].timestamp_us if in_a_row else 0
    text = (
        f"Colour: predicted, score at least {score_threshold:.2f}; the front face is filled. White "
        "and dashed: true boxes with at least one lidar or radar point."
    )
    groups = [
        PictureGroup(
            "Consecutive frames",
            f"{text} The same objects should keep their boxes from frame to frame.",
            [draw(i, _caption(records[i], first)) for i in in_a_row],
        ),
        PictureGroup("Other scenes", text, [draw(i, _caption(records[i])) for i in alone]),
    ]
    return [group for group in groups if group.pictures]


def _caption(record: FrameRecord, first_us: int | None = None) -> str:
    if first_us is None:
        return record.scene_name
    return f"{record.scene_name}, {(record.timestamp_us - first_us) / 1e6:+.1f} s"


def _chosen_frames(
    scene_lengths: Sequence[int], consecutive: int, single: int
) -> tuple[list[int], list[int]]:
    """Indices of the frames in a row, and of the single ones."""
    starts = [sum(scene_lengths[:scene]) for scene in range(len(scene_lengths))]
    length = scene_lengths[0]
    count = min(consecutive, length)
    begin = starts[0] + (length - count) // 2
    others = range(1, len(scene_lengths))
    stride = max(1, len(others) // single) if single else 1
    alone = [starts[s] + scene_lengths[s] // 2 for s in others[::stride]][:single]
    return list(range(begin, begin + count)), alone

"""Collects the input of a report from the output folder of a run."""

from __future__ import annotations

import importlib.metadata
import os
import platform
from collections.abc import Mapping, Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import torch

from streampetr_vit.data.nuscenes.catalog import open_dataset
from streampetr_vit.data.nuscenes.records import FrameRecords
from streampetr_vit.data.nuscenes.spec import NUSCENES
from streampetr_vit.errors import MissingFileError
from streampetr_vit.evaluation.result_format import RESULTS_FILE, read_results
from streampetr_vit.evaluation.summary_files import read_details, read_summary
from streampetr_vit.evaluation.tracking_files import read_tracking_summary
from streampetr_vit.json_files import read_json
from streampetr_vit.report.curves import Scalars, read_scalars
from streampetr_vit.report.frames import draw_groups
from streampetr_vit.report.page import PictureGroup, ReportInput
from streampetr_vit.report.tables import Summary
from streampetr_vit.report.track_pictures import draw_tracks
from streampetr_vit.structures import DatasetSpec

MEMORY_ON, MEMORY_OFF = "memory on", "memory off at test"
AVERAGED = "average of the weights (EMA)"
# The libraries that the numbers depend on.
_PACKAGES = ("torch", "detectron2", "nuscenes-devkit", "numpy", "opencv-python-headless")


def report_from_run(
    output_dir: str | Path,
    dataset: str | Mapping[str, Any],
    title: str,
    *,
    inference: str | Path | None = None,
    spec: DatasetSpec = NUSCENES,
    notes: Sequence[str] = (),
    main_run: str = MEMORY_ON,
    other_runs: Mapping[str, str | Path] | None = None,
    tracking: Mapping[str, str | Path] | None = None,
    score_threshold: float | None = None,
    range_m: float = 51.2,
) -> ReportInput:
    """Reads metrics, curves, configuration and detections of a run, and draws some frames.

    Args:
        output_dir: folder of the run, with metrics.json and config.yaml if it was trained.
        dataset: the evaluated data set, as the test loader takes it.
        title: heading of the report.
        inference: folder of the evaluator's files; None for `inference` in output_dir.
        spec: of the data set.
        notes: what a reader must know to judge the numbers.
        main_run: name of the evaluation.
        other_runs: name -> folder that holds another metrics_summary.json.
        tracking: name of a tracker -> folder of the files of its evaluation. The tracks of the
            first are drawn.
        score_threshold: detections below it are not drawn; None takes the score above which there
            are as many detections as true boxes.
        range_m: half the width of the views from above.

    Raises:
        MissingFileError: a run has no metrics_summary.json, or there is no results file.
        InputError: a file is not what an evaluation writes.
    """
    output_dir = Path(output_dir)
    inference = output_dir / "inference" if inference is None else Path(inference)
    records = open_dataset(dataset, spec)
    metrics_json, config = output_dir / "metrics.json", output_dir / "config.yaml"
    # A run that was only evaluated has no metrics.json.
    scalars = read_scalars(metrics_json) if metrics_json.is_file() else {}
    details = inference / "metrics_details.json"
    # The main run first: the page's tiles, curves and pictures are its.
    folders = {main_run: inference, **(other_runs or {})}
    runs = {name: _summary(name, Path(folder)) for name, folder in folders.items()}
    trackers = {name: Path(folder) for name, folder in (tracking or {}).items()}
    about_data = synthetic_notes(records)
    return ReportInput(
        title=title,
        subtitle=datetime.now(timezone.utc).strftime("%d %B %Y, %H:%M UTC"),
        notes=[*notes, *about_data],
        # What was run goes above the numbers, what it ran on to the end of the page.
        facts=_facts(records, scalars),
        runs=runs,
        details=read_details(details, runs[main_run]) if details.is_file() else {},
        tracking={name: _tracking(name, folder) for name, folder in trackers.items()},
        scalars=scalars,
        picture_groups=[
            *draw_groups(records, read_results(inference / RESULTS_FILE), score_threshold, range_m),
            *_tracks(records, trackers, range_m),
        ],
        config_text=_settings(config, is_synthetic=bool(about_data)) if config.is_file() else "",
        environment=environment(),
    )


def _settings(config: Path, is_synthetic: bool) -> str:
    """The text of config.yaml, without the section of a data set that was not used."""
    lines = config.read_text().splitlines(keepends=True)
    # What tools/quickstart.py would make: on other data it would tell of the wrong ones.
    return "".join(line for line in lines if is_synthetic or not line.startswith("synthetic:"))


def synthetic_notes(records: FrameRecords) -> list[str]:
    """What a reader must know of a data set that was made by `synthetic_nuscenes`; else nothing."""
    # The generator leaves this file in the data root, with the version that its tables have; real
    # tables may have been put beside them.
    try:
        mark = read_json(records.root / "synthetic.json")
        range_m = float(mark["config"]["range_m"])
    except (OSError, ValueError, LookupError, TypeError):
        return []
    if mark.get("version", records.version) != records.version:
        return []
    return [
        f"Synthetic scenes that end at {range_m:g} m: the numbers are not comparable with nuScenes."
    ]


def environment() -> dict[str, str]:
    """Versions of what the numbers depend on, and the device."""
    versions = {"Python": platform.python_version()}
    for package in _PACKAGES:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue  # such as OpenCV, which comes under several names
    versions["system"] = f"{platform.system()} {platform.machine()}, {os.cpu_count()} CPU cores"
    versions["device"] = torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU"
    return versions


def _facts(records: FrameRecords, scalars: Scalars) -> dict[str, str]:
    """What was evaluated, and how long it was trained."""
    scenes = len(records.scene_lengths)
    facts = {
        "evaluated on": f"{len(records)} frames of {scenes} scene{'s' if scenes > 1 else ''}",
        "tables": records.version,
    }
    losses = scalars.get("total_loss")
    if losses:  # a run that was only evaluated has none
        last = max(losses)
        facts["trained for"] = f"{last + 1} iterations"  # they are counted from 0
        skipped = scalars.get("skipped_steps", {}).get(last)
        if skipped:
            facts["skipped steps"] = f"{int(skipped)} (not finite)"
    return facts


def _tracks(
    records: FrameRecords, trackers: Mapping[str, Path], range_m: float
) -> list[PictureGroup]:
    """The pictures of the first tracker, if there is one."""
    for name, folder in trackers.items():
        group = draw_tracks(records, read_results(folder / RESULTS_FILE), name, range_m)
        return [] if group is None else [group]
    return []


def _summary(run: str, folder: Path) -> Summary:
    return read_summary(_summary_file(f"run {run!r}", folder))


def _tracking(tracker: str, folder: Path) -> Summary:
    return read_tracking_summary(_summary_file(f"tracker {tracker!r}", folder))


def _summary_file(what: str, folder: Path) -> Path:
    path = folder / "metrics_summary.json"
    if not path.is_file():
        raise MissingFileError(f"{what}: no {path}; evaluate it first")
    return path

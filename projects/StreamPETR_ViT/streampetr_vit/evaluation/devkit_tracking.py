"""The official nuScenes tracking metrics, computed by the devkit itself.

The devkit is imported inside the functions: it costs seconds and pulls in matplotlib and pandas.
"""

from __future__ import annotations

import importlib
import json
import math
import os
import unittest
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

from streampetr_vit.data.nuscenes.records import FrameRecords
from streampetr_vit.errors import InputError
from streampetr_vit.evaluation.devkit_tables import devkit_tables, in_scope, true_boxes
from streampetr_vit.evaluation.devkit_tracks import Results, devkit_tracks, read_tracks
from streampetr_vit.evaluation.scoring import Scoring
from streampetr_vit.files import replacing
from streampetr_vit.progress import Progress
from streampetr_vit.tracking.classes import OFFICIAL_NAMES

CONFIG_NAME = "tracking_nips_2019"


def check_tracking_devkit() -> None:
    """Raises InputError if the devkit's tracking evaluation cannot be imported."""
    os.environ.setdefault("MPLBACKEND", "Agg")  # the devkit imports pyplot
    try:
        importlib.import_module("nuscenes.eval.tracking.evaluate")
    # The devkit skips "a test" where motmetrics or pandas is missing.
    except (ImportError, unittest.SkipTest) as error:
        raise InputError(
            f"the official tracking metric cannot be imported ({error}): install what it needs "
            'with pip install "motmetrics>=1.4,<1.5" "pandas>=2.1" "numpy<2" (the extra tracking '
            "of this package), or leave the tracking evaluator out of dataloader.evaluator"
        ) from error


def scored_names(scoring: Scoring) -> list[str]:
    """The classes of the tracking task that some class of a data set counts as."""
    return sorted(set(scoring.names.values()) & set(OFFICIAL_NAMES))


def evaluate_tracks(
    results_path: str | Path, records: FrameRecords, output_dir: str | Path
) -> dict[str, Any]:
    """Scores a tracking results file and writes metrics_summary.json and metrics_details.json.

    Args:
        results_path: nuScenes tracking results file that holds every sample of the records.
        records: of the evaluated data set, with annotations.
        output_dir: where the two files go.

    Returns:
        The devkit's summary (see `TrackingMetrics.serialize`) with None where a number is not
        defined, and with three more keys: "meta" of the submission, "num_gt_boxes" and
        "num_gt_tracks", class -> scored boxes and objects.

    Raises:
        MissingFileError: no such file.
        InputError: the metric knows no class of the data set; or see `read_tracks`.
    """
    scoring = Scoring.of(records.spec)
    names = scored_names(scoring)
    if not names:
        raise InputError(
            f"the official tracking metric knows none of {', '.join(records.spec.class_names)}; "
            "name the scored_as of a class in dataset_spec.classes"
        )
    results, meta = read_tracks(results_path, records, names)
    check_tracking_devkit()
    with _quiet():
        nusc = devkit_tables(records, scoring)
        evaluation = _tracking_eval(nusc, results, records, names)
        counts = _counts(evaluation.tracks_gt)
        with _progress_of_thresholds(len(names) * (evaluation.cfg.num_thresholds + 1)):
            metrics, details = evaluation.evaluate()
    summary = metrics.serialize() | {"meta": meta}
    summary["num_gt_boxes"] = {name: counts[0][name] for name in names}
    summary["num_gt_tracks"] = {name: counts[1][name] for name in names}
    plain = {"summary": _plain(summary), "details": _plain(details.serialize())}
    for name, content in plain.items():
        with replacing(Path(output_dir) / f"metrics_{name}.json") as temporary:
            temporary.write_text(json.dumps(content, indent=2, allow_nan=False))
    return plain["summary"]


def _tracking_eval(nusc: Any, results: Results, records: FrameRecords, names: Sequence[str]) -> Any:
    """A devkit `TrackingEval` over exactly these samples and classes."""
    from nuscenes.eval.common.config import config_factory
    from nuscenes.eval.tracking import loaders as track_loaders
    from nuscenes.eval.tracking.data_classes import TrackingBox
    from nuscenes.eval.tracking.evaluate import TrackingEval

    scenes = records.scene_names

    # As `devkit_metrics` does it, and for the same reasons.
    class SampleListEval(TrackingEval):
        def __init__(self) -> None:
            self.verbose, self.output_dir, self.render_classes = False, "", None
            # First: before there is a configuration, no box may be made.
            self.cfg = config_factory(CONFIG_NAME)
            predictions = devkit_tracks(results, records.tokens)
            # A class that the data set does not have has no numbers.
            self.cfg.class_range = {name: self.cfg.class_range[name] for name in names}
            self.cfg.class_names = list(names)
            self.sample_tokens = records.tokens
            truth = true_boxes(nusc, records.tokens, TrackingBox)
            truth = in_scope(nusc, truth, self.cfg.class_range)
            found = in_scope(nusc, predictions, self.cfg.class_range)
            with patch.object(track_loaders, "get_scenes_of_split", lambda **_: scenes):
                self.tracks_gt = track_loaders.create_tracks(truth, nusc, "", gt=True)
                self.tracks_pred = track_loaders.create_tracks(found, nusc, "", gt=False)

    return SampleListEval()


def _counts(tracks_gt: Any) -> tuple[Counter[str], Counter[str]]:
    """True boxes and objects of each class, as they are scored."""
    frames = [frame for scene in tracks_gt.values() for frame in scene.values()]
    boxes = [box for frame in frames for box in frame]
    objects = {box.tracking_id: box.tracking_name for box in boxes}
    return Counter(box.tracking_name for box in boxes), Counter(objects.values())


@contextmanager
def _quiet() -> Iterator[None]:
    """Leaves out the warnings of the libraries: means of nothing, and old ways of pandas."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


@contextmanager
def _progress_of_thresholds(total: int) -> Iterator[None]:
    """A bar of the score thresholds at which tracks are compared; each takes seconds."""
    from nuscenes.eval.tracking import evaluate as devkit

    with Progress("scoring tracks", total, "thresholds") as bar:

        class Shown(devkit.TrackingEvaluation):  # type: ignore[misc, name-defined]
            def accumulate_threshold(self, threshold: float | None = None) -> Any:
                found = super().accumulate_threshold(threshold)
                bar.update(1)
                return found

        with patch.object(devkit, "TrackingEvaluation", Shown):
            yield


def _plain(value: Any) -> Any:
    """The value as JSON has it: None where a number is not finite."""
    if isinstance(value, dict):
        return {str(key): _plain(entry) for key, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(entry) for entry in value]
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    return value

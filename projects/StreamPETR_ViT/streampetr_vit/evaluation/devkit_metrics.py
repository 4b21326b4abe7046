"""The official nuScenes detection metrics, computed by the devkit itself.

The devkit is imported inside the functions: it costs seconds and pulls in matplotlib.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from pathlib import Path
from typing import Any

from streampetr_vit.data.nuscenes.records import FrameRecords
from streampetr_vit.errors import InputError
from streampetr_vit.evaluation.devkit_boxes import devkit_boxes
from streampetr_vit.evaluation.devkit_tables import devkit_tables, in_scope, true_boxes
from streampetr_vit.evaluation.scoring import Scoring
from streampetr_vit.files import replacing

CONFIG_NAME = "detection_cvpr_2019"


def evaluate_results(
    results_path: str | Path, records: FrameRecords, output_dir: str | Path
) -> dict[str, Any]:
    """Scores a results file and writes metrics_summary.json and metrics_details.json.

    Args:
        results_path: nuScenes results file that holds every sample of the records, with the
            metric's class names.
        records: of the evaluated data set, with annotations.
        output_dir: where the two files go.

    Returns:
        The devkit's summary (see `DetectionMetrics.serialize`) with two more keys: "meta" of the
        submission, as the devkit's own main() adds it, and "num_gt_boxes", class -> scored boxes.

    Raises:
        MissingFileError: no such file.
        InputError: the metric knows no class of the data set; the file lacks samples or has others,
            or the metric refuses a box.
    """
    scoring = Scoring.of(records.spec)
    if not scoring.names:
        raise InputError(
            f"the official metric knows none of {', '.join(scoring.left_out)}; name the scored_as "
            "of a class in dataset_spec.classes"
        )
    os.environ.setdefault("MPLBACKEND", "Agg")  # the devkit imports pyplot
    predictions, meta = devkit_boxes(Path(results_path), records.tokens)
    nusc = devkit_tables(records, scoring)
    classes = set(scoring.names.values())
    evaluation = _detection_eval(nusc, predictions, records.tokens, classes)
    # Not the devkit's main(): it also draws curves, and writes the same files in its own way.
    metrics, details = evaluation.evaluate()

    counts = Counter(box.detection_name for box in evaluation.gt_boxes.all)
    summary = metrics.serialize() | {
        "meta": meta,
        "num_gt_boxes": {name: counts[name] for name in evaluation.cfg.class_names},
    }
    for name, content in (("summary", summary), ("details", details.serialize())):
        with replacing(Path(output_dir) / f"metrics_{name}.json") as temporary:
            temporary.write_text(json.dumps(content, indent=2))
    # Through JSON and back: plain dicts and floats, with the keys that a reader of the file sees.
    return json.loads(json.dumps(summary))


def _detection_eval(nusc: Any, predictions: Any, tokens: list[str], classes: set[str]) -> Any:
    """A devkit `DetectionEval` over exactly these samples and classes."""
    from nuscenes.eval.common.config import config_factory
    from nuscenes.eval.detection.data_classes import DetectionBox
    from nuscenes.eval.detection.evaluate import DetectionEval

    # The devkit's constructor takes the name of a split that it knows, or that a splits.json inside
    # the data folder defines. A list of scenes is neither, and the folder may be read-only. So its
    # steps are called here with sample tokens, for every kind of split alike; the scoring is the
    # inherited `evaluate()`, untouched.
    class SampleListEval(DetectionEval):
        def __init__(self) -> None:
            self.nusc, self.verbose = nusc, False
            self.cfg = config_factory(CONFIG_NAME)
            # A class that the data set does not have would count as AP 0 in the means.
            ranges = self.cfg.class_range.items()
            self.cfg.class_range = {name: reach for name, reach in ranges if name in classes}
            self.cfg.class_names = self.cfg.class_range.keys()
            truth = true_boxes(nusc, tokens, DetectionBox)
            self.pred_boxes = in_scope(nusc, predictions, self.cfg.class_range)
            self.gt_boxes = in_scope(nusc, truth, self.cfg.class_range)
            self.sample_tokens = tokens

    return SampleListEval()

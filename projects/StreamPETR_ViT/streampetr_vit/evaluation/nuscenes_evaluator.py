"""The detectron2 evaluator of the nuScenes detection task."""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from detectron2.evaluation import DatasetEvaluator

from streampetr_vit.data.nuscenes.catalog import open_dataset
from streampetr_vit.errors import InputError
from streampetr_vit.evaluation.collecting import (
    check_tokens,
    gather_parts,
    in_order,
    token_and_poses,
)
from streampetr_vit.evaluation.devkit_metrics import evaluate_results
from streampetr_vit.evaluation.devkit_needs import check_devkit
from streampetr_vit.evaluation.devkit_tables import devkit_refusals
from streampetr_vit.evaluation.metric_tables import printed_table, results_for_detectron2
from streampetr_vit.evaluation.result_format import (
    BYTES_PER_BOX,
    RESULTS_FILE,
    GlobalBoxes,
    to_global_boxes,
    write_results,
)
from streampetr_vit.evaluation.result_records import MAX_BOXES_PER_SAMPLE
from streampetr_vit.evaluation.scoring import Scoring
from streampetr_vit.evaluation.sound_boxes import sound_boxes
from streampetr_vit.files import check_space
from streampetr_vit.structures import DatasetSpec, Detections, Sample

SCORED_FILE = "results_scored.json"
_LOGGER = logging.getLogger(__name__)


class NuScenesEvaluator(DatasetEvaluator):
    """Collects detections, writes the results file and computes the official metrics."""

    name = "bbox3d"  # of the task, in the results

    def __init__(
        self,
        dataset: str | Mapping[str, Any],
        output_dir: str | Path,
        *,
        spec: DatasetSpec | None = None,
        distributed: bool = True,
        allow_padding: bool = False,
    ) -> None:
        """Finds out which samples the evaluation must see.

        Args:
            dataset: the same as the test loader's, see `catalog.open_dataset`.
            output_dir: where results_nusc.json, metrics_summary.json and metrics_details.json go.
            spec: of the data set; None as it was registered. The classes that the official metric
                knows are scored.
            distributed: gather the detections of all processes; if False each evaluates its own.
            allow_padding: accept samples that come more than once and keep the first, for a test
                loader whose sharding is "reference".

        Raises:
            InputError: a class of `spec` is to be scored as one that the metric does not have.
        """
        # Opened as the test loader opens it: the same samples in the same order.
        self._records = open_dataset(dataset, spec)
        # Refuses a wrong scored_as before anything runs.
        self._scoring = Scoring.of(self._records.spec)
        self._output_dir = Path(output_dir)
        self._distributed = distributed
        self._allow_padding = allow_padding
        self.reset()

    @property
    def results_path(self) -> Path:
        """The results file that `evaluate` writes."""
        return self._output_dir / RESULTS_FILE

    def reset(self) -> None:
        """Forgets all detections."""
        self._samples: list[GlobalBoxes] = []
        self._num_boxes = self._num_broken = 0

    def check(self, tokens: Sequence[str] = (), max_detections: int | None = None) -> None:
        """Looks for what the evaluation will need at its end; it takes a second or two.

        Args:
            tokens: samples of the test loader, of all processes; empty if it does not tell.
            max_detections: boxes that the model gives for a sample at most; None if unknown.

        Raises:
            UserError: the first thing that is missing or does not fit, with the way out.
        """
        if tokens:
            check_tokens(tokens, self._records.tokens, self._allow_padding)
        if max_detections is not None and max_detections > MAX_BOXES_PER_SAMPLE:
            raise InputError(
                f"model.head.max_detections={max_detections}: the nuScenes task accepts at most "
                f"{MAX_BOXES_PER_SAMPLE} boxes per sample; set model.head.max_detections="
                f"{MAX_BOXES_PER_SAMPLE} or fewer"
            )
        self._check_space(max_detections or MAX_BOXES_PER_SAMPLE)
        if self._records.has_annotations and self._scoring.names:
            check_devkit(self._records, self._scoring)

    def _check_space(self, max_detections: int) -> None:
        folder = next(path for path in self._output_dir.absolute().parents if path.is_dir())
        samples = len(self._records)
        check_space(
            folder,
            samples * max_detections * BYTES_PER_BOX,
            f"{RESULTS_FILE} ({samples} samples of {max_detections} boxes)",
            "set dataloader.evaluator.output_dir to a folder on another disk",
        )

    def process(
        self,
        inputs: Sequence[Sample | Mapping[str, Any]],
        outputs: Sequence[Mapping[str, Detections]],
    ) -> None:
        """Takes the detections of some samples.

        Args:
            inputs: samples, or dicts with sample_token, lidar_to_ego and ego_to_global.
            outputs: for each sample {"detections": Detections} in the lidar frame.

        Raises:
            InputError: a sample lacks one of the three values, or see `sound_boxes`.
        """
        spec = self._records.spec
        for sample, output in zip(inputs, outputs, strict=True):
            token, *poses = token_and_poses(sample)
            # The boxes of all samples are kept until the end: not on the device.
            found = output["detections"].to("cpu")
            sound = sound_boxes(found, token, len(spec.classes))
            self._num_boxes += len(found)
            self._num_broken += len(found) - len(sound)
            self._samples.append(to_global_boxes(sound, *poses, token, spec).without_origin())

    def evaluate(self) -> OrderedDict[str, OrderedDict[str, float]] | None:
        """Writes the results file and scores it, in the main process.

        Returns:
            {"bbox3d": {"NDS", "mAP", "mATE", "mASE", "mAOE", "mAVE", "mAAE", "mAP_0.5m", ...,
            "AP_car", ...}}; empty where the split has no annotations or no class is scored; None
            in other processes.

        Raises:
            InputError: samples are missing, unknown or given twice.
        """
        samples = self._gather()
        if samples is None:
            return None
        samples = in_order(
            samples, lambda boxes: boxes.sample_token, self._records.tokens, self._allow_padding
        )
        # Before anything else can fail: hours of inference may be in it.
        write_results(self.results_path, samples)
        _LOGGER.info("wrote %s", self.results_path)
        if not self._records.has_annotations:
            _LOGGER.info("the split has no annotations: no metrics, only the results file")
            return OrderedDict()
        path = self._scored_results(samples)
        if path is None:
            return OrderedDict()
        # An untrained network is an everyday case: zeros, not an error.
        if not any(len(sample) for sample in samples):
            _LOGGER.warning(
                "no sample has a detection inside the class ranges: all scores are 0 and all "
                "errors 1. Was a trained checkpoint loaded, and is the score threshold too high?"
            )
        _LOGGER.info("scoring %d samples with the nuScenes devkit", len(samples))
        with devkit_refusals(path, "evaluate_results"):
            summary = evaluate_results(path, self._records, self._output_dir)
        _LOGGER.info("nuScenes detection metrics:\n%s", printed_table(summary))
        return OrderedDict(bbox3d=results_for_detectron2(summary))

    def _scored_results(self, samples: list[GlobalBoxes]) -> Path | None:
        """The results file with the metric's class names; None where no class is scored."""
        scoring = self._scoring
        if scoring.left_out:
            _LOGGER.warning(
                "the official metric does not know %s: left out of the scores. To have a class "
                "scored, name its scored_as in dataset_spec.classes",
                ", ".join(scoring.left_out),
            )
        if not scoring.names:
            _LOGGER.warning("no class is scored: no metrics, only the results file")
            return None
        if scoring.is_official:
            return self.results_path
        path = self._output_dir / SCORED_FILE
        write_results(path, samples, scoring)
        _LOGGER.info("wrote %s, the classes that are scored under their official names", path)
        return path

    def _gather(self) -> list[GlobalBoxes] | None:
        """The samples of all processes in rank order; None outside the main process."""
        parts = gather_parts((self._samples, self._num_boxes, self._num_broken), self._distributed)
        if parts is None:
            return None
        samples, boxes, broken = zip(*parts, strict=True)
        if sum(broken):
            _LOGGER.warning(
                "left out %d of %d boxes: a value was not finite, or a size not positive",
                sum(broken),
                sum(boxes),
            )
        return [sample for of_rank in samples for sample in of_rank]

"""The detectron2 evaluator of the nuScenes tracking task."""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from detectron2.evaluation import DatasetEvaluator

from streampetr_vit.data.nuscenes.catalog import open_dataset
from streampetr_vit.errors import InputError
from streampetr_vit.evaluation.collecting import (
    check_tokens,
    gather_parts,
    in_order,
    token_and_poses,
)
from streampetr_vit.evaluation.devkit_needs import check_devkit
from streampetr_vit.evaluation.devkit_tables import devkit_refusals
from streampetr_vit.evaluation.devkit_tracking import (
    check_tracking_devkit,
    evaluate_tracks,
    scored_names,
)
from streampetr_vit.evaluation.result_format import RESULTS_FILE, write_result_lines
from streampetr_vit.evaluation.scoring import Scoring
from streampetr_vit.evaluation.sound_boxes import sound_boxes, sound_rows
from streampetr_vit.evaluation.tracking_format import tracking_line
from streampetr_vit.evaluation.tracking_scenes import track_scenes
from streampetr_vit.evaluation.tracking_tables import printed_tracking_table, tracking_numbers
from streampetr_vit.structures import DatasetSpec, Detections, GlobalBoxes, Sample, Tracks
from streampetr_vit.texts import file_name, shown
from streampetr_vit.tracking.building import Rules, build_tracker
from streampetr_vit.tracking.tracker import Tracker

_LOGGER = logging.getLogger(__name__)
# The boxes of a sample, and their ids where the stream has given them.
Collected = tuple[GlobalBoxes, Tracks | None]


class NuScenesTrackingEvaluator(DatasetEvaluator):
    """Collects detections, gives them ids, writes the results file, computes the official metrics.

    A tracker that reads the network's memory must be at work while the network runs: the stream
    calls `stream_tracker`, and the ids come with the detections.
    """

    def __init__(
        self,
        dataset: str | Mapping[str, Any],
        output_dir: str | Path,
        *,
        tracker: Literal["lineage", "greedy"] | Rules = "lineage",
        name: str = "tracking",
        spec: DatasetSpec | None = None,
        distributed: bool = True,
        allow_padding: bool = False,
    ) -> None:
        """Finds out which samples the evaluation must see.

        Args:
            dataset: the same as the test loader's, see `catalog.open_dataset`.
            output_dir: results_nusc.json, metrics_summary.json and metrics_details.json go into its
                folder `name`.
            tracker: "lineage", "greedy", or the rules of one.
            name: of the numbers, and of the folder.
            spec, distributed, allow_padding: see `NuScenesEvaluator`.

        Raises:
            InputError: an unknown tracker, a name that is no name of a folder, or a class of `spec`
                that is to be scored as one that the metric does not have.
        """
        if not isinstance(name, str) or not name or name != file_name(name):
            raise InputError(
                f"the tracking evaluator's name is {shown(name)}; it must be the name of a folder"
            )
        self.name = name
        self._records = open_dataset(dataset, spec)
        self._scoring = Scoring.of(self._records.spec)
        self._tracker = build_tracker(tracker, self._records.spec)
        if allow_padding and self._tracker.reads_memory:
            raise InputError(
                'allow_padding=True is for loaders that cut scenes (sharding="reference"), and '
                f"{self._tracker.name} ids would begin anew within a scene: take the loader's "
                'sharding="scene" and allow_padding=False, or tracker="greedy"'
            )
        self._folder = Path(output_dir) / name
        self._distributed, self._allow_padding = distributed, allow_padding
        self.reset()

    @property
    def stream_tracker(self) -> Tracker | None:
        """The tracker that must be at work while the network runs; None if none must be."""
        return self._tracker if self._tracker.reads_memory else None

    @property
    def results_path(self) -> Path:
        """The results file that `evaluate` writes."""
        return self._folder / RESULTS_FILE

    def reset(self) -> None:
        """Forgets all detections."""
        self._samples: list[Collected] = []

    def check(self, tokens: Sequence[str] = (), max_detections: int | None = None) -> None:
        """Looks for what the evaluation will need at its end; it takes a second or two.

        Args:
            tokens: samples of the test loader, of all processes; empty if it does not tell.
            max_detections: not read: of a sample's boxes at most one for each object is written.

        Raises:
            UserError: the first thing that is missing or does not fit, with the way out.
        """
        if tokens:
            check_tokens(tokens, self._records.tokens, self._allow_padding)
        if self._records.has_annotations and scored_names(self._scoring):
            check_devkit(self._records, self._scoring)
            check_tracking_devkit()

    def process(
        self,
        inputs: Sequence[Sample | Mapping[str, Any]],
        outputs: Sequence[Mapping[str, Any]],
    ) -> None:
        """Takes the detections of some samples.

        Args:
            inputs: samples, or dicts with sample_token, lidar_to_ego and ego_to_global.
            outputs: for each sample {"detections": Detections} in the lidar frame and, where
                `stream_tracker` is not None, {"tracks": Tracks} of them.

        Raises:
            InputError: a sample lacks one of the values, or see `sound_boxes`.
        """
        for sample, output in zip(inputs, outputs, strict=True):
            token, *poses = token_and_poses(sample)
            found: Detections = output["detections"].to("cpu")
            sound = sound_boxes(found, token, len(self._records.spec.classes))
            boxes = GlobalBoxes.of(sound, *poses, token, self._records.spec)
            tracks = None
            if self._tracker.reads_memory:
                given = self._given_tracks(output, token)[sound_rows(found).numpy()][boxes.rows]
                # No results file has trails, and they would be most of all that is kept.
                tracks = replace(given, trails_m=given.trails_m[:, :0].copy())
            self._samples.append((boxes.without_origin(), tracks))

    def evaluate(self) -> OrderedDict[str, OrderedDict[str, float]] | None:
        """Writes the results file and scores it, in the main process.

        Returns:
            {name: see `tracking_numbers`}; empty where the split has no annotations or no class is
            scored; None in other processes.

        Raises:
            InputError: samples are missing, unknown or given twice.
        """
        parts = gather_parts(self._samples, self._distributed)
        if parts is None:
            return None
        together = [sample for part in parts for sample in part]
        samples = in_order(
            together, lambda pair: pair[0].sample_token, self._records.tokens, self._allow_padding
        )
        self._write([boxes for boxes, _ in samples], [tracks for _, tracks in samples])
        if not self._records.has_annotations:
            _LOGGER.info("the split has no annotations: no metrics, only the results file")
            return OrderedDict()
        if not scored_names(self._scoring):
            _LOGGER.warning("no class is one of the tracking task: only the results file")
            return OrderedDict()
        _LOGGER.info("scoring the tracks of %d samples with the nuScenes devkit", len(samples))
        with devkit_refusals(self.results_path, "tools/track.py"):
            summary = evaluate_tracks(self.results_path, self._records, self._folder)
        _LOGGER.info(
            "nuScenes tracking metrics, %s:\n%s", self.name, printed_tracking_table(summary)
        )
        return OrderedDict({self.name: tracking_numbers(summary)})

    def _write(self, boxes: Sequence[GlobalBoxes], tracks: Sequence[Tracks | None]) -> None:
        """Writes the results file; a tracker that needs no memory gives the ids here."""
        records = self._records
        given: Iterable[Tracks] = [ids for ids in tracks if ids is not None]
        if not self._tracker.reads_memory:
            given = track_scenes(self._tracker, boxes, records)
        pairs = zip(boxes, given, strict=True)
        lines = (tracking_line(found, ids, records.spec) for found, ids in pairs)
        write_result_lines(self.results_path, lines)
        _LOGGER.info("wrote %s", self.results_path)

    def _given_tracks(self, output: Mapping[str, Any], token: str) -> Tracks:
        tracks = output.get("tracks")
        if not isinstance(tracks, Tracks):
            raise InputError(
                f"sample {token} has no tracks: {self._tracker.name} ids come from the memory of a "
                'StreamPETR while it runs; take tracker="greedy" for other models and loops'
            )
        return tracks

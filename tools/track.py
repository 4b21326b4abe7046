#!/usr/bin/env python
"""Gives the boxes of a detection results file ids, or scores a tracking results file.

Needs no network and no pictures. Boxes are tracked by position and velocity (the greedy tracker).
Where the split has annotations, nuScenes' own tracking evaluation scores the tracks.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from named_dataset import add_dataset, check_dataset, open_records
from omegaconf.errors import OmegaConfBaseException

from streampetr_vit.command_line import at_least, file_path, not_negative
from streampetr_vit.data.nuscenes.records import FrameRecords
from streampetr_vit.errors import InputError, one_line_errors
from streampetr_vit.evaluation.detection_files import boxes_of_results
from streampetr_vit.evaluation.devkit_needs import check_devkit
from streampetr_vit.evaluation.devkit_tables import devkit_refusals
from streampetr_vit.evaluation.devkit_tracking import (
    check_tracking_devkit,
    evaluate_tracks,
    scored_names,
)
from streampetr_vit.evaluation.devkit_tracks import is_tracking
from streampetr_vit.evaluation.result_format import (
    RESULTS_FILE,
    read_results,
    write_result_lines,
)
from streampetr_vit.evaluation.scoring import Scoring
from streampetr_vit.evaluation.tracking_format import tracking_line
from streampetr_vit.evaluation.tracking_scenes import track_scenes
from streampetr_vit.evaluation.tracking_tables import printed_tracking_table
from streampetr_vit.tracking.building import build_tracker
from streampetr_vit.tracking.greedy import GreedyRules

EXAMPLES = """
examples:
  track and score the detections of a run:
    python tools/track.py --config-file output/quickstart/config.yaml \\
        --results output/quickstart/inference/results_nusc.json --out output/tracks
  track the results file of any detector with CenterPoint's radii:
    python tools/track.py --dataset datasets/nuscenes v1.0-trainval val \\
        --results results_nusc.json --radii per_class --out output/tracks
  score a file of tracks:
    python tools/track.py --dataset datasets/nuscenes v1.0-trainval val \\
        --results tracking_result.json --out output/scores
"""


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    """Reads the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_dataset(parser)
    parser.add_argument(
        "--results", type=file_path, required=True, help="JSON file of detections, or of tracks"
    )
    parser.add_argument("--out", type=file_path, required=True, help="folder of what is written")
    parser.add_argument(
        "--radii",
        choices=("uniform", "per_class"),
        default="uniform",
        help="uniform: 2.5 m (default). per_class: those of CenterPoint",
    )
    parser.add_argument(
        "--hungarian", action="store_true", help="match by the sum of all distances"
    )
    parser.add_argument(
        "--score-threshold",
        type=not_negative,
        default=0.25,
        help="of boxes that get ids (default: 0.25)",
    )
    parser.add_argument(
        "--max-age",
        type=at_least(1),
        default=3,
        help="a track that so many samples in a row do not show ends (default: 3)",
    )
    parser.add_argument("--no-scores", action="store_true", help="only write the tracks")
    args = parser.parse_args(arguments)
    check_dataset(parser, args)
    return args


def written_tracks(args: argparse.Namespace, records: FrameRecords) -> Path:
    """The file of tracks: the given one, or a new one of the given detections.

    Raises:
        InputError: there is nothing to do, the file would be overwritten, or it has a fault.
    """
    results = read_results(args.results)
    if is_tracking(results):
        if args.no_scores or not records.has_annotations:
            reason = "--no-scores" if args.no_scores else "a split without annotations"
            raise InputError(f"{args.results} has tracks already; {reason} leaves nothing to do")
        return args.results
    path = args.out / RESULTS_FILE
    if path.resolve() == args.results.resolve():
        raise InputError(f"--out {args.out} would overwrite {args.results}; name another folder")
    boxes = boxes_of_results(args.results, results, records)
    rules = GreedyRules(
        radii=args.radii,
        hungarian=args.hungarian,
        score_threshold=args.score_threshold,
        max_age=args.max_age,
    )
    tracks = track_scenes(build_tracker(rules, records.spec), boxes, records)
    pairs = zip(boxes, tracks, strict=True)
    write_result_lines(path, (tracking_line(found, ids, records.spec) for found, ids in pairs))
    print(f"wrote {path}")
    return path


def track(args: argparse.Namespace) -> None:
    """Tracks what has no ids, and scores it."""
    records = open_records(args)
    scoring = Scoring.of(records.spec)
    scored = not args.no_scores and records.has_annotations
    if scored and scored_names(scoring):  # before minutes of tracking
        check_devkit(records, scoring)
        check_tracking_devkit()
    path = written_tracks(args, records)
    if scored:
        with devkit_refusals(path, "tools/track.py"):
            summary = evaluate_tracks(path, records, args.out)
        print(printed_tracking_table(summary))
    elif not args.no_scores:
        print("the split has no annotations: no scores")


@one_line_errors(OmegaConfBaseException)
def main(arguments: list[str] | None = None) -> None:
    """Runs the tool."""
    track(parse_arguments(arguments))


if __name__ == "__main__":
    main()

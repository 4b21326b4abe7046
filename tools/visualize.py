#!/usr/bin/env python
"""Draws the detections of a results file over the cameras and a bird's-eye view."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import cv2
from named_dataset import add_dataset, check_dataset, open_records
from omegaconf.errors import OmegaConfBaseException

from streampetr_vit.command_line import above_0, at_least, file_path, not_negative
from streampetr_vit.data.nuscenes.records import FrameRecords
from streampetr_vit.errors import InputError, one_line_errors
from streampetr_vit.evaluation.result_format import detections_from_records, read_results
from streampetr_vit.progress import progress
from streampetr_vit.texts import file_name
from streampetr_vit.visualization import draw_record, save_picture, video_writer

EXAMPLES = """
examples:
  the first 20 frames that a configuration evaluates:
    python tools/visualize.py --config-file configs/quickstart.py \\
        --results output/quickstart/inference/results_nusc.json --out output/pictures --frames 20
  any results file on any nuScenes-format data, as pictures and as a video:
    python tools/visualize.py --dataset datasets/nuscenes v1.0-trainval val \\
        --results results_nusc.json --out pictures --scenes scene-0003 --video
  only the true boxes:
    python tools/visualize.py --dataset datasets/nuscenes v1.0-mini mini_val --out pictures
"""


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    """Reads the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_dataset(parser)
    parser.add_argument(
        "--results", type=file_path, help="nuScenes results JSON; without it only true boxes"
    )
    parser.add_argument("--out", type=file_path, required=True, help="folder for the pictures")
    parser.add_argument("--score-threshold", type=not_negative, default=0.25, help="default: 0.25")
    parser.add_argument("--frames", type=at_least(1), help="draw at most so many frames")
    parser.add_argument(
        "--scenes",
        nargs="+",
        help="draw only these scenes (an unknown name lists those that exist)",
    )
    parser.add_argument(
        "--range", type=above_0, default=51.2, help="of the view from above, metres"
    )
    parser.add_argument(
        "--width", type=at_least(16), default=640, help="of one camera picture, pixels"
    )
    parser.add_argument("--no-truth", action="store_true", help="do not draw the true boxes")
    parser.add_argument("--video", action="store_true", help="write OUT/video.mp4 at 2 Hz as well")
    args = parser.parse_args(arguments)
    check_dataset(parser, args)
    return args


def draw_frames(args: argparse.Namespace, records: FrameRecords) -> list[Path]:
    """Draws the frames into files that sort by time.

    Returns:
        The files, in order.

    Raises:
        InputError: the results hold none of these samples.
    """
    results = read_results(args.results) if args.results else {}
    if args.scenes:
        records = records.select_scenes(args.scenes)
    if results and not any(token in results for token in records.tokens):
        raise InputError(
            f"{args.results} holds none of the {len(records)} samples of the data set; it was made "
            "for another data set, version or split"
        )
    without = sum(token not in results for token in records.tokens)
    if results and without:
        print(
            f"{args.results} holds {len(records) - without} of the {len(records)} samples: the "
            "others are drawn without detections",
            file=sys.stderr,
        )
    files = []
    count = len(records) if args.frames is None else min(args.frames, len(records))
    for index in progress(range(count), "pictures"):
        record = records[index]
        detections = None
        if args.results:
            detections = detections_from_records(
                results.get(record.token, ()),
                record.lidar_to_ego,
                record.ego_to_global,
                records.spec.class_names,
            )
        picture = draw_record(
            record, detections, args.score_threshold, args.range, args.width, not args.no_truth
        )
        files.append(args.out / f"{index:05d}_{file_name(record.scene_name)}.png")
        save_picture(files[-1], picture)
    return files


def write_video(path: Path, files: list[Path], frames_per_second: float = 2.0) -> None:
    """Joins pictures of equal size to an MP4 file.

    Raises:
        InputError: they are not of one size: scenes of several data sets, for instance.
        OutputError: it cannot be encoded or written.
    """
    with video_writer(path, frames_per_second) as video:
        for file in progress(files, "video"):
            video.write(cv2.cvtColor(cv2.imread(str(file)), cv2.COLOR_BGR2RGB))


@one_line_errors(OmegaConfBaseException)
def main(arguments: list[str] | None = None) -> None:
    """Draws, and says where."""
    args = parse_arguments(arguments)
    files = draw_frames(args, open_records(args))
    print(f"{len(files)} pictures in {args.out}")
    if args.video:
        video = args.out / "video.mp4"
        write_video(video, files)
        print(f"video: {video}")


if __name__ == "__main__":
    main()

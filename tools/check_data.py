"""Checks a nuScenes-format data set, or the rig of your own car.

Of a data set (--root): counts, times, pictures, and boxes drawn on the pictures. For some frames it
writes two PNG files. NAME_stored.png has the stored pictures and a view from above.
NAME_network.png has what the network sees in training: resized, cropped and flipped pictures in a
rotated and scaled lidar frame. The boxes must lie on the objects in both.

Of a rig (--rig), with a drive (--folder) or without: the classic mistakes of calibrations and
poses. It writes PNG files with the road, distances and the horizon, as the calibration says, and
given boxes (--boxes) on the pictures, and the cameras from above. The status is 1 where something
looks wrong.

Example:
    python tools/check_data.py --root datasets/synthetic --version v1.0-trainval --split val \\
        --out output/check --input-size 160x400 --resize 0.9 1.1
    python tools/check_data.py --rig drive/rig.yaml --folder drive --out output/check_rig
"""

from __future__ import annotations

import argparse
import logging
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from streampetr_vit.command_line import above_0, add_trust, at_least, file_path, not_negative
from streampetr_vit.data.checks import broken_pictures, evenly_spaced, summarise
from streampetr_vit.data.mapper import NuScenesMapper
from streampetr_vit.data.nuscenes.catalog import load_split
from streampetr_vit.data.nuscenes.records import FrameRecord, FrameRecords
from streampetr_vit.data.transforms import ImageAugmentation, SceneAugmentation
from streampetr_vit.engine import load_spec
from streampetr_vit.errors import InputError, one_line_errors
from streampetr_vit.inference.checks import DriveCheck
from streampetr_vit.inference.checks.boxes import read_boxes
from streampetr_vit.inference.sources import FolderSource
from streampetr_vit.inference.undistorted_moments import UndistortedMoments
from streampetr_vit.inference.undistortion import undistorted
from streampetr_vit.progress import Progress, progress
from streampetr_vit.structures import Detections, Rig
from streampetr_vit.texts import file_name, name_list
from streampetr_vit.visualization import camera_grid, draw_cameras, draw_record, save_picture
from streampetr_vit.visualization.rig_picture import draw_rig

_OF_DATA_SETS = ("version", "split", "config_file", "resize")

ADVICE = (
    "Restore these files; or go on with black pixels in their place: "
    "dataloader.train.mapper.on_bad_image=count in a training, "
    "dataloader.test.mapper.on_bad_image=count in an evaluation"
)


def parse_arguments(argv: list[str] | None = None) -> argparse.Namespace:
    """Reads the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--root", type=file_path, help="folder with samples/ and v1.0-*/")
    what.add_argument("--rig", type=file_path, help="file that describes your cameras")
    parser.add_argument(
        "--folder", type=file_path, help="with --rig: a drive, frames.csv and pictures or videos"
    )
    parser.add_argument(
        "--boxes",
        type=file_path,
        help="with --folder: draw these too, an objects.jsonl of tools/predict.py or in its form",
    )
    parser.add_argument(
        "--score-threshold", type=not_negative, default=0.25, help="of --boxes (default: 0.25)"
    )
    parser.add_argument("--version", help="with --root: table folder, for example v1.0-mini")
    parser.add_argument("--split", help="default: all scenes")
    parser.add_argument(
        "--config-file",
        help="recipe whose dataset_spec names classes and cameras (default: nuScenes)",
    )
    add_trust(parser)
    parser.add_argument("--out", type=file_path, required=True, help="folder of the pictures")
    parser.add_argument("--draw", type=at_least(0), default=4, help="frames to draw (default 4)")
    parser.add_argument(
        "--read", type=at_least(0), default=50, help="frames whose pictures are decoded (0: all)"
    )
    parser.add_argument(
        "--input-size", type=_size, default=(320, 800), metavar="HxW", help="of the network"
    )
    parser.add_argument(
        "--resize",
        type=above_0,
        nargs=2,
        metavar=("LOW", "HIGH"),
        help="range of scales, relative to the stored picture (default: 0.94 to 1.25 of the scale "
        "that fills the input)",
    )
    parser.add_argument("--seed", type=at_least(0), default=0)
    arguments = parser.parse_args(argv)
    if arguments.root is not None and arguments.version is None:
        parser.error("--root needs --version, for example --version v1.0-mini")
    if arguments.boxes is not None and arguments.rig is not None and arguments.folder is None:
        parser.error("--boxes needs --folder, the drive that they are of")
    foreign = ("folder", "boxes") if arguments.rig is None else _OF_DATA_SETS
    for name in foreign:
        if getattr(arguments, name) is not None:
            other = "--root" if arguments.rig is None else "--rig"
            parser.error(f"--{name.replace('_', '-')} does not go with {other}")
    return arguments


def _size(text: str) -> tuple[int, int]:
    height, _, width = text.lower().partition("x")
    if not (height.isdigit() and width.isdigit() and int(height) and int(width)):
        raise argparse.ArgumentTypeError(f"{text!r} is not HEIGHTxWIDTH, for example 320x800")
    return int(height), int(width)


def training_mapper(arguments: argparse.Namespace, record: FrameRecord) -> NuScenesMapper:
    """A mapper with the augmentation of training."""
    # (1, 1): the scale at which the stored picture fills the input; the recipes draw around it.
    fill = ImageAugmentation(arguments.input_size, (1.0, 1.0))
    width, height = record.image_sizes[0].tolist()
    scale = fill.fixed((width, height)).scale
    resize = arguments.resize or (0.94 * scale, 1.25 * scale)
    return NuScenesMapper(
        training=True,
        image_aug=ImageAugmentation(arguments.input_size, resize),
        scene_aug=SceneAugmentation(),
    )


def draw_network_input(mapper: NuScenesMapper, record: FrameRecord, seed: int) -> np.ndarray:
    """The pictures that the network sees, with the boxes of the same sample."""
    sample = mapper(record, rng=np.random.default_rng(seed))
    images = sample.images.permute(0, 2, 3, 1).contiguous().numpy()  # (N, 3, H, W) -> (N, H, W, 3)
    truth = None
    if sample.gt_boxes is not None and sample.gt_labels is not None:
        # Drawn like detections: ground truth has no scores.
        truth = Detections(sample.gt_boxes, torch.ones(len(sample.gt_boxes)), sample.gt_labels)
    panels = draw_cameras(list(images), sample.lidar_to_image.numpy(), record.spec, truth)
    return camera_grid(panels, record.spec.cameras)


def draw_frames(arguments: argparse.Namespace, records: FrameRecords) -> list[Path]:
    """Writes the pictures; returns their paths."""
    written = []
    for index in evenly_spaced(arguments.draw, len(records)):
        record = records[index]
        name = f"{file_name(record.scene_name)}_{index:05d}"
        mapper = training_mapper(arguments, record)
        pictures = {
            "stored": draw_record(record, None),
            "network": draw_network_input(mapper, record, arguments.seed + index),
        }
        for kind, picture in pictures.items():
            written.append(arguments.out / f"{name}_{kind}.png")
            save_picture(written[-1], picture)
    return written


def check_rig(arguments: argparse.Namespace) -> int:
    """Prints and draws what a calibration says; the exit status, 1 where something looks wrong."""
    rig = Rig.load(arguments.rig)
    check = DriveCheck(rig)
    if arguments.folder is None:
        straight = Rig([undistorted(c).camera for c in rig.cameras], rig.reference_to_vehicle)
        written = [arguments.out / "rig.png"]
        save_picture(written[0], draw_rig(straight, title=str(arguments.rig)))
    else:
        written = draw_drive(arguments, check, rig)
    print(*check.summary(), *written, sep="\n")
    mistakes = check.mistakes()
    for mistake in mistakes:
        print(f"mistake? {mistake}", file=sys.stderr)
    return 1 if mistakes else 0


def draw_drive(arguments: argparse.Namespace, check: DriveCheck, rig: Rig) -> list[Path]:
    """Shows all moments of a drive to the check and draws some; the paths of the pictures."""
    source, straighten, written = FolderSource(arguments.folder), UndistortedMoments(), []
    if set(rig.names) != set(source.rig.names):
        raise InputError(
            f"{arguments.rig} has the cameras {name_list(rig.names)}, and that of the drive has "
            f"{name_list(source.rig.names)}: give a rig of the same cameras"
        )
    given = {}
    if arguments.boxes is not None:
        given = read_boxes(arguments.boxes, arguments.score_threshold)
    total = sum(count for _, count in source.scenes)
    chosen = evenly_spaced(arguments.draw, total)
    moments = (moment for scene, _ in source.scenes for moment in source.frames(scene))
    named = 0  # frames with given boxes
    with Progress("looking over", total, "frames") as bar:
        for index, found in enumerate(moments):
            moment = replace(found, rig=rig)
            check.add(moment)
            if index in chosen:
                drawn = straighten(moment)
                written.append(arguments.out / f"{file_name(moment.scene)}_{index:05d}_rig.png")
                title = f"{moment.scene}   frame {moment.name}   {moment.timestamp_s:.2f} s"
                boxes = given.get((moment.scene, moment.name))
                save_picture(written[-1], draw_rig(drawn.rig, drawn, boxes=boxes, title=title))
            named += (moment.scene, moment.name) in given
            bar.update()
    if given and not named:
        raise InputError(
            f"{arguments.boxes} has boxes of other frames, the first is {next(iter(given))}: give "
            "the file of this drive"
        )
    return written


@one_line_errors()
def main(argv: list[str] | None = None) -> int:
    """Runs the tool; returns the exit status, 1 if pictures are broken or a rig looks wrong."""
    arguments = parse_arguments(argv)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    if arguments.rig is not None:
        return check_rig(arguments)
    spec = load_spec(arguments.config_file, arguments.trust)
    records = load_split(arguments.root, arguments.version, arguments.split, spec=spec)
    print(summarise(records))
    indices = evenly_spaced(arguments.read or len(records), len(records))
    problems = broken_pictures(records, indices, lambda rows: progress(rows, "pictures"))
    print(f"decoded the pictures of {len(indices)} frames: {len(problems)} are broken")
    for problem in problems:
        print(f"error: {problem}", file=sys.stderr)
    if problems:
        print(ADVICE, file=sys.stderr)
        return 1
    for path in draw_frames(arguments, records):
        print(path)
    return 0


if __name__ == "__main__":
    sys.exit(main())

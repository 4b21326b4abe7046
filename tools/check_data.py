"""Checks a nuScenes-format data set: counts, times, pictures, and boxes drawn on the pictures.

For some frames it writes two PNG files. NAME_stored.png has the stored pictures and a view from
above. NAME_network.png has what the network sees in training: resized, cropped and flipped pictures
in a rotated and scaled lidar frame. The boxes must lie on the objects in both.

Example:
    python tools/check_data.py --root datasets/synthetic --version v1.0-trainval --split val \\
        --out output/check --input-size 160x400 --resize 0.9 1.1
"""

from __future__ import annotations

import argparse
import logging
import sys
from pathlib import Path

import numpy as np
import torch

from streampetr_vit.command_line import above_0, add_trust, at_least, file_path
from streampetr_vit.data.checks import broken_pictures, evenly_spaced, summarise
from streampetr_vit.data.mapper import NuScenesMapper
from streampetr_vit.data.nuscenes.catalog import load_split
from streampetr_vit.data.nuscenes.records import FrameRecord, FrameRecords
from streampetr_vit.data.transforms import ImageAugmentation, SceneAugmentation
from streampetr_vit.engine import load_spec
from streampetr_vit.errors import one_line_errors
from streampetr_vit.progress import progress
from streampetr_vit.structures import Detections
from streampetr_vit.texts import file_name
from streampetr_vit.visualization import camera_grid, draw_cameras, draw_record, save_picture

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
    parser.add_argument(
        "--root", type=file_path, required=True, help="folder with samples/ and v1.0-*/"
    )
    parser.add_argument("--version", required=True, help="table folder, for example v1.0-mini")
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
    return parser.parse_args(argv)


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


@one_line_errors()
def main(argv: list[str] | None = None) -> int:
    """Runs the tool; returns the exit status, 1 if pictures are broken."""
    arguments = parse_arguments(argv)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
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

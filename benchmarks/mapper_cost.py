"""CPU time of turning records into samples: reading, decoding and transforming six pictures.

Also of packing the small tensors of two samples with 2D boxes, as for their copy to the device.

Example:
    python tools/make_synthetic_nuscenes.py --scenes 1 --val-scenes 1 --frames 6 \\
        --image-size 1600x900 --out /tmp/full_size
    python benchmarks/mapper_cost.py --root /tmp/full_size --version v1.0-mini \\
        --input-size 320 800 --resize 0.47 0.625
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import cv2
import numpy as np
import torch

from streampetr_vit.data.boxes2d import transform_boxes2d
from streampetr_vit.data.mapper import NuScenesMapper
from streampetr_vit.data.nuscenes.catalog import load_split
from streampetr_vit.data.nuscenes.records import FrameRecords
from streampetr_vit.data.projected_boxes import boxes2d_of_record
from streampetr_vit.data.transforms import ImageAugmentation, SceneAugmentation
from streampetr_vit.structures.packed_copy import carried
from streampetr_vit.structures.tensors import tensors_of


def milliseconds_per_frame(mapper: NuScenesMapper, records: FrameRecords, frames: int) -> float:
    """CPU milliseconds of this process per frame, after one pass over the records."""
    for index in range(len(records)):
        mapper(records[index], rng=np.random.default_rng(index))
    started = time.process_time()
    for number in range(frames):
        mapper(records[number % len(records)], rng=np.random.default_rng(number))
    return 1e3 * (time.process_time() - started) / frames


def boxes2d_milliseconds(mapper: NuScenesMapper, records: FrameRecords, frames: int) -> float:
    """CPU milliseconds per frame that `NuScenesMapper(boxes2d=True)` costs beside the pictures."""
    rng, spent = np.random.default_rng(0), 0.0
    for number in range(-len(records), frames):  # the first pass warms up
        record = records[number % len(records)]
        width, height = record.image_sizes[0].tolist()
        draw = mapper.image_aug.draw((width, height), rng)
        started = time.process_time()
        for boxes in boxes2d_of_record(record):
            transform_boxes2d(boxes, draw)
        spent += (time.process_time() - started) * (number >= 0)
    return 1e3 * spent / frames


def packing_milliseconds(mapper: NuScenesMapper, records: FrameRecords) -> tuple[int, float]:
    """Tensors of two samples but the pictures, and CPU milliseconds of packing and unpacking."""
    samples = [mapper(records[index], rng=np.random.default_rng(index)) for index in (0, 1)]
    for sample, index in zip(samples, (0, 1), strict=True):
        del sample["images"]
        sample["boxes2d"] = boxes2d_of_record(records[index])
    tensors = tensors_of(samples)
    calls, started = 200, time.process_time()
    for _ in range(calls):
        carried(samples, lambda packed: packed)
    return len(tensors), 1e3 * (time.process_time() - started) / calls


def main() -> int:
    """Runs the benchmark; returns the exit status."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--root", type=Path, required=True)
    parser.add_argument("--version", required=True)
    parser.add_argument("--input-size", type=int, nargs=2, required=True, metavar=("H", "W"))
    parser.add_argument("--resize", type=float, nargs=2, required=True, metavar=("LOW", "HIGH"))
    parser.add_argument("--flip", type=float, default=0.5)
    parser.add_argument("--cache-images", action="store_true")
    parser.add_argument("--frames", type=int, default=30)
    arguments = parser.parse_args()
    cv2.setNumThreads(0)  # as in a loading process
    torch.set_num_threads(1)
    mapper = NuScenesMapper(
        training=True,
        image_aug=ImageAugmentation(arguments.input_size, arguments.resize, arguments.flip),
        scene_aug=SceneAugmentation(),
        cache_images=arguments.cache_images,
    )
    records = load_split(arguments.root, arguments.version)
    width, height = records.image_sizes[0, 0].tolist()
    cost = milliseconds_per_frame(mapper, records, arguments.frames)
    target = "x".join(map(str, reversed(arguments.input_size)))
    print(f"{width}x{height} -> {target} (width x height): {cost:.1f} ms of CPU per frame")
    cost = boxes2d_milliseconds(mapper, records, arguments.frames)
    boxes = np.mean([len(record.gt_boxes) for record in records])
    print(f"2D boxes of {boxes:.0f} objects: {cost:.1f} ms more")
    count, cost = packing_milliseconds(mapper, records)
    print(f"{count} small tensors of two samples: {cost:.2f} ms to pack and unpack")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())

#!/usr/bin/env python
"""What the predictor costs beside the detector: checks, matrices, resize, objects.

    python benchmarks/predictor_cost.py [--config-file configs/quickstart.py] [--size 400x225]

Plays moments of six cameras, pictures as arrays, through `Predictor` and through
`detector.detect`, in turn, and prints the median CPU time of both in milliseconds. Weights are
random: no time depends on them.
"""

from __future__ import annotations

import argparse
import itertools
import statistics
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from scipy.spatial.transform import Rotation

from streampetr_vit.command_line import at_least
from streampetr_vit.data.nuscenes.spec import NUSCENES, NUSCENES_LIDAR_TO_VEHICLE
from streampetr_vit.engine import load_config
from streampetr_vit.engine.config import call, instantiate_model
from streampetr_vit.errors import one_line_errors
from streampetr_vit.inference import Moment, Predictor, Rig
from streampetr_vit.inference.loading import LoadedDetector
from streampetr_vit.structures import Camera, Frame, Pose

ROOT = Path(__file__).resolve().parents[1]
DIRECTIONS = (0, -55, 55, 180, 110, -110)  # degrees left of forward
AXES = np.array([[0, 0, 1], [-1, 0, 0], [0, -1, 0]])  # a camera that looks forward -> vehicle


def make_rig(width: int, height: int) -> Rig:
    """Six cameras around a car."""
    intrinsics = [[0.8 * width, 0, width / 2], [0, 0.8 * width, height / 2], [0, 0, 1]]
    cameras = []
    for degrees in DIRECTIONS:
        pose = np.eye(4)
        pose[:3, :3] = Rotation.from_euler("z", degrees, degrees=True).as_matrix() @ AXES
        pose[2, 3] = 1.5
        name = f"camera_{len(cameras)}"
        cameras.append(Camera(name, width, height, np.array(intrinsics), Pose.of_matrix(pose)))
    return Rig(cameras)


def in_turn(calls: list[Callable[[], object]], rounds: int) -> list[float]:
    """Median CPU time of each call in milliseconds."""
    times: list[list[float]] = [[] for _ in calls]
    for number in range(rounds + 2):
        for call_, found in zip(calls, times, strict=True):
            start = time.process_time()
            call_()
            if number >= 2:  # the first ones make tables
                found.append(1e3 * (time.process_time() - start))
    return [statistics.median(found) for found in times]


@one_line_errors()
def main() -> None:
    """Measures, and prints a line for each part."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--config-file", default=str(ROOT / "configs" / "quickstart.py"))
    parser.add_argument("--size", default="400x225", help="WIDTHxHEIGHT of the pictures")
    parser.add_argument("--rounds", type=at_least(1), default=100)
    args = parser.parse_args()
    torch.set_num_threads(1)
    width, height = map(int, args.size.split("x"))
    cfg = load_config(args.config_file, ["train.device=cpu"])
    detector = instantiate_model(cfg).eval()
    loaded = LoadedDetector(
        detector=detector,
        image_aug=call(cfg.dataloader.test.mapper).image_aug,
        spec=NUSCENES,
        reference_to_vehicle=Pose.of_row(NUSCENES_LIDAR_TO_VEHICLE),
        frame_period_s=0.5,
        precision="float32",
        memory=True,
        weights="",
        identity="",
    )
    predictor = Predictor(loaded)
    rig = make_rig(width, height)
    noise = np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)
    moment = Moment({name: noise for name in rig.names}, rig, Pose.of_matrix(np.eye(4)), 0.0)
    frame = Frame.collate([predictor.prepare(moment).sample])
    memory = detector.empty_memory(1)
    code = detector.head.encode_rig(frame.rig, detector.padded_size(frame.image_size))
    times = itertools.count(step=0.5)
    calls = [
        lambda: predictor.predict_batch([replace(moment, timestamp_s=next(times))]),
        lambda: detector.detect(frame, memory, code)[0].unpad(),
        lambda: predictor.prepare(moment),
    ]
    whole, alone, prepare = in_turn(calls, args.rounds)
    print(f"predictor {whole:.2f} ms, detector.detect {alone:.2f} ms (CPU time, one thread)")
    rest = whole - alone - prepare
    print(f"of the predictor: prepare {prepare:.2f} ms, everything else {rest:.2f} ms")
    print(f"overhead {whole - alone:.2f} ms, {100 * (whole - alone) / alone:.1f} % of detect")


if __name__ == "__main__":
    main()

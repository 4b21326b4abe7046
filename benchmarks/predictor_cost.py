#!/usr/bin/env python
"""What the predictor costs beside the detector: checks, matrices, resize, objects.

    python benchmarks/predictor_cost.py [--config-file configs/quickstart.py] [--size 400x225]

Times `detector.detect` on a frame that is ready, and `Predictor` with the same detector but without
its `detect`: checks, resize and crop, matrices, objects. Six cameras, pictures as arrays. Weights
are random: no time depends on them.
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


def cpu_ms(call_: Callable[[], object], rounds: int) -> float:
    """Median CPU time of a call in milliseconds."""
    times = []
    for _ in range(rounds):
        start = time.process_time()
        call_()
        times.append(1e3 * (time.process_time() - start))
    return statistics.median(times)


@one_line_errors()
def main() -> None:
    """Measures, and prints a line for each part."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--config-file", default=str(ROOT / "configs" / "quickstart.py"))
    parser.add_argument("--size", default="400x225", help="WIDTHxHEIGHT of the pictures")
    parser.add_argument("--rounds", type=at_least(1), default=30, help="of detect")
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

    def predict() -> None:
        predictor.predict_batch([replace(moment, timestamp_s=next(times))])

    predict()  # the code of the rig and the tables of the network are made once
    detect = detector.detect
    kept = detect(frame, memory, code)
    alone = cpu_ms(lambda: detect(frame, memory, code)[0].unpad(), args.rounds)
    # The network's time swings by more than what is to be measured: it is left out.
    detector.detect = lambda *_: kept
    own, prepare = (
        cpu_ms(run, 10 * args.rounds) for run in (predict, lambda: predictor.prepare(moment))
    )
    print(f"detector.detect {alone:.2f} ms (CPU time of one thread, median)")
    share = 100 * own / alone
    print(f"the predictor beside it {own:.2f} ms, {share:.1f} %; preparation {prepare:.2f} of them")


if __name__ == "__main__":
    main()

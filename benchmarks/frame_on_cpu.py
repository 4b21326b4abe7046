#!/usr/bin/env python
"""Time and peak memory of one frame of six cameras through a full-size detector, random weights.

    python benchmarks/frame_on_cpu.py --config-file configs/repdetr3d_eva02_l_800x320_24ep.py \\
        model.head.decoder.sampling_kernel=gather
"""

from __future__ import annotations

import argparse
import platform
import resource
import time

import torch
from detectron2.config import instantiate

from streampetr_vit.engine import load_config
from streampetr_vit.structures import CameraRig, Frame


def random_frame(height: int, width: int) -> Frame:
    """Six cameras that look around, at the origin."""
    angles = torch.arange(6) * (2 * torch.pi / 6)
    c, s, zero = angles.cos(), angles.sin(), torch.zeros(6)
    to_camera = torch.eye(4).repeat(6, 1, 1)
    to_camera[:, 0, :3] = torch.stack((s, -c, zero), dim=1)
    to_camera[:, 1, :3] = torch.tensor([0.0, 0.0, -1.0])
    to_camera[:, 2, :3] = torch.stack((c, s, zero), dim=1)
    intrinsics = torch.eye(4).repeat(6, 1, 1)
    intrinsics[:, 0, 0] = intrinsics[:, 1, 1] = 0.8 * width
    intrinsics[:, 0, 2], intrinsics[:, 1, 2] = width / 2, height / 2
    return Frame(
        images=torch.randint(0, 256, (1, 6, 3, height, width), dtype=torch.uint8),
        rig=CameraRig((intrinsics @ to_camera)[None], intrinsics[None], to_camera[None]),
        lidar_to_global=torch.eye(4)[None],
        global_to_lidar=torch.eye(4)[None],
        timestamp_s=torch.zeros(1, dtype=torch.float64),
        continues_stream=torch.tensor([False]),
    )


def main() -> None:
    """Runs one frame and prints the row."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--config-file", required=True)
    parser.add_argument("overrides", nargs="*", help="changes of the configuration, key=value")
    args = parser.parse_args()
    cfg = load_config(args.config_file, args.overrides)
    model = instantiate(cfg.model).eval()
    frame = random_frame(*cfg.dataloader.train.mapper.image_aug.final_size)
    with torch.no_grad():
        start = time.perf_counter()
        features = model.image_features(frame.images)
        middle = time.perf_counter()
        output, _ = model.head(features, frame, model.empty_memory(1))
        model.head.detections(output)
        end = time.perf_counter()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(
        f"{args.config_file}: image branch {middle - start:.1f} s, head {end - middle:.1f} s, "
        f"peak {peak:.1f} GiB; {torch.get_num_threads()} threads, {platform.machine()}, "
        f"Python {platform.python_version()}, torch {torch.__version__}, {time.strftime('%F')}"
    )


if __name__ == "__main__":
    main()

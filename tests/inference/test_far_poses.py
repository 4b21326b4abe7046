"""Where the global frame begins makes no difference: poses may be thousands of kilometres long."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from tiny_detector import make_bare_detector, make_detector, make_repdetr3d, make_sample
from torch import Tensor

from streampetr_vit.inference import Stream
from streampetr_vit.modeling.detector import StreamPETR
from streampetr_vit.structures import Detections, Frame, Pose, Sample

UTM_M = np.array([500_000.0, 5_000_000.0, 300.0])
FRAMES = 4


def drive(shift_m: np.ndarray, dtype: torch.dtype = torch.float64) -> list[Sample]:
    """A car that drives a bend, its poses moved."""
    samples = []
    for time in range(FRAMES):
        yaw = 0.1 * time
        turn = np.array([np.cos(yaw / 2), 0, 0, np.sin(yaw / 2)])
        pose = Pose(np.array([600.123 + 2.3456 * time, 80.7 + yaw, 0.1]) + shift_m, turn).matrix()
        matrices = {"lidar_to_global": pose, "global_to_lidar": np.linalg.inv(pose)}
        tensors = {name: torch.from_numpy(m).to(dtype) for name, m in matrices.items()}
        samples.append(replace(make_sample(time), **tensors))
    return samples


def played(detector: StreamPETR, samples: list[Sample]) -> list[Detections]:
    stream = Stream(detector)
    return [stream.push(Frame.collate([sample])).unpad()[0] for sample in samples]


def difference(one: list[Detections], other: list[Detections]) -> float:
    """The largest, in metres and in scores."""
    pairs = [(a.boxes - b.boxes, a.scores - b.scores) for a, b in zip(one, other, strict=True)]
    return max(float(value.abs().max()) for pair in pairs for value in pair)


@pytest.mark.parametrize("make", [make_detector, make_repdetr3d])
def test_a_far_origin_changes_no_detection(make: Callable[[], StreamPETR]) -> None:
    detector = make().eval()
    near, far = played(detector, drive(0 * UTM_M)), played(detector, drive(UTM_M))
    assert difference(near, far) < 1e-5  # float64 rounds UTM coordinates to 1 nm
    # What happened before: poses as float32, and all that follows from them.
    rounded = played(detector, drive(UTM_M, torch.float32))
    assert difference(near, rounded) > 1e-3


def test_a_far_origin_changes_no_training() -> None:
    def losses(shift_m: np.ndarray) -> Tensor:
        model = make_bare_detector().train()
        torch.manual_seed(0)
        totals = [sum(model([sample]).values()) for sample in drive(shift_m)]
        return torch.stack(totals).detach()

    torch.testing.assert_close(losses(UTM_M), losses(0 * UTM_M), atol=0, rtol=1e-5)


def test_float32_poses_near_the_origin_will_do() -> None:
    """The published form of the data."""
    detector = make_detector().eval()
    exact = played(detector, drive(0 * UTM_M))
    assert difference(played(detector, drive(0 * UTM_M, torch.float32)), exact) < 1e-3

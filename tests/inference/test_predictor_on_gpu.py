"""The predictor on a CUDA device equals the one on the CPU. Skipped where there is none."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_car import make_moment, make_predictor
from tiny_detector import make_detector

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
]


@pytest.mark.parametrize("cuda_graph", [False, True], ids=["eager", "graph"])
def test_a_drive_with_a_camera_that_drops_out(cuda_graph: bool, tmp_path: Path) -> None:
    on_cpu = make_predictor(make_detector().eval())
    on_gpu = make_predictor(make_detector().eval().cuda(), cuda_graph=cuda_graph)
    for frame in range(6):
        moment = make_moment(0.5 * frame)
        if frame in (2, 3):
            moment.pictures["rear"] = None
        if frame == 4:  # as after a restart
            on_gpu.save_state(tmp_path / "state")
            on_gpu.load_state(tmp_path / "state")
        (expected,), (found,) = (p.predict_batch([moment]) for p in (on_cpu, on_gpu))
        assert found.starts_scene == expected.starts_scene and found.cameras == expected.cameras
        # Scores that are nearly equal may change places.
        np.testing.assert_allclose(found.scores, expected.scores, atol=1e-3)

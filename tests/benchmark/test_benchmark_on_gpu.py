"""What times and counts memory on a GPU; needs one."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from streampetr_vit.benchmark.frames import measure_latency
from streampetr_vit.benchmark.measuring import PeakMemory, Stopwatch
from streampetr_vit.benchmark.session import Session
from streampetr_vit.benchmark.training import measure_training

QUICKSTART = str(Path(__file__).resolve().parents[2] / "configs" / "quickstart.py")
pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]


def session(precision: str) -> Session:
    device = torch.device("cuda", 0)
    return Session(QUICKSTART, [], device, precision, repeats=2, warmup=1, peak_seconds=0.1)


def test_laps_and_memory() -> None:
    device = torch.device("cuda")
    watch, memory = Stopwatch(device), PeakMemory(device)
    watch.start()
    torch.zeros(2**28, device=device)  # 1 GiB
    watch.lap("fill")
    watch.lap("nothing")
    laps = watch.seconds()
    assert laps["fill"] > laps["nothing"] >= 0
    peak = memory.gib()
    assert peak is not None and peak >= 1


def test_latency() -> None:
    tables = measure_latency(session("bf16"), compare_plain=True)
    assert len(tables["stages, plain"]) == 4
    assert tables["fast against plain"][0]["features_rel_diff"] < 0.05


def test_training() -> None:
    policies = ("off", "block")
    tables = measure_training(session("bf16"), batch=1, policies=policies, from_data=False)
    off, block = (row["peak_memory_gib"] for row in tables["step"])
    assert 0 < block < off

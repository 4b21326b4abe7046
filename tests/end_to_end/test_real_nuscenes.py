"""A few real nuScenes frames, where they lie beside the checkout. Nothing of them is committed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from streampetr_vit.data.nuscenes import open_dataset
from streampetr_vit.data.nuscenes.build_records import load_records
from streampetr_vit.data.nuscenes.spec import (
    NUSCENES_FRAME_PERIOD_S,
    NUSCENES_LIDAR_TO_VEHICLE,
)
from streampetr_vit.data.nuscenes.typical import usual_period_s
from streampetr_vit.engine import load_config, setup, train
from streampetr_vit.visualization import draw_record

ROOT = Path(__file__).resolve().parents[2]
DATA = ROOT.parent / "shared" / "real_nuscenes"
pytestmark = pytest.mark.skipif(not DATA.is_dir(), reason=f"no real nuScenes in {DATA}")


def test_real_frames_train_are_scored_and_drawn(tmp_path: Path) -> None:
    cfg = load_config(str(ROOT / "configs" / "quickstart.py"))
    dataset = dict(
        root=str(DATA), version="v1.0-mini", split="mini_val", cache_dir=str(tmp_path / "cache")
    )
    cfg.dataloader.train.dataset = cfg.dataloader.test.dataset = dataset
    cfg.dataloader.train.sequence_split = 1
    cfg.dataloader.train.mapper.image_aug.resize_range = [0.25, 0.25]  # of 1600x900 pictures
    cfg.train.update(max_iter=4, max_seconds=None, device="cpu", output_dir=str(tmp_path / "out"))
    cfg.schedule.warmup_iters = 1
    cfg.report.memory_off = False
    setup(cfg)
    found = train(cfg)
    metrics = found["bbox3d"]
    assert 0 <= found["tracking"]["AMOTA"] <= 1
    assert 0 <= metrics["mAP"] <= 1 and 0 <= metrics["NDS"] <= 1
    results = json.loads((tmp_path / "out" / "inference" / "results_nusc.json").read_text())
    records = open_dataset(dataset)
    assert set(results["results"]) == set(records.tokens) and len(records) == 4
    picture = draw_record(records[0], None)
    assert picture.ndim == 3 and picture.std() > 20
    tracks = json.loads((tmp_path / "out/inference/tracking/results_nusc.json").read_text())
    assert set(tracks["results"]) == set(records.tokens)
    # Four of frames, one of tracks: the only scene is too short for two.
    assert (tmp_path / "out" / "report.html").read_text().count("data:image/jpeg") == 5


def test_files_that_record_no_frame_get_that_of_most_cars(tmp_path: Path) -> None:
    records = load_records(DATA, "v1.0-mini", cache_dir=tmp_path)
    assert NUSCENES_LIDAR_TO_VEHICLE in [tuple(row) for row in records.lidar_to_ego.tolist()]
    assert usual_period_s(records) == pytest.approx(NUSCENES_FRAME_PERIOD_S, abs=0.06)

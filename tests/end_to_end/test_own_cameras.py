"""Somebody's own car: four cameras of two picture sizes, two classes, no lidar, own names."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import cv2
import pytest

from synthetic_nuscenes import CameraSpec, SyntheticConfig, generate

ROOT = Path(__file__).resolve().parents[2]
WIDE, NARROW = (400, 225), (320, 240)
CONFIG = SyntheticConfig(
    train_scenes=2,
    val_scenes=1,
    frames=4,
    cameras=(
        CameraSpec("front", 0.0, 100.0, WIDE),
        CameraSpec("left", 90.0, 90.0, NARROW),
        CameraSpec("rear", 180.0, 100.0, WIDE),
        CameraSpec("right", -90.0, 90.0, NARROW),
    ),
    category_names={
        "vehicle.car": "wheels.small",
        "vehicle.truck": "wheels.large",
        "human.pedestrian.adult": "walker",
    },
    lidar=False,
    own_version="v1.0-mine",
)
RECIPE = """
from detectron2.config import LazyConfig

recipe = LazyConfig.load_rel("{quickstart}")
dataloader, model, optimizer = recipe.dataloader, recipe.model, recipe.optimizer
schedule, train, report = recipe.schedule, recipe.train, recipe.report
dataset_spec = recipe.dataset_spec

dataset_spec.classes = [
    dict(name="vehicle", categories=["wheels.small", "wheels.large"], scored_as="car"),
    dict(name="person", categories=["walker"], scored_as="pedestrian", range_m=30.0),
]
dataset_spec.cameras = ["front", "left", "rear", "right"]
dataset_spec.lidar = None
dataset_spec.lidar_to_ego = [0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0]  # the vehicle's own frame

dataloader.train.dataset = dict(root="{data}", version="v1.0-mine", split="train")
dataloader.test.dataset = dict(root="{data}", version="v1.0-mine", split="val")
train.max_iter, train.max_seconds, schedule.warmup_iters = 3, None, 1
train.device, train.log_period = "cpu", 1
report.title = "own car"
"""


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The recipe of the car, beside its data and its output."""
    folder = tmp_path_factory.mktemp("own_car")
    data = generate(CONFIG, folder / "data", workers=1)
    quickstart = ROOT / "configs" / "quickstart.py"
    path = folder / "own_car.py"
    path.write_text(RECIPE.format(quickstart=quickstart, data=data))
    run("tools/lazyconfig_train_net.py", f"--config-file={path}", f"train.output_dir={folder}/out")
    return path


def run(*command: str, fails: bool = False) -> str:
    result = subprocess.run(
        [sys.executable, *command], cwd=ROOT, capture_output=True, text=True, timeout=300
    )
    printed = result.stderr + result.stdout
    assert (result.returncode != 0) == fails, printed[-4000:]
    return printed


def test_it_trains_and_is_scored_by_the_classes_that_the_metric_knows(recipe: Path) -> None:
    inference = recipe.parent / "out" / "inference"
    summary = json.loads((inference / "metrics_summary.json").read_text())
    assert set(summary["mean_dist_aps"]) == {"car", "pedestrian"}
    assert summary["num_gt_boxes"]["car"] > 0
    results = json.loads((inference / "results_nusc.json").read_text())["results"]
    names = {box["detection_name"] for boxes in results.values() for box in boxes}
    assert names == {"vehicle", "person"}
    assert (recipe.parent / "out" / "report.html").read_text().count("data:image/jpeg") >= 4


def test_the_weights_have_two_class_channels_and_evaluate_alone(recipe: Path) -> None:
    weights = recipe.parent / "out" / "model_final.pth"
    printed = run(
        "tools/lazyconfig_train_net.py",
        f"--config-file={recipe}",
        "--eval-only",
        f"train.init_checkpoint={weights}",
        f"train.output_dir={recipe.parent}/again",
    )
    assert "NDS: " in printed and "pedestrian" in printed and "trailer" not in printed
    first, again = (
        json.loads((recipe.parent / name / "inference" / "results_nusc.json").read_text())
        for name in ("out", "again")
    )
    assert first["results"] == again["results"]


def test_it_is_drawn(recipe: Path) -> None:
    pictures = recipe.parent / "pictures"
    run(
        "tools/visualize.py",
        f"--config-file={recipe}",
        f"--results={recipe.parent}/out/inference/results_nusc.json",
        f"--out={pictures}",
        "--frames=1",
    )
    (path,) = pictures.glob("*.png")
    picture = cv2.imread(str(path))
    # The cameras' pictures are bright, the ground that they are laid out on is dark.
    height, width = picture.shape[:2]
    cameras = picture[30 : height - 30, : width // 2]
    assert cameras.mean() > 60 and cameras.std() > 20


def test_the_data_are_checked_and_drawn_before_training(recipe: Path) -> None:
    data, out = recipe.parent / "data", recipe.parent / "checked"
    where = [f"--root={data}", "--version=v1.0-mine", f"--config-file={recipe}"]
    printed = run("tools/check_data.py", *where, f"--out={out}", "--draw=1")
    assert "vehicle" in printed and "320x240" in printed and "400x225" in printed
    assert len(list(out.glob("*.png"))) == 2
    printed = run("tools/prepare_nuscenes.py", *where, "--split=train")
    assert "scenes   2" in printed


def test_without_the_recipe_the_cameras_are_missed_in_one_line(recipe: Path) -> None:
    data = recipe.parent / "data"
    printed = run("tools/prepare_nuscenes.py", f"--root={data}", "--version=v1.0-mine", fails=True)
    assert "dataset_spec.cameras" in printed and "front, left, rear, right" in printed
    assert "Traceback" not in printed

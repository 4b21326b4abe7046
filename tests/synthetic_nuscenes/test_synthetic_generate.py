"""Making the data set: reproducible, resumable, never half finished; the command-line tool."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from pathlib import Path

import make_synthetic_nuscenes as tool
import numpy as np
import pytest
from nuscenes import NuScenes

from synthetic_nuscenes import PRESETS, SyntheticConfig, generate
from synthetic_nuscenes.generate import DONE_MARKER, PARTS_FOLDER, STARTED_MARKER

SMALL = SyntheticConfig(2, 1, 4, image_width=96, image_height=54, seed=3, lidar_files=True)


def _files(root: Path) -> dict[str, bytes]:
    return {str(p.relative_to(root)): p.read_bytes() for p in root.rglob("*") if p.is_file()}


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The small set, made by one process."""
    return generate(SMALL, tmp_path_factory.mktemp("small"), workers=1)


def test_two_processes_make_the_same_files(small: Path, tmp_path: Path) -> None:
    generate(SMALL, tmp_path / "set", workers=2)
    assert _files(tmp_path / "set") == _files(small)
    assert len(list((small / "samples").rglob("*.jpg"))) == 3 * 4 * 6
    assert len(list((small / "samples/LIDAR_TOP").glob("*.pcd.bin"))) == 3 * 4


def test_another_seed_makes_another_world(small: Path, tmp_path: Path) -> None:
    generate(dataclasses.replace(SMALL, seed=4), tmp_path / "set", workers=1)
    table = "v1.0-mini/sample_annotation.json"
    assert (tmp_path / "set" / table).read_bytes() != (small / table).read_bytes()


def test_point_clouds_can_be_read(small: Path) -> None:
    nusc = NuScenes("v1.0-mini", str(small), verbose=False)
    sample = nusc.sample[0]
    path, boxes, _ = nusc.get_sample_data(sample["data"]["LIDAR_TOP"])
    points = np.fromfile(path, dtype=np.float32).reshape(-1, 5)[:, :3]
    for box in boxes:  # already in the lidar frame
        if "rack" in box.name:
            continue
        local = (points - box.center) @ box.rotation_matrix
        inside = (np.abs(local) <= box.wlh[[1, 0, 2]] / 2 + 2e-3).all(axis=1).sum()
        count = nusc.get("sample_annotation", box.token)["num_lidar_pts"]
        assert count <= inside <= count + 3  # a ground point may touch the lower edge


def test_second_call_does_nothing(small: Path) -> None:
    before = {p: p.stat().st_mtime_ns for p in small.rglob("*")}
    assert generate(SMALL, small, workers=1) == small
    assert generate(SMALL, small, workers=1, overwrite=True) == small
    assert {p: p.stat().st_mtime_ns for p in small.rglob("*")} == before
    assert (small / DONE_MARKER).is_file() and not (small / STARTED_MARKER).exists()


def test_interrupted_run_is_continued(
    small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = sys.modules["synthetic_nuscenes.generate"]
    make_scene, started = module._make_scene, []

    def break_at_the_third(config: SyntheticConfig, name: str, index: int, out: Path) -> str:
        started.append(name)
        if len(started) == 3:
            (out / "samples/CAM_FRONT/half.jpg").write_bytes(b"half a picture")
            raise KeyboardInterrupt
        return make_scene(config, name, index, out)

    monkeypatch.setattr(module, "_make_scene", break_at_the_third)
    out = tmp_path / "set"
    with pytest.raises(KeyboardInterrupt):
        generate(SMALL, out, workers=1)
    assert not (out / DONE_MARKER).exists() and not (out / "v1.0-mini").exists()
    assert len(list((out / PARTS_FOLDER).glob("*.json"))) == 2
    generate(SMALL, out, workers=1)
    assert started[2:] == [started[2]] * 2  # the two complete scenes were kept
    (out / "samples/CAM_FRONT/half.jpg").unlink()
    assert _files(out) == _files(small)


def test_another_configuration_is_refused_or_replaced(tmp_path: Path) -> None:
    config = SyntheticConfig(1, 1, 2, image_width=64, image_height=36)
    out = generate(config, tmp_path / "set", workers=1)
    other = dataclasses.replace(config, seed=9)
    with pytest.raises(FileExistsError, match=r"seed is 0, asked for 9.*--overwrite"):
        generate(other, out, workers=1)
    generate(other, out, workers=1, overwrite=True)
    assert json.loads((out / DONE_MARKER).read_text())["config"]["seed"] == 9
    assert len(list((out / "samples").rglob("*.jpg"))) == 2 * 2 * 6


def test_foreign_folder_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "samples").mkdir()
    (tmp_path / "samples" / "real.jpg").write_bytes(b"real data")
    for overwrite in (False, True):
        with pytest.raises(FileExistsError, match="not made by this generator"):
            generate(SMALL, tmp_path, workers=1, overwrite=overwrite)
    assert (tmp_path / "samples" / "real.jpg").read_bytes() == b"real data"
    with pytest.raises(FileExistsError, match="is a file"):
        generate(SMALL, tmp_path / "samples" / "real.jpg", workers=1)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"frames": 1}, r"frames = 1 is not allowed: choose 2\.\.100"),
        ({"range_m": 100.0}, r"range_m = 100\.0 is not allowed"),
        ({"train_scenes": 701}, r"train_scenes = 701 is not allowed: choose 1\.\.700"),
        ({"image_width": 0}, "image_width = 0"),
    ],
)
def test_bad_configurations_are_named(changes: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(PRESETS["tiny"], **changes)


def test_names_follow_the_official_splits() -> None:
    from nuscenes.utils import splits

    train, val = PRESETS["quickstart"].scene_names()
    assert PRESETS["quickstart"].version == "v1.0-trainval"
    assert (len(train), len(val)) == (40, 4)
    assert set(train) <= set(splits.train) and set(val) <= set(splits.val)
    assert PRESETS["tiny"].scene_names() == (["scene-0061"], ["scene-0103"])
    assert SyntheticConfig(8, 2).version == "v1.0-mini"
    assert SyntheticConfig(9, 2).split_names == ("train", "val")


def test_tool_makes_a_set(tmp_path: Path) -> None:
    arguments = ["--preset", "tiny", "--frames", "2", "--image-size", "64x36", "--workers", "1"]
    path = Path(tool.__file__)
    command = [sys.executable, str(path), *arguments, "--out", str(tmp_path / "set")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "version v1.0-mini, splits mini_train and mini_val" in done.stdout
    assert "\r" not in done.stderr  # no bar where there is no terminal
    assert NuScenes("v1.0-mini", str(tmp_path / "set"), verbose=False).sample_data[0]["width"] == 64


def test_tool_options_change_the_preset() -> None:
    options = "--out x --preset gpu --scenes 3 --val-scenes 2 --frames 7 --image-size 320x180"
    options += " --range-m 30 --seed 5 --lidar-files"
    config = tool.config_from(tool.parse_arguments(options.split()))
    assert config == SyntheticConfig(3, 2, 7, 320, 180, 30.0, 5, lidar_files=True)


def test_tool_reports_errors(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="error: frames = 1 is not allowed"):
        tool.main(["--frames", "1", "--out", str(tmp_path / "set")])
    with pytest.raises(SystemExit):
        tool.parse_arguments(["--image-size", "400", "--out", "x"])
    assert "is not WIDTHxHEIGHT" in capsys.readouterr().err

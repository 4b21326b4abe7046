"""Drawings of a drive: pictures, videos and recordings, also after a kill."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
import yaml
from drive_folder import HEIGHT, WIDTH, rig_values, write_drive
from played_drive import FakePredictor, Killed, files_in

from streampetr_vit.data.nuscenes.spec import NUSCENES
from streampetr_vit.inference.playing.play import Play, play_scenes
from streampetr_vit.inference.playing.record import PlayRecord
from streampetr_vit.inference.playing.shares import choose_scenes
from streampetr_vit.inference.sinks.building import SINK_NAMES, SinkOptions, build_sinks
from streampetr_vit.inference.sources import FolderSource
from streampetr_vit.inference.undistorted_moments import UndistortedMoments


def draw(source: FolderSource, out: Path, predictor: FakePredictor, *names: str) -> None:
    record = PlayRecord(out)
    sinks = build_sinks(names, SinkOptions(out, record.parts, score_threshold=0.3))
    play = Play(source, predictor, sinks, record, NUSCENES, 0.3, save_frames=1)
    play_scenes(play, choose_scenes(source), {})


def frames_of(path: Path) -> list[np.ndarray]:
    capture, frames = cv2.VideoCapture(str(path)), []
    while (read := capture.read())[0]:
        frames.append(read[1])
    return frames


def test_pictures_and_videos_after_a_kill_are_those_of_a_whole_run(tmp_path: Path) -> None:
    source = FolderSource(write_drive(tmp_path / "drive", 5, scenes=["a", "b"]))
    draw(source, tmp_path / "whole", FakePredictor(), "png", "video")
    killed = tmp_path / "killed"
    for _ in range(2):
        with pytest.raises(Killed):
            draw(source, killed, FakePredictor(dies_at=2), "video", "png")
        assert not list(killed.rglob("*.tmp*"))
    draw(source, killed, FakePredictor(dies_at=1), "png", "video")
    whole, again = files_in(tmp_path / "whole" / "pictures"), files_in(killed / "pictures")
    assert whole == again and len(whole) == 5 and "0001_b/000001.png" in whole
    for name, count in (("0000_a.mp4", 3), ("0001_b.mp4", 2)):
        videos = [frames_of(folder / "videos" / name) for folder in (tmp_path / "whole", killed)]
        assert [len(frames) for frames in videos] == [count, count]
        np.testing.assert_array_equal(*videos)
        drawn = cv2.imread(str(killed / "pictures" / name[:-4] / "000001.png")).astype(int)
        height, width = drawn.shape[:2]
        assert np.abs(videos[1][1][:height, :width] - drawn).mean() < 8


def test_a_recording_of_each_scene(tmp_path: Path) -> None:
    pytest.importorskip("rerun", reason="recordings need rerun-sdk")
    source = FolderSource(write_drive(tmp_path / "drive", 3, scenes=["a", "b"]))
    with pytest.raises(Killed):
        draw(source, tmp_path / "out", FakePredictor(dies_at=1), "rrd")
    draw(source, tmp_path / "out", FakePredictor(), "rrd")
    assert list(files_in(tmp_path / "out" / "rerun")) == ["0000_a.rrd", "0001_b.rrd"]


def test_pictures_of_a_lens_are_straight_when_they_are_drawn(tmp_path: Path) -> None:
    folder = write_drive(tmp_path / "drive", 2)
    values = rig_values()
    values["cameras"]["front"]["distortion"] = [-0.3, 0.05, 0.0, 0.0, 0.0]
    (folder / "rig.yaml").write_text(yaml.safe_dump(values))
    straight = UndistortedMoments()
    source = FolderSource(folder)
    first, second = (straight(moment) for moment in source.frames("drive"))
    assert first.rig is second.rig and first.rig.camera("front").distortion is None
    stored = cv2.imread(str(folder / "front" / "000001.png"))[:, :, ::-1]
    assert second.pictures["front"].shape == (HEIGHT, WIDTH, 3)
    center = second.pictures["front"][HEIGHT // 2, WIDTH // 2]
    np.testing.assert_array_equal(center, stored[HEIGHT // 2, WIDTH // 2])
    assert second.pictures["left"] == folder / "left" / "000001.png"  # as it was
    draw(source, tmp_path / "out", FakePredictor(), "png")
    assert len(files_in(tmp_path / "out" / "pictures")) == 2


def test_sinks_of_words_come_once_each(tmp_path: Path) -> None:
    options = SinkOptions(tmp_path, tmp_path / "parts")
    sinks = build_sinks([*reversed(SINK_NAMES), "json"], options)
    assert [sink.outputs()[0].name for sink in sinks] == [
        "objects.jsonl",
        "results_nusc.json",
        "tracking_nusc.json",
        "videos",
        "pictures",
        "rerun",
    ]
    assert [sink.can_append for sink in sinks] == [True, True, True, False, True, False]

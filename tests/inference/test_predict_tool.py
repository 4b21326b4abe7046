"""The command that plays a drive: what it writes, what it says, and what it refuses."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import predict
import pytest
from played_drive import files_in
from test_load_detector import recipe, write_run

from streampetr_vit.evaluation.result_format import read_results
from streampetr_vit.inference.sources.export import export_drive

ROOT = Path(__file__).resolve().parents[2]
SCENES = ["scene-0103", "scene-0061"]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a training, read only."""
    folder = tmp_path_factory.mktemp("runs") / "run"
    write_run(folder, recipe())
    return folder


@pytest.fixture(scope="module")
def drive(tiny_nuscenes: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The scene of mini_val as a folder, read only."""
    folder = tmp_path_factory.mktemp("drives") / "drive"
    assert export_drive(tiny_nuscenes, "v1.0-mini", [SCENES[0]], folder) == 6
    return folder


def play(run: Path, out: Path, *words: str | Path) -> None:
    predict.main(["--run", str(run), "--device=cpu", "--out", str(out), *map(str, words)])


def test_a_folder_and_a_data_set_of_the_same_frames_have_the_same_objects(
    run: Path, drive: Path, tiny_nuscenes: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    words = ["--dataset", tiny_nuscenes, "v1.0-mini", "mini_val", "--write", "json", "nuscenes"]
    play(run, tmp_path / "set", *words)
    assert capsys.readouterr().out.strip().endswith("1 scene start, 0 missing pictures")
    play(run, tmp_path / "folder", "--folder", drive)
    text = (tmp_path / "set" / "objects.jsonl").read_text()
    of_set = [json.loads(line) for line in text.splitlines()]
    of_folder = [json.loads(line) for line in (tmp_path / "folder" / "objects.jsonl").open()]
    assert len(of_set) == len(of_folder) == 6
    for one, other in zip(of_set, of_folder, strict=True):
        assert one["timestamp_s"] == other["timestamp_s"] and one["scene"] == other["scene"]
        assert len(one["objects"]) == len(other["objects"]) > 0
        for a, b in zip(one["objects"], other["objects"], strict=True):
            assert a["name"] == b["name"]
            np.testing.assert_allclose(a["center"], b["center"], atol=1e-3)
    results = read_results(tmp_path / "set" / "results_nusc.json")
    assert list(results) == [line["frame"] for line in of_set]


def test_drawings_and_a_broken_picture(
    run: Path, drive: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    folder, out = tmp_path / "drive", tmp_path / "out"
    shutil.copytree(drive, folder)
    (picture,) = (folder / "CAM_BACK").glob("000001.*")
    picture.write_bytes(picture.read_bytes()[:500])
    words = ["--folder", folder, "--frames", "2", "--write", "video", "png"]
    with pytest.raises(SystemExit, match=r"scene-0103 000001: camera CAM_BACK: picture .* is trun"):
        play(run, out, *words)
    play(run, out, *words, "--on-bad-image", "count", "--overwrite", "--score-threshold", "0.3")
    said = capsys.readouterr().out
    assert "left out 1 broken picture, the first: scene-0103 000001: camera CAM_BACK: pic" in said
    assert "2 frames of 1 scene, " in said and said.endswith("1 missing picture\n")
    pictures = sorted((out / "pictures" / "0000_scene-0103").iterdir())
    assert [path.name for path in pictures] == [f"{n:06d}.png" for n in range(2)]
    video = cv2.VideoCapture(str(out / "videos" / "0000_scene-0103.mp4"))
    assert video.get(cv2.CAP_PROP_FRAME_COUNT) == 2
    assert video.get(cv2.CAP_PROP_FPS) == pytest.approx(2, rel=0.05)
    for path in pictures:
        decoded, frame = video.read()
        drawn = cv2.imread(str(path)).astype(int)
        assert decoded and np.abs(frame[: drawn.shape[0], : drawn.shape[1]] - drawn).mean() < 8


def test_a_frame_of_broken_pictures_keeps_its_place_and_the_memory_bridges_it(
    run: Path, drive: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    folder = tmp_path / "drive"
    shutil.copytree(drive, folder)
    for picture in folder.glob("*/000001.*"):
        picture.write_bytes(b"")
    words = ["--folder", folder, "--frames", "3", "--write", "json", "nuscenes", "png"]
    with pytest.raises(SystemExit, match="scene-0103 000001: camera"):
        play(run, tmp_path / "out", *words)
    play(run, tmp_path / "out", *words, "--on-bad-image", "count", "--overwrite")
    assert "left out 6 broken pictures" in capsys.readouterr().out
    lines = [json.loads(line) for line in (tmp_path / "out" / "objects.jsonl").open()]
    assert [len(line["objects"]) > 0 for line in lines] == [True, False, True]
    assert lines[1]["cameras"] == [] and not lines[2]["starts_scene"]
    results = read_results(tmp_path / "out" / "results_nusc.json")
    assert results["000001"] == [] and len(results) == 3
    assert len(list((tmp_path / "out" / "pictures" / "0000_scene-0103").iterdir())) == 3


def test_the_same_command_again_and_other_ones(
    run: Path, drive: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    words = ["--folder", drive, "--frames", "1"]
    play(run, tmp_path, *words)
    before = files_in(tmp_path)
    play(run, tmp_path, *words)
    assert "nothing was left to do" in capsys.readouterr().out and files_in(tmp_path) == before
    for change, what in (
        (["--min-score", "0.5"], "with min score 0.0, and now it is 0.5"),
        (["--write", "nuscenes"], r"with write \['json'\], and now it is \['nuscenes'\]"),
        (["--frames", "2"], "with frames 1, and now it is 2"),
        (["--frame-period", "0"], "with frame period 0.4, and now it is 0.0"),
    ):
        with pytest.raises(SystemExit, match=f"was begun {what}: choose another --out") as stop:
            play(run, tmp_path, *words, *change)
        assert len(str(stop.value).splitlines()) == 1
    assert files_in(tmp_path) == before


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--folder", "no/such", "--run", "{run}"], "error: no/such is no folder"),
        (["--folder", "{drive}", "--run", "no/run"], "error: .*no/run"),
        (
            ["--folder", "{drive}", "--run", "{run}", "--scenes", "scene-0104"],
            "error: scene 'scene-0104' is unknown; there are scene-0103",
        ),
        (["--dataset", "nuscenes_min", "--run", "{run}"], "error: unknown data set 'nuscenes_min'"),
    ],
)
def test_one_line_of_what_is_wrong(
    run: Path, drive: Path, tmp_path: Path, words: list[str], message: str
) -> None:
    named = [word.format(run=run, drive=drive) for word in words]
    with pytest.raises(SystemExit, match=message) as stop:
        predict.main([*named, "--device=cpu", "--out", str(tmp_path)])
    assert len(str(stop.value).splitlines()) == 1


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--folder", "a", "--config-file", "b"], "--config-file needs --weights"),
        (["--dataset", "a", "b", "--run", "c"], "a registered name, or ROOT VERSION SPLIT"),
        (["--dataset", "a", "--folder", "b", "--run", "c"], "not allowed with"),
        (["--folder", "a"], "one of the arguments --run --config-file --onnx is required"),
        (["--folder", "a", "--run", "b", "--write", "jason"], "invalid choice: 'jason'"),
        (["--folder", "a", "--run", "b", "--max-gap", "0"], "must be a number above 0"),
    ],
)
def test_arguments_that_do_not_go_together(
    words: list[str], message: str, capsys: pytest.CaptureFixture
) -> None:
    with pytest.raises(SystemExit) as stop:
        predict.parse_arguments([*words, "--out", "x"])
    assert stop.value.code == 2 and message in capsys.readouterr().err


def test_two_processes_write_what_one_writes(
    run: Path, tiny_nuscenes: Path, tmp_path: Path
) -> None:
    splits = {"both": SCENES}
    root = tmp_path / "set"
    root.mkdir()
    for name in ("samples", "sweeps", "maps"):
        if (tiny_nuscenes / name).exists():
            (root / name).symlink_to(tiny_nuscenes / name)
    shutil.copytree(tiny_nuscenes / "v1.0-mini", root / "v1.0-mini")
    (root / "v1.0-mini" / "splits.json").write_text(json.dumps(splits))
    words = ["--dataset", root, "v1.0-mini", "both", "--frames", "3", "--write", "json", "nuscenes"]
    play(run, tmp_path / "one", *words)
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    command = [sys.executable, str(ROOT / "tools" / "predict.py"), "--run", str(run)]
    command += ["--device=cpu", "--out", str(tmp_path / "two"), *map(str, words)]
    place = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    processes = [
        subprocess.Popen(
            command,
            env={**os.environ, **place, "RANK": str(rank), "OMP_NUM_THREADS": "1"},
            stdout=subprocess.PIPE,
            text=True,
        )
        for rank in (0, 1)
    ]
    try:
        said = [process.communicate(timeout=120)[0] for process in processes]
    finally:
        for process in processes:
            process.kill()
    assert [process.returncode for process in processes] == [0, 0]
    assert "6 frames of 2 scenes" in said[0] and said[1] == ""  # one of them speaks
    assert files_in(tmp_path / "two") == files_in(tmp_path / "one")

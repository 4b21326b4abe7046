"""Drives are played to the same files, however often a process is killed on the way."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from drive_folder import rows_of_drive, write_csv, write_drive, write_video
from played_drive import FakePredictor, Killed, files_in, play_of, played
from tiny_car import make_predictor

from streampetr_vit.data.image_io import BadImageError
from streampetr_vit.errors import InputError, OutputError
from streampetr_vit.evaluation.result_format import read_results, write_results
from streampetr_vit.inference.playing.ahead import ahead
from streampetr_vit.inference.playing.play import play_scenes
from streampetr_vit.inference.playing.record import PlayRecord
from streampetr_vit.inference.playing.scene_progress import SceneProgress
from streampetr_vit.inference.playing.shares import Worker, choose_scenes, share
from streampetr_vit.inference.sinks import Scene
from streampetr_vit.inference.sinks.part_file import PartFile
from streampetr_vit.inference.sources import FolderSource
from streampetr_vit.structures import Objects

FRAMES = 7


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> FolderSource:
    """A drive of two scenes, 4 and 3 frames; one camera is a video."""
    folder = write_drive(tmp_path_factory.mktemp("drives") / "d", FRAMES, scenes=["a/b", "a_b"])
    for picture in (folder / "left").iterdir():
        picture.unlink()
    (folder / "left").rmdir()
    write_video(folder / "left.avi", FRAMES)
    return FolderSource(folder)


@pytest.fixture(scope="module")
def uninterrupted(source: FolderSource, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("whole")
    played(source, out)
    return out


def test_files_of_a_whole_run(source: FolderSource, uninterrupted: Path) -> None:
    lines = [json.loads(text) for text in (uninterrupted / "objects.jsonl").open()]
    assert [line["frame"] for line in lines] == [f"{row:06d}" for row in range(FRAMES)]
    assert [line["scene"] for line in lines] == ["a/b"] * 4 + ["a_b"] * 3
    assert [line["starts_scene"] for line in lines] == [True, *[False] * 3, True, False, False]
    assert lines[2]["vehicle_to_world"] == {
        "translation": [10.0, 1.0, 0.0],
        "rotation": [1.0, 0.0, 0.0, 0.0],
    }
    assert lines[2]["cameras"] == ["front", "left"] and lines[2]["timestamp_s"] == 1e9 + 1
    assert lines[2]["frame_of_reference"] == "vehicle"
    assert len(lines[2]["objects"]) == 3
    assert set(lines[2]["objects"][0]) == {"name", "score", "center", "size", "yaw", "velocity"}
    assert sorted(files_in(uninterrupted)) == [
        "drawn/0000_a_b",
        "drawn/0001_a_b",
        "objects.jsonl",
        "predict.json",
        "results_nusc.json",
    ]


def test_results_are_in_the_form_of_the_evaluation(
    source: FolderSource, uninterrupted: Path, tmp_path: Path
) -> None:
    predictor, boxes, lines = FakePredictor(), [], []
    for scene, _ in source.scenes:
        predictor.reset()
        for moment in source.frames(scene):
            (objects,) = predictor.detect([predictor.prepare(moment)])
            boxes.append(objects.global_boxes(moment.name))
            lines.append(objects)
    write_results(tmp_path / "results.json", boxes)
    wanted = (tmp_path / "results.json").read_bytes()
    assert (uninterrupted / "results_nusc.json").read_bytes() == wanted
    assert set(read_results(tmp_path / "results.json")) == {f"{n:06d}" for n in range(FRAMES)}
    first = json.loads((uninterrupted / "objects.jsonl").open().readline())["objects"]
    assert [one["center"] for one in first] == lines[0].centers.tolist()
    assert [one["yaw"] for one in first] == lines[0].yaws.tolist()
    assert [one["name"] for one in first] == lines[0].names.tolist()


@pytest.mark.parametrize("save_frames", [1, 2, 100])
@pytest.mark.parametrize("frame", range(FRAMES))
def test_a_kill_in_any_frame_leaves_no_trace(
    source: FolderSource, uninterrupted: Path, tmp_path: Path, frame: int, save_frames: int
) -> None:
    with pytest.raises(Killed):
        played(source, tmp_path, FakePredictor(dies_at=frame), save_frames=save_frames)
    assert not (tmp_path / "results_nusc.json").exists()
    predictor = FakePredictor()
    counts = played(source, tmp_path, predictor, save_frames=save_frames)
    in_scene = frame if frame < 4 else frame - 4
    assert predictor.calls == FRAMES - frame + in_scene % save_frames
    assert (counts.frames, counts.scene_starts) == (FRAMES, 2)
    assert files_in(tmp_path) == files_in(uninterrupted)


def test_kills_one_after_the_other(
    source: FolderSource, uninterrupted: Path, tmp_path: Path
) -> None:
    for _ in range(FRAMES - 1):
        with pytest.raises(Killed):
            played(source, tmp_path, FakePredictor(dies_at=1))
    played(source, tmp_path, FakePredictor(dies_at=1))  # one frame is left
    assert files_in(tmp_path) == files_in(uninterrupted)


def _die_at(monkeypatch: pytest.MonkeyPatch, number: int) -> list[str]:
    """Lets the process "end" before its Nth change on the disk; returns what was done."""
    done: list[str] = []

    def counted(name: str, function: object) -> object:
        def call(*args: object, **keys: object) -> object:
            if len(done) == number:
                raise Killed
            done.append(name)
            return function(*args, **keys)  # type: ignore[operator]

        return call

    for name in ("fsync", "replace", "unlink"):
        monkeypatch.setattr(os, name, counted(name, getattr(os, name)))
    return done


def test_a_kill_between_any_two_changes_on_the_disk(tmp_path: Path) -> None:
    source = FolderSource(write_drive(tmp_path / "d", 3, scenes=["a", "b"]))
    with pytest.MonkeyPatch.context() as patch:
        changes = _die_at(patch, -1)
        played(source, tmp_path / "whole")
    wanted = files_in(tmp_path / "whole")
    assert set(changes) == {"fsync", "replace", "unlink"} and len(changes) > 20
    for number in range(len(changes)):
        out = tmp_path / str(number)
        with pytest.MonkeyPatch.context() as patch:
            _die_at(patch, number)
            with pytest.raises(Killed):
                played(source, out)
        played(source, out)
        assert files_in(out) == wanted, number


@pytest.mark.parametrize("frame", [1, 3, 5])
def test_a_network_goes_on_bit_for_bit(
    source: FolderSource, tmp_path: Path, frame: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def first_frames(prepared: Sequence[Any]) -> list[Objects]:
        if calls.pop():
            return detect(prepared)
        raise Killed

    whole, killed = tmp_path / "whole", tmp_path / "killed"
    played(source, whole, make_predictor())
    predictor = make_predictor()
    detect, calls = predictor.detect, [False, *[True] * frame]
    monkeypatch.setattr(predictor, "detect", first_frames)
    with pytest.raises(Killed):
        played(source, killed, predictor)
    played(source, killed, make_predictor())
    assert files_in(killed) == files_in(whole)
    assert len((whole / "objects.jsonl").read_bytes()) > 10_000


def test_the_state_is_stored_by_time_too(source: FolderSource, tmp_path: Path) -> None:
    def start(predictor: FakePredictor) -> None:
        play = replace(play_of(source, tmp_path, predictor), save_frames=1000, save_seconds=0.0)
        play_scenes(play, choose_scenes(source), {})

    with pytest.raises(Killed):
        start(FakePredictor(dies_at=3))
    predictor = FakePredictor()
    start(predictor)
    assert predictor.calls == FRAMES - 3


def test_half_a_line_and_lines_behind_the_count_are_cut_off(
    source: FolderSource, uninterrupted: Path, tmp_path: Path
) -> None:
    with pytest.raises(Killed):
        played(source, tmp_path, FakePredictor(dies_at=3), save_frames=2)
    for path in (tmp_path / "parts").glob("*.jsonl"):
        with path.open("a") as file:
            file.write('{"scene": "a"}\n{"sce')
    played(source, tmp_path, save_frames=2)
    assert files_in(tmp_path) == files_in(uninterrupted)


def test_fewer_lines_than_were_written_are_an_error(source: FolderSource, tmp_path: Path) -> None:
    with pytest.raises(Killed):
        played(source, tmp_path, FakePredictor(dies_at=3))
    (part,) = (tmp_path / "parts").glob("*.objects.jsonl")
    part.write_bytes(b"".join(part.read_bytes().splitlines(keepends=True)[:2]))
    with pytest.raises(InputError, match="has 2 lines, and 3 were written.*--overwrite"):
        played(source, tmp_path)


def test_a_finished_run_is_not_played_again(source: FolderSource, tmp_path: Path) -> None:
    first = played(source, tmp_path)
    before = files_in(tmp_path)
    (tmp_path / "parts").mkdir()  # killed before the last of them was removed
    predictor = FakePredictor()
    assert played(source, tmp_path, predictor) == first
    assert predictor.calls == 0 and files_in(tmp_path) == before
    assert not (tmp_path / "parts").exists()


def test_other_settings_are_refused_until_they_may_overwrite(
    source: FolderSource, uninterrupted: Path, tmp_path: Path
) -> None:
    with pytest.raises(Killed):
        played(source, tmp_path, FakePredictor(dies_at=5), settings={"weights": "a", "n": 1})
    for settings in ({"weights": "b", "n": 1}, {"weights": "b"}):
        with pytest.raises(InputError, match="begun with weights 'a', and now it is 'b': choose"):
            played(source, tmp_path, settings=settings)
    with pytest.raises(InputError, match="begun with n 1, and now it is None.*--overwrite"):
        played(source, tmp_path)
    predictor = FakePredictor()
    played(source, tmp_path, predictor, overwrite=True)
    assert predictor.calls == FRAMES
    assert files_in(tmp_path) == files_in(uninterrupted)


def test_files_of_another_program_are_not_overwritten(source: FolderSource, tmp_path: Path) -> None:
    (tmp_path / "objects.jsonl").write_text("mine")
    with pytest.raises(InputError, match="has objects.jsonl, and nothing says"):
        played(source, tmp_path)
    assert (tmp_path / "objects.jsonl").read_text() == "mine"
    with pytest.raises(InputError, match="nothing says that this tool has written it: choose"):
        played(source, tmp_path, overwrite=True)
    (tmp_path / "objects.jsonl").unlink()
    (tmp_path / "predict.json").write_text("[]")
    with pytest.raises(InputError, match="predict.json is none that this tool has written"):
        played(source, tmp_path)
    (tmp_path / "other.txt").write_text("mine")
    played(source, tmp_path, overwrite=True)
    assert (tmp_path / "other.txt").read_text() == "mine"


def test_two_programs_do_not_play_into_one_folder(source: FolderSource, tmp_path: Path) -> None:
    with (
        PlayRecord(tmp_path).alone(),
        pytest.raises(InputError, match="another program is playing into"),
    ):
        played(source, tmp_path, overwrite=True)
    assert played(source, tmp_path).frames == FRAMES


def test_a_folder_that_cannot_be_made(source: FolderSource, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="cannot write .*file/out"):
        played(source, tmp_path / "file" / "out")


def test_weak_objects_are_left_out_of_the_files(source: FolderSource, tmp_path: Path) -> None:
    played(source, tmp_path, min_score=0.5)
    scores = [
        one["score"]
        for line in (tmp_path / "objects.jsonl").open()
        for one in json.loads(line)["objects"]
    ]
    results = read_results(tmp_path / "results_nusc.json")
    written = [one["detection_score"] for boxes in results.values() for one in boxes]
    assert 0 < len(scores) < 3 * FRAMES and min(scores) >= 0.5 and min(written) >= 0.5


def test_at_most_so_many_frames(source: FolderSource, tmp_path: Path) -> None:
    counts = played(source, tmp_path, most_frames=2)
    assert counts.frames == 4
    assert len((tmp_path / "objects.jsonl").read_text().splitlines()) == 4


@pytest.fixture
def broken(tmp_path: Path) -> Path:
    """A drive of one camera more than once without a picture, and with two broken ones."""
    folder = write_drive(tmp_path / "drive", 4)
    rows = rows_of_drive(4)
    for index, row in enumerate(rows):
        row["left"] = "" if index == 1 else f"left/{index:06d}.png"
    write_csv(folder, rows)
    for index in (2, 3):
        path = folder / "front" / f"{index:06d}.png"
        path.write_bytes(path.read_bytes()[:60])
    return folder


def test_a_broken_picture_ends_the_run_with_its_place(broken: Path, tmp_path: Path) -> None:
    with pytest.raises(BadImageError, match=r"drive 000002: picture .*front/000002.png is trunc"):
        played(FolderSource(broken), tmp_path / "out")


@pytest.mark.parametrize("dies_at", [None, 3])
def test_broken_pictures_are_counted_over_a_restart(
    broken: Path, tmp_path: Path, dies_at: int | None
) -> None:
    source, out = FolderSource(broken), tmp_path / "out"
    if dies_at is not None:
        with pytest.raises(Killed):
            played(source, out, FakePredictor(dies_at, "count"))
    counts = played(source, out, FakePredictor(on_bad_image="count"))
    assert (counts.bad_pictures, counts.missing_pictures) == (2, 3)
    assert counts.first_bad[0].startswith("drive 000002: camera front: picture ")
    cameras = [json.loads(line)["cameras"] for line in (out / "objects.jsonl").open()]
    assert cameras == [["front", "left"], ["front"], ["left"], ["left"]]


def test_only_the_first_broken_pictures_are_named() -> None:
    total = SceneProgress(complete=True)
    for scene in "ab":
        progress = SceneProgress()
        progress.count_bad([f"{scene}{n}" for n in range(4)])
        total.add(progress)
    assert total.bad_pictures == 8 and total.first_bad == ["a0", "a1", "a2", "a3", "b0"]


def test_two_processes_share_the_scenes(
    source: FolderSource, uninterrupted: Path, tmp_path: Path
) -> None:
    """Without processes: each rank's work up to the point where it waits, one after the other."""

    class Waits(BaseException):
        pass

    def not_yet() -> None:
        if waits:
            waits.pop()
            return
        raise Waits

    predictors = [FakePredictor(), FakePredictor()]
    for rank in (0, 1):
        waits = [1]
        with pytest.raises(Waits):
            played(source, tmp_path, predictors[rank], worker=Worker(rank, 2, not_yet))
    assert [predictor.calls for predictor in predictors] == [4, 3]
    assert not (tmp_path / "objects.jsonl").exists()
    for rank in (1, 0):
        counts = played(source, tmp_path, predictors[rank], worker=Worker(rank, 2))
        assert counts.frames == FRAMES
    assert [predictor.calls for predictor in predictors] == [4, 3]
    assert files_in(tmp_path) == files_in(uninterrupted)


def test_shares_are_even_and_complete() -> None:
    scenes = [Scene(i, str(i), frames) for i, frames in enumerate([5, 40, 3, 8, 30, 30, 1])]
    shares = [share(scenes, Worker(rank, 3)) for rank in range(3)]
    assert sorted(s.index for part in shares for s in part) == list(range(7))
    assert [sum(s.frames for s in part) for part in shares] == [40, 39, 38]
    assert all([s.index for s in part] == sorted(s.index for s in part) for part in shares)
    assert [share(scenes, Worker(rank, 9)) for rank in (7, 8)] == [[], []]


def test_scenes_of_like_names_have_files_of_their_own(source: FolderSource) -> None:
    labels = [scene.label for scene in choose_scenes(source)]
    assert labels == ["0000_a_b", "0001_a_b"]
    assert [scene.frames_per_second for scene in choose_scenes(source)] == [2.0, 2.0]


def test_scenes_are_chosen_by_name(source: FolderSource) -> None:
    (scene,) = choose_scenes(source, ["a_b"], most_frames=2)
    assert (scene.index, scene.name, scene.frames) == (1, "a_b", 2)
    with pytest.raises(InputError, match="scene 'b' is unknown"):
        choose_scenes(source, ["a_b", "b"])


def test_items_are_made_ahead_in_order_and_errors_come_in_their_turn() -> None:
    read, gate = [], threading.Event()

    def items() -> Iterator[int]:
        for number in range(4):
            read.append(number)
            yield number
        raise ValueError("the fifth")

    def made(number: int) -> int:
        if number == 0:
            assert gate.wait(10)  # the second one is finished before the first
        gate.set() if number == 1 else None
        return 10 * number

    taken = []
    with pytest.raises(ValueError, match="the fifth"):
        for item in ahead(items(), made, 2):
            taken.append(item)
            assert len(read) <= len(taken) + 2
    assert taken == [0, 10, 20, 30]


def test_an_error_of_the_work_comes_in_its_turn() -> None:
    made = ahead(iter([1, 0]), lambda number: 1 / number)
    assert next(made) == 1.0
    with pytest.raises(ZeroDivisionError):
        next(made)


def test_a_part_file_grows_and_is_cut(tmp_path: Path) -> None:
    path = tmp_path / "parts" / "a.jsonl"
    file = PartFile(path, 0)
    file.write("one")
    file.write("zwei \u00e4")
    file.close()
    file = PartFile(path, 1)
    file.write("three")
    file.save()
    assert path.read_text() == "one\nthree\n"
    file.close()
    with pytest.raises(InputError, match="has 2 lines, and 3 were written"):
        PartFile(path, 3)

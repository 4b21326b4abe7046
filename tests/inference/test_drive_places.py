"""Where the pictures of a drive may lie, and tables as other programs write them."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import check_data
import pytest
import yaml
from drive_folder import rig_values, rows_of_drive, write_csv, write_drive, write_video

from streampetr_vit.errors import InputError, MissingFileError
from streampetr_vit.inference.sources import FolderSource


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_drive(tmp_path / "d", 3)


def test_endings_of_videos_and_pictures_may_be_upper_case(folder: Path) -> None:
    for path in list((folder / "front").iterdir()):
        path.rename(path.with_suffix(".PNG"))
    shutil.rmtree(folder / "left")
    write_video(folder / "left.mp4", 3)
    (folder / "left.mp4").rename(folder / "left.MP4")
    source = FolderSource(folder)
    first = next(source.frames("d"))
    assert first.pictures["front"] == folder / "front" / "000000.PNG"
    assert first.pictures["left"].shape == (48, 64, 3)
    assert "left.MP4" in source.description


def test_a_folder_and_a_video_of_one_camera_are_too_many(folder: Path) -> None:
    write_video(folder / "left.avi", 3)
    with pytest.raises(InputError, match="has left and left.avi, both of camera left: remove one"):
        FolderSource(folder)
    rows = [row | {"left": f"left/{index:06d}.png"} for index, row in enumerate(rows_of_drive(3))]
    write_csv(folder, rows)  # which says what is meant
    assert next(FolderSource(folder).frames("d")).pictures["left"] == folder / "left/000000.png"


def test_missing_pictures_of_a_folder_have_a_fix_without_columns(folder: Path) -> None:
    (folder / "left" / "000001.png").unlink()
    with pytest.raises(MissingFileError, match="name them in frames.csv, with nothing where"):
        FolderSource(folder)


def test_a_video_of_another_size_says_what_to_write(folder: Path) -> None:
    shutil.rmtree(folder / "left")
    write_video(folder / "left.avi", 3, (64, 46))
    with pytest.raises(InputError, match="64x46 .* 64x48 .*give width, height and intrinsics"):
        FolderSource(folder)


def test_lines_before_the_header_may_be_empty(folder: Path) -> None:
    table = folder / "frames.csv"
    table.write_text("\n\n" + table.read_text())
    source = FolderSource(folder)
    assert source.scenes == [("d", 3)] and source.columns.lines.tolist() == [4, 5, 6]


def test_tabs_are_named(folder: Path) -> None:
    table = folder / "frames.csv"
    table.write_text(table.read_text().replace(",", "\t"))
    with pytest.raises(InputError, match="has tabs between its columns; write commas"):
        FolderSource(folder)


@pytest.mark.parametrize("times", [(-1.7e308, 1.7e308, 1.75e308), (0, 1, 1e21)])
def test_times_whose_differences_would_overflow(folder: Path, times: tuple[float, ...]) -> None:
    rows = rows_of_drive(3)
    write_csv(folder, [row | {"timestamp_s": t} for row, t in zip(rows, times, strict=True)])
    with pytest.raises(InputError, match=r"timestamp_s is (-1.7e\+308|1e\+21); give seconds"):
        FolderSource(folder)


def test_a_camera_with_the_name_of_another_ones_pose(folder: Path) -> None:
    (folder / "rig.yaml").write_text(yaml.safe_dump(rig_values(["front", "front.x"])))
    with pytest.raises(InputError, match="camera 'front.x' has the name of a column"):
        FolderSource(folder)


@pytest.mark.parametrize("function", ["listdir", "stat"])
def test_a_folder_without_rights_is_an_error_of_one_line(
    folder: Path, monkeypatch: pytest.MonkeyPatch, function: str
) -> None:
    real = getattr(os, function)

    def refuses(path: object, *args: object, **keys: object) -> object:
        if str(path).startswith(str(folder / "left")):
            raise PermissionError(13, "Permission denied", str(path))
        return real(path, *args, **keys)

    monkeypatch.setattr(os, function, refuses)  # root may read everything
    with pytest.raises(MissingFileError, match="d/left cannot be read: Permission denied; check"):
        FolderSource(folder)


def test_a_rig_of_other_cameras_than_the_drive_is_named(folder: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.yaml"
    other.write_text(yaml.safe_dump(rig_values(["front", "rear"])))
    with pytest.raises(SystemExit, match="front, rear, and that of the drive has front, le"):
        check_data.main(["--rig", str(other), "--folder", str(folder), "--out", str(tmp_path)])

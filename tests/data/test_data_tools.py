"""prepare_nuscenes and check_data: what they print, write and refuse."""

from __future__ import annotations

from pathlib import Path

import check_data
import cv2
import handmade_tables
import prepare_nuscenes
import pytest

from streampetr_vit.data.checks import evenly_spaced, summarise
from streampetr_vit.data.nuscenes import build_records
from streampetr_vit.data.nuscenes.build_records import load_records
from streampetr_vit.data.nuscenes.catalog import register_nuscenes
from streampetr_vit.data.nuscenes.records import FrameRecords


@pytest.mark.parametrize("tool", [prepare_nuscenes, check_data])
def test_help_has_an_example(tool, capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(SystemExit) as stop:
        tool.main(["--help"])
    assert stop.value.code == 0
    assert "Example:" in capsys.readouterr().out


def test_summary(handmade_records: FrameRecords) -> None:
    summary = summarise(handmade_records)
    assert (summary.scenes, summary.frames, summary.frames_per_scene) == (2, 9, (4, 5))
    assert summary.interval_s == pytest.approx((0.5, 0.5, 0.5))
    assert summary.gaps == 0
    assert summary.image_sizes == [(160, 90)]
    assert summary.boxes["car"] == summary.boxes["other"] == 9
    assert summary.boxes["traffic_cone"] == 2
    assert "car" in str(summary) and "160x90" in str(summary)


def test_summary_counts_gaps_and_copes_with_single_frames(tmp_path: Path) -> None:
    tables = handmade_tables.make_tables()
    for row in tables["sample"]:
        if row["token"] in ("scene-0061-3", "scene-0061-4"):
            row["timestamp"] += 400_000
    records = load_records(handmade_tables.write_tables(tables, tmp_path), "v1.0-mini")
    assert summarise(records).gaps == 1
    with pytest.raises(ValueError, match="have no frames"):
        summarise(records.select_scenes([]))


def test_evenly_spaced() -> None:
    assert evenly_spaced(3, 9) == [0, 4, 8]
    assert evenly_spaced(50, 4) == [0, 1, 2, 3]
    assert evenly_spaced(1, 4) == [0]


def test_prepare(handmade_root: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    arguments = ["--root", str(handmade_root), "--version", "v1.0-mini", "--split", "mini_val"]
    prepare_nuscenes.main([*arguments, "--cache-dir", str(tmp_path)])
    out = capsys.readouterr().out
    assert "frames   4" in out
    assert [path.suffix for path in sorted(tmp_path.iterdir())] == [".safetensors", ".lock"]


def test_prepare_by_name_builds_one_cache_for_a_version(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    handmade_tables.write_tables(handmade_tables.make_tables(), tmp_path)
    built = []
    build_cache = build_records.build_cache
    monkeypatch.setattr(
        build_records, "build_cache", lambda *names: (built.append(names), build_cache(*names))
    )
    for split in ("mini_train", "mini_val"):
        register_nuscenes(f"prepare_{split}", tmp_path, "v1.0-mini", split)
    prepare_nuscenes.main(["--dataset", "prepare_mini_train", "prepare_mini_val"])
    out = capsys.readouterr().out
    assert out.index("prepare_mini_train\n") < out.index("frames   5")
    assert out.index("prepare_mini_val\n") < out.index("frames   4")
    assert len(built) == 1


def test_prepare_refuses(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="error: data root .*no does not exist"):
        prepare_nuscenes.main(["--root", str(tmp_path / "no"), "--version", "v1.0-mini"])
    with pytest.raises(SystemExit, match="error: unknown data set 'nuscenes_maxi'"):
        prepare_nuscenes.main(["--dataset", "nuscenes_maxi"])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("", "give --dataset NAME ..., or --root and --version"),
        ("--root x", "give --dataset NAME ..., or --root and --version"),
        ("--dataset nuscenes_mini_val --root x", "leave out --root, --version, --split"),
        ("--dataset nuscenes_mini_val --cache-dir x", "leave out --root, --version, --split"),
    ],
)
def test_prepare_takes_names_or_a_folder(
    arguments: str, message: str, capsys: pytest.CaptureFixture
) -> None:
    with pytest.raises(SystemExit):
        prepare_nuscenes.main(arguments.split())
    assert message in capsys.readouterr().err


def test_check_draws_both_kinds_of_pictures(
    handmade_root: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    arguments = ["--root", str(handmade_root), "--version", "v1.0-mini", "--out", str(tmp_path)]
    assert check_data.main([*arguments, "--draw", "2", "--input-size", "32x80"]) == 0
    assert "decoded the pictures of 9 frames: 0 are broken" in capsys.readouterr().out
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == [
        "scene-0061_00000_network.png",
        "scene-0061_00000_stored.png",
        "scene-0103_00008_network.png",
        "scene-0103_00008_stored.png",
    ]
    for name in names:
        assert cv2.imread(str(tmp_path / name)).std() > 5


def test_check_finds_broken_pictures(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    tables = handmade_tables.make_tables()
    handmade_tables.write_tables(tables, tmp_path)
    handmade_tables.write_pictures(tables, tmp_path)
    (tmp_path / "samples/CAM_BACK/scene-0103-2.jpg").unlink()
    arguments = ["--root", str(tmp_path), "--version", "v1.0-mini", "--out", str(tmp_path / "out")]
    assert check_data.main([*arguments, "--read", "0"]) == 1
    captured = capsys.readouterr()
    assert "1 are broken" in captured.out
    assert "sample scene-0103-2: picture" in captured.err
    assert "Restore these files; or" in captured.err.splitlines()[-1]
    assert "dataloader.test.mapper.on_bad_image=count" in captured.err

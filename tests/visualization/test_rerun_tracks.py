"""Recordings of objects with ids, read back with rerun's own reader."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from moments import VEHICLE, found, moment, tracked

from streampetr_vit.data.nuscenes.spec import NUSCENES
from streampetr_vit.structures import Objects
from streampetr_vit.visualization.colors import CLASS_COLORS, id_color
from streampetr_vit.visualization.rerun_recording import rerun_recording

rr = pytest.importorskip("rerun", reason="the extra `rerun` is not installed")
pytestmark = pytest.mark.filterwarnings("error::rerun.error_utils.RerunWarning")

OBJECTS, TRAILS = "/world/vehicle/objects", "/world/trails"


def record(path: Path, frames: list[Objects]) -> Path:
    with rerun_recording(path, score_threshold=0.2) as recording:
        for number, objects in enumerate(frames):
            recording.write(moment(number), objects)
    return path


def columns_of(path: Path) -> dict[str, list[Any]]:
    """The values of each component by frame."""
    recording = rr.dataframe.load_recording(path)
    table = recording.view(index="frame", contents="/**").select().read_all()
    return {name: table.column(name).to_pylist() for name in table.column_names}


def rgba(color: tuple[int, int, int]) -> int:
    return int.from_bytes((*color, 255), "big")


@pytest.fixture(scope="module")
def columns(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[Any]]:
    """Three frames with a tracker; the pictures of the third are all broken."""
    path = tmp_path_factory.mktemp("tracks") / "drive.rrd"
    return columns_of(record(path, [tracked(0), tracked(1), found(2)[:0]]))


def test_labels_and_colours_are_those_of_ids(columns: dict[str, list[Any]]) -> None:
    assert columns[f"{OBJECTS}:Text"][0] == ["#7 1.5 s car 0.75", "pedestrian 0.25"]
    colors = [rgba(id_color(7)), rgba(CLASS_COLORS["pedestrian"])]
    assert columns[f"{OBJECTS}:Color"][:2] == [colors, colors]
    assert columns["/world/vehicle/velocities:Color"][0] == colors[:1]
    labels = [NUSCENES.class_names.index(name) for name in ("car", "pedestrian")]
    assert columns[f"{OBJECTS}:ClassId"][0] == labels


def test_trails_are_on_the_ground_of_the_world(columns: dict[str, list[Any]]) -> None:
    strips = columns[f"{TRAILS}:LineStrip3D"]
    for number in (0, 1):  # the car drives 5 m from one moment to the next
        ahead = [(12.0 - 2.0 * k + 5.0 * number, 3.0, 0.0) for k in (3, 2, 1, 0)]
        (line,) = strips[number]
        np.testing.assert_allclose(line, VEHICLE.rotation().apply(ahead), atol=1e-4)
    assert columns[f"{TRAILS}:Color"][0] == [rgba(id_color(7))]
    assert strips[2] == []  # nothing stays where it was


def test_without_a_tracker_it_is_as_ever(tmp_path: Path) -> None:
    columns = columns_of(record(tmp_path / "a.rrd", [found(0), found(1)]))
    assert not [name for name in columns if TRAILS in name]
    assert f"{OBJECTS}:Color" not in columns and f"{OBJECTS}:ClassId" in columns
    assert columns[f"{OBJECTS}:Text"][0] == ["car 0.75", "pedestrian 0.25"]


def test_an_object_that_was_just_found_has_no_trail(tmp_path: Path) -> None:
    objects = tracked()
    assert objects.tracks is not None
    trails = objects.tracks.trails_m.copy()
    trails[0, :-1] = np.nan
    new = replace(objects, tracks=replace(objects.tracks, trails_m=trails))
    columns = columns_of(record(tmp_path / "a.rrd", [new, tracked(1)]))
    assert [len(strips) for strips in columns[f"{TRAILS}:LineStrip3D"]] == [0, 1]

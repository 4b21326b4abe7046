"""What the page about own cameras tells people to write is read, and is right."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import cv2
import numpy as np
import yaml

from streampetr_vit.inference.checks import DriveCheck
from streampetr_vit.inference.checks.rig import mistakes_of_rig
from streampetr_vit.inference.sources import FolderSource
from streampetr_vit.inference.undistortion import undistorted
from streampetr_vit.structures import Pose, Rig

DOCS = Path(__file__).resolve().parents[2] / "projects" / "StreamPETR_ViT" / "docs"
PAGE = (DOCS / "own_cameras.md").read_text()


def block(language: str) -> str:
    found = re.search(rf"```{language}\n(.*?)```", PAGE, re.S)
    assert found is not None
    return found[1]


def test_the_rig_of_the_page_is_right() -> None:
    rig = Rig.of(yaml.safe_load(block("yaml")))
    assert rig.names == ("front", "rear") and not mistakes_of_rig(rig)
    for camera in rig.cameras:
        seen = undistorted(camera).apply(np.full((camera.height, camera.width, 3), 255, np.uint8))
        assert (seen > 0).mean() > 0.9


def test_the_drive_of_the_page_is_read(tmp_path: Path) -> None:
    (tmp_path / "rig.yaml").write_text(block("yaml"))
    (tmp_path / "frames.csv").write_text(block("csv"))
    for name, shape in (("front", (1080, 1920, 3)), ("rear", (960, 1280, 3))):
        (tmp_path / name).mkdir()
        for frame in range(3):
            cv2.imwrite(str(tmp_path / name / f"{frame:06d}.jpg"), np.zeros(shape, np.uint8))
    source = FolderSource(tmp_path)
    check = DriveCheck(source.rig)
    for scene, _ in source.scenes:
        for moment in source.frames(scene):
            check.add(moment)
    assert not check.mistakes()
    assert "3 frames in 0.1 s, a way of 1 m" in check.summary()[-1]


def test_the_line_of_json_of_the_page_is_read(tmp_path: Path) -> None:
    (tmp_path / "rig.yaml").write_text(block("yaml"))
    (tmp_path / "frames.jsonl").write_text(block("json"))
    (tmp_path / "front").mkdir()
    (tmp_path / "front" / "000000.jpg").touch()
    (moment,) = FolderSource(tmp_path).frames("yard")
    assert moment.pictures["rear"] is None and moment.timestamp_s == 1.7e9
    assert moment.camera_vehicle_to_world["front"].translation_m.tolist() == [401.1, 88.1, 0]


def test_poses_of_an_imu_are_converted() -> None:
    camera_to_vehicle = Pose.of_row([1.7, 0, 1.5, 0.5, -0.5, 0.5, -0.5]).matrix()
    vehicle_to_world = Pose.of_row([40, 50, 0, 0.8, 0, 0, 0.6]).matrix()
    imu_to_vehicle = Pose.of_row([0.2, 0, 1.6, 1, 0, 0, 0]).matrix()
    known = {
        "camera_to_imu": np.linalg.inv(imu_to_vehicle) @ camera_to_vehicle,
        "imu_to_world": vehicle_to_world @ imu_to_vehicle,
    }
    exec(block("python"), known)
    np.testing.assert_allclose(known["camera_to_vehicle"], camera_to_vehicle, atol=1e-12)
    np.testing.assert_allclose(known["vehicle_to_world"], vehicle_to_world, atol=1e-12)


def test_the_table_of_mistakes_has_words_of_every_line_that_is_printed() -> None:
    table = PAGE.split("| line says |")[1].split("\n\n")[0]
    phrases = [
        phrase.strip() for row in table.splitlines()[2:] for phrase in row.split("|")[1].split(";")
    ]
    package = DOCS.parent / "streampetr_vit" / "inference" / "checks"
    code = "".join(path.read_text() for path in package.glob("*.py"))
    code = re.sub(r'"\s*\n\s*f?"', "", code)  # texts over several lines
    code = re.sub(r"\{[^{}]*\}", "", code)
    missing = [phrase for phrase in phrases if phrase.split(",")[0] not in code]
    assert len(phrases) > 20 and not missing


def test_the_drawing_is_a_plain_picture() -> None:
    drawing = ElementTree.parse(DOCS / "own_cameras.svg")
    tags = {element.tag.rpartition("}")[2] for element in drawing.iter()}
    assert tags <= {"svg", "title", "rect", "line", "polygon", "circle", "path", "text"}

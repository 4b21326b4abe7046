"""Pictures of a rig of four cameras with two picture sizes, own classes, and any lidar."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from hand_made_nuscenes import LIDAR_TO_EGO, SCENES, VERSION, Layout, write_tables
from scipy.spatial.transform import Rotation

from streampetr_vit.data.nuscenes.catalog import load_split
from streampetr_vit.data.nuscenes.records import FrameRecord
from streampetr_vit.structures import DatasetSpec, Detections, ObjectClass, Pose
from streampetr_vit.visualization import camera_panels, camera_view, drawing, sheet
from streampetr_vit.visualization.colors import CLASS_COLORS, class_colors
from streampetr_vit.visualization.frame_picture import draw_record

SIZES = {"front": (400, 225), "left": (240, 240), "rear": (400, 225), "right": (240, 240)}
SPEC = DatasetSpec(
    classes=[ObjectClass("light_vehicle", ["car"]), ObjectClass("person", ["person"])],
    cameras=list(SIZES),
)
DISC_RADIUS_PX = 60
PANEL_WIDTH, GAP_PX, HEADER_PX, LEGEND_PX = 200, 4, 26, 28


def _record(root: Path, lidar_to_ego: Pose = LIDAR_TO_EGO) -> FrameRecord:
    """A frame without true boxes, whose pictures each show a grey disc on black."""
    layout = Layout(SPEC, classes=(), lidar_to_ego=lidar_to_ego, image_sizes=SIZES)
    write_tables(root, SCENES[:1], frames=1, layout=layout)
    record = load_split(root, VERSION, SCENES[:1], spec=SPEC)[0]
    for path, (width, height) in zip(record.camera_paths, SIZES.values(), strict=True):
        image = np.zeros((height, width, 3), np.uint8)
        cv2.circle(image, (width // 2, height // 2), DISC_RADIUS_PX, (160, 160, 160), -1)
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(root / path), image)
    return record


def _ahead(lidar_to_ego: Pose, forward_m: float, right_m: float, label: int = 0) -> Detections:
    """One box at a place that is given in the vehicle's axes."""
    place = np.array([forward_m, -right_m, 1.0]) - lidar_to_ego.translation_m
    x, y, z = lidar_to_ego.rotation().inv().apply(place)
    box = torch.tensor([[x, y, z, 2.0, 2.0, 2.0, 0.3, 0.0, 0.0]]).float()
    return Detections(box, torch.tensor([0.75]), torch.tensor([label]))


def test_discs_stay_round(tmp_path: Path) -> None:
    picture = draw_record(_record(tmp_path), None, panel_width=PANEL_WIDTH, with_truth=False)
    # Three pictures above, of which the square one is the highest, and a square one below.
    height = 2 * PANEL_WIDTH + GAP_PX
    width = 3 * PANEL_WIDTH + 2 * GAP_PX
    assert picture.shape == (HEADER_PX + height + LEGEND_PX, width + GAP_PX + height, 3)
    cameras = picture[HEADER_PX : HEADER_PX + height, :width]
    step = PANEL_WIDTH + GAP_PX
    # The last one is in the middle of its row.
    lefts = (0, step, 2 * step, step)
    for place, (stored_width, stored_height) in enumerate(SIZES.values()):
        scale = PANEL_WIDTH / stored_width
        left = lefts[place]
        # So is a low picture beside a higher one.
        low = (PANEL_WIDTH - round(stored_height * scale)) // 2
        top = low if place < 3 else step
        panel = cameras[top : top + round(stored_height * scale), left : left + PANEL_WIDTH]
        # The name of the camera is in the first rows.
        rows, columns = np.nonzero(panel[24:, :, 1] > 80)
        diameters = np.ptp(rows) + 1, np.ptp(columns) + 1
        clipped = round(stored_height * scale) - 24  # the disc may begin above these rows
        assert diameters[1] == pytest.approx(2 * DISC_RADIUS_PX * scale, abs=3), place
        assert diameters[0] == pytest.approx(min(diameters[1], clipped), abs=3), place
        assert columns.mean() == pytest.approx(PANEL_WIDTH / 2, abs=1.5)


def test_own_names_in_legend_and_labels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    texts: dict[str, list[str]] = {"legend": [], "cameras": []}

    def write_down(place: str):
        def draw_text(image: np.ndarray, text: str, *args, **kwargs) -> int:
            texts[place].append(text)
            return drawing.draw_text(image, text, *args, **kwargs)

        return draw_text

    monkeypatch.setattr(sheet, "draw_text", write_down("legend"))
    for module in (camera_view, camera_panels):
        monkeypatch.setattr(module, "draw_text", write_down("cameras"))
    record = _record(tmp_path)
    for label, name in enumerate(("light vehicle", "person")):
        draw_record(record, _ahead(LIDAR_TO_EGO, 12.0, 0.0, label))
        assert f"{name} 0.75" in texts["cameras"]
    header_length = 4
    assert texts["legend"][header_length:][:2] == ["light vehicle", "person"]
    assert {"front", "left", "rear", "right"} < set(texts["cameras"])


TILT = Rotation.from_euler("yx", [0.05, -0.04])


@pytest.mark.parametrize("yaw_degrees", [0, -90, 180, 90, 30, -135])
@pytest.mark.parametrize("tilt", [Rotation.identity(), TILT], ids=["upright", "tilted"])
def test_forward_is_up(tmp_path: Path, yaw_degrees: float, tilt: Rotation) -> None:
    rotation = Rotation.from_euler("z", yaw_degrees, degrees=True) * tilt
    pose = Pose(np.array([0.0, 0.0, 1.8]), rotation.as_quat()[[3, 0, 1, 2]])
    record = _record(tmp_path, pose)
    # Ahead, and a little to the right.
    detections = _ahead(pose, forward_m=14.0, right_m=6.0)
    empty, drawn = (
        draw_record(record, found, range_m=20.0, panel_width=PANEL_WIDTH, with_truth=False)
        for found in (None, detections)
    )
    size = empty.shape[0] - HEADER_PX - LEGEND_PX
    area = slice(HEADER_PX, HEADER_PX + size), slice(-size, None)
    rows, columns = np.nonzero(np.abs(drawn[area].astype(int) - empty[area]).max(axis=2) > 60)
    pixels_per_m = size / 40.0
    right_m = (columns.mean() - (size - 1) / 2) / pixels_per_m
    forward_m = ((size - 1) / 2 - rows.mean()) / pixels_per_m
    assert forward_m == pytest.approx(14.0, abs=0.4)
    assert right_m == pytest.approx(6.0, abs=0.4)


def test_every_class_has_a_colour_of_its_own() -> None:
    colors = class_colors(["tram", "car", "cat"])
    assert list(colors) == ["tram", "car", "cat"]
    assert colors["car"] == CLASS_COLORS["car"]
    assert len(set(colors.values())) == 3
    assert len(class_colors([f"class {k}" for k in range(30)])) == 30

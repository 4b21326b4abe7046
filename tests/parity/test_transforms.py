"""Image and scene augmentation with the reference's draws: pictures, matrices, boxes."""

from __future__ import annotations

from pathlib import Path

import golden
import numpy as np
import pytest
import torch

from streampetr_vit.data.boxes2d import transform_boxes2d
from streampetr_vit.data.frame_geometry import FrameGeometry
from streampetr_vit.data.transforms import ImageAugmentation, ImageDraw, SceneDraw
from streampetr_vit.modeling.detector import StreamPETR
from streampetr_vit.structures import (
    Boxes2D,
    boxes_from_bottom_center,
    boxes_to_bottom_center,
    rotate_scale_translate_boxes,
)

FILES = golden.files_of("transforms")


def _cases(path: Path):
    data = golden.load(path)
    yield from zip(data["config"]["cases"], data["inputs"], data["outputs"], strict=True)


def _image_draw(config: dict, draws: dict) -> ImageDraw:
    values = draws["resize_aug"]
    return ImageDraw(
        scale=values["resize"],
        resized_size=tuple(values["resize_dims"]),
        crop_origin=tuple(values["crop"][:2]),
        final_size=tuple(config["final_dim"]),
        flip=values["flip"],
    )


def _geometry(inputs: dict) -> FrameGeometry:
    intrinsics, extrinsics = torch.stack(inputs["intrinsics"]), torch.stack(inputs["extrinsics"])
    return FrameGeometry(
        lidar_to_global=inputs["ego_pose"],
        global_to_lidar=inputs["ego_pose_inv"],
        lidar_to_camera=extrinsics,
        intrinsics=intrinsics,
        lidar_to_image=intrinsics @ extrinsics.double(),
    )


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_the_same_numbers_give_the_same_draw(path: Path) -> None:
    for config, inputs, _ in _cases(path):
        augmentation = ImageAugmentation(
            final_size=config["final_dim"],
            resize_range=config["resize_lim"],
            bottom_crop_range=config["bot_pct_lim"],
        )
        stored, expected = (config["W"], config["H"]), _image_draw(config, inputs["draws"])
        if not config["training"]:
            assert augmentation.fixed(stored) == expected
            continue
        scale, bottom, left = (entry["value"][0] for entry in inputs["draws"]["resize_log"][:3])
        surplus = max(0, int(config["W"] * scale) - config["final_dim"][1])
        across = left / surplus if surplus else 0.0
        draw = augmentation.place(stored, scale, bottom, across, expected.flip)
        assert draw == expected


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_pictures(path: Path) -> None:
    for config, inputs, expected in _cases(path):
        draw = _image_draw(config, inputs["draws"])
        for image, reference in zip(
            inputs["img_uint8"], expected["after_resize"]["img_uint8"], strict=True
        ):
            np.testing.assert_array_equal(draw.apply(image.numpy()), reference.numpy())


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_matrices_and_boxes(path: Path) -> None:
    for config, inputs, expected in _cases(path):
        draws = [_image_draw(config, inputs["draws"])] * len(inputs["intrinsics"])
        geometry = _geometry(inputs).with_image_draws(draws)
        after = expected["after_resize"]
        for name, actual in (
            ("intrinsics", geometry.intrinsics),
            ("lidar2img", geometry.lidar_to_image),
        ):
            golden.assert_close(actual, torch.stack(after[name]), f"resized {name}", atol=1e-4)
        if "after_bev" in expected:
            _check_scene_draw(config, inputs, expected["after_bev"], geometry)


def _check_scene_draw(config: dict, inputs: dict, after: dict, geometry: FrameGeometry) -> None:
    draws = inputs["draws"]
    draw = SceneDraw(-draws["rot_angle"], draws["scale_ratio"], tuple(draws["trans"]))
    geometry = geometry.with_scene_draw(draw)
    golden.assert_close(
        geometry.lidar_to_image, torch.stack(after["lidar2img"]), "lidar2img", atol=1e-4
    )
    golden.assert_close(geometry.intrinsics, torch.stack(after["intrinsics"]), "K", atol=1e-4)
    golden.assert_close(geometry.lidar_to_global, after["ego_pose"], "ego_pose", atol=1e-4)
    golden.assert_close(geometry.global_to_lidar, after["ego_pose_inv"], "ego_pose_inv", atol=1e-4)
    # Without reverse_angle the reference turns the boxes against its own matrices.
    yaw_of_boxes = draw.yaw_rad if config["reverse_angle"] else -draw.yaw_rad
    boxes = rotate_scale_translate_boxes(
        boxes_from_bottom_center(inputs["gt_bboxes_3d"]),
        yaw_of_boxes,
        draw.scale,
        torch.tensor(draw.translation_m),
    )
    golden.assert_close(boxes_to_bottom_center(boxes), after["gt_bboxes_3d"], "boxes", atol=1e-5)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_boxes_in_the_pictures(path: Path) -> None:
    for case in _cases(path):
        _check_boxes2d(*case)


def _check_boxes2d(config: dict, inputs: dict, expected: dict) -> None:
    names = ("gt_bboxes", "centers2d", "gt_labels", "depths")
    after = expected["after_resize"]
    if not (config["training"] and config["with_2d"]):
        assert not any(after.get(name) for name in names)
        return
    draw = _image_draw(config, inputs["draws"])
    for camera in range(len(inputs["gt_bboxes"])):
        boxes = transform_boxes2d(
            Boxes2D(*(inputs[name][camera] for name in names)),
            draw,
            config["min_size"],
            config["filter_invisible"],
        )
        actual = (boxes.corners, boxes.centers, boxes.labels, boxes.depths)
        for name, value in zip(names, actual, strict=True):
            golden.assert_close(value, after[name][camera], f"{name} of camera {camera}", 1e-4)


class _Echo(torch.nn.Module):
    """A backbone that returns what it is given."""

    def forward(self, images: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"images": images}


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_normalised_and_padded_pictures(path: Path) -> None:
    """What the detector does on its device to the pictures that the mapper delivers."""
    for config, _, expected in _cases(path):
        _check_normalised(config, expected)


def _check_normalised(config: dict, expected: dict) -> None:
    detector = StreamPETR(
        backbone=_Echo(),
        head=torch.nn.Identity(),
        in_feature="images",
        pixel_mean=config["norm"]["mean"],
        pixel_std=config["norm"]["std"],
        input_format="RGB" if config["norm"]["to_rgb"] else "BGR",
        size_divisibility=config["pad"].get("size_divisor", 32),
    )
    shown = expected["after_pad_img"]  # of the first camera only
    pictures = torch.stack(expected["after_resize"]["img_uint8"][: len(shown)])
    rgb = pictures.flip(-1).permute(0, 3, 1, 2)[None]  # (n, H, W, BGR) -> (1, n, RGB, H, W)
    actual = detector.image_features(rgb)[0].permute(0, 2, 3, 1)  # (n, H, W, 3)
    golden.assert_close(actual, torch.stack(shown), "padded pictures", atol=1e-5)
    height, width = expected["img_shape"][0][:2]
    inside = actual[:, :height, :width]
    normalised = torch.stack(expected["after_normalize_img"])
    golden.assert_close(inside, normalised, "normalised pictures", atol=1e-5)


# Other files may hold what no file at hand does: the two tests below make such cases of one.


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_training_case_without_2d_boxes_is_one_without_targets(path: Path) -> None:
    names = ("gt_bboxes", "centers2d", "gt_labels", "depths")
    config, inputs, expected = next(_cases(path))
    config |= {"training": True, "with_2d": False}
    with pytest.raises(AssertionError):
        _check_boxes2d(config, inputs, expected)
    without = {key: value for key, value in inputs.items() if key not in names}
    empty = expected["after_resize"] | {name: [] for name in names}
    _check_boxes2d(config, without, expected | {"after_resize": empty})


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_case_without_to_rgb_is_normalised_as_bgr(path: Path) -> None:
    config, _, expected = next(_cases(path))
    norm = {"mean": [103.53, 116.28, 123.675], "std": [57.375, 57.12, 58.395], "to_rgb": False}
    bgr = expected["after_resize"]["img_uint8"][0].double()  # as it was read, and stays
    normalised = (bgr - torch.tensor(norm["mean"])) / torch.tensor(norm["std"])
    height, width = bgr.shape[:2]
    padded = torch.zeros_like(expected["after_pad_img"][0], dtype=torch.float64)
    padded[:height, :width] = normalised
    expected |= {"after_normalize_img": [normalised], "after_pad_img": [padded]}
    _check_normalised(config | {"norm": norm}, expected)
    with pytest.raises(AssertionError, match="pictures"):
        _check_normalised(config | {"norm": norm | {"to_rgb": True}}, expected)

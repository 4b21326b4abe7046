"""Whole detectors over streams: images in, detections or losses and gradients out."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import golden
import pytest
import torch
from comparison import Comparison
from reference_detector import frame_targets, make_detector, reference_name, training_draws
from reference_head import make_frame
from torch import Tensor

from streampetr_vit.checkpoint.adapters import detector_from_streampetr
from streampetr_vit.inference import Stream
from streampetr_vit.modeling.detector import StreamPETR
from streampetr_vit.structures import Frame, Sample, boxes_to_bottom_center

FILES = golden.files_of("detector")


def files_in_mode(mode: str) -> list[Path]:
    return [path for path in FILES if golden.load(path)["config"]["mode"] == mode]


def recorded_frame(inputs: dict[str, Any]) -> Frame:
    """A frame with its pictures; at test time a `Stream` knows where streams start."""
    inputs = {"prev_exists": torch.zeros(len(inputs["img"])), **inputs}
    return replace(make_frame(inputs), images=inputs["img"].float())


class Recorder:
    """Keeps what the 3D head was given and what it returned, frame by frame."""

    def __init__(self, detector: StreamPETR) -> None:
        self.calls: list[tuple[Tensor, Any]] = []
        detector.head.register_forward_hook(
            lambda head, inputs, result: self.calls.append((inputs[0], result[0]))
        )


def check_outputs(compare: Comparison, seen: tuple[Tensor, Any], expected: dict, key: str) -> None:
    features, output = seen
    compare.check(features, expected["img_feats"], f"{key}.img_feats", 1e-5)
    compare.check(output.logits, expected["all_cls_scores"], f"{key}.all_cls_scores", 1e-5)
    compare.check(output.codes, expected["all_bbox_preds"], f"{key}.all_bbox_preds", 1e-4)


@pytest.mark.filterwarnings("ignore:global_window_size")
@pytest.mark.parametrize("path", files_in_mode("test"), ids=lambda path: path.stem)
def test_inference(path: Path, fast: bool) -> None:
    """Samples in, detections out; scenes end streams."""
    data = golden.load(path)
    detector = make_detector(data, fast).eval()
    recorder, stream = Recorder(detector), Stream(detector)
    for index, (inputs, expected) in enumerate(zip(data["inputs"], data["outputs"], strict=True)):
        compare = Comparison(data["sensitivity"], f"frame {index} ")
        frame = recorded_frame(inputs)
        sample = Sample(
            images=frame.images[0],
            intrinsics=frame.rig.intrinsics[0],
            lidar_to_camera=frame.rig.lidar_to_camera[0],
            lidar_to_image=frame.rig.lidar_to_image[0],
            lidar_to_global=frame.lidar_to_global[0],
            global_to_lidar=frame.global_to_lidar[0],
            timestamp_s=frame.timestamp_s[0],
            continues_stream=frame.continues_stream[0],
            scene_token=inputs["scene_token"],
        )
        (found,) = stream([sample])
        check_outputs(compare, recorder.calls[index], expected, "")
        assert torch.equal(found.labels, expected["labels_3d"])
        compare.check(found.scores, expected["scores_3d"], ".scores_3d", 1e-5)
        boxes = boxes_to_bottom_center(found.boxes)
        compare.check(boxes, expected["boxes_3d"], ".boxes_3d", 1e-4)
        compare.check_memory(
            stream.memory, expected["memory_after_post_update"], ".memory_after_post_update"
        )


@pytest.mark.filterwarnings("ignore:global_window_size")
@pytest.mark.parametrize("checkpointing", [False, True], ids=["all kept", "checkpointing"])
@pytest.mark.parametrize("path", files_in_mode("train"), ids=lambda path: path.stem)
def test_training(path: Path, checkpointing: bool, fast: bool) -> None:
    data = golden.load(path)
    config = data["config"]
    detector = make_detector(data, fast, checkpointing).train()
    recorder, memory = Recorder(detector), detector.empty_memory(config["batch"])
    for index, (window, expected) in enumerate(zip(data["inputs"], data["outputs"], strict=True)):
        compare = Comparison(data["sensitivity"], f"iteration {index} ")
        frames = [recorded_frame(inputs) for inputs in window]
        trained = window[-config["num_frame_head_grads"] :]
        targets = [frame_targets(inputs) for inputs in trained]
        draws = training_draws(detector, config, targets, expected)
        recorder.calls.clear()
        results, memory = detector.play(frames, memory, draws)
        for time, recorded in enumerate(expected["frames"]):
            if recorded is not None:
                check_outputs(compare, recorder.calls[time], recorded, ".frames")
        compare.check_memory(
            memory, expected["memory_after_post_update"], ".memory_after_post_update"
        )
        losses = detector.criterion(results, targets[-len(results) :])
        named = {reference_name(name, len(window)): value for name, value in losses.items()}
        compare.check_losses(named, expected["losses"])
        total = torch.stack(list(losses.values())).sum()
        compare.check(total, expected["total_loss"], ".total_loss", 1e-5)
        detector.zero_grad(set_to_none=True)
        total.backward()
        check_gradients(compare, detector, expected)


def check_gradients(compare: Comparison, detector: StreamPETR, expected: dict[str, Any]) -> None:
    gradients = {n: p.grad for n, p in detector.named_parameters() if p.grad is not None}
    assert expected["grads"]
    for name, value in expected["grads"].items():
        compare.check_gradient(gradients[our_name(name)], value, f".grads.{name}")
    assert set(gradients) == {our_name(name) for name in expected["grad_norms"]}
    for name, norm in expected["grad_norms"].items():
        compare.check_gradient_norm(gradients[our_name(name)], norm, name)


def our_name(name: str) -> str:
    tensors, _ = detector_from_streampetr({name: torch.empty(0)})
    return next(iter(tensors))

"""The 2D head of the feature pyramid: outputs, targets, losses, gradients and statistics.

A compact file records the predictions and feature gradients of its coarsest levels only, and no
gradient of the towers' kernels; every gradient flows through those kernels all the same.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import golden
import pytest
import torch
from torch import Tensor

from streampetr_vit.checkpoint.adapters import image_head_from_streampetr, rename_image_head_key
from streampetr_vit.modeling.criterion.sim_ota import SimOTA
from streampetr_vit.modeling.criterion.yolox_loss import YOLOXLoss
from streampetr_vit.modeling.heads.yolox import YOLOXHead
from streampetr_vit.structures import Boxes2D

pytestmark = pytest.mark.usefixtures("fast")

PATHS = golden.files_of("yolox_losses")
OUTPUTS = {
    "enc_cls_scores": "logits",
    "enc_bbox_preds": "box_codes",
    "objectnesses": "objectness",
    "pred_centers2d_offset": "center_offsets",
}


def make_head(data: dict[str, Any]) -> YOLOXHead:
    config = data["config"]
    # What we have one of; a file with another would need another head.
    assert (config["norm"], config["act"]) == ("BN eps 1e-3 momentum 0.03", "Swish")
    head = YOLOXHead(
        config["in_channels"],
        config["strides"],
        config["feat_channels"],
        config["num_classes"],
        config["stacked_convs"],
    )
    head.load_state_dict(image_head_from_streampetr(data["state_dict"]))
    return head


def make_loss(config: dict[str, Any]) -> YOLOXLoss:
    assigner = config["assigner"]
    assert assigner["type"] == "SimOTAAssigner"
    return YOLOXLoss(
        SimOTA(
            center_radius=assigner["center_radius"],
            num_candidates=assigner["candidate_topk"],
            class_weight=assigner["cls_weight"],
            overlap_weight=assigner["iou_weight"],
        )
    )


def features_of(data: dict[str, Any]) -> list[Tensor]:
    return [maps.float().requires_grad_() for maps in data["inputs"]["img_feats"]]


def true_objects(inputs: dict[str, Any]) -> list[Boxes2D]:
    """One entry per image, stream by stream."""
    names = ("gt_bboxes", "centers2d", "gt_labels", "depths")
    flat = [[value for stream in inputs[name] for value in stream] for name in names]
    return [Boxes2D(*values) for values in zip(*flat, strict=True)]


def image_size(config: dict[str, Any]) -> tuple[int, int]:
    return config["pad_h"], config["pad_w"]


def joined(levels: list[Tensor]) -> Tensor:
    """Maps (I, C, h, w) of all levels to (I, M, C)."""
    return torch.cat([maps.flatten(2).transpose(1, 2) for maps in levels], dim=1)


@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.stem)
@pytest.mark.parametrize("mode", ["eval", "train"])
def test_outputs(path: Path, mode: str) -> None:
    data = golden.load(path)
    head = make_head(data).train(mode == "train")
    output = head(features_of(data), image_size(data["config"]))
    for theirs, ours in OUTPUTS.items():
        expected = joined(data["outputs"][mode][theirs])
        coarsest = getattr(output, ours)[:, -expected.shape[1] :]
        golden.assert_close(coarsest, expected, f"{mode} {ours}", atol=1e-5)


@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.stem)
def test_targets(path: Path) -> None:
    data = golden.load(path)
    config, expected = data["config"], data["outputs"]["train"]
    output = make_head(data).train()(features_of(data), image_size(config))
    found = make_loss(config).targets(output, true_objects(data["inputs"]), image_size(config))
    per_image = expected["targets_per_image"]
    assert torch.equal(
        found.index, torch.cat([each["pos_mask"] for each in per_image]).nonzero()[:, 0]
    )
    assert len(found.index) == sum(int(each["num_pos"]) for each in per_image)
    names = {
        "cls_target": found.classes,
        "bbox_target": found.corners,
        "l1_target": found.box_codes,
        "centers2d_target": found.center_offsets,
    }
    for name, ours in names.items():
        wanted = [each[name].reshape(-1, ours.shape[1]) for each in per_image]
        golden.assert_close(ours, torch.cat(wanted), name, atol=1e-5)
    has_object = torch.zeros(output.objectness.shape).flatten()
    has_object[found.index] = 1.0
    assert torch.equal(has_object, torch.cat([each["obj_target"] for each in per_image])[:, 0])


@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.stem)
def test_losses_gradients_and_statistics(path: Path) -> None:
    data = golden.load(path)
    config = data["config"]
    head, criterion = make_head(data).train(), make_loss(config)
    features = features_of(data)
    objects, size = true_objects(data["inputs"]), image_size(config)
    output = head(features, size)
    assert criterion.costs(output, objects, size) == []
    losses = criterion.losses(output, objects, size, [])
    total = torch.stack(list(losses.values())).sum()
    assert losses.keys() | {"total"} == data["losses"].keys()
    for name, value in (losses | {"total": total}).items():
        golden.assert_close(value, data["losses"][name], name, atol=1e-7, rtol=1e-4)
    total.backward()
    gradients = data["grads"]["img_feats"]
    for maps, grad in zip(features[-len(gradients) :], gradients, strict=True):
        golden.assert_close_relative_to_max(maps.grad, grad, f"img_feats {tuple(maps.shape)}")
    parameters = dict(head.named_parameters())
    recorded = {rename_image_head_key(k): grad for k, grad in data["grads"]["params"].items()}
    left_out = parameters.keys() - recorded.keys()
    assert recorded.keys() <= parameters.keys()
    assert left_out in (set(), {name for name in parameters if name.endswith(".conv.weight")})
    for name, grad in recorded.items():
        golden.assert_close_relative_to_max(parameters[name].grad, grad, name)
    after = image_head_from_streampetr(data["outputs"]["train"]["state_dict_bn_after"])
    buffers = dict(head.named_buffers())
    assert after.keys() == buffers.keys()
    for name, value in after.items():
        golden.assert_close(buffers[name], value, name, atol=1e-6)

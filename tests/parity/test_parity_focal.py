"""The auxiliary 2D head: outputs, ranking of tokens, targets, losses and gradients."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import golden
import pytest
import torch
from torch import Tensor

from streampetr_vit.checkpoint.adapters import image_head_from_streampetr, rename_image_head_key
from streampetr_vit.modeling.criterion.assignment import assign, joined_pairs
from streampetr_vit.modeling.criterion.center_heatmap import center_heatmaps
from streampetr_vit.modeling.criterion.image_loss import ImageLoss
from streampetr_vit.modeling.criterion.image_matcher import ImageMatcher, ImageTargets
from streampetr_vit.modeling.heads.focal import FocalHead
from streampetr_vit.modeling.heads.outputs import ImageOutput
from streampetr_vit.modeling.ops.geometry import token_centers
from streampetr_vit.structures import Boxes2D

pytestmark = pytest.mark.usefixtures("fast")

PATHS = golden.files_of("focal_losses")
OUTPUTS = {
    "enc_cls_scores": "logits",
    "enc_bbox_preds": "boxes",
    "pred_centers2d": "centers",
    "centerness": "centerness",
}


def make_image_head(config: dict[str, Any], state_dict: dict[str, Tensor]) -> FocalHead:
    head = FocalHead(
        config["in_channels"], config["embed_dims"], config["num_classes"], config["stride"]
    )
    head.load_state_dict(image_head_from_streampetr(state_dict))
    return head


def make_image_loss(config: dict[str, Any]) -> ImageLoss:
    costs = config["train_cfg"]["assigner2d"]
    # The meaning of the weights; a file with another would need another criterion.
    assert costs["reg_cost"]["box_format"] == "xywh" and costs["iou_cost"]["iou_mode"] == "giou"
    return ImageLoss(
        ImageMatcher(
            class_weight=costs["cls_cost"]["weight"],
            box_weight=costs["reg_cost"]["weight"],
            giou_weight=costs["iou_cost"]["weight"],
            center_weight=costs["centers2d_cost"]["weight"],
        ),
        class_weight=config["loss_cls2d"]["loss_weight"],
        box_weight=config["loss_bbox2d"]["loss_weight"],
        iou_weight=config["loss_iou2d"]["loss_weight"],
        center_weight=config["loss_centers2d"]["loss_weight"],
        centerness_weight=config["loss_centerness"]["loss_weight"],
        quality_beta=config["loss_cls2d"]["beta"],
        stride=config["stride"],
    )


def true_objects(inputs: dict[str, Any]) -> list[Boxes2D]:
    """One entry per image, stream by stream."""
    names = ("gt_bboxes", "centers2d", "gt_labels", "depths")
    flat = [[value for stream in inputs[name] for value in stream] for name in names]
    return [Boxes2D(*values) for values in zip(*flat, strict=True)]


def image_size(config: dict[str, Any]) -> tuple[int, int]:
    return config["pad_h"], config["pad_w"]


@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.stem)
@pytest.mark.parametrize("mode", ["eval", "train"])
def test_outputs_and_ranking(path: Path, mode: str) -> None:
    data = golden.load(path)
    config, expected = data["config"], data["outputs"][mode]
    head = make_image_head(config, data["state_dict"]).train(mode == "train")
    features = data["inputs"]["img_feats"].float()
    output = head(features, image_size(config))
    for theirs, ours in OUTPUTS.items():
        golden.assert_close(getattr(output, ours), expected[theirs], f"{mode} {ours}", atol=1e-5)
    wanted = expected["topk_indexes"][..., 0]
    drawn = mode == "train" and config["use_hybrid_tokens"]  # then only the file knows the ratio
    ratio = 1.0 if drawn else config["train_ratio" if mode == "train" else "infer_ratio"]
    ranked = head.token_indexes(output, len(features), ratio)
    assert torch.equal(ranked[:, : wanted.shape[1]] if drawn else ranked, wanted)


@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.stem)
def test_token_locations(path: Path) -> None:
    data = golden.load(path)
    height, width = image_size(data["config"])
    expected = data["inputs"]["location"]  # (I, H, W, 2)
    cells = token_centers(*expected.shape[1:3], data["config"]["stride"], expected.device)
    ours = (cells / torch.tensor([width, height])).view(expected.shape[1:]).expand_as(expected)
    golden.assert_close(ours, expected, "location", atol=1e-6)


@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.stem)
def test_targets(path: Path) -> None:
    data = golden.load(path)
    config, expected = data["config"], data["outputs"]["train"]
    output = ImageOutput(**{ours: expected[theirs] for theirs, ours in OUTPUTS.items()})
    objects = true_objects(data["inputs"])
    pairs = assign(make_image_loss(config).costs(output, objects, image_size(config)))
    true = ImageTargets.join(objects, image_size(config))
    images, tokens = len(objects), output.logits.shape[1]
    token, row = joined_pairs(pairs, [len(boxes) for boxes in objects], tokens)
    target = {
        "labels": torch.full((images * tokens,), config["num_classes"]),
        "bbox_targets": torch.zeros(images * tokens, 4),
        "bbox_weights": torch.zeros(images * tokens, 4),
        "centers2d_targets": torch.zeros(images * tokens, 2),
    }
    target["labels"][token] = true.labels[row]
    target["bbox_targets"][token] = true.boxes[row]
    target["bbox_weights"][token] = 1.0
    target["centers2d_targets"][token] = true.relative_centers[row]
    for image, wanted in enumerate(expected["targets_per_image"]):
        assert torch.equal(pairs[image][:, 0], wanted["pos_inds"])
        for name, value in target.items():
            ours = value.view(images, tokens, *value.shape[1:])[image]
            golden.assert_close(ours, wanted[name], f"image {image} {name}", atol=1e-6)
        assert bool((wanted["label_weights"] == 1).all())  # ours has none
    heatmaps = center_heatmaps(true, images, config["stride"])
    wanted_maps = torch.stack(expected["heatmaps"])
    golden.assert_close(heatmaps, wanted_maps, "heatmaps", atol=1e-6)
    assert torch.equal(heatmaps == 1, wanted_maps == 1)


@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.stem)
def test_losses_and_gradients(path: Path) -> None:
    data = golden.load(path)
    config = data["config"]
    head = make_image_head(config, data["state_dict"]).train()
    criterion = make_image_loss(config)
    features = data["inputs"]["img_feats"].float().requires_grad_()
    objects, size = true_objects(data["inputs"]), image_size(config)
    output = head(features, size)
    losses = criterion.losses(output, objects, size, assign(criterion.costs(output, objects, size)))
    total = torch.stack(list(losses.values())).sum()
    assert losses.keys() | {"total"} == data["losses"].keys()
    for name, value in (losses | {"total": total}).items():
        golden.assert_close(value, data["losses"][name], name, atol=1e-7, rtol=1e-4)
    total.backward()
    golden.assert_close_relative_to_max(features.grad, data["grads"]["img_feats"], "img_feats")
    parameters = dict(head.named_parameters())
    recorded = {rename_image_head_key(k): grad for k, grad in data["grads"]["params"].items()}
    assert recorded.keys() == parameters.keys()
    # A bias before a group norm of one channel per group moves nothing: its gradient is the
    # rounding noise of the others.
    noise = 1e-7 * max(float(grad.abs().max()) for grad in recorded.values())
    for name, grad in recorded.items():
        atol = max(1e-4 * float(grad.abs().max()), noise)
        golden.assert_close(parameters[name].grad, grad, name, atol, rtol=0.0)

"""The RepDETR3D head over streams of frames: outputs, memory, losses and gradients."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import golden
import pytest
import torch
from reference_head import MEMORY_FIELDS, make_frame
from torch import Tensor

from streampetr_vit.checkpoint.adapters import head_from_streampetr, rename_head_key
from streampetr_vit.modeling.criterion.assignment import assign
from streampetr_vit.modeling.criterion.denoising import DenoisingNoise
from streampetr_vit.modeling.criterion.detection_loss import DetectionLoss
from streampetr_vit.modeling.criterion.matcher import HungarianMatcher
from streampetr_vit.modeling.decoder.decoder import SamplingDecoder
from streampetr_vit.modeling.heads.repdetr3d import RepDETR3DHead
from streampetr_vit.modeling.temporal.memory import TemporalMemory
from streampetr_vit.structures import boxes_from_bottom_center, boxes_to_bottom_center

pytestmark = pytest.mark.usefixtures("fast")

FILES = golden.files_of("sparsehead")


def make_head(data: dict[str, Any], kernel: str = "grid_sample") -> RepDETR3DHead:
    """Our head with the file's weights; every tensor of the file finds its place."""
    config = data["config"]
    decoder = config["transformer"]["decoder"]
    layer = decoder["transformerlayers"]
    attention, sampling = layer["attn_cfgs"]
    coder = config["bbox_coder"]
    head = RepDETR3DHead(
        SamplingDecoder(
            embed_dim=config["embed_dims"],
            num_heads=attention["num_heads"],
            feedforward_dim=layer["ffn_cfgs"]["feedforward_channels"],
            num_layers=decoder["num_layers"],
            num_levels=sampling["num_levels"],
            num_points=sampling["num_pts"],
            num_groups=sampling["num_groups"],
            dropout=attention["dropout"],
            feedforward_dropout=layer["ffn_cfgs"]["ffn_drop"],
            sampling_kernel=kernel,
            use_act_checkpoint=layer["with_cp"],
        ),
        num_classes=config["num_classes"],
        num_queries=config["num_query"],
        num_propagated=config["num_propagated"],
        memory_length=config["memory_len"],
        num_remembered=config["topk_proposals"],
        point_cloud_range=tuple(coder["pc_range"]),
        center_range=tuple(coder["post_center_range"]),
        max_detections=coder["max_num"],
        with_ego_pose=config["with_ego_pos"],
    )
    tensors, constants = head_from_streampetr(data["state_dict"])
    head.load_state_dict({name: value.float() for name, value in tensors.items()}, strict=True)
    assert constants["pc_range"].tolist() == head.point_cloud_range.tolist()
    return head


def make_criterion(config: dict[str, Any]) -> DetectionLoss:
    assigner = config["train_cfg"]["assigner"]
    weights = tuple(config["code_weights"])
    return DetectionLoss(
        matcher=HungarianMatcher(
            class_weight=assigner["cls_cost"]["weight"],
            box_weight=assigner["reg_cost"]["weight"],
            code_weights=weights,
            with_velocity=config["match_with_velo"],
        ),
        class_weight=config["loss_cls"]["loss_weight"],
        box_weight=config["loss_bbox"]["loss_weight"],
        denoising_weight=config["dn_weight"],
        code_weights=weights,
        max_positive_distance=config["split"],
    )


def check(actual: Tensor, expected: Tensor, name: str, atol: float = 2e-5) -> None:
    golden.assert_close(actual, expected, name, atol, rtol=1e-4)


def check_memory(memory: TemporalMemory, recorded: dict[str, Tensor], name: str) -> None:
    for key, (ours, _) in MEMORY_FIELDS.items():
        check(getattr(memory, ours), recorded[key], f"{name}.{key}", 2e-4)


@pytest.mark.parametrize("kernel", ["grid_sample", "gather"])
@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_evaluation(path: Path, kernel: str) -> None:
    data = golden.load(path)
    head = make_head(data, kernel).eval()
    frames = data["inputs"]["frames"]
    memory = head.empty_memory(len(frames[0]["timestamp"]))
    for index, (inputs, expected) in enumerate(zip(frames, data["outputs"]["eval"], strict=True)):
        name, frame = f"frame {index} ", make_frame(inputs)
        with torch.no_grad():
            aligned = head.align_memory(memory, frame)
            check_memory(aligned, expected["memory_after_pre_update"], f"{name}before")
            queries = head.make_queries(aligned)
            size = tuple(inputs["pad_shape"][:2])
            output, memory = head(inputs["img_feats"], frame, memory, image_size=size)
            image = head.image_for_queries(
                inputs["img_feats"], frame, queries.reference_points, None, size
            )
        debug = expected["debug"]
        for key, value in {
            "tgt": queries.content,
            "query_pos": queries.position,
            "reference_points": queries.reference_points,
            "temp_memory": queries.memory_content,
            "temp_pos": queries.memory_position,
            "decoder_out": output.states,
        }.items():
            check(value, debug[key], f"{name}{key}")
        tokens = torch.cat([level.flatten(0, 1).flatten(2) for level in image.maps], dim=2)
        check(tokens.transpose(1, 2)[:, -10:], debug["feat_flatten_last10"], f"{name}maps")
        check(output.logits, expected["all_cls_scores"], f"{name}logits")
        check(output.codes, expected["all_bbox_preds"], f"{name}codes", 2e-4)
        check_memory(memory, expected["memory_after_post_update"], f"{name}after")
        for found, wanted in zip(head.decode(output).unpad(), expected["decoded"], strict=True):
            assert torch.equal(found.labels, wanted["labels"])
            check(found.scores, wanted["scores"], f"{name}scores")
            boxes = boxes_to_bottom_center(found.boxes)
            check(boxes, wanted["boxes_bottom_center"], f"{name}boxes", 2e-4)


@pytest.mark.parametrize("kernel", ["grid_sample", "gather"])
@pytest.mark.parametrize("mode", ["train_no_dn", "train_dn"])
@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_training(path: Path, mode: str, kernel: str) -> None:
    data = golden.load(path)
    config, frames = data["config"], data["inputs"]["frames"]
    head, criterion = make_head(data, kernel).train(), make_criterion(config)
    memory = head.empty_memory(len(frames[0]["timestamp"]))
    gradients = data["grads"] if data["grads"]["mode"] == mode else None
    for index, (inputs, expected) in enumerate(zip(frames, data["outputs"][mode], strict=True)):
        name, frame = f"{mode} frame {index} ", make_frame(inputs)
        boxes = [boxes_from_bottom_center(b.reshape(-1, 9)) for b in inputs["gt_boxes"]]
        labels = [y.long() for y in inputs["gt_labels"]]
        denoising = None
        if mode == "train_dn":
            denoising = make_noise(config).make(
                boxes,
                labels,
                head.point_cloud_range,
                config["num_classes"],
                expected["dn"]["noise_uniform01"],
            )
            check_queries(denoising, expected, head)
        maps = [level.clone().requires_grad_() for level in inputs["img_feats"]]
        size = tuple(inputs["pad_shape"][:2])
        output, memory = head(maps, frame, memory, denoising, image_size=size)
        check(output.logits, expected["all_cls_scores"], f"{name}logits")
        check(output.codes, expected["all_bbox_preds"], f"{name}codes", 2e-4)
        if "memory_after_post_update" in expected:
            check_memory(memory, expected["memory_after_post_update"], f"{name}after")
        pairs = assign(criterion.costs(output, boxes, labels))
        losses = criterion.losses(output, boxes, labels, pairs, denoising)
        assert set(losses) == set(data["losses"][mode][index])
        for key, value in data["losses"][mode][index].items():
            check(losses[key], value, f"{name}{key}")
        if gradients is not None and gradients["frame_index"] == index:
            head.zero_grad(set_to_none=True)
            torch.stack(list(losses.values())).sum().backward()
            check_gradients(head, maps, gradients)


def make_noise(config: dict[str, Any]) -> DenoisingNoise:
    return DenoisingNoise(
        config["scalar"], config["noise_scale"], config["noise_trans"], config["split"]
    )


def check_queries(denoising: Any, expected: dict[str, Any], head: RepDETR3DHead) -> None:
    recorded = expected["dn"]
    assert denoising.num_slots == recorded["pad_size"]
    assert torch.equal(denoising.labels, recorded["known_labels"].long())
    assert torch.equal(denoising.slot, recorded["map_known_indice"].long())
    check(denoising.boxes, recorded["known_bboxs"], "known_bboxs")
    real = head.num_queries + head.num_propagated
    blocked = denoising.blocked(real, head.num_queries + head.memory_length)
    assert torch.equal(blocked, expected["debug"]["attn_mask"])


def check_gradients(head: RepDETR3DHead, maps: list[Tensor], expected: dict[str, Any]) -> None:
    actual = {n: p.grad for n, p in head.named_parameters() if p.grad is not None}
    assert set(actual) == {rename_head_key(name) for name in expected["param_grad_norms"]}
    for name, value in expected["params"].items():
        golden.assert_close_relative_to_max(actual[rename_head_key(name)], value, name, 1e-3)
    for name, norm in expected["param_grad_norms"].items():
        found = actual[rename_head_key(name)].double().norm()
        golden.assert_close(found, torch.tensor(norm), name, 1e-3 * norm + 1e-7, rtol=0.0)
    golden.assert_close_relative_to_max(maps[3].grad, expected["img_feats_level3"], "maps", 1e-3)
    for level, norm in zip(maps, expected["img_feats_grad_norms"], strict=True):
        found = level.grad.double().norm()
        golden.assert_close(found, torch.tensor(norm), "map norms", 1e-3 * norm, rtol=0.0)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_batch_without_any_box(path: Path) -> None:
    data = golden.load(path)
    config, inputs = data["config"], data["inputs"]["frames"][0]
    expected = data["losses"].get("train_dn_frame0_with_no_gt_at_all")
    head, criterion = make_head(data).train(), make_criterion(config)
    streams = len(inputs["timestamp"])
    boxes, labels = [torch.empty(0, 9)] * streams, [torch.empty(0, dtype=torch.long)] * streams
    queries = make_noise(config).make(boxes, labels, head.point_cloud_range, config["num_classes"])
    memory = head.empty_memory(streams)
    size = tuple(inputs["pad_shape"][:2])
    output, _ = head(inputs["img_feats"], make_frame(inputs), memory, queries, image_size=size)
    pairs = assign(criterion.costs(output, boxes, labels))
    losses = criterion.losses(output, boxes, labels, pairs, queries)
    assert set(losses) == set(expected)
    for name, value in expected.items():
        check(losses[name], value, name)

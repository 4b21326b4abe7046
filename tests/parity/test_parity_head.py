"""The whole 3D head over streams of frames: outputs, memory, losses and gradients."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import golden
import pytest
import torch
from comparison import Comparison
from reference_head import (
    assigned_gt_inds,
    make_criterion,
    make_frame,
    make_head,
    make_noise,
    true_boxes,
)
from torch import Tensor

from streampetr_vit.checkpoint.adapters import rename_head_key
from streampetr_vit.modeling.criterion.assignment import assign
from streampetr_vit.modeling.heads.denoising_queries import DenoisingQueries
from streampetr_vit.modeling.heads.outputs import HeadOutput
from streampetr_vit.modeling.heads.streampetr import StreamPETRHead
from streampetr_vit.modeling.ops.geometry import token_centers
from streampetr_vit.modeling.temporal.memory import TemporalMemory
from streampetr_vit.structures import Frame, boxes_to_bottom_center

pytestmark = pytest.mark.usefixtures("fast")


def build(data: dict[str, Any], kernel: str = "sdpa") -> StreamPETRHead:
    head = make_head(data["config"], data["state_dict"], kernel)
    return head.train(data["config"]["mode"] == "train")


def memory_before(
    head: StreamPETRHead, config: dict[str, Any], index: int, memory: TemporalMemory | None
) -> TemporalMemory:
    if memory is None or index in config["reset_memory_before_frames"]:
        return head.empty_memory(config["batch"])
    return memory


def token_indexes(inputs: dict[str, Any]) -> Tensor | None:
    indexes = inputs.get("topk_indexes")
    return None if indexes is None else indexes[..., 0]


@pytest.mark.parametrize("kernel", ["sdpa", "math"])
@pytest.mark.parametrize("path", golden.files_of("head_eval"), ids=lambda path: path.stem)
def test_evaluation(path: Path, kernel: str) -> None:
    data = golden.load(path)
    head, memory = build(data, kernel), None
    for index, (inputs, expected) in enumerate(zip(data["inputs"], data["outputs"], strict=True)):
        compare = Comparison(data["sensitivity"], f"frame {index} ")
        frame, memory = make_frame(inputs), memory_before(head, data["config"], index, memory)
        features, indexes = inputs["img_feats"].float(), token_indexes(inputs)
        with torch.no_grad():
            aligned = head.align_memory(memory, frame)
            compare.check_memory(
                aligned, expected["memory_after_pre_update"], ".memory_after_pre_update"
            )
            if expected.get("intermediate"):
                check_intermediate(
                    compare, head, features, frame, aligned, indexes, expected["intermediate"]
                )
            height, width = (side * head.stride for side in features.shape[-2:])
            code = head.encode_rig(frame.rig, (height, width))
            coded, _ = head(features, frame, memory, token_indexes=indexes, rig_code=code)
            output, memory = head(features, frame, memory, token_indexes=indexes)
        compare.check(coded.codes, expected["all_bbox_preds"], ".all_bbox_preds", 1e-4)
        compare.check(output.logits, expected["all_cls_scores"], ".all_cls_scores", 1e-5)
        compare.check(output.codes, expected["all_bbox_preds"], ".all_bbox_preds", 1e-4)
        if expected.get("outs_dec") is not None:
            compare.check(output.states, expected["outs_dec"], ".outs_dec", 1e-5)
        compare.check_memory(
            memory, expected["memory_after_post_update"], ".memory_after_post_update"
        )
        check_detections(compare, head, output, expected["decoded"])


def check_intermediate(
    compare: Comparison,
    head: StreamPETRHead,
    features: Tensor,
    frame: Frame,
    aligned: TemporalMemory,
    indexes: Tensor | None,
    expected: dict[str, Tensor],
) -> None:
    pixels = token_centers(*features.shape[-2:], head.stride, features.device)
    position, cone = head.position_encoder(
        frame.rig.lidar_to_image, frame.rig.intrinsics, pixels, indexes
    )
    compare.check(position, expected["pos_embed"], ".intermediate.pos_embed", 5e-4)
    compare.check(cone, expected["cone"], ".intermediate.cone", 1e-5)
    queries = head.make_queries(aligned)
    for name, value in {
        "tgt": queries.content,
        "query_pos": queries.position,
        "temp_memory": queries.memory_content,
        "temp_pos": queries.memory_position,
    }.items():
        if expected.get(name) is not None:
            compare.check(value, expected[name], f".intermediate.{name}", 1e-5)
    compare.check(
        queries.reference_points,
        expected["reference_points"],
        ".intermediate.reference_points",
        1e-4,
    )


def check_detections(
    compare: Comparison, head: StreamPETRHead, output: HeadOutput, expected: list[dict[str, Tensor]]
) -> None:
    for found, wanted in zip(head.decode(output).unpad(), expected, strict=True):
        assert torch.equal(found.labels, wanted["labels"])
        compare.check(found.scores, wanted["scores"], ".decoded.scores", 1e-5)
        boxes = boxes_to_bottom_center(found.boxes)
        compare.check(boxes, wanted["boxes"], ".decoded.boxes", 1e-4)


@pytest.mark.parametrize("path", golden.files_of("head_train"), ids=lambda path: path.stem)
def test_training(path: Path) -> None:
    data = golden.load(path)
    config = data["config"]
    head, memory = build(data), None
    criterion, noise = make_criterion(config), make_noise(config)
    for index, (inputs, expected) in enumerate(zip(data["inputs"], data["outputs"], strict=True)):
        compare = Comparison(data["sensitivity"], f"frame {index} ")
        frame, memory = make_frame(inputs), memory_before(head, config, index, memory)
        boxes, labels = true_boxes(inputs)
        denoising = None
        if config["with_dn"]:
            uniform = expected["dn"]["rand"] if expected["dn"] else torch.empty(0, 3)
            denoising = noise.make(
                boxes, labels, head.point_cloud_range, config["num_classes"], uniform
            )
        aligned = head.align_memory(memory, frame)
        compare.check_memory(
            aligned, expected["memory_after_pre_update"], ".memory_after_pre_update"
        )
        output, memory = head(inputs["img_feats"].float(), frame, memory, denoising)
        compare.check(output.logits, expected["all_cls_scores"], ".all_cls_scores", 1e-5)
        compare.check(output.codes, expected["all_bbox_preds"], ".all_bbox_preds", 1e-4)
        compare.check_memory(
            memory, expected["memory_after_post_update"], ".memory_after_post_update"
        )
        if denoising is not None:
            check_denoising(compare, head, denoising, output, expected)
        pairs = assign(criterion.costs(output, boxes, labels))
        check_assignment(pairs, output, expected["assigned_gt_inds"])
        losses = criterion.losses(output, boxes, labels, pairs, denoising)
        check_losses(compare, losses, expected)
        check_gradients(compare, head, torch.stack(list(losses.values())).sum(), expected)


def check_denoising(
    compare: Comparison,
    head: StreamPETRHead,
    denoising: DenoisingQueries,
    output: HeadOutput,
    expected: dict[str, Any],
) -> None:
    recorded = expected["dn"]
    pad = recorded["pad_size"] if recorded else 0
    assert denoising.num_slots == pad
    if not pad:
        assert output.denoising_logits is None
        assert expected["dn_outputs"] is None
        return
    learned = head.reference_points.expand(len(denoising.reference_points), -1, -1)
    compare.check(
        torch.cat((denoising.reference_points, learned), dim=1),
        recorded["padded_reference_points"],
        ".dn.padded_reference_points",
        1e-5,
    )
    queries = head.num_queries + head.num_propagated
    keys = head.num_queries + head.memory_length
    assert torch.equal(denoising.blocked(queries, keys), recorded["attn_mask"])
    assert torch.equal(denoising.labels, recorded["known_labels"].long())
    assert torch.equal(denoising.slot, recorded["map_known_indice"].long())
    golden.assert_close(denoising.boxes, recorded["known_bboxs"], "known_bboxs", 1e-6)
    for name, ours, base in (
        ("output_known_class", output.denoising_logits, 1e-5),
        ("output_known_coord", output.denoising_codes, 1e-4),
    ):
        theirs = expected["dn_outputs"][name]
        if theirs.shape != ours.shape:  # gathered at the real objects
            ours = ours[:, denoising.stream, denoising.slot]
        compare.check(ours, theirs, f".dn_outputs.{name}", base)


def check_assignment(pairs: list[Tensor], output: HeadOutput, expected: list[list[Tensor]]) -> None:
    queries = output.logits.shape[2]
    for layer, streams in enumerate(expected):
        for stream, indexes in enumerate(streams):
            assert torch.equal(assigned_gt_inds(pairs[stream][layer], queries), indexes)


def check_losses(compare: Comparison, losses: dict[str, Tensor], expected: dict[str, Any]) -> None:
    compare.check_losses(losses, expected["losses"])
    total = torch.stack(list(losses.values())).sum()
    compare.check(total, expected["total_loss"], ".total_loss", 1e-5)


def check_gradients(
    compare: Comparison, head: StreamPETRHead, total: Tensor, expected: dict[str, Any]
) -> None:
    head.zero_grad(set_to_none=True)
    total.backward()
    gradients = {n: p.grad for n, p in head.named_parameters() if p.grad is not None}
    for name, value in expected["grads"].items():
        compare.check_gradient(gradients[rename_head_key(name)], value, f".grads.{name}")
    assert set(gradients) == {rename_head_key(name) for name in expected["grad_norms"]}
    for name, norm in expected["grad_norms"].items():
        compare.check_gradient_norm(gradients[rename_head_key(name)], norm, name)

"""The parts of the head alone, each against its own golden file."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import golden
import pytest
import torch
from reference_head import (
    MEMORY_FIELDS,
    assigned_gt_inds,
    make_decoder,
    make_memory,
    make_position_encoder,
)
from tiny_detector import last_layer
from torch import Tensor, nn

from streampetr_vit.checkpoint.adapters import head_from_streampetr, rename_head_key
from streampetr_vit.modeling.criterion.assignment import assign
from streampetr_vit.modeling.criterion.losses import (
    DIVISOR_EPS,
    l1_loss_sum,
    sigmoid_focal_loss_sum,
)
from streampetr_vit.modeling.criterion.matcher import HungarianMatcher
from streampetr_vit.modeling.decoder.attention import ImageTokens
from streampetr_vit.modeling.heads.box_coding import decode_boxes, decode_padded, encode_boxes
from streampetr_vit.modeling.ops.encodings import encode_points, fourier_encoding, sine_encoding
from streampetr_vit.modeling.ops.geometry import (
    denormalize_from_range,
    gather_tokens,
    inverse_sigmoid,
    token_centers,
    transform_points,
)
from streampetr_vit.modeling.temporal.alignment import TemporalAlignment
from streampetr_vit.modeling.temporal.memory import (
    NO_LINEAGE,
    TemporalMemory,
    align,
    best_queries,
    push,
)
from streampetr_vit.modeling.temporal.motion_layer_norm import FeatureGate, MotionLayerNorm
from streampetr_vit.structures import (
    box_corners,
    boxes_from_bottom_center,
    boxes_to_bottom_center,
    rotate_scale_translate_boxes,
)


def cases(path: Path) -> Iterator[tuple[str, dict[str, Any], Any, Any, Any]]:
    """(name, config, inputs, outputs, state_dict) of every case of a file."""
    data = golden.load(path)
    configs = data["config"]["cases"]
    states = data["state_dict"] or [{}] * len(configs)
    for index, parts in enumerate(
        zip(configs, data["inputs"], data["outputs"], states, strict=True)
    ):
        yield f"case {index} ", *parts


def load_part(module: nn.Module, state_dict: dict[str, Tensor], ours: str) -> nn.Module:
    """Loads the tensors whose name in our head starts with `ours`; all must fit."""
    tensors, _ = head_from_streampetr(state_dict)
    assert all(name.startswith(ours) for name in tensors), sorted(tensors)
    part = {name.removeprefix(ours): value.float() for name, value in tensors.items()}
    module.load_state_dict(part, strict=True)
    return module


@pytest.mark.parametrize("path", golden.files_of("position_embedding"), ids=lambda p: p.stem)
def test_position_embedding(path: Path) -> None:
    for name, config, inputs, expected, state in cases(path):
        encoder = load_part(make_position_encoder(config), state, "position_encoder.")
        batch, cameras = inputs["lidar2img"].shape[:2]
        size = torch.tensor([inputs["pad_w"], inputs["pad_h"]])
        pixels = (inputs["locations"] * size).flatten(1, 2).unflatten(0, (batch, cameras))
        indexes = inputs["topk_indexes"]
        indexes = None if indexes is None else indexes[..., 0]
        position, cone = encoder(inputs["lidar2img"], inputs["intrinsics"], pixels, indexes)
        golden.assert_close(position, expected["pos_embed"], f"{name}pos_embed", 5e-4)
        golden.assert_close(cone, expected["cone"], f"{name}cone", 1e-5)
        points = encoder.ray_points(inputs["lidar2img"], pixels)
        expected_points = expected["position_encoder_input"]
        if expected_points.shape[1] != points.shape[1]:  # recorded after the selection
            points = gather_tokens(points, indexes)
        # The logit amplifies without bound near 0 and 1; compare the fractions themselves.
        golden.assert_close(
            points.clamp(1e-5, 1 - 1e-5),
            expected_points.sigmoid().clamp(1e-5, 1 - 1e-5),
            f"{name}position_encoder_input",
            2e-6,
        )


@pytest.mark.parametrize("path", golden.files_of("temporal_alignment"), ids=lambda p: p.stem)
def test_temporal_alignment(path: Path) -> None:
    for name, config, inputs, expected, state in cases(path):
        module = load_part(
            TemporalAlignment(
                config["embed_dims"],
                tuple(config["pc_range"]),
                config["num_propagated"],
                config["with_ego_pos"],
            ),
            state,
            "alignment.",
        )
        queries = module(
            inputs["tgt"], inputs["query_pos"], inputs["reference_points"], make_memory(inputs)
        )
        for key, value, atol in (
            ("tgt", queries.content, 1e-5),
            ("query_pos", queries.position, 1e-5),
            ("reference_points", queries.reference_points, 1e-4),
            ("temp_memory", queries.memory_content, 1e-5),
            ("temp_pos", queries.memory_position, 1e-5),
        ):
            golden.assert_close(value, expected[key], name + key, atol)


@pytest.mark.parametrize("path", golden.files_of("memory"), ids=lambda p: p.stem)
def test_memory(path: Path) -> None:
    for name, config, inputs, expected, state in cases(path):
        limits = torch.tensor(config["pc_range"])
        points = state.get("pseudo_reference_points.weight", torch.empty(0, 3)).float()
        if inputs["memory_before"] is None:
            memory = TemporalMemory.empty(
                config["batch"], config["memory_len"], config["embed_dims"]
            )
        else:
            memory = make_memory(inputs["memory_before"])
        aligned = align(
            memory,
            config["memory_len"],
            inputs["prev_exists"].bool(),
            inputs["ego_pose_inv"],
            inputs["timestamp"],
            denormalize_from_range(points, limits),
        )
        check_memory(aligned, expected["memory_after_pre_update"], f"{name}pre ")
        skipped = inputs["dn_pad_size"] if inputs["training"] else 0
        logits, codes, states = (
            inputs[key][-1][:, skipped:] for key in ("all_cls_scores", "all_bbox_preds", "outs_dec")
        )
        pushed = push(
            aligned,
            best=best_queries(logits.sigmoid().amax(-1), config["topk_proposals"]),
            embedding=states,
            center_m=codes[..., :3],
            velocity_mps=codes[..., -2:],
            lineage=torch.full(logits.shape[:2], NO_LINEAGE),
            lidar_to_global=inputs["ego_pose"],
            timestamp_s=inputs["timestamp"],
        )
        check_memory(pushed, expected["memory_after_post_update"], f"{name}post ")


def check_memory(memory: TemporalMemory, expected: dict[str, Tensor], name: str) -> None:
    for key, (ours, atol) in MEMORY_FIELDS.items():
        rtol = 0.0 if ours == "time_s" else 1e-5
        golden.assert_close(getattr(memory, ours), expected[key], name + key, atol, rtol)


@pytest.mark.parametrize("kernel", ["sdpa", "math"])
@pytest.mark.parametrize("path", golden.files_of("decoder"), ids=lambda p: p.stem)
def test_decoder(path: Path, kernel: str) -> None:
    for name, config, inputs, expected, state in cases(path):
        decoder = make_decoder(config, config["num_layers"], kernel)
        single = config["module"] == "decoder_layer"
        prefix = "decoder.layers.0." if single else "decoder."
        module = decoder.layers[0] if single else decoder
        named = {f"transformer.{prefix}{key}": value for key, value in state.items()}
        load_part(module, named, prefix)

        def batch_first(key: str, inputs: dict[str, Any] = inputs) -> Tensor | None:
            value = inputs[key]
            return None if value is None else value.transpose(0, 1).clone().requires_grad_()

        arguments = {
            key: batch_first(key)
            for key in ("query", "query_pos", "key", "key_pos", "temp_memory", "temp_pos")
        }
        query, position, tokens, token_position, *of_the_memory = arguments.values()
        image = ImageTokens(tokens, token_position)
        out = module(query, position, image, None, *of_the_memory, blocked=inputs["self_attn_mask"])
        out = out.transpose(-3, -2)  # sequence first, as recorded
        golden.assert_close(out, expected["out"], f"{name}out", 1e-5)
        (out * inputs["grad_output"]).sum().backward()
        for key, value in expected["grad_inputs"].items():
            gradient = arguments[key].grad.transpose(0, 1)
            golden.assert_close_relative_to_max(gradient, value, f"{name}grad {key}")
        parameters = dict(module.named_parameters())
        for key, value in expected["grad_params"].items():
            ours = rename_head_key(f"transformer.{prefix}{key}").removeprefix(prefix)
            golden.assert_close_relative_to_max(parameters[ours].grad, value, f"{name}grad {key}")


@pytest.mark.parametrize("path", golden.files_of("hungarian"), ids=lambda p: p.stem)
def test_hungarian(path: Path) -> None:
    for name, config, inputs, expected, _ in cases(path):
        matcher = HungarianMatcher(
            class_weight=config["cls_weight"],
            box_weight=config["reg_weight"],
            code_weights=tuple(config["code_weights"]),
            with_velocity=config["with_velo"],
        )
        logits, codes = inputs["cls_pred"], inputs["bbox_pred"]
        boxes, labels = inputs["gt_bboxes"], inputs["gt_labels"]
        if expected["cost_after_nan_to_num"] is not None:
            cost = matcher.cost(logits, codes, boxes, labels)
            golden.assert_close(cost, expected["cost_after_nan_to_num"], f"{name}cost", 1e-5)
        (pairs,) = assign(matcher.costs(logits[None, None], codes[None, None], [boxes], [labels]))
        assigned = assigned_gt_inds(pairs[0], len(logits))
        assert torch.equal(assigned, expected["assigned_gt_inds"]), name
        query, box = pairs[0].unbind(-1)
        assert torch.equal(labels[box], expected["assigned_labels"][query]), name


@pytest.mark.parametrize("path", golden.files_of("coder"), ids=lambda p: p.stem)
def test_coder(path: Path) -> None:
    for name, config, inputs, expected, _ in cases(path):
        limits = torch.tensor(config["post_center_range"])
        output = last_layer(inputs["all_cls_scores"][-1], inputs["all_bbox_preds"][-1])
        padded = decode_padded(
            output,
            config["max_num"],
            limits,
            config["score_threshold"],
        )
        for found, wanted in zip(padded.unpad(), expected, strict=True):
            assert torch.equal(found.labels, wanted["labels"]), name
            golden.assert_close(found.scores, wanted["scores"], f"{name}scores", 1e-6)
            golden.assert_close(found.boxes, wanted["bboxes"], f"{name}boxes", 1e-5)


def primitive_results(data: dict[str, Any]) -> dict[str, Tensor]:
    """Our value of every recorded primitive."""
    inputs, states = data["inputs"], data["state_dict"]
    results = {}
    for key, value in inputs.items():
        if key.startswith("pos2posemb3d_"):
            results[key] = encode_points(value, int(key.rsplit("_", 1)[1]))
        if key.startswith("pos2posemb1d_"):
            results[key] = sine_encoding(value[..., 0], int(key.rsplit("_", 1)[1]))
    results["nerf"] = fourier_encoding(inputs["nerf"])
    mln = MotionLayerNorm(inputs["mln_c"].shape[-1], inputs["mln_x"].shape[-1])
    mln.load_state_dict({k.replace("reduce.0", "reduce"): v for k, v in states["mln"].items()})
    results["mln"] = mln(inputs["mln_x"], inputs["mln_c"])
    gate = FeatureGate(inputs["se_x"].shape[-1])
    gate.load_state_dict({k.removeprefix("conv_"): v for k, v in states["se"].items()})
    results["se"] = gate(inputs["se_x"], inputs["se_gate"])
    for key, shape in data["config"].items():
        pixels = token_centers(shape["h"], shape["w"], shape["stride"], torch.device("cpu"))
        size = torch.tensor([shape["pad_w"], shape["pad_h"]])
        results[key] = (pixels / size).unflatten(0, (shape["h"], shape["w"]))
    indexes = inputs["topk_gather_index"][..., 0]
    results["topk_gather"] = gather_tokens(inputs["topk_gather_feat"], indexes)
    results["topk_gather4"] = gather_tokens(inputs["topk_gather_feat4"], indexes)
    points, pose = inputs["transform_points"], inputs["transform_pose"]
    results["transform_forward"] = transform_points(points, pose)
    results["transform_reverse"] = transform_points(points, pose.inverse())
    rotation_only = pose.clone()
    rotation_only[:, :3, 3] = 0
    results["transform_no_translation"] = transform_points(points, rotation_only)
    results["inverse_sigmoid"] = inverse_sigmoid(inputs["inverse_sigmoid"])
    codes = encode_boxes(inputs["normalize_bbox"])
    results["normalize_bbox"] = codes
    results["denormalize_bbox"] = decode_boxes(codes)
    results["memory_refresh"] = memory_refresh(inputs)
    return results | loss_results(inputs) | box_results(inputs["lidar_boxes"])


def loss_results(inputs: dict[str, Tensor]) -> dict[str, Tensor]:
    """The recorded calls: class weight 2, rows weighted, divisor 4; box weight 0.25, divisor 3."""
    logits = inputs["focal_logits"].clone().requires_grad_()
    rows = sigmoid_focal_loss_sum(logits[:, None], inputs["focal_labels"][:, None])
    focal = 2.0 * (rows * inputs["focal_weights"]).sum() / (4 + DIVISOR_EPS)
    pred, weight = inputs["l1_pred"].clone().requires_grad_(), inputs["l1_weight"]
    ones = torch.ones(pred.shape[-1])
    distance = 0.25 * l1_loss_sum(pred * weight, inputs["l1_target"] * weight, ones)
    distance = distance / (3 + DIVISOR_EPS)
    return {
        "focal_loss_avg4": focal,
        "focal_grad_avg4": torch.autograd.grad(focal, logits)[0],
        "l1_loss_avg3": distance,
        "l1_grad_avg3": torch.autograd.grad(distance, pred)[0],
        "l1_loss_empty": l1_loss_sum(pred[:0], inputs["l1_target"][:0], ones),
    }


def memory_refresh(inputs: dict[str, Tensor]) -> Tensor:
    """Voiding a stream's memory, seen through `align` with identity poses."""
    values, flags = inputs["memory_refresh_x"], inputs["memory_refresh_prev"].bool()
    batch, length = values.shape[:2]
    memory = TemporalMemory.empty(batch, length, values.shape[-1])
    memory = replace(memory, embedding=values)
    poses, times = torch.eye(4).expand(batch, 4, 4), torch.zeros(batch, dtype=torch.float64)
    return align(memory, length, flags, poses, times, torch.empty(0, 3)).embedding


def box_results(boxes: Tensor) -> dict[str, Tensor]:
    """Of lidar boxes, recorded with z at the bottom and the reference's order of corners."""
    centered = boxes_from_bottom_center(boxes)
    rotated = rotate_scale_translate_boxes(centered, 0.3)
    scaled = rotate_scale_translate_boxes(centered, 0.3, 1.05)
    moved = rotate_scale_translate_boxes(centered, 0.3, 1.05, torch.tensor([1.0, -2.0, 0.5]))
    return {
        "lidar_gravity_center": centered[:, :3],
        "lidar_corners": box_corners(centered)[:, [0, 1, 3, 2, 4, 5, 7, 6]],
        "lidar_from_center_origin": boxes_to_bottom_center(boxes),
        "lidar_rotate_0.3": boxes_to_bottom_center(rotated),
        "lidar_rotate_0.3_scale_1.05": boxes_to_bottom_center(scaled),
        "lidar_rotate_0.3_scale_1.05_translate_1_-2_0.5": boxes_to_bottom_center(moved),
    }


@pytest.mark.parametrize("path", golden.files_of("primitives"), ids=lambda p: p.stem)
def test_primitives(path: Path) -> None:
    data = golden.load(path)
    results = primitive_results(data)
    assert set(results) == set(data["outputs"])
    for name, value in data["outputs"].items():
        golden.assert_close(results[name], value, name, 1e-5)

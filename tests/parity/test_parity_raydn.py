"""Ray denoising: its draws, queries, mask and losses."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import golden
import pytest
import torch
from torch import Tensor

from streampetr_vit.modeling.criterion.assignment import assign
from streampetr_vit.modeling.criterion.denoising import DenoisingNoise
from streampetr_vit.modeling.criterion.detection_loss import DetectionLoss
from streampetr_vit.modeling.criterion.matcher import HungarianMatcher
from streampetr_vit.modeling.criterion.ray_denoising import (
    RayDenoising,
    RayDraws,
    Views,
    rays_to,
)
from streampetr_vit.modeling.heads.denoising_queries import DenoisingQueries
from streampetr_vit.modeling.heads.outputs import HeadOutput
from streampetr_vit.structures import boxes_from_bottom_center

FILES = golden.files_of("raydn")


def make_noise(config: dict[str, Any]) -> DenoisingNoise:
    return DenoisingNoise(
        groups=config["scalar"],
        scale=config["noise_scale"],
        translation_m=config["noise_trans"],
        max_positive_distance=config["split"],
        ray=RayDenoising(
            groups=config["raydn_group"],
            num_points=config["raydn_num"],
            alpha=config["raydn_alpha"],
            beta=config["raydn_beta"],
            radius=config["raydn_radius"],
            max_positive_step=config["split"],
        ),
    )


def make_criterion(config: dict[str, Any]) -> DetectionLoss:
    weights = tuple(config["code_weights"])
    return DetectionLoss(
        matcher=HungarianMatcher(
            class_weight=config["cls_weight"],
            box_weight=config["bbox_weight"],
            code_weights=weights,
            with_velocity=config["match_with_velo"],
            alpha=config["focal_alpha"],
            gamma=config["focal_gamma"],
        ),
        class_weight=config["cls_weight"],
        box_weight=config["bbox_weight"],
        denoising_weight=config["dn_weight"],
        code_weights=weights,
        max_positive_distance=config["split"],
    )


def true_boxes(inputs: dict[str, Any]) -> tuple[list[Tensor], list[Tensor]]:
    boxes = [boxes_from_bottom_center(b.reshape(-1, 9)) for b in inputs["gt_boxes"]]
    return boxes, [labels.long() for labels in inputs["gt_labels"]]


def views_of(data: dict[str, Any]) -> Views:
    config = data["config"]
    return Views(data["inputs"]["lidar2img"], (config["pad_h"], config["pad_w"]))


def recorded_draws(data: dict[str, Any]) -> tuple[Tensor, RayDraws]:
    """The draws of the ordinary copies, and those of the rays."""
    config, by_kind = data["config"], {"uniform": [], "beta": [], "redraw": []}
    for draw in data["inputs"]["draws"]:
        by_kind[draw["kind"]].append(draw["values"])
    total = sum(len(boxes) for boxes in data["inputs"]["gt_boxes"])
    shape = (config["raydn_group"], config["raydn_num"], total)
    # Without any box the reference draws nothing.
    beta = torch.cat([torch.empty(0), *by_kind["beta"]]).view(shape)
    uniform = torch.cat([torch.empty(0, 3), *by_kind["uniform"]])
    return uniform, RayDraws(beta, torch.cat([torch.empty(0), *by_kind["redraw"]]))


def make_queries(data: dict[str, Any]) -> DenoisingQueries:
    config = data["config"]
    boxes, labels = true_boxes(data["inputs"])
    limits = torch.tensor(config["pc_range"])
    return make_noise(config).make(
        boxes,
        labels,
        limits,
        config["num_classes"],
        *recorded_draws(data)[:1],
        views=views_of(data),
        ray_draws=recorded_draws(data)[1],
    )


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_draws(path: Path) -> None:
    """The CPU generator gives the recorded numbers in the recorded order."""
    data = golden.load(path)
    noise = make_noise(data["config"])
    uniform, draws = recorded_draws(data)
    torch.manual_seed(data["inputs"]["torch_seed_of_draws"])
    drawn = torch.rand(len(uniform), 3)
    from_rays = noise.ray.draw(draws.beta.shape[-1])
    assert torch.equal(drawn, uniform)
    assert torch.equal(from_rays.beta, draws.beta)
    assert torch.equal(from_rays.uniform, draws.uniform)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_rays(path: Path) -> None:
    data = golden.load(path)
    ray = make_noise(data["config"]).ray
    boxes = torch.cat(true_boxes(data["inputs"])[0])
    stream = torch.repeat_interleave(torch.tensor([len(b) for b in data["inputs"]["gt_boxes"]]))
    steps = ray.steps(recorded_draws(data)[1])
    points_m, seen = ray.place(steps.step, boxes, stream, views_of(data))
    _, _, seen_too = rays_to(boxes[:, :3], stream, views_of(data))
    assert torch.equal(seen, seen_too)
    recorded = data["outputs"]["ray"] or []
    assert len(boxes) == 0 or len(recorded) == ray.groups
    for group, expected in enumerate(recorded):
        assert torch.equal(steps.positive[group].int().argmax(0), expected["positive_index"])
        assert (steps.positive[group].sum(0) == 1).all()
        golden.assert_close(steps.step[group], expected["step"], "step", 1e-6, rtol=1e-6)
        assert torch.equal(seen, expected["last_camera"] >= 0)
        atol = max(5e-5, data["sensitivity"].get(".ray.points", 0.0))
        golden.assert_close(points_m[group], expected["points"], "points", atol, rtol=0.0)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_queries(path: Path) -> None:
    data = golden.load(path)
    config, expected = data["config"], data["outputs"]
    queries = make_queries(data)
    learned = data["inputs"]["reference_points"].expand(config["batch"], -1, -1)
    found = torch.cat((queries.reference_points, learned), dim=1)
    golden.assert_close(found, expected["padded_reference_points"], "reference points", 1e-6, 0.0)
    assert queries.num_slots == expected["pad_size"]
    real = config["num_query"] + config["num_propagated"]
    blocked = queries.blocked(real, config["num_query"] + config["memory_len"])
    assert torch.equal(blocked, expected["attn_mask"])
    if not expected["pad_size"]:
        return
    assert torch.equal(queries.labels, expected["known_labels"].long())
    assert torch.equal(queries.stream, expected["known_bid"].long())
    assert torch.equal(queries.slot, expected["map_known_indice"].long())
    golden.assert_close(queries.boxes, expected["known_bboxs"], "known_bboxs", 1e-6)
    points = queries.reference_points[queries.stream, queries.slot]
    golden.assert_close(points, expected["known_reference_points"], "known points", 1e-6, 0.0)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_losses(path: Path) -> None:
    data = golden.load(path)
    config, inputs, expected = data["config"], data["inputs"], data["outputs"]
    criterion, queries = make_criterion(config), make_queries(data)
    boxes, labels = true_boxes(inputs)
    slots = queries.num_slots
    logits = inputs["all_cls_scores"].clone().requires_grad_()
    codes = inputs["all_bbox_preds"].clone().requires_grad_()
    real = logits.shape[2] - slots
    output = HeadOutput(
        logits[:, :, slots:],
        codes[:, :, slots:],
        states=torch.empty(*logits.shape[:3], 0)[:, :, slots:],
        lineage=torch.full((logits.shape[1], real), -1),
        remembered=torch.empty(logits.shape[1], 0, dtype=torch.long),
        denoising_logits=logits[:, :, :slots] if slots else None,
        denoising_codes=codes[:, :, :slots] if slots else None,
    )
    pairs = assign(criterion.costs(output, boxes, labels))
    losses = criterion.losses(output, boxes, labels, pairs, queries)
    assert set(losses) == set(expected["losses"])
    for name, value in expected["losses"].items():
        golden.assert_close(losses[name], value, name, 1e-5)
    gradients = expected["dn_grads"]
    if gradients is None:
        assert not any(loss.requires_grad for name, loss in losses.items() if "dn_" in name)
        return
    sum(loss for name, loss in losses.items() if "dn_" in name).backward()
    for name, tensor in (("all_cls_scores", logits), ("all_bbox_preds", codes)):
        golden.assert_close_relative_to_max(tensor.grad, gradients[name], name, 1e-5)

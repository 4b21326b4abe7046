"""Sampling of image features around queries: the whole cross-attention, and the operator alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import golden
import pytest
import torch
from torch import Tensor

from streampetr_vit.checkpoint.adapters import rename_head_key
from streampetr_vit.modeling.decoder.camera_sampling import CameraMaps, CameraSampling, project
from streampetr_vit.modeling.ops.deformable_aggregation import KERNELS, deformable_aggregation
from streampetr_vit.modeling.ops.geometry import denormalize_from_range

PATHS = golden.files_of("deform_aggregation")
# Where the module stands in the reference's head.
THEIRS, OURS = "transformer.decoder.layers.0.attentions.1.", "decoder.layers.0.cross_attention."
INPUTS = ("instance_feature", "query_pos", "reference_points", "feat_flatten")


def our_name(name: str) -> str:
    return rename_head_key(THEIRS + name).removeprefix(OURS)


def make_module(data: dict[str, Any], **options: Any) -> CameraSampling:
    config = data["config"]
    module = CameraSampling(
        config["embed_dims"],
        config["num_groups"],
        config["num_levels"],
        config["num_pts"],
        config["bias"],
        **options,
    )
    module.load_state_dict({our_name(name): v for name, v in data["state_dict"].items()})
    return module.eval()


def unflatten_levels(tokens: Tensor, shapes: Tensor) -> list[Tensor]:
    """(I, T, C) tokens of all levels, level by level, to (I, C, h, w) maps."""
    sizes = shapes.tolist()
    parts = tokens.split([height * width for height, width in sizes], dim=1)
    return [
        part.transpose(1, 2).unflatten(2, size) for part, size in zip(parts, sizes, strict=True)
    ]


def camera_maps(data: dict[str, Any], tokens: Tensor) -> CameraMaps:
    inputs, config = data["inputs"], data["config"]
    cameras = config["batch"], config["num_cams"]
    maps = unflatten_levels(tokens, inputs["spatial_shapes"])
    return CameraMaps(
        [values.unflatten(0, cameras) for values in maps],
        inputs["lidar2img"],
        (config["pad_h"], config["pad_w"]),
    )


def points_m(data: dict[str, Any], reference_points: Tensor) -> Tensor:
    return denormalize_from_range(reference_points, data["inputs"]["pc_range"])


@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.stem)
def test_points_and_weights(path: Path) -> None:
    data = golden.load(path)
    inputs, expected, config = data["inputs"], data["outputs"], data["config"]
    module, image = make_module(data), camera_maps(data, inputs["feat_flatten"])
    with torch.no_grad():
        points = module.key_points_m(
            inputs["instance_feature"], points_m(data, inputs["reference_points"])
        )
        weights = module.sampling_weights(
            inputs["instance_feature"] + inputs["query_pos"], image.lidar_to_image
        )
        locations = project(points, image.lidar_to_image, image.image_size).flatten(0, 1)
        sampled = deformable_aggregation(
            image.maps, locations.unflatten(0, (config["batch"], -1)), weights
        )
    golden.assert_close(points, expected["key_points"], "points", atol=1e-5)
    # (B, Q, N, L, P, G) -> (BN, Q, G, LP)
    ours = weights.permute(0, 2, 1, 5, 3, 4).flatten(0, 1).flatten(3)
    golden.assert_close(ours, expected["weights"], "weights", atol=1e-6)
    # Points just before a camera's plane are far away and sensitive; none of them is seen.
    near = (expected["points_2d"].abs() < 10).all(-1)
    golden.assert_close(locations[near], expected["points_2d"][near], "locations", atol=1e-5)
    assert bool((locations.abs() > 5).any(-1)[~near].all())
    inside = ((locations > 0) & (locations < 1)).all(-1).float().mean()
    assert float(inside) == pytest.approx(expected["fraction_points_inside"], abs=1e-6)
    golden.assert_close(sampled, expected["sampled"], "sampled", atol=1e-5)


@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.stem)
@pytest.mark.parametrize("kernel", sorted(KERNELS))
@pytest.mark.parametrize("parts", [1, 3])
def test_output_and_gradients(path: Path, kernel: str, parts: int) -> None:
    data = golden.load(path)
    inputs, config, grads = data["inputs"], data["config"], data["grads"]
    module = make_module(data, kernel=kernel, max_queries=-(-config["num_query"] // parts))
    leaves = {name: inputs[name].clone().requires_grad_() for name in INPUTS}
    content = leaves["instance_feature"]
    out = content + module(
        content,
        leaves["query_pos"],
        points_m(data, leaves["reference_points"]),
        camera_maps(data, leaves["feat_flatten"]),
    )
    golden.assert_close(out, data["outputs"]["out"], "out", atol=1e-5)
    total = (out * inputs["cotangent"]).sum()
    if "losses" in data:  # the committed subset has fewer queries, and no sums over all of them
        expected = data["losses"]["sum_out_times_cotangent"]
        golden.assert_close(total, expected, "sum of outputs times cotangents", 1e-4)
    total.backward()
    for name, leaf in leaves.items():
        if name in grads:
            golden.assert_close_relative_to_max(leaf.grad, grads[name], name)
    parameters = dict(module.named_parameters())
    for name, grad in grads.get("params", {}).items():
        golden.assert_close_relative_to_max(parameters[our_name(name)].grad, grad, name)


@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.stem)
def test_gradient_of_the_weights(path: Path) -> None:
    data = golden.load(path)
    inputs, config, grads = data["inputs"], data["config"], data["grads"]
    module, image = make_module(data), camera_maps(data, inputs["feat_flatten"])
    content = inputs["instance_feature"]
    points = module.key_points_m(content, points_m(data, inputs["reference_points"]))
    weights = module.sampling_weights(content + inputs["query_pos"], image.lidar_to_image)
    weights.retain_grad()
    locations = project(points, image.lidar_to_image, image.image_size)
    out = module.output(deformable_aggregation(image.maps, locations, weights))
    (out * inputs["cotangent"]).sum().backward()
    assert weights.grad is not None
    recorded = grads["weights"].unflatten(0, (config["batch"], -1))  # (B, N, Q, G, LP)
    recorded = recorded.unflatten(4, (config["num_levels"], -1)).permute(0, 2, 1, 4, 5, 3)
    golden.assert_close_relative_to_max(weights.grad, recorded, "weights")


@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.stem)
@pytest.mark.parametrize("kernel", sorted(KERNELS))
@pytest.mark.parametrize("max_queries", [None, 3])
def test_operator(path: Path, kernel: str, max_queries: int | None) -> None:
    data = golden.load(path)
    names = ("value", "sampling_locations", "attention_weights")
    op = data["inputs"]["op"]
    value, locations, weights = leaves = [op[name].clone().requires_grad_() for name in names]
    heads = value.shape[2]
    # The operator has locations per head and level, ours has not: heads go into the batch, and
    # each level is a call of its own. (B, T, H, J) -> (BH, T, J)
    maps = unflatten_levels(value.transpose(1, 2).flatten(0, 1), op["spatial_shapes"])
    where = locations.permute(3, 0, 2, 1, 4, 5).flatten(1, 2)  # (L, BH, Q, P, 2)
    shares = weights.permute(3, 0, 2, 1, 4).flatten(1, 2)  # (L, BH, Q, P)
    levels = zip(maps, where, shares, strict=True)
    out = torch.stack(
        [
            deformable_aggregation(
                [one_map[:, None]],
                at[:, None],
                share[:, :, None, None, :, None],
                max_queries=max_queries,
                kernel=kernel,
            )
            for one_map, at, share in levels
        ]
    ).sum(0)  # (BH, Q, J)
    out = out.unflatten(0, (-1, heads)).transpose(1, 2).flatten(2)
    golden.assert_close(out, data["outputs"]["op_out"], "op_out", atol=1e-5)
    (out * op["cotangent"]).sum().backward()
    for name, leaf in zip(names, leaves, strict=True):
        golden.assert_close_relative_to_max(leaf.grad, data["grads"]["op"][name], name)

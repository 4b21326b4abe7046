"""Makes the compact subset of golden files that is committed beside this script.

    python tests/parity/make_subset.py FOLDER_OF_GOLDEN_FILES

Keeps the first frames or cases of each file and takes the smallest of each covered kind. Little
else is left out, so the tests read the subset and the full files alike.
"""

from __future__ import annotations

import json
import sys
import zipfile
from pathlib import Path
from typing import Any

import golden
import torch

from streampetr_vit.modeling.ops.deformable_aggregation import deformable_aggregation

# Kind -> how many frames or cases to keep; the others are kept whole.
KEPT = {
    "head_eval": 1,
    "head_train": 1,
    "detector": 1,
    "position_embedding": 1,
    "temporal_alignment": 1,
    "memory": 2,
    "decoder": 1,
    "data_info": 3,
    "rope": 2,
    "transforms": 1,
    "gridmask": 1,
    "tracker": 6,
}

# Kinds whose gradient of the pictures is left out: noise that does not compress.
WITHOUT_IMAGE_GRADIENT = ("evavit", "eva_det")

# How many queries are kept of the sampling of image features; one head of its bare operator.
SAMPLING_QUERIES = 2

# Levels whose maps are kept, coarsest last, in kinds that have a map of noise for each level.
KEPT_LEVELS = {"yolox_losses": 2}


def shorten(data: dict[str, Any], count: int) -> dict[str, Any]:
    """The first `count` frames or cases of a file, or its last tables."""
    short = dict(data)
    for key in ("inputs", "outputs", "state_dict"):
        if isinstance(data[key], list):
            short[key] = data[key][:count]
    if isinstance(data["outputs"], dict) and "tables" in data["outputs"]:
        short["outputs"] = data["outputs"] | {"tables": data["outputs"]["tables"][-count:]}
    if "cases" in data["config"]:
        short["config"] = data["config"] | {"cases": data["config"]["cases"][:count]}
    return short


def shorten_sampling(data: dict[str, Any]) -> dict[str, Any]:
    """A file of the sampling of image features with its first queries only.

    Queries do not see each other, so their outputs and gradients stand. What sums over queries is
    left out, and features that no kept query reads are zeros, which compress well.
    """
    count = data["config"]["num_query"]

    def first_queries(values: dict[str, Any]) -> dict[str, Any]:
        return {
            name: value[:, :SAMPLING_QUERIES]
            if isinstance(value, torch.Tensor) and value.ndim > 2 and value.shape[1] == count
            else value
            for name, value in values.items()
            if name not in ("params", "per_camera")
        }

    inputs, outputs = first_queries(data["inputs"]), first_queries(data["outputs"])
    points = outputs["points_2d"]
    read = tokens_read(points, inputs["spatial_shapes"].tolist())
    inputs["feat_flatten"] = inputs["feat_flatten"] * read[..., None]
    inside = ((points > 0) & (points < 1)).all(-1)
    outputs["fraction_points_inside"] = float(inside.float().mean())
    outputs["op_out"] = outputs["op_out"][:1, :, : outputs["op_out"].shape[2] // op_heads(data)]
    grads = first_queries(data["grads"])
    del grads["feat_flatten"]
    inputs["op"], grads["op"] = one_head(data["inputs"]["op"], data), one_head(grads["op"], data)
    config = data["config"] | {"num_query": SAMPLING_QUERIES}
    kept = {name: value for name, value in data.items() if name != "losses"}
    return kept | {"config": config, "inputs": inputs, "outputs": outputs, "grads": grads}


def tokens_read(points: torch.Tensor, sizes: list[list[int]]) -> torch.Tensor:
    """Which cells of all levels, one after the other, have a share in a sample: (I, T).

    Args:
        points: (I, Q, P, 2) fractions of the picture.
        sizes: height and width of each level.
    """
    images, queries, count = points.shape[:3]
    maps = [torch.ones(images, 1, 1, *size, requires_grad=True) for size in sizes]
    weights = torch.ones(images, queries, 1, len(maps), count, 1)
    deformable_aggregation(maps, points[:, None], weights).sum().backward()
    return torch.cat([values.grad.flatten(1) != 0 for values in maps], dim=1)


def op_heads(data: dict[str, Any]) -> int:
    return data["inputs"]["op"]["value"].shape[2]


def one_head(tensors: dict[str, torch.Tensor], data: dict[str, Any]) -> dict[str, torch.Tensor]:
    """The first head of the first batch entry of the bare operator's inputs or gradients."""
    channels = data["inputs"]["op"]["value"].shape[3]
    short = {name: value[:1, :, :1] for name, value in tensors.items() if value.ndim > 3}
    if "cotangent" in tensors:  # (B, Q, heads * channels)
        short["cotangent"] = tensors["cotangent"][:1, :, :channels]
    return {name: short.get(name, value) for name, value in tensors.items()}


def keep_coarsest_levels(data: dict[str, Any], count: int) -> dict[str, Any]:
    """Predictions and gradients of the last `count` levels, and no gradient of 3x3 kernels."""
    outputs = {
        mode: {
            name: value[-count:]
            if name != "targets_per_image" and isinstance(value, list)
            else value
            for name, value in recorded.items()
        }
        for mode, recorded in data["outputs"].items()
    }
    grads = {
        "img_feats": data["grads"]["img_feats"][-count:],
        "params": {k: v for k, v in data["grads"]["params"].items() if v.shape[2:] != (3, 3)},
    }
    return data | {"outputs": outputs, "grads": grads}


def own_storage(value: Any, copies: dict[tuple, torch.Tensor]) -> Any:
    """Copies tensors, so that no slice drags its whole storage into the file.

    The same tensor under several names (shared branches) stays one.
    """
    if isinstance(value, torch.Tensor):
        key = (value.data_ptr(), value.dtype, value.shape, value.stride())
        return copies.setdefault(key, value.clone()) if value.numel() else value.clone()
    if isinstance(value, dict):
        return {key: own_storage(entry, copies) for key, entry in value.items()}
    return [own_storage(entry, copies) for entry in value] if isinstance(value, list) else value


def save_compressed(data: dict[str, Any], path: Path) -> None:
    """A file that torch.load reads, with deflated entries."""
    plain = path.with_suffix(".plain")
    torch.save(data, plain)
    with zipfile.ZipFile(plain) as source, zipfile.ZipFile(path, "w") as target:
        for entry in source.infolist():
            # Without the time of writing: the same tensors are the same file.
            same = zipfile.ZipInfo(entry.filename)
            target.writestr(same, source.read(entry), zipfile.ZIP_DEFLATED, compresslevel=9)
    plain.unlink()


def save_runs(data: dict[str, Any], count: int, path: Path) -> None:
    """A file of trackers with the first `count` frames of all runs."""
    runs = [run | {"outputs": run["outputs"][:count]} for run in data["runs"]]
    short = data | {"frames": data["frames"][:count], "runs": runs}
    path.write_text(json.dumps(short, separators=(",", ":")))


def main(folder: Path) -> None:
    golden.COMMITTED_SUBSET.mkdir(exist_ok=True)
    for old in golden.files_in(golden.COMMITTED_SUBSET):
        old.unlink()
    for kind in (kind for kind in golden.COVERED if kind not in golden.NOT_IN_SUBSET):
        written = []
        for path in (path for path in golden.files_in(folder) if golden.kind_of(path) == kind):
            if path.suffix == ".json":
                written.append(golden.COMMITTED_SUBSET / path.name)
                save_runs(golden.load_json(path), KEPT[kind], written[-1])
                continue
            data = golden.load(path)
            if kind == "raydn":
                if not data["outputs"]["pad_size"]:
                    continue  # no true boxes: the smallest file, and it proves the least
                # Gathered from other records, and no test reads them.
                data["outputs"] = data["outputs"] | {"loss_inputs": None}
            if kind in KEPT:
                data = shorten(data, KEPT[kind])
            if kind == "deform_aggregation":
                data = shorten_sampling(data)
            if kind in WITHOUT_IMAGE_GRADIENT:
                data["grads"] = {"params": data["grads"]["params"]}
            if kind in KEPT_LEVELS:
                data = keep_coarsest_levels(data, KEPT_LEVELS[kind])
            written.append(golden.COMMITTED_SUBSET / path.name)
            save_compressed(own_storage(data, {}), written[-1])
        smallest, *others = sorted(written, key=lambda path: path.stat().st_size)
        for path in others:
            path.unlink()
        print(f"{smallest.stat().st_size / 1024:8.0f} kB  {smallest.name}")


if __name__ == "__main__":
    main(Path(sys.argv[1]))

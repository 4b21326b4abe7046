"""Makes the compact subset of golden files that is committed beside this script.

    python tests/parity/make_subset.py FOLDER_OF_GOLDEN_FILES

Keeps the first frames or cases of each file and takes the smallest of each covered kind. Little
else is left out, so the tests read the subset and the full files alike.
"""

from __future__ import annotations

import sys
import zipfile
from pathlib import Path
from typing import Any

import golden
import torch

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
}

# Kinds whose gradient of the pictures is left out: noise that does not compress.
WITHOUT_IMAGE_GRADIENT = ("evavit", "eva_det")


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
    with (
        zipfile.ZipFile(plain) as source,
        zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as target,
    ):
        for entry in source.infolist():
            target.writestr(entry.filename, source.read(entry))
    plain.unlink()


def main(folder: Path) -> None:
    golden.COMMITTED_SUBSET.mkdir(exist_ok=True)
    for old in golden.COMMITTED_SUBSET.glob("*.pt"):
        old.unlink()
    for kind in golden.COVERED:
        written = []
        for path in (path for path in folder.glob("*.pt") if golden.kind_of(path) == kind):
            data = golden.load(path)
            if kind in KEPT:
                data = shorten(data, KEPT[kind])
            if kind in WITHOUT_IMAGE_GRADIENT:
                data["grads"] = {"params": data["grads"]["params"]}
            written.append(golden.COMMITTED_SUBSET / path.name)
            save_compressed(own_storage(data, {}), written[-1])
        smallest, *others = sorted(written, key=lambda path: path.stat().st_size)
        for path in others:
            path.unlink()
        print(f"{smallest.stat().st_size / 1024:8.0f} kB  {smallest.name}")


if __name__ == "__main__":
    main(Path(sys.argv[1]))

"""Finds the golden files, names their kinds and compares tensors with them.

The folder is the one that STREAMPETR_GOLDEN_DIR names, else `../shared/golden` beside the
checkout, else the compact subset that is committed beside this file. It may hold other seeds, sizes
and options than the files at hand: tests build everything from a file's own `config`.
"""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

# kind -> pattern of the file's stem. Exactly one kind must match each file.
COVERED = {
    "evavit": r"a\d+_evavit.*",
    "eva_det": r"b_eva_det.*",
    "rope": r"c_rope.*",
    "head_eval": r"streampetr_head_eval.*",
    "head_train": r"streampetr_head_(train|dn).*",
    "detector": r"streampetr_detector.*",
    "position_embedding": r"streampetr_position_embedding.*",
    "temporal_alignment": r"streampetr_temporal_alignment.*",
    "memory": r"streampetr_memory.*",
    "decoder": r"streampetr_decoder.*",
    "hungarian": r"streampetr_hungarian.*",
    "coder": r"streampetr_coder.*",
    "primitives": r"streampetr_primitives.*",
    "data_info": r"streampetr_data_info.*",
    "sampler": r"streampetr_sampler.*",
    "transforms": r"streampetr_transforms.*",
    "format_results": r"streampetr_format_results.*",
    "gridmask": r"streampetr_gridmask.*",
    "focal_losses": r"f_focal_losses.*",
    "sparsehead": r"e_sparsehead.*",
    "yolox_losses": r"f_yolox_losses.*",
    "deform_aggregation": r"d_deform_aggregation.*",
    "tracker": r"tracker_.*",
    "raydn": r"raydn_.*",
}
# Kinds that the committed subset has no room for, and what proves their parts in a bare clone.
NOT_IN_SUBSET = {
    "head_train": "detector",
    "sparsehead": "deform_aggregation",
}

_HERE = Path(__file__).resolve().parent
COMMITTED_SUBSET = _HERE / "golden"


def golden_dir() -> Path:
    """The folder whose files the tests read."""
    named = os.environ.get("STREAMPETR_GOLDEN_DIR")
    if named:
        if not Path(named).is_dir():
            raise FileNotFoundError(f"STREAMPETR_GOLDEN_DIR names no folder: {named!r}")
        return Path(named)
    shared = _HERE.parents[2] / "shared" / "golden"
    return shared if shared.is_dir() else COMMITTED_SUBSET


def files_in(folder: Path) -> list[Path]:
    """Every golden file of a folder, sorted by name."""
    return sorted(path for path in folder.iterdir() if path.suffix in (".pt", ".json"))


def all_files() -> list[Path]:
    """Every golden file, sorted by name."""
    return files_in(golden_dir())


def kind_of(path: Path) -> str | None:
    """The kind of a file, or None if no pattern knows it."""
    matches = [kind for kind, pattern in COVERED.items() if re.fullmatch(pattern, path.stem)]
    return matches[0] if len(matches) == 1 else None


def files_of(kind: str) -> list[Path]:
    """The files of one covered kind, for parametrised tests (`ids=lambda path: path.stem`)."""
    if kind not in COVERED:
        raise KeyError(f"{kind!r} is not in COVERED: {sorted(COVERED)}")
    return [path for path in all_files() if kind_of(path) == kind]


def load(path: Path) -> dict[str, Any]:
    """Reads a golden file of tensors; nothing is executed."""
    return torch.load(path, map_location="cpu", weights_only=True)


def load_json(path: Path) -> dict[str, Any]:
    """Reads a golden file of plain values."""
    return json.loads(path.read_text())


def assert_close(
    actual: Tensor, expected: Tensor, name: str, atol: float, rtol: float = 1e-5
) -> None:
    """Compares values (not dtypes) and names the worst element on failure."""
    assert actual.shape == expected.shape, f"{name}: {actual.shape} != {expected.shape}"
    if actual.numel() == 0:
        return
    actual, expected = actual.detach().double(), expected.detach().double()
    same = torch.isclose(actual, expected, atol=atol, rtol=rtol, equal_nan=True)
    if not bool(same.all()):
        error = (actual - expected).abs().nan_to_num(float("inf"))
        worst = int(error.argmax())
        raise AssertionError(
            f"{name}: {int((~same).sum())} of {same.numel()} values differ; worst at flat index "
            f"{worst}: {actual.flatten()[worst]:.8g} against {expected.flatten()[worst]:.8g} "
            f"(atol {atol:.2g}, rtol {rtol:.2g})"
        )


def assert_close_relative_to_max(
    actual: Tensor, expected: Tensor, name: str, tolerance: float = 1e-4
) -> None:
    """Compares gradients: the largest difference over the largest reference entry."""
    largest = float(expected.abs().max()) if expected.numel() else 0.0
    assert_close(actual, expected, name, atol=tolerance * largest + 1e-12, rtol=0.0)

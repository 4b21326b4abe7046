"""What an export says of itself at its end: parity.json, a summary, and whether it may be used."""

from __future__ import annotations

import importlib.metadata
import json
import logging
import math
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

from tabulate import tabulate

from streampetr_vit.checkpoint.manifest import digest_of
from streampetr_vit.errors import InputError
from streampetr_vit.export import parity
from streampetr_vit.export.description import Description
from streampetr_vit.export.interface import PARITY, Interface
from streampetr_vit.export.parity import Parity
from streampetr_vit.files import replacing
from streampetr_vit.texts import name_list

logger = logging.getLogger(__name__)

_PACKAGES = ("torch", "onnx", "onnxscript", "onnxruntime")  # whose versions decide


def write_record(
    folder: Path,
    description: Description,
    interface: Interface,
    found: Parity,
    seconds: Mapping[str, float],
    machine: Mapping[str, object],
) -> None:
    """Writes how far graphs are from PyTorch, and where and with what that was measured.

    Args:
        folder: of the graphs.
        seconds: that each part of the export took.
        machine: hardware, date and command.

    Raises:
        OutputError: the file cannot be written.
    """
    content = {
        "description": asdict(description),
        "frames": parity.NUM_FRAMES,
        "wiped_after": parity.WIPED_AFTER,
        "tolerance": _tolerance(description),
        "largest": _for_json(found.largest),
        "by_frame": [_for_json(frame) for frame in found.by_frame],
        "swapped_entries": found.swaps,
        "sha256": {name: digest_of(folder / name) for name in interface.graphs},
        "sizes_mb": {name: round(_megabytes(folder / name), 3) for name in interface.graphs},
        "seconds": {name: round(value, 1) for name, value in seconds.items()},
        "versions": {name: importlib.metadata.version(name) for name in _PACKAGES},
        "machine": dict(machine),
    }
    with replacing(folder / PARITY) as temporary:
        temporary.write_text(json.dumps(content, indent=2) + "\n", "utf-8")


def summary(folder: Path, description: Description, interface: Interface, found: Parity) -> str:
    """What was written into a folder, and how far it is from PyTorch, as text."""
    files = [
        {
            "file": name,
            "MB": _megabytes(folder / name),
            "inputs": name_list(ports.inputs, 3),
            "outputs": name_list(ports.outputs, 3),
        }
        for name, ports in interface.graphs.items()
    ]
    outputs = {"logits": "all_cls_scores", "codes": "all_bbox_preds"}
    tensors = []
    for kind, largest in found.largest.items():
        name = outputs.get(kind, f"post_memory_{kind}")
        shape = "x".join(map(str, interface.head.outputs[name]))
        tensors.append({"tensor": name, "shape": shape, "deviation": f"{largest:.1e}"})
    usual = _tolerance(description)
    return "\n".join(
        [
            f"{folder}: {description.recipe}, {description.weights}, frame {description.frame}, "
            f"{description.precision}\n",
            tabulate(files, headers="keys", floatfmt=".1f"),
            f"\nlargest deviation from PyTorch in {parity.NUM_FRAMES} frames"
            + (":" if usual is None else f", at most {usual:g} is usual:"),
            tabulate(tensors, headers="keys", disable_numparse=True),
        ]
    )


def check_parity(description: Description, found: Parity) -> None:
    """Warns of float32 graphs that are farther from PyTorch than is usual, and refuses wrong ones.

    Raises:
        InputError: no rounding explains how far they are.
    """
    largest, usual = found.largest, _tolerance(description)
    worst = max(largest, key=largest.__getitem__)
    if usual is None or largest[worst] <= usual:
        return
    if not largest[worst] <= parity.WRONG:  # NaN too
        numbers = ", ".join(f"{name} {value:.1e}" for name, value in largest.items())
        raise InputError(
            f"the graphs are not as PyTorch, and nothing was written: they are away by {numbers}, "
            f"more than {parity.WRONG:g}; export with the versions of constraints.txt"
        )
    logger.warning(
        "%s is %.1e away from PyTorch, more than the usual %g: large numbers round so; evaluate "
        "the graphs with --eval-only --onnx before you use them",
        worst,
        largest[worst],
        usual,
    )


def _tolerance(description: Description) -> float | None:
    """The usual deviation; half precision has none."""
    return parity.TOLERANCE if description.precision == "fp32" else None


def _for_json(values: Mapping[str, float]) -> dict[str, float | None]:
    """JSON has no infinity, which stands here for what is no number: it becomes null."""
    return {name: value if math.isfinite(value) else None for name, value in values.items()}


def _megabytes(path: Path) -> float:
    return path.stat().st_size / 1e6

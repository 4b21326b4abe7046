"""Whether the graphs of an export hold every weight of the detector.

An exporter may drop a weight that it takes for unused, or fold it away, and the graph still runs.
So weights are looked for by name, and by content where the exporter has renamed them: it transposes
the matrices of linear layers, and keeps one of several constants that are equal.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from streampetr_vit.errors import CheckpointError
from streampetr_vit.export.description import Description
from streampetr_vit.export.folded_weights import Folded, folded_weights
from streampetr_vit.export.interface import GRAPHS, POSITION
from streampetr_vit.export.optional import onnx
from streampetr_vit.modeling.detector import StreamPETR
from streampetr_vit.texts import name_list

_PARTS = ("backbone", "neck", "head")  # the others are for training
# What the features of pictures come from; a half-precision export rounds the weights of these.
_OF_FEATURES = ("backbone", "neck")
_PREFIX = re.compile(r"(graph\.)?(detector\.)?")  # of names in the graphs
_TOLERANCE = 1e-5  # of what the exporter has computed from a weight, relative to the largest
_SHOWN = 3


@dataclass
class _Held:
    """What the constants of the graphs are.

    Attributes:
        named: name -> digests of the constants of that name, in all graphs.
        all: digests of all constants.
        folded: names of weights whose `Folded` value begins a constant.
    """

    named: dict[str, set[bytes]] = field(default_factory=dict)
    all: set[bytes] = field(default_factory=set)
    folded: set[str] = field(default_factory=set)


def check_held(folder: Path, detector: StreamPETR) -> None:
    """Compares the weights of a detector with the constants of its three graphs.

    A weight that no graph has passes only if nothing that the heads read depends on it, such as a
    level of a pyramid beside those that they read.

    Args:
        folder: of an export.
        detector: that was exported, in evaluation mode, on the CPU.

    Raises:
        CheckpointError: weights are missing or have other values; names the first.
    """
    description = Description.of_model(onnx().load(folder / POSITION), str(folder / POSITION))
    held = _constants_of(folder, folded_weights(detector, description.image_size))
    state = {
        name: value
        for name, value in detector.state_dict().items()
        if name.split(".")[0] in _PARTS and value.is_floating_point()  # not counters of batches
    }
    in_half = _OF_FEATURES if description.precision == "fp16-backbone" else ()
    missing, other = [], []
    for name, weight in state.items():
        if name in held.folded:
            continue
        digests = _digests(weight.numpy(), half=name.split(".")[0] in in_half)
        if name in held.named:
            if not digests & held.named[name]:
                other.append(name)
        elif not digests & held.all:
            missing.append(name)
    if missing and not _matter(detector, missing, description.image_size):
        missing = []
    if other or missing:
        parts = [
            f"{word} {len(names)} ({name_list(names, _SHOWN)})"
            for word, names in (("miss", missing), ("have other values in", other))
            if names
        ]
        raise CheckpointError(
            f"the exported graphs {' and '.join(parts)} of the detector's {len(state)} weights: "
            "the exporter has lost them; export with the versions of constraints.txt"
        )


def _constants_of(folder: Path, folded: Sequence[Folded]) -> _Held:
    """What the constants of the three graphs of a folder are."""
    held = _Held()
    for file in GRAPHS:  # one after the other: of a large detector they are gigabytes
        for name, value in _constants(onnx().load(folder / file)):
            digest = _digest(value)
            held.named.setdefault(_PREFIX.sub("", name, count=1), set()).add(digest)
            held.all.add(digest)
            if value.dtype in (np.float32, np.float16):
                for entry in folded:
                    if _begins_with(value, entry.value):
                        held.folded |= entry.names
    return held


def _constants(model: Any) -> Iterator[tuple[str, np.ndarray]]:
    """Name and value of every constant of a graph; those of nodes too, by the node's output."""
    to_array = onnx().numpy_helper.to_array
    for tensor in model.graph.initializer:
        yield tensor.name, to_array(tensor)
    for node in model.graph.node:
        if node.op_type == "Constant":
            for attribute in node.attribute:
                if attribute.name == "value":
                    yield node.output[0], to_array(attribute.t)


def _begins_with(value: np.ndarray, expected: np.ndarray) -> bool:
    """Whether the first numbers of a constant are the expected ones, as rounding allows."""
    # A half-precision graph has them in half.
    allowed = 1e-3 if value.dtype == np.float16 else _TOLERANCE
    start = value.reshape(-1)[: expected.size].astype(np.float32)
    if start.size < expected.size:
        return False
    close = np.abs(start - expected.reshape(-1)) <= allowed * np.abs(expected).max()
    return bool(close.all())


def _digests(weight: np.ndarray, half: bool) -> set[bytes]:
    """Those of all forms that a graph may hold a weight in."""
    forms = [weight, weight.T] if weight.ndim == 2 else [weight]
    if half:
        forms += [form.astype(np.float16) for form in forms]
    return {_digest(form) for form in forms}


def _digest(value: np.ndarray) -> bytes:
    # Of the bytes alone: with another shape, such as (1, 8) for (8,), it is the same weight.
    return hashlib.blake2b(np.ascontiguousarray(value).data, digest_size=16).digest()


@torch.no_grad()
def _matter(detector: StreamPETR, names: list[str], image_size: tuple[int, int]) -> bool:
    """Whether the features of a picture change with any of these weights, or one is the head's."""
    weights = [detector.state_dict()[name] for name in names]
    if not all(name.split(".")[0] in _OF_FEATURES for name in names):
        return True
    generator = torch.Generator().manual_seed(0)
    picture = torch.randn(1, 1, 3, *image_size, generator=generator)
    before, kept = _features(detector, picture), [weight.clone() for weight in weights]
    try:
        for weight in weights:
            weight.add_(torch.randn(weight.shape, generator=generator))
        after = _features(detector, picture)
    finally:
        for weight, old in zip(weights, kept, strict=True):
            weight.copy_(old)
    return not all(map(torch.equal, before, after))


def _features(detector: StreamPETR, picture: Tensor) -> list[Tensor]:
    features = detector.image_features(picture)
    return [features] if isinstance(features, Tensor) else list(features)

"""Converts checkpoints between projects, and accounts for every tensor."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from streampetr_vit.checkpoint.adapters.backbone import resized_to_fit
from streampetr_vit.checkpoint.adapters.detector import (
    TRANSLATIONS,
    detector_from_streampetr,
    detector_to_streampetr,
    settings_from_streampetr,
)
from streampetr_vit.checkpoint.adapters.head import HEAD_CONSTANTS
from streampetr_vit.checkpoint.adapters.renaming import Unused
from streampetr_vit.checkpoint.adapters.rotary import rotary_tables_of
from streampetr_vit.checkpoint.files import SETTINGS, read_checkpoint
from streampetr_vit.checkpoint.fit import (
    KeyReport,
    Shape,
    examples,
    group_of,
    groups,
    half_backbone,
)
from streampetr_vit.checkpoint.formats import FORMATS, format_of, weights_of
from streampetr_vit.checkpoint.settings import (
    LOSSES,
    Settings,
    differences,
    parse_settings,
    settings_of,
)
from streampetr_vit.errors import CheckpointError, InputError

TARGETS = ("ours", "streampetr")
_DETECTORS = ("ours", "streampetr", "repdetr3d")

Row = tuple[str, int, int | None]  # title, tensors, parameters (None: not counted)


@dataclass(frozen=True)
class Conversion:
    """Converted weights, and what became of each tensor of the file.

    Attributes:
        source: a key of `formats.FORMATS`.
        target: one of `TARGETS`.
        tensors: under the target's names.
        settings: see `checkpoint.settings`.
        read: name -> tensor, of the file.
        resized: (name in our detector, shape in the file, new shape).
        unused: reason -> names in the file.
        fit: how the tensors fit a model; None if none was given.
        notes: what the user should know beside the counts.
    """

    source: str
    target: str
    tensors: dict[str, Tensor]
    settings: Settings
    read: dict[str, Tensor]
    resized: list[tuple[str, Shape, Shape]]
    unused: dict[str, list[str]]
    fit: KeyReport | None
    notes: list[str]


def convert_file(
    path: str | os.PathLike[str],
    source: str = "auto",
    target: str = "ours",
    *,
    averaged: bool = False,
    **options: Any,
) -> Conversion:
    """Reads a checkpoint and translates its tensors.

    Args:
        path: the file. Tensors of the result may be views of it: write them, or load them into a
            model, before the file changes.
        source, target, options: see `convert`.
        averaged: take the moving average of the weights, see `weights_of`.
    """
    path = os.fspath(path)
    content = read_checkpoint(path, lazily=True)
    weights = weights_of(content, path, averaged=averaged)
    return convert(weights, source, target, path=path, settings=content.get(SETTINGS), **options)


def convert(
    weights: Mapping[str, Tensor],
    source: str = "auto",
    target: str = "ours",
    *,
    path: str = "checkpoint",
    settings: object = None,
    model: nn.Module | None = None,
    only: str | None = None,
    allow_other_size: bool = False,
) -> Conversion:
    """Translates the names, and where needed the sizes, of a checkpoint's tensors.

    Args:
        weights: flat, of the file.
        source: a key of `formats.FORMATS`, or "auto".
        target: one of `TARGETS`.
        path: the file, for messages.
        settings: that the file records, for "ours"; see `parse_settings`.
        model: a detector to check against; its tensors may be on the meta device, but for the
            ranges of its head. It also sets the sizes that pre-training files are resized to, and
            the settings that a file does not record.
        only: keep a part of the detector only, for example "backbone".
        allow_other_size: weights for another window size than the model's are no error, and the
            result records no window size.

    Raises:
        CheckpointError: tensors that are not of the source, half a backbone where the source is
            one, or tensors that do not fit the model.
        InputError: an unknown source or target, or a name that the source's models do not have.
    """
    if source != "auto" and source not in FORMATS:
        raise InputError(f"source {source!r} must be auto, {', '.join(FORMATS)}")
    if target not in TARGETS:
        raise InputError(f"target {target!r} must be one of {', '.join(TARGETS)}")
    weights = dict(weights)  # not the caller's
    source = format_of(weights, path) if source == "auto" else source
    if target == "streampetr" and source in ("streampetr", "repdetr3d", "seed-remapped"):
        raise InputError(f"{path} has the reference's names already (--from {source})")
    tensors, unused = _to_ours(weights, source, only, path)
    of_model, state = ({}, {}) if model is None else (settings_of(model), model.state_dict())
    resized: list[tuple[str, Shape, Shape]] = []
    if source == "eva02-cls":
        for name, new in resized_to_fit(tensors, state).items():
            if new.shape != tensors[name].shape:
                resized.append((name, tuple(tensors[name].shape), tuple(new.shape)))
            tensors[name] = new
    # A backbone is for any ranges and window sizes; a whole detector is for its own.
    known: Settings = {}
    whole = source in _DETECTORS and only is None
    if whole:
        if source != "ours":
            tensors, constants = detector_from_streampetr(weights)  # also compares the copies
            settings = settings_from_streampetr(weights, constants)
        known = parse_settings(settings, path)
    found = differences(known, of_model)
    notes = [found.pop(name) for name in LOSSES if name in found]
    _check_size(path, found, allow_other_size)
    if allow_other_size:
        known.pop("rotary", None)
    fit = None if model is None else KeyReport.compare(tensors, state)
    _check_fit(path, source, tensors, fit, whole)
    if whole and source == "repdetr3d" and model is None:
        notes.append("RepDETR3D's heads are renamed by rule; --config-file checks them")
    if target == "streampetr":
        known = {**of_model, **known}  # what the file records goes before the model's
        tensors = _to_streampetr(tensors, known, path)
    return Conversion(source, target, tensors, known, weights, resized, unused, fit, notes)


def _to_ours(
    weights: dict[str, Tensor], source: str, only: str | None, path: str
) -> tuple[dict[str, Tensor], dict[str, list[str]]]:
    """Our tensors, and the names left out by reason."""
    unused: dict[str, list[str]] = {}
    tensors: dict[str, Tensor] = {}
    for name, value in weights.items():
        ours = TRANSLATIONS[source](name)
        if isinstance(ours, str) and only is not None and not ours.startswith(f"{only}."):
            ours = Unused(f"not of the {only}")
        if isinstance(ours, Unused):
            unused.setdefault(ours.why, []).append(name)
        else:
            tensors[ours] = value
    if not tensors:
        part = f" with a part {only!r}" if only else ""
        raise CheckpointError(
            f"{path} is not {FORMATS[source]}{part}: none of its tensors ({examples(weights)}) is "
            "of such a file; use --from auto, or name another format"
        )
    return tensors, unused


def _check_size(path: str, found: Mapping[str, str], allow_other_size: bool) -> None:
    """Raises CheckpointError if a detector was trained for other windows or ranges."""
    same_ranges = found.keys() <= {"grid", "windows"}
    if found and not (same_ranges and allow_other_size):
        hint = "; to convert it all the same: --allow-other-size" if same_ranges else ""
        raise CheckpointError(f"{path}: {'; '.join(found.values())}{hint}")


def _check_fit(
    path: str, source: str, tensors: Mapping[str, Tensor], fit: KeyReport | None, whole: bool
) -> None:
    """Raises CheckpointError for half a backbone, or tensors that do not fit the model."""
    # A detector is checked as a whole, by the model or when it is loaded.
    half = half_backbone(tensors) if source not in _DETECTORS else None
    if half is not None:
        raise CheckpointError(
            f"{path} is {half}. It is of another ViT, or incomplete: take the file of EVA-02's "
            "authors"
        )
    if fit is None:
        return
    # Before the shapes: they would say less.
    if whole and source == "repdetr3d" and any(".weights." in name for name in fit.unused):
        raise CheckpointError(
            f"{path} holds a RepDETR3D head, and the model of the configuration has no such head. "
            "Use a RepDETR3D configuration; or take the backbone alone: --only backbone"
        )
    if fit.wrong_shape:
        raise CheckpointError(f"{path}: {fit.wrong_shapes()}. {fit.shape_hint()}")
    if whole and (fit.missing or fit.unused):
        raise CheckpointError(
            f"{path} is another detector than the model of the configuration. Not in the file: "
            f"{groups(fit.missing) or 'none'}; not in the model: {groups(fit.unused) or 'none'}. "
            "Use the configuration of the file; or take the backbone alone: --only backbone"
        )
    if not fit.matched:
        raise CheckpointError(f"{path}: no tensor fits the model")


def _to_streampetr(tensors: dict[str, Tensor], settings: Settings, path: str) -> dict[str, Tensor]:
    has_head = any(name.startswith("head.") for name in tensors)
    if has_head and not {"point_cloud_range", "code_weights"} <= set(settings):
        raise InputError(
            f"{path} does not record the settings that the reference keeps among its weights "
            "(ranges, code weights); name the model's configuration with --config-file"
        )
    constants = {
        theirs: torch.tensor(settings[ours])
        for theirs, ours in HEAD_CONSTANTS.items()
        if ours in settings
    }
    return detector_to_streampetr(tensors, constants, rotary_tables_of(settings))


def describe(conversion: Conversion, title: str) -> str:
    """A table of the tensors read, mapped, resized, unused and missing.

    Args:
        conversion: what is told.
        title: the file.
    """
    rows = list(_rows(conversion))
    width = max(len(name) for name, _, _ in rows)
    lines = [f"{title}: {FORMATS[conversion.source]}", "", f"{'':{width}}  tensors     parameters"]
    for name, count, parameters in rows:
        size = "" if parameters is None else f"{parameters:>15,}"
        lines.append(f"{name:{width}}  {count:>7}{size}".rstrip())
    if conversion.fit is None:
        lines.append("missing: not checked, no configuration was given")
    lines += [f"note: {note}" for note in conversion.notes]
    return "\n".join(lines)


def _rows(conversion: Conversion) -> Iterator[Row]:
    out, unused, fit = conversion.tensors, conversion.unused, conversion.fit
    yield _counted("read", conversion.read, conversion.read)
    yield _counted("written" if conversion.target == "streampetr" else "mapped", out, out)
    for group in dict.fromkeys(map(group_of, out)):
        yield _counted(f"  {group}", [name for name in out if group_of(name) == group], out)
    yield "resized", len(conversion.resized), None
    for name, old, new in conversion.resized:
        yield f"  {name} {'x'.join(map(str, old))} -> {'x'.join(map(str, new))}", 1, None
    yield _counted("unused", [n for names in unused.values() for n in names], conversion.read)
    for why, names in unused.items():
        yield _counted(f"  {why}", names, conversion.read)
    if fit is not None:
        for title, absent in (("not in the model", fit.unused), ("missing", fit.missing)):
            yield title, len(absent), None
            for group, count in Counter(map(group_of, absent)).items():
                yield f"  {group}", count, None


def _counted(title: str, names: Iterable[str], tensors: Mapping[str, Tensor]) -> Row:
    sizes = [tensors[name].numel() for name in names]
    return title, len(sizes), sum(sizes)

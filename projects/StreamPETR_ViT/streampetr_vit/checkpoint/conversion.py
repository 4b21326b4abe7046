"""Converts checkpoints between projects, and accounts for every tensor."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain
from typing import Any

from torch import Tensor, nn

from streampetr_vit.checkpoint.adapters import detector_from_streampetr, detector_to_streampetr
from streampetr_vit.checkpoint.adapters.backbone import resized_to_fit
from streampetr_vit.checkpoint.adapters.known_files import FORMATS, format_of, tensors_by_our_names
from streampetr_vit.checkpoint.adapters.renaming import examples
from streampetr_vit.checkpoint.files import SETTINGS, read_checkpoint
from streampetr_vit.checkpoint.fit import KeyReport, Shape, group_of, groups, half_backbone
from streampetr_vit.checkpoint.formats import weights_of
from streampetr_vit.checkpoint.settings import (
    CLASS_NAMES,
    LOSSES,
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
    """Converted weights, and what became of each tensor of the file."""

    source: str  # a key of `FORMATS`
    target: str  # one of `TARGETS`
    tensors: dict[str, Tensor]  # under the target's names
    settings: dict[str, Any]  # see `checkpoint.settings`
    read: dict[str, Tensor]  # under the file's names
    resized: list[tuple[str, Shape, Shape]]  # name in our detector, shape in the file, new shape
    unused: dict[str, list[str]]  # reason -> names in the file
    fit: KeyReport | None  # None: no model was given
    notes: list[str]  # what the user should know beside the counts


def convert_file(
    path: str | os.PathLike[str],
    source: str = "auto",
    target: str = "ours",
    *,
    averaged: bool = False,
    **options: Any,
) -> Conversion:
    """Reads a checkpoint and translates its tensors; source, target and options as `convert`.

    Args:
        path: the file. Tensors of the result may be views of it: write them, or load them into a
            model, before the file changes.
        averaged: take the moving average of the weights, see `weights_of`.
    """
    path = os.fspath(path)
    content = read_checkpoint(path, lazily=True, advice="correct the path of the input")
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
        source: a key of `FORMATS`, or "auto".
        target: one of `TARGETS`.
        path: the file, for messages.
        settings: that the file records, for "ours".
        model: a detector to check against, on the meta device but for the ranges of its head. It
            also sets the sizes that pre-training files are resized to, and the settings that a
            file does not record.
        only: keep a part of the detector only, for example "backbone".
        allow_other_size: weights for another window size than the model's are no error, and the
            result records no window size.

    Raises:
        CheckpointError: half a backbone, or tensors that are not of the source or do not fit.
        InputError: an unknown source or target, or a name that the source's models do not have.
    """
    source = _checked_source(weights, source, target, path)
    tensors, unused = tensors_by_our_names(weights, source, only)
    if not tensors:
        raise _of_another_format(weights, source, only, path)
    of_model, state = ({}, {}) if model is None else (settings_of(model), model.state_dict())
    changed = resized_to_fit(tensors, state) if source == "eva02-cls" else {}
    resized = [(n, tuple(tensors[n].shape), tuple(new.shape)) for n, new in changed.items()]
    tensors |= changed
    whole = source in _DETECTORS and only is None
    if whole and source != "ours":
        with _of_file(path):
            tensors, settings = detector_from_streampetr(weights)
    # A whole detector is for its own ranges and window sizes, a backbone for any.
    known = parse_settings(settings, path) if whole else {}
    found = differences(known, of_model)
    notes = [found.pop(name) for name in LOSSES if name in found]
    if whole and source == "repdetr3d" and model is None:
        notes.append("RepDETR3D's heads are renamed by rule; --config-file checks them")
    _check_size(path, found, allow_other_size)
    if allow_other_size:
        known = {k: v for k, v in known.items() if k not in ("rotary", CLASS_NAMES)}
    # A detector is checked as a whole, by the model or when it is loaded.
    half = None if source in _DETECTORS else half_backbone(tensors)
    fit = None if model is None else KeyReport.compare(tensors, state)
    _check_fit(path, half, fit, whole)
    if target == "streampetr":
        known = {**of_model, **known}  # what the file records goes before the model's
        _check_constants(path, tensors, known)
        with _of_file(path):
            tensors = detector_to_streampetr(tensors, known)
    return Conversion(source, target, tensors, known, dict(weights), resized, unused, fit, notes)


@contextmanager
def _of_file(path: str) -> Iterator[None]:
    """Names the file in errors about its tensors."""
    try:
        yield
    except InputError as error:
        raise InputError(f"{path}: {error}") from error


def _checked_source(names: Iterable[str], source: str, target: str, path: str) -> str:
    """The source, found out if it is "auto"."""
    if source != "auto" and source not in FORMATS:
        raise InputError(f"source {source!r} must be auto, {', '.join(FORMATS)}")
    if target not in TARGETS:
        raise InputError(f"target {target!r} must be one of {', '.join(TARGETS)}")
    source = format_of(names, path) if source == "auto" else source
    if target == "streampetr" and source in ("streampetr", "repdetr3d", "seed-remapped"):
        raise InputError(f"{path} has the reference's names already (--from {source})")
    return source


def _of_another_format(
    names: Iterable[str], source: str, only: str | None, path: str
) -> CheckpointError:
    part = f" with a part {only!r}" if only else ""
    return CheckpointError(
        f"{path} is not {FORMATS[source]}{part}: none of its tensors ({examples(names)}) is of "
        "such a file; use --from auto, or name another format"
    )


def _check_size(path: str, found: Mapping[str, str], allow_other_size: bool) -> None:
    is_other_size = found.keys() <= {"grid", "windows", CLASS_NAMES}
    if found and not (is_other_size and allow_other_size):
        hint = "; to convert it all the same: --allow-other-size" if is_other_size else ""
        raise CheckpointError(f"{path}: {'; '.join(found.values())}{hint}")


def _check_fit(path: str, half: str | None, fit: KeyReport | None, whole: bool) -> None:
    if half is not None:
        raise CheckpointError(
            f"{path} is {half}. It is of another ViT, or incomplete: take the file of EVA-02's "
            "authors"
        )
    if fit is None:
        return
    # Before the shapes: they would say less.
    if whole and any(".cross_attention.weights." in name for name in fit.unused):
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


def _check_constants(path: str, names: Iterable[str], settings: dict[str, Any]) -> None:
    has_head = any(name.startswith("head.") for name in names)
    if has_head and not {"point_cloud_range", "code_weights"} <= settings.keys():
        raise InputError(
            f"{path} does not record the settings that the reference keeps among its weights "
            "(ranges, code weights); name the model's configuration with --config-file"
        )


def describe(conversion: Conversion, title: str) -> str:
    """A table of the tensors read, mapped, resized, unused and missing; the title is the file."""
    rows = list(_rows(conversion))
    width = max(len(name) for name, _, _ in rows)
    lines = [f"{title}: {FORMATS[conversion.source]}", "", f"{'':{width}}  tensors     parameters"]
    for name, count, parameters in rows:
        size = "" if parameters is None else f"{parameters:>15,}"
        lines.append(f"{name:{width}}  {count:>7}{size}")
    if conversion.fit is None:
        lines.append("missing: not checked, no configuration was given")
    return "\n".join([*lines, *(f"note: {note}" for note in conversion.notes)])


def _rows(conversion: Conversion) -> Iterator[Row]:
    def counted(title: str, names: Iterable[str], of: Mapping[str, Tensor]) -> Row:
        sizes = [of[name].numel() for name in names]
        return title, len(sizes), sum(sizes)

    read, out, unused = conversion.read, conversion.tensors, conversion.unused
    yield counted("read", read, read)
    yield counted("written" if conversion.target == "streampetr" else "mapped", out, out)
    for group in dict.fromkeys(map(group_of, out)):
        yield counted(f"  {group}", [name for name in out if group_of(name) == group], out)
    yield "resized", len(conversion.resized), None
    for name, old, new in conversion.resized:
        yield f"  {name} {'x'.join(map(str, old))} -> {'x'.join(map(str, new))}", 1, None
    yield counted("unused", chain.from_iterable(unused.values()), read)
    for why, names in unused.items():
        yield counted(f"  {why}", names, read)
    if conversion.fit is not None:
        absent = {"not in the model": conversion.fit.unused, "missing": conversion.fit.missing}
        for title, names in absent.items():
            yield title, len(names), None
            for group, count in Counter(map(group_of, names)).items():
                yield f"  {group}", count, None

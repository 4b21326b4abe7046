"""Converts checkpoints between projects, and accounts for every tensor."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from streampetr_vit.checkpoint.adapters import (
    Unused,
    detector_from_streampetr,
    detector_to_streampetr,
    resize_patch_embed,
    resize_position_table,
    translate_detector,
    translate_eva_detection,
    translate_eva_pre_training,
    translate_remapped,
)
from streampetr_vit.checkpoint.completeness import check_backbone
from streampetr_vit.checkpoint.files import SETTINGS, read_checkpoint
from streampetr_vit.checkpoint.formats import FORMATS, format_of, weights_of
from streampetr_vit.checkpoint.key_report import KeyReport, examples, groups
from streampetr_vit.checkpoint.settings import (
    Settings,
    differences,
    parse_settings,
    rotary_tables_of,
    settings_from_rotary_tables,
    settings_of,
)
from streampetr_vit.errors import CheckpointError, InputError

TARGETS = ("ours", "streampetr")
_DETECTORS = ("ours", "streampetr", "repdetr3d")
# Our settings, and the names that the reference stores them under.
_CONSTANT_NAMES = {
    "point_cloud_range": "pc_range",
    "position_range": "position_range",
    "code_weights": "code_weights",
    "match_costs": "match_costs",
}
_PATCH, _POSITIONS = "backbone.net.patch_embed.proj.weight", "backbone.net.pos_embed"
# Of our models: StreamPETR's ViT takes patches of 16 pixels and was pre-trained on 14 x 14 of them.
_PATCH_SIZE, _POSITION_ROWS = 16, 14 * 14 + 1

Shape = tuple[int, ...]

_TRANSLATIONS: dict[str, Callable[[str], str | Unused]] = {
    "ours": lambda name: name,
    "eva02-det": translate_eva_detection,
    "eva02-cls": translate_eva_pre_training,
    "seed-remapped": translate_remapped,
    "streampetr": translate_detector,
    "repdetr3d": translate_detector,
}


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
    resized: tuple[tuple[str, Shape, Shape], ...] = ()
    unused: dict[str, list[str]] = field(default_factory=dict)
    fit: KeyReport | None = None
    notes: tuple[str, ...] = ()


def convert_file(
    path: str | os.PathLike[str],
    source: str = "auto",
    target: str = "ours",
    *,
    model: nn.Module | None = None,
    averaged: bool = False,
    only: str | None = None,
    allow_other_size: bool = False,
) -> Conversion:
    """Reads a checkpoint and translates its tensors; see `convert`.

    Tensors of the result may be views of the file: write them, or load them into a model, before
    the file changes.
    """
    path = os.fspath(path)
    content = read_checkpoint(path, lazily=True)
    weights = weights_of(content, path, averaged=averaged)
    return convert(
        weights,
        source,
        target,
        path=path,
        settings=content.get(SETTINGS),
        model=model,
        only=only,
        allow_other_size=allow_other_size,
    )


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

    Returns:
        The converted tensors and the account of them.

    Raises:
        CheckpointError: tensors that are not of the source, half a backbone where the source is
            one, or tensors that do not fit the model.
        InputError: an unknown source or target, or a name that the source's models do not have.
    """
    if source != "auto" and source not in FORMATS:
        raise InputError(f"source {source!r} must be auto, {', '.join(FORMATS)}")
    if target not in TARGETS:
        raise InputError(f"target {target!r} must be one of {', '.join(TARGETS)}")
    weights = dict(weights)
    source = format_of(weights, path) if source == "auto" else source
    if target == "streampetr" and source in ("streampetr", "repdetr3d", "seed-remapped"):
        raise InputError(f"{path} has the reference's names already (--from {source})")
    tensors, unused, known = _to_ours(weights, source, only)
    whole = source in _DETECTORS and only is None
    known = parse_settings(settings if source == "ours" else known, path) if whole else {}
    if not tensors:
        raise CheckpointError(
            f"{path} is not {FORMATS[source]}"
            + (f" with a part {only!r}" if only else "")
            + f": none of its tensors ({examples(weights)}) is of such a file; use --from auto, or "
            "name another format"
        )
    if source not in _DETECTORS:
        check_backbone(tensors, path)
    of_model = {} if model is None else settings_of(model)
    shapes = {} if model is None else model.state_dict()
    tensors, resized = _resized(tensors, shapes) if source == "eva02-cls" else (tensors, ())
    if whole and model is not None:
        _check_size(path, known, of_model, allow_other_size)
    if allow_other_size:
        known.pop("rotary", None)
    fit = None if model is None else KeyReport.compare(tensors, shapes)
    if fit is not None:
        _check_fit(path, source, fit, whole)
    notes = differences(known, of_model, training=True) if whole and model is not None else []
    if source == "repdetr3d" and only is None and model is None:
        notes.append("RepDETR3D's heads are renamed by rule; --config-file checks them")
    if target == "streampetr":
        known = {**of_model, **known}
        tensors = _to_streampetr(tensors, known, path)
    return Conversion(source, target, tensors, known, weights, resized, unused, fit, tuple(notes))


def _to_ours(
    weights: dict[str, Tensor], source: str, only: str | None
) -> tuple[dict[str, Tensor], dict[str, list[str]], Settings]:
    """Our tensors, the names left out by reason, and the settings that foreign tensors tell."""
    unused: dict[str, list[str]] = {}
    tensors: dict[str, Tensor] = {}
    for name, value in weights.items():
        ours = _TRANSLATIONS[source](name)
        if isinstance(ours, str) and only is not None and not ours.startswith(f"{only}."):
            ours = Unused(f"not of the {only}")
        if isinstance(ours, Unused):
            unused.setdefault(ours.why, []).append(name)
        else:
            tensors[ours] = value
    if only is not None or source not in ("streampetr", "repdetr3d"):
        return tensors, unused, {}
    tensors, constants = detector_from_streampetr(weights)  # also compares the copies
    settings: Settings = {
        ours: constants[theirs].tolist()
        for ours, theirs in _CONSTANT_NAMES.items()
        if theirs in constants
    }
    prefix = "img_backbone."
    tables = {n.removeprefix(prefix): t for n, t in weights.items() if n.startswith(prefix)}
    return tensors, unused, {**settings, **settings_from_rotary_tables(tables)}


def _resized(
    tensors: dict[str, Tensor], model: Mapping[str, Tensor]
) -> tuple[dict[str, Tensor], tuple[tuple[str, Shape, Shape], ...]]:
    """Fits patches and positions of a pre-training file to a model, or to the published one."""
    wanted = {
        _PATCH: (resize_patch_embed, 2, _PATCH_SIZE),
        _POSITIONS: (resize_position_table, 1, _POSITION_ROWS),
    }
    tensors, resized = dict(tensors), []
    for name, (resize, axis, published) in wanted.items():
        if name not in tensors:
            continue
        size = model[name].shape[axis] if name in model else published
        old, tensors[name] = tensors[name], resize(tensors[name], size)
        if tensors[name] is not old:
            resized.append((name, tuple(old.shape), tuple(tensors[name].shape)))
    return tensors, tuple(resized)


def _check_size(path: str, file: Settings, model: Settings, allow_other_size: bool) -> None:
    """Raises CheckpointError if a detector was trained for other windows or ranges."""
    ranges = differences({k: v for k, v in file.items() if k != "rotary"}, model)
    windows = differences({k: v for k, v in file.items() if k == "rotary"}, model)
    if ranges or (windows and not allow_other_size):
        hint = "; to convert it all the same: --allow-other-size" if not ranges else ""
        raise CheckpointError(f"{path}: {'; '.join(ranges + windows)}{hint}")


def _check_fit(path: str, source: str, fit: KeyReport, whole: bool) -> None:
    """Raises CheckpointError if tensors do not fit; a whole detector must fit exactly."""
    if whole and source == "repdetr3d" and any(".weights." in name for name in fit.unused):
        raise CheckpointError(
            f"{path} holds a RepDETR3D head, and the model of the configuration has no such head. "
            "Use a RepDETR3D configuration; or take the backbone alone: --only backbone"
        )
    if fit.wrong_shape:
        name, theirs, ours = fit.wrong_shape[0]
        raise CheckpointError(
            f"{path}: {len(fit.wrong_shape)} tensors have another shape than the model's, first "
            f"{name}: {theirs} in the file, {ours} in the model. "
            f"{shape_hint(row[0] for row in fit.wrong_shape)}"
        )
    if whole and (fit.missing or fit.unused):
        raise CheckpointError(
            f"{path} is another detector than the model of the configuration. Not in the file: "
            f"{groups(fit.missing) or 'none'}; not in the model: {groups(fit.unused) or 'none'}. "
            "Use the configuration of the file; or take the backbone alone: --only backbone"
        )
    if not fit.matched:
        raise CheckpointError(f"{path}: no tensor fits the model")


def shape_hint(names: Iterable[str]) -> str:
    """What to change where these tensors have another shape than the model's."""
    names = set(names)
    if names == {_POSITIONS}:
        return (
            "The position table has another size: set model.backbone.net.pretrain_img_size to the "
            "side in pixels of the pictures that the file was pre-trained with"
        )
    if names <= {_POSITIONS, _PATCH}:
        return (
            "The patches have another size: tools/convert_checkpoint.py --from eva02-cls resizes "
            "those of EVA-02's ImageNet files"
        )
    if any(name.startswith("backbone.") for name in names):
        return "Use the backbone settings of the file (embed_dim, depth, mlp_ratio, patch_size)"
    return "Use the model configuration of the file"


def _to_streampetr(tensors: dict[str, Tensor], settings: Settings, path: str) -> dict[str, Tensor]:
    constants = {
        theirs: torch.tensor(settings[ours])
        for ours, theirs in _CONSTANT_NAMES.items()
        if ours in settings
    }
    has_head = any(name.startswith("head.") for name in tensors)
    if has_head and not {"pc_range", "code_weights"} <= set(constants):
        raise InputError(
            f"{path} does not record the settings that the reference keeps among its weights "
            "(ranges, code weights); name the model's configuration with --config-file"
        )
    return detector_to_streampetr(tensors, constants, rotary_tables_of(settings))

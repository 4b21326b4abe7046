"""Checks every setting of a configuration before anything is built or written.

The plain sections have a table. The arguments of a described part must be arguments of what it
calls, and of their annotated types; for those of this package a second table has the ranges.
"""

from __future__ import annotations

import dataclasses
import functools
import importlib.util
import inspect
import os
import typing
from collections.abc import Iterator, Mapping
from typing import Any

from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from torch.nn.parallel import DistributedDataParallel

from streampetr_vit.engine.allowed import (
    ABOVE_0,
    ANYTHING,
    DESCRIBED,
    FACTOR,
    FLAG,
    NOT_NEGATIVE,
    SECTION,
    SHARE,
    TEXT,
    Allowed,
    by_annotation,
    list_of,
    matching,
    null,
    number,
    one_of,
    whole,
)
from streampetr_vit.engine.compile import MODES, compile_parts
from streampetr_vit.engine.described import call
from streampetr_vit.engine.overrides import arguments_of, target_of
from streampetr_vit.errors import ConfigError, UserError, one_line
from streampetr_vit.modeling.ops.precision import DTYPES

_PRECISION = one_of(*DTYPES)
# Settings of the plain sections, and what every configuration has.
SETTINGS: dict[str, Allowed] = {
    "model": DESCRIBED,
    "dataset_spec": DESCRIBED,
    "optimizer": DESCRIBED,
    "optimizer.params": DESCRIBED,
    "optimizer.lr": ABOVE_0,
    "dataloader": SECTION,
    "dataloader.train": DESCRIBED,
    "dataloader.test": DESCRIBED,
    "dataloader.evaluator": DESCRIBED | null("no evaluation"),
    "dataloader.train.lanes_per_rank": whole(1),
    "schedule": SECTION,
    "schedule.epochs": ABOVE_0,
    "schedule.warmup_iters": whole(0),
    "schedule.warmup_factor": SHARE,
    "schedule.end_factor": SHARE,
    "schedule.lr_batch": whole(1) | null("a rate that is not scaled"),
    "train": SECTION,
    "train.output_dir": matching(r"(?s).*\S.*", "the name of a folder"),
    "train.init_checkpoint": Allowed('a file, or "" for random weights', TEXT.holds),
    "train.init_allow_wrong_shape": FLAG,
    "train.init_allow_partial": FLAG,
    "train.device": matching(r"auto|cpu|cuda(:\d+)?", '"auto", "cpu", "cuda" or "cuda:N"'),
    "train.precision": _PRECISION,
    "train.eval_precision": _PRECISION,
    "train.max_iter": whole(1) | null("as many as schedule.epochs asks for"),
    "train.auto_scale": FLAG,
    "train.max_seconds": ABOVE_0 | null("no limit"),
    "train.clip_grad_norm": ABOVE_0 | null("no clipping"),
    "train.max_consecutive_skips": whole(1),
    "train.checkpointer": SECTION,
    "train.checkpointer.period": whole(1) | null("one epoch"),
    "train.checkpointer.max_to_keep": whole(1) | null("all"),
    "train.eval_period": whole(0),
    "train.log_period": whole(1),
    "train.seed": Allowed(
        "a whole number from 0 to 4294967295",
        lambda value: whole(0).holds(value) and value < 2**32,
    ),
    "train.num_threads": whole(1) | null("torch's choice"),
    "train.compile": SECTION | null("none"),
    "train.compile.backbone": FLAG,
    "train.compile.decoder": FLAG,
    "train.compile.mode": one_of(*MODES),
    "train.ddp": SECTION,
    "train.ddp.broadcast_buffers": FLAG,
    "train.ddp.find_unused_parameters": FLAG,
    "report": SECTION | null("no report"),
    "report.title": TEXT,
    "report.notes": list_of(TEXT),
    "report.memory_off": FLAG,
    "report.range_m": ABOVE_0,
    "synthetic": SECTION,
    "synthetic.preset": TEXT,
}
_BUILT = ("dataset_spec", "model", "optimizer", "dataloader")  # sections that are instantiated
_NAME = matching(r"(?s).*\S.*", "a text that is not empty")
_DATASET = {
    "root": _NAME,
    "version": _NAME,
    "split": TEXT | list_of(TEXT) | null("all scenes"),
    "name": TEXT | null("one that is made up"),
    "cache_dir": TEXT | null("a folder in the data set"),
}
_LOADERS = ("dataloader.train", "dataloader.test", "dataloader.evaluator")
SETTINGS |= {f"{at}.dataset.{key}": rule for at in _LOADERS for key, rule in _DATASET.items()}
# May be left out: the files of older runs lack them, or they have a default.
OPTIONAL = {
    *("dataset_spec", "dataloader.evaluator", "optimizer.lr", "report", "synthetic"),
    *("schedule.lr_batch", "train.auto_scale", "train.init_allow_partial", "train.compile"),
    *("train.compile.backbone", "train.compile.decoder", "train.compile.mode"),
    *("train.ddp.broadcast_buffers", "train.ddp.find_unused_parameters"),
    *(f"{loader}.dataset.{key}" for loader in _LOADERS for key in ("split", "name", "cache_dir")),
}
# Arguments of this package's classes and functions, by name, beyond their types.
_COUNT, _WEIGHT, _METRES = whole(1), NOT_NEGATIVE, NOT_NEGATIVE
ARGUMENTS: dict[str, Allowed] = {
    **dict.fromkeys(("img_size", "patch_size", "in_chans", "embed_dim", "depth"), _COUNT),
    **dict.fromkeys(("num_heads", "num_layers", "num_levels", "num_points"), _COUNT),
    **dict.fromkeys(("num_groups", "num_classes", "num_queries", "in_channels"), _COUNT),
    **dict.fromkeys(("out_channels", "feedforward_dim", "depth_num", "stride"), _COUNT),
    **dict.fromkeys(("pretrain_img_size", "size_divisibility", "max_detections"), _COUNT),
    **dict.fromkeys(("lanes_per_rank", "sequence_split", "sequence_length"), _COUNT),
    **dict.fromkeys(("window_length", "prefetch_factor"), _COUNT),
    **dict.fromkeys(("num_propagated", "memory_length", "num_remembered", "groups"), whole(0)),
    **dict.fromkeys(("num_workers", "window_drop", "square_pad", "window_size"), whole(0)),
    **dict.fromkeys(("seed", "start_iteration", "global_window_size"), whole(0)),
    **dict.fromkeys(("dropout", "feedforward_dropout", "flip_probability"), SHARE),
    **dict.fromkeys(("probability", "score_threshold"), SHARE),
    **dict.fromkeys(("class_weight", "box_weight", "giou_weight", "center_weight"), _WEIGHT),
    **dict.fromkeys(("iou_weight", "centerness_weight", "weight_decay"), _WEIGHT),
    **dict.fromkeys(("translation_m", "depth_start_m", "prior_sigma_cells"), _METRES),
    **dict.fromkeys(("backbone_lr_factor", "head_factor", "pyramid_factor", "scale"), NOT_NEGATIVE),
    **dict.fromkeys(("lr", "mlp_ratio", "gain", "max_positive_distance"), ABOVE_0),
    "decay_rate": FACTOR,
    "cross_attention_precision": one_of(*DTYPES),
    "sampling_kernel": one_of("grid_sample", "gather"),
    "norm": one_of("", "LN", "BN", "SyncBN", "FrozenBN", "GN", "nnSyncBN"),
    "half_scale": one_of("conv", "max_pool"),
    "input_format": one_of("RGB", "BGR"),
    "on_bad_image": one_of("raise", "count"),
    "sharding": one_of("scene", "reference"),
    "strides": list_of(_COUNT),
    "scale_factors": list_of(ABOVE_0),
    "code_weights": list_of(NOT_NEGATIVE, 10),
    "pixel_mean": list_of(number(), 3),
    "pixel_std": list_of(ABOVE_0, 3),
}
# What some values need, and where it comes from.
_PACKAGES = {"xformers": "xformers", "flash-attn": "flash_attn"}


def check_settings(cfg: DictConfig) -> None:
    """Raises an error for the first setting that is not allowed; writes out ~ in paths, in place.

    Cheap: nothing is opened, and of the described parts only those are made that are plain values.

    Raises:
        ConfigError: names the setting, its value and what is allowed.
        InputError: values that do not go together.
    """
    for path, allowed in SETTINGS.items():
        _check_setting(cfg, path, allowed)
    for path, target in (("train.ddp", DistributedDataParallel), ("train.compile", compile_parts)):
        section = OmegaConf.select(cfg, path)
        if section is not None:
            _check_names(path, section, target)
    # Not what else a recipe holds: parts that nothing builds may refer to nothing.
    parts = [part for name in _BUILT for part in _described(cfg.get(name), name)]
    for path, part in parts:
        _check_part(path, part)
    _check_detections(cfg)
    # Inner ones first, so that the error names the innermost.
    for path, part in sorted(parts, key=lambda entry: -entry[0].count(".")):
        if dataclasses.is_dataclass(target_of(part)):
            _check_by_making(path, part)
    _write_out_home(cfg)


def _check_setting(cfg: DictConfig, path: str, allowed: Allowed) -> None:
    parent, _, key = path.rpartition(".")
    node = _value(cfg, parent, parent) if parent else cfg
    if not isinstance(node, DictConfig):  # no such section, or null: said where that is an error
        return
    if key in node:
        require(path, _value(cfg, path, path), allowed)
    elif path not in OPTIONAL:
        raise ConfigError(f"the configuration has no {path}: set it; it must be {allowed.text}")


def require(path: str, value: Any, allowed: Allowed) -> None:
    """Raises ConfigError unless a value is allowed."""
    if not allowed.holds(value):
        raise ConfigError(f"{path}={_shown(value)} is not allowed: it must be {allowed.text}")


def _shown(value: Any) -> str:
    """A value as it is typed."""
    if value is None:
        return "null"
    if isinstance(value, (DictConfig, ListConfig)):
        value = OmegaConf.to_container(value, resolve=False)
    text = repr(value)
    return text if len(text) <= 100 else f"{text[:97]}..."


def _value(node: DictConfig, key: str, where: str) -> Any:
    """A value with its references resolved; ConfigError, with its whole path, if one is wrong."""
    entry = node._get_node(key) if "." not in key else None
    if entry is not None and not entry._is_interpolation() and not entry._is_missing():
        return node[key]  # quicker
    try:
        return OmegaConf.select(node, key, throw_on_missing=True)
    except OmegaConfBaseException as error:
        raise ConfigError(f"{where} cannot be read: {one_line(error)}") from error


def _described(node: Any, path: str) -> Iterator[tuple[str, DictConfig]]:
    """Every described part below a node, with its path; the outer ones first."""
    if not isinstance(node, (DictConfig, ListConfig)) or node._is_none():
        return
    if node._is_interpolation() or node._is_missing():
        return  # the part is checked where it stands
    if isinstance(node, DictConfig) and "_target_" in node:
        yield path, node
    for key in node if isinstance(node, DictConfig) else range(len(node)):
        yield from _described(node._get_node(key), f"{path}.{key}".lstrip("."))


def _check_part(path: str, part: DictConfig) -> None:
    """Checks the arguments of a described part."""
    target = target_of(part)
    if not callable(target):
        raise ConfigError(f"{path}._target_={_shown(target)} is no class or function")
    _check_names(path, part, target)
    hints = _hints(target)
    own = getattr(target, "__module__", "").startswith("streampetr_vit.")
    for key in map(str, part):
        if key == "_target_":
            continue
        allowed = by_annotation(hints[key]) if key in hints else ANYTHING
        if own and key in ARGUMENTS:
            allowed = _narrower(allowed, ARGUMENTS[key])
        where = f"{path}.{key}"
        value = _value(part, key, where)
        require(where, value, allowed)
        _check_package(where, value)


def _narrower(by_type: Allowed, by_name: Allowed) -> Allowed:
    """What an argument may be by its type and, as number, word or list of them, by its name."""

    def holds(value: Any) -> bool:
        in_range = by_name.holds(value) or list_of(by_name).holds(value)
        has_range = isinstance(value, (int, float, str, ListConfig)) and not isinstance(value, bool)
        return by_type.holds(value) and (in_range or not has_range)

    return Allowed(by_name.text + (", or null" if by_type.holds(None) else ""), holds)


def _check_by_making(path: str, part: DictConfig) -> None:
    """Makes a plain value: its constructor checks what belongs together."""
    try:
        call(part)
    except UserError as error:
        if path in str(error):
            raise
        raise ConfigError(f"{path}: {error}") from error


def _check_names(path: str, part: Mapping[Any, Any], target: Any) -> None:
    known, takes_others = arguments_of(target)
    unknown = [str(key) for key in part if key != "_target_" and key not in known]
    if unknown and not takes_others:
        name = getattr(target, "__qualname__", str(target))
        raise ConfigError(
            f"{path} has {', '.join(unknown)}, which {name} does not take; it takes "
            f"{', '.join(known)}. Give the part whole, '{path}={{_target_:...,...}}', or change "
            "the recipe"
        )


@functools.cache
def _hints(target: Any) -> dict[str, Any]:
    """Annotations of the arguments of a function or class, those of base classes included."""
    found: dict[str, Any] = {}
    places = inspect.getmro(target) if inspect.isclass(target) else (target,)
    for place in places:
        if place is object:
            continue
        try:
            hints = typing.get_type_hints(place.__init__ if inspect.isclass(place) else place)
        except Exception:  # a library's names for type checkers only: then there is no check
            continue
        found = hints | found
    return found


def _check_package(path: str, value: Any) -> None:
    package = _PACKAGES.get(value) if isinstance(value, str) else None
    if package is not None and path.endswith(".xattn") and not importlib.util.find_spec(package):
        raise ConfigError(
            f"{path}={value!r} needs the package {package}, which is not installed: pip install "
            f"{value}, or set {path}=True for the quickest kernel that is there"
        )


def _check_detections(cfg: DictConfig) -> None:
    """The devkit refuses more than 500 boxes for a frame, after all of them were computed."""
    count = OmegaConf.select(cfg, "model.head.max_detections")
    evaluator = cfg.dataloader.get("evaluator")
    if count is None or evaluator is None:
        return
    if getattr(target_of(evaluator), "__name__", "") == "NuScenesEvaluator" and count > 500:
        raise ConfigError(
            f"model.head.max_detections={count} is not allowed: the nuScenes metric takes at most "
            "500 boxes for a frame; set 500 or less, or dataloader.evaluator=null"
        )


def _write_out_home(cfg: DictConfig) -> None:
    """Replaces ~ in the paths of this process's own files."""
    for path in ("train.output_dir", "train.init_checkpoint", "dataloader.evaluator.output_dir"):
        value = OmegaConf.select(cfg, path)
        if isinstance(value, str) and value.startswith("~"):
            OmegaConf.update(cfg, path, os.path.expanduser(value))

"""Loading a LazyConfig file and its command-line overrides, with errors that name the fix."""

from __future__ import annotations

import difflib
import inspect
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from detectron2.config import LazyCall, LazyConfig, instantiate
from detectron2.utils.registry import locate
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from omegaconf import DictConfig, ListConfig, OmegaConf
from torch import nn

from streampetr_vit.checkpoint.settings import CLASS_NAMES
from streampetr_vit.data.nuscenes.spec import NUSCENES
from streampetr_vit.engine.moved import KEYS, rename_targets, where_now
from streampetr_vit.errors import InputError, UserError
from streampetr_vit.structures import DatasetSpec

# "${count:${dataset_spec.classes}}" gives heads as many class channels as there are classes.
OmegaConf.register_new_resolver("count", len, replace=True)

REQUIRED_SECTIONS = ("model", "optimizer", "schedule", "train", "dataloader")


class ConfigError(UserError, ValueError):
    """The configuration file or an override of it is wrong."""


def load_config(path: str, overrides: Sequence[str] = ()) -> DictConfig:
    """Reads a configuration and applies overrides to keys that it has.

    Args:
        path: a LazyConfig .py file, or a config.yaml of an earlier run.
        overrides: "path.key=value" each.

    Raises:
        ConfigError: missing file or section, or an override that is malformed or names a key that
            does not exist.
    """
    if not path:
        raise ConfigError("no configuration is given: pass --config-file configs/NAME.py")
    if not os.path.isfile(path):
        raise ConfigError(_missing_file(path))
    cfg = _load(path)
    missing = [name for name in REQUIRED_SECTIONS if name not in cfg]
    if missing:
        raise ConfigError(
            f"{path} has no {', '.join(missing)}: it is a part of a configuration, not a recipe; "
            "pass a file such as configs/quickstart.py, or add what is missing"
        )
    if "dataset_spec" not in cfg:  # earlier versions had none and knew nuScenes only
        cfg.dataset_spec = LazyCall(DatasetSpec)(**NUSCENES.plain())
        for part in ("train", "test", "evaluator"):
            node = cfg.dataloader.get(part)
            if node is not None and "spec" in _keys_of(node):
                node.spec = "${dataset_spec}"  # so that an override of it reaches all parts
    for override in overrides:
        check_override(cfg, override)
    return LazyConfig.apply_overrides(cfg, list(overrides))


def _load(path: str) -> DictConfig:
    """A file as LazyConfig loads it, with classes that were moved under their present names."""
    try:
        cfg = LazyConfig.load(path)
    except ImportError as error:  # an import in the recipe
        moved = where_now(error)
        if moved is None:
            raise
        raise ConfigError(f"{path}: {moved}. Change that import") from error
    rename_targets(cfg)
    return cfg


def load_spec(path: str | None) -> DatasetSpec:
    """The `dataset_spec` of a configuration file; nuScenes' for None."""
    return instantiate(load_config(path).dataset_spec) if path else NUSCENES


def call(described: DictConfig, **arguments: Any) -> Any:
    """Instantiates a LazyCall with further arguments, which only the running process knows."""
    # A copy: such arguments (a model, say) are no values of a configuration.
    return instantiate(dict(described) | arguments)


def instantiate_model(cfg: DictConfig) -> nn.Module:
    """The model of a whole configuration, on torch's default device.

    Raises:
        InputError: settings that do not go together, or a head with another number of classes than
            `dataset_spec`.
    """
    try:
        model = instantiate(cfg.model)
    except ValueError as error:
        raise InputError(f"the configuration's model cannot be built: {error}") from error
    if cfg.get("dataset_spec") is not None:
        names = [entry.name for entry in cfg.dataset_spec.classes]
        _check_classes(model, names)
        setattr(model, CLASS_NAMES, names)  # for its checkpoints
    return model


def _check_classes(model: nn.Module, names: list[str]) -> None:
    """Raises InputError unless the heads have one class channel for each class."""
    # A head with more channels would train without an error, one with fewer would fail in the loss.
    for part in ("head", "image_head"):
        channels = getattr(getattr(model, part, None), "num_classes", len(names))
        if channels != len(names):
            raise InputError(
                f"model.{part}.num_classes is {channels}, but dataset_spec.classes has "
                f"{len(names)} ({', '.join(names)}): set model.{part}.num_classes={len(names)}, or "
                f"name {channels} classes in dataset_spec.classes"
            )


def check_override(cfg: DictConfig, override: str) -> None:
    """Raises ConfigError unless an override is well formed and its key exists (`_keys_of`)."""
    # detectron2 would add an unknown key silently: a misspelt override would change nothing.
    if override.startswith("-"):
        raise ConfigError(
            f"option {override!r} comes behind a path.key=value and would be taken for one: put "
            "all options before the first path.key=value"
        )
    try:
        parsed = OverridesParser.create().parse_override(override)
    except HydraException as error:
        raise ConfigError(
            f"override {override!r} is malformed: write path.key=value (quote values that hold "
            f"spaces, commas or brackets). {error}"
        ) from error
    text = parsed.value()
    if text in ("None", "none"):  # hydra reads a string
        raise ConfigError(f"override {override!r} sets the text {text!r}; for no value write null")
    if parsed.is_add() or parsed.is_delete() or parsed.is_force_add():
        raise ConfigError(
            f"override {override!r}: only path.key=value is supported; keys cannot be added or "
            "removed here, edit the recipe"
        )
    node: Any = cfg
    parts = parsed.key_or_group.split(".")
    for depth, part in enumerate(parts):
        allowed = _keys_of(node)
        if part not in allowed:
            raise ConfigError(_unknown_key(override, parts[:depth], part, allowed))
        # An argument that only the signature names has no node: nothing below it can be set.
        node = OmegaConf.select(cfg, ".".join(parts[: depth + 1]), default=None)


def _keys_of(node: Any) -> list[str]:
    """Keys that may be set in a node: those it has, and arguments of what it describes."""
    if isinstance(node, ListConfig):
        return [str(index) for index in range(len(node))]
    if not isinstance(node, Mapping):
        return []
    keys = [str(key) for key in node]
    if "_target_" in node:
        target = node["_target_"]
        target = locate(target) if isinstance(target, str) else target
        keys += [name for name in _arguments_of(target) if name not in keys]
    return keys


def _arguments_of(target: Any) -> list[str]:
    """Named arguments of a function or class; with **options also those of the base classes."""
    names: dict[str, None] = {}
    named = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    # A class whose __init__ takes **options passes them on to the next class.
    for place in inspect.getmro(target) if inspect.isclass(target) else (target,):
        parameters = inspect.signature(place).parameters.values() if place is not object else ()
        names |= dict.fromkeys(p.name for p in parameters if p.kind in named)
        if not any(p.kind is p.VAR_KEYWORD for p in parameters):
            break
    return list(names)


def _unknown_key(override: str, parents: list[str], part: str, allowed: list[str]) -> str:
    where = ".".join(parents) or "the configuration"
    moved = KEYS.get(".".join((*parents, part)))
    if moved is not None:
        return f"override {override!r}: this key is gone; set {moved} instead, which all parts read"
    if not allowed:
        return f"override {override!r}: {where} is a plain value, it has no key {part!r}"
    near = difflib.get_close_matches(part, allowed, n=3, cutoff=0.5)
    paths = [".".join((*parents, name)) for name in near]
    hint = f"did you mean {' or '.join(paths)}? " if near else ""
    # "_target_" can be set, but is no setting that a user looks for.
    shown = [key for key in allowed if key != "_target_"]
    return f"override {override!r}: {where} has no key {part!r}; {hint}It has: {', '.join(shown)}"


def _missing_file(path: str) -> str:
    folder = Path(path).parent
    beside = sorted(file.name for file in folder.glob("*.py")) if folder.is_dir() else []
    # Without a similar name, some of what is there shows whether the folder is the right one.
    near = difflib.get_close_matches(Path(path).name, beside, n=3, cutoff=0.5) or beside[:10]
    hint = f"that folder has: {', '.join(near)}" if near else f"no configurations in {folder}"
    return f"configuration {path!r} does not exist (current folder: {os.getcwd()}); {hint}"

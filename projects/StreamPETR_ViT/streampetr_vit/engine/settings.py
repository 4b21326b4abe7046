"""Checks every setting of a configuration before anything is built or written.

The plain sections have a table (`setting_tables`). The arguments of a described part must be
arguments of what it calls, and of their annotated types; for those of this package a second table
has the ranges.
"""

from __future__ import annotations

import dataclasses
import functools
import importlib.util
import inspect
import os
import typing
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from torch.nn.parallel import DistributedDataParallel

from streampetr_vit.configuration.arguments import arguments_of, target_of
from streampetr_vit.configuration.described import call
from streampetr_vit.engine.allowed import ANYTHING, Allowed, by_annotation, list_of
from streampetr_vit.engine.best_checkpoint import BestCheckpointHook
from streampetr_vit.engine.checkpoint_hook import CheckpointHook
from streampetr_vit.engine.compile import compile_parts
from streampetr_vit.engine.evaluators import evaluator_parts
from streampetr_vit.engine.setting_tables import ARGUMENTS, OPTIONAL, SETTINGS
from streampetr_vit.errors import ConfigError, UserError, one_line
from streampetr_vit.solver import WeightAverage
from streampetr_vit.texts import nearest, shown

# What is instantiated.
_BUILT = ("dataset_spec", "model", "optimizer", "dataloader", "train.hooks")
# Plain sections that are arguments of something, whose first argument the program gives.
_CALLS: dict[str, Callable[..., Any]] = {
    "train.ddp": DistributedDataParallel,
    "train.compile": compile_parts,
    "train.checkpointer": CheckpointHook,
    "train.best_checkpoint": BestCheckpointHook,
    "train.ema": WeightAverage,
}
_PACKAGES = {"xformers": "xformers", "flash-attn": "flash_attn"}  # of attention kernels


def check_settings(cfg: DictConfig) -> None:
    """Raises an error for the first setting that is not allowed; writes out ~ in paths, in place.

    Cheap: nothing is opened, and of the described parts only those are made that are plain values.

    Raises:
        ConfigError: names the setting, its value and what is allowed.
        InputError: values that do not go together.
    """
    for path, allowed in SETTINGS.items():
        for place in _places(cfg, path):
            _check_setting(cfg, place, allowed, path in OPTIONAL)
    for path, target in _CALLS.items():
        section = OmegaConf.select(cfg, path)
        if section is not None:
            _check_names(path, section, functools.partial(target, None))
    for name in ("train", "schedule", "report"):
        _check_spelling(cfg, name)
    # Not what else a recipe holds: parts that nothing builds may refer to nothing.
    parts = [part for name in _BUILT for part in _described(OmegaConf.select(cfg, name), name)]
    for path, part in parts:
        _check_part(path, part)
    # Inner ones first, so that the error names the innermost.
    for path, part in sorted(parts, key=lambda entry: -entry[0].count(".")):
        target = target_of(part)
        if dataclasses.is_dataclass(target) and _is_own(target):
            _check_by_making(path, part)
    _write_out_home(cfg)


def _places(cfg: DictConfig, path: str) -> list[str]:
    """Where a setting stands: of a list of evaluators, in each."""
    first = "dataloader.evaluator."
    loaders = cfg.get("dataloader")
    evaluators = loaders.get("evaluator") if isinstance(loaders, DictConfig) else None
    if not path.startswith(first) or not isinstance(evaluators, ListConfig):
        return [path]
    return [f"{first}{index}.{path.removeprefix(first)}" for index in range(len(evaluators))]


def _check_setting(cfg: DictConfig, path: str, allowed: Allowed, optional: bool) -> None:
    parent, _, key = path.rpartition(".")
    node = _value(cfg, parent, parent) if parent else cfg
    if not isinstance(node, DictConfig):  # no such section, or null: said where that is an error
        return
    if key in node:
        require(path, _value(cfg, path, path), allowed)
    elif not optional:
        raise ConfigError(f"the configuration has no {path}: set it; it must be {allowed.text}")


def _check_spelling(cfg: DictConfig, section: str) -> None:
    """Refuses a key of a plain section that nothing reads and that is nearly one of its keys."""
    # Other keys may be a recipe's own.
    known = [path.split(".")[1] for path in SETTINGS if path.startswith(f"{section}.")]
    for key in cfg.get(section) or ():
        near = nearest(str(key), known, likeness=0.8)
        if near and key not in known:
            raise ConfigError(
                f"{section}.{key} is read by nothing: did you mean {section}.{near[0]}? Rename it "
                "in the recipe"
            )


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
    return shown(value, 100)


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
    own = _is_own(target)
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


def _is_own(target: Any) -> bool:
    return getattr(target, "__module__", "").startswith("streampetr_vit.")


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
    is_described = path not in _CALLS  # a plain section calls what the program has chosen
    known_too = ("_target_",) if is_described else ()
    unknown = [str(key) for key in part if key not in (*known, *known_too)]
    if unknown and not takes_others:
        name = getattr(getattr(target, "func", target), "__qualname__", str(target))
        fix = "Take it out of the recipe"
        if is_described and "_target_" in part:
            fix = f"Give the part whole, '{path}={{_target_:...,...}}', or change the recipe"
        raise ConfigError(
            f"{path} has {', '.join(unknown)}, which {name} does not take; it takes "
            f"{', '.join(known)}. {fix}"
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


def _write_out_home(cfg: DictConfig) -> None:
    """Replaces ~ in the paths of this process's own files."""
    parts = [(cfg.train, "output_dir"), (cfg.train, "init_checkpoint")]
    for node, key in [*parts, *((part, "output_dir") for part in evaluator_parts(cfg))]:
        value = node.get(key)
        if isinstance(value, str) and value.startswith("~"):
            node[key] = os.path.expanduser(value)

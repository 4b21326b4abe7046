"""Overrides of a configuration, `path.key=value`, with errors that name the fix."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from streampetr_vit.configuration.arguments import keys_of
from streampetr_vit.configuration.moved import KEYS
from streampetr_vit.engine.setting_tables import OPTIONAL, SETTINGS
from streampetr_vit.errors import ConfigError, one_line
from streampetr_vit.texts import nearest


def apply_overrides(cfg: DictConfig, overrides: Iterable[str]) -> None:
    """Changes a configuration in place.

    A dict changes the keys that it names in a section or in a described part. It replaces what is
    there if it describes a part itself (it has `_target_`), or if the setting is an argument whose
    value is a dict, as a data set: a mixture of two of those is neither.

    Raises:
        ConfigError: an override is malformed, or its key does not exist.
    """
    for override in overrides:
        parsed = check_override(cfg, override)
        key, value = parsed.key_or_group, parsed.value()
        try:
            OmegaConf.update(cfg, key, value, merge=not _is_one_value(cfg, key, value))
        except OmegaConfBaseException as error:
            raise ConfigError(f"override {override!r}: {one_line(error)}") from error


def _is_one_value(cfg: DictConfig, key: str, value: Any) -> bool:
    """Whether a new value replaces the old one whole."""
    if not isinstance(value, Mapping) or "_target_" in value:
        return True
    parent, _, _ = key.rpartition(".")
    old, around = _node(cfg, key), _node(cfg, parent) if parent else cfg
    describes = isinstance(old, DictConfig) and not old._is_none() and "_target_" in old
    return not describes and isinstance(around, DictConfig) and "_target_" in around


def _node(cfg: DictConfig, key: str) -> Any:
    return OmegaConf.select(cfg, key, default=None, throw_on_missing=False)


def check_override(cfg: DictConfig, override: str) -> Override:
    """The parsed override; ConfigError unless it is well formed and its key exists (`keys_of`)."""
    # detectron2 would add an unknown key silently: a misspelt override would change nothing.
    if override.startswith("-"):
        raise ConfigError(
            f"option {override!r} comes behind a path.key=value and would be taken for one: put "
            "all options before the first path.key=value"
        )
    try:
        parsed = OverridesParser.create().parse_override(_with_quoted_home(override))
        text = parsed.value()
    except HydraException as error:
        raise ConfigError(
            f"override {override!r} is malformed: write path.key=value, and \"path.key='value'\" "
            "where the value holds commas, brackets, accents or other special signs. "
            f"{one_line(error)}"
        ) from error
    if text in ("None", "none"):  # hydra reads a string
        raise ConfigError(f"override {override!r} sets the text {text!r}; for no value write null")
    if parsed.is_sweep_override():  # hydra would run once for each
        key, _, values = override.partition("=")
        raise ConfigError(f"override {override!r}: a list needs brackets, {key}=[{values}]")
    if parsed.is_add() or parsed.is_delete() or parsed.is_force_add():
        raise ConfigError(
            f"override {override!r}: only path.key=value is supported; keys cannot be added or "
            "removed here, edit the recipe"
        )
    node: Any = cfg
    parts = parsed.key_or_group.split(".")
    for depth, part in enumerate(parts):
        allowed = [*keys_of(node), *_absent_settings(node, parts[:depth])]
        if part not in allowed:
            raise ConfigError(_unknown_key(override, parts[:depth], part, allowed))
        # An argument that only the signature names has no node: nothing below it can be set.
        try:
            node = _node(cfg, ".".join(parts[: depth + 1]))
        except OmegaConfBaseException as error:  # an interpolation that leads nowhere
            if depth + 1 == len(parts):
                break  # it is about to be replaced
            raise ConfigError(f"override {override!r}: {one_line(error)}") from error
    return parsed


def _absent_settings(node: Any, parents: list[str]) -> list[str]:
    """Known settings that a section lacks: the config.yaml of an older run has no newer ones."""
    if not isinstance(node, DictConfig) or not parents:
        return []
    known = (path.rpartition(".") for path in OPTIONAL)
    return sorted(key for above, _, key in known if above == ".".join(parents) and key not in node)


def _with_quoted_home(override: str) -> str:
    """The override with quotes around what begins with ~, which hydra's grammar lacks."""
    if "'" in override or '"' in override:
        return override
    return re.sub(r"(?<=[=:,\[{ ])~[^,\[\]{}\s]*", r"'\g<0>'", override)


def _unknown_key(override: str, parents: list[str], part: str, allowed: list[str]) -> str:
    where = ".".join(parents) or "the configuration"
    moved = KEYS.get(".".join((*parents, part)))
    if moved is not None:
        return f"override {override!r}: this key is gone; set {moved} instead, which all parts read"
    if not allowed:
        whole = f"{where}={_whole(where)}"
        return (
            f"override {override!r}: {where} is a plain value, it has no key {part!r}; set the "
            f"whole: {whole}"
        )
    if allowed[0] == "0":  # a list, such as that of the evaluators
        return (
            f"override {override!r}: {where} is a list: name an entry of it, from {where}.0 to "
            f"{where}.{allowed[-1]}"
        )
    near = nearest(part, allowed, likeness=0.5)
    paths = [".".join((*parents, name)) for name in near]
    hint = f"did you mean {' or '.join(paths)}? It has" if near else "it has"
    # "_target_" can be set, but is no setting that a user looks for.
    shown = [key for key in allowed if key != "_target_"]
    return f"override {override!r}: {where} has no key {part!r}; {hint}: {', '.join(shown)}"


def _whole(where: str) -> str:
    """A value for all of a setting that may have parts, as it is typed."""
    split = (path.rpartition(".") for path in SETTINGS)
    known = [key for parent, _, key in split if parent == where]
    # The first ones: what comes later is rarely set.
    return f"{{{','.join(f'{key}:...' for key in known[:3])}}}" if known else "..."

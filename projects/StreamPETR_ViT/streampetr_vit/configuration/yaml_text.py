"""Writes a configuration as YAML."""

from __future__ import annotations

from typing import Any

import yaml
from detectron2.utils.registry import _convert_target_to_string
from omegaconf import DictConfig, OmegaConf


def config_text(cfg: DictConfig) -> str:
    """A configuration as YAML, with interpolations as they stand; what `LazyConfig.save` writes."""
    # Not that function itself: on a full disk it writes half a file, and a pickle, and goes on.
    plain = _with_names(OmegaConf.to_container(cfg, resolve=False))
    return yaml.dump(plain, default_flow_style=None, allow_unicode=True, width=9999)


def _with_names(value: Any) -> Any:
    """The same with the names of what is to be called, in place of classes and functions."""
    if isinstance(value, list):
        return [_with_names(entry) for entry in value]
    if not isinstance(value, dict):
        return value
    named = {key: _with_names(entry) for key, entry in value.items()}
    if callable(named.get("_target_")):
        named["_target_"] = _convert_target_to_string(named["_target_"])
    return named

"""Loading a configuration file and its command-line overrides, with errors that name the fix."""

from __future__ import annotations

from collections.abc import Sequence

from omegaconf import DictConfig

from streampetr_vit.configuration.described import call, instantiate_model
from streampetr_vit.configuration.reading import read_config
from streampetr_vit.data.nuscenes.spec import NUSCENES
from streampetr_vit.engine.overrides import apply_overrides, check_override
from streampetr_vit.engine.settings import check_settings
from streampetr_vit.errors import ConfigError
from streampetr_vit.structures import DatasetSpec

__all__ = [
    "ConfigError",
    "call",
    "check_override",
    "check_settings",
    "instantiate_model",
    "load_config",
    "load_spec",
]


def load_config(
    path: str, overrides: Sequence[str] = (), trusted: Sequence[str] = ()
) -> DictConfig:
    """Reads a configuration, applies overrides to keys that it has, and checks every setting.

    Args:
        path: a LazyConfig .py file, which is code; or a config.yaml of an earlier run, of which
            nothing is executed.
        overrides: "path.key=value" each.
        trusted: packages that a YAML file may call beside those that recipes use.

    Raises:
        ConfigError: missing file or section, an override that is malformed or names a key that does
            not exist, a value that is not allowed, or a callable that a YAML file may not name.
    """
    cfg = read_config(path, trusted)
    apply_overrides(cfg, overrides)
    check_settings(cfg)
    return cfg


def load_spec(path: str | None, trusted: Sequence[str] = ()) -> DatasetSpec:
    """The `dataset_spec` of a configuration file; nuScenes' for None."""
    return call(load_config(path, (), trusted).dataset_spec) if path else NUSCENES

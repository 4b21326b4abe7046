"""Reading a configuration file: a recipe, or the config.yaml of a run.

A .py file is code and runs as such. A .yaml file, such as the config.yaml of a run, is plain data.
"""

from __future__ import annotations

import inspect
import os
import traceback
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

from detectron2.config import LazyCall, LazyConfig
from omegaconf import DictConfig, ListConfig, OmegaConf

from streampetr_vit.configuration.arguments import keys_of
from streampetr_vit.configuration.labels import labels_of
from streampetr_vit.configuration.moved import rename_targets, where_now
from streampetr_vit.configuration.targets import check_targets, missing_package
from streampetr_vit.configuration.yaml_file import read_yaml
from streampetr_vit.data.nuscenes.spec import NUSCENES
from streampetr_vit.errors import ConfigError, one_line
from streampetr_vit.structures import DatasetSpec
from streampetr_vit.texts import nearest

# "${count:${dataset_spec.classes}}" gives heads as many class channels as there are classes.
OmegaConf.register_new_resolver("count", len, replace=True)
OmegaConf.register_new_resolver("labels", labels_of, replace=True)

REQUIRED_SECTIONS = ("model", "optimizer", "schedule", "train", "dataloader")


def read_config(path: str, trusted: Sequence[str] = ()) -> DictConfig:
    """What a configuration file says, with classes that were moved under their present names.

    Args:
        path: a LazyConfig .py file, which is code; or a config.yaml of an earlier run, of which
            nothing is executed.
        trusted: packages that a YAML file may call beside those that recipes use.

    Raises:
        ConfigError: missing file or section, or a callable that a YAML file may not name.
    """
    if not path:
        raise ConfigError("no configuration is given: pass --config-file configs/NAME.py")
    path = os.path.expanduser(path)
    if not os.path.isfile(path):
        raise ConfigError(_missing_file(path))
    cfg = _load(path, trusted)
    missing = [name for name in REQUIRED_SECTIONS if name not in cfg]
    if missing:
        raise ConfigError(
            f"{path} has no {', '.join(missing)}: it is a part of a configuration, not a recipe; "
            "pass a file such as configs/quickstart.py, or add what is missing"
        )
    if "dataset_spec" not in cfg:
        _fill_in_spec(cfg)
    return cfg


def _fill_in_spec(cfg: DictConfig) -> None:
    """Describes nuScenes: earlier versions had no `dataset_spec`, and knew nuScenes only."""
    cfg.dataset_spec = LazyCall(DatasetSpec)(**NUSCENES.plain())
    loaders = cfg.dataloader if isinstance(cfg.dataloader, DictConfig) else {}
    evaluators = loaders.get("evaluator")
    evaluators = evaluators if isinstance(evaluators, ListConfig) else [evaluators]
    for node in (loaders.get("train"), loaders.get("test"), *evaluators):
        if isinstance(node, DictConfig) and "spec" in keys_of(node):
            node.spec = "${dataset_spec}"  # so that an override of it reaches all parts


def _load(path: str, trusted: Sequence[str]) -> DictConfig:
    """A file's content, with classes that were moved under their present names."""
    kind = os.path.splitext(path)[1]
    if kind not in (".py", ".yaml", ".yml"):
        raise ConfigError(f"configuration {path!r} must be a .py, .yaml or .yml file")
    cfg = _run_recipe(path) if kind == ".py" else read_yaml(path)
    rename_targets(cfg)
    if kind != ".py":
        check_targets(cfg, path, trusted)
    return cfg


def _run_recipe(path: str) -> DictConfig:
    """What a .py file defines. An error in its own lines is said in one."""
    try:
        return LazyConfig.load(path)
    except SyntaxError as error:
        cause = error.__cause__ or error
        raise ConfigError(f"{error.msg} {one_line(cause)}") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path} is no Python file: {one_line(error)}") from error
    except Exception as error:
        frames = traceback.extract_tb(error.__traceback__)
        # What LazyConfig runs is the recipe; in other files the error is not the recipe's.
        runner = inspect.getfile(LazyConfig)
        files = {own.filename for by, own in pairwise(frames) if by.filename == runner} - {runner}
        own = [frame for frame in frames if frame.filename in files]
        if not isinstance(error, ImportError) and (not own or own[-1] is not frames[-1]):
            raise
        where = f"{own[-1].filename}, line {own[-1].lineno}" if own else path
        raise ConfigError(f"{where}: {_what_failed(error)}") from error


def _what_failed(error: Exception) -> str:
    moved = where_now(error) if isinstance(error, ImportError) else None
    if moved is not None:
        return f"{moved}. Change that import"
    if isinstance(error, ModuleNotFoundError):
        return missing_package(f"import {error.name}", error)
    return f"{type(error).__name__}: {one_line(error)}"


def _missing_file(path: str) -> str:
    is_folder = Path(path).is_dir()
    folder = Path(path) if is_folder else Path(path).parent
    beside = sorted(file.name for file in folder.glob("*.py")) if folder.is_dir() else []
    # Without a similar name, some of what is there shows whether the folder is the right one.
    near = nearest(Path(path).name, beside, likeness=0.5) or beside[:10]
    hint = f"that folder has: {', '.join(near)}" if near else f"no configurations in {folder}"
    if is_folder:
        return f"configuration {path!r} is a folder: give a file; {hint}"
    return f"configuration {path!r} does not exist (current folder: {os.getcwd()}); {hint}"

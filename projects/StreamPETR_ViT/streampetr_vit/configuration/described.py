"""Makes the objects that a configuration describes."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from detectron2.config import instantiate
from omegaconf import DictConfig, ListConfig
from torch import nn

from streampetr_vit.checkpoint.settings import CLASS_NAMES
from streampetr_vit.errors import InputError, UserError, one_line


@contextmanager
def _without_its_log() -> Iterator[None]:
    """Silences detectron2's "Error when instantiating ...!", which stands beside the error."""
    logger = logging.getLogger("detectron2.config.instantiate")
    before, logger.disabled = logger.disabled, True
    try:
        yield
    finally:
        logger.disabled = before


def call(described: DictConfig, **arguments: Any) -> Any:
    """Instantiates a LazyCall with further arguments, which only the running process knows.

    Raises:
        InputError: it cannot be made of these settings; names the section and what its constructor
            says.
    """
    # What runs here is a constructor, or opens a data set, with values that a user has chosen:
    # whatever it raises, the user learns which section and what is wrong with it.
    try:
        with _without_its_log():
            # A copy: such arguments (a model, say) are no values of a configuration.
            return instantiate(dict(described) | arguments)
    except UserError:
        raise
    except Exception as error:
        section = _failing_part(described) or described._get_full_key("") or "part"
        kind = "" if isinstance(error, (ValueError, TypeError)) else f"{type(error).__name__}: "
        raise InputError(
            f"the configuration's {section} cannot be built: {kind}{one_line(error)}"
        ) from error


def _failing_part(node: Any) -> str | None:
    """The path of the innermost described part below a node that cannot be made, if one cannot."""
    if not isinstance(node, (DictConfig, ListConfig)) or node._is_none():
        return None
    for key in node if isinstance(node, DictConfig) else range(len(node)):
        child = node._get_node(key)
        found = _failing_part(child)
        if found is not None:
            return found
        if isinstance(child, DictConfig) and not child._is_none() and "_target_" in child:
            try:
                with _without_its_log(), torch.device("meta"):  # quick, and without memory
                    instantiate(child)
            except Exception:
                return child._get_full_key("")
    return None


def instantiate_model(cfg: DictConfig) -> nn.Module:
    """The model of a whole configuration, on torch's default device.

    Raises:
        InputError: settings that do not go together, or a head with another number of classes than
            `dataset_spec`.
    """
    model = call(cfg.model)
    _check_padding(model)
    _check_features(model)
    if cfg.get("dataset_spec") is not None:
        names = [entry.name for entry in cfg.dataset_spec.classes]
        _check_classes(model, names)
        setattr(model, CLASS_NAMES, names)  # for its checkpoints
    return model


def _check_padding(model: nn.Module) -> None:
    """Raises InputError if pictures are padded to sizes that the backbone cannot take."""
    needed = getattr(getattr(model, "backbone", None), "size_divisibility", 0)
    given = getattr(model, "size_divisibility", needed)
    if needed and given % needed:
        raise InputError(
            f"model.size_divisibility={given}, but {type(model.backbone).__name__} takes pictures "
            f"in multiples of {needed}: set model.size_divisibility={needed}"
        )


def _check_features(model: nn.Module) -> None:
    """Raises InputError unless the backbone gives the features that the heads read."""
    backbone, wanted = getattr(model, "backbone", None), getattr(model, "in_feature", ())
    # A neck renames them. Only detectron2's backbones say what they give.
    if getattr(model, "neck", None) is not None or not hasattr(backbone, "output_shape"):
        return
    given = list(backbone.output_shape())
    missing = [
        name for name in ([wanted] if isinstance(wanted, str) else wanted) if name not in given
    ]
    if missing:
        raise InputError(
            f"model.in_feature names {', '.join(missing)}, but {type(backbone).__name__} gives "
            f"{', '.join(given)}: choose of these"
        )


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

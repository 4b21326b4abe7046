"""What inference needs of a recipe: the detector without its training, classes, pictures."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from detectron2.utils.registry import _convert_target_to_string
from omegaconf import DictConfig, OmegaConf

from streampetr_vit.configuration.described import call, instantiate_model
from streampetr_vit.configuration.yaml_file import read_yaml
from streampetr_vit.configuration.yaml_text import config_text
from streampetr_vit.data.transforms import ImageAugmentation
from streampetr_vit.errors import InputError
from streampetr_vit.files import replacing
from streampetr_vit.modeling.detector import StreamPETR
from streampetr_vit.structures import DatasetSpec
from streampetr_vit.texts import shown

IMAGE_AUG = "dataloader.test.mapper.image_aug"
_FOR_TRAINING = ("criterion", "denoising", "grid_mask", "window")


def leave_out_training(cfg: DictConfig) -> None:
    """Takes what only training needs out of the description of the model, in place.

    The 2D head stays where it chooses the tokens that the 3D head sees.
    """
    model = _described(cfg, "model", "the detector")
    needs_image_head = model.get("token_ratio", 1) != 1
    for name in (*_FOR_TRAINING, *(() if needs_image_head else ("image_head",))):
        if name in model:
            model[name] = None


def write_recipe(cfg: DictConfig, path: Path) -> None:
    """Writes what inference needs of a configuration, as a configuration.

    Args:
        cfg: a whole recipe; `leave_out_training` changes it.

    Raises:
        ConfigError: it holds more than plain data.
        OutputError: the file cannot be written.
    """
    leave_out_training(cfg)

    def plain(where: str) -> Any:
        # References lead to parts that are not written.
        return OmegaConf.to_container(OmegaConf.select(cfg, where), resolve=True)

    image_aug: Any = plain(IMAGE_AUG)
    for key in reversed(IMAGE_AUG.split(".")):
        image_aug = {key: image_aug}
    # Nothing is trained with it, but a configuration has these sections.
    training: dict[str, Any] = {name: {} for name in ("optimizer", "schedule", "train")}
    parts = {"model": plain("model"), "dataset_spec": plain("dataset_spec"), **image_aug}
    kept = OmegaConf.create(parts | training, flags={"allow_objects": True})
    with replacing(path) as temporary:
        temporary.write_text(f"# What inference needs of a recipe.\n{config_text(kept)}", "utf-8")
    read_yaml(str(path))  # as it will be read


def image_aug_of(cfg: DictConfig) -> ImageAugmentation:
    """How pictures reach the input size, which is the same in evaluation.

    Raises:
        InputError: the configuration does not say it.
    """
    made = call(_described(cfg, IMAGE_AUG, "an ImageAugmentation"))
    if not isinstance(made, ImageAugmentation):
        raise InputError(f"{IMAGE_AUG} must be an ImageAugmentation, not a {type(made).__name__}")
    return made


def spec_of(cfg: DictConfig) -> DatasetSpec:
    """Classes and cameras; InputError where the configuration does not say them."""
    made = call(_described(cfg, "dataset_spec", "a DatasetSpec"))
    if not isinstance(made, DatasetSpec):
        raise InputError(f"dataset_spec must be a DatasetSpec, not a {type(made).__name__}")
    return made


def detector_of(cfg: DictConfig) -> StreamPETR:
    """The detector with start values, on the CPU; the caller's random numbers stay as they were.

    Raises:
        InputError: it cannot be built, or is none.
    """
    with torch.random.fork_rng(devices=[]):
        model = instantiate_model(cfg)
    if not isinstance(model, StreamPETR):
        raise InputError(
            f"model is a {type(model).__name__}, not a StreamPETR detector: give the configuration "
            "of one, such as configs/quickstart.py"
        )
    return model


def identity_of(cfg: DictConfig, parts: Mapping[str, Any]) -> str:
    """A checksum of all that decides about results.

    Args:
        cfg: a recipe, for its classes and pictures.
        parts: what else decides, by name: weights and how they are run.
    """
    both = {
        "dataset_spec": OmegaConf.to_container(cfg.dataset_spec, resolve=True),
        "image_aug": OmegaConf.to_container(OmegaConf.select(cfg, IMAGE_AUG), resolve=True),
    }
    text = json.dumps({**parts, **both}, sort_keys=True, default=_name_of)
    return hashlib.sha256(text.encode()).hexdigest()


def _name_of(value: Any) -> str:
    """A class or function by its name, as a config.yaml has it."""
    return _convert_target_to_string(value) if callable(value) else repr(value)


def _described(cfg: DictConfig, where: str, what: str) -> DictConfig:
    node = OmegaConf.select(cfg, where)
    if not isinstance(node, DictConfig) or "_target_" not in node:
        given = "it has none" if node is None else f"there it has {shown(node)}"
        raise InputError(
            f"the configuration must describe {what} as {where}, but {given}: take a whole recipe, "
            "such as configs/quickstart.py"
        )
    return node

"""What inference needs of a recipe: the detector without its training, classes, pictures."""

from __future__ import annotations

import torch
from omegaconf import DictConfig, OmegaConf

from streampetr_vit.configuration.described import call, instantiate_model
from streampetr_vit.data.transforms import ImageAugmentation
from streampetr_vit.errors import InputError
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


def _described(cfg: DictConfig, where: str, what: str) -> DictConfig:
    node = OmegaConf.select(cfg, where)
    if not isinstance(node, DictConfig) or "_target_" not in node:
        given = "it has none" if node is None else f"there it has {shown(node)}"
        raise InputError(
            f"the configuration must describe {what} as {where}, but {given}: take a whole recipe, "
            "such as configs/quickstart.py"
        )
    return node

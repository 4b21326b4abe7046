"""How recipes say that a head shall learn how good its boxes are, and older files that do not."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from detectron2.config import LazyConfig
from omegaconf import DictConfig, OmegaConf
from torch import nn

from streampetr_vit.engine import instantiate_model, load_config
from streampetr_vit.errors import ConfigError, InputError
from streampetr_vit.modeling.criterion.quality_loss import QualityLoss

CONFIGS = Path(__file__).resolve().parents[2] / "configs"
RECIPES = sorted(CONFIGS.glob("*.py"))
NEW = (
    ("model.head", "with_quality"),
    ("model.head", "remember_by_quality"),
    ("model.criterion.detection", "quality"),
    ("model.criterion.detection", "soft_class_target"),
)
CLASSES = (
    "dataset_spec.classes=[{name:fence,categories:[a],scored_as:barrier},{name:car,categories:[b]},"
    "{name:barrier,categories:[c],scored_as:truck},{name:rail,categories:[d],scored_as:barrier}]"
)


def built(cfg: DictConfig) -> nn.Module:
    with torch.device("meta"):
        return instantiate_model(cfg)


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_every_recipe_has_both_options_and_they_are_off(path: Path) -> None:
    off = built(load_config(str(path)))
    assert off.head.quality_branch is None and not off.head.remember_by_quality
    assert not off.criterion.detection.soft_class_target
    remembers = off.head.num_remembered > 0  # PETR has no memory
    words = ["model.head.with_quality=True", f"model.head.remember_by_quality={remembers}"]
    on = built(load_config(str(path), [*words, "model.criterion.detection.soft_class_target=True"]))
    more = on.state_dict().keys() - off.state_dict().keys()
    assert len(more) == 10 and all(name.startswith("head.quality_branch.") for name in more)
    assert on.head.remember_by_quality == remembers and on.criterion.detection.soft_class_target


def test_symmetric_classes_are_found_by_what_the_metric_takes_them_for() -> None:
    recipe = str(CONFIGS / "quickstart.py")
    labels = built(load_config(recipe)).criterion.detection.quality.symmetric_labels
    assert labels == (5,)
    labels = built(load_config(recipe, [CLASSES])).criterion.detection.quality.symmetric_labels
    assert labels == (0, 3)
    given = load_config(recipe, ["model.criterion.detection.quality.symmetric_labels=[]"])
    assert built(given).criterion.detection.quality.symmetric_labels == ()


@pytest.mark.parametrize("value", ["[-1]", "[1.5]", "[barrier]", "3"])
def test_symmetric_labels_are_labels(value: str) -> None:
    where = "model.criterion.detection.quality.symmetric_labels"
    with pytest.raises(ConfigError, match=where):
        load_config(str(CONFIGS / "quickstart.py"), [f"{where}={value}"])


def test_a_class_that_is_no_class_is_told_as_such() -> None:
    with pytest.raises(InputError, match="a class of dataset_spec.classes has categories"):
        load_config(str(CONFIGS / "quickstart.py"), ["dataset_spec.classes=[{categories:[a]}]"])


def test_a_memory_by_quality_alone_is_refused() -> None:
    cfg = load_config(str(CONFIGS / "quickstart.py"), ["model.head.remember_by_quality=True"])
    with pytest.raises(ValueError, match="the head has no quality: set remember_by_quality=False"):
        built(cfg)


@pytest.mark.parametrize("recipe", ["quickstart", "quickstart_repdetr3d"])
def test_the_config_of_a_run_is_read_again(recipe: str, tmp_path: Path) -> None:
    path = str(tmp_path / "config.yaml")
    cfg = load_config(str(CONFIGS / f"{recipe}.py"), ["model.head.with_quality=True"])
    LazyConfig.save(cfg, path)
    again = built(load_config(path))
    assert again.head.quality_branch is not None
    assert again.criterion.detection.quality == QualityLoss(symmetric_labels=(5,))
    fewer = built(load_config(path, [CLASSES]))
    assert fewer.criterion.detection.quality.symmetric_labels == (0, 3)


@pytest.mark.parametrize("recipe", ["quickstart", "quickstart_repdetr3d"])
def test_the_config_of_an_older_run_has_neither_and_may_be_given_both(
    recipe: str, tmp_path: Path
) -> None:
    cfg = load_config(str(CONFIGS / f"{recipe}.py"))
    for place, key in NEW:
        del OmegaConf.select(cfg, place)[key]
    path = str(tmp_path / "config.yaml")
    LazyConfig.save(cfg, path)
    older = built(load_config(path))
    assert older.head.quality_branch is None
    assert not older.criterion.detection.soft_class_target
    words = ["model.head.with_quality=True", "model.criterion.detection.soft_class_target=True"]
    newer = built(load_config(path, words))
    assert newer.head.quality_branch is not None
    assert newer.criterion.detection.soft_class_target

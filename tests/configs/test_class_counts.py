"""The classes of `dataset_spec` decide the class channels of every recipe's heads."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from omegaconf import DictConfig

from streampetr_vit.data.nuscenes.spec import NUSCENES
from streampetr_vit.engine import instantiate_model, load_config
from streampetr_vit.errors import InputError

CONFIGS = Path(__file__).resolve().parents[2] / "configs"
RECIPES = sorted(CONFIGS.glob("*.py"))
THREE_CLASSES = (
    "dataset_spec.classes=[{name:car,categories:[vehicle.car]},"
    "{name:truck,categories:[vehicle.truck]},{name:cone,categories:[movable_object.trafficcone]}]"
)


def build(cfg: DictConfig) -> torch.nn.Module:
    with torch.device("meta"):
        return instantiate_model(cfg)


def shapes(model: torch.nn.Module) -> dict[str, tuple[int, ...]]:
    return {name: tuple(value.shape) for name, value in model.state_dict().items()}


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_classes_on_the_command_line_change_the_channels_of_all_heads(path: Path) -> None:
    ten, three = (build(load_config(str(path), words)) for words in ([], [THREE_CLASSES]))
    before, after = shapes(ten), shapes(three)
    assert before.keys() == after.keys()
    changed = [name for name in before if before[name] != after[name]]
    assert all(before[name] == (10, *after[name][1:]) for name in changed)
    assert all(after[name][0] == 3 for name in changed)
    heads = {"head"} if three.image_head is None else {"head", "image_head"}
    assert {name.split(".")[0] for name in changed} == heads
    assert all(getattr(three, head).num_classes == 3 for head in heads)


# The quick starts have both kinds of 3D head and of 2D head.
@pytest.mark.parametrize("recipe", ["quickstart", "quickstart_repdetr3d"])
@pytest.mark.parametrize("part", ["head", "image_head"])
def test_a_head_with_another_number_of_classes_is_an_error(recipe: str, part: str) -> None:
    cfg = load_config(str(CONFIGS / f"{recipe}.py"))
    others = cfg.model.image_head if part == "head" else cfg.model.head
    others.num_classes = 10
    for channels in (9, 11):
        cfg.model[part].num_classes = channels
        message = (
            rf"model.{part}.num_classes is {channels}, but dataset_spec.classes has 10 \(car, .*"
            rf"set model.{part}.num_classes=10, or name {channels} classes in dataset_spec.classes"
        )
        with pytest.raises(InputError, match=message):
            build(cfg)
    cfg.model[part].num_classes = 10
    assert getattr(build(cfg), part).num_classes == 10


OLDER_RECIPE = """
from .models.repdetr3d_vit_tiny import model
from .quickstart import dataloader, optimizer, schedule, train

model.head.num_classes = {classes}
for part in (dataloader.train, dataloader.test, *dataloader.evaluator):
    del part["spec"]
"""


@pytest.mark.parametrize("classes", [10, 3])
def test_a_recipe_without_dataset_spec_is_one_of_nuscenes(tmp_path: Path, classes: int) -> None:
    """Recipes of users from before there was a dataset_spec import the parts of configs/."""
    for folder in ("common", "models"):
        (tmp_path / folder).symlink_to(CONFIGS / folder)
    (tmp_path / "quickstart.py").symlink_to(CONFIGS / "quickstart.py")
    recipe = tmp_path / "mine.py"
    recipe.write_text(OLDER_RECIPE.format(classes=classes))
    cfg = load_config(str(recipe))
    assert [entry.name for entry in cfg.dataset_spec.classes] == list(NUSCENES.class_names)
    assert list(cfg.dataset_spec.cameras) == list(NUSCENES.cameras)
    if classes == 10:
        ours = load_config(str(CONFIGS / "quickstart_repdetr3d.py"))
        assert shapes(build(cfg)) == shapes(build(ours))
    else:
        with pytest.raises(InputError, match="num_classes is 3, but dataset_spec.classes has 10"):
            build(cfg)

"""Recipes and saved configurations of earlier versions."""

from __future__ import annotations

import importlib
import re
from pathlib import Path

import pytest
import torch
from detectron2.config import LazyConfig, instantiate

from streampetr_vit.configuration.moved import _CLASSES, _MODULES, new_name
from streampetr_vit.engine import load_config
from streampetr_vit.engine.config import ConfigError
from streampetr_vit.inference.bare_model import BareStreamPETR

ROOT = Path(__file__).resolve().parents[2]
RECIPE = ROOT / "configs" / "repdetr3d_eva02_l_800x320_24ep.py"


def test_every_old_name_is_gone_and_leads_to_a_module_that_exists() -> None:
    for old, new in _MODULES.items():
        assert importlib.util.find_spec(f"streampetr_vit.{old}") is None, old
        importlib.import_module(f"streampetr_vit.{new}")
    for new in _CLASSES.values():
        module, _, name = new.rpartition(".")
        assert hasattr(importlib.import_module(f"streampetr_vit.{module}"), name)


def test_names_that_were_not_moved_stay() -> None:
    assert new_name("torch.optim.AdamW") is None
    assert new_name("streampetr_vit.modeling.backbone.ViT") is None
    moved = new_name("streampetr_vit.modeling.temporal.transformer.SamplingDecoder")
    assert moved == "streampetr_vit.modeling.decoder.decoder.SamplingDecoder"


def test_a_config_yaml_with_the_old_names_builds_the_same_model(tmp_path: Path) -> None:
    path, cfg = tmp_path / "config.yaml", load_config(str(RECIPE))
    # Earlier versions knew ten classes and six cameras only, and no quality of boxes.
    cfg.model.head.num_classes = 10
    del cfg.model.criterion.detection["quality"]
    for part in ("train", "test", "evaluator"):
        del cfg.dataloader[part]["spec"]
    del cfg["dataset_spec"]
    LazyConfig.save(cfg, str(path))
    text = path.read_text()
    for old, new in (*_CLASSES.items(), *_MODULES.items()):
        text = re.sub(rf"(?<=streampetr_vit\.){re.escape(new)}\b", old, text)
    path.write_text(text)
    assert "modeling.temporal.transformer" in text and "modeling.detector.StreamPETR" in text
    with torch.device("meta"):
        model = instantiate(load_config(str(path)).model)
        expected = instantiate(load_config(str(RECIPE)).model)
    assert isinstance(model, BareStreamPETR)
    assert list(model.state_dict()) == list(expected.state_dict())


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("modeling.grid_mask import GridMask", "is now streampetr_vit.modeling.image.grid_mask"),
        ("evaluation.svg_charts import Chart", "is now streampetr_vit.report.charts"),
        ("modeling.queries import DenoisingQueries", "heads.denoising_queries DenoisingQueries"),
        ("engine.streaming import StreamingStep", "inference.Stream stands for StreamingStep"),
        ("data.synthetic import PRESETS", "the package synthetic_nuscenes has"),
        ("structures import CLASS_NAMES", "nuscenes.spec.NUSCENES.class_names"),
        (
            "data.build import open_dataset, x",
            "open_dataset is in .*catalog|cannot import name 'x'",
        ),
    ],
)
def test_a_recipe_that_imports_an_old_name_is_told_the_new_one(
    old: str, new: str, tmp_path: Path
) -> None:
    recipe = tmp_path / "mine.py"
    recipe.write_text(f"from streampetr_vit.{old}\n")
    with pytest.raises(ConfigError, match=new):
        load_config(str(recipe))


def test_an_import_that_never_worked_keeps_its_own_error(tmp_path: Path) -> None:
    recipe = tmp_path / "mine.py"
    recipe.write_text("from streampetr_vit.structures import Nothing\n")
    message = "mine.py, line 1: ImportError: cannot import name 'Nothing'"
    with pytest.raises(ConfigError, match=message):
        load_config(str(recipe))


def test_what_the_documents_of_earlier_versions_import_is_still_there() -> None:
    from streampetr_vit.data.nuscenes import load_split, register_nuscenes

    assert callable(load_split) and callable(register_nuscenes)


def test_a_recipe_that_names_the_detector_gets_the_class_for_detectron2s_loops(
    tmp_path: Path,
) -> None:
    recipe = tmp_path / "mine.py"
    recipe.write_text(
        "from detectron2.config import LazyConfig\n"
        "from streampetr_vit.modeling.detector import StreamPETR\n"
        f"recipe = LazyConfig.load_rel({str(RECIPE)!r})\n"
        "model, optimizer, schedule = recipe.model, recipe.optimizer, recipe.schedule\n"
        "train, dataloader = recipe.train, recipe.dataloader\n"
        "model._target_ = StreamPETR\n"
    )
    with torch.device("meta"):
        assert isinstance(instantiate(load_config(str(recipe)).model), BareStreamPETR)


def test_an_override_of_the_spec_reaches_the_loaders_of_an_older_config(tmp_path: Path) -> None:
    cfg = load_config(str(RECIPE))
    cfg.model.head.num_classes = 10
    del cfg.model.criterion.detection["quality"]
    for part in ("train", "test", "evaluator"):
        del cfg.dataloader[part]["spec"]
    del cfg["dataset_spec"]
    LazyConfig.save(cfg, str(tmp_path / "config.yaml"))
    older = load_config(str(tmp_path / "config.yaml"), ["dataset_spec.cameras=[front]"])
    for part in ("train", "test", "evaluator"):
        assert list(older.dataloader[part].spec.cameras) == ["front"]


def test_a_key_that_moved_is_told_by_its_new_name() -> None:
    with pytest.raises(ConfigError, match="set dataset_spec.classes instead"):
        load_config(str(RECIPE), ["dataloader.train.mapper.class_names=[car]"])


def test_arguments_of_base_classes_can_be_set() -> None:
    cfg = load_config(str(RECIPE), ["model.head.score_threshold=0.1", "model.memory_at_test=False"])
    assert cfg.model.head.score_threshold == 0.1

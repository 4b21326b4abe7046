"""Every setting of the recipes takes wrong types and values with a line that names it."""

from __future__ import annotations

import copy
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from omegaconf import DictConfig, ListConfig
from torch import nn

from streampetr_vit.engine import instantiate_model, load_config, settings
from streampetr_vit.engine.config import ConfigError, call
from streampetr_vit.engine.evaluators import build_evaluators, evaluator_parts
from streampetr_vit.engine.overrides import apply_overrides
from streampetr_vit.engine.recipe import build_optimizer
from streampetr_vit.engine.settings import check_settings
from streampetr_vit.errors import InputError, UserError

ROOT = Path(__file__).resolve().parents[2]
CONFIGS = ROOT / "configs"
WRONG = ("abc", "''", "-1", "0", "1.5", "nan", "inf", "null", "true", "[1,x]", "{a:1}", "160,400")
FEW = ("abc", "-1", "null", "[1,x]", "{a:1}")


def fields(node: object, path: str) -> Iterator[str]:
    """Paths of all settings below a node: values, lists, and the sections themselves."""
    if path:
        yield path
    if isinstance(node, DictConfig) and not node._is_none():
        for key in node:
            if key != "_target_":
                yield from fields(node._get_node(key), f"{path}.{key}".lstrip("."))
    elif isinstance(node, ListConfig) and not node._is_none():
        for index in range(len(node)):
            entry = node._get_node(index)
            if isinstance(entry, DictConfig) and "_target_" in entry:  # a list of parts
                yield from list(fields(entry, f"{path}.{index}"))[1:]


def build(cfg: DictConfig, section: str) -> None:
    """Makes what a run makes of a section before its first step."""
    if section in ("model", "dataset_spec"):
        with torch.device("meta"):
            instantiate_model(cfg)
    elif section == "optimizer":
        blocks = nn.ModuleList(nn.Linear(1, 1) for _ in range(24))  # layer decay counts them
        net = nn.ModuleDict({"net": nn.ModuleDict({"blocks": blocks})})
        model = nn.ModuleDict({"backbone": net, "head": nn.Linear(2, 2)})
        build_optimizer(cfg.optimizer, model)
    elif section == "dataloader":
        for part in ("train", "test"):
            if cfg.dataloader.get(part) is not None:
                call(cfg.dataloader[part], rank=0, world_size=1)
        build_evaluators(evaluator_parts(cfg))


def complaints(
    cfg: DictConfig, section: str, values: tuple[str, ...], but: set[str] | None = None
) -> list[str]:
    """What is wrong with the answers to wrong values in a section, but for some fields."""
    kept, found = copy.deepcopy(cfg[section]), []
    for path in [path for path in fields(cfg[section], section) if path not in (but or ())]:
        for value in values:
            try:
                apply_overrides(cfg, [f"{path}={value}"])
                check_settings(cfg)
                build(cfg, section)
            except UserError as error:
                text = str(error)
                names = ("data set",) if ".dataset" in path else ()
                named = any(name in text for name in (path.rpartition(".")[2], *names))
                if len(text.splitlines()) != 1 or not named:
                    found.append(f"{path}={value}: {text}")
            except Exception as error:
                found.append(f"{path}={value}: {type(error).__name__}: {error}")
            cfg[section] = copy.deepcopy(kept)
    return found


@pytest.fixture(scope="module")
def quickstart(tiny_nuscenes: Path) -> DictConfig:
    dataset = f"{{root:{tiny_nuscenes},version:v1.0-mini,split:mini_%s}}"
    overrides = [
        f"dataloader.{part}.dataset={dataset % split}"
        for part, split in (("train", "train"), ("test", "val"))
    ]
    return load_config(str(CONFIGS / "quickstart.py"), overrides)


SECTIONS = ("dataset_spec", "optimizer", "dataloader", "schedule", "train", "report", "synthetic")


@pytest.mark.parametrize("section", SECTIONS)
def test_every_setting_of_the_quick_start_takes_every_wrong_value(
    quickstart: DictConfig, section: str
) -> None:
    assert complaints(quickstart, section, WRONG) == []


def test_every_setting_of_the_quick_starts_model_takes_wrong_values() -> None:
    assert complaints(load_config(str(CONFIGS / "quickstart.py")), "model", FEW) == []


@pytest.mark.parametrize(
    ("recipe", "section"),
    [
        ("quickstart_repdetr3d", "model"),
        ("streampetr_eva02_l_800x320_24ep", "dataloader"),
        ("streampetr_eva02_l_800x320_24ep_layer_decay", "optimizer"),
        ("streampetr_eva02_l_800x320_window8_24ep", "dataloader"),
        ("streampetr_eva02_l_800x320_cpfpn_24ep", "model"),
    ],
)
def test_what_other_recipes_have_beside_it_takes_wrong_values(recipe: str, section: str) -> None:
    common = set(fields(load_config(str(CONFIGS / "quickstart.py"))[section], section))
    common |= {path.replace(".evaluator.0.", ".evaluator.") for path in common}
    cfg = load_config(str(CONFIGS / f"{recipe}.py"))
    assert set(fields(cfg[section], section)) - common
    assert complaints(cfg, section, FEW, but=common) == []


def refused(overrides: list[str], recipe: str = "quickstart") -> str:
    with pytest.raises(UserError) as error:
        load_config(str(CONFIGS / f"{recipe}.py"), overrides)
    return str(error.value)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        (
            "train.clip_grad_norm=0",
            "train.clip_grad_norm=0 is not allowed: it must be a number "
            "above 0, or null for no clipping",
        ),
        ("train.clip_grad_norm=-1", "or null for no clipping"),
        ("train.seed=null", "train.seed=null is not allowed: it must be a whole number from 0 to"),
        ("train.seed=-1", "train.seed=-1 is not allowed"),
        (
            "optimizer.lr=abc",
            "optimizer.lr='abc' is not allowed: it must be a number that is 0",
        ),
        (f"optimizer.lr=-1{'0' * 400}", "optimizer.lr=-1000.* is not allowed: it must be a number"),
        ("train.log_period=True", "train.log_period=True is not allowed"),
        ("train.max_seconds=inf", "train.max_seconds=inf is not allowed"),
        ("model.pixel_mean=[1,2]", "model.pixel_mean=.1, 2. is not allowed"),
        ("train.seed=4294967296", "train.seed=4294967296 is not allowed.* to 4294967295"),
        ("train.precision=bf15", "it must be one of 'float32', 'bf16', 'fp16'"),
        ("train.device=gpu", 'it must be "auto", "cpu", "cuda" or "cuda:N"'),
        (
            "train.max_iter=nan",
            "train.max_iter=nan is not allowed: it must be a whole number from 1",
        ),
        ("model.head=null", "model.head=null is not allowed: it must be a dict with _target_"),
        ("model.head.decoder=5", "model.head.decoder=5 is not allowed: it must be a dict with"),
        ("optimizer._target_=torch.optim.SGD", "optimizer has betas, which SGD does not take; it"),
        ("optimizer._target_=torch.optim.Nothing", "optimizer._target_=torch.optim.Nothing cannot"),
        ("optimizer._target_=math.pi", "optimizer._target_=3.14"),
        ("model.backbone.net.xattn=xformers", "needs the package xformers.*pip install xformers"),
        ("dataset_spec.cameras=[CAM_FRONT,CAM_FRONT]", "dataset_spec.cameras.*more than once"),
        (
            "dataloader.train.mapper.image_aug.final_size=160,400",
            r"a list needs brackets, "
            r"dataloader.train.mapper.image_aug.final_size=\[160,400\]",
        ),
        (
            "dataloader.train.mapper.image_aug.resize_range=[2,1]",
            "image_aug: resize_range must",
        ),
        ("model.head.center_range=[0,0,1,1,1,1]", "six numbers in brackets, x, y, z of the lowest"),
        ("model.head.center_range=[1,1,1,0,0,0]", "six numbers in brackets, x, y, z of the lowest"),
        ("train.output_dir=${train.nothing}", "train.output_dir cannot be read: .*train.nothing"),
        ("train.output_dir=''", "train.output_dir='' is not allowed: it must be the name of a"),
    ],
)
def test_messages_say_what_to_type(override: str, message: str) -> None:
    assert re.search(message, refused([override]))


def test_what_a_recipe_sets_is_checked_too(tmp_path: Path) -> None:
    recipe = tmp_path / "mine.py"
    recipe.write_text(
        "from detectron2.config import LazyConfig\n"
        f"recipe = LazyConfig.load_rel({str(CONFIGS / 'quickstart.py')!r})\n"
        "model, optimizer, schedule = recipe.model, recipe.optimizer, recipe.schedule\n"
        "train, dataloader = recipe.train, recipe.dataloader\n"
        "train.log_period = 0\n"
    )
    with pytest.raises(ConfigError, match="train.log_period=0 .* a whole number, 1 or more"):
        load_config(str(recipe))
    recipe.write_text(recipe.read_text().replace("train.log_period = 0", "del train['seed']"))
    with pytest.raises(ConfigError, match="has no train.seed: set it; it must be a whole number"):
        load_config(str(recipe))
    recipe.write_text(recipe.read_text() + "train.lr = undefined\n")
    with pytest.raises(ConfigError, match="mine.py, line 6: NameError: name 'undefined'"):
        load_config(str(recipe))
    recipe.write_text("train = dict(\n")
    with pytest.raises(ConfigError, match=r"mine.py has syntax error!.*never closed.*line 1"):
        load_config(str(recipe))
    recipe.write_text("import no_such_package.part\n")
    with pytest.raises(ConfigError, match="line 1: import .* pip install no-such-package"):
        load_config(str(recipe))


def test_a_misspelt_setting_of_a_recipe_is_not_ignored() -> None:
    cfg = load_config(str(CONFIGS / "quickstart.py"))
    cfg.train.my_own_setting = 5
    check_settings(cfg)
    cfg.train.max_itr = 5
    with pytest.raises(ConfigError, match="train.max_itr is read by nothing.*mean train.max_iter"):
        check_settings(cfg)
    del cfg.train["max_itr"]
    # Arguments of detectron2's own checkpointer, and those that the program itself gives.
    for section, key in (
        ("checkpointer", "every"),
        ("checkpointer", "max_iter"),
        ("checkpointer", "checkpointer"),
        ("ddp", "module"),
        ("compile", "model"),
    ):
        cfg.train[section][key] = 5
        with pytest.raises(
            ConfigError, match=f"train.{section} has {key}, which .* not take.*Take it out"
        ):
            check_settings(cfg)
        del cfg.train[section][key]


def test_a_fault_in_a_library_that_a_recipe_calls_keeps_its_traceback(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a_library.py").write_text("def parts():\n    return 1 / 0\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    recipe = tmp_path / "mine.py"
    recipe.write_text("import a_library\ntrain = a_library.parts()\n")
    with pytest.raises(ZeroDivisionError):
        load_config(str(recipe))


def test_what_a_constructor_raises_names_the_innermost_part() -> None:
    cfg = load_config(str(CONFIGS / "quickstart.py"), ["model.backbone.net.num_heads=7"])
    with pytest.raises(InputError, match="model.backbone.net cannot be built: num_heads=7 must"):
        instantiate_model(cfg)
    cfg = load_config(str(CONFIGS / "quickstart.py"), ["model.in_feature=p4"])
    with pytest.raises(InputError, match="model.in_feature names p4, but SingleScale gives last_"):
        instantiate_model(cfg)
    cfg = load_config(str(CONFIGS / "quickstart_repdetr3d.py"), ["model.size_divisibility=8"])
    with pytest.raises(InputError, match="model.size_divisibility=8, but SimpleFeaturePyramid.*16"):
        instantiate_model(cfg)
    broken = DictConfig({"part": {"_target_": "builtins.dict.fromkeys", "iterable": 3}})
    with pytest.raises(InputError, match="part cannot be built: "):
        call(broken.part)


def test_settings_of_a_configuration_that_was_changed_in_python_are_checked() -> None:
    cfg = load_config(str(CONFIGS / "quickstart.py"))
    cfg.train.eval_period = -5
    with pytest.raises(ConfigError, match="train.eval_period=-5 is not allowed"):
        check_settings(cfg)


def test_as_many_boxes_as_the_metric_takes_are_allowed() -> None:
    cfg = load_config(str(CONFIGS / "quickstart.py"), ["model.head.max_detections=500"])
    check_settings(cfg)


def test_ranges_hold_for_the_arguments_of_this_package_alone() -> None:
    part = {"_target_": "torch.nn.MaxPool2d", "kernel_size": 2, "stride": 0}
    settings._check_part("part", DictConfig(part))
    part = {"_target_": "streampetr_vit.modeling.ops.geometry.token_centers", "stride": 0}
    with pytest.raises(ConfigError, match="part.stride=0 is not allowed"):
        settings._check_part("part", DictConfig(part))


def test_home_is_written_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    words = ["train.output_dir=~/out", "train.init_checkpoint='~/in put.pth'"]
    words += ["dataloader.test.dataset={root:~/data,version:v1.0-mini}"]
    cfg = load_config(str(CONFIGS / "quickstart.py"), words)
    assert cfg.train.output_dir == "/home/me/out"
    assert cfg.dataloader.evaluator[0].output_dir == "/home/me/out/inference"
    assert cfg.train.init_checkpoint == "/home/me/in put.pth"
    assert cfg.dataloader.test.dataset.root == "~/data"  # the catalog writes it out


@pytest.mark.parametrize("key", ["train.max_iter", "train.num_threads", "train.seed"])
def test_a_number_that_is_far_too_big_is_refused(key: str) -> None:
    assert "a whole number from" in refused([f"{key}=100000000000000000000"])


def test_more_processes_than_a_machine_bears_are_refused() -> None:
    assert "a whole number from 0 to 256" in refused(["dataloader.train.num_workers=100000"])

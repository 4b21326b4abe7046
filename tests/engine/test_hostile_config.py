"""A config.yaml from a stranger executes nothing. Each attack would leave a file if it ran."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml
from detectron2.config import LazyConfig
from omegaconf import DictConfig

from streampetr_vit.configuration import targets
from streampetr_vit.configuration.targets import check_targets
from streampetr_vit.engine import instantiate_model, load_config
from streampetr_vit.engine.config import ConfigError, call

ROOT = Path(__file__).resolve().parents[2]
RECIPES = sorted((ROOT / "configs").glob("*.py"))
QUICKSTART = ROOT / "configs" / "quickstart.py"


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The config.yaml of a run of the quick start."""
    path = tmp_path_factory.mktemp("run") / "config.yaml"
    LazyConfig.save(load_config(str(QUICKSTART)), str(path))
    return path.read_text()


def refuse(path: Path, message: str, marker: Path, trusted: tuple[str, ...] = ()) -> None:
    """Loads, builds and calls all that a run would; an error of one line must come first."""
    with pytest.raises(ConfigError, match=message) as error:
        cfg = load_config(str(path), (), trusted)
        call(cfg.optimizer, params=[])
        instantiate_model(cfg)
        call(cfg.dataloader.train)
    assert not marker.exists()
    assert len(str(error.value).splitlines()) == 1 and str(path) in str(error.value)


@pytest.mark.parametrize(
    ("tagged", "tag"),
    [
        ("!!python/object/apply:os.system ['touch {}']", "!!python/object/apply:os.system"),
        ("!!python/object/new:os.system ['touch {}']", "!!python/object/new:os.system"),
        (
            "!!python/object/apply:pathlib.Path.touch [!!python/object/apply:pathlib.Path ['{}']]",
            "",
        ),
        ("!!python/name:os.system", "!!python/name:os.system"),
        ("!!python/module:os", "!!python/module:os"),
        ("!!python/object:collections.OrderedDict {{}}", "!!python/object:collections.OrderedDict"),
        ("!mine x", "!mine"),
    ],
)
def test_tags_that_make_objects_are_refused_with_their_line(
    saved: str, tmp_path: Path, tagged: str, tag: str
) -> None:
    marker, path = tmp_path / "ran", tmp_path / "config.yaml"
    path.write_text(f"{saved}\nextra: {tagged.format(marker)}\n")
    line = len(path.read_text().splitlines())
    refuse(path, rf"config\.yaml, line {line}: the tag {re.escape(tag)}", marker)


# A target that is called with `command`, and what the error says of it.
TARGETS = {
    "os.system": "is not of a package that is allowed",
    "posix.system": "is not of a package that is allowed",
    "builtins.exec": "is not of a package that is allowed",
    "subprocess.call": "is not of a package that is allowed",
    "functools.partial": "is not of a package that is allowed",
    "torch.load": "is not of a package that is allowed",
    "torch.hub.load": "is not of a package that is allowed",
    "torch.utils.cpp_extension.load_inline": "is not of a package that is allowed",
    "torch.nn.functional.torch.os.system": "does not exist there",
    "torch.nn.modules.module.torch.load": "does not exist there",
    "torch.nn.functional.relu": "stands for torch.nn.functional.relu, which is not allowed",
    "torch.optim.optimizer.functools.partial": "does not exist there",
    "torch.optim.swa_utils.deepcopy": "stands for copy.deepcopy, which is not allowed",
    "streampetr_vit.data.build.os.system": "does not exist there",
    "streampetr_vit.data.build.functools.partial": "does not exist there",
    "streampetr_vit.data.build.DataLoader": "stands for torch.utils.data.dataloader.DataLoader",
    "streampetr_vit.data.build.functools": "is a module, neither a class nor a function",
    "streampetr_vit.data.nuscenes.catalog.load_split": "which is not allowed",
    "streampetr_vit.evaluation.result_format.write_results": "which is not allowed",
    "streampetr_vit.engine.distributed.dist.init_process_group": "does not exist there",
    "streampetr_vit.engine.distributed.training_module": "which is not allowed",
    "streampetr_vit.engine.train_loop.train": "is not of a package that is allowed",
    "streampetr_vit.checkpoint.files.write_checkpoint": "is not of a package that is allowed",
    "streampetr_vit.files.replacing": "is not of a package that is allowed",
    "streampetr_vit.modeling.detector.StreamPETR.apply": "which is not allowed",
    "detectron2.modeling.mmdet_wrapper.MMDetBackbone": "which is not allowed",
    "detectron2.utils.env.setup_custom_environment": "is not of a package that is allowed",
    "torch.nnapi.Part": "is not of a package that is allowed",
    "torch.nn": "does not exist there",
    "torch.nn.Nothing": "does not exist there",
    "torch.optim.": "is no name of the form",
    "__import__('os').system": "is no name of the form",
    "${attack}": "is no name of the form",
    "???": "is '???', no value",
}


def attack(target: object, marker: Path) -> dict[str, object]:
    return {"_target_": target, "command": f"touch {marker}"}


@pytest.mark.parametrize("target", TARGETS)
def test_targets_that_recipes_do_not_use_are_refused(tmp_path: Path, target: str) -> None:
    marker, path = tmp_path / "ran", tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump({"model": attack(target, marker), "attack": "os.system"}))
    refuse(path, re.escape(TARGETS[target]), marker)


@pytest.mark.parametrize("target", ["os.system", "streampetr_vit.data.build.os.system"])
@pytest.mark.parametrize("place", ["a part", "a list", "unused", "a target", "an alias"])
def test_targets_are_found_wherever_they_are(
    saved: str, tmp_path: Path, target: str, place: str
) -> None:
    marker, path = tmp_path / "ran", tmp_path / "config.yaml"
    data = yaml.safe_load(saved)
    part = attack(target, marker)
    if place == "a part":
        data["model"]["grid_mask"] = part
    elif place == "a list":
        data["model"]["pixel_mean"] = [0.0, [part], 0.0]
    elif place == "a target":
        data["optimizer"]["_target_"] = part
    elif place == "an alias":
        data["later"] = data["model"]["neck"] = part
    else:
        data["later"] = {"deeper": part}
    path.write_text(yaml.safe_dump(data))
    refuse(path, "_target_=", marker)


@pytest.mark.parametrize("target", [["os.system"], 7, None, True, {"name": "os.system"}])
def test_a_target_must_be_a_name(tmp_path: Path, target: object) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump({"model": attack(target, tmp_path / "ran")}))
    refuse(path, "is no name of the form package.module.Class", tmp_path / "ran")


@pytest.mark.parametrize(
    "text",
    [
        "${oc.env:HOME}",
        "${oc.env:HOME}/output",
        "${oc.create:{}}",
        "${oc.decode:'{}'}",
        "${oc.select:train.seed}",
        "${hydra:x}",
        "${${train.output_dir}:x}",
        "${count:${oc.env:HOME}}",
        "${labels:${oc.env:HOME},car}",
        "${labels:${dataset_spec.classes},${oc.env:HOME}}",
        "a${train.seed}b${oc.env:HOME}",
        "${train.seed}${oc.env:HOME}",
    ],
)
def test_resolvers_are_refused_by_name(tmp_path: Path, text: str) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump({"report": {"title": text}}))
    refuse(path, rf"report.title is {re.escape(repr(text))}; a YAML configuration", tmp_path / "x")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: [", "line 1: no YAML that can be read"),
        ("a: &x [*x]", "is no YAML that can be read|no configuration"),
        ("[" * 5000, "is no YAML that can be read|line 1"),
        ("a: " + "[" * 60 + "]" * 60, "more than 50 deep: that is no configuration"),
        ("- 1", "holds no configuration"),
        ("", "holds no configuration"),
        ("a: 2026-11-26", "a is a date; allowed are numbers"),
        ("1: 2", "has the key 1, no text"),
        ("a: \0", "is no YAML that can be read"),
        ("x0: &x0 [1, 1, 1, 1, 1, 1, 1, 1, 1, 1]\n", "has more than 100000 values"),
    ],
)
def test_files_that_are_no_configuration(tmp_path: Path, text: str, message: str) -> None:
    if text.startswith("x0"):  # ten lines that are 10^10 values
        text += "".join(f"x{i + 1}: &x{i + 1} [{', '.join([f'*x{i}'] * 10)}]\n" for i in range(9))
    path = tmp_path / "config.yaml"
    path.write_text(text)
    refuse(path, message, tmp_path / "x")
    path.write_bytes(b"a: \xff\xfe")
    refuse(path, "is no YAML that can be read", tmp_path / "x")


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: path.stem)
def test_every_recipe_s_own_yaml_is_allowed(recipe: Path, tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    LazyConfig.save(load_config(str(recipe)), str(path))
    assert load_config(str(path)).train == load_config(str(recipe)).train


def test_tuples_and_numbers_with_an_exponent_are_read(saved: str, tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    old = saved.replace("betas: [0.9, 0.999]", "betas: !!python/tuple [0.9, 0.999]")
    path.write_text(old.replace("lr: 0.0008", "lr: 8e-4"))
    assert path.read_text().count("python/tuple") == 1
    cfg = load_config(str(path))
    assert list(cfg.optimizer.betas) == [0.9, 0.999] and cfg.optimizer.lr == 8e-4


@pytest.mark.parametrize(
    "target",
    [
        "torch.nn.Linear",
        "torch.nn.modules.linear.Linear",
        "torch.optim.SGD",
        "detectron2.modeling.ResNet",
        "detectron2.modeling.ResNet.make_default_stages",
        "detectron2.modeling.backbone.fpn.FPN",
        "detectron2.layers.ShapeSpec",
        "streampetr_vit.structures.DatasetSpec",
        "streampetr_vit.engine.distributed.loss_reduction",
    ],
)
def test_what_other_recipes_use_is_allowed(target: str) -> None:
    check_targets(DictConfig({"part": {"_target_": target}}), "config.yaml")


def test_what_was_looked_at_is_what_will_be_called(monkeypatch: pytest.MonkeyPatch) -> None:
    cfg = DictConfig({"part": {"_target_": "torch.nn.Linear"}})
    monkeypatch.setattr(targets, "locate", lambda name: torch.nn.Conv2d)
    with pytest.raises(ConfigError, match="stands for two things"):
        check_targets(cfg, "config.yaml")


def test_a_package_can_be_trusted_and_then_what_it_defines(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "my_own_package.py").write_text(
        "import os\n\ndef make():\n    return os.getpid()\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    cfg = DictConfig({"part": {"_target_": "my_own_package.make"}})
    with pytest.raises(ConfigError, match="not of a package that is allowed.*--trust PACKAGE"):
        check_targets(cfg, "config.yaml")
    assert "my_own_package" not in sys.modules  # not even imported
    check_targets(cfg, "config.yaml", ["my_own_package"])
    for walk in ("my_own_package.os.system", "my_own_package.os"):
        with pytest.raises(ConfigError, match=re.escape(walk)):
            check_targets(
                DictConfig({"part": {"_target_": walk}}), "config.yaml", ["my_own_package"]
            )


def test_a_package_that_is_not_installed_is_named() -> None:
    if importlib.util.find_spec("timm"):
        pytest.skip("timm is installed")
    with pytest.raises(ConfigError, match="needs the package timm.*pip install timm"):
        check_targets(
            DictConfig({"part": {"_target_": "timm.models.VisionTransformer"}}), "config.yaml"
        )


def test_overrides_are_typed_by_the_user(saved: str, tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(saved)
    cfg = load_config(str(path), ["model.grid_mask={_target_:torch.nn.Identity}"])
    with torch.device("meta"):
        assert isinstance(instantiate_model(cfg).grid_mask, torch.nn.Identity)


def test_a_tool_ends_with_one_line_and_runs_nothing(saved: str, tmp_path: Path) -> None:
    marker, path = tmp_path / "ran", tmp_path / "config.yaml"
    path.write_text(f"{saved}\nextra: !!python/object/apply:os.system ['touch {marker}']\n")
    command = [sys.executable, "tools/lazyconfig_train_net.py", "--config-file", str(path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 1 and not marker.exists()
    assert len(done.stderr.splitlines()) == 1 and "the tag !!python/object/apply" in done.stderr

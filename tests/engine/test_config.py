"""Configuration errors that detectron2 lets pass."""

from __future__ import annotations

from pathlib import Path

import pytest
from detectron2.config import LazyCall as L
from omegaconf import DictConfig
from toy_task import ToyDetector

from streampetr_vit.engine.config import ConfigError, call, check_override, load_config
from streampetr_vit.engine.overrides import apply_overrides

CONFIG = str(Path(__file__).with_name("toy_config.py"))
CONFIGS = Path(__file__).resolve().parents[2] / "configs"


def test_overrides_are_applied() -> None:
    cfg = load_config(
        CONFIG, ["optimizer.lr=1e-3", "train.max_seconds=60", "dataloader.train.bad=[1,2]"]
    )
    assert cfg.optimizer.lr == 1e-3
    assert cfg.optimizer.params.lr == 1e-3  # by interpolation
    assert cfg.train.max_seconds == 60
    assert list(cfg.dataloader.train.bad) == [1, 2]


def test_a_reference_that_leads_nowhere_can_be_replaced_by_a_value() -> None:
    cfg = DictConfig({"train": {"output_dir": "${nothing.there}"}})
    apply_overrides(cfg, ["train.output_dir=here"])
    assert cfg.train.output_dir == "here"
    cfg.train = "${nothing.there}"
    with pytest.raises(ConfigError, match="override 'train.output_dir=here': .*nothing.there"):
        apply_overrides(cfg, ["train.output_dir=here"])


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("train.max_itr=5", r"train has no key 'max_itr'; did you mean train.max_iter"),
        ("optimiser.lr=1", r"the configuration has no key 'optimiser'; did you mean optimizer"),
        ("optimizer.params.backbone_factor=1", "did you mean optimizer.params.backbone_lr_factor"),
        (
            "train.output_dir.sub=1",
            "train.output_dir is a plain value, it has no key 'sub'; set the whole: "
            r"train.output_dir=\.\.\.$",
        ),
        ("train.ema.decay=0.9", r"set the whole: train.ema={decay:...,warmup_iters:...,start_iter"),
        ("train.fast_dev_run=True", "train has no key 'fast_dev_run'; it has: "),
        ("train.max_itr=5", r"; did you mean train.max_iter\? It has: "),
        ("train.max_iter", "malformed: write path.key=value"),
        ("--resume", "option '--resume' comes behind a path.key=value.*put all options before"),
        ("+train.new=1", "only path.key=value is supported"),
        ("~train.seed", "only path.key=value is supported"),
        ("train.max_seconds=None", "for no value write null"),
        ("model.widht=3", "did you mean model.width"),
    ],
)
def test_a_wrong_override_is_an_error_that_names_the_fix(override: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load_config(CONFIG, [override])


def test_a_data_set_by_name_has_no_parts_and_is_replaced_whole() -> None:
    recipe = str(Path(__file__).parents[2] / "configs" / "petr_eva02_l_800x320_24ep.py")
    fix = r"set the whole: dataloader.test.dataset={root:...,version:...,split:...}$"
    with pytest.raises(ConfigError, match=fix):
        load_config(recipe, ["dataloader.test.dataset.root=data/mine"])


def test_settings_that_an_older_configuration_lacks_can_be_set() -> None:
    """Errors of a resume advise to set them."""
    cfg = load_config(CONFIG)
    for key in ("restart_streams", "accumulate", "ema", "freeze", "hooks", "best_checkpoint"):
        del cfg.train[key]
    del cfg.train.checkpointer["background"]
    words = ["train.restart_streams=True", "train.accumulate=2", "train.ema={decay:0.5}"]
    words += ["train.freeze=[{parts:a}]", "train.best_checkpoint={metric:a/b}"]
    apply_overrides(cfg, [*words, "train.checkpointer.background=False"])
    assert cfg.train.restart_streams is True and cfg.train.accumulate == 2
    assert cfg.train.ema == {"decay": 0.5} and cfg.train.freeze == [{"parts": "a"}]
    assert cfg.train.best_checkpoint.metric == "a/b" and not cfg.train.checkpointer.background
    with pytest.raises(ConfigError, match="has no key 'hoks'; did you mean train.hooks"):
        apply_overrides(cfg, ["train.hoks=[]"])


def test_arguments_that_only_the_signature_names_can_be_set() -> None:
    cfg = DictConfig({"model": L(ToyDetector)()}, flags={"allow_objects": True})
    check_override(cfg, "model.width=16")
    with pytest.raises(ConfigError, match="It has: width"):
        check_override(cfg, "model.depth=2")


def test_a_missing_file_is_an_error_that_lists_what_is_there() -> None:
    with pytest.raises(ConfigError, match=r"toy_confg.py' does not exist.*toy_config.py"):
        load_config(str(Path(CONFIG).with_name("toy_confg.py")))
    with pytest.raises(ConfigError, match="no configurations in"):
        load_config("no/such/folder/x.py")
    with pytest.raises(ConfigError, match="pass --config-file"):
        load_config("")


def test_a_part_of_a_configuration_is_not_a_recipe(tmp_path: Path) -> None:
    part = tmp_path / "part.py"
    part.write_text("train = dict(seed=0)\n")
    with pytest.raises(ConfigError, match="has no model, optimizer, schedule, dataloader"):
        load_config(str(part))


def test_call_adds_arguments_and_keeps_interpolations() -> None:
    cfg = DictConfig({"size": 5, "model": L(ToyDetector)(width="${size}")})
    assert call(cfg.model).backbone.out_features == 5
    assert call(cfg.model, width=3).backbone.out_features == 3
    assert "width" in cfg.model and cfg.model.width == 5


QUICKSTART = str(Path(__file__).resolve().parents[2] / "configs" / "quickstart.py")


@pytest.mark.parametrize(
    ("override", "key", "expected"),
    [
        # A described data set is one value: nothing of the recipe's stays.
        ("dataloader.train.dataset={root:x,version:y}", "", {"root": "x", "version": "y"}),
        ("dataloader.train.dataset=nuscenes_mini_train", "", "nuscenes_mini_train"),
        ("dataloader.train.dataset.root=x", "root", "x"),
        ("dataloader.train.dataset.root=x", "split", "train"),
    ],
)
def test_a_data_set_is_replaced_whole(override: str, key: str, expected: object) -> None:
    dataset = load_config(QUICKSTART, [override]).dataloader.train.dataset
    assert (dataset[key] if key else dataset) == expected


def test_a_description_replaces_the_name_of_a_data_set() -> None:
    words = ["dataloader.test.dataset=nuscenes_mini_val", "dataloader.test.dataset={root:x"]
    cfg = load_config(QUICKSTART, [words[0], f"{words[1]},version:y}}"])
    assert cfg.dataloader.test.dataset == {"root": "x", "version": "y"}
    for evaluator in cfg.dataloader.evaluator:
        assert evaluator.dataset == {"root": "x", "version": "y"}  # refers to it


def test_an_evaluator_of_a_list_is_named_by_its_place() -> None:
    cfg = load_config(QUICKSTART, ["dataloader.evaluator.1.name=second"])
    assert cfg.dataloader.evaluator[1].name == "second"
    with pytest.raises(ConfigError, match=r"from dataloader\.evaluator\.0 to .*\.1$"):
        load_config(QUICKSTART, ["dataloader.evaluator.output_dir=out"])
    with pytest.raises(ConfigError, match=r"from dataloader\.evaluator\.0 to .*\.1$"):
        load_config(QUICKSTART, ["dataloader.evaluator.2.name=third"])


@pytest.mark.parametrize("tracker", ["greedi", "3", "null"])
def test_a_tracker_that_does_not_exist_is_refused_with_the_other_settings(tracker: str) -> None:
    with pytest.raises(ConfigError, match=r"one of 'lineage', 'greedy', or a dict") as found:
        load_config(QUICKSTART, [f"dataloader.evaluator.1.tracker={tracker}"])
    assert str(found.value).count("a dict with _target_") == 1  # not once for each kind of rules


def test_other_dicts_change_what_they_name_unless_they_describe_a_part() -> None:
    cfg = load_config(
        QUICKSTART,
        [
            "train.checkpointer={period:7}",
            "model.window={num_frame_losses:2,num_frame_head_grads:2,num_frame_backbone_grads:2}",
            "model.grid_mask={_target_:torch.nn.Identity}",
        ],
    )
    assert cfg.train.checkpointer == {"period": 7, "max_to_keep": 2, "background": True}
    assert cfg.model.window.num_frame_losses == 2 and "_target_" in cfg.model.window
    assert cfg.model.grid_mask == {"_target_": "torch.nn.Identity"}


def test_a_shorter_list_replaces() -> None:
    words = ["dataset_spec.cameras=[CAM_FRONT]"]
    words += ["dataset_spec.classes=[{name:car,categories:[vehicle.car]}]"]
    spec = load_config(QUICKSTART, words).dataset_spec
    assert spec.cameras == ["CAM_FRONT"]
    assert spec.classes == [{"name": "car", "categories": ["vehicle.car"]}]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        (
            "a.yaml",
            b"model: 1\noptimizer: 1\nschedule: 1\ntrain: 1\ndataloader: 1\n",
            "model=1 is not",
        ),
        ("b.py", b"\xad\xfe\x00", "b.py is no Python file"),
        ("c.yaml", b"train:\n  seed: 1\n  seed: 2\n", "c.yaml, line 3.*key 'seed' is there twice"),
    ],
)
def test_a_file_that_is_no_configuration(
    tmp_path: Path, name: str, content: bytes, message: str
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ConfigError, match=message):
        load_config(str(tmp_path / name))


def test_a_folder_is_no_configuration() -> None:
    with pytest.raises(ConfigError, match="configs' is a folder: give a file.*quickstart.py"):
        load_config(str(CONFIGS))


def test_a_value_with_accents_is_told_to_be_quoted() -> None:
    with pytest.raises(ConfigError, match="\"path.key='value'\" where the value holds.*accents"):
        load_config(str(CONFIGS / "quickstart.py"), ["train.output_dir=\u00f6"])
    cfg = load_config(str(CONFIGS / "quickstart.py"), ["train.output_dir='\u00f6'"])
    assert cfg.train.output_dir == "\u00f6"

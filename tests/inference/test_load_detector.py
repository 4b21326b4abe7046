"""A trained detector from a run's folder, or from a configuration and a file with weights."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from detectron2.config import LazyCall as L
from omegaconf import DictConfig
from tiny_detector import make_sample, same

from streampetr_vit.checkpoint.files import read_checkpoint
from streampetr_vit.checkpoint.loading import SafeCheckpointer
from streampetr_vit.checkpoint.manifest import MANIFEST
from streampetr_vit.configuration.reading import read_config
from streampetr_vit.data.nuscenes.spec import NUSCENES_LIDAR_TO_VEHICLE
from streampetr_vit.engine import build_model, load_config
from streampetr_vit.engine.run_folder import save_config
from streampetr_vit.errors import CheckpointError, InputError, MissingFileError, UserError
from streampetr_vit.export.interface import HEAD
from streampetr_vit.inference import Stream
from streampetr_vit.inference.device import device_of, precision_of
from streampetr_vit.inference.loading import load_detector
from streampetr_vit.modeling.detector import StreamPETR

RECIPE = Path(__file__).resolve().parents[2] / "configs" / "quickstart.py"
REFERENCE = [0.9, 0.0, 1.8, 0.6, 0.0, 0.0, -0.8]


def recipe(**model: object) -> DictConfig:
    """The quick start with one layer of everything; `model` changes the detector."""
    cfg = load_config(str(RECIPE), ["train.device=cpu"])
    net = cfg.model.backbone.net
    net.depth, net.window_block_indexes = 1, []
    cfg.model.head.decoder.num_layers = 1
    for name, value in model.items():
        cfg.model[name] = value
    return cfg


def write_run(folder: Path, cfg: DictConfig, seed: int = 0, name: str = "model_final") -> None:
    """What a training leaves, with random weights."""
    folder.mkdir(exist_ok=True)
    torch.manual_seed(seed)
    model = build_model(cfg)
    model.reference_to_vehicle, model.frame_period_s = REFERENCE, 0.4
    SafeCheckpointer(model, str(folder)).save(name, ema=model.state_dict())
    save_config(cfg, str(folder))


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with two checkpoints, read only."""
    folder = tmp_path_factory.mktemp("runs") / "run"
    write_run(folder, recipe(), seed=1, name="model_best")
    write_run(folder, recipe())
    return folder


@pytest.fixture
def run(trained: Path, tmp_path: Path) -> Path:
    """A copy of that run."""
    return shutil.copytree(trained, tmp_path / "run")


def detections(detector: StreamPETR) -> list:
    """Of two frames of a scene, so that the memory counts."""
    stream = Stream(detector)
    generator = torch.Generator().manual_seed(0)
    found = []
    for time in (0, 1):
        images = torch.randint(0, 256, (6, 3, 160, 400), generator=generator, dtype=torch.uint8)
        found += stream([make_sample(time, images=images)])
    return found


def as_evaluated(cfg: DictConfig, weights: Path) -> list:
    """As the engine's evaluation does it."""
    model = build_model(cfg)
    SafeCheckpointer(model, require_all=True).load(str(weights), checkpointables=[])
    return detections(model.eval())


def test_a_run_detects_as_its_evaluation_does(trained: Path) -> None:
    loaded = load_detector(trained, device="cpu")
    assert same(detections(loaded.detector), as_evaluated(recipe(), trained / "model_final.pth"))
    detector = loaded.detector
    assert not detector.training and detector.device.type == "cpu"
    assert detector.image_head is None and detector.criterion is None  # of training alone
    assert loaded.image_aug.final_size == (160, 400) and loaded.precision == "float32"
    assert loaded.spec.class_names[0] == "car" and loaded.memory
    assert loaded.weights == str(trained / "model_final.pth")


def test_a_configuration_and_weights_are_the_same_detector(trained: Path) -> None:
    cfg, weights = recipe(), trained / "model_final.pth"
    expected = detections(load_detector(trained).detector)
    for config in (cfg, trained / "config.yaml"):
        assert same(detections(load_detector(config=config, weights=weights).detector), expected)
    assert cfg == recipe()  # what was given stays as it was


def test_frame_and_rate_are_those_of_the_checkpoint(trained: Path) -> None:
    loaded = load_detector(trained)
    assert loaded.reference_to_vehicle.translation_m.tolist() == REFERENCE[:3]
    assert loaded.reference_to_vehicle.rotation_wxyz.tolist() == REFERENCE[3:]
    assert loaded.frame_period_s == 0.4


def without_settings(run: Path) -> Path:
    """Its weights as a file of an earlier version has them."""
    path = run / "older.pth"
    torch.save({"model": read_checkpoint(str(run / "model_final.pth"))["model"]}, path)
    return path


def test_an_older_file_has_the_frame_and_the_rate_of_nuscenes(
    run: Path, caplog: pytest.LogCaptureFixture
) -> None:
    weights = without_settings(run)
    with caplog.at_level(logging.INFO):
        loaded = load_detector(run, weights=weights)
    assert loaded.frame_period_s == 0.5
    pose = loaded.reference_to_vehicle
    assert (*pose.translation_m, *pose.rotation_wxyz) == NUSCENES_LIDAR_TO_VEHICLE
    (record,) = [r for r in caplog.records if "does not record" in r.getMessage()]
    assert record.levelname == "INFO"


def test_a_data_set_without_a_lidar_says_its_own_frame(
    run: Path, caplog: pytest.LogCaptureFixture
) -> None:
    cfg = recipe()
    cfg.dataset_spec.update(cameras=["front"], lidar=None, lidar_to_ego=REFERENCE)
    loaded = load_detector(config=cfg, weights=without_settings(run))
    assert loaded.reference_to_vehicle.translation_m.tolist() == REFERENCE[:3]
    (record,) = [r for r in caplog.records if "does not record" in r.getMessage()]
    assert record.levelname == "WARNING" and "record frame_period_s: those of" in record.message


def test_other_weights_beside_a_run(run: Path, tmp_path: Path, monkeypatch) -> None:
    best = as_evaluated(recipe(), run / "model_best.pth")
    monkeypatch.chdir(tmp_path)
    shutil.copy(run / "model_best.pth", tmp_path / "elsewhere.pth")
    shutil.copy(run / "model_final.pth", tmp_path / "model_best.pth")  # the run's goes before it
    for weights in ("model_best.pth", run / "model_best.pth", "elsewhere.pth"):
        assert same(detections(load_detector("run", weights=weights).detector), best)


def test_a_run_that_was_killed_early_has_its_listed_checkpoint(run: Path) -> None:
    (run / "last_checkpoint").unlink()
    assert load_detector(run).weights == str(run / "model_final.pth")  # the newest one


def test_the_average_of_the_weights(run: Path, trained: Path) -> None:
    content = read_checkpoint(str(run / "model_final.pth"))
    content["ema"] = read_checkpoint(str(trained / "model_best.pth"))["model"]
    torch.save(content, run / "both.pth")
    best = as_evaluated(recipe(), trained / "model_best.pth")
    assert same(detections(load_detector(run, weights="both.pth", ema=True).detector), best)
    del content["ema"]
    torch.save(content, run / "one.pth")
    with pytest.raises(CheckpointError, match="holds no averaged weights"):
        load_detector(run, weights="one.pth", ema=True)


def test_a_file_without_the_2d_head_loads_without_a_word(
    run: Path, caplog: pytest.LogCaptureFixture
) -> None:
    model = read_checkpoint(str(run / "model_final.pth"))["model"]
    names = [name for name in model if name.startswith("image_head.")]
    assert names
    load_detector(run)
    assert not [r for r in caplog.records if r.levelno >= logging.WARNING]
    torch.save({"model": {n: model[n] for n in model if n not in names}}, run / "small.pth")
    expected = detections(load_detector(run).detector)
    assert same(detections(load_detector(run, weights="small.pth").detector), expected)


def test_a_2d_head_that_chooses_tokens_stays(tmp_path: Path) -> None:
    cfg = recipe(token_ratio=0.5)
    write_run(tmp_path, cfg)
    loaded = load_detector(tmp_path)
    assert loaded.detector.image_head is not None
    expected = as_evaluated(cfg, tmp_path / "model_final.pth")
    assert same(detections(loaded.detector), expected)
    model = read_checkpoint(str(tmp_path / "model_final.pth"))["model"]
    rest = {name: value for name, value in model.items() if not name.startswith("image_head.")}
    torch.save({"model": rest}, tmp_path / "small.pth")
    with pytest.raises(CheckpointError, match="not a whole detector.*image_head"):
        load_detector(tmp_path, weights="small.pth")


def test_a_detector_that_shall_not_remember(trained: Path) -> None:
    cfg = recipe(memory_at_test=False)
    assert not load_detector(config=cfg, weights=trained / "model_final.pth").memory


def test_the_identity_is_of_what_decides_about_results(run: Path) -> None:
    loaded = load_detector(run)
    cfg, weights = recipe(), run / "model_final.pth"
    (run / MANIFEST).unlink()  # then the file itself is looked at
    assert load_detector(config=cfg, weights=weights).identity == loaded.identity
    cfg.train.output_dir, cfg.optimizer.lr = "elsewhere", 1.0
    assert load_detector(config=cfg, weights=weights).identity == loaded.identity
    others = [
        load_detector(run, weights="model_best.pth"),
        load_detector(run, precision="bf16"),
        load_detector(run, ema=True),
        load_detector(config=recipe(pixel_mean=[1.0, 2.0, 3.0]), weights=weights),
    ]
    smaller = recipe()
    smaller.dataloader.train.mapper.image_aug.final_size = [160, 384]
    others.append(load_detector(config=smaller, weights=weights))
    assert len({loaded.identity, *(other.identity for other in others)}) == 6


def test_random_numbers_of_the_caller_stay(trained: Path) -> None:
    before = torch.get_rng_state()
    load_detector(trained)
    assert torch.equal(torch.get_rng_state(), before)


Change = Callable[[Path], dict[str, object] | None]


def changed(name: str, content: str | bytes | None) -> Change:
    """Writes a file of the run, or removes it."""

    def act(run: Path) -> None:
        (run / name).unlink(missing_ok=True)
        if content is not None:
            (run / name).write_bytes(content if isinstance(content, bytes) else content.encode())

    return act


def last_bit(run: Path) -> None:
    data = bytearray((run / "model_final.pth").read_bytes())
    data[-5000] ^= 1
    (run / "model_final.pth").write_bytes(data)


def no_weights(run: Path) -> None:
    for path in (*run.glob("*.pth"), run / MANIFEST, run / "last_checkpoint"):
        path.unlink()


def exported(run: Path) -> None:
    none_listed(run)
    (run / HEAD).write_bytes(b"graph")


def none_listed(run: Path) -> None:
    for name in (MANIFEST, "last_checkpoint"):
        (run / name).unlink()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda run: {"run": run.parent / "rum"}, "run=.*rum' does not exist.* there is run$"),
        (lambda run: {"run": run / "model_final.pth"}, "model_final.pth' is a file: give the fol"),
        (lambda run: {"run": run.parent}, "no folder of a training: .*; runs in it: run. Give a"),
        (changed("config.yaml", None), "has no config.yaml.* model_final.pth is of: give the rec"),
        (changed("config.yaml", "train: 3"), "config.yaml has no model, .*not a recipe"),
        (changed("config.yaml", b"\xff"), "config.yaml is no YAML that can be read"),
        (changed("last_checkpoint", "model_7.pth"), "names 'model_7.pth', which is not in.*best"),
        (changed("last_checkpoint", "../run/model_final.pth"), r"names '\.\./run/model_final.pth'"),
        (changed("last_checkpoint", "x" * 5000), "names 'xxxx.*which is not in"),
        (changed("last_checkpoint", "a\0b"), r"names 'a\\x00b', which is not in"),
        (none_listed, "has no last_checkpoint.*name a checkpoint as weights .*model_final.pth"),
        (exported, r"holds exported graphs, and no training: give it as onnx \(--onnx\), or"),
        (no_weights, r"has no last_checkpoint.*\(there is none in "),
        (last_bit, r"model_final.pth is damaged: its SHA-256.*\(model_best.pth in .*on purpose"),
        (changed("model_final.pth", "no pickle"), "model_final.pth is damaged"),
        (lambda run: {"weights": "model_bast.pth"}, "'model_bast.pth' does not exist; .*model_be"),
        (lambda run: {"weights": run}, "is a folder: name a checkpoint as weights.*model_best"),
        (lambda run: {"config": "c.py"}, "^run and config: give the folder of a training as run"),
        (lambda run: {"run": None}, "^neither run nor config: give the folder"),
        (lambda run: {"run": None, "config": RECIPE}, "config without weights: name a checkpoint"),
        (
            lambda run: {"run": None, "config": "quick.py", "weights": run / "model_final.pth"},
            "configuration 'quick.py' does not exist",
        ),
        (lambda run: {"device": "gpu"}, "device='gpu' is unknown: allowed are .auto., .cpu."),
        (lambda run: {"precision": "half"}, "precision='half' is unknown: allowed are auto, fl"),
    ],
)
def test_what_cannot_be_loaded(change: Change, message: str, run: Path) -> None:
    arguments = {"run": run} | (change(run) or {})
    with pytest.raises(UserError, match=message) as error:
        load_detector(**arguments)
    assert "\n" not in str(error.value)


def remove(*path: str) -> Callable[[DictConfig], None]:
    def act(cfg: DictConfig) -> None:
        for part in path[:-1]:
            cfg = cfg[part]
        del cfg[path[-1]]

    return act


def set_to(value: object, *path: str) -> Callable[[DictConfig], None]:
    def act(cfg: DictConfig) -> None:
        for part in path[:-1]:
            cfg = cfg[part]
        cfg[path[-1]] = value

    return act


MAPPER = ("dataloader", "test", "mapper")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (remove("model"), "must describe the detector as model, but it has none: take a whole"),
        (set_to(3, "model"), "must describe the detector as model, but there it has 3"),
        (set_to(L(torch.nn.Linear)(in_features=1, out_features=1), "model"), "is a Linear, not a"),
        (remove("model", "head"), "configuration's model cannot be built:.*head"),
        (set_to("${nothing.here}", "model", "token_ratio"), "nothing"),
        (remove(*MAPPER), "describe an ImageAugmentation as dataloader.test.mapper.image_aug, but"),
        (remove(*MAPPER, "image_aug"), "mapper.image_aug, but it has none: take a whole recipe"),
        (set_to(3, *MAPPER, "image_aug"), "mapper.image_aug, but there it has 3"),
        (set_to("${nothing}", *MAPPER, "image_aug"), "configuration cannot be used: .*nothing"),
        (set_to(L(torch.nn.ReLU)(), *MAPPER, "image_aug"), "ImageAugmentation, not a ReLU"),
        (remove("dataset_spec"), "must describe a DatasetSpec as dataset_spec, but it has none"),
        (set_to(L(torch.nn.ReLU)(), "dataset_spec"), "must be a DatasetSpec, not a ReLU"),
        (set_to(7, "model", "head", "num_classes"), r"num_classes is 7, but dataset_spec.classes"),
        (set_to(65, "model", "head", "num_queries"), "tensors have another shape"),
    ],
)
def test_what_is_no_configuration_of_a_detector(
    change: Callable[[DictConfig], None], message: str, trained: Path
) -> None:
    cfg = recipe()
    change(cfg)
    with pytest.raises(UserError, match=message) as error:
        load_detector(config=cfg, weights=trained / "model_final.pth")
    assert "\n" not in str(error.value)


def test_classes_of_a_users_own_need_a_word(run: Path) -> None:
    cfg = read_config(str(run / "config.yaml"))
    cfg.train.hooks = [dict(_target_="tiny_detector.make_sample")]
    save_config(cfg, str(run))
    with pytest.raises(UserError, match=r"--trust tiny_detector\), in Python by trusted="):
        load_detector(run)
    assert load_detector(run, trusted=["tiny_detector"]).frame_period_s == 0.4


def test_devices_and_precisions_without_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    cpu = device_of("auto")
    assert cpu == device_of("cpu") == device_of(torch.device("cpu")) == torch.device("cpu")
    with pytest.raises(InputError, match="device='cuda:1', but torch .* sees no GPU: give cpu"):
        device_of("cuda:1")
    assert precision_of("auto", cpu) == "float32" and precision_of("fp16", cpu) == "fp16"


def test_devices_and_precisions_of_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    assert device_of("auto") == device_of("cuda") == torch.device("cuda", 0)
    assert device_of("cuda:1") == torch.device("cuda", 1)
    with pytest.raises(InputError, match=r"device='cuda:2', but torch sees 2 GPU\(s\)"):
        device_of("cuda:2")
    gpu = torch.device("cuda", 0)
    for has, auto in ((True, "bf16"), (False, "float32")):
        monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda has=has, **_: has)
        assert precision_of("auto", gpu) == auto
    with pytest.raises(InputError, match="this GPU has no bfloat16"):
        precision_of("bf16", gpu)


def test_a_missing_run_is_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(MissingFileError, match="does not exist: give the folder of a training"):
        load_detector(tmp_path / "a" / "b")

"""A folder of exported graphs in place of a run: predictor, tools/predict.py, evaluation."""

from __future__ import annotations

import json
import logging
import shutil
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import lazyconfig_train_net
import numpy as np
import predict
import pytest
import torch
from omegaconf import DictConfig
from scipy.spatial.distance import cdist
from tiny_car import DIRECTIONS, make_camera, make_moment
from tiny_run import write_run

from streampetr_vit.checkpoint.manifest import digest_of
from streampetr_vit.configuration.yaml_text import config_text
from streampetr_vit.data.nuscenes.spec import NUSCENES
from streampetr_vit.engine import evaluate_exported, evaluate_only, load_config
from streampetr_vit.errors import InputError, MissingFileError, UserError
from streampetr_vit.export.describing import Origin
from streampetr_vit.export.interface import CONFIG, GRAPHS, HEAD, PARITY
from streampetr_vit.export.sessions import Sessions
from streampetr_vit.export.writing import export_graphs
from streampetr_vit.inference import Objects, Predictor, Rig
from streampetr_vit.inference.exported import description_of, load_exported
from streampetr_vit.inference.loading import load_detector
from streampetr_vit.structures import Detections

ROOT = Path(__file__).resolve().parents[2]
SIZE = (160, 90)
RIG = Rig(
    [make_camera(name, angle, SIZE) for name, angle in DIRECTIONS.items()]
    + [make_camera(f"{name}_2", angle + 45, SIZE) for name, angle in list(DIRECTIONS.items())[:2]]
)
TIMES = [0.4 * n for n in range(4)]


def recipe(*overrides: str) -> DictConfig:
    """The quick start with one layer of everything, and smaller pictures."""
    words = ["train.device=cpu", "model.head.decoder.num_layers=1", "report=null", *overrides]
    words.append("model.head.max_detections=40")
    cfg = load_config(str(ROOT / "configs" / "quickstart.py"), words)
    net = cfg.model.backbone.net
    net.depth, net.window_block_indexes = 1, []
    for part in (cfg.dataloader.train, cfg.dataloader.test):
        part.mapper.image_aug.final_size = [64, 160]
    return cfg


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run's folder with random weights, read only."""
    return write_run(tmp_path_factory.mktemp("runs") / "run", recipe())


@pytest.fixture(scope="module")
def graphs(run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What was exported of it for a vehicle, read only."""
    folder, loaded = tmp_path_factory.mktemp("graphs"), load_detector(run, device="cpu")
    origin = Origin("quickstart", "model_final.pth", digest_of(Path(loaded.weights)), False)
    said = description_of(loaded, origin, "base_link", "fp32")
    export_graphs(loaded.detector, said, folder)
    (folder / CONFIG).write_text(config_text(recipe()))
    return folder


def play(predictor: Predictor, times: list[float]) -> list[Objects]:
    return [predictor.predict_batch([make_moment(time, RIG)])[0] for time in times]


def assert_alike(found: list[Objects], expected: list[Objects]) -> None:
    for one, other in zip(found, expected, strict=True):
        assert len(one) == len(other) > 10
        # Two whose scores are equal but for rounding may stand in each other's place.
        rows, others = (by_query(part.detections) for part in (one, other))
        np.testing.assert_allclose(one.centers[rows], other.centers[others], rtol=0, atol=1e-4)
        a, b = one.detections, other.detections
        torch.testing.assert_close(a.boxes[rows], b.boxes[others], rtol=0, atol=1e-4)
        torch.testing.assert_close(a.scores, b.scores, rtol=0, atol=1e-5)
        for name in ("queries", "labels"):
            assert torch.equal(getattr(a, name)[rows], getattr(b, name)[others])
        assert np.array_equal(one.ids[rows], other.ids[others])
        assert one.starts_scene == other.starts_scene


def by_query(found: Detections) -> list[int]:
    """The order of detections by their query and class, which no two have in common."""
    return sorted(range(len(found)), key=lambda row: (found.queries[row], found.labels[row]))


def test_what_is_loaded_is_what_was_exported(run: Path, graphs: Path) -> None:
    ours, theirs = load_detector(run, device="cpu"), load_exported(graphs)
    for name in ("image_aug", "spec", "frame_period_s", "precision", "memory"):
        assert getattr(theirs, name) == getattr(ours, name), name
    np.testing.assert_allclose(
        theirs.reference_to_vehicle.matrix(), ours.reference_to_vehicle.matrix(), atol=1e-15
    )
    assert theirs.weights == str(graphs) and theirs.identity != ours.identity


def test_a_detector_that_shall_not_remember(graphs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened = Sessions.open(graphs)
    without = replace(opened, description=replace(opened.description, remembers=False))
    monkeypatch.setattr(Sessions, "open", lambda *_: without)
    predictor = Predictor.load(onnx=graphs)
    assert all(objects.starts_scene for objects in play(predictor, TIMES[:2]))


@pytest.mark.parametrize("tracker", ["lineage", "greedy"])
def test_a_predictor_of_graphs_sees_what_pytorch_sees(
    run: Path, graphs: Path, tracker: str
) -> None:
    ours = Predictor.load(run, device="cpu", tracker=tracker)
    theirs = Predictor.load(onnx=graphs, device="cpu", tracker=tracker)
    # A pause begins a scene, and of two moments so close to each other one is remembered.
    times = [*TIMES, TIMES[-1] + 0.1, 100.0, 100.4]
    expected = play(ours, times)
    assert_alike(play(theirs, times), expected)
    assert max(objects.ids.max() for objects in expected) > 3


def test_a_predictor_of_graphs_goes_on_from_its_state(
    run: Path, graphs: Path, tmp_path: Path
) -> None:
    first, second = (Predictor.load(onnx=graphs, tracker="lineage") for _ in range(2))
    expected = play(Predictor.load(onnx=graphs, tracker="lineage"), TIMES)
    play(first, TIMES[:2])
    first.save_state(tmp_path / "state")
    second.load_state(tmp_path / "state")
    assert_alike(play(second, TIMES[2:]), expected[2:])
    with pytest.raises(InputError, match="was written with other weights or another precision"):
        Predictor.load(run, device="cpu").load_state(tmp_path / "state")


def test_a_car_that_lost_a_camera(graphs: Path) -> None:
    predictor = Predictor.load(onnx=graphs)
    moment = make_moment(0.0, RIG)
    with pytest.raises(InputError, match=r"of 5 cameras \(none of left\), and .* need 6, which"):
        predictor.predict_batch([make_moment(0, RIG, pictures=moment.pictures | {"left": None})])
    few = make_moment(0, Rig(RIG.cameras[:4]))
    with pytest.raises(InputError, match="^scene 7: there are pictures of 4 cameras, and the exp"):
        predictor.prepare(replace(few, scene="scene", name="7"))
    assert_alike(play(predictor, TIMES[:1]), play(Predictor.load(onnx=graphs), TIMES[:1]))


def test_two_cars(graphs: Path) -> None:
    together = Predictor.load(onnx=graphs)
    pairs = [
        together.predict_batch([make_moment(time, RIG), make_moment(time, RIG, seed=3)])
        for time in TIMES
    ]
    assert_alike([pair[0] for pair in pairs], play(Predictor.load(onnx=graphs), TIMES))


@pytest.fixture
def copied(graphs: Path, tmp_path: Path) -> Path:
    """A copy of the graphs."""
    return shutil.copytree(graphs, tmp_path / "graphs")


def edit(old: str, new: str) -> Callable[[Path], None]:
    """Changes the configuration of an export."""

    def act(folder: Path) -> None:
        text = (folder / CONFIG).read_text()
        assert old in text
        (folder / CONFIG).write_text(text.replace(old, new))

    return act


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda f: shutil.rmtree(f),
            "onnx=.*graphs' is no folder: give one that tools/export_onnx",
        ),
        (lambda f: (f / CONFIG).unlink(), "config.yaml"),
        (lambda f: (f / HEAD).unlink(), f"{HEAD} does not exist: give a folder that tools/expo"),
        (
            edit("[64, 160]", "[64, 192]"),
            "have the image_size 64, 160, and .*config.yaml has 64, 1",
        ),
        (
            edit("cameras: [CAM_FRONT, ", "cameras: ["),
            "have the cameras CAM_FRONT, CAM_FRONT_RIGHT, .*, and .*yaml has CAM_FRONT_RIGHT, CAM",
        ),
        (
            edit("name: car\n", "name: cab\n"),
            "have the classes car, truck.*, and .*yaml has cab, tru",
        ),
        (edit("[64, 160]", "'${nothing}'"), "config.yaml cannot be used|cannot be built"),
    ],
)
def test_a_folder_that_is_no_export(
    copied: Path, change: Callable[[Path], None], message: str
) -> None:
    change(copied)
    with pytest.raises(UserError, match=message) as error:
        load_exported(copied)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", GRAPHS)
def test_a_graph_with_other_numbers(name: str, copied: Path) -> None:
    said = {name: digest_of(copied / name) for name in GRAPHS}
    (copied / PARITY).write_text(json.dumps({"sha256": said}))
    load_exported(copied)
    data = bytearray((copied / name).read_bytes())
    middle = len(data) // 2  # in the weights, which are most of the file
    data[middle] ^= 1
    (copied / name).write_bytes(data)
    with pytest.raises(InputError, match=f"{name} is damaged, or of another export: its SHA-256"):
        load_exported(copied)
    for content in ("{}", "[]", '{"sha256": 3}'):  # of an older version, or of somebody else
        (copied / PARITY).write_text(content)
        load_exported(copied)


@pytest.mark.parametrize("folder", ["", 3, None, ["a"], b"a", "no\nfolder"])
def test_what_is_no_folder(folder: Any) -> None:
    with pytest.raises(MissingFileError, match="^onnx=.* is no folder: give one that") as error:
        load_exported(folder)
    assert "\n" not in str(error.value)


def test_the_identity_is_of_graphs_and_pictures(copied: Path, graphs: Path) -> None:
    before = load_exported(graphs).identity
    assert load_exported(copied).identity == before
    edit("seed: ", "seed: 1")(copied)  # of a training, which is over
    assert load_exported(copied).identity == before
    cfg = recipe()
    cfg.dataloader.train.mapper.image_aug.resize_range = [0.5, 0.6]
    (copied / CONFIG).write_text(config_text(cfg))
    assert load_exported(copied).identity != before


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            dict(run="run"),
            "^onnx and run: exported graphs hold their weights and configuration, so",
        ),
        (dict(config="c.py"), "^onnx and config: "),
        (dict(weights="w.pth"), "^onnx and weights: "),
        (dict(ema=True), "^onnx with ema=True: .* tools/export_onnx.py --ema"),
        (dict(precision="bf16"), "^onnx with precision='bf16': .* --precision fp16-backbone"),
        (dict(cuda_graph=True), "^onnx with cuda_graph=True: that is of PyTorch"),
        (dict(device="gpu"), "^device='gpu' is unknown"),
        (dict(cuda_graphs=True), "option cuda_graphs of a predictor is unknown"),
    ],
)
def test_what_has_no_meaning_for_graphs(
    graphs: Path, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError, match=message) as error:
        Predictor.load(onnx=graphs, **options)
    assert "\n" not in str(error.value)
    Predictor.load(onnx=graphs, precision="float32", cuda_graph=False)


def results_of(folder: Path) -> dict[str, list[dict[str, Any]]]:
    return json.loads((folder / "results_nusc.json").read_text())["results"]


def assert_equal_results(found: Path, expected: Path) -> None:
    """The same boxes of the same samples, whatever the order of equal scores."""
    one, other = results_of(found), results_of(expected)
    assert list(one) == list(other)
    for token, boxes in other.items():
        assert len(one[token]) == len(boxes) > 10
        distances = cdist(*(as_rows(part) for part in (boxes, one[token])), "chebyshev")
        assert sorted(distances.argmin(1)) == list(range(len(boxes)))
        assert distances.min(1).max() < 1e-4


def as_rows(boxes: list[dict[str, Any]]) -> np.ndarray:
    names = ("translation", "size", "velocity")
    return np.array(
        [
            [
                *sum((box[name] for name in names), start=[]),
                *np.abs(box["rotation"]),  # of a quaternion's two signs either will do
                box["detection_score"],
                NUSCENES.class_names.index(box["detection_name"]),
            ]
            for box in boxes
        ]
    )


def test_the_tool_writes_what_it_writes_with_pytorch(
    run: Path, graphs: Path, tiny_nuscenes: Path, tmp_path: Path
) -> None:
    words = ["--dataset", str(tiny_nuscenes), "v1.0-mini", "mini_val", "--write", "nuscenes"]
    predict.main(["--run", str(run), "--device=cpu", *words, "--out", str(tmp_path / "run")])
    predict.main(["--onnx", str(graphs), *words, "--out", str(tmp_path / "onnx")])
    assert_equal_results(tmp_path / "onnx", tmp_path / "run")


def test_the_tool_takes_one_detector(graphs: Path, capsys: pytest.CaptureFixture) -> None:
    words = ["--onnx", str(graphs), "--folder", "a", "--out", "b"]
    for other in (["--run", "c"], ["--config-file", "c"]):
        with pytest.raises(SystemExit):
            predict.parse_arguments([*words, *other])
        assert "not allowed with argument --onnx" in capsys.readouterr().err
    with pytest.raises(SystemExit, match="error: onnx and weights: exported graphs hold"):
        predict.main([*words, "--weights", "w.pth"])


@pytest.fixture(scope="module")
def evaluated(run: Path, tiny_nuscenes: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The overrides of an evaluation, its metrics in PyTorch, and the folder of its results."""
    folder = tmp_path_factory.mktemp("evaluation")
    overrides = [
        f"dataloader.test.dataset.root='{tiny_nuscenes}'",
        "dataloader.test.dataset.version=v1.0-mini",
        "dataloader.test.dataset.split=mini_val",
    ]
    words = [f"train.output_dir='{folder}'", f"train.init_checkpoint='{run}/model_final.pth'"]
    return overrides, evaluate_only(recipe(*overrides, *words)), folder / "inference"


def test_the_evaluation_of_graphs_is_that_of_their_detector(
    graphs: Path, evaluated: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    overrides, expected, results = evaluated
    cfg = recipe(*overrides, f"train.output_dir='{tmp_path}'", "train.eval_precision=bf16")
    with caplog.at_level(logging.INFO):
        found = evaluate_exported(cfg, str(graphs))
    assert_equal_results(tmp_path / "inference", results)
    assert list(found) == list(expected)
    for name, value in expected["bbox3d"].items():
        if name != "eval_time":
            np.testing.assert_allclose(found["bbox3d"][name], value, atol=1e-3, err_msg=name)
    assert "quickstart, fp32, weights model_final.pth with SHA-256 " in caplog.text
    assert f"init_checkpoint: {graphs}" in (tmp_path / "config.yaml").read_text()


def other_cameras(cfg: DictConfig) -> None:
    cfg.dataset_spec.cameras = list(cfg.dataset_spec.cameras)[::-1]


def other_classes(cfg: DictConfig) -> None:
    cfg.dataset_spec.classes[0].name = "cab"


def other_detector(cfg: DictConfig) -> None:
    cfg.model.head["_target_"] = "streampetr_vit.modeling.heads.repdetr3d.RepDETR3DHead"


def other_pictures(cfg: DictConfig) -> None:
    cfg.dataloader.train.mapper.image_aug.final_size = [64, 192]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            other_cameras,
            "have the cameras CAM_FRONT, .*, and the configuration has CAM_BACK_RIGHT,",
        ),
        (other_classes, "have the classes car, truck.* has cab, truck.*: take the recipe that was"),
        (other_detector, "have the detector StreamPETRHead, and .* has RepDETR3DHead: take the re"),
        (other_pictures, "have the image_size 64, 160, and the configuration has 64, 192: take"),
    ],
)
def test_graphs_of_another_recipe_are_not_evaluated(
    graphs: Path, change: Callable[[DictConfig], None], message: str, tmp_path: Path
) -> None:
    cfg = recipe(f"train.output_dir='{tmp_path}'")
    change(cfg)
    with pytest.raises(InputError, match=message):
        evaluate_exported(cfg, str(graphs))
    assert not list(tmp_path.iterdir())


def start(monkeypatch: pytest.MonkeyPatch, *words: str) -> None:
    config = ["--config-file", str(ROOT / "configs" / "quickstart.py")]
    monkeypatch.setattr(sys, "argv", ["lazyconfig_train_net.py", *config, *words])
    lazyconfig_train_net.invoke_main()


def test_the_command_evaluates_graphs(
    graphs: Path, evaluated: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    overrides, _, results = evaluated
    final = "dataloader.train.mapper.image_aug.final_size=[64,160]"
    words = [*overrides, final, "report=null", f"train.output_dir='{tmp_path}'"]
    start(monkeypatch, "--num-gpus=0", "--eval-only", "--onnx", str(graphs), *words)
    # The recipe's number: the graphs have 40.
    said = (tmp_path / "log.txt").read_text()
    assert "model.head.max_detections=300 has no effect: the graphs were exported with 40" in said
    assert "model.head.num_queries=" not in said
    assert_equal_results(tmp_path / "inference", results)


@pytest.mark.parametrize("words", [["--onnx", "d"], ["--onnx", "d", "--eval-only", "--resume"]])
def test_the_command_does_not_train_graphs(
    words: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    with pytest.raises(SystemExit) as stop:
        start(monkeypatch, *words)
    assert stop.value.code == 2
    assert "--onnx is for --eval-only, and without --resume" in capsys.readouterr().err

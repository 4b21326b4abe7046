"""The command that exports a detector: what it writes, what it says, and what it refuses."""

from __future__ import annotations

import contextlib
import io
import json
import math
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import export_onnx
import onnx
import pytest
import torch
import yaml
from onnx import helper
from tiny_run import CONFIGS, REFERENCE, small_recipe, write_run

from streampetr_vit.checkpoint.manifest import digest_of
from streampetr_vit.configuration.reading import read_config
from streampetr_vit.engine import instantiate_model, load_config
from streampetr_vit.export import parity
from streampetr_vit.export.description import Description
from streampetr_vit.export.held_weights import check_held
from streampetr_vit.export.interface import (
    BACKBONE,
    CONFIG,
    GRAPHS,
    HEAD,
    PARAMETERS,
    PARITY,
    POSITION,
    Interface,
)
from streampetr_vit.export.parity import Parity
from streampetr_vit.inference import Predictor
from streampetr_vit.inference.loading import load_detector
from streampetr_vit.inference.recipe_parts import image_aug_of, spec_of

ROOT = Path(__file__).resolve().parents[2]
NAMES = sorted([*GRAPHS, CONFIG, PARAMETERS, PARITY])
TENSORS = ("logits", "codes", "embedding", "reference_point", "timestamp", "egopose", "velo")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a training, read only."""
    return write_run(tmp_path_factory.mktemp("runs") / "small", small_recipe())


@pytest.fixture(scope="module")
def whole(run: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """Folder of an export for Autoware, read only, and what the tool printed."""
    out = tmp_path_factory.mktemp("exports") / "deep" / "onnx"
    with contextlib.redirect_stdout(io.StringIO()) as said:
        export("--run", run, "--out", out, "--autoware")
    return out, said.getvalue()


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Graphs without content, made at once; `deviation` is what a comparison finds."""
    settings: dict[str, Any] = {"deviation": 1e-6}

    def export_graphs(detector: object, description: Description, folder: Path) -> Interface:
        settings["detector"] = detector
        for name in GRAPHS:
            model = helper.make_model(helper.make_graph([], name, [], []))
            helper.set_model_props(model, description.to_metadata())
            onnx.save(model, folder / name)
        return Interface(6, (160, 400), (1,), (1,), (1,), 128, 8, 12, 16, 10)

    def measure(detector: object, sessions: object) -> Parity:
        frame = dict.fromkeys(TENSORS, 1e-7)
        return Parity((frame, frame | {"velo": settings["deviation"]}), swaps=0)

    monkeypatch.setattr(export_onnx, "export_graphs", export_graphs)
    monkeypatch.setattr(export_onnx, "check_held", lambda folder, detector: None)
    monkeypatch.setattr(export_onnx.Sessions, "open", lambda folder: None)
    monkeypatch.setattr(parity, "measure", measure)
    return settings


def export(*words: object) -> None:
    export_onnx.main([str(word) for word in words])


def refusal(*words: object) -> str:
    with pytest.raises(SystemExit) as stop:
        export(*words)
    assert isinstance(stop.value.code, str) and ": error: " in stop.value.code
    assert len(stop.value.code.splitlines()) == 1
    return stop.value.code


def metadata(folder: Path, name: str = POSITION) -> dict[str, Any]:
    model = onnx.load(folder / name)
    return {entry.key: json.loads(entry.value) for entry in model.metadata_props}


def model_params(folder: Path) -> dict[str, Any]:
    content = yaml.safe_load((folder / PARAMETERS).read_text())
    return content["/**"]["ros__parameters"]["model_params"]


def test_a_whole_export(run: Path, whole: tuple[Path, str]) -> None:
    out, said = whole
    assert sorted(path.name for path in out.iterdir()) == NAMES
    assert f"{out}: small, model_final.pth, frame base_link, fp32" in said
    for name in (*GRAPHS, "all_cls_scores", "1x10x16", "post_memory_velo", "1x12x2"):
        assert name in said
    assert f"python tools/predict.py --onnx {out} --folder DRIVE" in said and "trtexec" in said
    first = metadata(out, BACKBONE)
    assert first == metadata(out, POSITION) == metadata(out, HEAD)
    weights = run / "model_final.pth"
    assert (first["recipe"], first["weights"]) == ("small", "model_final.pth")
    assert first["weights_sha256"] == digest_of(weights)
    assert first["frame"] == "base_link" and first["frame_period_s"] == 0.4
    assert [row[3] for row in first["lidar_to_base_link"][:3]] == REFERENCE[:3]
    assert first["pixel_mean"] == [123.675, 116.28, 103.53]  # not the digits of float32
    assert first["center_range"] == [-30.6, -30.6, -10.0, 30.6, 30.6, 10.0]
    record = json.loads((out / PARITY).read_text())
    assert record["tolerance"] == 1e-4 and len(record["by_frame"]) == 6
    for name in TENSORS:
        of_frames = [frame[name] for frame in record["by_frame"]]
        assert 0 <= max(of_frames) == record["largest"][name] <= 1e-4
    assert max(record["largest"].values()) > 0
    assert set(record["versions"]) == {"torch", "onnx", "onnxscript", "onnxruntime"}
    assert record["sha256"] == {name: digest_of(out / name) for name in GRAPHS}
    assert record["machine"]["date"] and record["seconds"]["export"] > 0
    assert record["sizes_mb"][HEAD] == pytest.approx((out / HEAD).stat().st_size / 1e6, abs=1e-3)
    assert record["description"]["classes"][0] == "car"
    found = model_params(out)
    assert (found["num_proposals"], found["rois_number"]) == (16, 6)
    assert (found["pre_memory_length"], found["post_memory_length"]) == (8, 12)
    assert (found["input_image_height"], found["input_image_width"]) == (160, 400)
    loaded = Predictor.load(onnx=out).loaded
    assert loaded.spec.class_names[0] == "car" and loaded.frame_period_s == 0.4
    assert loaded.reference_to_vehicle.translation_m.tolist() == REFERENCE[:3]


def test_its_configuration_is_the_detectors(run: Path, tmp_path: Path, quick: dict) -> None:
    export("--run", run, "--out", tmp_path / "onnx")
    weights = run / "model_final.pth"
    first, again = (
        load_detector(config=config, weights=weights)
        for config in (run / "config.yaml", tmp_path / "onnx" / CONFIG)
    )
    assert (first.spec, first.image_aug) == (again.spec, again.image_aug)
    states = first.detector.state_dict(), again.detector.state_dict()
    assert states[0].keys() == states[1].keys()
    text = (tmp_path / "onnx" / CONFIG).read_text()
    assert "${" not in text and "nuscenes_mini" not in text and "criterion: null" in text
    # With the same weights it can be exported again.
    export(
        "--config-file", tmp_path / "onnx" / CONFIG, "--weights", weights, "--out", tmp_path / "b"
    )
    assert metadata(tmp_path / "b")["recipe"] == "onnx"


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*.py")), ids=lambda path: path.stem)
def test_every_recipe_is_written_as_plain_data(path: Path, tmp_path: Path) -> None:
    cfg = load_config(str(path))
    export_onnx.write_recipe(cfg, tmp_path / CONFIG)
    again = read_config(str(tmp_path / CONFIG))
    assert spec_of(again) == spec_of(cfg) and image_aug_of(again) == image_aug_of(cfg)
    with torch.device("meta"):
        one, other = instantiate_model(cfg), instantiate_model(again)
    assert str(one) == str(other)


def test_a_recipe_with_more_than_plain_data(
    run: Path, tmp_path: Path, quick: dict, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mine.py").write_text(
        "from torch import nn\n"
        "from streampetr_vit.engine import load_config\n"
        f"cfg = load_config({str(run / 'config.yaml')!r})\n"
        "model, optimizer, schedule, train, dataloader, dataset_spec = (\n"
        "    cfg[name] for name in "
        "('model', 'optimizer', 'schedule', 'train', 'dataloader', 'dataset_spec'))\n"
        "model.backbone.net.norm_layer = nn.LayerNorm\n"
    )
    words = ["--config-file", tmp_path / "mine.py", "--weights", run / "model_final.pth"]
    message = refusal(*words, "--out", tmp_path / "onnx")
    assert "config.yaml, line " in message and "asks for a Python object" in message
    assert "detector" not in quick and not (tmp_path / "onnx").exists()  # before the export


def test_recipe_weights_and_options(run: Path, tmp_path: Path, quick: dict) -> None:
    shutil.copytree(run, tmp_path / "run")
    (tmp_path / "run" / "model_final.pth").rename(tmp_path / "run" / "other.pth")
    words = ["--run", tmp_path / "run", "--weights", "other.pth", "--ema", "--precision"]
    words += ["fp16-backbone", "--frame", "base_link", "--out", tmp_path / "onnx"]
    export(*words, "model.head.max_detections=7", "model.memory_at_test=False")
    said = metadata(tmp_path / "onnx")
    assert said["weights"] == "other.pth (moving average)"
    assert (said["precision"], said["frame"]) == ("fp16-backbone", "base_link")
    assert (said["max_detections"], said["remembers"]) == (7, False)
    assert json.loads((tmp_path / "onnx" / PARITY).read_text())["tolerance"] is None
    final = torch.load(tmp_path / "run" / "other.pth", weights_only=True)["model"]
    average = quick["detector"].state_dict()
    assert all(torch.equal(value, final[name] * 1.01) for name, value in average.items())
    export("--run", run, "--out", tmp_path / "lidar")
    assert metadata(tmp_path / "lidar")["frame"] == "lidar"


def test_a_recipe_and_its_name(run: Path, tmp_path: Path, quick: dict) -> None:
    shutil.copy(run / "config.yaml", tmp_path / "mine.yaml")
    words = ["--config-file", tmp_path / "mine.yaml", "--weights", run / "model_final.pth"]
    export(*words, "--out", tmp_path / "onnx")
    assert metadata(tmp_path / "onnx")["recipe"] == "mine"


@pytest.mark.parametrize("deviation", [0.011, math.inf])
def test_graphs_that_are_not_as_pytorch(
    run: Path, tmp_path: Path, quick: dict, deviation: float
) -> None:
    quick["deviation"] = deviation
    message = refusal("--run", run, "--out", tmp_path / "onnx")
    assert "the graphs are not as PyTorch, and nothing was written: they are away by " in message
    assert f"velo {deviation:.1e}" in message and "more than 0.01;" in message
    assert not (tmp_path / "onnx").exists()
    # Half precision says how far it is. JSON has no infinity.
    export("--run", run, "--out", tmp_path / "half", "--precision", "fp16-backbone")
    record = json.loads((tmp_path / "half" / PARITY).read_text())
    expected = deviation if deviation < 1 else None
    assert record["largest"]["velo"] == record["by_frame"][1]["velo"] == expected


def test_graphs_that_round_more_than_usual(
    run: Path, tmp_path: Path, quick: dict, caplog: pytest.LogCaptureFixture
) -> None:
    quick["deviation"] = 1.1e-4
    export("--run", run, "--out", tmp_path / "onnx")
    assert "velo is 1.1e-04 away from PyTorch, more than the usual 0.0001" in caplog.text


def test_weights_that_the_graphs_do_not_have(
    run: Path,
    whole: tuple[Path, str],
    tmp_path: Path,
    quick: dict,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    write = export_onnx.export_graphs

    def of_another(detector: object, description: Description, folder: Path) -> Interface:
        interface = write(detector, description, folder)
        for name in GRAPHS:
            shutil.copy(whole[0] / name, folder / name)
        return interface

    monkeypatch.setattr(export_onnx, "export_graphs", of_another)
    monkeypatch.setattr(export_onnx, "check_held", check_held)
    export("--run", run, "--out", tmp_path / "onnx")
    message = refusal("--run", run, "--out", tmp_path / "ema", "--ema")
    assert "have other values in" in message and "constraints.txt" in message
    assert not (tmp_path / "ema").exists()


def test_an_earlier_export_and_other_folders(
    run: Path, tmp_path: Path, quick: dict, caplog: pytest.LogCaptureFixture
) -> None:
    out = tmp_path / "onnx"
    words = ["--run", run, "--out", out]
    export(*words)
    assert "holds this export already: add --overwrite" in refusal(*words)
    (out / "mine.txt").touch()
    export(*words, "--overwrite")
    message = refusal(*words, "--autoware")
    assert "holds another export (frame is 'lidar' there, 'base_link' now): choose" in message
    assert metadata(out)["frame"] == "lidar"
    export(*words, "--autoware", "--overwrite")
    assert f"{out}: replacing another export (frame is 'lidar' there" in caplog.text
    assert metadata(out)["frame"] == "base_link"
    assert sorted(path.name for path in out.iterdir()) == sorted([*NAMES, "mine.txt"])
    before = (run / "config.yaml").read_bytes()
    assert "holds other files (checkpoints.sha256, " in refusal(
        "--run", run, "--out", run, "--overwrite"
    )
    assert (run / "config.yaml").read_bytes() == before
    assert "is a file: give --out" in refusal("--run", run, "--out", run / "config.yaml")


@pytest.mark.parametrize("package", ["onnx", "onnxscript", "onnxruntime"])
def test_without_a_package_of_the_extra(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, package: str
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    message = refusal("--run", run, "--out", tmp_path / "onnx")
    assert f"the package {package} is needed" in message and "'.[export]'" in message
    assert not (tmp_path / "onnx").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ["--run", "{run}", "dataloader.train.mapper.image_aug.final_size=[160,408]"],
            "final_size is [160, 408], which the network pads to [160, 416]",
        ),
        (["--run", "{run}", "model.token_ratio=0.5"], "model.token_ratio is 0.5"),
        (["--run", "{run}", "model.head.num_layers=2"], "model.head.num_layers=2"),
        (
            ["--run", "{run}", "model.head.decoder.embed_dim=64"],
            "tensors have another shape: head.",
        ),
        (
            ["--config-file", "{configs}/quickstart.py", "--weights", "{run}/model_final.pth"],
            "12 tensors have another shape",
        ),
        (
            ["--config-file", "{repdetr3d}/config.yaml", "--weights", "{run}/model_final.pth"],
            "head.token_modulation.reduce.weight is (128, 8) in the file, (128, 14) in the model",
        ),
        (["--run", "{repdetr3d}"], "is 'gather', whose shapes depend on the values: set"),
        (["--run", "{petr}"], "memory_length is 0 (PETR"),
        (["--run", "{run}", "--autoware", "--frame", "lidar"], "export with --frame base_link"),
        (
            ["--run", "{run}", "--autoware", "model.input_format=BGR"],
            "model.input_format is 'BGR': Autoware's node gives RGB",
        ),
        (["--run", "{run}", "--weights", "no.pth"], "no.pth' does not exist"),
        (["--run", "{run}/no"], "does not exist: give the folder of a training"),
        (["--config-file", "no.py", "--weights", "{run}/model_final.pth"], "'no.py' does not ex"),
    ],
)
def test_bad_input_is_one_line(
    run: Path, others: dict[str, Path], tmp_path: Path, words: list[str], message: str
) -> None:
    named = [word.format(run=run, configs=CONFIGS, **others) for word in words]
    overrides = [word for word in named if word.startswith(("model.", "dataloader."))]
    options = [word for word in named if word not in overrides]
    assert message in refusal(*options, "--out", tmp_path / "onnx", *overrides)
    assert not (tmp_path / "onnx").exists()


@pytest.fixture(scope="module")
def others(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Runs of detectors that do not export as they are, read only."""
    folder = tmp_path_factory.mktemp("others")
    petr = small_recipe()
    petr.model.head.update(num_propagated=0, num_remembered=0, memory_length=0)
    return {
        "petr": write_run(folder / "petr", petr),
        "repdetr3d": write_run(folder / "repdetr3d", small_recipe("quickstart_repdetr3d")),
    }


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--config-file", "a"], "--config-file needs --weights"),
        (["--run", "a", "--config-file", "b"], "not allowed with"),
        ([], "one of the arguments --run --config-file is required"),
        (["--run", "a", "--frame", "map"], "invalid choice: 'map'"),
        (["--run", "a", "--precision", "int8"], "invalid choice: 'int8'"),
    ],
)
def test_arguments_that_do_not_go_together(
    words: list[str], message: str, capsys: pytest.CaptureFixture
) -> None:
    with pytest.raises(SystemExit) as stop:
        export_onnx.parse_arguments([*words, "--out", "x"])
    assert stop.value.code == 2 and message in capsys.readouterr().err


def test_the_sampling_kernel_can_be_exchanged(
    others: dict[str, Path], tmp_path: Path, quick: dict
) -> None:
    words = ["--run", others["repdetr3d"], "--out", tmp_path / "onnx"]
    export(*words, "model.head.decoder.sampling_kernel=grid_sample")
    assert metadata(tmp_path / "onnx")["detector"] == "RepDETR3DHead"


def test_the_tool_runs_from_the_command_line() -> None:
    tool = str(ROOT / "tools" / "export_onnx.py")
    shown = subprocess.run([sys.executable, tool, "--help"], capture_output=True, text=True)
    assert shown.returncode == 0 and "examples:" in shown.stdout

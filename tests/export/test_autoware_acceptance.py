"""Exported graphs in Autoware's node: what it would crash on, and whether it sees PyTorch's boxes.

The real command exports the quick start's detector with random weights, in the frame of its
weights and in the vehicle's. Everything here is from the description of the node's source.
"""

from __future__ import annotations

import hashlib
import re
import subprocess
import sys
from dataclasses import dataclass
from importlib.metadata import version
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
import yaml
from autoware_drive import LENGTH, REFERENCE, drive, make_frames, write_weights
from autoware_node import (
    BACKBONE,
    HEAD,
    MEAN,
    PARAMETERS,
    POSITION,
    STD,
    TIE,
    Dims,
    OnnxGraphs,
    PyTorch,
    tensors_of_graphs,
)
from graph_problems import problems_of_file
from numpy.typing import NDArray

from streampetr_vit.engine import load_config
from streampetr_vit.inference.loading import LoadedDetector, load_detector
from streampetr_vit.structures import Frame

ROOT = Path(__file__).resolve().parents[2]
RECIPE = ROOT / "configs" / "quickstart.py"
TOLERANCE = 1e-4
TO_NODE = {"lidar": np.eye(4), "base_link": REFERENCE.matrix()}
OPTIONS = {"lidar": [], "base_link": ["--autoware"]}


@dataclass(frozen=True)
class Export:
    """A folder that the command wrote, and the frame that its graphs speak."""

    folder: Path
    frame: str

    @property
    def to_node(self) -> NDArray[np.float64]:
        """(4, 4) from the frame of the weights."""
        return TO_NODE[self.frame]


@pytest.fixture(scope="module")
def cfg() -> Any:
    return load_config(str(RECIPE))


@pytest.fixture(scope="module")
def dims(cfg: Any) -> Dims:
    return Dims.of(cfg)


@pytest.fixture(scope="module")
def weights(cfg: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_weights(cfg, tmp_path_factory.mktemp("weights"))


@pytest.fixture(scope="module")
def loaded(weights: Path) -> LoadedDetector:
    return load_detector(config=RECIPE, weights=weights, device="cpu", precision="float32")


@pytest.fixture(scope="module")
def scene(tiny_nuscenes: Path, loaded: LoadedDetector) -> list[Frame]:
    return make_frames(tiny_nuscenes, loaded.image_aug)


@pytest.fixture(scope="module", params=OPTIONS)
def export(
    request: pytest.FixtureRequest, weights: Path, tmp_path_factory: pytest.TempPathFactory
) -> Export:
    folder = tmp_path_factory.mktemp("export") / "graphs"
    command = ["tools/export_onnx.py", "--config-file", RECIPE, "--weights", weights]
    command += ["--out", folder, *OPTIONS[request.param]]
    result = subprocess.run(
        [sys.executable, *map(str, command)], cwd=ROOT, capture_output=True, text=True, timeout=500
    )
    assert result.returncode == 0, (result.stdout + result.stderr)[-4000:]
    return Export(folder, request.param)


def test_the_folder_has_the_files_that_the_node_looks_for(export: Export) -> None:
    found = {path.name for path in export.folder.iterdir()}
    assert {BACKBONE, POSITION, HEAD, PARAMETERS} <= found
    assert {name for name in found if name.endswith(".onnx")} == {BACKBONE, POSITION, HEAD}


@pytest.mark.parametrize("name", [BACKBONE, POSITION, HEAD])
def test_the_node_can_build_an_engine_and_find_its_tensors(
    name: str, export: Export, dims: Dims
) -> None:
    inputs, outputs = tensors_of_graphs(dims)[name]
    assert not problems_of_file(export.folder / name, inputs, outputs)


def test_it_sees_what_pytorch_sees(
    export: Export, loaded: LoadedDetector, dims: Dims, scene: list[Frame]
) -> None:
    """In all frames, from the first on, and after a wipe: logits, boxes and all five memories."""
    steps = drive(OnnxGraphs(export.folder), loaded.detector, dims, scene, export.to_node)
    assert len(steps) == LENGTH
    assert [step.misplaced for step in steps] == [[]] * LENGTH
    over = [
        f"frame {time}: {name} differs by {value}"
        for time, step in enumerate(steps)
        for name, value in step.differences.items()
        if not value <= TOLERANCE
    ]
    assert not over


def metadata(path: Path) -> str:
    """Everything that a graph says of itself."""
    model = onnx.load(str(path))
    return "\n".join(f"{entry.key} {entry.value}" for entry in model.metadata_props)


@pytest.mark.parametrize("name", [BACKBONE, POSITION, HEAD])
def test_a_graph_says_what_it_is_for(name: str, export: Export, weights: Path, cfg: Any) -> None:
    text = metadata(export.folder / name)
    assert RECIPE.stem in text
    assert hashlib.sha256(weights.read_bytes()).hexdigest() in text
    classes = [entry["name"] for entry in cfg.dataset_spec.classes]
    for names in (classes, cfg.dataset_spec.cameras):
        assert re.search(r"\b.*\b".join(names), text, re.DOTALL)
    numbers = np.array([float(n) for n in re.findall(r"-?\d+(?:\.\d+)?(?:e-?\d+)?", text)])
    wanted = [*cfg.dataloader.test.mapper.image_aug.final_size, *MEAN, *STD]
    if export.frame == "base_link":
        wanted += REFERENCE.translation_m.tolist()
    missing = [w for w in wanted if np.abs(numbers - w).min() > 1e-4]
    assert not missing


def test_the_graphs_say_which_code_wrote_them(export: Export) -> None:
    git = ["git", "rev-parse", "--short=7", "HEAD"]
    commit = subprocess.run(git, cwd=ROOT, capture_output=True, text=True)
    texts = [metadata(export.folder / name) for name in (BACKBONE, POSITION, HEAD)]
    # Without git there is no commit, but still a version.
    wanted = version("streampetr_vit") if commit.returncode else commit.stdout.strip()
    assert all(wanted in text for text in texts)


def test_the_parameters_are_those_of_the_graphs(export: Export, dims: Dims, cfg: Any) -> None:
    text = (export.folder / PARAMETERS).read_text()
    parameters = yaml.safe_load(text)["/**"]["ros__parameters"]["model_params"]
    names = [entry["name"].upper() for entry in cfg.dataset_spec.classes]
    assert parameters["class_names"] == names
    numbers = {
        "input_image_height": dims.H,
        "input_image_width": dims.W,
        "num_proposals": dims.Q,
        "rois_number": dims.N,
        "pre_memory_length": dims.P,
        "post_memory_length": dims.R,
    }
    # ROS tells 1 from 1.0 and from true.
    found = {name: (type(parameters[name]), parameters[name]) for name in numbers}
    assert found == {name: (int, number) for name, number in numbers.items()}


def test_the_range_is_where_the_model_looks_in_the_frame_of_the_boxes(
    export: Export, cfg: Any
) -> None:
    text = (export.folder / PARAMETERS).read_text()
    found = yaml.safe_load(text)["/**"]["ros__parameters"]["model_params"]["detection_range"]
    assert [type(value) for value in found] == [float] * 6  # ROS has no lists of mixed types
    head = cfg.model.head
    inner, outer = (
        moved_range(limits, export.to_node)
        for limits in (head.point_cloud_range, head.center_range)
    )
    # A person reads them: they may be rounded to a decimetre.
    assert np.all(np.array(found[:3]) >= outer[:3] - 0.1)
    assert np.all(np.array(found[3:]) <= outer[3:] + 0.1)
    # Turned by the tilt, the corners of a box reach farther than its middle does.
    middle, reach = (inner[3:] + inner[:3]) / 2, 0.9 * (inner[3:] - inner[:3]) / 2
    assert np.all(np.array(found[:3]) <= middle - reach)
    assert np.all(np.array(found[3:]) >= middle + reach)


def test_the_scene_tells_right_from_wrong(
    loaded: LoadedDetector, scene: list[Frame], dims: Dims
) -> None:
    """The car moves and turns, queries and entries differ, and the start of a stream shows."""
    poses = torch.cat([frame.lidar_to_global for frame in scene])
    assert (poses[1:, :3, 3] - poses[:-1, :3, 3]).norm(dim=1).min() > 0.3
    assert (poses[1:, :3, :3] - poses[:-1, :3, :3]).abs().amax((1, 2)).max() > 1e-3
    pytorch = PyTorch(loaded.detector, np.eye(4), np.zeros(3))
    steps = [pytorch(frame).tensors for frame in scene]
    for tensors in steps:
        assert np.ptp(tensors["all_cls_scores"], axis=2).min() > 0.5
        assert np.ptp(tensors["all_bbox_preds"], axis=2).min() > 0.2
        for name, least in (("embedding", 0.1), ("reference_point", 1), ("velo", 0.01)):
            assert np.ptp(tensors[f"post_memory_{name}"], axis=1).min() > least
        # Nothing swaps at the end of the newest entries: which queries they are is sure.
        best = np.sort(1 / (1 + np.exp(-tensors["all_cls_scores"][0].max(0))))[::-1]
        assert best[dims.R - dims.P - 1] - best[dims.R - dims.P] > TIE
    ages = [tensors["post_memory_timestamp"] for tensors in steps]
    assert [round(float(age.max()), 1) for age in ages] == [0.0, 0.5, 1.0, 0.0, 0.5, 1.0]


def moved_range(limits: list[float], matrix: NDArray[np.float64]) -> NDArray[np.float64]:
    """The box around a range's corners in another frame, (6,) x0, y0, z0, x1, y1, z1."""
    corners = np.array(list(product(*zip(limits[:3], limits[3:], strict=True))))  # (8, 3)
    corners = corners @ matrix[:3, :3].T + matrix[:3, 3]
    return np.concatenate((corners.min(0), corners.max(0)))

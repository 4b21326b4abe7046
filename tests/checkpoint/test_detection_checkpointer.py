"""EVA-02 detection files in our detector: detectron2's own checkpointer, and ours."""

from __future__ import annotations

import copy
import logging
import os
import subprocess
import sys
from pathlib import Path

import foreign_files as foreign
import pytest
import torch
from detectron2.checkpoint import DetectionCheckpointer
from detectron2.config import instantiate
from tiny_detector import make_detector

from streampetr_vit.checkpoint.loading import CheckpointError, SafeCheckpointer
from streampetr_vit.engine import load_config
from streampetr_vit.modeling.backbone import SimpleFeaturePyramid, SingleScale, ViT
from streampetr_vit.modeling.detector import StreamPETR

REPOSITORY = Path(__file__).resolve().parents[2]
SIZE = foreign.Size(dim=32, depth=2, hidden=85, head_dim=16, global_blocks=())


def detector(pyramid: str | None = None) -> StreamPETR:
    """The tiny detector with a backbone of `SIZE`; its pyramid is built but not read."""
    made = make_detector()
    vit = ViT(
        img_size=32,
        embed_dim=32,
        depth=2,
        num_heads=2,
        window_size=2,
        window_block_indexes=(0, 1),
    )
    made.backbone = (
        SingleScale(vit)
        if pyramid is None
        else SimpleFeaturePyramid(vit, "last_feat", 32, (4, 2, 1, 0.5), half_scale=pyramid)
    )
    return made


def eva_file(path: Path) -> dict[str, torch.Tensor]:
    """An EVA-02 detection file of `SIZE`."""
    weights = foreign.filled(foreign.eva_detection(SIZE, 32, grid=12), foreign.random_values)
    torch.save({"model": weights, "iteration": 40000}, path)
    return weights


@pytest.mark.parametrize("checkpointer", [DetectionCheckpointer, SafeCheckpointer])
@pytest.mark.parametrize(
    ("pyramid", "start"), [(None, 0), ("max_pool", 0), ("conv", 2)], ids=["none", "pool", "conv"]
)
def test_an_eva_detection_file_loads_as_it_is(
    checkpointer: type, pyramid: str | None, start: int, tmp_path: Path, caplog
) -> None:
    weights = eva_file(tmp_path / "eva.pth")
    model = detector(pyramid)
    before = copy.deepcopy(model.state_dict())
    with caplog.at_level(logging.INFO):
        checkpointer(model).load(str(tmp_path / "eva.pth"))
    state = model.state_dict()
    backbone = [name for name in state if name.startswith("backbone.")]
    from_file = [name for name in backbone if name in weights]
    assert all(torch.equal(state[name], weights[name]) for name in from_file)
    assert len(from_file) == 3 + 2 * 19 + (32 if pyramid else 0)
    assert len(backbone) - len(from_file) == start
    assert all(torch.equal(state[n], v) for n, v in before.items() if n not in from_file)
    assert "random start values" not in caplog.text or start  # nothing of the ViT is missing
    if checkpointer is DetectionCheckpointer:
        return
    text = caplog.text
    assert f"{len(from_file)} tensors loaded" in text
    assert "left out on purpose (rotary tables, computed for the image size): backbone.net" in text
    heads = "heads of EVA-02 detection): proposal_generator.rpn_head (2), roi_heads"
    assert heads in text
    assert "keep their start values: " in text and "head.decoder (38)" in text
    assert ("backbone.simfp_5 (2)" in text) == (pyramid == "conv")
    assert ("not used: backbone.simfp_2 (12)" in text) == (pyramid is None)
    # detectron2's own list of unexpected names has nothing to add.
    assert "roi_heads.mask_head.predictor.{bias}" not in text


@pytest.mark.parametrize(
    ("shapes", "message"),
    [
        (
            foreign.eva_detection(foreign.Size(64, 2, 170, 16, ()), 48),
            r"41 tensors have another shape.*\(embed_dim, depth",
        ),
        (
            foreign.under("backbone.net.", foreign.vit_shapes(SIZE, positions=5)),
            r"net.pos_embed is \(1, 5, 32\) in the file, \(1, 197, 32\).*pretrain_img_size",
        ),
        (
            foreign.under("backbone.net.", foreign.vit_shapes(SIZE, patch=14)),
            r"patches have another size.*--from eva02-cls",
        ),
    ],
    ids=["width", "positions", "patches"],
)
def test_other_shapes_name_the_setting_or_the_tool(
    shapes: foreign.Shapes, message: str, tmp_path: Path
) -> None:
    weights = foreign.filled(shapes, foreign.random_values)
    torch.save({"model": weights}, tmp_path / "eva.pth")
    with pytest.raises(CheckpointError, match=message):
        SafeCheckpointer(detector()).load(str(tmp_path / "eva.pth"))


def test_evaluation_refuses_a_backbone_and_says_how_to_do_without_the_2d_head(
    tmp_path: Path,
) -> None:
    eva_file(tmp_path / "eva.pth")
    model = detector()
    with pytest.raises(CheckpointError, match="not a whole detector.*head.decoder"):
        SafeCheckpointer(model, require_all=True).load(str(tmp_path / "eva.pth"))
    state = {k: v for k, v in model.state_dict().items() if not k.startswith("image_head.")}
    torch.save({"model": state}, tmp_path / "no_2d.pth")
    with pytest.raises(CheckpointError, match=r"model.image_head=null model.criterion.image=null"):
        SafeCheckpointer(model, require_all=True).load(str(tmp_path / "no_2d.pth"))


def test_weights_for_other_windows_are_not_evaluated(tmp_path: Path, caplog) -> None:
    """All shapes are the same; the file records what it was trained for."""
    trained = make_detector()
    SafeCheckpointer(trained, str(tmp_path)).save("model_final")
    path = str(tmp_path / "model_final.pth")
    SafeCheckpointer(make_detector(1), require_all=True).load(path)
    model = make_detector(1)
    net = dict(img_size=32, embed_dim=32, depth=2, num_heads=2, pretrain_img_size=32)
    model.backbone = SingleScale(ViT(**net, window_size=4, window_block_indexes=(0, 1)))
    message = r"block 0 has windows of 2 tokens in the file, 4 in the model.*use the recipe"
    with pytest.raises(CheckpointError, match=message):
        SafeCheckpointer(model, require_all=True).load(path)
    with caplog.at_level(logging.WARNING):
        SafeCheckpointer(model).load(path)  # a training may start from them
    assert "windows of 2 tokens" in caplog.text


def test_weights_for_other_ranges_are_not_evaluated(tmp_path: Path) -> None:
    SafeCheckpointer(make_detector(), str(tmp_path)).save("model_final")
    model = make_detector(point_cloud_range=(-25.6, -25.6, -5.0, 25.6, 25.6, 3.0))
    message = r"set model.head.point_cloud_range=\[-51.2,-51.2,-5,51.2,51.2,3\]"
    with pytest.raises(CheckpointError, match=message):
        SafeCheckpointer(model, require_all=True).load(str(tmp_path / "model_final.pth"))


def test_a_file_of_full_size_loads_into_the_recipe(tmp_path: Path, caplog) -> None:
    """1.3 GB for the model of ViT-L, next to none for the file."""
    weights = foreign.filled(foreign.eva_detection())
    torch.save({"model": weights}, tmp_path / "eva.pth")
    cfg = load_config(str(REPOSITORY / "configs" / "streampetr_eva02_l_800x320_24ep.py"))
    with torch.device("meta"):
        model = instantiate(cfg.model)
    model = model.to_empty(device="cpu")
    DetectionCheckpointer(model).load(str(tmp_path / "eva.pth"))
    backbone = model.backbone.state_dict(prefix="backbone.")
    assert len(backbone) == 459 and "random start values" not in caplog.text
    assert all(torch.equal(value, weights[name]) for name, value in backbone.items())


def test_loading_takes_at_most_2_2_times_the_file(tmp_path: Path) -> None:
    """Peak memory of a fresh process: the model itself and the pages of the file."""
    script = REPOSITORY / "benchmarks" / "cost.py"
    options = ["--depth", "2", "--tasks", "load", "convert-safetensors"]
    command = [sys.executable, str(script), "checkpoints", *options]
    search = os.pathsep.join([str(Path(foreign.__file__).parent), os.environ.get("PYTHONPATH", "")])
    environment = {**os.environ, "PYTHONPATH": search, "TMPDIR": str(tmp_path)}
    result = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    output = result.stdout
    assert "peak_over_file" in output.splitlines()[1]
    ratios = {line.split()[0]: float(line.split()[-1]) for line in output.splitlines()[3:]}
    assert set(ratios) == {"load", "convert-safetensors"}
    assert all(0.5 < ratio <= 2.2 for ratio in ratios.values()), output

"""Operations from the configuration, against the specification and against torch's counter."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from streampetr_vit.benchmark.flops import (
    ViTShape,
    WindowShape,
    image_branch_flops,
    neck_flops,
    pyramid_flops,
)
from streampetr_vit.benchmark.head_flops import head_flops
from streampetr_vit.benchmark.inputs import made_up_frame
from streampetr_vit.benchmark.session import frame_tflop
from streampetr_vit.engine import instantiate_model, load_config
from streampetr_vit.errors import InputError
from streampetr_vit.modeling.backbone import CPFPN, ViT

# torch says so of a setting that it reads when oneDNN is switched off.
pytestmark = pytest.mark.filterwarnings("ignore:TF32 acceleration on top of oneDNN")

CONFIGS = Path(__file__).resolve().parents[2] / "configs"
SMALL = dict(
    img_size=64,
    embed_dim=32,
    depth=3,
    num_heads=2,
    window_size=2,
    global_window_size=4,
    window_block_indexes=(0, 2),
)


def recipe(name: str, *overrides: str):
    return load_config(str(CONFIGS / f"{name}.py"), overrides)


def counted(module: torch.nn.Module, *inputs: object, **options: object) -> float:
    # The counter does not know oneDNN's products.
    with torch.backends.mkldnn.flags(enabled=False), FlopCounterMode(display=False) as counter:
        module.requires_grad_(False)(*inputs, **options)
    return counter.get_total_flops()


@pytest.mark.parametrize(
    ("name", "size", "form", "gflop"),
    [
        ("streampetr_eva02_l_800x320_24ep", (320, 800), "useful", 631.0),
        ("streampetr_eva02_l_800x320_24ep", (320, 800), "padded attention", 655.5),
        ("streampetr_eva02_l_800x320_24ep", (320, 800), "padded", 809.6),
        ("streampetr_eva02_l_1600x800_24ep", (800, 1600), "useful", 3515.4),
        ("streampetr_eva02_l_1600x640_24ep", (640, 1600), "useful", 2669.1),
    ],
)
def test_vit_l_has_the_specified_operations(name: str, size, form: str, gflop: float) -> None:
    vit = ViTShape.of(recipe(name).model.backbone.net)
    assert vit.flops(size, form) / 1e9 == pytest.approx(gflop, abs=0.05)


def test_windows_of_the_published_input() -> None:
    vit = ViTShape.of(recipe("streampetr_eva02_l_800x320_24ep").model.backbone.net)
    windows = vit.windows((320, 800))
    assert WindowShape(count=3, real=256, padded=0, local=True) in windows
    assert WindowShape(count=1, real=8, padded=248, local=True) in windows
    assert WindowShape(count=1, real=200, padded=200, local=False) in windows
    for local in (True, False):
        assert sum(w.count * w.real for w in windows if w.local == local) == 1000


def test_whole_map_is_one_window() -> None:
    vit = ViTShape.of({**SMALL, "global_window_size": 0})
    assert WindowShape(1, 16, 0, local=False) in vit.windows((64, 64))


@pytest.mark.parametrize("form", ["useful", "padded attention", "padded"])
def test_all_forms_agree_with_torch_where_nothing_is_padded(form: str) -> None:
    vit = ViT(**SMALL, xattn=False).eval()
    flops = counted(vit, torch.zeros(2, 3, 64, 128))
    assert 2 * ViTShape.of(SMALL).flops((64, 128), form) == flops


def test_padded_form_agrees_with_torch_where_windows_are_cut() -> None:
    vit = ViT(**SMALL, xattn=False).eval()
    flops = counted(vit, torch.zeros(1, 3, 64, 80))
    shape = ViTShape.of(SMALL)
    assert shape.flops((64, 80), "padded") == flops
    assert shape.flops((64, 80)) < shape.flops((64, 80), "padded attention") < flops


@pytest.mark.parametrize("name", ["quickstart", "quickstart_repdetr3d"])
def test_image_branch_and_head_agree_with_torch(name: str) -> None:
    overrides = ("model.backbone.net.xattn=false", "model.head.decoder.kernel=math")
    cfg = recipe(name, *overrides)
    model = instantiate_model(cfg).eval().requires_grad_(False)
    frame = made_up_frame((160, 400), 6, 1, torch.device("cpu"))
    with FlopCounterMode(display=False) as counter:
        features = model.image_features(frame.images)
    vit = ViTShape.of(cfg.model.backbone.net)
    waste = vit.flops((160, 400), "padded") - vit.flops((160, 400))
    assert 6 * (image_branch_flops(cfg.model, (160, 400)) + waste) == counter.get_total_flops()
    flops = counted(model.head, features, frame, model.empty_memory(1), image_size=(160, 400))
    head = head_flops(cfg.model.head, 6, 6 * 250)
    # Geometry and the modulation by the cameras are not counted.
    assert head.rig + head.rest == pytest.approx(flops, rel=2e-3)
    assert (head.rig > 0) == (name == "quickstart")


def test_pyramid_has_the_specified_operations() -> None:
    cfg = recipe("repdetr3d_eva02_l_800x320_24ep")
    vit = ViTShape.of(cfg.model.backbone.net)
    gflop = pyramid_flops(cfg.model.backbone, vit, (320, 800)) / 1e9
    assert gflop == pytest.approx(43.6, abs=0.06)


def test_neck_agrees_with_torch() -> None:
    settings = dict(in_channels=[32, 16], out_channels=8, in_features=["p3", "last_feat"])
    maps = {"p3": torch.zeros(1, 32, 8, 16), "last_feat": torch.zeros(1, 16, 4, 8)}
    flops = counted(CPFPN(**settings), maps)
    assert neck_flops(settings, ViTShape.of(SMALL), (64, 128)) == flops


def test_a_frame_is_the_sum_of_its_parts_and_grows_with_batch_and_cameras() -> None:
    cfg = recipe("quickstart")
    one = frame_tflop(cfg, (160, 400), 6, 1)
    parts = one["backbone"] + one["head"]
    assert one["frame"] == pytest.approx(parts)
    assert frame_tflop(cfg, (160, 400), 6, 2)["frame"] == pytest.approx(2 * one["frame"])
    assert frame_tflop(cfg, (160, 400), 3, 1)["backbone"] == pytest.approx(one["backbone"] / 2)


def test_what_is_not_counted_is_an_error() -> None:
    with pytest.raises(InputError, match="residual_block_indexes"):
        ViTShape.of({**SMALL, "residual_block_indexes": (1,)})
    with pytest.raises(InputError, match="form 'best'"):
        ViTShape.of(SMALL).flops((64, 64), "best")

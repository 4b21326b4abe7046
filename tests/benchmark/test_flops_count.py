"""Useful operations, against the specification and against torch's counter on the plain form."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from streampetr_vit.benchmark.flops import frame_tflop
from streampetr_vit.benchmark.inputs import made_up_frame
from streampetr_vit.engine import instantiate_model, load_config
from streampetr_vit.modeling.detector import StreamPETR

# torch says so of a setting that it reads when oneDNN is switched off.
pytestmark = pytest.mark.filterwarnings("ignore:TF32 acceleration on top of oneDNN")

CONFIGS = Path(__file__).resolve().parents[2] / "configs"
VIT_L = "streampetr_eva02_l_800x320_24ep"
PLAIN = ("model.backbone.net.xattn=false", "model.head.decoder.kernel=math")


def recipe(name: str, *overrides: str):
    return load_config(str(CONFIGS / f"{name}.py"), overrides)


def counted(cfg, size: tuple[int, int]) -> tuple[float, float]:
    """TFLOP of the image branch and the head as a run of the configured form does them."""
    model: StreamPETR = instantiate_model(cfg).eval().requires_grad_(False)
    frame = made_up_frame(size, 6, 1)
    # The counter does not know oneDNN's products.
    with torch.backends.mkldnn.flags(enabled=False), FlopCounterMode(display=False) as branch:
        features = model.image_features(frame.images)
    code = model.head.encode_rig(frame.rig, size)
    with torch.backends.mkldnn.flags(enabled=False), FlopCounterMode(display=False) as head:
        memory = model.empty_memory(1)
        model.head(features, frame, memory, image_size=size, rig_code=code)
    return 1e-12 * branch.get_total_flops(), 1e-12 * head.get_total_flops()


@pytest.mark.parametrize(
    ("name", "size", "gflop"),
    [
        (VIT_L, (320, 800), 631.0),
        ("streampetr_eva02_l_1600x640_24ep", (640, 1600), 2669.1),
        ("streampetr_eva02_l_1600x800_24ep", (800, 1600), 3515.4),
        ("repdetr3d_eva02_l_800x320_24ep", (320, 800), 631.0 + 43.6),
    ],
)
def test_vit_l_has_the_specified_operations(name: str, size, gflop: float) -> None:
    tflop = frame_tflop(recipe(name), size, cameras=1)
    assert 1e3 * tflop["backbone"] == pytest.approx(gflop, abs=0.06)


def test_the_plain_form_of_vit_l_does_the_work_of_the_padding_as_well() -> None:
    with torch.device("meta"):
        backbone = instantiate_model(recipe(VIT_L, *PLAIN)).backbone.requires_grad_(False)
        with FlopCounterMode(display=False) as counter:
            backbone(torch.zeros(1, 3, 320, 800))
    assert counter.get_total_flops() / 1e9 == pytest.approx(809.6, abs=0.05)
    # And the useful part of it does not depend on the form that is configured.
    assert frame_tflop(recipe(VIT_L, *PLAIN), (320, 800)) == frame_tflop(recipe(VIT_L), (320, 800))


@pytest.mark.parametrize("name", ["quickstart", "quickstart_repdetr3d"])
def test_where_nothing_is_padded_torch_counts_the_same_in_the_plain_form(name: str) -> None:
    # 4 x 8 tokens in windows of 2 and 4
    windows = ("model.backbone.net.window_size=2", "model.backbone.net.global_window_size=4")
    cfg = recipe(name, *PLAIN, *windows, "model.backbone.net.img_size=64")
    branch, head = counted(cfg, (64, 128))
    tflop = frame_tflop(cfg, (64, 128))
    assert tflop["backbone"] == pytest.approx(branch, rel=1e-9)
    assert tflop["head"] == pytest.approx(head, rel=1e-9)


def test_a_neck_is_counted() -> None:
    with_neck = frame_tflop(recipe("streampetr_eva02_l_800x320_cpfpn_24ep"), (320, 800), 1)
    without = frame_tflop(recipe(VIT_L), (320, 800), 1)
    assert with_neck["backbone"] > without["backbone"]


def test_a_frame_is_the_sum_of_its_parts_and_grows_with_batch_and_cameras() -> None:
    cfg = recipe("quickstart")
    one = frame_tflop(cfg, (160, 400))
    assert one["frame"] == pytest.approx(one["backbone"] + one["head"])
    assert frame_tflop(cfg, (160, 400), 6, 2)["frame"] == pytest.approx(2 * one["frame"])
    assert frame_tflop(cfg, (160, 400), 3)["backbone"] == pytest.approx(one["backbone"] / 2)


def test_a_kernel_with_shapes_that_depend_on_the_data_counts_as_the_other() -> None:
    gather = recipe("quickstart_repdetr3d", "model.head.decoder.sampling_kernel=gather")
    same = recipe("quickstart_repdetr3d", "model.head.decoder.sampling_kernel=grid_sample")
    assert frame_tflop(gather, (160, 400)) == frame_tflop(same, (160, 400))

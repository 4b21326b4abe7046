"""torch.compile by configuration: whole graphs, the same outputs, the same names."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
import torch
from tiny_detector import make_detector, make_repdetr3d, make_sample, with_boxes
from torch import Tensor
from torch._dynamo.utils import counters

from streampetr_vit.engine import load_config
from streampetr_vit.engine.building import build_model
from streampetr_vit.engine.compile import compile_parts
from streampetr_vit.errors import InputError
from streampetr_vit.inference import Stream
from streampetr_vit.modeling.detector import StreamPETR

both_heads = pytest.mark.parametrize("make", [make_detector, make_repdetr3d])


@pytest.fixture(autouse=True)
def nothing_compiled_before() -> Iterator[None]:
    """What is compiled in a test is forgotten after it, and the limits are as they were."""
    limits = torch._dynamo.config.recompile_limit, torch._dynamo.config.accumulated_recompile_limit
    torch._dynamo.reset()
    counters.clear()
    yield
    torch._dynamo.reset()
    torch._dynamo.config.recompile_limit, torch._dynamo.config.accumulated_recompile_limit = limits


def stream(detector: StreamPETR) -> list[Tensor]:
    """Boxes and scores of three frames."""
    frames = Stream(detector)
    found = [frames([make_sample(time)])[0] for time in range(3)]
    return [value for one in found for value in (one.boxes, one.scores)]


def step(detector: StreamPETR, boxes: int) -> dict[str, Tensor]:
    """Gradients of a training step on a frame with so many boxes."""
    detector.train().zero_grad()
    torch.manual_seed(0)
    losses, _ = detector.losses([with_boxes(make_sample(0), boxes)])
    sum(losses.values()).backward()
    return {name: p.grad.clone() for name, p in detector.named_parameters() if p.grad is not None}


@both_heads
def test_compiled_parts_are_whole_graphs_with_the_same_outputs(
    make: Callable[[], StreamPETR],
) -> None:
    plain, compiled = make().eval(), make().eval()
    names = list(compiled.state_dict())
    compile_parts(compiled, backbone=True, decoder=True, backend="eager")
    for found, expected in zip(stream(compiled), stream(plain), strict=True):
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)
    # Two equal blocks are one graph, the decoder is another, and nothing breaks them.
    assert counters["stats"]["unique_graphs"] == 2
    assert not counters["graph_break"]
    assert list(compiled.state_dict()) == names


@pytest.mark.parametrize("checkpointing", [False, True])
def test_gradients_are_the_same_with_and_without_checkpointing(checkpointing: bool) -> None:
    plain, compiled = make_detector(), make_detector()
    for detector in (plain, compiled):
        detector.backbone.net.use_act_checkpoint = checkpointing
        detector.head.decoder.use_act_checkpoint = checkpointing
    compile_parts(compiled, backbone=True, decoder=True, backend="aot_eager")
    for boxes in (3, 1):  # another number of denoising queries
        expected, found = step(plain, boxes), step(compiled, boxes)
        assert set(found) == set(expected)
        for name, value in expected.items():
            torch.testing.assert_close(found[name], value, atol=1e-4, rtol=1e-3, msg=name)
    assert not counters["graph_break"]


def test_blocks_of_many_drop_path_rates_stay_compiled() -> None:
    """They share torch's limit of compiled forms, and each rate is a form of its own."""
    detector = make_detector().train()
    block = detector.backbone.net.blocks[0]
    blocks = [type(block)(block.attn, 32, 2.0, 0.1 + i / 100, torch.nn.LayerNorm) for i in range(9)]
    detector.backbone.net.blocks = torch.nn.ModuleList(blocks)
    compile_parts(detector, backbone=True, backend="eager")
    detector.image_features(torch.zeros(1, 1, 3, 32, 64))
    assert counters["frames"]["ok"] == 9
    assert not counters["unimplemented"]


def test_the_model_of_a_configuration_is_compiled_as_it_says(caplog) -> None:
    changes = ["train.device=cpu", "train.compile.decoder=True"]
    model = build_model(load_config("configs/quickstart.py", changes))
    assert model.head.decoder._compiled_call_impl is not None
    assert all(block._compiled_call_impl is None for block in model.backbone.net.blocks)
    old = load_config("configs/quickstart.py", ["train.device=cpu"])
    del old.train["compile"]
    assert build_model(old).head.decoder._compiled_call_impl is None


def test_what_cannot_be_compiled_is_named() -> None:
    with pytest.raises(InputError, match="mode='reduce-overhead': allowed are 'default'"):
        compile_parts(make_detector(), mode="reduce-overhead")
    selective = make_detector()
    selective.backbone.net.use_act_checkpoint = "selective"
    with pytest.raises(InputError, match="use_act_checkpoint='selective': set that to True or"):
        compile_parts(selective, backbone=True)
    with pytest.raises(InputError, match="compile.backbone=True, but Linear has no ViT"):
        compile_parts(torch.nn.Linear(1, 1), backbone=True)

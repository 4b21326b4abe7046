"""A detector computes with its average where something could have kept its weights."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from tiny_detector import make_detector, make_sample
from torch import Tensor
from torch._dynamo.utils import counters

from streampetr_vit.engine.compile import compile_parts
from streampetr_vit.inference import Stream
from streampetr_vit.modeling.detector import StreamPETR
from streampetr_vit.solver import WeightAverage


@pytest.fixture(autouse=True)
def nothing_compiled_before() -> Iterator[None]:
    """What is compiled in a test is forgotten after it."""
    torch._dynamo.reset()
    counters.clear()
    yield
    torch._dynamo.reset()


def stream(detector: StreamPETR, precision: str) -> list[Tensor]:
    """Boxes and scores of three frames."""
    frames = Stream(detector, precision)
    found = [frames([make_sample(time)])[0] for time in range(3)]
    return [value for one in found for value in (one.boxes, one.scores)]


def are_equal(one: list[Tensor], other: list[Tensor]) -> bool:
    return all(map(torch.equal, one, other))


@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize("precision", ["float32", "bf16"])
def test_streams_inside_and_after_the_block(precision: str, compiled: bool) -> None:
    detector, other = make_detector(1).eval(), make_detector(2).eval()
    average = WeightAverage(detector)
    average.load_state_dict(other.state_dict())
    other.load_state_dict(average.state_dict())  # the buffers are the detector's
    if compiled:
        compile_parts(detector, backbone=True, decoder=True, backend="eager")
        compile_parts(other, backbone=True, decoder=True, backend="eager")
    before, expected = stream(detector, precision), stream(other, precision)
    graphs = counters["stats"]["unique_graphs"]
    with average.swapped():
        assert are_equal(stream(detector, precision), expected)
    assert are_equal(stream(detector, precision), before) and not are_equal(before, expected)
    assert counters["stats"]["unique_graphs"] == graphs  # nothing was compiled anew


def test_a_training_step_after_the_block_is_as_without_it() -> None:
    def gradients(detector: StreamPETR) -> dict[str, Tensor]:
        detector.train().zero_grad()
        torch.manual_seed(0)
        sum(detector.losses([make_sample(0)])[0].values()).backward()
        return {n: p.grad for n, p in detector.named_parameters() if p.grad is not None}

    detector = make_detector(1)
    average = WeightAverage(detector)
    average.load_state_dict(make_detector(2).state_dict())
    with average.swapped():
        stream(detector.eval(), "float32")
    found, expected = gradients(detector), gradients(make_detector(1))
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in expected)

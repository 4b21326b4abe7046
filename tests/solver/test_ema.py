"""The average of the weights against plain maths, and what it does to the model."""

from __future__ import annotations

import math

import pytest
import torch
from synchronisation import NoSynchronisation
from torch import nn

from streampetr_vit.errors import CheckpointError
from streampetr_vit.solver import WeightAverage


def model_with_buffers(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Linear(8, 1))


def change(model: nn.Module) -> None:
    """Stands in for a step of training."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += torch.randn_like(parameter)


def test_the_fused_update_equals_plain_maths() -> None:
    model = model_with_buffers()
    average = WeightAverage(model, decay=0.9, warmup_iters=5)
    expected = {name: p.detach().double() for name, p in model.named_parameters()}
    for update in range(1, 20):
        change(model)
        average.update(update)
        decay = 0.9 * (1 - math.exp(-update / 5))
        for name, p in model.named_parameters():
            expected[name] = decay * expected[name] + (1 - decay) * p.detach().double()
    state = average.state_dict()
    for name, value in expected.items():
        torch.testing.assert_close(state[name].double(), value, rtol=1e-5, atol=1e-6)
        assert not torch.allclose(state[name], model.get_parameter(name))


def test_an_update_does_not_wait_for_the_device() -> None:
    average = WeightAverage(model_with_buffers())
    with NoSynchronisation():
        average.update(7)


@pytest.mark.parametrize(
    ("settings", "iteration", "expected"),
    [
        ((0.9999, 1000, 0), 0, 0.0),
        ((0.9999, 1000, 0), 1, 0.9999 * (1 - math.exp(-0.001))),
        ((0.9999, 1000, 0), 1000, 0.9999 * (1 - 1 / math.e)),
        ((0.9999, 1000, 0), 100000, 0.9999),
        ((0.9999, 1000, 500), 500, 0.0),
        ((0.9999, 1000, 500), 1500, 0.9999 * (1 - 1 / math.e)),
        ((0.9, 0, 0), 1, 0.9),
        ((0.9, 0, 3), 3, 0.0),
    ],
)
def test_the_decay_warms_up(
    settings: tuple[float, int, int], iteration: int, expected: float
) -> None:
    average = WeightAverage(nn.Linear(1, 1), *settings)
    assert average.decay_at(iteration) == pytest.approx(expected, abs=1e-8)


def test_until_the_start_the_average_equals_the_weights() -> None:
    model = model_with_buffers()
    average = WeightAverage(model, decay=0.9, warmup_iters=0, start_iter=3)
    for done in range(1, 4):
        change(model)
        average.update(done)
        state = average.state_dict()
        assert all(torch.equal(p, state[name]) for name, p in model.named_parameters())
    change(model)
    average.update(4)
    assert not torch.allclose(average.state_dict()["0.weight"], model[0].weight)


def test_the_state_has_the_models_names_and_its_buffers() -> None:
    model = model_with_buffers()
    average = WeightAverage(model)
    model(torch.randn(5, 4))  # changes the statistics
    state = average.state_dict()
    assert list(state) == list(model.state_dict())
    assert torch.equal(state["1.running_mean"], model[1].running_mean)
    assert state["1.running_mean"].any()
    assert not any(value.requires_grad for value in state.values())


def test_a_weight_with_two_names_has_one_average() -> None:
    model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    model[1].weight = model[0].weight
    average = WeightAverage(model, decay=0.5, warmup_iters=0)
    change(model)
    average.update(1)
    state = average.state_dict()
    assert state["0.weight"] is state["1.weight"]
    assert not torch.equal(state["1.weight"], model[1].weight)


def test_a_block_computes_with_the_average_and_nothing_is_copied() -> None:
    model = model_with_buffers().eval()
    average = WeightAverage(model, decay=0.5, warmup_iters=0)
    change(model)
    average.update(1)
    x = torch.randn(5, 4)
    other = model_with_buffers(1).eval()
    other.load_state_dict(average.state_dict())
    weights, addresses = model(x), [p.data_ptr() for p in model.parameters()]
    parameters = list(model.parameters())
    with average.swapped():
        assert torch.equal(model(x), other(x))
        assert model[0].weight.data_ptr() == average.state_dict()["0.weight"].data_ptr()
        assert all(a is b for a, b in zip(model.parameters(), parameters, strict=True))
    assert [p.data_ptr() for p in model.parameters()] == addresses
    assert torch.equal(model(x), weights) and not torch.equal(weights, other(x))


def test_the_weights_are_back_after_an_error() -> None:
    model = model_with_buffers()
    average = WeightAverage(model, decay=0.5, warmup_iters=0)
    change(model)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(KeyboardInterrupt), average.swapped():
        raise KeyboardInterrupt
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    average.update(1)
    assert not torch.equal(average.state_dict()["0.weight"], model[0].weight)


def test_an_average_takes_the_values_of_a_state_and_leaves_the_model() -> None:
    model, source = model_with_buffers(), model_with_buffers(1)
    average = WeightAverage(model)
    before = model[0].weight.clone()
    assert not average.is_loaded
    average.load_state_dict(source.state_dict())
    assert average.is_loaded
    assert torch.equal(average.state_dict()["0.weight"], source[0].weight)
    assert torch.equal(model[0].weight, before)
    average.restart()
    assert torch.equal(average.state_dict()["0.weight"], before)


def test_a_state_of_another_model_is_refused_and_nothing_is_taken() -> None:
    average = WeightAverage(model_with_buffers())
    before = average.state_dict()["0.weight"].clone()
    state = model_with_buffers(1).state_dict()
    with pytest.raises(CheckpointError, match=r"has no 2.bias: it is of another.*train.ema=null"):
        average.load_state_dict({k: v for k, v in state.items() if k != "2.bias"})
    with pytest.raises(CheckpointError, match=r"2.weight has the shape \(2, 8\).* is \(1, 8\)"):
        average.load_state_dict({**state, "2.weight": torch.zeros(2, 8)})
    with pytest.raises(CheckpointError, match=r"2.bias holds NaN.*train.ema=null"):
        average.load_state_dict({**state, "2.bias": torch.full((1,), float("nan"))})
    assert torch.equal(average.state_dict()["0.weight"], before) and not average.is_loaded

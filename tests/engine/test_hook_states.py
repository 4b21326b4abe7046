"""Hooks keep their states over a resume, several of one class too."""

from __future__ import annotations

import logging
from typing import Any

import numpy as np
import pytest
import torch
from detectron2.engine import HookBase

from streampetr_vit.engine.hook_states import hooks_state, load_hooks_state, plain
from streampetr_vit.errors import CheckpointError


class Stateful(HookBase):
    def __init__(self, value: Any = None) -> None:
        self.value = value

    def state_dict(self) -> dict[str, Any]:
        return {"value": self.value}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.value = state_dict["value"]


class Other(Stateful):
    pass


def test_each_hook_of_a_class_gets_its_own_state() -> None:
    states = hooks_state([Stateful(1), HookBase(), Other(2), Stateful(3), Stateful(4)])
    assert states == {
        "Stateful": {"value": 1},
        "Other": {"value": 2},
        "Stateful#2": {"value": 3},
        "Stateful#3": {"value": 4},
    }
    hooks = [Other(), Stateful(), Stateful(), HookBase(), Stateful()]
    load_hooks_state(hooks, states)
    assert [getattr(hook, "value", None) for hook in hooks] == [2, 1, 3, None, 4]


def test_states_and_hooks_that_have_no_counterpart_are_named(
    caplog: pytest.LogCaptureFixture,
) -> None:
    hooks = [Stateful(1), Stateful(2), HookBase()]
    with caplog.at_level(logging.WARNING):
        load_hooks_state(hooks, {"Stateful": {"value": 5}, "Gone": {"value": 6}})
    assert [hook.value for hook in hooks[:2]] == [5, 2]
    assert [record.getMessage() for record in caplog.records] == [
        "the checkpoint has no state of the hook Stateful#2: it begins anew",
        "this run has no hook Gone: its state in the checkpoint is dropped",
    ]


def test_a_hook_that_does_not_take_its_state_is_named() -> None:
    message = r"the hook Stateful#2 does not take its state in the checkpoint \(KeyError: 'value'\)"
    with pytest.raises(CheckpointError, match=message):
        load_hooks_state([Stateful(), Stateful()], {"Stateful": {"value": 1}, "Stateful#2": {}})


def test_a_state_is_made_of_what_a_checkpoint_can_hold() -> None:
    value = {"a": np.float64(0.5), "b": [np.int64(3), (True, None, "x", b"y")], 4: torch.ones(2)}
    found = plain(value)
    assert torch.equal(found.pop(4), torch.ones(2))
    assert found == {"a": 0.5, "b": [3, (True, None, "x", b"y")]}
    assert type(found["a"]) is float and type(found["b"][0]) is int
    with pytest.raises(TypeError, match="it holds a numpy.ndarray; allowed are numbers, texts"):
        plain({"a": [np.ones(2)]})


def test_a_state_that_cannot_be_saved_leaves_the_others(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.ERROR):
        assert hooks_state([Stateful({1, 2}), Other(2)]) == {"Other": {"value": 2}}
    message = "the state of the hook Stateful is not saved: it holds a builtins.set"
    assert message in caplog.records[0].getMessage()

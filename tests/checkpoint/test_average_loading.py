"""Which weights of a file are taken: the model's, or their moving average."""

from __future__ import annotations

from pathlib import Path

import convert_checkpoint
import pytest
import torch
from tiny_detector import make_detector
from torch import nn

from streampetr_vit.checkpoint.files import read_checkpoint
from streampetr_vit.checkpoint.loading import CheckpointError, SafeCheckpointer
from streampetr_vit.solver import WeightAverage


def is_equal(model: nn.Module, state: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(value, state[name]) for name, value in model.state_dict().items())


@pytest.fixture
def trained(tmp_path: Path) -> WeightAverage:
    """The average in model_final.pth, which is that of another detector than the model there."""
    average = WeightAverage(make_detector(1))
    average.load_state_dict(make_detector(2).state_dict())
    SafeCheckpointer(make_detector(1), str(tmp_path), ema=average).save("model_final")
    return average


def test_the_average_is_taken_by_its_name(tmp_path: Path, trained: WeightAverage) -> None:
    path = str(tmp_path / "model_final.pth")
    model = make_detector()
    SafeCheckpointer(model, require_all=True, weights="ema").load(path)
    assert is_equal(model, trained.state_dict())
    SafeCheckpointer(model, require_all=True, weights="model").load(path)
    assert is_equal(model, make_detector(1).state_dict())


def test_a_resume_takes_the_models_weights_whatever_a_start_takes(
    tmp_path: Path, trained: WeightAverage
) -> None:
    model = make_detector()
    average = WeightAverage(model)
    checkpointer = SafeCheckpointer(model, str(tmp_path), weights="ema", ema=average)
    checkpointer.resume_or_load("", resume=True)
    assert is_equal(model, make_detector(1).state_dict())
    loaded, saved = average.state_dict(), trained.state_dict()
    assert all(torch.equal(loaded[name], saved[name]) for name in saved)


def test_a_file_without_an_average_says_what_it_has(tmp_path: Path) -> None:
    SafeCheckpointer(make_detector(1), str(tmp_path)).save("model_final", iteration=1)
    model = make_detector()
    message = r"model_final.pth holds no averaged weights \(ema or .*only: model, settings, iterati"
    with pytest.raises(CheckpointError, match=message):
        SafeCheckpointer(model, weights="ema").load(str(tmp_path / "model_final.pth"))
    assert is_equal(model, make_detector().state_dict())


def test_only_an_optional_part_may_be_missing_in_a_resume(tmp_path: Path) -> None:
    SafeCheckpointer(make_detector(1), str(tmp_path)).save("model_final")
    model = make_detector()
    average = WeightAverage(model)
    with pytest.raises(CheckpointError, match="no state of the ema"):
        SafeCheckpointer(model, str(tmp_path), ema=average).resume_or_load("")
    SafeCheckpointer(model, str(tmp_path), optional=["ema"], ema=average).resume_or_load("")
    assert is_equal(model, make_detector(1).state_dict()) and not average.is_loaded


def test_the_converter_writes_the_average_alone(tmp_path: Path, trained: WeightAverage) -> None:
    path = tmp_path / "model_final.pth"
    convert_checkpoint.main(["--ema", str(path), str(tmp_path / "average.pth")])
    content = read_checkpoint(tmp_path / "average.pth")
    assert content.keys() == {"model", "__author__", "settings"}
    assert content["settings"] == read_checkpoint(path)["settings"]
    model = make_detector()
    SafeCheckpointer(model, require_all=True).load(str(tmp_path / "average.pth"))
    assert is_equal(model, trained.state_dict())

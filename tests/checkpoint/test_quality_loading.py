"""Checkpoints with and without a quality branch, in detectors without and with one."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
import torch
from tiny_detector import make_detector

from streampetr_vit.checkpoint.loading import CheckpointError, SafeCheckpointer
from streampetr_vit.modeling.detector import StreamPETR

WITHOUT = "model.head.with_quality=False model.head.remember_by_quality=False"
NO_2D = "model.image_head=null model.criterion.image=null"


def saved(folder: Path, detector: StreamPETR, leave_out: str = "nothing") -> str:
    state = {k: v for k, v in detector.state_dict().items() if not k.startswith(leave_out)}
    torch.save({"model": state}, folder / "file.pth")
    return str(folder / "file.pth")


def test_a_released_checkpoint_starts_a_training_with_a_new_branch(tmp_path: Path, caplog) -> None:
    released, model = make_detector(1), make_detector(2, with_quality=True)
    start = {name: value.clone() for name, value in model.state_dict().items()}
    with caplog.at_level(logging.WARNING):
        SafeCheckpointer(model).load(saved(tmp_path, released), checkpointables=[])
    said = "not in the checkpoint, keep their start values: head.quality_branch (10)"
    assert said in caplog.text and "not used" not in caplog.text
    wanted = released.state_dict()
    for name, value in model.state_dict().items():
        assert torch.equal(value, wanted.get(name, start[name])), name


@pytest.mark.parametrize(
    ("leave_out", "told"), [("nothing", [WITHOUT]), ("image_head.", [WITHOUT, NO_2D])]
)
def test_evaluation_says_how_to_do_without_the_branch(
    leave_out: str, told: list[str], tmp_path: Path
) -> None:
    path = saved(tmp_path, make_detector(), leave_out)
    with pytest.raises(CheckpointError, match="head.quality_branch") as caught:
        SafeCheckpointer(make_detector(with_quality=True), require_all=True).load(path)
    message = str(caught.value)
    assert all(fix in message for fix in told) and "\n" not in message
    assert (NO_2D in message) == (NO_2D in told)


def test_a_file_that_lacks_more_is_not_helped_by_doing_without_the_branch(tmp_path: Path) -> None:
    path = saved(tmp_path, make_detector(), "head.box_branch.")
    with pytest.raises(CheckpointError, match="not a whole detector") as caught:
        SafeCheckpointer(make_detector(with_quality=True), require_all=True).load(path)
    assert "with_quality" not in str(caught.value)


def test_a_detector_without_evaluates_a_file_with_the_branch(tmp_path: Path, caplog) -> None:
    path = saved(tmp_path, make_detector(1, with_quality=True))
    model = make_detector(2)
    with caplog.at_level(logging.WARNING):
        SafeCheckpointer(model, require_all=True).load(path)
    assert "in the checkpoint, not used: head.quality_branch (10)" in caplog.text
    wanted = torch.load(path, weights_only=True)["model"]
    assert all(torch.equal(value, wanted[name]) for name, value in model.state_dict().items())

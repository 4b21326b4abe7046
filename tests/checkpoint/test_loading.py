"""Checkpoint files: what loads, and what each wrong file says."""

from __future__ import annotations

import errno
import logging
import os
import re
import resource
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

import pytest
import torch
from detectron2.checkpoint import DetectionCheckpointer
from safetensors.torch import save_file
from torch import nn

from streampetr_vit.checkpoint.fit import KeyReport, groups
from streampetr_vit.checkpoint.loading import CheckpointError, SafeCheckpointer
from streampetr_vit.errors import OutputError


class TwoParts(nn.Module):
    def __init__(self, classes: int = 3) -> None:
        super().__init__()
        self.backbone = nn.ModuleDict({"net": nn.Linear(4, 5)})
        self.head = nn.ModuleDict({"cls": nn.Linear(5, classes), "box": nn.Linear(5, 9)})


def is_equal(a: nn.Module, b: nn.Module) -> bool:
    return all(torch.equal(x, y) for x, y in zip(a.parameters(), b.parameters(), strict=True))


@pytest.fixture
def trained() -> TwoParts:
    torch.manual_seed(1)
    return TwoParts()


def save(path: Path, content: object) -> str:
    torch.save(content, path)
    return str(path)


@pytest.mark.parametrize(
    "layout",
    [
        lambda state: state,
        lambda state: {"model": state},
        lambda state: {"module": state},
        lambda state: {"meta": {}, "state_dict": state},
        lambda state: {"model": state, "settings": "of another project"},
        lambda state: {f"module.{name}": value for name, value in state.items()},  # DataParallel's
    ],
)
def test_our_names_load_from_every_layout(tmp_path: Path, trained: TwoParts, layout) -> None:
    model = TwoParts()
    path = save(tmp_path / "w.pth", layout(trained.state_dict()))
    SafeCheckpointer(model, require_all=True).load(path)
    assert is_equal(model, trained)


def test_safetensors_load(tmp_path: Path, trained: TwoParts) -> None:
    save_file(trained.state_dict(), tmp_path / "w.safetensors")
    model = TwoParts()
    SafeCheckpointer(model, require_all=True).load(str(tmp_path / "w.safetensors"))
    assert is_equal(model, trained)


def test_saved_checkpoints_load_with_detectron2_and_with_weights_only(
    tmp_path: Path, trained: TwoParts
) -> None:
    SafeCheckpointer(trained, str(tmp_path)).save("model_final", iteration=7)
    path = str(tmp_path / "model_final.pth")
    model = TwoParts()
    DetectionCheckpointer(model).load(path)
    assert is_equal(model, trained)
    assert torch.load(path, weights_only=True)["iteration"] == 7


@pytest.mark.parametrize("name", ["model_0000009", "model_0000019"], ids=["same name", "new name"])
def test_a_failing_save_leaves_the_last_checkpoint_as_it_was(
    tmp_path: Path, trained: TwoParts, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpointer = SafeCheckpointer(trained, str(tmp_path))
    checkpointer.save("model_0000009", iteration=9)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert before["last_checkpoint"] == b"model_0000009.pth" and len(before) == 3

    def full_disk(content: object, file: BinaryIO) -> None:
        file.write(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(torch, "save", full_disk)
    with pytest.raises(OutputError, match=rf"cannot write .*{name}.pth.*No space left"):
        checkpointer.save(name, iteration=19)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_a_disk_that_fills_up_is_an_error_of_one_line(tmp_path: Path, trained: TwoParts) -> None:
    """A limit of the size of files acts as a full disk; torch reports it in its own words."""
    checkpointer = SafeCheckpointer(trained, str(tmp_path))
    checkpointer.save("model_0000009", iteration=9)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    for size in (1, 1000, 50_000):  # in the header, in a tensor, in its middle
        large = {"big": torch.zeros(100_000)}
        try:
            resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))
            with pytest.raises(OutputError) as failure:
                checkpointer.save("model_0000019", **large)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        assert "\n" not in str(failure.value)
        assert re.search(r"cannot write .*19.pth': File too large; free some", str(failure.value))
        assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_a_failing_note_of_the_last_checkpoint_leaves_the_old_one(
    tmp_path: Path, trained: TwoParts, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpointer = SafeCheckpointer(trained, str(tmp_path))
    checkpointer.save("model_0000009")
    monkeypatch.setattr(os, "replace", failing_on("last_checkpoint", os.replace))
    with pytest.raises(OSError, match="last_checkpoint"):
        checkpointer.save("model_0000019")
    assert checkpointer.get_checkpoint_file() == str(tmp_path / "model_0000009.pth")
    names = {path.name for path in tmp_path.iterdir()}
    files = {"model_0000009.pth", "model_0000019.pth"}
    assert names == {"last_checkpoint", "checkpoints.sha256", *files}


def failing_on(name: str, function: Callable[..., None]) -> Callable[..., None]:
    def call(source: Path, target: Path) -> None:
        if target.name == name:
            raise OSError(errno.EIO, f"cannot replace {name}")
        function(source, target)

    return call


def test_a_backbone_file_starts_a_training_and_says_what_it_lacks(
    tmp_path: Path, trained: TwoParts, caplog
) -> None:
    state = {k: v for k, v in trained.state_dict().items() if k.startswith("backbone")}
    strange = ("roi_heads.box.weight", "backbone.net.rope_win.x", "b.c")
    state |= {name: torch.ones(1) for name in strange}
    path = save(tmp_path / "backbone.pth", {"model": state})
    model = TwoParts()
    with caplog.at_level(logging.INFO, logger="streampetr_vit"):
        SafeCheckpointer(model).load(path)
    assert torch.equal(model.backbone["net"].weight, trained.backbone["net"].weight)
    assert "2 tensors loaded" in caplog.text
    assert "keep their start values: head.cls (2), head.box (2)" in caplog.text
    assert "EVA-02 detection): roi_heads.box (1)" in caplog.text
    assert "computed for the image size): backbone.net (1)" in caplog.text
    assert "not used: b (1)" in caplog.text


def test_a_backbone_file_cannot_be_evaluated(tmp_path: Path, trained: TwoParts) -> None:
    state = {k: v for k, v in trained.state_dict().items() if k.startswith("backbone")}
    model, start = TwoParts(), TwoParts()
    start.load_state_dict(model.state_dict())
    with pytest.raises(
        CheckpointError, match=r"not a whole detector: 4 of .*head.cls \(2\), head.box \(2\)"
    ):
        SafeCheckpointer(model, require_all=True).load(save(tmp_path / "b.pth", state))
    assert is_equal(model, start)  # nothing was written


def test_other_shapes_are_an_error_unless_allowed(tmp_path: Path, caplog) -> None:
    path = save(tmp_path / "w.pth", TwoParts(classes=10).state_dict())
    with pytest.raises(
        CheckpointError, match=r"head.cls.weight is \(10, 5\) in the file, \(3, 5\) in the model"
    ):
        SafeCheckpointer(TwoParts()).load(path)
    with caplog.at_level(logging.WARNING, logger="streampetr_vit"):
        SafeCheckpointer(TwoParts(), allow_wrong_shape=True).load(path)
    assert "2 tensors have another shape: head.cls.weight is (10, 5) in the file" in caplog.text
    with pytest.raises(CheckpointError, match="another shape"):
        SafeCheckpointer(TwoParts(), allow_wrong_shape=True, require_all=True).load(path)


def test_a_missing_file_is_named() -> None:
    with pytest.raises(CheckpointError, match=r"'no/such.pth' does not exist.*init_checkpoint"):
        SafeCheckpointer(TwoParts()).load("no/such.pth")


@pytest.mark.parametrize(
    ("prefix", "advice"),
    [
        ("img_backbone.blocks.0.", "convert_checkpoint.py --from seed-remapped PATH CONVERTED.pth"),
        ("blocks.0.", "convert_checkpoint.py --from eva02-cls PATH CONVERTED.pth"),
        ("model_", "Names in the file: model_backbone.net.weight.*none of the known checkpoints"),
    ],
)
def test_a_file_of_which_nothing_fits_says_what_to_do(
    tmp_path: Path, trained: TwoParts, prefix: str, advice: str
) -> None:
    state = {f"{prefix}{k}": v for k, v in trained.state_dict().items()}
    state |= {"patch_embed.proj.weight": torch.ones(1)} if prefix == "blocks.0." else {}
    path = save(tmp_path / "w.pth", {"meta": {"epoch": 1}, "state_dict": state})
    model, start = TwoParts(), TwoParts()
    start.load_state_dict(model.state_dict())
    message = rf"no tensor matches.*{advice.replace('PATH', path)}"
    with pytest.raises(CheckpointError, match=message):
        SafeCheckpointer(model).load(path)
    assert is_equal(model, start)


def test_a_resumed_optimiser_does_not_depend_on_the_file(tmp_path: Path, trained: TwoParts) -> None:
    """Training overwrites the file that it resumed from while it goes on with its state."""
    optimizer = torch.optim.AdamW(trained.parameters())
    for parameter in trained.parameters():
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    SafeCheckpointer(trained, str(tmp_path), optimizer=optimizer).save("model_final")
    model = TwoParts()
    resumed = torch.optim.AdamW(model.parameters())
    checkpointer = SafeCheckpointer(model, str(tmp_path), optimizer=resumed)
    checkpointer.resume_or_load("", resume=True)
    size = (tmp_path / "model_final.pth").stat().st_size
    (tmp_path / "model_final.pth").write_bytes(bytes(size))
    for state in resumed.state.values():
        assert float(state["step"]) == 1 and torch.allclose(state["exp_avg"], torch.tensor(0.1))


def test_resume_needs_the_whole_state_and_finds_the_last_file(
    tmp_path: Path, trained: TwoParts
) -> None:
    writer = SafeCheckpointer(trained, str(tmp_path))
    writer.save("model_0000009", iteration=9)
    model = TwoParts()
    rest = SafeCheckpointer(model, str(tmp_path)).resume_or_load("", resume=True)
    assert rest["iteration"] == 9 and is_equal(model, trained)
    (tmp_path / "last_checkpoint").write_text("model_0000010.pth")
    with pytest.raises(
        CheckpointError, match=r"model_0000010.pth' does not exist.*last_checkpoint"
    ):
        SafeCheckpointer(model, str(tmp_path)).resume_or_load("", resume=True)


def test_resume_refuses_what_is_not_a_whole_checkpoint(tmp_path: Path, trained: TwoParts) -> None:
    SafeCheckpointer(trained, str(tmp_path)).save("model_final")
    model = TwoParts()
    optimizer = torch.optim.AdamW(model.parameters())
    checkpointer = SafeCheckpointer(model, str(tmp_path), trainer=optimizer)
    with pytest.raises(CheckpointError, match=r"holds weights only, no state of the trainer.*init"):
        checkpointer.resume_or_load("", resume=True)
    assert not is_equal(model, trained)  # nothing was written
    state = trained.state_dict()
    del state["head.cls.bias"]
    save(tmp_path / "model_final.pth", {"model": state, "trainer": optimizer.state_dict()})
    with pytest.raises(CheckpointError, match=r"1 of the model's tensors are not in it: head.cls"):
        checkpointer.resume_or_load("", resume=True)
    # The same file may start a training.
    checkpointer.resume_or_load(str(tmp_path / "model_final.pth"), resume=False)
    assert torch.equal(model.head["box"].weight, trained.head["box"].weight)


def test_advice_for_a_new_training_is_given_to_new_trainings_only(tmp_path: Path) -> None:
    path = save(tmp_path / "w.pth", TwoParts(classes=10).state_dict())
    with pytest.raises(CheckpointError, match="train.init_allow_wrong_shape=True"):
        SafeCheckpointer(TwoParts()).load(path)
    (tmp_path / "last_checkpoint").write_text("w.pth")
    for checkpointer in (
        SafeCheckpointer(TwoParts(), str(tmp_path), require_all=True),
        SafeCheckpointer(TwoParts(), str(tmp_path)),
    ):
        with pytest.raises(CheckpointError, match="another shape") as seen:
            checkpointer.resume_or_load(path, resume=True)
        assert "init_allow" not in str(seen.value)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_an_error(
    tmp_path: Path, trained: TwoParts, value: float
) -> None:
    with torch.no_grad():
        trained.head["box"].weight[0, 0] = value
    path = save(tmp_path / "w.pth", trained.state_dict())
    with pytest.raises(CheckpointError, match=r"w.pth: head.box.weight holds NaN or infinite"):
        SafeCheckpointer(TwoParts()).load(path)


def test_groups_count_by_the_first_two_parts() -> None:
    names = ["backbone.net.blocks.0.w", "backbone.net.pos", "head.a.b.c", "scale", "neck.w"]
    assert groups(names) == "backbone.net (2), head.a (1), scale (1), neck (1)"


def test_report_separates_the_four_cases() -> None:
    report = KeyReport.compare(
        {"a": torch.zeros(2), "b": torch.zeros(3), "d": torch.zeros(1)},
        {"a": torch.zeros(2), "b": torch.zeros(4), "c": torch.zeros(1)},
    )
    assert (report.matched, report.missing, report.unused) == (("a",), ("c",), ("d",))
    assert report.wrong_shape == (("b", (3,), (4,)),)


def test_report_names_what_is_left_out_and_why() -> None:
    names = ["roi_heads.x.y", "backbone.net.blocks.0.attn.rope.freqs_cos", "pixel_mean", "other.x"]
    report = KeyReport.compare({name: torch.zeros(1) for name in names}, {})
    assert report.unused == ("other.x",)
    assert {names[0] for names in report.left_out.values()} == set(names[:3])


@pytest.mark.parametrize(
    ("dtype", "name"),
    [(torch.complex64, "complex64"), (torch.int64, "int64"), (torch.float8_e4m3fn, "float8_e4m3")],
)
def test_numbers_of_another_kind_are_an_error(
    tmp_path: Path, trained: TwoParts, dtype: torch.dtype, name: str
) -> None:
    state = {key: value.to(dtype) for key, value in trained.state_dict().items()}
    path = save(tmp_path / "w.pth", state)
    with pytest.raises(CheckpointError, match=rf"weight holds {name}.*, the model's is float32"):
        SafeCheckpointer(TwoParts()).load(path)


def test_half_precision_files_load(tmp_path: Path, trained: TwoParts) -> None:
    path = save(tmp_path / "w.pth", {k: v.bfloat16() for k, v in trained.state_dict().items()})
    model = TwoParts()
    SafeCheckpointer(model).load(path)
    assert torch.allclose(model.head["box"].weight, trained.head["box"].weight, atol=1e-2)


def test_a_resumed_checkpoint_is_checked_for_nan_too(tmp_path: Path, trained: TwoParts) -> None:
    with torch.no_grad():
        trained.head["box"].weight.fill_(float("nan"))
    SafeCheckpointer(trained, str(tmp_path)).save("model_final")
    with pytest.raises(CheckpointError, match="NaN or infinite.*earlier checkpoint"):
        SafeCheckpointer(TwoParts(), str(tmp_path)).resume_or_load("", resume=True)


def test_a_folder_is_said_to_be_one(tmp_path: Path, trained: TwoParts) -> None:
    with pytest.raises(CheckpointError, match="is a folder: give a file; no checkpoint is in it"):
        SafeCheckpointer(TwoParts()).load(str(tmp_path))
    SafeCheckpointer(trained, str(tmp_path)).save("model_final")
    with pytest.raises(CheckpointError, match="files in it: model_final.pth"):
        SafeCheckpointer(TwoParts()).load(str(tmp_path))


def test_an_address_that_cannot_be_fetched_is_one_line(
    monkeypatch: pytest.MonkeyPatch, trained: TwoParts
) -> None:
    checkpointer = SafeCheckpointer(trained)

    def fails(path: str) -> str:
        raise OSError("Name or service not known")

    monkeypatch.setattr(checkpointer.path_manager, "get_local_path", fails)
    with pytest.raises(CheckpointError, match="cannot be fetched.*service not known.*pass its pa"):
        checkpointer.load("https://example.org/w.pth")

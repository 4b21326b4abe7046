"""benchmarks/onnx_runtime.py: its tables, and what it refuses to call equal."""

from __future__ import annotations

import copy
import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import onnx_runtime
import pytest
import torch

from streampetr_vit.errors import InputError

SMALL = (
    "model.backbone.net.depth=2",
    "model.head.decoder.num_layers=1",
    "dataloader.train.mapper.image_aug.final_size=[64,96]",
)
HEADER = ["form", "p50_ms", "fastest_ms", "plain / this"]
HEADER += ["backbone_ms", "head_ms", "rest_ms", "peak_gib"]


@pytest.fixture(autouse=True)
def restored_threads() -> Iterator[None]:
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


def here(function: Callable[..., Any], threads: int, *arguments: Any) -> Any:
    """In place of a process of its own."""
    return function(*arguments)


def test_each_form_has_a_row(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["onnx_runtime", "--rounds", "3", "--threads", "1", *SMALL])
    monkeypatch.setattr(onnx_runtime, "apart", here)
    onnx_runtime.main()
    tables = capsys.readouterr().out.split("\n\n")
    _, export, times, differences = (table.splitlines() for table in tables)
    assert float(export[-1].split()[0]) > 0
    header, _, *rows = (re.split(r"  +", line.strip()) for line in times[1:])
    assert times[0] == "a frame, 3 rounds" and header == HEADER
    assert [row[0] for row in rows] == list(onnx_runtime.FORMS)
    for row in rows:
        p50, fastest, ratio, backbone, head, rest, peak = map(float, row[1:])
        assert 0 < fastest <= p50 and min(backbone, head, rest, peak) > 0
        assert ratio == pytest.approx(float(rows[0][1]) / p50, rel=2e-3)
    assert len(differences) == 5 and "onnxruntime" in differences[-1]


def test_what_a_process_of_its_own_returns() -> None:
    assert onnx_runtime.apart(torch.get_num_threads, 3) == 3


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> list[onnx_runtime.Form]:
    """Twice the same form, after two frames."""
    folder = tmp_path_factory.getbasetemp()  # the graphs would be there
    settings = onnx_runtime.Session(str(onnx_runtime.RECIPE), SMALL)
    drive = onnx_runtime.frames(settings, 2)
    forms = [onnx_runtime.Form(settings, onnx_runtime.FAST, folder) for _ in range(2)]
    for form in forms:
        for frame in drive:
            form.push(frame)
    return forms


def test_forms_that_agree(two: list[onnx_runtime.Form]) -> None:
    row = onnx_runtime.differences(*two, two[0].detector.head.num_queries)
    assert (row["scores"], row["boxes"], row["fewest common boxes"]) == (0, 0, 1)


@pytest.mark.parametrize("name", ["scores", "boxes", "queries", "valid"])
def test_forms_that_do_not_agree(two: list[onnx_runtime.Form], name: str) -> None:
    form, other = two[0], copy.copy(two[1])
    *earlier, last = other.found
    value = getattr(last, name)
    changed = {
        "scores": lambda: value + 0.002,
        "boxes": lambda: value + torch.tensor([0.0, 0, 0, 0, 0, 0, 0, 0, 0.002]),
        "queries": lambda: value + 1000,
        "valid": lambda: value & (torch.arange(value.shape[1]) > 0),
    }[name]()
    other.found = [*earlier, replace(last, **{name: changed})]
    with pytest.raises(InputError, match="do not find the same|finds 300 boxes, .* 299"):
        onnx_runtime.differences(form, other, form.detector.head.num_queries)


def test_the_drive_is_one_stream_that_moves() -> None:
    settings = onnx_runtime.Session(str(onnx_runtime.RECIPE), SMALL)
    first, second = onnx_runtime.frames(settings, 2)
    assert [first.continues_stream.item(), second.continues_stream.item()] == [False, True]
    assert (second.lidar_to_global - first.lidar_to_global)[0, 0, 3] == pytest.approx(4)
    assert torch.equal(second.global_to_lidar.inverse(), second.lidar_to_global)
    assert not torch.equal(first.images, second.images)

"""Memories of all lanes in a checkpoint, and in a run with other processes."""

from __future__ import annotations

from pathlib import Path

import lazyconfig_train_net
import pytest
import torch
from detectron2.engine import default_argument_parser
from tiny_detector import make_detector, same

from streampetr_vit.engine.lane_memory import gather_rows, own_memory
from streampetr_vit.engine.processes import launch
from streampetr_vit.errors import CheckpointError

CONFIG = str(Path(__file__).with_name("toy_config.py"))


def run(output: Path, processes: int, *arguments: str) -> None:
    lanes = f"dataloader.train.lanes_per_rank={4 // processes}"
    words = ["--config-file", CONFIG, *arguments, "model.remembers=True", lanes]
    words += ["train.max_iter=12", "train.checkpointer.period=5", f"train.output_dir={output}"]
    args = default_argument_parser().parse_args([*words, "train.num_threads=1"])
    launch(lazyconfig_train_net.main, (args,), num_processes=processes, use_gpu=False)


@pytest.mark.parametrize(("before", "after"), [(2, 1), (1, 2)])
def test_other_processes_share_out_the_lanes_anew(
    tmp_path: Path, quick_processes: None, before: int, after: int
) -> None:
    run(tmp_path / "whole", 1)
    run(tmp_path / "cut", before)
    (tmp_path / "cut" / "last_checkpoint").write_text("model_0000004.pth")
    run(tmp_path / "cut", after, "--resume")
    assert "training from iteration 5 to 12" in (tmp_path / "cut" / "log.txt").read_text()
    whole, cut = (
        torch.load(tmp_path / name / "model_final.pth", weights_only=True)
        for name in ("whole", "cut")
    )
    for name, value in whole["model"].items():
        assert torch.allclose(value, cut["model"][name], rtol=1e-5, atol=1e-6), name
    memories = [content["memories"]["memory"] for content in (whole, cut)]
    assert memories[0].shape == (4,) and torch.allclose(*memories, rtol=1e-4)


def test_a_memory_comes_back_as_it_was_and_is_no_view_of_the_rows() -> None:
    memory = make_detector().empty_memory(3)
    memory.embedding.normal_()
    rows = gather_rows(memory)
    found = own_memory(rows, make_detector().empty_memory(3))
    assert same(found, memory)
    rows["embedding"].zero_()
    assert found.embedding.any()


def test_no_memory_has_no_rows() -> None:
    assert gather_rows(None) is None


@pytest.mark.parametrize("change", ["lanes", "width", "length", "dtype", "missing", "kind"])
def test_rows_of_another_model_are_an_error(change: str) -> None:
    empty = make_detector().empty_memory(2)
    rows = gather_rows(empty)
    value = rows["embedding"]
    rows["embedding"] = {
        "lanes": value[:1],
        "width": value[..., 1:],
        "length": value[:, 1:],
        "dtype": value.double(),
        "missing": None,
        "kind": "text",
    }[change]
    with pytest.raises(CheckpointError, match=r"memory's embedding is .*restart_streams=True"):
        own_memory(rows, empty)


def test_entries_of_a_frame_beyond_the_memory_are_kept() -> None:
    empty = make_detector().empty_memory(2)
    longer = make_detector().empty_memory(2).map(lambda value: torch.cat([value, value + 1], dim=1))
    assert same(own_memory(gather_rows(longer), empty), longer)

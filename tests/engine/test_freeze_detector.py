"""Freezing in the real detector: in two processes, with the DDP settings that recipes ship."""

from __future__ import annotations

import gc
from pathlib import Path
from typing import Any

import torch
from detectron2.utils import comm
from test_two_processes import LANES, STEPS, prepared, streams
from tiny_detector import make_detector
from torch.nn.parallel import DistributedDataParallel

from streampetr_vit.engine import load_config
from streampetr_vit.engine.distributed import training_module
from streampetr_vit.engine.freeze import FreezeHook, Freezing
from streampetr_vit.engine.processes import launch
from streampetr_vit.engine.trainer import StreamingTrainer

FROZEN = [{"parts": "backbone.", "iters": 1}]


def trained(scenes: tuple[str, ...]) -> dict[str, Any]:
    """The weights after steps of which the first leaves the backbone as it is."""
    detector = prepared(make_detector())
    options = load_config("configs/quickstart.py", []).train.ddp

    def wrap() -> torch.nn.Module:
        return training_module(detector, **options)

    freezing = Freezing(detector, FROZEN)
    optimizer = torch.optim.SGD(detector.parameters(), lr=0.01)
    freezing.at(0)
    trainer = StreamingTrainer(wrap(), optimizer, streams(scenes))
    trainer.register_hooks([FreezeHook(freezing, wrap)])
    trainer.train(0, 1)
    first = {name: value.clone() for name, value in detector.state_dict().items()}
    trainer.data_loader, trainer._batches = streams(scenes)[1:], None
    trainer.train(1, STEPS)
    return {"first": first, "last": detector.state_dict(), "reducers": _reducers()}


def _reducers() -> int:
    """How many modules of DDP there are in this process."""
    return sum(type(thing) is DistributedDataParallel for thing in gc.get_objects())


def rank_main(folder: str) -> None:
    torch.set_num_threads(1)
    gc.disable()  # what is gone, is gone without it
    rank = comm.get_rank()
    torch.save(trained(LANES[rank : rank + 1]), f"{folder}/rank{rank}.pt")


def test_a_backbone_begins_to_train_in_two_processes(tmp_path: Path, quick_processes: None) -> None:
    launch(rank_main, (str(tmp_path),), num_processes=2, use_gpu=False)
    two, other = (torch.load(tmp_path / f"rank{rank}.pt") for rank in (0, 1))
    one, start = trained(LANES), make_detector().state_dict()
    for name, value in start.items():
        assert torch.equal(two["last"][name], other["last"][name]), name
        if name.startswith("backbone."):
            assert torch.equal(two["first"][name], value), name
    for moment in ("first", "last"):
        torch.testing.assert_close(two[moment], one[moment], rtol=1e-4, atol=1e-6)
    moved = [
        not torch.equal(two["last"][name], value)
        for name, value in start.items()
        if name.startswith("backbone.")
    ]
    assert sum(moved) > 0.9 * len(moved)
    # The first one would keep its copy of the gradients.
    assert two["reducers"] == 1

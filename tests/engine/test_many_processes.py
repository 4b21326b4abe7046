"""What ranks must have in common: the layout of gradients, and random buffers."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from detectron2.utils import comm
from detectron2.utils.env import seed_all_rng
from torch import Tensor, nn

from streampetr_vit.engine import build_model, load_config
from streampetr_vit.engine.distributed import training_module
from streampetr_vit.engine.processes import launch
from streampetr_vit.engine.trainer import StreamingTrainer


class Deep(nn.Module):
    """Twelve layers, and a count of the batches as BatchNorm has it."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(*(nn.Linear(64, 64) for _ in range(12)))
        self.register_buffer("batches", torch.zeros(()))

    def losses(self, batch: Tensor, memory: None) -> tuple[dict[str, Tensor], None]:
        self.batches += 1
        return {"loss": self.layers(batch).square().mean()}, None


def train(start: int, end: int, state: dict | None = None) -> dict:
    torch.manual_seed(0)
    model = Deep()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    module = training_module(model, bucket_cap_mb=0.03)
    generator = torch.Generator().manual_seed(comm.get_rank())
    batches = [torch.randn(8, 64, generator=generator) for _ in range(end)]
    trainer = StreamingTrainer(module, optimizer, batches[start:])
    if state is not None:
        model.load_state_dict(state)
    trainer.train(start, end)
    return {name: value.clone() for name, value in model.state_dict().items()}


def rank_main(folder: str, rehearses: bool) -> None:
    torch.set_num_threads(1)
    if not rehearses:
        StreamingTrainer._rehearse = lambda *_: None
    whole = train(0, 4)
    resumed = train(2, 4, train(0, 2))
    if comm.is_main_process():
        torch.save((whole, resumed), f"{folder}/states.pt")


@pytest.mark.parametrize("rehearses", [True, False])
def test_a_resume_lays_gradients_out_as_an_uninterrupted_run(
    tmp_path: Path, quick_processes: None, rehearses: bool
) -> None:
    launch(rank_main, (str(tmp_path), rehearses), num_processes=3, use_gpu=False)
    whole, resumed = torch.load(tmp_path / "states.pt", weights_only=True)
    assert whole["batches"] == resumed["batches"] == 4
    equal = all(torch.equal(value, resumed[name]) for name, value in whole.items())
    assert equal == rehearses  # without it the test would prove nothing


def drawn_buffers(folder: str) -> None:
    """Builds the same detector on each rank as `train` does, with seeds that differ."""
    cfg = load_config("configs/quickstart.py", ["train.device=cpu", f"train.output_dir={folder}"])
    seed_all_rng(comm.get_rank())
    model = build_model(cfg)
    before = comm.all_gather(model.head.start_points.clone())
    training_module(model, **cfg.train.ddp)
    after = comm.all_gather(dict(model.named_buffers()))
    if comm.is_main_process():
        torch.save((before, after), f"{folder}/buffers.pt")


def test_all_ranks_begin_with_the_same_random_buffers(
    tmp_path: Path, quick_processes: None
) -> None:
    launch(drawn_buffers, (str(tmp_path),), num_processes=2, use_gpu=False)
    before, after = torch.load(tmp_path / "buffers.pt", weights_only=True)
    assert not torch.equal(before[0], before[1])
    assert torch.equal(after[0]["head.start_points"], before[0])
    for name, value in after[0].items():
        assert torch.equal(value, after[1][name]), name

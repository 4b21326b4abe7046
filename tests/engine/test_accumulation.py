"""Several batches in one step: order of the streams, gradients, exchanges between processes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from detectron2.utils import comm
from toy_task import ToyDetector, build_toy_train_loader

from streampetr_vit.engine.distributed import training_module
from streampetr_vit.engine.processes import launch
from streampetr_vit.engine.trainer import StreamingTrainer


def trainer_of(
    lanes: int, lr: float, accumulate: int = 1, **options: Any
) -> tuple[ToyDetector, StreamingTrainer]:
    torch.manual_seed(0)
    model = ToyDetector(remembers=options.pop("remembers", False))
    bad = options.pop("bad", ())
    place = {"rank": comm.get_rank(), "world_size": comm.get_world_size()}
    loader = build_toy_train_loader(lanes_per_rank=lanes, bad=bad, **place)
    trainer = StreamingTrainer(
        training_module(model),
        torch.optim.SGD(model.parameters(), lr=lr),
        loader,
        accumulate=accumulate,
        **options,
    )
    return model, trainer


def history(trainer: StreamingTrainer, name: str) -> list[float]:
    return [value for value, _ in trainer.storage.history(name).values()]


def test_the_streams_play_on_within_a_step() -> None:
    """At a rate of 0, what a step sees is what as many steps of one batch see."""
    _, alone = trainer_of(4, lr=0.0, remembers=True)
    alone.train(0, 6)
    _, together = trainer_of(4, lr=0.0, accumulate=3, remembers=True)
    together.train(0, 2)
    single = history(alone, "total_loss")
    expected = [sum(single[:3]) / 3, sum(single[3:]) / 3]
    assert history(together, "total_loss") == pytest.approx(expected, rel=1e-6)
    assert torch.equal(alone.memory, together.memory)
    assert len(history(together, "data_time")) == 2


def test_the_gradient_is_the_mean_over_the_batches() -> None:
    whole, one = trainer_of(8, lr=0.1)
    parts, four = trainer_of(2, lr=0.1, accumulate=4)
    one.train(0, 3)
    four.train(0, 3)
    for a, b in zip(whole.parameters(), parts.parameters(), strict=True):
        assert torch.allclose(a, b, rtol=1e-5, atol=1e-7)
    assert history(one, "grad_norm") == pytest.approx(history(four, "grad_norm"), rel=1e-5)


def test_a_batch_that_is_not_finite_skips_its_whole_step() -> None:
    model, trainer = trainer_of(4, lr=0.1, accumulate=2, bad=(9,), remembers=True)
    trainer.train(0, 1)
    before = torch.cat([p.detach().flatten().clone() for p in model.parameters()])
    trainer.train(1, 2)  # batches 2 and 3; sample 9 is in the first of them
    assert trainer.skipped_steps == 1 and trainer.memory is None
    after = torch.cat([p.detach().flatten() for p in model.parameters()])
    assert torch.equal(before, after)
    trainer.train(2, 3)
    assert trainer.skipped_steps == 1


def rank_main(folder: str) -> None:
    torch.set_num_threads(1)
    model, trainer = trainer_of(2, lr=0.1, accumulate=3)
    exchanges = []

    def counting(state, bucket):  # torch checks annotations, and does not read them as text
        exchanges.append(trainer.iter)
        work = torch.distributed.all_reduce(bucket.buffer().div_(2), async_op=True)
        return work.get_future().then(lambda future: future.value()[0])

    trainer.model.register_comm_hook(None, counting)
    trainer.train(0, 4)
    if comm.is_main_process():
        torch.save((model.state_dict(), exchanges), f"{folder}/result.pt")


def test_processes_exchange_gradients_once_in_a_step(tmp_path: Path, quick_processes: None) -> None:
    launch(rank_main, (str(tmp_path),), num_processes=2, use_gpu=False)
    weights, exchanges = torch.load(tmp_path / "result.pt", weights_only=True)
    assert exchanges == [0, 1, 2, 3]  # one bucket holds all of the toy
    alone, trainer = trainer_of(4, lr=0.1, accumulate=3)
    trainer.train(0, 4)
    for name, value in alone.state_dict().items():
        assert torch.allclose(value, weights[name], rtol=1e-5, atol=1e-6), name

"""One training step and the guard around it."""

from __future__ import annotations

import copy
import logging
import math

import pytest
import torch
from detectron2.engine import HookBase
from detectron2.engine.hooks import EvalHook
from torch import nn
from toy_task import ToyDetector, build_toy_train_loader

from streampetr_vit.engine.distributed import training_module
from streampetr_vit.engine.trainer import NonFiniteTrainingError, StreamingTrainer


def make_trainer(model: nn.Module | None = None, lr: float = 0.02, **options) -> StreamingTrainer:
    torch.manual_seed(0)
    model = model or ToyDetector()
    bad = options.pop("bad", ())
    optimizer = torch.optim.AdamW(model.parameters(), lr=lr)
    loader = build_toy_train_loader(bad=bad, lanes_per_rank=4)
    return StreamingTrainer(training_module(model), optimizer, loader, **options)


def weights(model: nn.Module) -> torch.Tensor:
    return torch.cat([parameter.detach().flatten().clone() for parameter in model.parameters()])


def scalar_values(trainer: StreamingTrainer, name: str) -> list[float]:
    return [value for value, _ in trainer.storage.history(name).values()]


def test_training_lowers_the_loss_and_logs_every_term() -> None:
    trainer = make_trainer()
    trainer.train(0, 60)
    totals = scalar_values(trainer, "total_loss")
    assert sum(totals[-10:]) < 0.1 * sum(totals[:10])
    assert totals[0] == pytest.approx(
        scalar_values(trainer, "loss_square")[0] + scalar_values(trainer, "loss_abs")[0]
    )
    assert len(scalar_values(trainer, "data_time")) == 60
    assert set(scalar_values(trainer, "skipped_steps")) == {0}


def test_gradients_are_clipped_to_the_given_norm() -> None:
    class Norms(HookBase):
        seen: list[float] = []

        def after_step(self) -> None:
            squares = [p.grad.square().sum() for p in self.trainer.model.parameters()]
            self.seen.append(float(torch.stack(squares).sum().sqrt()))

    trainer = make_trainer(clip_grad_norm=0.5)
    hook = Norms()
    trainer.register_hooks([hook])
    trainer.train(0, 5)
    before_clipping = scalar_values(trainer, "grad_norm")
    assert before_clipping[0] > 0.5
    for before, after in zip(before_clipping, hook.seen, strict=True):
        assert after == pytest.approx(min(before, 0.5), rel=1e-4)


def test_no_clipping_leaves_gradients_alone() -> None:
    limited, free = make_trainer(clip_grad_norm=1e6), make_trainer(clip_grad_norm=None)
    limited.train(0, 3)
    free.train(0, 3)
    assert torch.equal(weights(limited.model), weights(free.model))


def test_a_step_with_a_nan_loss_changes_nothing_and_is_counted(caplog) -> None:
    trainer = make_trainer(bad=(9,))  # in the third batch of four lanes
    trainer.train(0, 2)
    before = weights(trainer.model)
    optimizer_before = copy.deepcopy(trainer.optimizer.state_dict()["state"])
    with caplog.at_level(logging.WARNING, logger="streampetr_vit"):
        trainer.train(2, 3)
    assert torch.equal(weights(trainer.model), before)
    for index, state in trainer.optimizer.state_dict()["state"].items():
        assert torch.equal(state["exp_avg"], optimizer_before[index]["exp_avg"])
    assert trainer.skipped_steps == 1
    assert scalar_values(trainer, "skipped_steps") == [1]
    assert "iteration 2: step skipped" in caplog.text and "loss_square" in caplog.text
    trainer.train(3, 6)  # and training goes on
    assert torch.isfinite(weights(trainer.model)).all()
    assert not torch.equal(weights(trainer.model), before)


def test_a_finite_loss_with_an_infinite_gradient_is_skipped_too() -> None:
    class SquareRoot(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.zeros(1))

        def losses(self, samples: list, memory: None) -> tuple[dict[str, torch.Tensor], None]:
            return {"loss": self.weight.sqrt().sum()}, None  # derivative at 0 is infinite

    trainer = make_trainer(SquareRoot())
    trainer.train(0, 2)
    assert trainer.skipped_steps == 2
    assert weights(trainer.model).item() == 0


def test_training_fails_after_too_many_non_finite_steps_in_a_row() -> None:
    trainer = make_trainer(bad=tuple(range(16, 64)), max_consecutive_skips=3)
    with pytest.raises(
        NonFiniteTrainingError, match=r"3 steps in a row.*iteration 6: .*loss_abs, loss_square"
    ):
        trainer.train(0, 20)
    assert torch.isfinite(weights(trainer.model)).all()


def test_skips_that_are_not_in_a_row_do_not_end_training() -> None:
    trainer = make_trainer(bad=(0, 8, 16, 24, 32), max_consecutive_skips=2)
    trainer.train(0, 12)
    assert trainer.skipped_steps == 5


def test_bf16_trains_on_the_cpu_with_float32_weights() -> None:
    dtypes = set()
    model = ToyDetector()
    model.backbone.register_forward_hook(lambda module, inputs, output: dtypes.add(output.dtype))
    trainer = make_trainer(model, precision="bf16")
    trainer.train(0, 60)
    totals = scalar_values(trainer, "total_loss")
    assert dtypes == {torch.bfloat16}
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
    assert sum(totals[-10:]) < 0.2 * sum(totals[:10])


def test_fp16_lowers_its_loss_scale_until_gradients_are_finite() -> None:
    class Steep(ToyDetector):
        def losses(self, samples: list, memory: torch.Tensor | None = None) -> tuple:
            losses, memory = super().losses(samples, memory)
            return {name: 100 * loss for name, loss in losses.items()}, memory

    trainer = make_trainer(Steep(), precision="fp16")
    trainer.train(0, 40)
    state = trainer.state_dict()
    assert trainer.skipped_steps >= 1
    assert state["grad_scaler"]["scale"] == 65536 * 0.5**trainer.skipped_steps
    assert all(map(math.isfinite, scalar_values(trainer, "grad_norm")))
    assert scalar_values(trainer, "total_loss")[-1] < scalar_values(trainer, "total_loss")[0]


def test_unknown_precision_and_missing_losses_are_errors() -> None:
    with pytest.raises(ValueError, match="precision 'half' is unknown.*'bf16'"):
        make_trainer(precision="half")

    class NoLosses(ToyDetector):
        def losses(self, samples: list, memory: torch.Tensor | None = None) -> tuple:
            return [], memory

    with pytest.raises(TypeError, match="dict of losses, got list"):
        make_trainer(NoLosses()).train(0, 1)


def test_a_hook_can_end_training_early() -> None:
    class StopAtFive(HookBase):
        def after_step(self) -> None:
            if self.trainer.iter == 4:
                self.trainer.max_iter = 5

    trainer = make_trainer()
    trainer.register_hooks([StopAtFive()])
    trainer.train(0, 100)
    assert trainer.iter == trainer.max_iter == 5


def test_a_failure_in_the_last_step_is_not_followed_by_an_evaluation() -> None:
    class FailsAtTheEnd(ToyDetector):
        calls = 0

        def losses(self, samples: list, memory: torch.Tensor | None = None) -> tuple:
            self.calls += 1
            if self.calls == 3:
                raise RuntimeError("broken")
            return super().losses(samples, memory)

    evaluations: list[int] = []
    trainer = make_trainer(FailsAtTheEnd())
    trainer.register_hooks([EvalHook(0, lambda: evaluations.append(trainer.iter))])
    with pytest.raises(RuntimeError, match="broken"):
        trainer.train(0, 3)
    assert not evaluations


class Counting(nn.Module):
    """A memory that counts the steps since it was empty; `seen` are those that it was given."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1))
        self.seen: list[int | None] = []

    def losses(self, samples: list, memory: int | None) -> tuple[dict[str, torch.Tensor], int]:
        self.seen.append(memory)
        target = torch.stack([sample["y"] for sample in samples])
        return {"loss": (self.weight * target).square().mean()}, (memory or 0) + 1


def test_each_step_gets_the_memory_of_the_step_before() -> None:
    model = Counting()
    trainer = make_trainer(model)
    trainer.train(0, 4)
    assert model.seen == [None, 1, 2, 3] and trainer.memory == 4
    trainer.train(4, 5)  # and after an interruption of the loop
    assert model.seen[-1] == 4


def test_a_loss_that_is_not_finite_ends_the_memory_and_a_gradient_does_not() -> None:
    model = Counting()
    make_trainer(model, bad=(9,)).train(0, 5)  # in the third batch
    assert model.seen == [None, 1, 2, None, 1]

    class Steep(Counting):
        def losses(self, samples: list, memory: int | None) -> tuple:
            _, memory = super().losses(samples, memory)
            return {"loss": (self.weight - 1).sqrt().sum()}, memory  # an infinite derivative

    steep = Steep()
    trainer = make_trainer(steep)
    trainer.train(0, 3)
    assert trainer.skipped_steps == 3 and steep.seen == [None, 1, 2]


def test_a_remembering_model_trains_otherwise_than_one_without_memory() -> None:
    totals = []
    for remembers in (False, True):
        torch.manual_seed(0)
        trainer = make_trainer(ToyDetector(remembers=remembers))
        trainer.train(0, 3)
        totals.append(scalar_values(trainer, "total_loss"))
    assert totals[0][0] == totals[1][0] and totals[0][1] != totals[1][1]

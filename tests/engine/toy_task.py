"""A regression that trains in milliseconds, with the interfaces of the real task."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import torch
from detectron2.evaluation import DatasetEvaluator
from torch import Tensor, nn

from streampetr_vit.structures.tensors import tensors_of

Sample = dict[str, Tensor]


class ToyDetector(nn.Module):
    """Predicts y from x, and a memory in training: (lanes,) of what it predicted last.

    Args:
        width: of the hidden layer.
        remembers: add half of the memory to the prediction. The losses of a step then depend on all
            steps before it.
    """

    def __init__(self, width: int = 8, remembers: bool = False) -> None:
        super().__init__()
        self.backbone = nn.Linear(4, width)
        self.head = nn.Sequential(nn.ReLU(), nn.Linear(width, 1))
        self.remembers = remembers

    def predict(self, samples: list[Sample]) -> Tensor:
        inputs = torch.stack([sample["x"] for sample in samples]).to(self.backbone.weight.device)
        return self.head(self.backbone(inputs))[:, 0].float()

    def forward(self, samples: list[Sample]) -> list[Sample]:
        return [{"predicted": value} for value in self.predict(samples)]

    def empty_memory(self, batch: int) -> Tensor:
        return torch.zeros(batch)

    def losses(
        self, samples: list[Sample], memory: Tensor | None = None
    ) -> tuple[dict[str, Tensor], Tensor]:
        predicted = self.predict(samples)
        if self.remembers and memory is not None:
            predicted = predicted + 0.5 * memory
        target = torch.stack([sample["y"] for sample in samples]).to(predicted.device)
        error = predicted - target
        losses = {"loss_square": error.square().mean(), "loss_abs": 0.1 * error.abs().mean()}
        return losses, predicted.detach()


class ToyDataset(torch.utils.data.Dataset):
    """Sample i is a function of i; y is linear in x. `bad` samples have a NaN target.

    Reading a sample takes `seconds`.
    """

    def __init__(self, size: int, bad: tuple[int, ...] = (), seconds: float = 0.0) -> None:
        self._size, self._bad, self._seconds = size, set(bad), seconds

    def __len__(self) -> int:
        return self._size

    def __getitem__(self, index: int) -> Sample:
        time.sleep(self._seconds)
        x = torch.randn(4, generator=torch.Generator().manual_seed(index))
        y = x.sum() * (float("nan") if index in self._bad else 1.0)
        return {"x": x, "y": y}


class ToyTrainLoader:
    """Endless batches; lane j of rank r reads samples lane, lane + lanes, ... of the stream."""

    def __init__(self, dataset: ToyDataset, lanes: int, rank: int, world_size: int) -> None:
        self.dataset, self.delivered = dataset, 0
        self._lanes, self._rank, self._world_size = lanes, rank, world_size

    def __iter__(self) -> Iterator[list[Sample]]:
        while True:
            first = (self.delivered * self._world_size + self._rank) * self._lanes
            self.delivered += 1
            yield [self.dataset[(first + j) % len(self.dataset)] for j in range(self._lanes)]

    def state_dict(self) -> dict[str, int]:
        return {"delivered": self.delivered}

    def load_state_dict(self, state: dict[str, int]) -> None:
        self.delivered = state["delivered"]


def build_toy_train_loader(
    size: int = 64,
    bad: tuple[int, ...] = (),
    lanes_per_rank: int = 4,
    seconds: float = 0.0,
    rank: int = 0,
    world_size: int = 1,
) -> ToyTrainLoader:
    return ToyTrainLoader(ToyDataset(size, tuple(bad), seconds), lanes_per_rank, rank, world_size)


def build_toy_test_loader(
    size: int = 16, seconds: float = 0.0, rank: int = 0, world_size: int = 1
) -> torch.utils.data.DataLoader:
    data = ToyDataset(size, seconds=seconds)
    subset = torch.utils.data.Subset(data, range(rank, size, world_size))
    return torch.utils.data.DataLoader(subset, batch_size=1, collate_fn=list)


class ToyEvaluator(DatasetEvaluator):
    """Mean absolute error."""

    def __init__(self, output_dir: str) -> None:
        self.output_dir = output_dir
        self.reset()

    def reset(self) -> None:
        self._errors: list[float] = []

    def process(self, inputs: list[Sample], outputs: list[Sample]) -> None:
        for sample, output in zip(inputs, outputs, strict=True):
            self._errors.append(abs(float(output["predicted"] - sample["y"])))

    def evaluate(self) -> dict[str, dict[str, float]]:
        return {"toy": {"error": sum(self._errors) / len(self._errors)}}


def equal(one: Any, other: Any) -> bool:
    """Whether two states, which hold as many tensors, are equal in every bit."""
    pairs = zip(tensors_of(one), tensors_of(other), strict=True)
    return all(torch.equal(*pair) for pair in pairs)

"""A regression that trains in milliseconds, with the interfaces of the real task."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from detectron2.evaluation import DatasetEvaluator
from torch import Tensor, nn


class ToyDetector(nn.Module):
    """Samples in; a dict of losses in training, a list of predictions in evaluation."""

    def __init__(self, width: int = 8) -> None:
        super().__init__()
        self.backbone = nn.Linear(4, width)
        self.head = nn.Sequential(nn.ReLU(), nn.Linear(width, 1))

    def forward(self, samples: list[dict[str, Any]]) -> Any:
        device = self.backbone.weight.device
        inputs = torch.stack([sample["x"] for sample in samples]).to(device)
        predicted = self.head(self.backbone(inputs))[:, 0]
        if not self.training:
            return [{"predicted": value} for value in predicted]
        target = torch.stack([sample["y"] for sample in samples]).to(device)
        error = predicted.float() - target
        return {"loss_square": error.square().mean(), "loss_abs": 0.1 * error.abs().mean()}


class ToyDataset(torch.utils.data.Dataset):
    """Sample i is a function of i; y is linear in x. `bad` samples have a NaN target."""

    def __init__(self, size: int, bad: tuple[int, ...] = ()) -> None:
        self._size, self._bad = size, set(bad)

    def __len__(self) -> int:
        return self._size

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        x = torch.randn(4, generator=torch.Generator().manual_seed(index))
        y = x.sum() * (float("nan") if index in self._bad else 1.0)
        return {"x": x, "y": y}


class ToyTrainLoader:
    """Endless batches; lane j of rank r reads samples lane, lane + lanes, ... of the stream."""

    def __init__(self, dataset: ToyDataset, lanes: int, rank: int, world_size: int) -> None:
        self.dataset, self.delivered = dataset, 0
        self._lanes, self._rank, self._world_size = lanes, rank, world_size

    def __iter__(self) -> Iterator[list[dict[str, Tensor]]]:
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
    rank: int = 0,
    world_size: int = 1,
) -> ToyTrainLoader:
    return ToyTrainLoader(ToyDataset(size, tuple(bad)), lanes_per_rank, rank, world_size)


def build_toy_test_loader(
    size: int = 16, rank: int = 0, world_size: int = 1
) -> torch.utils.data.DataLoader:
    subset = torch.utils.data.Subset(ToyDataset(size), range(rank, size, world_size))
    return torch.utils.data.DataLoader(subset, batch_size=1, collate_fn=list)


class ToyEvaluator(DatasetEvaluator):
    """Mean absolute error."""

    def __init__(self, output_dir: str) -> None:
        self.output_dir = output_dir
        self.reset()

    def reset(self) -> None:
        self._errors: list[float] = []

    def process(self, inputs: list[dict[str, Tensor]], outputs: list[dict[str, Tensor]]) -> None:
        for sample, output in zip(inputs, outputs, strict=True):
            self._errors.append(abs(float(output["predicted"] - sample["y"])))

    def evaluate(self) -> dict[str, dict[str, float]]:
        return {"toy": {"error": sum(self._errors) / len(self._errors)}}

"""Comparison at the tolerance that a file's own sensitivity allows."""

from __future__ import annotations

import golden
import torch
from reference_head import MEMORY_FIELDS
from torch import Tensor

from streampetr_vit.modeling.temporal.memory import TemporalMemory


class Comparison:
    """Compares with one file's records, at the tolerance its own sensitivity allows."""

    def __init__(self, sensitivity: dict[str, float], where: str) -> None:
        self.sensitivity, self.where = sensitivity, where

    def check(self, actual: Tensor, expected: Tensor, key: str, base: float) -> None:
        atol = max(base, 10 * self.sensitivity.get(key, 0.0))
        rtol = 0.0 if base < 1e-5 else 1e-5  # times are 1e9 s: only absolute errors count
        golden.assert_close(actual, expected, f"{self.where}{key}", atol, rtol)

    def check_memory(self, memory: TemporalMemory, recorded: dict[str, Tensor], key: str) -> None:
        for name, (ours, base) in MEMORY_FIELDS.items():
            self.check(getattr(memory, ours), recorded[name], f"{key}.{name}", base)

    def check_gradient(self, actual: Tensor, expected: Tensor, key: str) -> None:
        largest = float(expected.abs().max())
        atol = max(1e-4 * largest, 10 * self.sensitivity.get(key, 0.0))
        golden.assert_close(actual, expected, f"{self.where}{key}", atol, rtol=0.0)

    def check_losses(self, losses: dict[str, Tensor], recorded: dict[str, Tensor]) -> None:
        assert set(losses) == set(recorded)
        for name, value in recorded.items():
            self.check(losses[name], value, f".losses.{name}", 1e-5)

    def check_gradient_norm(self, actual: Tensor, norm: float, name: str) -> None:
        key = f".grad_norms.{name}"
        atol = max(1e-4 * norm, 10 * self.sensitivity.get(key, 0.0), 1e-7)
        golden.assert_close(
            actual.double().norm(), torch.tensor(norm), f"{self.where}{key}", atol, rtol=0.0
        )

"""What the sub-commands share: configuration, device, precision, weights, and the yardstick."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, cast

import torch
from omegaconf import DictConfig

from streampetr_vit.benchmark.peak import measure_peak
from streampetr_vit.benchmark.result import Result, Row, describe_machine
from streampetr_vit.checkpoint.loading import SafeCheckpointer
from streampetr_vit.engine import build_model, load_config
from streampetr_vit.modeling.detector import StreamPETR
from streampetr_vit.modeling.ops.precision import autocast


@dataclass(frozen=True)
class Session:
    """Settings of one benchmark.

    Attributes:
        config_file: of the recipe.
        overrides: "key=value" each. Only a train.init_checkpoint among them loads weights; the one
            that a recipe names does not.
        device: that is measured.
        precision: "float32", "bf16" or "fp16".
        repeats, warmup: of every measurement, runs that count and runs before them.
        peak_seconds: that measuring the matrix peak takes.
        given_peak: TFLOP/s of the matrix peak; None measures it.
    """

    config_file: str
    overrides: Sequence[str] = ()
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    precision: str = "float32"
    repeats: int = 10
    warmup: int = 2
    peak_seconds: float = 5.0
    given_peak: float | None = None

    def __post_init__(self) -> None:
        autocast(self.precision, self.device.type)  # refuses an impossible precision now

    def changed(self, *overrides: str) -> Session:
        """The same with further overrides."""
        return replace(self, overrides=[*self.overrides, *overrides])

    @cached_property
    def cfg(self) -> DictConfig:
        """The whole configuration."""
        cfg = load_config(self.config_file, self.overrides)
        cfg.train.device = str(self.device)
        return cfg

    @property
    def image_size(self) -> tuple[int, int]:
        """(height, width) in pixels of the pictures that the recipe's network sees."""
        height, width = self.cfg.dataloader.train.mapper.image_aug.final_size
        return height, width

    @cached_property
    def peak_rows(self) -> list[Row]:
        """Of `measure_peak`, at the first use."""
        if self.given_peak is None:
            return measure_peak(self.device, self.precision, self.peak_seconds)
        return [{"precision": self.precision, "product": "given", "tflops": self.given_peak}]

    @property
    def peak_tflops(self) -> float:
        """The machine's matrix peak in TFLOP/s."""
        return max(row["tflops"] for row in self.peak_rows)

    def build(self) -> StreamPETR:
        """The detector, on the device."""
        torch.manual_seed(0)
        model = cast(StreamPETR, build_model(self.cfg))
        if self._loads_weights:
            SafeCheckpointer(model).load(self.cfg.train.init_checkpoint)
            return model
        # A difference between two forms of a network must not hide behind a bias of zero.
        for parameter in model.parameters():
            if not parameter.any():
                torch.nn.init.normal_(parameter, std=0.02)
        return model

    @property
    def _loads_weights(self) -> bool:
        given = any(text.startswith("train.init_checkpoint=") for text in self.overrides)
        return given and bool(self.cfg.train.init_checkpoint)

    def result(self, benchmark: str, **settings: Any) -> Result:
        """An empty result of this session."""
        common = {
            "config": self.config_file,
            "overrides": list(self.overrides),
            "precision": self.precision,
            "weights": "loaded" if self._loads_weights else "random",
            "repeats": self.repeats,
            "warmup": self.warmup,
        }
        return Result(benchmark, describe_machine(self.device), {**common, **settings})

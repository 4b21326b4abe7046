"""What the sub-commands share: recipe, device, weights, and the machine's matrix peak."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import cast

import torch
import torch.nn.functional as F
from omegaconf import DictConfig, OmegaConf
from torch.utils.benchmark import Timer

from streampetr_vit.benchmark.measuring import Row
from streampetr_vit.checkpoint.loading import SafeCheckpointer
from streampetr_vit.configuration.arguments import target_of
from streampetr_vit.engine import build_model, load_config
from streampetr_vit.errors import InputError
from streampetr_vit.modeling.detector import StreamPETR
from streampetr_vit.modeling.ops.linear import ONEDNN_USABLE, onednn_product
from streampetr_vit.modeling.ops.precision import DTYPES

# (rows, inner, columns), the smaller first. The wide ones are ViT-L's: 1000 or 6000 tokens of 1024
# channels through the projections and the MLP.
_SHAPES = (
    *((256, 256, 256), (1024, 1024, 1024), (1000, 1024, 3072), (2048, 2048, 2048)),
    *((6000, 1024, 3072), (6000, 2736, 1024), (4096, 4096, 4096), (8192, 8192, 8192)),
)


@dataclass(frozen=True)
class Session:
    """Settings of one benchmark."""

    config_file: str  # of the recipe
    # "key=value" each. Only a train.init_checkpoint among them loads weights; the one that a recipe
    # names does not.
    overrides: Sequence[str] = ()
    device: torch.device = torch.device("cpu")
    precision: str = "float32"  # or "bf16" or "fp16"
    repeats: int = 10  # runs that count, of every measurement
    warmup: int = 2  # runs before them
    peak_seconds: float = 5.0  # that measuring the matrix peak takes
    given_peak: float | None = None  # TFLOP/s of the matrix peak; None measures it
    trusted: Sequence[str] = ()  # packages that a YAML recipe may call, see `load_config`

    def changed(self, *overrides: str) -> Session:
        """The same with further overrides."""
        return replace(self, overrides=[*self.overrides, *overrides])

    @cached_property
    def cfg(self) -> DictConfig:
        """The whole configuration."""
        cfg = load_config(self.config_file, self.overrides, self.trusted)
        cfg.train.device = str(self.device)
        return cfg

    @property
    def image_size(self) -> tuple[int, int]:
        """(height, width) in pixels of the pictures that the recipe's network sees."""
        height, width = self.cfg.dataloader.train.mapper.image_aug.final_size
        return height, width

    @property
    def net(self) -> DictConfig:
        """The settings of the recipe's ViT.

        Raises:
            InputError: the recipe has another backbone.
        """
        net = OmegaConf.select(self.cfg, "model.backbone.net")
        if net is None:
            target = target_of(self.cfg.model.backbone)
            raise InputError(
                f"{self.config_file}: model.backbone ({target.__name__}) has no net: this measures "
                "the ViT of a recipe such as configs/quickstart.py; the sub-commands latency, "
                "train and data take other backbones too"
            )
        return net

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
        if any(text.startswith("train.init_checkpoint=") for text in self.overrides):
            weights = self.cfg.train.get("init_weights", "model")  # an older file lacks it
            SafeCheckpointer(model, weights=weights).load(self.cfg.train.init_checkpoint)
            return model
        # A difference between two forms of a network must not hide behind a bias of zero.
        for parameter in model.parameters():
            if not parameter.any():
                torch.nn.init.normal_(parameter, std=0.02)
        return model


def measure_peak(device: torch.device, precision: str, seconds: float) -> list[Row]:
    """Times matrix products of several shapes, in each way that the machine has.

    Args:
        device: to compute on.
        precision: of the factors.
        seconds: for everything, about. Shapes come in the order of their size until it is over.

    Returns:
        A row for each way with the best rate that was seen. The highest one is the peak.
    """
    ways: dict[str, Callable[..., object]] = {
        "torch.mm": lambda x, weight: torch.mm(x, weight.t()),
        "F.linear": F.linear,
    }
    # Elsewhere torch's products call oneDNN by themselves, or cannot.
    if device.type == "cpu" and precision == "float32" and ONEDNN_USABLE:
        ways["oneDNN"] = lambda x, weight: onednn_product(x, weight, None)
    best = {way: {"precision": precision, "product": way, "tflops": 0.0} for way in ways}
    torch.ones(8, 8, device=device) @ torch.ones(8, 8, device=device)  # starts a GPU's libraries
    end = time.perf_counter() + seconds
    for rows, inner, columns in _SHAPES:
        tflop = 2e-12 * rows * inner * columns
        slowest = min(row["tflops"] for row in best.values())
        # Two calls at least of each way: the timer tries one before it measures.
        if slowest and time.perf_counter() + 2 * len(ways) * tflop / slowest > end:
            break
        x = torch.randn(rows, inner, device=device).to(DTYPES[precision])
        weight = (torch.randn(columns, inner, device=device) / inner**0.5).to(x.dtype)
        for way, product in ways.items():
            given = {"product": product, "x": x, "weight": weight}
            clock = Timer("product(x, weight)", globals=given, num_threads=torch.get_num_threads())
            times = clock.blocked_autorange(min_run_time=seconds / len(_SHAPES) / len(ways)).times
            if tflop / min(times) > best[way]["tflops"]:
                best[way] |= {"tflops": tflop / min(times), "shape": f"{rows}x{inner}x{columns}"}
    return list(best.values())

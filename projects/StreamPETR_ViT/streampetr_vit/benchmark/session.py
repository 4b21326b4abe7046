"""What the sub-commands share: configuration, device, precision, weights, and the yardstick."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, cast

import torch
from omegaconf import DictConfig

from streampetr_vit.benchmark.flops import image_branch_flops
from streampetr_vit.benchmark.head_flops import head_flops
from streampetr_vit.benchmark.machine import describe_machine, use_threads
from streampetr_vit.benchmark.peak import MatrixPeak, measure_peak
from streampetr_vit.benchmark.report import Report
from streampetr_vit.benchmark.timing import Repeats
from streampetr_vit.checkpoint.loading import SafeCheckpointer
from streampetr_vit.engine import build_model, load_config, resolve_device
from streampetr_vit.errors import InputError
from streampetr_vit.modeling.detector import StreamPETR
from streampetr_vit.modeling.ops.precision import autocast

_CHECKPOINT = "train.init_checkpoint="
_STD = 0.02  # of random values for parameters that start at zero


@dataclass
class Session:
    """Settings of one benchmark.

    Attributes:
        config_file: of the recipe.
        overrides: "key=value" each. Only a train.init_checkpoint among them loads weights; the one
            that a recipe names does not.
        device: that is measured.
        precision: "float32", "bf16" or "fp16".
        repeats: of every measurement.
        peak_seconds: that measuring the matrix peak takes.
        given_peak: TFLOP/s of the matrix peak; None measures it.
    """

    config_file: str
    overrides: Sequence[str] = ()
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    precision: str = "float32"
    repeats: Repeats = field(default_factory=Repeats)
    peak_seconds: float = 5.0
    given_peak: float | None = None

    @staticmethod
    def open(
        config_file: str,
        overrides: Sequence[str],
        device: str,
        threads: int | None,
        **options: Any,
    ) -> Session:
        """A session from command-line values.

        Args:
            config_file, overrides: see the class.
            device: "auto", "cpu" or "cuda".
            threads: CPU threads of torch; None leaves its choice.
            options: further attributes of the class.

        Raises:
            InputError: no such device or precision here.
        """
        use_threads(threads)
        given_peak = options.get("given_peak")
        if given_peak is not None and given_peak <= 0:
            raise InputError(f"--peak-tflops must be above 0, not {given_peak:g}")
        if device == "cuda" and not torch.cuda.is_available():
            raise InputError(
                f"--device cuda, but torch {torch.__version__} sees no GPU; use --device cpu"
            )
        session = Session(config_file, overrides, resolve_device(device), **options)
        autocast(session.precision, session.device.type)  # refuses an impossible one now
        return session

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
    def peak(self) -> MatrixPeak:
        """The matrix peak, measured at the first use."""
        if self.given_peak is not None:
            return MatrixPeak(self.given_peak, None, (0, 0, 0))
        return measure_peak(self.device, self.precision, self.peak_seconds)

    def peak_row(self) -> dict[str, Any]:
        """The matrix peak as a row of a report."""
        shape = "given" if self.given_peak else "x".join(map(str, self.peak.shape))
        return {
            "precision": self.precision,
            "torch_tflops": self.peak.default,
            "onednn_tflops": self.peak.onednn,
            "peak_tflops": self.peak.tflops,
            "best_product": shape,
        }

    def build(self, cfg: DictConfig | None = None) -> StreamPETR:
        """The detector of a configuration (by default the session's), on the device.

        Random weights have no parameter that is all zeros: a difference between two forms of a
        network must not hide behind a bias of zero.
        """
        cfg = self.cfg if cfg is None else cfg
        torch.manual_seed(0)
        model = cast(StreamPETR, build_model(cfg))
        if self._given_weights:
            SafeCheckpointer(model).load(cfg.train.init_checkpoint)
            return model
        with torch.no_grad():
            for parameter in model.parameters():
                if parameter.device.type != "meta" and not parameter.any():
                    parameter.normal_(std=_STD)
        return model

    @property
    def _given_weights(self) -> bool:
        given = [o for o in self.overrides if o.startswith(_CHECKPOINT)]
        return bool(given) and bool(self.cfg.train.init_checkpoint)

    def report(self, benchmark: str, **settings: Any) -> Report:
        """An empty report of this session."""
        common = {
            "config": self.config_file,
            "overrides": list(self.overrides),
            "precision": self.precision,
            "weights": "loaded" if self._given_weights else "random",
            "repeats": self.repeats.timed,
            "warmup": self.repeats.warmup,
        }
        return Report(benchmark, describe_machine(self.device), {**common, **settings})


def require_positive(option: str, *values: int) -> None:
    """Raises InputError unless a command-line option has only numbers above 0."""
    if any(value < 1 for value in values):
        raise InputError(f"{option} must be 1 or more, not {', '.join(map(str, values))}")


def frame_tflop(
    cfg: DictConfig, padded_size: tuple[int, int], cameras: int, batch: int
) -> dict[str, float]:
    """Useful TFLOP of one frame of a batch of streams.

    Args:
        cfg: the whole configuration.
        padded_size: (height, width) in pixels that the network sees.
        cameras: of the rig.
        batch: streams.

    Returns:
        "backbone" (with pyramid and neck), "head" and "frame", their sum. What the head computes
        once for a rig is not in it.
    """
    backbone = batch * cameras * image_branch_flops(cfg.model, padded_size)
    stride = cfg.model.head.get("stride", 16)
    cells = cameras * (padded_size[0] // stride) * (padded_size[1] // stride)
    head = head_flops(cfg.model.head, cameras, int(cells * cfg.model.token_ratio))
    parts = {
        "backbone": backbone,
        "head": batch * head.rest,
    }
    return {name: 1e-12 * flops for name, flops in {**parts, "frame": sum(parts.values())}.items()}

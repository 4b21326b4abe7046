"""The machine's matrix peak, measured: the yardstick of "share of peak"."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from streampetr_vit.benchmark.timing import call_seconds
from streampetr_vit.errors import InputError
from streampetr_vit.modeling.ops.linear import ONEDNN_USABLE, onednn_product
from streampetr_vit.modeling.ops.precision import PRECISIONS

# (rows, inner, columns), the smaller first. The wide ones are ViT-L's: 1000 or 6000 tokens of 1024
# channels through the projections and the MLP.
SHAPES = (
    (256, 256, 256),
    (1024, 1024, 1024),
    (1000, 1024, 3072),
    (2048, 2048, 2048),
    (6000, 1024, 1024),
    (6000, 1024, 3072),
    (6000, 2736, 1024),
    (4096, 4096, 4096),
    (8192, 8192, 8192),
)


@dataclass(frozen=True)
class MatrixPeak:
    """Best rates that were seen, in TFLOP/s.

    Attributes:
        default: of torch's own products.
        onednn: of oneDNN's linear layer; None where it is not at hand or not the precision's way.
        shape: (rows, inner, columns) of the best product.
    """

    default: float
    onednn: float | None
    shape: tuple[int, int, int]

    @property
    def tflops(self) -> float:
        """The higher of the two."""
        return max(self.default, self.onednn or 0.0)


def measure_peak(device: torch.device, precision: str, seconds: float = 5.0) -> MatrixPeak:
    """Times products of several shapes and keeps the best.

    Args:
        device: to compute on.
        precision: one of `PRECISIONS`, of the factors.
        seconds: for everything, about. Shapes come in the order of their size until it is over.

    Raises:
        InputError: no time.
    """
    if seconds <= 0:
        raise InputError(f"--peak-seconds must be above 0, not {seconds:g}")
    _rates(SHAPES[0], device, precision, 0.0)  # starting a GPU's libraries is not the matrix peak
    best: dict[str, tuple[float, tuple[int, int, int]]] = {}
    end, slowest = time.perf_counter() + seconds, float("inf")
    for shape in SHAPES:
        # A warm-up and a timed call of each of up to three ways.
        if time.perf_counter() + 6e-12 * _flops(shape) / slowest > end:
            break
        rates = _rates(shape, device, precision, seconds / len(SHAPES))
        slowest = min(rates.values())
        for name, rate in rates.items():
            best[name] = max(best.get(name, (0.0, shape)), (rate, shape))
    default = max(best["mm"], best["linear"])
    onednn = best.get("onednn")
    fastest = max(default, onednn or default)
    return MatrixPeak(default[0], None if onednn is None else onednn[0], fastest[1])


def _rates(
    shape: tuple[int, int, int], device: torch.device, precision: str, seconds: float
) -> dict[str, float]:
    """TFLOP/s of each way to compute one product, the best of several calls."""
    rows, inner, columns = shape
    dtype = PRECISIONS[precision]
    x = torch.randn(rows, inner, device=device).to(dtype)
    weight = (torch.randn(columns, inner, device=device) / inner**0.5).to(dtype)
    ways: dict[str, Callable[[], Tensor]] = {
        "mm": lambda: torch.mm(x, weight.t()),
        "linear": lambda: F.linear(x, weight),
    }
    if onednn_is_available(device, precision):
        ways["onednn"] = lambda: onednn_product(x, weight, None)
    rates = {}
    with torch.no_grad():
        for name, way in ways.items():
            way()  # allocations and the choice of a kernel
            rates[name] = 1e-12 * _flops(shape) / _best_seconds(way, device, seconds / len(ways))
    return rates


def _flops(shape: tuple[int, int, int]) -> float:
    return 2.0 * shape[0] * shape[1] * shape[2]


def _best_seconds(way: Callable[[], Tensor], device: torch.device, seconds: float) -> float:
    end = time.perf_counter() + seconds
    best = call_seconds(way, device)
    while time.perf_counter() < end:
        best = min(best, call_seconds(way, device))
    return best


def onednn_is_available(device: torch.device, precision: str) -> bool:
    """Whether oneDNN's float32 linear layer can be called by itself, see `modeling.ops.linear`."""
    return device.type == "cpu" and precision == "float32" and ONEDNN_USABLE

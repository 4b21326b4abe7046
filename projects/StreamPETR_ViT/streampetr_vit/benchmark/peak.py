"""The machine's matrix peak, measured: the yardstick of "share of peak"."""

from __future__ import annotations

import time
from collections.abc import Callable

import torch
import torch.nn.functional as F

from streampetr_vit.benchmark.result import Row
from streampetr_vit.benchmark.timing import call_seconds
from streampetr_vit.modeling.ops.linear import ONEDNN_USABLE, onednn_product
from streampetr_vit.modeling.ops.precision import DTYPES

# (rows, inner, columns), the smaller first. The wide ones are ViT-L's: 1000 or 6000 tokens of 1024
# channels through the projections and the MLP.
SHAPES = (
    (256, 256, 256),
    (1024, 1024, 1024),
    (1000, 1024, 3072),
    (2048, 2048, 2048),
    (6000, 1024, 3072),
    (6000, 2736, 1024),
    (4096, 4096, 4096),
    (8192, 8192, 8192),
)


def measure_peak(device: torch.device, precision: str, seconds: float = 5.0) -> list[Row]:
    """Times products of several shapes, in each way that the machine has.

    Args:
        device: to compute on.
        precision: of the factors.
        seconds: for everything, about. Shapes come in the order of their size until it is over.

    Returns:
        A row for each way with the best rate that was seen. The highest one is the peak.
    """
    ways: dict[str, Callable[[torch.Tensor, torch.Tensor], object]] = {
        "torch.mm": lambda x, weight: torch.mm(x, weight.t()),
        "F.linear": F.linear,
    }
    # Elsewhere torch's products call oneDNN by themselves, or cannot.
    if device.type == "cpu" and precision == "float32" and ONEDNN_USABLE:
        ways["oneDNN"] = lambda x, weight: onednn_product(x, weight, None)
    best = {way: (0.0, "") for way in ways}
    torch.ones(8, 8, device=device) @ torch.ones(8, 8, device=device)  # starts a GPU's libraries
    end = time.perf_counter() + seconds
    for rows, inner, columns in SHAPES:
        tflop = 2e-12 * rows * inner * columns
        slowest = min(rate for rate, _ in best.values())
        # Two calls at least of each way: the first allocates, and chooses a kernel.
        if slowest and time.perf_counter() + 2 * len(ways) * tflop / slowest > end:
            break
        x = torch.randn(rows, inner, device=device).to(DTYPES[precision])
        weight = (torch.randn(columns, inner, device=device) / inner**0.5).to(x.dtype)
        for way, product in ways.items():
            stop, times = time.perf_counter() + seconds / len(SHAPES) / len(ways), list[float]()
            while len(times) < 2 or time.perf_counter() < stop:
                times.append(call_seconds(lambda: product(x, weight), device))  # noqa: B023
            best[way] = max(best[way], (tflop / min(times), f"{rows}x{inner}x{columns}"))
    return [
        {"precision": precision, "product": way, "tflops": rate, "shape": shape}
        for way, (rate, shape) in best.items()
    ]

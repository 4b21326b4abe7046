"""The losses of every step of a short training, for "same loss before and after".

A change that must not change the numbers is proven by two traces that are equal to the last bit.
Two runs are, on one machine with one thread in float32; other processors and versions of torch add
in another order. A trace tells whether it may be compared so: see `Trace.arithmetic`.
"""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from detectron2.engine import HookBase
from omegaconf import DictConfig
from torch.nn import functional

from streampetr_vit.engine.train_loop import train
from streampetr_vit.errors import InputError, MissingFileError

_NAMES = ("total_loss", "grad_norm")


@dataclass(frozen=True)
class Trace:
    """What a training of some steps gave.

    Attributes:
        arithmetic: changes where the same operations of torch give other bits: another processor,
            another version, another number of threads.
        data: changes with the pictures of the first frames.
        total_loss, grad_norm: of each step.
    """

    arithmetic: str
    data: str
    total_loss: list[float]
    grad_norm: list[float]

    @staticmethod
    def read(path: str | Path) -> Trace:
        """Reads a trace.

        Raises:
            MissingFileError: no such file.
            InputError: it is no trace.
        """
        if not Path(path).is_file():
            raise MissingFileError(f"no trace {path}: make one with the sub-command record")
        try:
            return Trace(**json.loads(Path(path).read_text()))
        except (ValueError, TypeError) as error:
            raise InputError(f"{path} is no trace of this tool ({error})") from error

    def write(self, path: str | Path) -> None:
        """Writes JSON; floats keep all their bits."""
        Path(path).write_text(json.dumps(asdict(self)) + "\n")


class _Recorder(HookBase):
    """Keeps the scalars of each step, as they are and not smoothed."""

    def __init__(self) -> None:
        self.steps: dict[str, list[float]] = {name: [] for name in _NAMES}

    def after_step(self) -> None:
        latest = self.trainer.storage.latest()
        for name, values in self.steps.items():
            values.append(latest[name][0])


def record(cfg: DictConfig, steps: int) -> Trace:
    """Trains in float32 on one CPU thread, without evaluation, in a folder of its own.

    Args:
        cfg: the whole configuration; changed.
        steps: of the training; the schedule ends with them.
    """
    cfg.train.update(max_iter=steps, max_seconds=None, precision="float32", device="cpu", seed=0)
    cfg.dataloader.evaluator = cfg.report = None
    torch.set_num_threads(1)
    torch.manual_seed(0)
    recorder = _Recorder()
    with tempfile.TemporaryDirectory() as folder:
        cfg.train.output_dir = folder
        train(cfg, more_hooks=[recorder])
    losses, norms = (recorder.steps[name] for name in _NAMES)
    return Trace(arithmetic_print(), data_print(cfg.dataloader.train.dataset.root), losses, norms)


def compare(one: Trace, other: Trace, rtol: float = 0.0, steps: int | None = None) -> str | None:
    """The first difference of two traces; None if there is none.

    Args:
        one, other: of the same length.
        rtol: relative difference that is allowed; 0 for equality in every bit.
        steps: compare so many; None for all.
    """
    if len(one.total_loss) != len(other.total_loss):
        return f"{len(one.total_loss)} steps against {len(other.total_loss)}"
    for name in _NAMES:
        difference = _first_difference(
            getattr(one, name)[:steps], getattr(other, name)[:steps], rtol
        )
        if difference is not None:
            return f"{name} {difference}"
    return None


def _first_difference(a: Sequence[float], b: Sequence[float], rtol: float) -> str | None:
    for step, (x, y) in enumerate(zip(a, b, strict=True)):
        # Written so that NaN is a difference.
        if not abs(x - y) <= rtol * max(abs(x), abs(y)):
            return f"of step {step}: {x!r} against {y!r}"
    return None


def arithmetic_print() -> str:
    """16 hex digits of what some operations of torch give here, bit for bit."""
    generator = torch.Generator().manual_seed(0)

    def numbers(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator)

    x, weight = numbers(250, 128), numbers(320, 128)
    tokens = numbers(1, 4, 100, 32)
    results = [
        functional.linear(x, weight),
        functional.scaled_dot_product_attention(tokens, tokens, tokens),
        functional.layer_norm(x, (128,)),
        functional.conv2d(numbers(6, 3, 32, 32), numbers(128, 3, 16, 16), stride=16),
        x.exp(),
        x.sin(),
        x.sum(0),
        x.softmax(-1),
    ]
    return _digest(result.numpy().tobytes() for result in results)


def data_print(root: str) -> str:
    """16 hex digits of the first pictures of a data set."""
    pictures = sorted(Path(root).glob("samples/CAM_*/*.jpg"))
    return _digest(path.read_bytes() for path in pictures[:: max(1, len(pictures) // 20)])


def _digest(parts: Iterable[bytes]) -> str:
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part)
    return digest.hexdigest()[:16]

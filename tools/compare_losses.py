#!/usr/bin/env python
"""Proves that a change of the code leaves a training as it was, to the last bit.

Two trainings are equal on one machine, with one thread, in float32. Other processors and versions
of torch add in another order; a trace says where it was made, and --rtol allows for the rest.

examples:
  python tools/compare_losses.py record --config-file configs/quickstart.py before.json
  (change the code, or check out another commit)
  python tools/compare_losses.py record --config-file configs/quickstart.py after.json
  python tools/compare_losses.py compare before.json after.json
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from detectron2.engine import HookBase
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException
from torch.nn import functional

from streampetr_vit.command_line import add_trust, at_least, file_path, not_negative
from streampetr_vit.configuration.described import call
from streampetr_vit.data.nuscenes.catalog import open_dataset
from streampetr_vit.data.nuscenes.records import FrameRecords
from streampetr_vit.engine import load_config, train
from streampetr_vit.errors import InputError, MissingFileError, one_line_errors
from streampetr_vit.files import replacing

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
        with replacing(path) as temporary:
            temporary.write_text(json.dumps(asdict(self)) + "\n")


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
    spec = call(cfg.dataset_spec)
    data = data_print(open_dataset(cfg.dataloader.train.dataset, spec))
    cfg.train.update(max_iter=steps, max_seconds=None, precision="float32", device="cpu", seed=0)
    cfg.dataloader.evaluator = cfg.report = None
    torch.set_num_threads(1)
    torch.manual_seed(0)
    recorder = _Recorder()
    with tempfile.TemporaryDirectory() as folder:
        cfg.train.output_dir = folder
        train(cfg, more_hooks=[recorder])
    losses, norms = (recorder.steps[name] for name in _NAMES)
    return Trace(arithmetic_print(), data, losses, norms)


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
    # The version stands for the operations that are not among these, backward ones above all.
    return _digest([torch.__version__.encode(), *(result.numpy().tobytes() for result in results)])


def data_print(records: FrameRecords) -> str:
    """16 hex digits of some pictures of a data set, from its first frame to its last."""
    frames = [records[index] for index in range(0, len(records), max(1, len(records) // 20))]
    return _digest(f.picture(0).read_bytes() for f in frames)


def _digest(parts: Iterable[bytes]) -> str:
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part)
    return digest.hexdigest()[:16]


def parse_arguments(argv: list[str] | None = None) -> argparse.Namespace:
    """Reads the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True)
    recording = commands.add_parser("record", help="train some steps and write their losses")
    recording.add_argument("--config-file", required=True)
    add_trust(recording)
    recording.add_argument("--steps", type=at_least(1), default=200)
    recording.add_argument("output", type=file_path, help="JSON file")
    recording.add_argument("opts", nargs="*", help="overrides, path.key=value")
    comparing = commands.add_parser("compare", help="exit status 1 unless two traces are equal")
    comparing.add_argument("one", type=file_path)
    comparing.add_argument("other", type=file_path)
    comparing.add_argument(
        "--rtol", type=not_negative, default=0.0, help="allowed, relative (default 0)"
    )
    return parser.parse_args(argv)


@one_line_errors(OmegaConfBaseException)
def main(argv: list[str] | None = None) -> int:
    """Runs the tool; the exit status."""
    args = parse_arguments(argv)
    if args.command == "record":
        trace = record(load_config(args.config_file, args.opts, args.trust), args.steps)
        trace.write(args.output)
        print(f"{args.output}: {args.steps} steps, the last loss is {trace.total_loss[-1]:.6g}")
        return 0
    one, other = Trace.read(args.one), Trace.read(args.other)
    difference = compare(one, other, args.rtol)
    print(difference or f"equal: {len(one.total_loss)} steps")
    if difference and (one.arithmetic, one.data) != (other.arithmetic, other.data):
        print("the traces were made by other arithmetic or from other pictures: see --rtol")
    return 1 if difference else 0


if __name__ == "__main__":
    sys.exit(main())

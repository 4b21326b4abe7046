#!/usr/bin/env python
"""Measures speed and memory: of a frame, a training step, the loader, by size, by kernel."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from streampetr_vit.benchmark.kernels import measure_kernels, parse_shape
from streampetr_vit.benchmark.latency import measure_latency
from streampetr_vit.benchmark.loading import measure_loading
from streampetr_vit.benchmark.report import Report
from streampetr_vit.benchmark.scaling import SERIES, SIDES, measure_scaling
from streampetr_vit.benchmark.session import Session
from streampetr_vit.benchmark.timing import Repeats
from streampetr_vit.benchmark.training import POLICIES, measure_training
from streampetr_vit.errors import InputError, one_line_errors

EXAMPLES = """
examples:
  a frame of six cameras, stage by stage, on the CPU with two threads, beside the plain form:
    python tools/benchmark.py latency --config-file configs/quickstart.py --device cpu \\
        --threads 2 --compare plain --output latency.json
  the same frame in bf16, compiled, replayed as a CUDA graph:
    python tools/benchmark.py latency --config-file configs/streampetr_eva02_l_800x320_24ep.py \\
        --precision bf16 --compile --cuda-graph
  a training step with two streams under each checkpointing policy:
    python tools/benchmark.py train --config-file configs/quickstart.py --batch 2
  the training loader with 0, 1 and 2 workers, on the configuration's data set:
    python tools/benchmark.py data --config-file configs/quickstart.py --workers 0,1,2
  the backbone against the resolution:
    python tools/benchmark.py scale --config-file configs/quickstart.py --series resolution \\
        --resolutions 400x160,416x160,448x160 --stage backbone
  the attention kernels on the recipe's windows:
    python tools/benchmark.py attention --config-file configs/quickstart.py

Weights are random unless train.init_checkpoint=FILE is among the overrides. Times are medians (p50)
and the value that 90 % of the runs do not exceed (p90). Exit status 1: a row has an error.
"""

DEFAULTS = {
    "cameras": "1,2,4,6",
    "resolution": "800x320,832x320,928x320,1408x512,1440x512,1600x640,1600x800",
    "memory": "256,512,1024,2048",
    "queries": "300,644,1288",
    "batch": "1,2,4",
}


def build_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, (help_text, add_options) in COMMANDS.items():
        command = commands.add_parser(name, help=help_text, description=help_text)
        _common_options(command)
        add_options(command)
        command.add_argument("overrides", nargs="*", help="changes of the configuration, key=value")
    return parser


def _common_options(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--config-file", required=True, help="a recipe of configs/")
    add("--device", default="auto", choices=("auto", "cpu", "cuda"), help="default: auto")
    add("--precision", default="float32", choices=("float32", "bf16", "fp16"))
    add("--threads", type=int, metavar="N", help="CPU threads of torch")
    add("--repeats", type=int, default=10, metavar="N", help="timed runs; default: 10")
    add("--warmup", type=int, default=2, metavar="N", help="runs before them; default: 2")
    add("--peak-seconds", type=float, default=5.0, help="to measure the matrix peak; default: 5")
    add("--peak-tflops", type=float, help="the matrix peak, where it is known already")
    add("--output", metavar="FILE", help="write JSON")


def _latency_options(parser: argparse.ArgumentParser) -> None:
    _rig_options(parser)
    add = parser.add_argument
    add("--data", action="store_true", help="frames of dataloader.test, not a made-up one")
    add("--compare", choices=("plain",), help="run the padded plain form alternately")
    add("--compile", action="store_true", help="torch.compile for the ViT's blocks and the decoder")
    add("--cuda-graph", action="store_true", help="capture the step and replay it")


def _train_options(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--batch", type=int, default=1, help="streams; default: 1")
    add("--data", action="store_true", help="batches of dataloader.train, not a made-up one")
    policies = ",".join(POLICIES)
    add("--checkpointing", default=policies, help=f"policies; default: {policies}")


def _data_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--workers", default="0,1,2", help="loading processes; default: 0,1,2")
    parser.add_argument("--frames", type=int, default=60, help="timed for each; default: 60")


def _scale_options(parser: argparse.ArgumentParser) -> None:
    _rig_options(parser)
    add = parser.add_argument
    add("--series", default=",".join(SERIES), help=f"any of {', '.join(SERIES)}; default: all")
    add("--stage", default="frame", choices=SIDES, help="default: frame")
    for series, option in OPTION_OF_SERIES.items():
        add(option, default=DEFAULTS[series], help=f"values; default: {DEFAULTS[series]}")


def _attention_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--num-cameras", type=int, default=6, help="default: 6")
    parser.add_argument(
        "--shapes", help="WINDOWSxTOKENS+PADDED, separated by commas; default: the recipe's"
    )


def _rig_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--num-cameras", type=int, default=6, help="of the rig; default: 6")
    parser.add_argument("--batch", type=int, default=1, help="streams; default: 1")


OPTION_OF_SERIES = {
    "cameras": "--cameras",
    "resolution": "--resolutions",
    "memory": "--memory",
    "queries": "--queries",
    "batch": "--batches",
}
COMMANDS = {
    "latency": ("time of a frame, stage by stage", _latency_options),
    "train": ("time and memory of a training step", _train_options),
    "data": ("images per second of the training loader", _data_options),
    "scale": ("time of a frame against its size", _scale_options),
    "attention": ("attention kernels by window shape", _attention_options),
}


def open_session(args: argparse.Namespace) -> Session:
    """The session that the common options ask for."""
    return Session.open(
        args.config_file,
        args.overrides,
        args.device,
        args.threads,
        precision=args.precision,
        repeats=Repeats(args.repeats, args.warmup),
        peak_seconds=args.peak_seconds,
        given_peak=args.peak_tflops,
    )


def measure(args: argparse.Namespace) -> Report:
    """Runs a sub-command."""
    session = open_session(args)
    if args.command == "latency":
        return measure_latency(
            session,
            cameras=args.num_cameras,
            batch=args.batch,
            from_data=args.data,
            compare_plain=args.compare == "plain",
            compiled=args.compile,
            cuda_graph=args.cuda_graph,
        )
    if args.command == "train":
        policies = args.checkpointing.split(",")
        return measure_training(session, batch=args.batch, policies=policies, from_data=args.data)
    if args.command == "data":
        return measure_loading(session, workers=_numbers(args.workers), frames=args.frames)
    if args.command == "scale":
        values = {name: _series_values(args, name) for name in args.series.split(",")}
        return measure_scaling(
            session, values, cameras=args.num_cameras, batch=args.batch, stage=args.stage
        )
    shapes = [parse_shape(text) for text in args.shapes.split(",")] if args.shapes else []
    return measure_kernels(session, shapes=shapes, cameras=args.num_cameras)


def _series_values(args: argparse.Namespace, series: str) -> list[str]:
    if series not in OPTION_OF_SERIES:
        raise InputError(f"--series {series!r} is unknown; use any of {', '.join(SERIES)}")
    return getattr(args, OPTION_OF_SERIES[series].lstrip("-")).split(",")


def _numbers(text: str) -> list[int]:
    parts = text.split(",")
    if not all(part.isdigit() for part in parts):
        raise InputError(f"--workers {text!r} must be numbers separated by commas, such as 0,1,2")
    return [int(part) for part in parts]


@one_line_errors()
def main(arguments: list[str] | None = None) -> int:
    """Measures, writes and prints; the exit status."""
    args = build_parser().parse_args(arguments)
    if args.output and not Path(args.output).parent.is_dir():  # before minutes are spent
        raise InputError(f"--output {args.output}: that folder does not exist; make it first")
    report = measure(args)
    if args.output:
        report.write(args.output)
    print(report)
    return 1 if report.failed else 0


if __name__ == "__main__":
    sys.exit(main())

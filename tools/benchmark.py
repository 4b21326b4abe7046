#!/usr/bin/env python
"""Measures speed and memory: of a frame, a training step, the loader, by size, by kernel."""

from __future__ import annotations

import argparse
import json
import re
import sys
from pathlib import Path
from typing import Any

import torch
from omegaconf.errors import OmegaConfBaseException

from streampetr_vit.benchmark.frames import SIDES, measure_latency, measure_scaling
from streampetr_vit.benchmark.kernels import measure_kernels
from streampetr_vit.benchmark.measuring import Tables, as_text, describe_machine
from streampetr_vit.benchmark.session import Session
from streampetr_vit.benchmark.training import POLICIES, measure_loading, measure_training
from streampetr_vit.command_line import above_0, add_trust, at_least, file_path
from streampetr_vit.engine import resolve_device
from streampetr_vit.errors import InputError, one_line_errors
from streampetr_vit.files import replacing

EXAMPLES = """
examples:
  python tools/benchmark.py latency --config-file configs/quickstart.py --device cpu \\
      --threads 2 --compare plain --output latency.json
  python tools/benchmark.py train --config-file configs/quickstart.py --batch 2
  python tools/benchmark.py scale --config-file configs/quickstart.py --series resolution \\
      --resolutions 400x160,416x160,448x160 --stage backbone

Weights are random unless train.init_checkpoint=FILE is among the overrides. Times are medians (p50)
and the value that 90 % of the runs do not exceed (p90). Exit status 1: a row has an error.
"""
COMMANDS = {
    "latency": "time of a frame, stage by stage",
    "train": "time and memory of a training step",
    "data": "images per second of the training loader",
    "scale": "time of a frame against its size",
    "attention": "attention kernels by window shape",
}
# Series of `scale` -> its option, and the default values.
VALUES = {
    "cameras": ("--cameras", "1,2,4,6"),
    "resolution": ("--resolutions", "800x320,832x320,928x320,1408x512,1600x640,1600x800"),
    "memory": ("--memory", "256,512,1024,2048"),
    "queries": ("--queries", "300,644,1288"),
    "batch": ("--batches", "1,2,4"),
}
# Forms of values -> their patterns. What has one becomes a tuple of its numbers.
ABOVE_0 = r"0*[1-9]\d*"
NUMBER, SIZE = "a number above 0", "WIDTHxHEIGHT"
WINDOWS = "WINDOWSxTOKENS+PADDED, such as 18x64+192, one window and token at least"
FORMS = {
    "a number": r"\d+",
    NUMBER: ABOVE_0,
    SIZE: f"{ABOVE_0}x{ABOVE_0}",
    WINDOWS: rf"{ABOVE_0}x{ABOVE_0}\+\d+",
}


def build_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, text in COMMANDS.items():
        command = commands.add_parser(name, help=text, description=text)
        add_trust(command)
        add = command.add_argument
        add("--config-file", required=True, help="a recipe of configs/")
        add("--device", default="auto", choices=("auto", "cpu", "cuda"), help="default: auto")
        add("--precision", default="float32", choices=("float32", "bf16", "fp16"))
        add("--threads", type=at_least(1), metavar="N", help="CPU threads of torch")
        add("--repeats", type=at_least(1), default=10, help="timed runs; default: 10")
        add("--warmup", type=at_least(0), default=2, help="runs before them; default: 2")
        add("--peak-seconds", type=above_0, default=5.0, help="to measure the matrix peak")
        add("--peak-tflops", type=above_0, help="the matrix peak, where it is known already")
        add("--output", type=file_path, metavar="FILE", help="write JSON")
        if name in ("latency", "scale", "attention"):
            add("--num-cameras", type=at_least(1), default=6, help="of the rig; default: 6")
        if name in ("latency", "scale", "train"):
            add("--batch", type=at_least(1), default=1, help="streams; default: 1")
        if name in ("latency", "train"):
            add("--data", action="store_true", help="the recipe's data set, not made-up input")
        if name == "latency":
            add("--compare", choices=("plain",), help="run the padded plain form alternately")
            add("--compile", action="store_true", help="torch.compile for ViT blocks and decoder")
            add("--cuda-graph", action="store_true", help="capture the frame and replay it")
        elif name == "train":
            add("--checkpointing", **_list(",".join(POLICIES), *POLICIES))
        elif name == "data":
            add("--workers", **_list("0,1,2", "a number"))
            add("--frames", type=at_least(1), default=60, help="timed for each; default: 60")
        elif name == "scale":
            add("--series", **_list(",".join(VALUES), *VALUES))
            add("--stage", default="frame", choices=SIDES, help="default: frame")
            for option, values in VALUES.values():
                add(option, **_list(values, SIZE if option == "--resolutions" else NUMBER))
        elif name == "attention":
            add("--shapes", **_list("", WINDOWS))
        add("overrides", nargs="*", help="changes of the configuration, key=value")
    return parser


def _list(default: str, *allowed: str) -> dict[str, Any]:
    """Settings of an option for values with commas between them: the allowed ones, or a form's."""
    are_numbers, pattern = allowed[0] in FORMS, FORMS.get(allowed[0], "|".join(allowed))

    def parse(text: str) -> list[Any]:
        values = text.split(",")
        for value in values:
            if not re.fullmatch(pattern, value):
                raise argparse.ArgumentTypeError(f"{value!r} must be {' or '.join(allowed)}")
        return [tuple(map(int, re.findall(r"\d+", v))) for v in values] if are_numbers else values

    text = f"{', '.join(allowed)}; default: {default or 'as in the recipe'}"
    return {"type": parse, "default": default or [], "help": text}


def measure(args: argparse.Namespace, device: torch.device) -> Tables:
    """Runs a sub-command."""
    counts, peak = (args.repeats, args.warmup), (args.peak_seconds, args.peak_tflops)
    recipe = (args.config_file, args.overrides)
    session = Session(*recipe, device, args.precision, *counts, *peak, trusted=args.trust)
    if args.command == "latency":
        modes = {"compiled": args.compile, "cuda_graph": args.cuda_graph}
        rig = {"cameras": args.num_cameras, "batch": args.batch, "from_data": args.data}
        return measure_latency(session, **rig, **modes, compare_plain=args.compare == "plain")
    if args.command == "train":
        options = {"policies": args.checkpointing, "from_data": args.data}
        return measure_training(session, batch=args.batch, **options)
    if args.command == "data":
        workers = [number for (number,) in args.workers]
        return measure_loading(session, workers=workers, frames=args.frames)
    if args.command == "scale":
        values = {series: getattr(args, VALUES[series][0].lstrip("-")) for series in args.series}
        rig = {"cameras": args.num_cameras, "batch": args.batch}
        return measure_scaling(session, values, stage=args.stage, **rig)
    return measure_kernels(session, shapes=args.shapes, cameras=args.num_cameras)


def _plain(args: argparse.Namespace) -> dict[str, Any]:
    """The command line for JSON."""
    return {key: str(v) if isinstance(v, Path) else v for key, v in vars(args).items()}


@one_line_errors(OmegaConfBaseException)
def main(arguments: list[str] | None = None) -> int:
    """Measures, writes and prints; the exit status."""
    args = build_parser().parse_args(arguments)
    if args.output and not args.output.parent.is_dir():  # before minutes are spent
        raise InputError(f"--output {args.output}: that folder does not exist; make it first")
    if args.output and Path(args.output).is_dir():
        raise InputError(f"--output {args.output} is a folder; name a file in it")
    if args.threads is not None:
        torch.set_num_threads(args.threads)
    if args.device == "cuda" and not torch.cuda.is_available():
        raise InputError("--device cuda: torch sees no GPU; use --device cpu")
    device = resolve_device(args.device)
    tables, machine = measure(args, device), describe_machine(device)
    if args.output:
        result = {"benchmark": args.command, "machine": machine, "settings": _plain(args)}
        with replacing(args.output) as temporary:
            temporary.write_text(json.dumps(result | {"tables": tables}, indent=2) + "\n")
    print(", ".join(f"{name} {value}" for name, value in machine.items()))
    print(f"\n{as_text(tables)}")
    return 1 if any("error" in row for rows in tables.values() for row in rows) else 0


if __name__ == "__main__":
    sys.exit(main())

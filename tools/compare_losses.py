#!/usr/bin/env python
"""Proves that a change of the code leaves a training as it was, to the last bit.

examples:
  python tools/compare_losses.py record --config-file configs/quickstart.py before.json
  (change the code, or check out another commit)
  python tools/compare_losses.py record --config-file configs/quickstart.py after.json
  python tools/compare_losses.py compare before.json after.json
"""

from __future__ import annotations

import argparse
import sys

from streampetr_vit.engine import load_config
from streampetr_vit.engine.loss_trace import Trace, compare, record
from streampetr_vit.errors import one_line_errors


def parse_arguments(argv: list[str] | None = None) -> argparse.Namespace:
    """Reads the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True)
    recording = commands.add_parser("record", help="train some steps and write their losses")
    recording.add_argument("--config-file", required=True)
    recording.add_argument("--steps", type=int, default=200)
    recording.add_argument("output", help="JSON file")
    recording.add_argument("opts", nargs="*", help="overrides, path.key=value")
    comparing = commands.add_parser("compare", help="exit status 1 unless two traces are equal")
    comparing.add_argument("one")
    comparing.add_argument("other")
    comparing.add_argument("--rtol", type=float, default=0.0, help="allowed, relative (default 0)")
    return parser.parse_args(argv)


@one_line_errors()
def main(argv: list[str] | None = None) -> int:
    """Runs the tool; the exit status."""
    args = parse_arguments(argv)
    if args.command == "record":
        trace = record(load_config(args.config_file, args.opts), args.steps)
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

"""Reads the tables of a nuScenes-format data set once, caches them, and says what is in them.

Training and evaluation do this by themselves when they need it; run it beforehand to see that the
data set is complete, or to prepare a root that will be read-only.

Example:
    python tools/prepare_nuscenes.py --root datasets/nuscenes --version v1.0-trainval
    python tools/prepare_nuscenes.py --root datasets/synthetic --version v1.0-trainval --split val
"""

from __future__ import annotations

import argparse
import logging
import sys
import time
from pathlib import Path

from streampetr_vit.data.checks import summarise
from streampetr_vit.data.nuscenes import load_split


def parse_arguments(argv: list[str] | None = None) -> argparse.Namespace:
    """Reads the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--root", type=Path, required=True, help="folder with samples/ and v1.0-*/")
    parser.add_argument("--version", required=True, help="table folder, for example v1.0-mini")
    parser.add_argument("--split", help="count this split only (default: all scenes)")
    parser.add_argument("--cache-dir", type=Path, help="default: ROOT/.streampetr_vit")
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    """Runs the tool; returns the exit status."""
    arguments = parse_arguments(argv)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    started = time.perf_counter()
    try:
        records = load_split(
            arguments.root, arguments.version, arguments.split, arguments.cache_dir
        )
        summary = summarise(records)
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(summary)
    size = records.path.stat().st_size / 1e6
    print(
        f"cache    {records.path} ({size:.1f} MB), ready in {time.perf_counter() - started:.1f} s"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""Reads the tables of a nuScenes-format data set once, caches them, and says what is in them.

Training and evaluation do this by themselves when they need it. Run it first to see whether the
data set is complete, or to prepare a root that will be read-only. The splits of one version share a
cache.

Example:
    python tools/prepare_nuscenes.py --dataset nuscenes_trainval_train nuscenes_trainval_val
    python tools/prepare_nuscenes.py --root datasets/synthetic --version v1.0-trainval --split val
"""

from __future__ import annotations

import argparse
import logging
import time
from collections.abc import Iterator

from streampetr_vit.command_line import add_trust, file_path
from streampetr_vit.data.checks import summarise
from streampetr_vit.data.nuscenes.catalog import load_split, open_dataset
from streampetr_vit.data.nuscenes.records import FrameRecords
from streampetr_vit.engine import load_spec
from streampetr_vit.errors import one_line_errors


def parse_arguments(argv: list[str] | None = None) -> argparse.Namespace:
    """Reads the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--dataset", nargs="+", metavar="NAME", help="registered data sets, instead of all below"
    )
    parser.add_argument("--root", type=file_path, help="folder with samples/ and v1.0-*/")
    parser.add_argument("--version", help="table folder, for example v1.0-mini")
    parser.add_argument("--split", help="count this split only (default: all scenes)")
    parser.add_argument(
        "--config-file",
        help="recipe whose dataset_spec names classes and cameras (default: nuScenes)",
    )
    add_trust(parser)
    parser.add_argument("--cache-dir", type=file_path, help="default: ROOT/.streampetr_vit")
    arguments = parser.parse_args(argv)
    described = (arguments.root, arguments.version, arguments.split, arguments.cache_dir)
    if arguments.dataset and any(described):
        parser.error(
            "--dataset names registered data sets, which have a root, version, split and cache: "
            "leave out --root, --version, --split and --cache-dir"
        )
    if not arguments.dataset and not (arguments.root and arguments.version):
        parser.error("give --dataset NAME ..., or --root and --version")
    return arguments


def data_sets(arguments: argparse.Namespace) -> Iterator[tuple[str, FrameRecords]]:
    """Opens the data sets that the command line names, one after the other, each with a title."""
    spec = load_spec(arguments.config_file, arguments.trust)
    for name in arguments.dataset or ():
        yield name, open_dataset(name, spec)
    if arguments.root:
        root, version, split = arguments.root, arguments.version, arguments.split
        records = load_split(root, version, split, arguments.cache_dir, spec)
        yield f"{root}, {version}, {split or 'all scenes'}", records


@one_line_errors()
def main(argv: list[str] | None = None) -> None:
    """Runs the tool."""
    arguments = parse_arguments(argv)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    started = time.perf_counter()
    for title, records in data_sets(arguments):
        print(title, summarise(records), sep="\n")
        size, seconds = records.path.stat().st_size / 1e6, time.perf_counter() - started
        print(f"cache    {records.path} ({size:.1f} MB), ready after {seconds:.1f} s")


if __name__ == "__main__":
    main()

"""The data set that a command line names, for tools that read one. Not a tool itself."""

from __future__ import annotations

import argparse

from streampetr_vit.command_line import add_trust
from streampetr_vit.data.nuscenes.catalog import open_dataset
from streampetr_vit.data.nuscenes.records import FrameRecords


def add_dataset(parser: argparse.ArgumentParser) -> None:
    """Adds --config-file and --dataset, of which one must be given, and --trust."""
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--config-file", help="take the data set of its dataloader.test")
    source.add_argument(
        "--dataset", nargs="+", metavar="WORD", help="a registered name, or ROOT VERSION SPLIT"
    )
    add_trust(parser)


def check_dataset(parser: argparse.ArgumentParser, args: argparse.Namespace) -> None:
    """Ends the tool with its usage if --dataset has the wrong number of words."""
    if args.dataset and len(args.dataset) not in (1, 3):
        parser.error("--dataset takes a registered name, or ROOT VERSION SPLIT")


def open_records(args: argparse.Namespace) -> FrameRecords:
    """The data set that the command line names."""
    if args.config_file:
        # Seconds, and most calls do without.
        from streampetr_vit.configuration.described import call
        from streampetr_vit.engine import load_config

        cfg = load_config(args.config_file, (), args.trust)
        return open_dataset(cfg.dataloader.test.dataset, call(cfg.dataset_spec))
    if len(args.dataset) == 1:
        return open_dataset(args.dataset[0])
    root, version, split = args.dataset
    return open_dataset({"root": root, "version": version, "split": split})

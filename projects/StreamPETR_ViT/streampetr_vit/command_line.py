"""Arguments that several tools have."""

from __future__ import annotations

import argparse
from pathlib import Path


def add_trust(parser: argparse.ArgumentParser) -> None:
    """Adds --trust, for tools that take a configuration."""
    parser.add_argument(
        "--trust",
        action="append",
        default=[],
        metavar="PACKAGE",
        help="let a YAML configuration call this package too; may be given again. By default it "
        "calls only what recipes use. A .py configuration is code, and may call anything",
    )


def file_path(text: str) -> Path:
    """A path with ~ written out, which the shell does not do in --option=~/folder."""
    return Path(text).expanduser()

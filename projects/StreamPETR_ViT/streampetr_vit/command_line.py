"""Arguments that several tools have, and types of arguments."""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable
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
    if not text:  # an unset variable of a shell would mean the present folder
        raise argparse.ArgumentTypeError("a path is empty; . is the present folder")
    return Path(text).expanduser()


def at_least(least: int) -> Callable[[str], int]:
    """The type of whole numbers that are not too small."""

    def parse(text: str) -> int:
        if not text.isdecimal() or int(text) < least:
            raise argparse.ArgumentTypeError(f"{text!r} must be a whole number, {least} or more")
        return int(text)

    return parse


def above_0(text: str) -> float:
    """The type of finite numbers above 0."""
    value = _number(text)
    if not 0 < value < math.inf:  # False for NaN
        raise argparse.ArgumentTypeError(f"{text!r} must be a number above 0")
    return value


def not_negative(text: str) -> float:
    """The type of finite numbers that are 0 or more."""
    value = _number(text)
    if not 0 <= value < math.inf:
        raise argparse.ArgumentTypeError(f"{text!r} must be a number, 0 or more")
    return value


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan

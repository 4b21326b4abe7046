"""Makes a synthetic data set in nuScenes format: pictures of six cameras, and all tables.

Example:
    python tools/make_synthetic_nuscenes.py --preset quickstart --out datasets/synthetic
    python tools/make_synthetic_nuscenes.py --scenes 6 --val-scenes 2 --frames 20 \\
        --image-size 400x225 --range-m 25 --seed 1 --out datasets/synthetic_small
"""

from __future__ import annotations

import argparse
import dataclasses

from streampetr_vit.command_line import at_least, file_path
from streampetr_vit.errors import one_line_errors
from synthetic_nuscenes import PRESETS, ConfigError, SyntheticConfig, SyntheticError, generate


def _image_size(text: str) -> tuple[int, int]:
    width, _, height = text.lower().partition("x")
    if not (width.isdigit() and height.isdigit()):
        raise argparse.ArgumentTypeError(f"{text!r} is not WIDTHxHEIGHT, for example 400x225")
    return int(width), int(height)


def parse_arguments(argv: list[str] | None = None) -> argparse.Namespace:
    """Reads the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=file_path, required=True, help="data root to make")
    parser.add_argument("--preset", choices=sorted(PRESETS), default="quickstart")
    parser.add_argument("--scenes", type=int, help="training scenes")
    parser.add_argument("--val-scenes", type=int, help="validation scenes")
    parser.add_argument("--frames", type=int, help="keyframes per scene, at 2 Hz")
    parser.add_argument("--image-size", type=_image_size, metavar="WxH", help="native size")
    parser.add_argument("--range-m", type=float, help="lidar range; fog closes the view there")
    parser.add_argument("--seed", type=int, help="seed of all random choices")
    parser.add_argument("--lidar-files", action=argparse.BooleanOptionalAction, default=None)
    parser.add_argument("--workers", type=at_least(1), help="processes (default: one per CPU core)")
    parser.add_argument(
        "--overwrite", action="store_true", help="replace a synthetic set of another configuration"
    )
    # Of earlier versions; a line that names the new place is better than "unrecognized".
    parser.add_argument("--scale-tables", action="store_true", help=argparse.SUPPRESS)
    return parser.parse_args(argv)


def config_from(arguments: argparse.Namespace) -> SyntheticConfig:
    """The preset with the options that were given."""
    width, height = arguments.image_size or (None, None)
    given = {
        "train_scenes": arguments.scenes,
        "val_scenes": arguments.val_scenes,
        "frames": arguments.frames,
        "image_width": width,
        "image_height": height,
        "range_m": arguments.range_m,
        "seed": arguments.seed,
        "lidar_files": arguments.lidar_files,
    }
    changes = {name: value for name, value in given.items() if value is not None}
    return dataclasses.replace(PRESETS[arguments.preset], **changes)


@one_line_errors(SyntheticError)
def main(argv: list[str] | None = None) -> None:
    """Runs the tool."""
    print(_make(parse_arguments(argv)))


def _make(arguments: argparse.Namespace) -> str:
    """Does what was asked for; returns the line that says so."""
    if arguments.scale_tables:
        raise ConfigError(
            "--scale-tables: benchmarks/cost.py records makes tables of the real data set's "
            "size now"
        )
    config = config_from(arguments)
    generate(config, arguments.out, arguments.workers, arguments.overwrite)
    train, val = config.split_names
    return f"{arguments.out}: version {config.version}, splits {train} and {val}"


if __name__ == "__main__":
    main()

#!/usr/bin/env python
"""Writes scenes of a nuScenes-format set as the folder of a drive: rig.yaml, frames.csv, pictures.

It is an example of what tools/predict.py --folder takes from your own car, and a way to try it.

example:
    python tools/export_drive.py --dataset data/synthetic_quickstart v1.0-trainval \\
        --scenes scene-0012 --out drive
"""

from __future__ import annotations

import argparse

from streampetr_vit.command_line import add_trust, file_path
from streampetr_vit.engine import load_spec
from streampetr_vit.errors import one_line_errors
from streampetr_vit.inference.sources.export import export_drive


@one_line_errors()
def main(arguments: list[str] | None = None) -> None:
    """Exports, and says what."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--dataset", nargs=2, metavar=("ROOT", "VERSION"), required=True)
    parser.add_argument("--scenes", nargs="+", required=True, help="names of scenes of one car")
    parser.add_argument("--out", type=file_path, required=True, help="the new folder")
    parser.add_argument(
        "--config-file", help="recipe whose dataset_spec names the cameras (default: nuScenes)"
    )
    add_trust(parser)
    args = parser.parse_args(arguments)
    spec = load_spec(args.config_file, args.trust)
    count = export_drive(*args.dataset, args.scenes, args.out, spec)
    print(f"{count} frames of {len(spec.cameras)} cameras in {args.out}")


if __name__ == "__main__":
    main()

#!/usr/bin/env python
"""Writes a trained detector as three ONNX graphs, with the interface of Autoware's node.

The folder is complete in itself: tools/predict.py --onnx DIR runs it without PyTorch's detector. It
holds the graphs, the node's parameters of the model, the recipe, and how far the graphs are from
PyTorch over a made-up drive. Nothing is written unless they hold every weight and, in float32, give
PyTorch's numbers.
"""

from __future__ import annotations

import argparse
import logging
import shlex
import time
from collections.abc import Sequence
from pathlib import Path

import torch
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from streampetr_vit.benchmark.measuring import describe_machine
from streampetr_vit.command_line import add_trust, file_path
from streampetr_vit.configuration.reading import read_config
from streampetr_vit.configuration.targets import trust_options
from streampetr_vit.engine import load_config
from streampetr_vit.errors import one_line_errors
from streampetr_vit.export import optional, parity
from streampetr_vit.export.autoware import check_for_node, write_parameters
from streampetr_vit.export.checking import check_exportable
from streampetr_vit.export.describing import Origin
from streampetr_vit.export.description import FRAMES, PRECISIONS, Description
from streampetr_vit.export.held_weights import check_held
from streampetr_vit.export.interface import CONFIG, PARAMETERS, Interface
from streampetr_vit.export.output_folder import becoming, check_output, check_room
from streampetr_vit.export.parity import Parity
from streampetr_vit.export.record import check_parity, summary, write_record
from streampetr_vit.export.sessions import Sessions
from streampetr_vit.export.writing import export_graphs
from streampetr_vit.inference.exported import description_of
from streampetr_vit.inference.loading import LoadedDetector, load_detector
from streampetr_vit.inference.recipe_parts import write_recipe
from streampetr_vit.inference.run_files import chosen_weights, config_of_run, weights_of_run
from streampetr_vit.modeling.detector import StreamPETR
from streampetr_vit.progress import waiting

logger = logging.getLogger(__name__)

EXAMPLES = """
examples:
  the last weights of a training, for this repository's tools and for programs of your own:
    python tools/export_onnx.py --run output/quickstart --out output/onnx
  for Autoware's node:
    python tools/export_onnx.py --config-file configs/streampetr_eva02_l_800x320_24ep.py \\
        --weights model_final.pth --out ~/autoware_data/camera_streampetr --autoware
  a detector whose sampling does not export as it was trained:
    python tools/export_onnx.py --run output/repdetr3d --out output/onnx \\
        model.head.decoder.sampling_kernel=grid_sample
"""


def parse_arguments(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Reads the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    model = parser.add_mutually_exclusive_group(required=True)
    model.add_argument("--run", type=file_path, help="folder of a training: its last checkpoint")
    model.add_argument("--config-file", help="recipe, with --weights")
    parser.add_argument("--weights", type=file_path, help="file of weights")
    add_trust(parser)
    parser.add_argument("--ema", action="store_true", help="take the moving average of the weights")
    parser.add_argument("--out", type=file_path, required=True, help="folder of the export")
    parser.add_argument(
        "--autoware",
        action="store_true",
        help="for Autoware's node: frame base_link, and what the node cannot run is refused",
    )
    parser.add_argument(
        "--frame",
        choices=FRAMES,
        help="of cameras, poses and boxes: lidar, that of the weights (the default), or base_link, "
        "the vehicle (the default with --autoware)",
    )
    parser.add_argument(
        "--precision",
        choices=PRECISIONS,
        default=PRECISIONS[0],
        help="fp16-backbone: half precision inside the backbone, where autocast would have it; "
        "inputs and outputs are float32 in both (default: fp32)",
    )
    parser.add_argument(
        "--overwrite", action="store_true", help="replace an export that the folder holds"
    )
    parser.add_argument("overrides", nargs="*", help="changes of the configuration, path.key=value")
    args = parser.parse_args(arguments)
    if args.config_file and not args.weights:
        parser.error("--config-file needs --weights: a recipe has none of its own")
    return args


def export(args: argparse.Namespace) -> None:
    """Exports, checks what was written, and says what it is."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    optional.need_exporter()  # now: to load a large detector takes a while
    optional.onnxruntime()
    config, weights = sources(args)
    cfg = recipe(config, args)
    loaded = load_detector(
        config=cfg,
        weights=weights,
        device="cpu",
        precision="float32",
        ema=args.ema,
        trusted=args.trust,
    )
    detector, size = loaded.detector, tuple(map(int, loaded.image_aug.final_size))
    check_exportable(detector, size)
    description = described(args, config, loaded)
    if args.autoware:
        check_for_node(description, sum(loaded.image_aug.bottom_crop_range) / 2)
    check_output(args.out, description, args.overwrite)
    check_room(args.out, detector)
    with becoming(args.out) as folder:
        write_recipe(cfg, folder / CONFIG)  # first: it takes no time, and may be refused
        interface, found = write(folder, detector, description)
    print(summary(args.out, description, interface, found))
    print(next_commands(args.out, trust_options(cfg)))


def write(folder: Path, detector: StreamPETR, description: Description) -> tuple[Interface, Parity]:
    """Writes all but the recipe, and checks the graphs."""
    started = time.perf_counter()
    with waiting("exporting"):
        interface = export_graphs(detector, description, folder)
    exported = time.perf_counter()
    check_held(folder, detector)
    logger.info("the graphs hold every weight of the detector")
    with waiting("comparing with PyTorch"):
        found = parity.measure(detector, Sessions.open(folder))
    check_parity(description, found)
    seconds = {"export": exported - started, "checks": time.perf_counter() - exported}
    write_parameters(folder / PARAMETERS, description, interface)
    machine = describe_machine(torch.device("cpu"))
    write_record(folder, description, interface, found, seconds, machine)
    return interface, found


def sources(args: argparse.Namespace) -> tuple[Path, Path]:
    """The files of the configuration and of the weights."""
    if not args.run:
        return Path(args.config_file), chosen_weights(args.weights)
    config = config_of_run(args.run)
    weights = chosen_weights(args.weights, args.run) if args.weights else weights_of_run(args.run)
    return config, weights


def recipe(config: Path, args: argparse.Namespace) -> DictConfig:
    """The configuration with its changes."""
    # Without changes, also what an earlier export has written: it has no settings of a training.
    if not args.overrides:
        return read_config(str(config), args.trust)
    return load_config(str(config), args.overrides, args.trust)


def described(args: argparse.Namespace, config: Path, loaded: LoadedDetector) -> Description:
    """What the graphs shall say of themselves."""
    origin = Origin.of_files(config, Path(loaded.weights), args.ema)
    frame = args.frame or ("base_link" if args.autoware else "lidar")
    return description_of(loaded, origin, frame, args.precision)


def next_commands(out: Path, trust: Sequence[str]) -> str:
    """What to do with an export."""
    words = ["python tools/predict.py --onnx", shlex.quote(str(out)), *trust]
    return (
        f"\nrun them:      {' '.join(words)} --folder DRIVE --out RESULTS\n"
        "for TensorRT:  the lines with trtexec in projects/StreamPETR_ViT/docs/export.md"
    )


@one_line_errors(OmegaConfBaseException)
def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the tool."""
    export(parse_arguments(arguments))


if __name__ == "__main__":
    main()

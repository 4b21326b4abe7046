#!/usr/bin/env python
"""Writes a trained detector as three ONNX graphs, with the interface of Autoware's node.

The folder is complete in itself: tools/predict.py --onnx DIR runs it without PyTorch's detector. It
holds the graphs, the node's parameters of the model, the recipe, and how far the graphs are from
PyTorch over a made-up drive. Exit status 0 means that they hold every weight, and that in float32
no number is more than 1e-4 away.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import logging
import math
import shlex
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from tabulate import tabulate

from streampetr_vit.benchmark.measuring import describe_machine
from streampetr_vit.checkpoint.manifest import digest_of, read_manifest
from streampetr_vit.command_line import add_trust, file_path
from streampetr_vit.configuration.reading import read_config
from streampetr_vit.configuration.targets import trust_options
from streampetr_vit.configuration.yaml_file import read_yaml
from streampetr_vit.engine import load_config
from streampetr_vit.engine.run_folder import config_text
from streampetr_vit.errors import InputError, one_line_errors
from streampetr_vit.export import optional, parity
from streampetr_vit.export.autoware import check_for_node, write_parameters
from streampetr_vit.export.checking import check_exportable
from streampetr_vit.export.describing import Origin, describe
from streampetr_vit.export.description import FRAMES, PRECISIONS, Description
from streampetr_vit.export.held_weights import check_held
from streampetr_vit.export.interface import CONFIG, GRAPHS, PARAMETERS, PARITY, Interface
from streampetr_vit.export.output_folder import becoming, check_output, check_room
from streampetr_vit.export.parity import Parity
from streampetr_vit.export.sessions import Sessions
from streampetr_vit.export.writing import export_graphs
from streampetr_vit.files import replacing
from streampetr_vit.inference.loading import LoadedDetector, load_detector
from streampetr_vit.inference.recipe_parts import IMAGE_AUG, leave_out_training
from streampetr_vit.inference.run_files import chosen_weights, config_of_run, weights_of_run
from streampetr_vit.progress import waiting
from streampetr_vit.texts import name_list

logger = logging.getLogger(__name__)

PACKAGES = ("torch", "onnx", "onnxscript", "onnxruntime")  # whose versions decide

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
        write_recipe(cfg, folder / CONFIG)
        times = [time.perf_counter()]
        with waiting("exporting"):
            interface = export_graphs(detector, description, folder)
        times.append(time.perf_counter())
        check_held(folder, detector)
        logger.info("the graphs hold every weight of the detector")
        with waiting("comparing with PyTorch"):
            found = parity.measure(detector, Sessions.open(folder))
        times.append(time.perf_counter())
        write_parameters(folder / PARAMETERS, description, interface)
        seconds = {"export": times[1] - times[0], "comparison": times[2] - times[1]}
        write_record(folder, description, found, seconds)
    print(summary(args.out, description, interface, found))
    check_parity(args.out, description, found)
    print(next_commands(args.out, trust_options(cfg)))


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
    weights, config = Path(loaded.weights), config.expanduser().resolve()
    origin = Origin(
        # A run's is always config.yaml: its folder says more.
        recipe=config.parent.name if config.name == "config.yaml" else config.stem,
        weights=weights.name,
        weights_sha256=read_manifest(weights.parent).get(weights.name) or digest_of(weights),
        ema=args.ema,
    )
    return describe(
        loaded.detector,
        loaded.spec,
        loaded.image_aug.final_size,
        loaded.reference_to_vehicle,
        loaded.frame_period_s,
        loaded.memory,
        origin,
        frame=args.frame or ("base_link" if args.autoware else "lidar"),
        precision=args.precision,
    )


def write_recipe(cfg: DictConfig, path: Path) -> None:
    """Writes what inference needs of a configuration, as a configuration.

    Raises:
        ConfigError: it holds more than plain data.
    """
    leave_out_training(cfg)

    def plain(where: str) -> Any:
        # References lead to parts that are not written.
        return OmegaConf.to_container(OmegaConf.select(cfg, where), resolve=True)

    image_aug: Any = plain(IMAGE_AUG)
    for key in reversed(IMAGE_AUG.split(".")):
        image_aug = {key: image_aug}
    # Nothing is trained with it, but a configuration has these sections.
    training: dict[str, Any] = {name: {} for name in ("optimizer", "schedule", "train")}
    parts = {"model": plain("model"), "dataset_spec": plain("dataset_spec"), **image_aug}
    kept = OmegaConf.create(parts | training, flags={"allow_objects": True})
    with replacing(path) as temporary:
        temporary.write_text(f"# What inference needs of a recipe.\n{config_text(kept)}", "utf-8")
    read_yaml(str(path))  # as it will be read


def write_record(
    folder: Path, description: Description, found: Parity, seconds: Mapping[str, float]
) -> None:
    """Writes how far the graphs are from PyTorch, and where and with what that was measured."""
    content = {
        "description": asdict(description),
        "frames": parity.FRAMES,
        "wiped_after": parity.WIPED_AFTER,
        "tolerance": tolerance(description),
        "largest": finite(found.largest),
        "by_frame": [finite(frame) for frame in found.by_frame],
        "swapped_entries": found.swaps,
        "sizes_mb": {name: round((folder / name).stat().st_size / 1e6, 3) for name in GRAPHS},
        "seconds": {name: round(value, 1) for name, value in seconds.items()},
        "versions": {name: importlib.metadata.version(name) for name in PACKAGES},
        "machine": describe_machine(torch.device("cpu")),
    }
    with replacing(folder / PARITY) as temporary:
        temporary.write_text(json.dumps(content, indent=2) + "\n", "utf-8")


def finite(values: Mapping[str, float]) -> dict[str, float | None]:
    """Numbers as JSON has them: it knows no infinity, which stands for what is no number."""
    return {name: value if math.isfinite(value) else None for name, value in values.items()}


def tolerance(description: Description) -> float | None:
    """What the deviation may be; None where half precision decides."""
    return parity.TOLERANCE if description.precision == "fp32" else None


def summary(out: Path, description: Description, interface: Interface, found: Parity) -> str:
    """What was written, and how far it is from PyTorch."""
    ports = (interface.backbone, interface.position_embedding, interface.head)
    files = [
        {
            "file": name,
            "MB": (out / name).stat().st_size / 1e6,
            "inputs": name_list(port.inputs, 3),
            "outputs": name_list(port.outputs, 3),
        }
        for name, port in zip(GRAPHS, ports, strict=True)
    ]
    outputs = {"logits": "all_cls_scores", "codes": "all_bbox_preds"}
    tensors = []
    for kind, largest in found.largest.items():
        name = outputs.get(kind, f"post_memory_{kind}")
        shape = "x".join(map(str, interface.head.outputs[name]))
        tensors.append({"tensor": name, "shape": shape, "deviation": f"{largest:.1e}"})
    allowed = tolerance(description)
    return "\n".join(
        [
            f"{out}: {description.recipe}, {description.weights}, frame {description.frame}, "
            f"{description.precision}\n",
            tabulate(files, headers="keys", floatfmt=".1f"),
            f"\nlargest deviation from PyTorch in {parity.FRAMES} frames"
            + (":" if allowed is None else f", at most {allowed:g} is allowed:"),
            tabulate(tensors, headers="keys", disable_numparse=True),
        ]
    )


def check_parity(out: Path, description: Description, found: Parity) -> None:
    """Raises InputError if float32 graphs are farther from PyTorch than rounding explains."""
    worst, allowed = max(found.largest, key=found.largest.get), tolerance(description)
    if allowed is not None and not found.largest[worst] <= allowed:
        raise InputError(
            f"the graphs in {out} are not as PyTorch: {worst} is {found.largest[worst]:.1e} away, "
            f"more than {allowed:g} ({PARITY} has all numbers); do not use them, export with the "
            "versions of constraints.txt"
        )


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

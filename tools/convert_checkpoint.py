#!/usr/bin/env python
"""Converts checkpoints of EVA-02 and of the StreamPETR family to this project, and back.

Prints what became of every tensor. Nothing in a file is executed.

examples:
  a released detector, checked against the recipe that shall use it:
    python tools/convert_checkpoint.py released.pth streampetr.pth \\
        --config-file configs/streampetr_eva02_l_800x320_24ep.py
  EVA-02 pre-trained on ImageNet with patches of 14 pixels:
    python tools/convert_checkpoint.py --from eva02-cls eva02_L_pt_m38m_medft_in21k_p14.pt eva.pth
  a checkpoint of this project, for users of StreamPETR:
    python tools/convert_checkpoint.py --to streampetr output/run/model_final.pth theirs.pth
  a training checkpoint without its optimiser:
    python tools/convert_checkpoint.py output/run/model_final.pth small.safetensors
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence

import torch
from omegaconf.errors import OmegaConfBaseException
from torch import nn

from streampetr_vit.checkpoint.conversion import TARGETS, convert_file, describe
from streampetr_vit.checkpoint.files import check_output, write_checkpoint, write_mmcv_checkpoint
from streampetr_vit.checkpoint.formats import FORMATS
from streampetr_vit.command_line import add_trust, file_path
from streampetr_vit.configuration.described import call
from streampetr_vit.engine import instantiate_model, load_config
from streampetr_vit.errors import InputError, one_line_errors


def parse_arguments(argv: list[str] | None = None) -> argparse.Namespace:
    """Reads the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("input", type=file_path, help=".pth, .pt or .safetensors")
    parser.add_argument("output", type=file_path, help=".pth, .pt or .safetensors; written anew")
    sources = "; ".join(f"{name}: {what}" for name, what in FORMATS.items())
    parser.add_argument(
        "--from", dest="source", default="auto", choices=("auto", *FORMATS), help=sources
    )
    parser.add_argument("--to", dest="target", default="ours", choices=TARGETS)
    parser.add_argument(
        "--config-file", help="recipe whose model the weights must fit; nothing is trained"
    )
    add_trust(parser)
    parser.add_argument("--only", metavar="PART", help="keep a part only, for example backbone")
    parser.add_argument(
        "--ema", action="store_true", help="the averaged weights, where the file has both"
    )
    parser.add_argument(
        "--allow-other-size",
        action="store_true",
        help="allow windows of another size than the model's, and record no size in the output",
    )
    return parser.parse_args(argv)


def model_of(config_file: str, trusted: Sequence[str] = ()) -> nn.Module:
    """The model of a recipe without memory for its weights, but for the 3D head's.

    The ranges of the head are values, and needed.
    """
    cfg = load_config(config_file, (), trusted)
    with torch.device("meta"):
        model = instantiate_model(cfg)
    model.head = call(cfg.model.head)
    return model


@one_line_errors(OmegaConfBaseException)
def main(argv: list[str] | None = None) -> None:
    """Runs the tool."""
    arguments = parse_arguments(argv)
    check_output(arguments.output)
    if os.path.realpath(arguments.input) == os.path.realpath(arguments.output):
        raise InputError("the output is the input; name another file")
    file = arguments.config_file
    conversion = convert_file(
        arguments.input,
        arguments.source,
        arguments.target,
        model=model_of(file, arguments.trust) if file else None,
        averaged=arguments.ema,
        only=arguments.only,
        allow_other_size=arguments.allow_other_size,
    )
    print(describe(conversion, arguments.input))
    if arguments.target == "streampetr":
        write_mmcv_checkpoint(arguments.output, conversion.tensors)
    else:
        write_checkpoint(arguments.output, conversion.tensors, conversion.settings)
    print(f"wrote {arguments.output} ({os.path.getsize(arguments.output) / 1e6:,.1f} MB)")


if __name__ == "__main__":
    main()

#!/usr/bin/env python
"""Trains or evaluates a detector from a configuration file."""

from __future__ import annotations

import argparse
import os

import torch
from detectron2.engine import default_argument_parser
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from streampetr_vit.command_line import add_trust, file_path
from streampetr_vit.engine import (
    evaluate_exported,
    evaluate_only,
    launch,
    load_config,
    param_group_table,
    setup,
    train,
)
from streampetr_vit.errors import InputError, one_line_errors

EXAMPLES = """
examples:
  train on the GPU if there is one, else on the CPU:
    python tools/lazyconfig_train_net.py --config-file configs/quickstart.py
  8 GPUs of one machine:
    python tools/lazyconfig_train_net.py --num-gpus 8 \\
        --config-file configs/streampetr_eva02_l_800x320_24ep.py train.output_dir=output/vit_l
    torchrun --nproc_per_node 8 tools/lazyconfig_train_net.py \\
        --config-file configs/streampetr_eva02_l_800x320_24ep.py
  2 machines of 8 GPUs, the same command on both but for the rank of the machine:
    python tools/lazyconfig_train_net.py --num-gpus 8 --num-machines 2 --machine-rank 0 \\
        --dist-url tcp://10.0.0.1:29500 --config-file configs/streampetr_eva02_l_800x320_24ep.py
  continue an interrupted run:
    python tools/lazyconfig_train_net.py --config-file configs/quickstart.py --resume
  evaluate:
    python tools/lazyconfig_train_net.py --config-file configs/quickstart.py --eval-only \\
        train.init_checkpoint=output/quickstart/model_final.pth
  evaluate the graphs that tools/export_onnx.py has written, with onnxruntime:
    python tools/lazyconfig_train_net.py --config-file configs/quickstart.py --eval-only \\
        --onnx output/onnx
  on the CPU, with other settings:
    python tools/lazyconfig_train_net.py --config-file configs/quickstart.py --num-gpus 0 \\
        optimizer.lr=2e-4 train.max_iter=100
  show the learning rate and weight decay of every parameter, and do nothing else:
    python tools/lazyconfig_train_net.py --print-param-groups \\
        --config-file configs/streampetr_eva02_l_800x320_24ep_layer_decay.py
"""
DIST_URL = """
--dist-url is needed for several machines only: the address of machine 0 and a free port of it. On
one machine a free port is found, and any number of runs can go on beside each other.
"""


def configuration(args: argparse.Namespace) -> DictConfig:
    """The configuration that a command line asks for; --num-gpus 0 takes the CPU."""
    # A caller that uses detectron2's own parser has no --trust.
    cfg = load_config(args.config_file, args.opts, getattr(args, "trust", ()))
    if args.num_gpus == 0:
        typed = any(word.startswith("train.device=") for word in args.opts)
        if typed and str(cfg.train.device).startswith("cuda"):
            raise InputError(
                f"--num-gpus 0 asks for the CPU, and train.device={cfg.train.device} for a GPU: "
                "leave one of them out"
            )
        cfg.train.device = "cpu"
    return cfg


@one_line_errors(OmegaConfBaseException)
def main(args: argparse.Namespace) -> None:
    """One process of the job."""
    # Each process reads the configuration: only the command line is sent to it.
    cfg = configuration(args)
    setup(cfg, args)
    # A caller that uses detectron2's own parser has no --onnx.
    if args.eval_only and getattr(args, "onnx", None) is not None:
        evaluate_exported(cfg, str(args.onnx), args.trust)
    elif args.eval_only:
        evaluate_only(cfg, args.resume)
    else:
        train(cfg, args.resume)


@one_line_errors(OmegaConfBaseException)
def invoke_main() -> None:
    """Parses the command line and starts the processes."""
    parser = default_argument_parser(EXAMPLES + DIST_URL)
    # detectron2's default is one port for all runs of a user.
    parser.set_defaults(dist_url=None)
    parser.add_argument(
        "--print-param-groups",
        action="store_true",
        help="print name, shape, lr and weight decay of every parameter and stop; reads no data",
    )
    parser.add_argument(
        "--onnx",
        type=file_path,
        metavar="DIR",
        help="with --eval-only: evaluate these exported graphs, and no checkpoint",
    )
    add_trust(parser)
    args = parser.parse_args()
    if args.onnx is not None and (args.resume or not args.eval_only):
        parser.error("--onnx is for --eval-only, and without --resume: graphs are not trained")
    args.config_file = os.path.expanduser(args.config_file)  # each process reads it
    # A wrong override fails here once, and not in every process.
    cfg = configuration(args)
    if args.print_param_groups:
        print(param_group_table(cfg))
        return
    on_gpu = torch.cuda.is_available() and args.num_gpus > 0 and cfg.train.device != "cpu"
    launch(
        main,
        (args,),
        num_processes=args.num_gpus,
        num_machines=args.num_machines,
        machine_rank=args.machine_rank,
        dist_url=args.dist_url,
        use_gpu=on_gpu,
    )


if __name__ == "__main__":
    invoke_main()

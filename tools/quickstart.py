#!/usr/bin/env python
"""Makes the synthetic data set, trains the quick-start model on it, evaluates, writes a report.

examples:
  python tools/quickstart.py
  python tools/quickstart.py train.max_seconds=120 train.output_dir=output/quick_look
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence
from pathlib import Path

import torch
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from streampetr_vit.command_line import add_trust, file_path
from streampetr_vit.data.nuscenes.catalog import open_dataset
from streampetr_vit.engine import load_config, setup, train
from streampetr_vit.engine.config import call
from streampetr_vit.engine.evaluators import evaluator_parts, results_folder, tracking_folders
from streampetr_vit.errors import InputError, one_line_errors
from streampetr_vit.evaluation.metric_tables import printed_table
from streampetr_vit.evaluation.tracking_tables import printed_tracking_table
from streampetr_vit.modeling.ops.precision import half_precision_of
from streampetr_vit.report.from_run import synthetic_notes
from streampetr_vit.report.page import REPORT_FILE
from synthetic_nuscenes import PRESETS, SyntheticConfig, SyntheticError, generate

ROOT = Path(__file__).resolve().parents[1]


def main(argv: list[str] | None = None) -> None:
    """The whole quick start in this process."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--config-file", help="recipe (default: one for a GPU if there is one)")
    parser.add_argument(
        "--preset", choices=sorted(PRESETS), help="data set (default: as the recipe says)"
    )
    parser.add_argument("--data", type=file_path, help="its folder (default: as the recipe says)")
    add_trust(parser)
    parser.add_argument("opts", nargs="*", help="overrides of the recipe, path.key=value")
    args = parser.parse_args(argv)
    start = time.monotonic()
    # With a GPU: a larger model on a larger set.
    recipe = "quickstart_gpu" if torch.cuda.is_available() else "quickstart"
    file = args.config_file or str(ROOT / "configs" / f"{recipe}.py")
    cfg = load_config(file, args.opts, args.trust)
    fit_precision(cfg, args.opts)
    synthetic, data = _preset(cfg, args.preset), _data_folder(cfg, args.data)
    if not evaluator_parts(cfg) or cfg.get("report") is None:
        raise InputError(
            "the quick start ends with metrics and a report: leave dataloader.evaluator and report "
            "as they are; tools/lazyconfig_train_net.py trains without them"
        )
    print(f"[quickstart] data: {data}", flush=True)
    generate(synthetic, data)
    data_seconds = time.monotonic() - start
    # The recipe names a folder and a version; --data and --preset may have changed them.
    for loader, split in zip(("train", "test"), synthetic.split_names, strict=True):
        dataset = dict(root=str(data), version=synthetic.version, split=split)
        cfg.dataloader[loader].dataset = dataset
    print(f"[quickstart] training, log in {cfg.train.output_dir}/log.txt", flush=True)
    setup(cfg)
    train(cfg)
    output = Path(cfg.train.output_dir)
    tables = {Path(results_folder(cfg)): printed_table}
    tables |= dict.fromkeys(tracking_folders(cfg).values(), printed_tracking_table)
    for folder, table in tables.items():
        summary = folder / "metrics_summary.json"
        if summary.is_file():
            print(f"\n{table(json.loads(summary.read_text()))}\n")
    records = open_dataset(cfg.dataloader.test.dataset, call(cfg.dataset_spec))
    for note in [*cfg.report.notes, *synthetic_notes(records)]:
        print(note)
    total = time.monotonic() - start
    print(f"[quickstart] data {data_seconds:.0f} s, all {total:.0f} s after set-up")
    report = (output / REPORT_FILE).resolve()
    print(f"[quickstart] report: {report if report.is_file() else 'none, see the log'}")


def _preset(cfg: DictConfig, given: str | None) -> SyntheticConfig:
    """The data set to make: as the command line says, else the recipe."""
    name = given or (cfg.get("synthetic") or {}).get("preset")
    if name not in PRESETS:
        raise InputError(
            f"synthetic.preset is {name!r}: pass --preset, one of {', '.join(sorted(PRESETS))}"
        )
    return PRESETS[name]


def _data_folder(cfg: DictConfig, given: Path | None) -> Path:
    """The data set's folder: as the command line says, else the recipe."""
    dataset = cfg.dataloader.train.dataset
    if given is None and not isinstance(dataset, DictConfig):
        raise InputError(
            f"the recipe names the data set {dataset!r}, but no folder to make one in: pass --data"
        )
    return given or file_path(dataset.root)


def fit_precision(cfg: DictConfig, opts: Sequence[str]) -> None:
    """Takes fp16 for bf16 on a GPU that has no bfloat16, unless `opts` choose a precision."""
    on_gpu = torch.cuda.is_available() and cfg.train.device != "cpu"
    is_chosen = any(option.startswith("train.precision=") for option in opts)
    if on_gpu and not is_chosen and cfg.train.precision == "bf16":
        cfg.train.precision = half_precision_of("cuda")
        if cfg.train.precision != "bf16":
            name = torch.cuda.get_device_name()
            print(f"[quickstart] {name} has no bfloat16: train.precision=fp16", flush=True)


if __name__ == "__main__":
    with one_line_errors(SyntheticError, OmegaConfBaseException):
        main()

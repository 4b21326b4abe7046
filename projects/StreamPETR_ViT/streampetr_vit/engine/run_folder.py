"""The output folder of a run: its logs, its records, and those of other runs in the same place."""

from __future__ import annotations

import argparse
import copy
import logging
import os
import re
import shlex
import sys
from pathlib import Path

import torch
from detectron2.utils import comm
from detectron2.utils.collect_env import collect_env_info
from detectron2.utils.env import seed_all_rng
from detectron2.utils.logger import setup_logger
from omegaconf import DictConfig

from streampetr_vit.configuration.targets import trust_options
from streampetr_vit.configuration.yaml_text import config_text
from streampetr_vit.engine.settings import check_settings
from streampetr_vit.files import cannot_write, replacing
from streampetr_vit.logs import forget_logged

logger = logging.getLogger(__name__)

_LOGGERS = ("detectron2", "fvcore", "streampetr_vit")
# What a training leaves beside log.txt, which all runs of a folder share: lines are only appended.
# What names checkpoints is the first to be moved: without it nothing half moved is resumed.
_RECORDS = (
    "checkpoints.sha256",
    "last_checkpoint",
    "metrics.json",
    "config.yaml",
    "model_final.pth",
    "model_best.pth",
    "model_[0-9]*.pth",
    "report.html",
    "inference",
    "inference_memory_off",
    "inference_ema",
    "evaluation",
    "events.out.tfevents.*",
)
_OF_A_TRAINING = (
    "last_checkpoint",
    "metrics.json",
    "model_final.pth",
    "model_best.pth",
    "model_[0-9]*.pth",
)
EARLIER = "earlier_"  # and a number: folder that an earlier run's records are moved to


class _RunLog(logging.FileHandler):
    """The log file of one run; where it cannot be written, that is said once."""

    _has_failed = False

    def handleError(self, record: logging.LogRecord) -> None:
        """Prints one line; logging would print a traceback for each line of the log."""
        error = sys.exc_info()[1]
        if not isinstance(error, OSError):
            super().handleError(record)
        elif not self._has_failed:
            self._has_failed = True
            print(
                f"{cannot_write(self.baseFilename, error)}; the terminal has the log",
                file=sys.stderr,
            )


def setup(cfg: DictConfig, args: argparse.Namespace | None = None) -> None:
    """Sets up this process: output folder, log files, seeds and threads.

    The logs of a run that was set up earlier in this process are closed.

    Args:
        cfg: the whole configuration.
        args: the command line, for the log; None when called from Python.

    Raises:
        OutputError: the folder cannot be written.
    """
    # Not detectron2's `default_setup`: it writes config.yaml over that of another run before anyone
    # knows whether this one can start, and gives the lines of a second run to the first one's log.
    check_settings(cfg)  # before a file is touched
    args = args or argparse.Namespace(config_file="", eval_only=False)
    only_evaluates = getattr(args, "eval_only", False)
    folder = evaluation_folder(cfg) if only_evaluates else str(cfg.train.output_dir)
    rank = comm.get_rank()
    forget_logged()  # what is said once in a log, is said once in each
    _log_to(folder, rank)
    logger.info("rank %d of %d\n%s", rank, comm.get_world_size(), collect_env_info())
    logger.info("command line: %s", args)
    if getattr(args, "config_file", ""):
        text = Path(args.config_file).read_text()
        logger.info("contents of %s:\n%s", args.config_file, text)
    seed_all_rng(cfg.train.seed + rank)
    if cfg.train.num_threads is not None:
        torch.set_num_threads(cfg.train.num_threads)


def _log_to(folder: str, rank: int) -> None:
    """Logs to the terminal and to the folder's log.txt, and to no other run's."""
    file = os.path.join(folder, "log.txt" if rank == 0 else f"log.txt.rank{rank}")
    try:
        os.makedirs(folder, exist_ok=True)
        handler = _RunLog(file)
    except OSError as error:
        raise cannot_write(file, error) from error
    handler.setLevel(logging.DEBUG)
    form = "[%(asctime)s] %(name)s %(levelname)s: %(message)s"
    handler.setFormatter(logging.Formatter(form, datefmt="%m/%d %H:%M:%S"))
    for name in _LOGGERS:
        named = setup_logger(None, rank, name=name)  # the terminal, once in a process
        for old in [entry for entry in named.handlers if isinstance(entry, _RunLog)]:
            named.removeHandler(old)
            old.close()
        named.addHandler(handler)


def save_config(cfg: DictConfig, folder: str) -> None:
    """Writes config.yaml, in the main process."""
    if comm.is_main_process():
        path = Path(folder, "config.yaml")
        with replacing(path) as temporary:
            temporary.write_text(config_text(cfg))
        logger.info("full config saved to %s", path)


def evaluation_folder(cfg: DictConfig) -> str:
    """Where an evaluation alone leaves its records: train.output_dir, or a folder in it.

    A training's records are never written over.
    """
    folder = Path(cfg.train.output_dir)
    holds_training = any(any(folder.glob(pattern)) for pattern in _OF_A_TRAINING)
    return str(folder / "evaluation") if holds_training else str(folder)


def with_output_dir(cfg: DictConfig, folder: str) -> DictConfig:
    """A copy of a configuration with another train.output_dir."""
    cfg = copy.deepcopy(cfg)
    cfg.train.output_dir = folder
    return cfg


def set_aside(folder: str) -> None:
    """Moves the records of an earlier run in a folder into a new folder inside it.

    That folder is a whole output folder again: the earlier run can be resumed and evaluated there.
    """
    found = [path for pattern in _RECORDS for path in sorted(Path(folder).glob(pattern))]
    found = [path for path in found if not path.is_dir() or any(path.iterdir())]
    if not found:
        return
    number = 1
    while (target := Path(folder, f"{EARLIER}{number}")).exists():
        number += 1
    try:
        target.mkdir()
        for path in found:
            os.replace(path, target / path.name)
    except OSError as error:
        raise cannot_write(target, error) from error
    names = ", ".join(path.name for path in found[:4]) + (", ..." if len(found) > 4 else "")
    logger.warning("%s holds an earlier run: moved to %s (%s)", folder, target, names)


def end_last_line(path: str | os.PathLike[str]) -> None:
    """Ends the last line of a log that a killed run left in the middle of it."""
    path = Path(path)
    if not path.is_file() or path.stat().st_size == 0:
        return
    try:
        with path.open("rb+") as file:
            file.seek(-1, os.SEEK_END)
            if file.read(1) != b"\n":
                file.write(b"\n")
    except OSError as error:
        raise cannot_write(path, error) from error


def command(folder: str, *options: str) -> str:
    """The command that works on with a run's folder and its config.yaml."""
    config = shlex.quote(os.path.join(folder, "config.yaml"))
    words = ["python tools/lazyconfig_train_net.py", f"--config-file {config}"]
    if comm.get_world_size() > 1:
        words.append(f"--num-gpus {comm.get_local_size()}")
    # The folder may have been moved since its config.yaml was written.
    return " ".join([*words, *options, as_override("train.output_dir", folder)])


def command_for(cfg: DictConfig, *options: str) -> str:
    """The same for the run of a configuration, with the --trust that its config.yaml needs."""
    return command(cfg.train.output_dir, *options, *trust_options(cfg))


def as_override(key: str, text: str) -> str:
    """`key=text` as it is typed in a shell, with the quotes that overrides need."""
    if re.fullmatch(r"[\w./:+-]+", text, re.ASCII) is None:
        text = "'" + text.replace("'", "\\'") + "'"
    return shlex.quote(f"{key}={text}")

"""The records of several runs in one folder, and of several folders in one process."""

from __future__ import annotations

import errno
import json
import logging
import os
import resource
import shlex
from pathlib import Path

import lazyconfig_train_net
import pytest
from detectron2.config import LazyConfig
from detectron2.engine import default_argument_parser

from streampetr_vit.configuration.yaml_text import config_text
from streampetr_vit.engine import evaluate_only, load_config, setup, train
from streampetr_vit.engine.run_folder import (
    _RunLog,
    command,
    end_last_line,
    save_config,
    set_aside,
)
from streampetr_vit.errors import OutputError
from streampetr_vit.logs import log_once

ROOT = Path(__file__).resolve().parents[2]
CONFIG = str(Path(__file__).with_name("toy_config.py"))


def run_tool(output: Path, *arguments: str) -> None:
    words = ["--config-file", CONFIG, *arguments, f"train.output_dir={output}"]
    lazyconfig_train_net.main(default_argument_parser().parse_args(words))


def content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


def test_two_runs_in_one_process_keep_their_logs_apart(tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    for folder in (first, second):
        cfg = load_config(CONFIG, ["train.max_iter=4", f"train.output_dir={folder}"])
        setup(cfg)
        logging.getLogger("detectron2.somewhere").info("in %s", folder.name)
        log_once(logging.getLogger("streampetr_vit"), logging.WARNING, "once in each log")
        train(cfg)
        if folder is first:
            before = content(first)
    assert content(first) == before
    assert "in first" in (first / "log.txt").read_text()
    log = (second / "log.txt").read_text()
    assert "in second" in log and "in first" not in log
    for folder in (first, second):
        assert (folder / "log.txt").read_text().count("once in each log") == 1
    setup(load_config(CONFIG, [f"train.output_dir={first}"]))
    logging.getLogger("streampetr_vit").info("once more")
    assert (first / "log.txt").read_text().count("once more") == 1
    assert (second / "log.txt").read_text() == log


def test_the_log_of_an_earlier_run_is_closed(tmp_path: Path) -> None:
    setup(load_config(CONFIG, [f"train.output_dir={tmp_path / 'first'}"]))
    logs = [h for h in logging.getLogger("streampetr_vit").handlers if isinstance(h, _RunLog)]
    setup(load_config(CONFIG, [f"train.output_dir={tmp_path / 'second'}"]))
    assert [log.stream for log in logs] == [None]


def test_a_log_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(
        SystemExit, match=r"error: cannot write '.*file/run/log.txt': Not a directo"
    ):
        run_tool(tmp_path / "file" / "run")


@pytest.mark.parametrize("options", [["--resume"], []], ids=["last checkpoint", "named file"])
def test_an_evaluation_leaves_the_record_of_the_training(
    tmp_path: Path, options: list[str]
) -> None:
    run_tool(tmp_path, "train.max_iter=4")
    (tmp_path / "report.html").write_text("of the training")
    (tmp_path / "inference" / "results.json").write_text("of the training")
    before = content(tmp_path), content(tmp_path / "inference")
    weights = [f"train.init_checkpoint={tmp_path / 'model_final.pth'}"]
    run_tool(tmp_path, "--eval-only", *options, *weights, "train.seed=7")
    assert (content(tmp_path), content(tmp_path / "inference")) == before
    assert "seed: 7" in (tmp_path / "evaluation" / "config.yaml").read_text()
    assert "evaluation/config.yaml" in (tmp_path / "evaluation" / "log.txt").read_text()
    # The training can still be resumed, and its file of settings is its own.
    run_tool(tmp_path, "--resume", "train.max_iter=6")


def test_an_evaluation_elsewhere_writes_where_it_is_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run_tool(tmp_path / "run", "train.max_iter=4")
    weights = f"train.init_checkpoint={tmp_path / 'run' / 'model_final.pth'}"
    for _ in range(2):  # an evaluation of its own is no training
        run_tool(tmp_path / "eval", "--eval-only", weights)
    assert set(content(tmp_path / "eval")) == {"config.yaml", "log.txt"}
    cfg = load_config(CONFIG, [f"train.output_dir={tmp_path / 'run'}"])
    evaluate_only(cfg, resume=True)
    assert cfg.train.output_dir == str(tmp_path / "run")  # the caller's configuration stays
    # The record says what was evaluated, so that its config.yaml evaluates the same again.
    recorded = tmp_path / "run" / "evaluation" / "config.yaml"
    cfg = load_config(str(recorded), (), ["toy_task"])
    assert cfg.train.init_checkpoint == str(tmp_path / "run" / "model_final.pth")
    evaluate_only(cfg, resume=True)
    assert "evaluation has no last_checkpoint: train.init_checkpoint=" in caplog.text


def test_a_second_training_keeps_the_first_ones_records(tmp_path: Path) -> None:
    run_tool(tmp_path, "train.max_iter=4")
    (tmp_path / "report.html").write_text("first")
    (tmp_path / "inference" / "results.json").write_text("first")
    first = {k: v for k, v in content(tmp_path).items() if k != "log.txt"}
    run_tool(tmp_path, "train.max_iter=4", "optimizer.lr=0.5")
    assert content(tmp_path / "earlier_1") == first
    assert (tmp_path / "earlier_1" / "inference" / "results.json").read_text() == "first"
    assert not (tmp_path / "report.html").exists()
    run_tool(tmp_path, "train.max_iter=3")
    assert content(tmp_path / "earlier_1") == first
    assert "lr: 0.5" in (tmp_path / "earlier_2" / "config.yaml").read_text()
    log = (tmp_path / "log.txt").read_text()
    assert "holds an earlier run: moved to" in log


def test_a_start_that_fails_leaves_the_records_where_they_are(tmp_path: Path) -> None:
    run_tool(tmp_path, "train.max_iter=4")
    before = {name: data for name, data in content(tmp_path).items() if name != "log.txt"}
    for words in (
        ["train.init_checkpoint=gone.pth"],
        ["--resume", "train.max_iter=2"],
        ["dataloader.train.lanes_per_rank=0"],
    ):
        with pytest.raises((SystemExit, ZeroDivisionError)):
            run_tool(tmp_path, *words)
    after = {name: data for name, data in content(tmp_path).items() if name != "log.txt"}
    assert after == before


def test_what_is_half_set_aside_cannot_be_resumed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("last_checkpoint", "metrics.json", "config.yaml", "model_final.pth"):
        (tmp_path / name).write_text(name)
    replace, moved = os.replace, []

    def replace_one(source: Path, target: Path) -> None:
        if moved:
            raise OSError(errno.ENOSPC, "No space left on device")
        moved.append(source.name)
        replace(source, target)

    monkeypatch.setattr(os, "replace", replace_one)
    with pytest.raises(OutputError, match="cannot write .*earlier_1.*free some space"):
        set_aside(str(tmp_path))
    assert moved == ["last_checkpoint"]


def test_nothing_else_is_set_aside(tmp_path: Path) -> None:
    (tmp_path / "inference").mkdir()
    for name in ("model_zoo.pth", "notes.txt", "log.txt"):
        (tmp_path / name).write_text(name)
    set_aside(str(tmp_path))
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {"inference", "model_zoo.pth", "notes.txt", "log.txt"}


def test_a_resume_after_a_kill_in_the_middle_of_a_line(tmp_path: Path) -> None:
    run_tool(tmp_path, "train.max_iter=4", "train.log_period=1")
    path = tmp_path / "metrics.json"
    with path.open("a") as file:
        file.write('{"iteration": 4, "total_lo')
    run_tool(tmp_path, "--resume", "train.max_iter=6", "train.log_period=1")
    lines = path.read_text().splitlines()
    broken = [line for line in lines if not line.endswith("}")]
    assert broken == ['{"iteration": 4, "total_lo']
    rows = [json.loads(line) for line in lines if line not in broken]
    assert [row["iteration"] for row in rows if "lr" in row] == [0, 1, 2, 3, 4, 5]


@pytest.mark.parametrize(("text", "after"), [("", ""), ("a\n", "a\n"), ("a\nb", "a\nb\n")])
def test_only_an_open_line_is_ended(tmp_path: Path, text: str, after: str) -> None:
    path = tmp_path / "metrics.json"
    end_last_line(path)
    assert not path.exists()
    path.write_text(text)
    end_last_line(path)
    assert path.read_text() == after


@pytest.mark.parametrize("name", ["quickstart", "streampetr_eva02_l_800x320_24ep_layer_decay"])
def test_the_saved_configuration_is_what_detectron2_writes(tmp_path: Path, name: str) -> None:
    cfg = load_config(str(ROOT / "configs" / f"{name}.py"))
    LazyConfig.save(cfg, str(tmp_path / "config.yaml"))
    assert config_text(cfg) == (tmp_path / "config.yaml").read_text()


def test_a_full_disk_leaves_the_old_configuration(tmp_path: Path) -> None:
    cfg = load_config(CONFIG)
    save_config(cfg, str(tmp_path))
    before = content(tmp_path)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (100, limits[1]))
        with pytest.raises(OutputError, match="cannot write .*config.yaml': File too large"):
            save_config(cfg, str(tmp_path))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert content(tmp_path) == before


@pytest.mark.parametrize(
    "folder", ["output/run-1", "a b", "out/\u00f6 \u65e5\u672c", "it's", "a,b", "$HOME", "x=[1]"]
)
def test_advice_can_be_typed_as_it_is_printed(folder: str) -> None:
    typed = shlex.split(command(folder, "--resume"))
    assert typed[2:5] == ["--config-file", f"{folder}/config.yaml", "--resume"]
    cfg = load_config(str(ROOT / "configs" / "quickstart.py"), typed[5:])
    assert cfg.train.output_dir == folder

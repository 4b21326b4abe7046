"""What fails after the steps does not take them with it."""

from __future__ import annotations

import errno
import logging
import shutil
import signal
from pathlib import Path

import pytest
from detectron2.utils.events import JSONWriter
from omegaconf import DictConfig
from toy_task import ToyEvaluator

from streampetr_vit.engine import evaluation, load_config, setup, train
from streampetr_vit.engine.hooks import StopHook
from streampetr_vit.engine.signals import Interrupted
from streampetr_vit.errors import InputError, OutputError

CONFIG = str(Path(__file__).with_name("toy_config.py"))
ROOT = Path(__file__).resolve().parents[2]


REPORT = {"title": "", "notes": [], "range_m": 51.2}


def toy(output: Path, *words: str) -> DictConfig:
    return load_config(CONFIG, ["train.max_iter=4", *words, f"train.output_dir={output}"])


def test_a_report_that_cannot_be_made_is_a_line_in_the_log(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    cfg = toy(tmp_path)
    cfg.report = {**REPORT, "memory_off": False}  # the toy has no tables, pictures or data set
    assert set(train(cfg)) == {"toy"}
    (line,) = [r for r in caplog.records if "no report was made" in r.getMessage()]
    assert line.levelno == logging.ERROR and line.exc_info is None
    advice = f"--config-file {tmp_path}/config.yaml --eval-only --resume --trust toy_task"
    assert advice in line.getMessage()


def test_the_evaluation_without_memory_is_a_part_of_the_report(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    original = evaluation.evaluate

    def evaluate(*arguments: object, memory: bool, **options: bool) -> evaluation.Metrics:
        if not memory:
            raise OSError("no space left")
        return original(*arguments, memory=memory, **options)

    monkeypatch.setattr(evaluation, "evaluate", evaluate)
    cfg = toy(tmp_path)
    cfg.report = {**REPORT, "memory_off": True}
    assert set(train(cfg)) == {"toy"}
    assert "no report was made (OSError: no space left)" in caplog.text


@pytest.mark.parametrize("kind", [InputError, RuntimeError])
def test_an_evaluation_that_fails_leaves_the_training_and_says_how_to_evaluate(
    tmp_path: Path,
    kind: type[Exception],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    def evaluate(_: ToyEvaluator) -> None:
        raise kind("no metrics today")

    monkeypatch.setattr(ToyEvaluator, "evaluate", evaluate)
    with pytest.raises(kind, match="no metrics today") as failure:
        train(toy(tmp_path))
    final = tmp_path / "model_final.pth"
    advice = f"--config-file {tmp_path}/config.yaml --eval-only --trust toy_task"
    advice = f"{advice} train.output_dir={tmp_path}"
    said = str(failure.value) if kind is InputError else caplog.text
    assert f"{advice} train.init_checkpoint={final}" in said
    assert final.is_file() and (tmp_path / "last_checkpoint").read_text() == final.name


def test_an_evaluation_on_the_way_that_fails_saves_the_steps_so_far(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def evaluate(_: ToyEvaluator) -> None:
        raise InputError("no metrics today")

    monkeypatch.setattr(ToyEvaluator, "evaluate", evaluate)
    with pytest.raises(InputError, match=r"init_checkpoint=.*model_0000001.pth"):
        train(toy(tmp_path, "train.eval_period=2"))
    assert (tmp_path / "last_checkpoint").read_text() == "model_0000001.pth"


def test_a_signal_between_the_step_and_its_evaluation_does_not_lose_the_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def comes_late(hook: StopHook) -> None:
        hook._watch.received = signal.SIGTERM  # after the hook has looked

    monkeypatch.setattr(StopHook, "after_step", comes_late)
    with pytest.raises(Interrupted):
        train(toy(tmp_path, "train.eval_period=2"))
    assert (tmp_path / "last_checkpoint").read_text() == "model_0000001.pth"


@pytest.mark.parametrize("synthetic", [True, False])
def test_a_report_says_what_the_data_are_and_reads_the_evaluators_folder(
    tiny_nuscenes: Path, tmp_path: Path, synthetic: bool
) -> None:
    """The quick start's recipe on its own data, and on data that are not synthetic."""
    root = tiny_nuscenes
    if not synthetic:
        root = tmp_path / "real"
        shutil.copytree(tiny_nuscenes, root)
        (root / "synthetic.json").unlink()
    words = ["train.max_iter=1", "train.device=cpu", f"train.output_dir={tmp_path / 'run'}"]
    cfg = load_config(str(ROOT / "configs" / "quickstart.py"), words)
    for part, split in (("train", "mini_train"), ("test", "mini_val")):
        cfg.dataloader[part].dataset = dict(root=str(root), version="v1.0-mini", split=split)
    for evaluator in cfg.dataloader.evaluator:
        evaluator.output_dir = str(tmp_path / "elsewhere")
    cfg.report.memory_off = False
    train(cfg)
    assert (tmp_path / "elsewhere" / "metrics_summary.json").is_file()
    report = (tmp_path / "run" / "report.html").read_text()
    text = report.partition("<details>")[0].lower()  # behind it is the configuration
    assert ("synthetic scenes that end at 25 m" in text) == synthetic
    assert ("synthetic" in text) == synthetic


def test_a_disk_that_fills_up_while_the_curves_are_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def write(self: JSONWriter) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(JSONWriter, "write", write)
    with pytest.raises(OutputError, match="metrics.json': No space left on device; free some spa"):
        train(toy(tmp_path, "train.log_period=1"))
    assert not any(record.exc_info for record in caplog.records)


def test_a_log_file_that_cannot_be_written_is_said_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    setup(toy(tmp_path))
    (log,) = [h for h in logging.getLogger("streampetr_vit").handlers if hasattr(h, "baseFilename")]
    log.stream.close()
    log.stream = open("/dev/full", "w", buffering=1)  # noqa: SIM115
    for _ in range(3):
        logging.getLogger("streampetr_vit").warning("a line")
    printed = capsys.readouterr().err
    assert printed.count("log.txt': No space left on device") == 1
    assert "Traceback" not in printed

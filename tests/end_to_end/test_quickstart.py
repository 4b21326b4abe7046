"""The commands of the README, on a data set of two short scenes and with a handful of steps."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def run(*command: str, fails: bool = False) -> str:
    """Runs a tool as a user would; returns what it printed."""
    result = subprocess.run(
        [sys.executable, *command], cwd=ROOT, capture_output=True, text=True, timeout=300
    )
    printed = result.stderr + result.stdout
    assert (result.returncode != 0) == fails, printed[-3000:]
    return printed


@pytest.fixture(scope="module")
def quickstart(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """Output folder and printed text of a quick start of a few steps."""
    folder = tmp_path_factory.mktemp("quickstart")
    printed = run(
        "tools/quickstart.py",
        "--config-file=configs/quickstart.py",
        "--preset=tiny",
        f"--data={folder / 'data'}",
        f"train.output_dir={folder / 'output'}",
        "train.device=cpu",
        "train.max_iter=4",
        "train.log_period=2",
        "schedule.warmup_iters=2",
    )
    return folder / "output", printed


def test_it_ends_with_the_table_and_the_path_of_the_report(quickstart: tuple[Path, str]) -> None:
    output, printed = quickstart
    tail = printed[printed.rindex("mAP: ") :]
    for name in ("mATE: ", "NDS: ", "traffic_cone", "not comparable with nuScenes"):
        assert name in tail
    assert tail.rstrip().endswith(f"report: {(output / 'report.html').resolve()}")


def test_output_folder_is_complete(quickstart: tuple[Path, str]) -> None:
    output, _ = quickstart
    for name in (
        "config.yaml",
        "log.txt",
        "metrics.json",
        "model_final.pth",
        "last_checkpoint",
        "report.html",
        "inference/results_nusc.json",
        "inference/metrics_summary.json",
        "inference/metrics_details.json",
        "inference_memory_off/metrics_summary.json",
    ):
        assert (output / name).is_file(), name
    assert list(output.glob("events.out.tfevents.*"))
    losses = [json.loads(line) for line in (output / "metrics.json").read_text().splitlines()]
    assert any("dn_loss_cls" in row and row["iteration"] == 3 for row in losses)


def test_report_says_what_the_numbers_are(quickstart: tuple[Path, str]) -> None:
    report = (quickstart[0] / "report.html").read_text()
    for text in ("not comparable with nuScenes", "geometric prior", "memory off at test"):
        assert text in report


def test_evaluating_the_checkpoint_gives_the_same_metrics(quickstart: tuple[Path, str]) -> None:
    output, _ = quickstart
    again = output.parent / "again"
    run(
        "tools/lazyconfig_train_net.py",
        f"--config-file={output / 'config.yaml'}",
        "--eval-only",
        "--num-gpus=0",
        f"train.init_checkpoint={output / 'model_final.pth'}",
        f"train.output_dir={again}",
        "report.memory_off=False",
    )
    first, second = (
        json.loads((folder / "inference" / "results_nusc.json").read_text())
        for folder in (output, again)
    )
    assert first == second


def test_training_resumes(quickstart: tuple[Path, str]) -> None:
    output, _ = quickstart
    printed = run(
        "tools/lazyconfig_train_net.py",
        f"--config-file={output / 'config.yaml'}",
        "--resume",
        "--num-gpus=0",
        "train.max_iter=6",
        "report.memory_off=False",
    )
    assert "training from iteration 4 to 6" in printed


def test_an_unknown_override_is_named(quickstart: tuple[Path, str]) -> None:
    printed = run("tools/quickstart.py", "train.max_secconds=1", fails=True)
    assert "did you mean train.max_seconds" in printed

"""What a user has to mend is said in one line, by one process and by several."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def run(*words: str, environment: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, *words]
    return subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300
    )


@pytest.mark.parametrize("processes", [0, 2])
def test_training_without_its_data(tmp_path: Path, processes: int) -> None:
    done = run(
        "tools/lazyconfig_train_net.py",
        "--config-file=configs/quickstart.py",
        f"--num-gpus={processes}",
        "dataloader.train.dataset.root=/nonexistent",
        "train.device=cpu",
        f"train.output_dir={tmp_path / 'output'}",
    )
    assert done.returncode == 1
    assert "Traceback" not in done.stderr + done.stdout
    errors = [line for line in done.stderr.splitlines() if "error" in line.lower()]
    # With several processes each one finds it.
    assert len(errors) == 1
    assert errors[0].startswith("lazyconfig_train_net.py: error: data root /nonexistent does not")


def test_quick_start_in_a_folder_that_holds_something_else(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("not a data set")
    done = run("tools/quickstart.py", f"--data={tmp_path}", "--preset=tiny")
    assert done.returncode == 1
    assert done.stderr.startswith(f"quickstart.py: error: {tmp_path} is not empty")
    assert len(done.stderr.splitlines()) == 1

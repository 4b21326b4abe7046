"""What a user has to mend is said in one line, by one process and by several."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def run(*words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, *words]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)


@pytest.mark.parametrize("processes", [0, 2])
def test_training_without_its_data(tmp_path: Path, processes: int) -> None:
    done = run(
        "tools/lazyconfig_train_net.py",
        "--config-file=configs/quickstart.py",
        f"--num-gpus={processes}",
        f"--dist-url=file://{tmp_path}/rendezvous",
        "dataloader.train.dataset.root=/nonexistent",
        "train.device=cpu",
        f"train.output_dir={tmp_path / 'output'}",
    )
    assert done.returncode == 1
    assert "Traceback" not in done.stderr + done.stdout
    errors = [line for line in done.stderr.splitlines() if "error" in line.lower()]
    # With several processes the first one that fails ends the others, at times too late.
    assert 1 <= len(errors) <= max(processes, 1)
    for line in errors:
        assert line.startswith("lazyconfig_train_net.py: error: data root /nonexistent does not")


def test_quick_start_in_a_folder_that_holds_something_else(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("not a data set")
    done = run("tools/quickstart.py", f"--data={tmp_path}", "--preset=tiny")
    assert done.returncode == 1
    assert done.stderr.startswith(f"quickstart.py: error: {tmp_path} is not empty")
    assert len(done.stderr.splitlines()) == 1

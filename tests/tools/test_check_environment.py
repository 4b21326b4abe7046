"""The last step of the set-up: a machine with an NVIDIA GPU must end with a torch that sees it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import check_environment as tool
import pytest

CPU_BUILD = tool.Environment("3.11.7", "2.13.0+cpu", "0.28.0", "0.6", cuda_build=None, gpu=None)
CUDA_BUILD = replace(CPU_BUILD, torch="2.15.0+cu130", cuda_build="13.0")
SEES_GPU = replace(CUDA_BUILD, gpu="NVIDIA H200")


@pytest.fixture
def nvidia_gpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A driver tool that lists one GPU."""
    program = tmp_path / "nvidia-smi"
    program.write_text("#!/bin/sh\necho 'GPU 0: NVIDIA H200 (UUID: GPU-0)'\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)


def use(monkeypatch: pytest.MonkeyPatch, *found: tool.Environment) -> list[str]:
    """Let successive probes find these environments; returns the log of installations."""
    answers, installations = iter(found), []
    monkeypatch.setattr(tool, "probe", lambda: next(answers))
    monkeypatch.setattr(tool, "install_cuda_pair", lambda: installations.append("CUDA"))
    return installations


def test_this_environment_can_run_the_project(capsys: pytest.CaptureFixture[str]) -> None:
    assert tool.main([]) == 0
    assert "[setup] ready: Python 3." in capsys.readouterr().out


def test_cpu_build_is_sound_without_a_gpu(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    installations = use(monkeypatch, CPU_BUILD)
    assert tool.check(repair=True) == CPU_BUILD
    assert installations == []


@pytest.mark.usefixtures("nvidia_gpu")
def test_cpu_build_beside_a_gpu_is_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    installations = use(monkeypatch, CPU_BUILD, SEES_GPU)
    assert tool.check(repair=True) == SEES_GPU
    assert installations == ["CUDA"]


@pytest.mark.usefixtures("nvidia_gpu")
def test_cuda_build_that_sees_the_gpu_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    installations = use(monkeypatch, SEES_GPU)
    assert tool.check(repair=True) == SEES_GPU
    assert installations == []


@pytest.mark.usefixtures("nvidia_gpu")
@pytest.mark.parametrize(
    ("found", "repair", "message"),
    [
        ((CPU_BUILD, CPU_BUILD), True, "is a CPU build"),
        ((CPU_BUILD,), False, "is a CPU build"),
        ((CPU_BUILD, CUDA_BUILD), True, "built for CUDA 13.0 but cannot use the driver"),
        ((CUDA_BUILD,), True, "built for CUDA 13.0 but cannot use the driver"),
    ],
)
def test_an_unseen_gpu_fails_the_setup(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    found: tuple[tool.Environment, ...],
    repair: bool,
    message: str,
) -> None:
    use(monkeypatch, *found)
    assert tool.main(["--repair"] if repair else []) == 1
    error = capsys.readouterr().err
    assert message in error
    assert "GPU 0: NVIDIA H200" in error


@pytest.mark.usefixtures("nvidia_gpu")
def test_hiding_the_gpus_chooses_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    installations = use(monkeypatch, CPU_BUILD)
    assert tool.check(repair=True) == CPU_BUILD
    assert installations == []

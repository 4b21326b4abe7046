#!/usr/bin/env python3
"""Checks whether this environment can run the project; --repair replaces a CPU build of torch."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from dataclasses import dataclass

EXAMPLES = """\
examples:
  .venv/bin/python tools/check_environment.py            # report only
  .venv/bin/python tools/check_environment.py --repair   # what `make setup` runs
"""

# Newer than the tested pair (constraints.txt): pip may be configured for an index of CPU builds,
# and a CPU build of the tested version must not satisfy this again.
CUDA_PAIR = ("torch>2.13.0,<2.16", "torchvision", "numpy<2")

# Runs in a process of its own, because a repair changes the torch that is imported.
PROBE = """
import json, platform
import torch
import detectron2
import detectron2.engine, nuscenes, streampetr_vit, torchvision
cuda = torch.cuda.is_available()
print("PROBE " + json.dumps({
    "python": platform.python_version(),
    "torch": torch.__version__,
    "torchvision": torchvision.__version__,
    "detectron2": detectron2.__version__,
    "cuda_build": torch.version.cuda,
    "gpu": torch.cuda.get_device_name(0) if cuda else None,
}))
"""


class EnvironmentFault(RuntimeError):
    """The environment cannot run the project; the message says why and what to do."""


@dataclass(frozen=True)
class Environment:
    """What the probe found.

    Attributes:
        python, torch, torchvision, detectron2: versions.
        cuda_build: the CUDA version that torch was built for, None for a CPU build.
        gpu: name of the first GPU that torch can use, or None.
    """

    python: str
    torch: str
    torchvision: str
    detectron2: str
    cuda_build: str | None
    gpu: str | None

    def __str__(self) -> str:
        return (
            f"Python {self.python}, torch {self.torch}, torchvision {self.torchvision}, "
            f"detectron2 {self.detectron2}, {self.gpu or 'no GPU (CPU only)'}"
        )


def probe() -> Environment:
    """Imports what the project needs in a process of its own.

    Raises:
        EnvironmentFault: something cannot be imported.
    """
    run = subprocess.run([sys.executable, "-c", PROBE], capture_output=True, text=True)
    answers = [line for line in run.stdout.splitlines() if line.startswith("PROBE ")]
    if run.returncode != 0 or not answers:
        raise EnvironmentFault(
            f"{sys.executable} cannot import what the project needs:\n{run.stderr.strip()}\n"
            "Run `make setup`; if `make setup` itself failed here, remove .venv and run it again."
        )
    return Environment(**json.loads(answers[-1].removeprefix("PROBE ")))


def installed_gpus() -> list[str]:
    """The NVIDIA GPUs that nvidia-smi lists, one line for each."""
    # nvidia-smi does not follow CUDA_VISIBLE_DEVICES. A user who hides all GPUs wants the CPU.
    if os.environ.get("CUDA_VISIBLE_DEVICES") in ("", "-1"):
        return []
    try:
        run = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, timeout=60)
    except (OSError, subprocess.TimeoutExpired):
        return []
    return [line for line in run.stdout.splitlines() if line.startswith("GPU ")]


def install_cuda_pair() -> None:
    """Replaces a CPU build of torch and torchvision by a CUDA build from pip's index.

    Raises:
        EnvironmentFault: pip failed.
    """
    command = [sys.executable, "-m", "pip", "install", "--disable-pip-version-check", "--quiet"]
    run = subprocess.run([*command, "--upgrade", *CUDA_PAIR], capture_output=True, text=True)
    if run.returncode != 0:
        raise EnvironmentFault(
            f"pip could not install {' '.join(CUDA_PAIR)}:\n{run.stderr.strip()}\nInstall a CUDA "
            "build of torch and its torchvision in .venv by hand (PyTorch's installation page has "
            "the command), then run `make setup` again."
        )


def require_usable_gpu(environment: Environment, gpus: list[str]) -> None:
    """Refuses an environment whose torch does not see a GPU that is there.

    Raises:
        EnvironmentFault: it does not; the message has the cause and the fixes.
    """
    if not gpus or environment.gpu:
        return
    if environment.cuda_build is None:
        cause = f"torch {environment.torch} is a CPU build. Run `make setup`"
    else:
        cause = (
            f"torch {environment.torch} is built for CUDA {environment.cuda_build} but cannot use "
            "the driver, which is probably too old for it. Update the driver, or install a torch "
            "and torchvision built for an older CUDA in .venv (PyTorch's installation page has "
            "the command) and run `make setup` again"
        )
    raise EnvironmentFault(
        f"nvidia-smi lists {gpus[0]!r}, but torch sees no GPU: {cause}. To go on with the CPU "
        "alone, set CUDA_VISIBLE_DEVICES to the empty string."
    )


def check(repair: bool) -> Environment:
    """Probes the environment, repairs it if asked to and needed, and probes again.

    Args:
        repair: replace a CPU build of torch on a machine with an NVIDIA GPU.

    Returns:
        The environment as it is at the end.

    Raises:
        EnvironmentFault: it cannot run the project, or does not see a GPU that is there.
    """
    environment, gpus = probe(), installed_gpus()
    if repair and gpus and not environment.gpu and environment.cuda_build is None:
        print(f"[setup] torch {environment.torch} is a CPU build and nvidia-smi lists a GPU:")
        print(f"[setup] installing a CUDA build ({', '.join(CUDA_PAIR)}), several GB", flush=True)
        install_cuda_pair()
        environment = probe()
    require_usable_gpu(environment, gpus)
    return environment


def main(arguments: list[str] | None = None) -> int:
    """Runs the tool; returns the exit status, 0 if the environment is sound."""
    parser = argparse.ArgumentParser(
        description=__doc__,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--repair",
        action="store_true",
        help="replace a CPU build of torch where nvidia-smi lists a GPU",
    )
    options = parser.parse_args(arguments)
    try:
        environment = check(options.repair)
    except EnvironmentFault as fault:
        print(f"[setup] error: {fault}", file=sys.stderr)
        return 1
    print(f"[setup] ready: {environment}")
    return 0


if __name__ == "__main__":
    sys.exit(main())

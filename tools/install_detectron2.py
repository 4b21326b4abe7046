#!/usr/bin/env python3
"""Makes detectron2 importable: accepts an installed one, or installs v0.6 in pure Python."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import detectron2_wheel as recipe

EXAMPLES = """\
examples:
  # in the environment of the interpreter that runs this file
  .venv/bin/python tools/install_detectron2.py

  # keep the wheel, to carry it to a machine without a network ...
  .venv/bin/python tools/install_detectron2.py --wheel-dir wheels
  # ... where it is installed with
  python -m pip install --no-deps wheels/detectron2-0.6-py3-none-any.whl
"""

# What the project imports of detectron2. It runs in a process of its own, because a failed import
# leaves half-imported modules behind.
PROBE = """
import sys
sys.path.remove("")  # a checkout in the current folder is not an installation
import importlib.metadata, importlib.util, json
import detectron2
from detectron2 import checkpoint, data, engine, evaluation, solver
from detectron2.config import LazyCall, LazyConfig, instantiate
try:
    wheel = importlib.metadata.distribution("detectron2").read_text("WHEEL") or ""
except importlib.metadata.PackageNotFoundError:
    wheel = ""
print("PROBE " + json.dumps({
    "version": detectron2.__version__,
    "location": list(detectron2.__path__)[0],
    "compiled": importlib.util.find_spec("detectron2._C") is not None,
    "wheel": wheel,
}))
"""

# pip asks a source archive for its metadata even when it only downloads it. It would run
# detectron2's setup.py, which imports torch and collects C++ sources. This module takes the place
# of the build backend that pip asks, so that no code of the archive runs.
STAND_IN_BACKEND = f'''
import pathlib, sys
def get_requires_for_build_wheel(config_settings=None):
    return []
def prepare_metadata_for_build_wheel(metadata_directory, config_settings=None):
    info = "{recipe.SDIST_NAME.replace("-", "_")}-{recipe.VERSION}.dist-info"
    folder = pathlib.Path(metadata_directory, info)
    folder.mkdir()
    folder.joinpath("METADATA").write_text(
        "Metadata-Version: 2.1\\nName: {recipe.SDIST_NAME}\\nVersion: {recipe.VERSION}\\n")
    return info
__legacy__ = sys.modules[__name__]
'''


class InstallError(RuntimeError):
    """detectron2 could not be made importable; the message says why and what to do."""


@dataclass(frozen=True)
class Installed:
    """What the probe found.

    Attributes:
        version: detectron2's version.
        location: the folder of the package.
        compiled: whether the compiled operators are there.
        wheel: text of the distribution's WHEEL file, empty where it has none.
    """

    version: str
    location: str
    compiled: bool
    wheel: str

    @property
    def outdated(self) -> bool:
        """Whether it was made by an older version of this tool."""
        made_here = "Generator: streampetr_vit tools/install_detectron2.py" in self.wheel
        return made_here and f"Generator: {recipe.GENERATOR}" not in self.wheel

    def __str__(self) -> str:
        operators = "with" if self.compiled else "without"
        return f"detectron2 {self.version} in {self.location} ({operators} compiled operators)"


def probe() -> Installed | None:
    """Imports what the project needs of detectron2, in a process of its own.

    Returns:
        What was found; None if there is no detectron2.

    Raises:
        InstallError: there is a detectron2, but it cannot be used.
    """
    run = subprocess.run([sys.executable, "-c", PROBE], capture_output=True, text=True)
    answers = [line for line in run.stdout.splitlines() if line.startswith("PROBE ")]
    if run.returncode == 0 and answers:
        found = Installed(**json.loads(answers[-1].removeprefix("PROBE ")))
        major, minor = (int(part) for part in found.version.split(".")[:2])
        if (major, minor) < (0, 6):
            raise InstallError(
                f"{found} is too old: v0.6 or newer is needed. Update it, or replace it by the "
                "pure-Python v0.6 with --replace."
            )
        return found
    last_line = (run.stderr.strip().splitlines() or ["no message"])[-1]
    if last_line == "ModuleNotFoundError: No module named 'detectron2'":
        return None
    # A detectron2 that fails must not be replaced unasked: it may be the user's own build.
    raise InstallError(
        f"a detectron2 is there but cannot be imported by {sys.executable}:\n  {last_line}\n"
        "Install the module that this line names, repair that detectron2, or replace it by the "
        "pure-Python one with --replace."
    )


def pip(*arguments: str, environment: dict[str, str] | None = None) -> None:
    """Runs pip of this interpreter.

    Raises:
        InstallError: pip failed; the message has its output.
    """
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", *arguments]
    run = subprocess.run(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, **(environment or {})},
    )
    if run.returncode != 0:
        raise InstallError(f"{' '.join(command)}\nfailed:\n{run.stdout.strip()}")


def download_sdist(folder: Path) -> Path:
    """Gets the source archive through pip, from the index that pip is configured to use.

    Args:
        folder: an empty folder for the archive and for what pip needs meanwhile.

    Returns:
        The archive's path; pip has checked its hash.

    Raises:
        InstallError: pip cannot get it.
    """
    backend = folder / "stand_in" / "setuptools"
    backend.mkdir(parents=True)
    (backend / "__init__.py").touch()
    (backend / "build_meta.py").write_text(STAND_IN_BACKEND)
    requirement = folder / "requirement.txt"
    requirement.write_text(
        f"{recipe.SDIST_NAME}=={recipe.VERSION} --hash=sha256:{recipe.SDIST_SHA256}\n"
    )
    target = folder / "sdist"
    pip(
        *("download", "--no-deps", "--no-build-isolation", "--no-binary", recipe.SDIST_NAME),
        *("--dest", str(target), "--requirement", str(requirement)),
        environment={"PYTHONPATH": str(backend.parent), "PIP_USE_PEP517": "1"},
    )
    return next(target.glob("*.tar.gz"))


def make_wheel(sdist: Path | None, folder: Path) -> Path:
    """Makes the wheel.

    Args:
        sdist: the source archive; None to download it.
        folder: of the wheel.

    Returns:
        The wheel's path.
    """
    with tempfile.TemporaryDirectory() as scratch:
        if sdist is None:
            print(f"[detectron2] downloading the source archive {recipe.SDIST_NAME}", flush=True)
            sdist = download_sdist(Path(scratch))
        wheel = recipe.build_wheel(sdist, folder)
    print(f"[detectron2] sha256 of the archive checked; wrote {wheel.name}, mended:")
    for reason in dict.fromkeys(item.reason for item in recipe.MENDS):
        paths = dict.fromkeys(item.path for item in recipe.MENDS if item.reason == reason)
        names = ", ".join(path.removeprefix("detectron2/") for path in paths)
        print(f"[detectron2]   {reason}: {names}")
    return wheel


def install(sdist: Path | None, wheel_dir: Path | None, replace: bool) -> str:
    """Does what the command line asks.

    Args:
        sdist: the source archive; None to download it.
        wheel_dir: folder in which the wheel is kept; None does not keep it.
        replace: install the pure-Python wheel even if there is a detectron2.

    Returns:
        One sentence for the user: what is there now.

    Raises:
        InstallError: detectron2 cannot be made importable.
    """
    found = None if replace else probe()
    accepted = found is not None and not found.outdated  # a wheel of an older recipe is replaced
    if accepted and wheel_dir is None:
        return f"accepted {found}; nothing was installed"
    with tempfile.TemporaryDirectory() as scratch:
        wheel = make_wheel(sdist, wheel_dir or Path(scratch))
        if accepted:
            return f"accepted {found}; wrote {wheel} and installed nothing"
        pip("install", "--quiet", "--no-deps", "--force-reinstall", "--no-index", str(wheel))
    return f"installed {probe()}" + (f"; kept {wheel}" if wheel_dir else "")


def main(arguments: list[str] | None = None) -> int:
    """Runs the tool; returns the exit status, 0 if detectron2 is importable at the end."""
    parser = argparse.ArgumentParser(
        description=__doc__,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--wheel-dir", type=Path, help="write the wheel here and keep it, to install it elsewhere"
    )
    parser.add_argument(
        "--sdist", type=Path, help="use this source archive instead of downloading it"
    )
    parser.add_argument(
        "--replace", action="store_true", help="install the pure-Python wheel even if there is one"
    )
    options = parser.parse_args(arguments)
    try:
        outcome = install(options.sdist, options.wheel_dir, options.replace)
    except (InstallError, recipe.WheelError, OSError) as error:
        print(f"[detectron2] error: {error}", file=sys.stderr)
        return 1
    print(f"[detectron2] {outcome}")
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""Turns the source archive of detectron2 v0.6 into a pure-Python wheel that runs on today's stack.

Everything here works on bytes and files: no network, no installation (see install_detectron2.py).
"""

from __future__ import annotations

import base64
import hashlib
import tarfile
import zipfile
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

# The only archive of the official v0.6 sources on the package index. Its Python files are identical
# to those of the v0.6 tag, its C++ sources are missing. The hash makes it trustworthy.
SDIST_NAME = "pb1-detectron2"
SDIST_SHA256 = "5d2e9e51e523ec72f6a31cca04b0a515492e9514b773a3d134cedc0677170b29"
VERSION = "0.6"
WHEEL_NAME = f"detectron2-{VERSION}-py3-none-any.whl"

# Counts the changes of this recipe: a wheel of an older recipe is replaced, not accepted.
RECIPE = 1
GENERATOR = f"streampetr_vit tools/install_detectron2.py (recipe {RECIPE})"

ADDITIONS = Path(__file__).parent / "detectron2_additions"

# setup.py of v0.6 installs these three projects under detectron2.projects.
PROJECTS = {
    "projects/PointRend/point_rend": "detectron2/projects/point_rend",
    "projects/DeepLab/deeplab": "detectron2/projects/deeplab",
    "projects/Panoptic-DeepLab/panoptic_deeplab": "detectron2/projects/panoptic_deeplab",
}

# v0.6's own list, without what only old Pythons and caffe2 needed (dataclasses, future), without
# the upper bound of iopath and without the pin of black: any version of it can format a config.
REQUIREMENTS = (
    "Pillow>=7.1",
    "matplotlib",
    "pycocotools>=2.0.2",
    "termcolor>=1.1",
    "yacs>=0.1.8",
    "tabulate",
    "cloudpickle",
    "tqdm>4.29.0",
    "tensorboard",
    "fvcore>=0.1.5,<0.1.6",
    "iopath>=0.1.7",
    "pydot",
    "omegaconf>=2.1",
    "hydra-core>=1.1",
    "black",
)


class WheelError(RuntimeError):
    """The archive is not the one that the recipe was written for."""


@dataclass(frozen=True)
class Mend:
    """One replacement of text in one file of detectron2.

    Attributes:
        path: the file, relative to the wheel's root.
        old: text that must occur exactly once.
        new: text that takes its place.
        reason: why, in a few words, for the report.
    """

    path: str
    old: str
    new: str
    reason: str

    def apply(self, text: str) -> str:
        """Returns `text` with the replacement made.

        Raises:
            WheelError: `old` does not occur exactly once.
        """
        # A replacement that finds nothing would leave the fault in the wheel without an error.
        found = text.count(self.old)
        if found != 1:
            raise WheelError(
                f"{self.path}: expected exactly one {self.old!r} to mend ({self.reason}), found "
                f"{found}. The archive is not detectron2 {VERSION} as it was released, or it is "
                "mended already."
            )
        return text.replace(self.old, self.new)


def _compiled_module_mend(path: str) -> Mend:
    return Mend(
        path=path,
        old="\nfrom detectron2 import _C\n",
        new=(
            "\ntry:\n    from detectron2 import _C\nexcept ImportError:\n"
            "    from detectron2 import _no_compiled_operators as _C\n"
        ),
        reason="imports the compiled module unconditionally",
    )


MENDS = (
    _compiled_module_mend("detectron2/layers/deform_conv.py"),
    _compiled_module_mend("detectron2/layers/roi_align_rotated.py"),
    _compiled_module_mend("detectron2/layers/rotated_boxes.py"),
    _compiled_module_mend("detectron2/evaluation/fast_eval_api.py"),
    Mend(
        path="detectron2/data/transforms/transform.py",
        old="interp=Image.LINEAR,",
        new="interp=Image.BILINEAR,",
        reason="PIL.Image.LINEAR, an alias of BILINEAR, is gone since Pillow 10",
    ),
    Mend(
        path="detectron2/model_zoo/model_zoo.py",
        old="\nimport pkg_resources\n",
        new="\n",
        reason="pkg_resources is gone since setuptools 82",
    ),
    Mend(
        path="detectron2/model_zoo/model_zoo.py",
        old=(
            "pkg_resources.resource_filename(\n"
            '        "detectron2.model_zoo", os.path.join("configs", config_path)\n'
            "    )"
        ),
        new='os.path.join(os.path.dirname(__file__), "configs", config_path)',
        reason="pkg_resources is gone since setuptools 82",
    ),
    Mend(
        path="detectron2/__init__.py",
        old="\nfrom .utils.env import setup_environment\n",
        new=(
            "\nfrom . import _torchvision_operators  # before anything imports torchvision\n"
            "from .utils.env import setup_environment\n"
        ),
        reason="torchvision cannot be imported where its extension cannot be loaded",
    ),
)


def check_hash(sdist: Path, sha256: str = SDIST_SHA256) -> None:
    """Refuses an archive whose contents are not the expected ones.

    Raises:
        WheelError: the digests differ; the message names both.
    """
    found = hashlib.sha256(sdist.read_bytes()).hexdigest()
    if found != sha256:
        raise WheelError(
            f"{sdist}: sha256 is {found}, expected {sha256}. The file is damaged or is another "
            "archive; delete it and download it again."
        )


def read_sdist(sdist: Path) -> dict[str, bytes]:
    """Reads the files that belong in the wheel. Nothing is written to disk or executed.

    Args:
        sdist: a `.tar.gz` whose members lie under one top folder.

    Returns:
        Path in the wheel -> unmended content; `LICENSE` under its bare name.
    """
    files: dict[str, bytes] = {}
    with tarfile.open(sdist, "r:gz") as archive:
        for member in archive:
            if not member.isfile():  # links could point outside the archive
                continue
            # Without the top folder, which names the package and its version.
            path = str(PurePosixPath(*PurePosixPath(member.name).parts[1:]))
            for source, target in PROJECTS.items():
                if path.startswith(source + "/"):
                    path = target + path[len(source) :]
            if path == "LICENSE" or path.startswith("detectron2/"):
                stream = archive.extractfile(member)
                assert stream is not None  # isfile() was checked
                files[path] = stream.read()
    return files


def mend(files: dict[str, bytes], mends: tuple[Mend, ...] = MENDS) -> dict[str, bytes]:
    """Applies every mend and adds the modules that the mends import.

    Raises:
        WheelError: a file or the text to be replaced is not there.
    """
    mended = dict(files)
    for item in mends:
        if item.path not in mended:
            raise WheelError(f"{item.path}: not in the archive, but it needs a mend: {item.reason}")
        mended[item.path] = item.apply(mended[item.path].decode("utf-8")).encode("utf-8")
    for addition in sorted(ADDITIONS.glob("*.py")):
        mended[f"detectron2/{addition.name}"] = addition.read_bytes()
    return mended


def _metadata() -> str:
    lines = [
        "Metadata-Version: 2.1",
        "Name: detectron2",
        f"Version: {VERSION}",
        "Summary: detectron2's Python package without compiled operators, mended for current"
        " versions of Pillow, setuptools and torch",
        "Author: FAIR",
        "License: Apache-2.0",
        "Requires-Python: >=3.10",
        *(f"Requires-Dist: {requirement}" for requirement in REQUIREMENTS),
    ]
    return "\n".join(lines) + "\n"


def _record_line(path: str, content: bytes) -> str:
    digest = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()
    return f"{path},sha256={digest},{len(content)}"


def write_wheel(files: dict[str, bytes], folder: Path) -> Path:
    """Writes the wheel; the same files give the same bytes.

    Args:
        files: path in the wheel -> content, with `LICENSE` under its bare name.
        folder: of the wheel; made if missing.

    Returns:
        The wheel's path.
    """
    # The parts of a wheel: PEP 427. RECORD lists all files, and itself without a hash.
    info = f"detectron2-{VERSION}.dist-info"
    contents = {path: content for path, content in files.items() if path != "LICENSE"}
    contents[f"{info}/LICENSE"] = files["LICENSE"]
    contents[f"{info}/METADATA"] = _metadata().encode()
    contents[f"{info}/WHEEL"] = (
        f"Wheel-Version: 1.0\nGenerator: {GENERATOR}\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
    ).encode()
    contents[f"{info}/top_level.txt"] = b"detectron2\n"
    record = [_record_line(path, content) for path, content in contents.items()]
    contents[f"{info}/RECORD"] = "\n".join([*record, f"{info}/RECORD,,", ""]).encode()

    folder.mkdir(parents=True, exist_ok=True)
    wheel = folder / WHEEL_NAME
    unfinished = wheel.with_suffix(".tmp")  # an interrupted run must not leave half a wheel
    with zipfile.ZipFile(unfinished, "w", zipfile.ZIP_DEFLATED) as archive:
        for path, content in contents.items():
            entry = zipfile.ZipInfo(path)  # its default date makes the bytes reproducible
            entry.compress_type = zipfile.ZIP_DEFLATED
            entry.external_attr = 0o644 << 16
            archive.writestr(entry, content)
    unfinished.replace(wheel)
    return wheel


def build_wheel(sdist: Path, folder: Path, sha256: str = SDIST_SHA256) -> Path:
    """Checks the archive, then makes the wheel from it.

    Args:
        sdist: the source archive.
        folder: of the wheel.
        sha256: the digest that the archive must have.

    Returns:
        The wheel's path.

    Raises:
        WheelError: the hash differs, or a mend does not fit.
    """
    check_hash(sdist, sha256)
    return write_wheel(mend(read_sdist(sdist)), folder)

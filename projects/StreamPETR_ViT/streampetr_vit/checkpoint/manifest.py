"""The checksums of a folder's checkpoints, and the order in which these were written.

The manifest is a text file in the format of `sha256sum`, one line for each checkpoint, oldest
first: `sha256sum --check checkpoints.sha256` reads it. The order does not depend on the clock. A
file that it does not list, such as one of another run, is not checked.
"""

from __future__ import annotations

import hashlib
import logging
import os
import re
from pathlib import Path

from streampetr_vit.errors import CheckpointError
from streampetr_vit.files import replacing

logger = logging.getLogger(__name__)

MANIFEST = "checkpoints.sha256"
# For the error about a file that cannot be taken: the way on for a user who has changed it.
ON_PURPOSE = f"(If you have changed the file on purpose, remove its line from {MANIFEST}.)"
# The name may have 255 bytes: a longer one is an error of the system wherever it is looked for.
_LINE = re.compile(r"([0-9a-f]{64}) [ *]([^/\\]{1,60}\.pth)")
_NUMBERED = re.compile(r"model_\d{7,}\.pth")


def recorded_digest(path: Path) -> str:
    """SHA-256 of a file: that of the manifest beside it, or computed where there is none."""
    return read_manifest(path.parent).get(path.name) or digest_of(path)


def read_manifest(folder: str | os.PathLike[str]) -> dict[str, str]:
    """File name -> SHA-256 in hexadecimal, oldest first; empty where there is no manifest."""
    path = Path(folder, MANIFEST)
    if not path.is_file():
        return {}
    try:
        lines = path.read_text(errors="replace").splitlines()
    except OSError as error:
        raise CheckpointError(
            f"{path} cannot be read ({error.strerror}): check its rights"
        ) from error
    found = {}
    for line in lines:
        match = _LINE.fullmatch(line)
        if match is None:
            logger.warning("%s: a line that is no checksum is passed over: %.100r", path, line)
        else:
            found[match[2]] = match[1]
    return found


def note(folder: str | os.PathLike[str], name: str, digest: str) -> None:
    """Lists a checkpoint as the newest. Files that are gone are listed no more."""
    others = {
        k: v for k, v in read_manifest(folder).items() if k != name and Path(folder, k).exists()
    }
    _write(folder, others | {name: digest})


def forget(folder: str | os.PathLike[str], name: str) -> None:
    """Lists a checkpoint no more, before another file takes its place."""
    digests = read_manifest(folder)
    if digests.pop(name, None) is not None:
        _write(folder, digests)


def go_on_from(folder: str | os.PathLike[str], name: str) -> None:
    """Makes a checkpoint the newest one of a run that goes on from it.

    What was written after it belongs to a run that was given up. It is listed as older than all
    others: it is the last that a resume takes, and the first that is removed.
    """
    digests = read_manifest(folder)
    names = list(digests)
    later = names[names.index(name) + 1 :] if name in digests else []
    if later:
        _write(folder, {key: digests[key] for key in later} | digests)


def damage(path: str | os.PathLike[str]) -> str | None:
    """What is wrong with a checkpoint, by its checksum; None where nothing is known."""
    path = Path(path)
    expected = read_manifest(path.parent).get(path.name)
    if not path.is_file():
        return "it does not exist"
    if expected is None:
        return None
    try:
        digest = digest_of(path)
    except OSError as error:
        return f"it cannot be read ({error.strerror})"
    return None if digest == expected else f"its SHA-256 is not the one that {MANIFEST} lists"


def in_order(folder: str | os.PathLike[str]) -> list[Path]:
    """The checkpoints of a folder, oldest first.

    Those that the manifest does not list come before all others, by their number.
    """
    listed = read_manifest(folder)
    numbered = sorted(path.name for path in Path(folder).iterdir() if is_numbered(path))
    names = [*(name for name in numbered if name not in listed), *listed]
    return [path for path in (Path(folder, name) for name in names) if path.is_file()]


def is_numbered(path: Path) -> bool:
    """Whether a file is the checkpoint of a step, and not the final one or the best."""
    return _NUMBERED.fullmatch(path.name) is not None


def digest_of(path: Path) -> str:
    """A file's SHA-256, in hexadecimal."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def _write(folder: str | os.PathLike[str], digests: dict[str, str]) -> None:
    with replacing(Path(folder, MANIFEST)) as temporary:
        temporary.write_text("".join(f"{value}  {name}\n" for name, value in digests.items()))

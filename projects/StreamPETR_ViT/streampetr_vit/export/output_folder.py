"""The folder of an export: what may be in it before, and how it becomes whole.

The head's graph goes first and comes last. So a folder that has it holds one whole export, also
where a program was killed.
"""

from __future__ import annotations

import logging
import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from streampetr_vit.errors import InputError, UserError
from streampetr_vit.export.description import Description
from streampetr_vit.export.interface import GRAPHS, HEAD, POSITION
from streampetr_vit.export.optional import onnx
from streampetr_vit.files import cannot_write, check_space
from streampetr_vit.modeling.detector import StreamPETR
from streampetr_vit.texts import name_list, shown

logger = logging.getLogger(__name__)

_HALF_WRITTEN = ".export-"  # begins the name of a folder that becomes an export


def check_output(folder: Path, description: Description, overwrite: bool) -> None:
    """Refuses a folder that holds something else, before the minutes of an export.

    Args:
        description: of what shall be written.
        overwrite: an earlier export may be replaced.

    Raises:
        InputError: it is a file; it holds other files; or an export that `overwrite` does not free.
    """
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{folder} is a file: give --out a new or an empty folder")
    names = sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []
    # .gitkeep may stay, and what a program left that was killed.
    there = [name for name in names if not name.startswith(".")]
    if not set(there) & set(GRAPHS):
        if there:
            raise InputError(
                f"{folder} holds other files ({name_list(there, 3)}): give --out a new or an empty "
                "folder"
            )
        return
    earlier = _description_in(folder)
    if not overwrite:
        if earlier == description and HEAD in there:
            raise InputError(
                f"{folder} holds this export already: add --overwrite to write it once more"
            )
        raise InputError(
            f"{folder} holds {_what_it_is(earlier, description)}: choose another --out, or add "
            "--overwrite to replace it"
        )
    if earlier != description:
        logger.warning("%s: replacing %s", folder, _what_it_is(earlier, description))


def check_room(folder: Path, detector: StreamPETR) -> None:
    """Compares the free space of a folder's disk, which may not exist yet, with a detector's size.

    Raises:
        OutputError: there is too little for the graphs.
    """
    while not folder.exists():
        folder = folder.absolute().parent
    weights = sum(value.numel() for value in detector.state_dict().values())
    # Tables and plans of a graph are a tenth of its weights at most.
    check_space(folder, int(4.4 * weights), "the graphs", "choose another --out")


@contextmanager
def becoming(folder: Path) -> Iterator[Path]:
    """Yields a folder for the files of an export, which move to `folder` when the block is done.

    Where the block raises, or the program is interrupted, what was in `folder` stays as it was.

    Raises:
        OutputError: the folder cannot be written.
    """
    is_new = not folder.exists()
    # Inside, not beside: the folder may be a disk of its own.
    temporary = folder / f"{_HALF_WRITTEN}{uuid.uuid4().hex[:12]}"
    try:
        temporary.mkdir(parents=True)
        for left in folder.glob(f"{_HALF_WRITTEN}*"):  # by a program that was killed
            if left != temporary:
                shutil.rmtree(left)
        yield temporary
        _move(temporary, folder)
    except UserError:
        raise
    except OSError as error:
        raise cannot_write(folder, error) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
        if is_new and folder.is_dir() and not any(folder.iterdir()):
            folder.rmdir()


def _move(temporary: Path, folder: Path) -> None:
    (folder / HEAD).unlink(missing_ok=True)
    # Each was written by `files.replacing`, so that its content is on the disk already.
    for path in sorted(temporary.iterdir(), key=lambda path: path.name == HEAD):
        os.replace(path, folder / path.name)
    engines = [path.name for path in sorted(folder.glob("*.engine"))]
    if engines:
        logger.warning(
            "%s: %s may be of earlier graphs: remove them, and TensorRT builds new ones",
            folder,
            name_list(engines),
        )


def _description_in(folder: Path) -> Description | None:
    """What the graphs say of themselves; None if this project has not written them."""
    path = folder / POSITION  # the smallest; all three say the same
    try:
        return Description.of_model(onnx().load(path, load_external_data=False), str(path))
    # Whatever a strange file makes the parser raise.
    except Exception:
        return None


def _what_it_is(earlier: Description | None, new: Description) -> str:
    if earlier is None:
        return "graphs that tools/export_onnx.py has not written, or not whole"
    if difference := earlier.difference(new):
        field, old, now = difference
        return f"another export ({field} is {shown(old)} there, {shown(now)} now)"
    return "half of this export"

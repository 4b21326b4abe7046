"""What can be seen of a checkpoint file without reading it."""

from __future__ import annotations

import os
from pathlib import Path

from streampetr_vit.downloads import left_instead
from streampetr_vit.errors import CheckpointError
from streampetr_vit.texts import name_list

ENDINGS = (".pth", ".pt", ".safetensors")
NAMED_BY_SETTING = (
    'correct train.init_checkpoint ("" starts from random weights) or, with --resume, the file '
    "last_checkpoint in the output folder. docs/checkpoints.md says which files there are"
)


def check_given_file(path: str | os.PathLike[str], advice: str = "correct the path") -> None:
    """Refuses what is no file, cannot be opened, or is what a failed download leaves.

    Args:
        path: of the checkpoint.
        advice: what to do where there is no such file.

    Raises:
        CheckpointError: see there.
    """
    path = os.fspath(path)
    if os.path.isdir(path):
        found = sorted(file.name for file in Path(path).iterdir() if file.suffix in ENDINGS)
        there = f"files in it: {name_list(found, 10)}" if found else "no checkpoint is in it"
        raise CheckpointError(f"checkpoint {path!r} is a folder: give a file; {there}")
    if not os.path.isfile(path):
        raise CheckpointError(
            f"checkpoint {path!r} does not exist (current folder: {os.getcwd()}); {advice}"
        )
    try:
        with open(path, "rb") as file:
            instead = left_instead(file.read(512))
    except OSError as error:
        raise CheckpointError(
            f"checkpoint {path!r} cannot be read ({error.strerror}): check its rights"
        ) from error
    if instead:
        raise CheckpointError(f"{path} is not a checkpoint but {instead}")

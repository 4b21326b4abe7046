"""Which files the tables may name: those below the data root."""

from __future__ import annotations

from pathlib import Path

from streampetr_vit.errors import InputError
from streampetr_vit.texts import shown


def is_below_root(name: str) -> bool:
    """Whether a file name of the tables leads nowhere but below the data root.

    Only the name is looked at. The root itself, or a folder in it, may be a symbolic link: that is
    how data sets are spread over disks, and no table can make one.
    """
    # Any "..": behind a link to a folder it would lead to that folder's parent. Backslashes and
    # drives are folders on Windows only.
    has_drive = name[1:2] == ":" or "://" in name
    absolute = name.startswith(("/", "~"))
    return not (absolute or has_drive or "\\" in name or ".." in name.split("/"))


def picture_path(root: Path, name: str) -> Path:
    """The path of a picture.

    Raises:
        InputError: the name leads out of the data root. Tables are refused for it when they are
            read; a record cache may have been made by someone else.
    """
    if not is_below_root(name):
        raise InputError(
            f"picture {shown(name)} is not below the data root {root}; remove its folder "
            ".streampetr_vit, the record cache, to have the tables read again"
        )
    return root / name

"""Tells what a download has left in place of the file that was meant."""

from __future__ import annotations

import re

_PAGE = re.compile(
    rb"(\xef\xbb\xbf)?\s*(<\?xml[^>]*>\s*)?<(!doctype\s+html|html|head|body)\b", re.I
)


def left_instead(head: bytes) -> str:
    """What a file is in place of the one that was meant, and the fix; "" if it is none of these.

    Args:
        head: the first bytes of the file, some hundred.
    """
    if head.startswith(b"version https://git-lfs"):
        return (
            "a Git LFS pointer, a text that names the file: run `git lfs pull` in its repository, "
            "or download the file itself"
        )
    if _PAGE.match(head):
        return (
            "a web page (HTML): the address was that of a page, or asked for a login; download the "
            "file itself"
        )
    return ""

"""Files of boxes that a person writes by hand."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from streampetr_vit.errors import InputError
from streampetr_vit.inference.checks.boxes import read_boxes

BOX = {"center": [10, 1, 0.8], "size": [4.5, 1.9, 1.6], "yaw": 0.1}
LINE = {"scene": "yard", "frame": "a", "objects": [BOX]}


def test_a_byte_order_mark_and_empty_lines_are_no_content(tmp_path: Path) -> None:
    path = tmp_path / "b.jsonl"
    path.write_bytes(b"\xef\xbb\xbf" + json.dumps(LINE).encode() + b"\r\n\r\n")
    assert list(read_boxes(path, 0.0)) == [("yard", "a")]


@pytest.mark.parametrize(
    ("lines", "says"),
    [
        ([LINE, LINE], "line 2: frame 'a' of scene 'yard' is there already"),
        ([LINE | {"frame_of_reference": "world"}], "frame_of_reference is 'world'; give the boxes"),
        ([LINE | {"objects": [BOX | {"size": [1, 0, 2]}]}], r"size \[1, 0, 2\]; give length, wid"),
    ],
)
def test_what_would_be_drawn_wrong_is_refused(tmp_path: Path, lines: list, says: str) -> None:
    path = tmp_path / "b.jsonl"
    path.write_text("\n".join(map(json.dumps, lines)))
    with pytest.raises(InputError, match=says):
        read_boxes(path, 0.0)

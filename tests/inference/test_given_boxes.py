"""Boxes that are given to be drawn on the pictures of a drive."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest

from streampetr_vit.errors import InputError, MissingFileError
from streampetr_vit.inference.checks.boxes import read_boxes

BOX = {"center": [10, 1, 0.8], "size": [4.5, 1.9, 1.6], "yaw": 0.1, "score": 0.9, "name": "car"}


def written(path: Path, *objects: object, frame: object = "000003") -> Path:
    line = {"scene": "yard", "frame": frame, "objects": list(objects)}
    path.write_text(json.dumps({"scene": "yard", "frame": "a", "objects": []}) + "\n")
    with path.open("a") as file:
        file.write(json.dumps(line) + "\n")
    return path


def test_strong_boxes_and_those_without_a_score_are_read(tmp_path: Path) -> None:
    certain = {name: value for name, value in BOX.items() if name != "score"}
    weak = BOX | {"score": 0.1}
    boxes = read_boxes(written(tmp_path / "b.jsonl", BOX, weak, certain | {"yaw": 2}), 0.25)
    assert list(boxes) == [("yard", "a"), ("yard", "000003")]
    assert boxes["yard", "a"].shape == (0, 7)
    expected = [[10, 1, 0.8, 4.5, 1.9, 1.6, 0.1], [10, 1, 0.8, 4.5, 1.9, 1.6, 2]]
    np.testing.assert_array_equal(boxes["yard", "000003"], expected)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"center": [1, 2]}, "line 2: a box has center [1, 2]; it must be 3 finite numbers"),
        ({"size": "big"}, "line 2: a box has size 'big'; it must be 3 finite numbers"),
        ({"yaw": None}, "line 2: a box has yaw None; it must be a finite number"),
        ({"yaw": float("nan")}, "line 2: a box has yaw nan; it must be a finite number"),
        ({"score": "high"}, "line 2: a box has score 'high'; it must be a finite number"),
    ],
)
def test_what_is_no_box_is_refused(tmp_path: Path, changes: dict, says: str) -> None:
    with pytest.raises(InputError, match=re.escape(says)):
        read_boxes(written(tmp_path / "b.jsonl", BOX | changes), 0.25)


def test_what_is_no_file_of_boxes_is_refused(tmp_path: Path) -> None:
    with pytest.raises(MissingFileError, match="absent cannot be read"):
        read_boxes(tmp_path / "absent", 0.25)
    with pytest.raises(InputError, match=r"line 2: scene and frame are \('yard', 3\)"):
        read_boxes(written(tmp_path / "b.jsonl", frame=3), 0.25)
    with pytest.raises(InputError, match="line 2: frame 'a' of scene 'yard' is there already"):
        read_boxes(written(tmp_path / "b.jsonl", frame="a"), 0.25)
    for text, says in (("{", "line 1 is no JSON"), ("[1]", "line 1: give an object with scene")):
        (tmp_path / "c").write_text(text)
        with pytest.raises(InputError, match=says):
            read_boxes(tmp_path / "c", 0.25)
    (tmp_path / "c").write_bytes(b"\xff\xd8\xff")
    with pytest.raises(InputError, match="line 1 is no JSON object in UTF-8"):
        read_boxes(tmp_path / "c", 0.25)

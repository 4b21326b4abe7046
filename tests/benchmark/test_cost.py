"""benchmarks/cost.py: the tables that it makes large are tables."""

from __future__ import annotations

import json
from pathlib import Path

import cost
import numpy as np
import pytest

from streampetr_vit.data.nuscenes.build_records import load_records


def test_repeated_tables_have_records(
    tiny_nuscenes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cost, "generate", lambda *_: tiny_nuscenes)
    cost.write_tables(tmp_path, scenes=6)
    folder = tmp_path / cost.VERSION
    for table in ("sample_data", "ego_pose"):
        rows = json.loads((folder / f"{table}.json").read_text())
        assert len({row["token"] for row in rows}) == len(rows) == 6 * 6 * 7 * 11
        assert sum(row.get("is_key_frame", False) for row in rows) in (0, 6 * 6 * 7)
    once, repeated = load_records(tiny_nuscenes, "v1.0-mini"), load_records(tmp_path, folder.name)
    assert len(repeated.scene_lengths) == 6 and len(repeated) == 3 * len(once)
    for index in range(len(once)):
        assert np.array_equal(repeated[index].gt_boxes, once[index].gt_boxes)
        assert repeated[index].token != repeated[index + len(once)].token

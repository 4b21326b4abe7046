"""What the devkit would refuse after hours is refused before anything runs."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hand_made_nuscenes import VERSION, write_tables

from streampetr_vit.data.nuscenes.build_records import load_records
from streampetr_vit.data.nuscenes.spec import NUSCENES
from streampetr_vit.errors import UserError
from streampetr_vit.evaluation import NuScenesEvaluator
from streampetr_vit.evaluation.devkit_needs import check_devkit
from streampetr_vit.evaluation.scoring import Scoring

SCENE = "scene-0003"
Rows = list[dict[str, Any]]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    write_tables(tmp_path / "data", [SCENE], frames=2, boxes_per_class=1)
    return tmp_path / "data"


def check(root: Path) -> None:
    dataset = {"root": root, "version": VERSION, "split": [SCENE]}
    NuScenesEvaluator(dataset, root / "out").check()


def refused(root: Path, message: str) -> None:
    with pytest.raises(UserError, match=message):
        check(root)


def change(root: Path, table: str, edit: Callable[[Rows], None]) -> None:
    path = root / VERSION / f"{table}.json"
    rows = json.loads(path.read_text())
    edit(rows)
    path.write_text(json.dumps(rows))


def test_a_whole_data_set_passes(root: Path) -> None:
    check(root)


@pytest.mark.parametrize("table", ["attribute", "visibility", "log", "map"])
def test_tables_that_only_the_devkit_reads(root: Path, table: str) -> None:
    (root / VERSION / f"{table}.json").unlink()
    refused(root, rf"{table}.json is missing: the official metric.*dataloader.evaluator=null")


def test_a_table_that_is_no_table(root: Path) -> None:
    (root / VERSION / "visibility.json").write_text("{}")
    refused(root, "visibility.json is not a JSON list")


def test_a_map_without_its_picture(root: Path) -> None:
    (root / "maps" / "empty.png").unlink()
    refused(root, r"map .*maps/empty.png is missing.*Extract the folder maps")


def test_a_log_without_a_map(root: Path) -> None:
    change(root, "log", lambda rows: rows.append(dict(rows[0], token="other")))
    refused(root, r"no map has the log 'other'")
    change(root, "map", list.clear)
    refused(root, "map.json is empty")


def test_attributes_that_the_metric_does_not_take(root: Path) -> None:
    def give(*names: str) -> Callable[[Rows], None]:
        return lambda rows: rows[0].update(attribute_tokens=list(names))

    change(root, "sample_annotation", give("vehicle.moving", "vehicle.parked"))
    refused(root, "has 2 attributes .*takes one at most")
    change(root, "attribute", lambda rows: rows.append({"token": "x", "name": "flying"}))
    change(root, "sample_annotation", give("x"))
    refused(root, "has the attribute 'flying', which the official metric does not know")
    change(root, "sample_annotation", give("nowhere"))
    refused(root, "attribute_tokens of record .* has 'nowhere', which is not in")


def test_attributes_of_an_own_data_set_may_have_any_name(root: Path) -> None:
    change(root, "attribute", lambda rows: rows.append({"token": "x", "name": "flying"}))
    change(root, "sample_annotation", lambda rows: rows[0].update(attribute_tokens=["x"]))
    own = replace(Scoring.of(NUSCENES), is_official=False)
    check_devkit(load_records(root, VERSION), own)


def test_a_count_of_points_that_is_no_whole_number(root: Path) -> None:
    change(root, "sample_annotation", lambda rows: rows[0].update(num_lidar_pts=1.0))
    refused(root, "num_lidar_pts of record .* is 1.0; the official metric takes whole numbers")


@pytest.mark.parametrize("table", ["lidarseg", "panoptic"])
def test_point_labels_that_were_not_extracted(root: Path, table: str) -> None:
    labels = root / table / VERSION
    (root / VERSION / f"{table}.json").write_text(json.dumps([{"token": "a"}]))
    refused(root, rf"folder .*{table}/{VERSION} is missing")
    labels.mkdir(parents=True)
    refused(root, "has 0 label files, its table 1 records")
    (labels / "a.bin").touch()
    refused(root, "records without index")
    change(root, "category", lambda rows: [row.update(index=i) for i, row in enumerate(rows)])
    check(root)


def test_a_devkit_that_cannot_be_imported(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "nuscenes.eval.detection.evaluate", None)
    refused(root, "needs the nuScenes devkit, which cannot be imported.*pip install nuscenes-devk")


def test_where_nothing_is_scored_the_devkit_needs_nothing(tmp_path: Path) -> None:
    from hand_made_nuscenes import Layout

    write_tables(tmp_path, [SCENE], frames=1, layout=Layout(classes=()))
    (tmp_path / VERSION / "attribute.json").unlink()
    check(tmp_path)

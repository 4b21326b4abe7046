"""Data sets by name, splits, and descriptions in a config."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import handmade_tables
import pytest
from detectron2.data import DatasetCatalog, MetadataCatalog
from omegaconf import OmegaConf

from streampetr_vit.data.nuscenes.catalog import (
    dataset_name,
    load_split,
    open_dataset,
    register_nuscenes,
)
from streampetr_vit.data.nuscenes.spec import NUSCENES
from streampetr_vit.errors import InputError
from streampetr_vit.logs import forget_logged


def test_official_names_below_detectron2_datasets(tmp_path: Path) -> None:
    code = (
        "import streampetr_vit.data.nuscenes.catalog, sys\n"
        "from detectron2.data import MetadataCatalog as M\n"
        "for n in ('trainval_train', 'trainval_val', 'mini_train', 'mini_val', 'test'):\n"
        "    m = M.get('nuscenes_' + n); print(m.root, m.version, m.split, m.evaluator_type)\n"
        "assert 'nuscenes' not in sys.modules, 'the devkit is slow to import'\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", code],
        env={"DETECTRON2_DATASETS": str(tmp_path), "PYTHONPATH": ":".join(sys.path)},
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stderr
    root = tmp_path / "nuscenes"
    assert result.stdout.splitlines() == [
        f"{root} v1.0-trainval train nuscenes",
        f"{root} v1.0-trainval val nuscenes",
        f"{root} v1.0-mini mini_train nuscenes",
        f"{root} v1.0-mini mini_val nuscenes",
        f"{root} v1.0-test test nuscenes",
    ]


def test_official_split_takes_the_scenes_that_are_there(handmade_root: Path) -> None:
    assert load_split(handmade_root, "v1.0-mini", "mini_train").scene_names == ["scene-0061"]
    assert load_split(handmade_root, "v1.0-mini", "mini_val").scene_names == ["scene-0103"]
    assert load_split(handmade_root, "v1.0-mini").scene_names == list(handmade_tables.SCENES)


def test_scene_list(handmade_root: Path) -> None:
    assert load_split(handmade_root, "v1.0-mini", ["scene-0103"]).scene_names == ["scene-0103"]
    with pytest.raises(ValueError, match="scene-0001.*scene-0061"):
        load_split(handmade_root, "v1.0-mini", ["scene-0103", "scene-0001"])


def test_custom_splits(tmp_path: Path) -> None:
    handmade_tables.write_tables(handmade_tables.make_tables(), tmp_path)
    path = tmp_path / "v1.0-mini" / "splits.json"
    path.write_text(json.dumps({"night": ["scene-0061"]}))
    assert load_split(tmp_path, "v1.0-mini", "night").scene_names == ["scene-0061"]
    with pytest.raises(ValueError, match="'day'.*mini_train.*night.*splits.json"):
        load_split(tmp_path, "v1.0-mini", "day")
    path.write_text('["scene-0061"]')
    with pytest.raises(ValueError, match="splits.json must be a JSON object"):
        load_split(tmp_path, "v1.0-mini", "night")


def _one_name(root: Path) -> Path:
    tables = handmade_tables.make_tables()
    for row in tables["scene"]:
        row["name"] = "drive"
    return handmade_tables.write_tables(tables, root)


def test_a_name_stands_for_all_scenes_that_have_it(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    root = _one_name(tmp_path)
    for split in (None, ["drive"]):
        records = load_split(root, "v1.0-mini", split)
        assert len(records) == sum(handmade_tables.SCENES.values())
    assert caplog.text.count("2 scenes with the names drive: each name stands for all") == 1


def test_an_unknown_scene_lists_those_that_exist(handmade_root: Path) -> None:
    with pytest.raises(InputError, match="are not in .*2 scenes: scene-0061, scene-0103"):
        load_split(handmade_root, "v1.0-mini", ["scene-0103", "scene-61"])
    records = load_split(handmade_root, "v1.0-mini")
    with pytest.raises(InputError, match="2 scenes: scene-0103, scene-0061"):  # the nearest first
        records.select_scenes(["scene-013"])


def test_notes_of_a_split_are_logged_once(
    handmade_root: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    root = handmade_tables.write_tables(handmade_tables.make_tables(), tmp_path)
    caplog.set_level(logging.INFO)
    (root / "v1.0-mini" / "splits.json").write_text('{"twice": ["scene-0061", "scene-0061"]}')
    for _ in range(3):
        assert len(load_split(root, "v1.0-mini", "twice")) == 5
        load_split(root, "v1.0-mini", "mini_train")
    assert caplog.text.count("names 1 scenes more than once: each is taken once") == 1
    assert caplog.text.count("has 1 of the 8 scenes of split mini_train") == 1
    forget_logged()  # another run
    load_split(root, "v1.0-mini", "mini_train")
    assert caplog.text.count("has 1 of the 8 scenes of split mini_train") == 2


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"root": 5}, "has root=5; it must be a text"),
        ({"version": ["v1.0-mini"]}, "has version=.*must be a text"),
        ({"split": 3}, "has split=3; it must be a name or a list of scene names"),
        ({"split": {"a": 1}}, "must be a name or a list of scene names"),
        ({"split": ["scene-0061", 7]}, "has 7, which is no name of a scene"),
        ({"split": [["scene-0061"]]}, "which is no name of a scene"),
        ({"name": 5}, "has name=5; it must be a text"),
    ],
)
def test_descriptions_of_the_wrong_type(handmade_root: Path, values: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        open_dataset({"root": handmade_root, "version": "v1.0-mini", **values})


def test_a_name_that_is_null_is_made_up(tmp_path: Path) -> None:
    described = {"root": tmp_path, "version": "v1.0-mini"}
    assert dataset_name({**described, "name": None}) == dataset_name(described)


def test_a_version_is_no_path(handmade_root: Path) -> None:
    for version in ("", "../handmade", "v1.0-mini/", str(handmade_root / "v1.0-mini")):
        with pytest.raises(FileNotFoundError, match=r"is no folder of .*\['v1.0-mini'\]"):
            load_split(handmade_root, version)


def test_empty_splits_are_refused(tmp_path: Path) -> None:
    root = handmade_tables.write_tables(handmade_tables.make_tables(), tmp_path)
    (root / "v1.0-mini" / "splits.json").write_text('{"none": []}')
    for split in ("none", []):
        with pytest.raises(InputError, match="is empty; name at least one scene"):
            load_split(root, "v1.0-mini", split)


@pytest.mark.parametrize("version", ["v1.0-mini", "v1.0-mine", "v1.0-test"])
def test_own_splits_may_have_official_names(tmp_path: Path, version: str) -> None:
    handmade_tables.write_tables(handmade_tables.make_tables(), tmp_path, version)
    own = {"train": ["scene-0103"], "mini_train": ["scene-0103"], "night": ["scene-0061"]}
    (tmp_path / version / "splits.json").write_text(json.dumps(own))
    for split, names in own.items():
        assert load_split(tmp_path, version, split).scene_names == names
        name = dataset_name({"root": tmp_path, "version": version, "split": split})
        assert DatasetCatalog.get(name).scene_names == names
    # A name of the devkit's that is not among them is still the devkit's.
    if version == "v1.0-mini":
        assert load_split(tmp_path, version, "mini_val").scene_names == ["scene-0103"]
    with pytest.raises(ValueError, match="'val' of the devkit.*train.*night.*splits.json"):
        load_split(tmp_path, version, "val")


def test_split_of_another_version(handmade_root: Path) -> None:
    with pytest.raises(
        ValueError, match="'val' of the devkit belongs to versions that end in 'trainval'"
    ):
        load_split(handmade_root, "v1.0-mini", "val")


def test_split_without_a_scene(tmp_path: Path) -> None:
    tables = handmade_tables.make_tables()
    for row in tables["scene"]:
        row["name"] = "my-" + row["name"]
    handmade_tables.write_tables(tables, tmp_path)
    with pytest.raises(ValueError, match="none of the 2 scenes of split 'mini_val'.*my-scene"):
        load_split(tmp_path, "v1.0-mini", "mini_val")


def test_registration(handmade_root: Path) -> None:
    register_nuscenes("handmade_val", handmade_root, "v1.0-mini", "mini_val")
    register_nuscenes("handmade_val", handmade_root, "v1.0-mini", "mini_val")
    assert len(DatasetCatalog.get("handmade_val")) == 4
    metadata = MetadataCatalog.get("handmade_val")
    assert (metadata.root, metadata.version) == (str(handmade_root), "v1.0-mini")
    assert (metadata.split, metadata.evaluator_type) == ("mini_val", "nuscenes")
    assert metadata.thing_classes == list(NUSCENES.class_names)
    with pytest.raises(ValueError, match=r"'handmade_val' is registered.*\['split'\]"):
        register_nuscenes("handmade_val", handmade_root, "v1.0-mini", "mini_train")


def test_another_cache_folder_is_another_data_set(handmade_root: Path, tmp_path: Path) -> None:
    described = {"root": handmade_root, "version": "v1.0-mini", "split": ["scene-0061"]}
    described["cache_dir"] = tmp_path / "one"
    name = dataset_name({**described, "name": "handmade_cached"})
    assert DatasetCatalog.get(name).path.parent == tmp_path / "one"
    assert dataset_name({**described, "name": name}) == name
    for other in (tmp_path / "two", None):
        with pytest.raises(ValueError, match=r"'handmade_cached' is registered.*\['cache_dir'\]"):
            dataset_name({**described, "name": name, "cache_dir": other})


def test_made_names_differ_where_the_cache_folders_do(handmade_root: Path, tmp_path: Path) -> None:
    described = {"root": handmade_root, "version": "v1.0-mini", "split": ["scene-0061"]}
    caches = (None, tmp_path / "one", tmp_path / "two")
    names = [dataset_name(described | {"cache_dir": cache}) for cache in caches]
    assert len(set(names)) == 3 and names[0] == dataset_name(described)
    assert DatasetCatalog.get(names[2]).path.parent == tmp_path / "two"


def test_description_in_a_config(handmade_root: Path) -> None:
    described = OmegaConf.create(
        {"root": str(handmade_root), "version": "v1.0-mini", "split": ["scene-0061"]}
    )
    name = dataset_name(described)
    assert dataset_name(described) == name
    assert DatasetCatalog.get(name).scene_names == ["scene-0061"]
    assert MetadataCatalog.get(name).split is None
    assert dataset_name(name) == name
    named = {"root": handmade_root, "version": "v1.0-mini", "name": "handmade_all"}
    assert dataset_name(named) == "handmade_all"
    assert len(DatasetCatalog.get("handmade_all")) == 9


def test_unknown_name_and_keyword(handmade_root: Path) -> None:
    with pytest.raises(ValueError, match="unknown data set 'nuscenes_maxi'.*nuscenes_mini_train"):
        dataset_name("nuscenes_maxi")
    with pytest.raises(ValueError, match="needs root and version.*'spilt'"):
        dataset_name({"root": handmade_root, "version": "v1.0-mini", "spilt": "mini_val"})


def test_a_registered_spec_is_the_one_that_is_read(tmp_path: Path) -> None:
    root = handmade_tables.write_tables(handmade_tables.make_tables(), tmp_path)
    own = replace(NUSCENES, classes=NUSCENES.classes[:2], cameras=NUSCENES.cameras[:4])
    register_nuscenes("with_its_own_spec", root, handmade_tables.VERSION, spec=own)
    for records in (DatasetCatalog.get("with_its_own_spec"), open_dataset("with_its_own_spec")):
        assert records.spec == own and len(records[0].camera_paths) == 4
    assert MetadataCatalog.get("with_its_own_spec").thing_classes == ["car", "truck"]
    assert open_dataset("with_its_own_spec", own).spec == own
    with pytest.raises(ValueError, match="registered with its own classes.*set dataset_spec"):
        open_dataset("with_its_own_spec", NUSCENES)
    other = replace(own, cameras=NUSCENES.cameras[:3])
    with pytest.raises(ValueError, match="registered with other values of .'spec'"):
        register_nuscenes("with_its_own_spec", root, handmade_tables.VERSION, spec=other)


def test_a_described_set_may_be_read_with_two_specs_in_one_process(tmp_path: Path) -> None:
    root = handmade_tables.write_tables(handmade_tables.make_tables(), tmp_path)
    described = {"root": str(root), "version": handmade_tables.VERSION}
    own = replace(NUSCENES, classes=NUSCENES.classes[:2])
    assert open_dataset(described).spec == NUSCENES
    assert open_dataset(described, own).spec == own
    assert dataset_name(described) != dataset_name(described, own)

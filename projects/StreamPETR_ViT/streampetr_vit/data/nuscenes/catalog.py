"""Data sets by name: detectron2's catalogs, splits, and sets named in a config.

The official names are registered when this module is imported, below the folder `nuscenes` of
detectron2's DETECTRON2_DATASETS. Registration reads nothing from disk.
"""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from detectron2.data import DatasetCatalog, MetadataCatalog

from streampetr_vit.data.nuscenes.build_records import load_records, version_folder
from streampetr_vit.data.nuscenes.records import FrameRecords
from streampetr_vit.data.nuscenes.spec import NUSCENES
from streampetr_vit.errors import InputError
from streampetr_vit.json_files import read_json
from streampetr_vit.logs import log_once
from streampetr_vit.structures import DatasetSpec
from streampetr_vit.texts import name_list, shown

_LOG = logging.getLogger(__name__)

# The devkit's rule: how a version's name ends -> its predefined splits.
_DEVKIT_SPLITS = {
    "trainval": ("train", "val", "train_detect", "train_track"),
    "mini": ("mini_train", "mini_val"),
    "test": ("test",),
}

_OFFICIAL = {
    "nuscenes_trainval_train": ("v1.0-trainval", "train"),
    "nuscenes_trainval_val": ("v1.0-trainval", "val"),
    "nuscenes_mini_train": ("v1.0-mini", "mini_train"),
    "nuscenes_mini_val": ("v1.0-mini", "mini_val"),
    "nuscenes_test": ("v1.0-test", "test"),
}


def default_root() -> Path:
    """`nuscenes` in the folder that DETECTRON2_DATASETS names (default: ./datasets)."""
    return Path(os.environ.get("DETECTRON2_DATASETS", "datasets")).expanduser() / "nuscenes"


def load_split(
    root: str | os.PathLike[str],
    version: str,
    split: str | Sequence[str] | None = None,
    cache_dir: str | os.PathLike[str] | None = None,
    spec: DatasetSpec = NUSCENES,
) -> FrameRecords:
    """Opens the records of a split.

    Args:
        root: data root.
        version: name of the version folder.
        split: one of the version's `splits.json`, a split of the devkit ("train", "val", "test",
            "mini_train", ...), a list of scene names, or None for all scenes.
        cache_dir, spec: see `build_records.load_records`.

    Raises:
        InputError: the split is unknown or has no scene in this data set.
    """
    folder = version_folder(Path(root).expanduser().resolve(), version)
    if split is None:
        return load_records(root, version, None, cache_dir, spec)
    if not isinstance(split, str):
        names = _named_once(split, f"the list of scenes of {folder}")
        return load_records(root, version, names, cache_dir, spec)
    own = _own_splits(folder)
    if split in own:  # before the devkit's: they may have the same names
        where = f"split {split!r} of {folder / 'splits.json'}"
        if any(split in names for names in _DEVKIT_SPLITS.values()):
            log_once(_LOG, logging.INFO, f"{where} is taken, not the devkit's of that name")
        return load_records(root, version, _named_once(own[split], where), cache_dir, spec)
    suffix = next((end for end, names in _DEVKIT_SPLITS.items() if split in names), None)
    if suffix is None or not version.endswith(suffix):
        official = next((n for end, n in _DEVKIT_SPLITS.items() if version.endswith(end)), ())
        of_devkit = f"of the devkit belongs to versions that end in {suffix!r}"
        reason = of_devkit if suffix else "is unknown"
        raise InputError(
            f"split {shown(split)} {reason}; splits for {folder}: {name_list([*official, *own])}. "
            f'Own splits go into {folder / "splits.json"} as {{"name": ["scene name", ...]}}'
        )
    # Imported here: it takes seconds, and only the devkit's splits need it.
    from nuscenes.utils.splits import create_splits_scenes

    names = create_splits_scenes()[split]
    records = load_records(root, version, cache_dir=cache_dir, spec=spec)
    have = set(records.scene_names)
    present = [name for name in names if name in have]  # a part of nuScenes will do
    if not present:
        raise InputError(
            f"{folder} has none of the {len(names)} scenes of split {split!r}; it has "
            f"{name_list(sorted(have), 5)}. Name scenes of it, or put own splits into "
            f"{folder / 'splits.json'}"
        )
    if len(present) < len(names):
        message = f"{folder} has {len(present)} of the {len(names)} scenes of split {split}"
        log_once(_LOG, logging.INFO, message)
    return records.select_scenes(present)


def _named_once(names: Sequence[str], where: str) -> list[str]:
    """The scenes of a split, each once.

    Raises:
        InputError: there is none, or an entry is no name.
    """
    wrong = [name for name in names if not isinstance(name, str)]
    if wrong:
        raise InputError(f"{where} has {shown(wrong[0])}, which is no name of a scene")
    once = list(dict.fromkeys(names))
    if not once:
        raise InputError(f"{where} is empty; name at least one scene, or leave split out for all")
    if len(once) < len(names):
        twice = len(names) - len(once)
        message = f"{where} names {twice} scenes more than once: each is taken once"
        log_once(_LOG, logging.WARNING, message)
    return once


def _own_splits(folder: Path) -> dict[str, list[str]]:
    path = folder / "splits.json"
    if not path.is_file():
        return {}
    splits = read_json(path)
    entries = splits.values() if isinstance(splits, dict) else [None]
    if not all(isinstance(names, list) for names in entries):
        raise InputError(
            f'{path} must be a JSON object {{"split name": ["scene name", ...]}}; it has '
            f"{shown(splits)}"
        )
    return splits


def register_nuscenes(
    name: str,
    root: str | os.PathLike[str],
    version: str,
    split: str | Sequence[str] | None = None,
    cache_dir: str | os.PathLike[str] | None = None,
    spec: DatasetSpec = NUSCENES,
) -> None:
    """Registers a data set in detectron2's catalogs; again with the same arguments is no error.

    `DatasetCatalog.get(name)` returns its `FrameRecords`, `MetadataCatalog.get(name)` the
    description below.

    Args:
        name: of the data set.
        root, version, split, cache_dir, spec: see `load_split`.

    Raises:
        InputError: the name is taken by another data set.
    """
    scenes = None if split is None or isinstance(split, str) else tuple(split)
    description = {
        "root": str(Path(root).expanduser().absolute()),
        "version": version,
        "split": split if scenes is None else None,  # as the devkit's evaluation names it
        "scenes": scenes,
        "cache_dir": None if cache_dir is None else str(Path(cache_dir).expanduser().absolute()),
        "spec": spec,
        "thing_classes": list(spec.class_names),
        "evaluator_type": "nuscenes",
    }
    if name in DatasetCatalog.list():
        known = MetadataCatalog.get(name).as_dict()
        different = [key for key, value in description.items() if known.get(key) != value]
        if different:
            raise InputError(
                f"data set {name!r} is registered with other values of {different}; "
                "choose another name (the key `name` of a description)"
            )
        return
    DatasetCatalog.register(name, lambda: open_dataset(name))
    MetadataCatalog.get(name).set(**description)


def open_dataset(dataset: str | Mapping[str, Any], spec: DatasetSpec | None = None) -> FrameRecords:
    """The records of a data set that a config names or describes.

    Args:
        dataset: see `dataset_name`.
        spec: how to read it; None as it was registered, which is nuScenes' way by default.

    Raises:
        InputError: the data set was registered with a spec of its own, and `spec` is another.
    """
    name = dataset_name(dataset, NUSCENES if spec is None else spec)
    known = MetadataCatalog.get(name)
    spec = known.spec if spec is None else spec
    if known.spec not in (NUSCENES, spec):
        raise InputError(
            f"data set {name!r} is registered with its own classes {known.thing_classes} and "
            f"cameras {list(known.spec.cameras)}, which are not those of dataset_spec: set "
            "dataset_spec to the registered ones"
        )
    split = known.split if known.scenes is None else known.scenes  # one of them, or neither
    return load_split(known.root, known.version, split, known.cache_dir, spec)


def dataset_name(dataset: str | Mapping[str, Any], spec: DatasetSpec = NUSCENES) -> str:
    """The catalog name of a data set that a config names or describes.

    Args:
        dataset: a registered name, or the keyword arguments of `register_nuscenes` but `spec`; then
            it is registered, by default under a name that is made of them.
        spec: of a described data set.

    Raises:
        InputError: the name or a keyword is unknown.
    """
    if isinstance(dataset, str):
        if dataset not in DatasetCatalog.list():
            known = sorted(n for n in DatasetCatalog.list() if n.startswith("nuscenes"))
            raise InputError(
                f"unknown data set {dataset!r}; registered: {known}. Or describe one: "
                'dict(root="...", version="v1.0-mini", split="mini_train")'
            )
        return dataset
    values = dict(dataset.items())  # of a config node: with its interpolations resolved
    allowed = {"name", "root", "version", "split", "cache_dir"}
    if not {"root", "version"} <= values.keys() <= allowed:
        raise InputError(
            "a data set description needs root and version and may have split, name and "
            f"cache_dir; it has {sorted(values)}"
        )
    _check_types(values)
    split = values.get("split")
    label = (
        split if isinstance(split, str) else "all" if split is None else "_".join(map(str, split))
    )
    default = f"{Path(values['root']).expanduser().absolute()}:{values['version']}:{label}"
    cache_dir = values.get("cache_dir")
    if spec != NUSCENES or cache_dir is not None:  # two descriptions never share a made name
        rest = f"{spec!r} {cache_dir}" if cache_dir is not None else repr(spec)
        default += f":{hashlib.sha256(rest.encode()).hexdigest()[:8]}"
    name = values.pop("name", None) or default
    register_nuscenes(name, **values, spec=spec)
    return name


def _check_types(described: Mapping[str, Any]) -> None:
    """Raises an InputError unless each value of a description can be what it stands for."""
    kinds: dict[str, tuple[type, ...]] = {
        "root": (str, os.PathLike),
        "version": (str,),
        "split": (str, Sequence, type(None)),
        "name": (str, type(None)),
        "cache_dir": (str, os.PathLike, type(None)),
    }
    for key, value in described.items():
        if not isinstance(value, kinds[key]):
            kind = "a name or a list of scene names" if key == "split" else "a text"
            raise InputError(f"a data set description has {key}={shown(value)}; it must be {kind}")


for _name, (_version, _split) in _OFFICIAL.items():
    register_nuscenes(_name, default_root(), _version, _split)

"""What the nuScenes devkit will ask for when it scores, looked for before anything runs.

It asserts or fails with a traceback, after hours of inference. Small tables are read here; of the
large ones, which the record cache was built from, it is enough that they are there.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Iterable
from pathlib import Path

from streampetr_vit.data.nuscenes.build_records import TABLES
from streampetr_vit.data.nuscenes.records import FrameRecords
from streampetr_vit.data.nuscenes.tables import Rows, TableError, TableFolder
from streampetr_vit.errors import InputError, MissingFileError
from streampetr_vit.evaluation.scoring import OFFICIAL_ATTRIBUTES, Scoring

_MORE_TABLES = ("attribute", "visibility", "log", "map")  # beside those of the record cache
# Read as a whole in a second; nuScenes' own, of 1.2 million records, is right and is larger.
_SMALL_BYTES = 64 * 2**20
_WAY_OUT = "or train without evaluation: dataloader.evaluator=null"


def check_devkit(records: FrameRecords, scoring: Scoring) -> None:
    """Looks for what the devkit needs to score a data set.

    Raises:
        MissingFileError: a table, a map or a folder that it opens is not there.
        TableError: a table holds what it does not take.
        InputError: it cannot be imported.
    """
    _check_import()
    folder = TableFolder(records.root / records.version)
    for table in (*_MORE_TABLES, *TABLES):
        if not folder.path(table).is_file():
            raise MissingFileError(
                f"table {folder.path(table)} is missing: the official metric needs it. Extract the "
                f"whole metadata archive, or write the table (docs/data.md); {_WAY_OUT}"
            )
    small = {table: folder.rows(table) for table in _MORE_TABLES}
    for rows in small.values():
        rows.index()
    _check_maps(records.root, small["map"], small["log"])
    _check_point_labels(records.root, folder)
    if folder.path("sample_annotation").stat().st_size <= _SMALL_BYTES:
        _check_annotations(folder, small["attribute"], scoring)


def _check_import() -> None:
    os.environ.setdefault("MPLBACKEND", "Agg")  # the devkit imports pyplot
    try:
        importlib.import_module("nuscenes.eval.detection.evaluate")
    except ImportError as error:
        raise InputError(
            f"the official metric needs the nuScenes devkit, which cannot be imported ({error}): "
            f"pip install nuscenes-devkit, {_WAY_OUT}"
        ) from error


def _check_maps(root: Path, maps: Rows, logs: Rows) -> None:
    """The devkit opens the picture of every map, used or not, and finds the map of every log."""
    if not maps:
        raise TableError(f"{maps.path} is empty: the official metric needs a map for each log")
    for name in maps.column("filename"):
        if not (root / str(name)).is_file():
            raise MissingFileError(
                f"map {root / str(name)} is missing, which {maps.path} names: the official metric "
                f"opens it. Extract the folder maps of the metadata archive into {root}; {_WAY_OUT}"
            )
    covered = {token for tokens in maps.column("log_tokens") for token in tokens}
    for token in logs.column("token"):
        if token not in covered:
            raise TableError(
                f"{maps.path}: no map has the log {token!r} of {logs.path} in its log_tokens; the "
                f"official metric needs one, {_WAY_OUT}"
            )


def _check_point_labels(root: Path, folder: TableFolder) -> None:
    """Where tables of point labels are, the devkit wants their files and indexes too."""
    for table in ("lidarseg", "panoptic"):
        if not folder.path(table).is_file():
            continue
        files = root / table / folder.folder.name
        fix = f"extract the {table} archive whole, or move {folder.path(table)} away; {_WAY_OUT}"
        if not files.is_dir():
            raise MissingFileError(f"folder {files} is missing, of table {table}: {fix}")
        found = sum(name.endswith((".bin", ".npz")) for name in os.listdir(files))
        rows = len(folder.rows(table))
        if found != rows:
            raise TableError(f"{files} has {found} label files, its table {rows} records: {fix}")
        if any("index" not in row for row in folder.rows("category")):
            raise TableError(
                f"{folder.path('category')} has records without index, and there is a table "
                f"{table}: take the category.json of its archive; {_WAY_OUT}"
            )


def _check_annotations(folder: TableFolder, attributes: Rows, scoring: Scoring) -> None:
    names = dict(zip(attributes.column("token"), attributes.column("name"), strict=True))
    boxes = folder.rows("sample_annotation")
    path = folder.path("sample_annotation")
    for row, tokens in zip(boxes, boxes.column("attribute_tokens"), strict=True):
        unknown = [token for token in tokens if token not in names]
        if unknown:
            raise TableError(
                f"{path}: attribute_tokens of record {row.get('token')!r} has {unknown[0]!r}, "
                f"which is not in {attributes.path}; the tables do not belong together"
            )
        # Of own classes and attributes, `devkit_metrics` makes what the devkit takes.
        if scoring.is_official:
            _check_official(path, row.get("token"), [names[token] for token in tokens])
    for field in ("num_lidar_pts", "num_radar_pts"):
        for row, count in zip(boxes, boxes.column(field), strict=True):
            if type(count) is not int:
                raise TableError(
                    f"{path}: {field} of record {row.get('token')!r} is {count!r}; the official "
                    "metric takes whole numbers"
                )


def _check_official(path: Path, token: object, attributes: Iterable[str]) -> None:
    named = list(attributes)
    if len(named) > 1:
        raise TableError(
            f"{path}: record {token!r} has {len(named)} attributes ({', '.join(named)}); the "
            "official metric takes one at most"
        )
    unknown = [name for name in named if name not in OFFICIAL_ATTRIBUTES]
    if unknown:
        raise TableError(
            f"{path}: record {token!r} has the attribute {unknown[0]!r}, which the official metric "
            f"does not know; it has {', '.join(sorted(OFFICIAL_ATTRIBUTES))}"
        )

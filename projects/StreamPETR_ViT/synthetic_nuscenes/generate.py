"""Makes a whole data set: scenes in parallel, resumable, never half finished under a final name."""

from __future__ import annotations

import json
import multiprocessing
import os
import shutil
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path
from typing import Any

import cv2

from synthetic_nuscenes import tables
from synthetic_nuscenes.categories import CATEGORY_NAMES
from synthetic_nuscenes.config import GENERATOR_VERSION, NUSCENES_FIELDS, SyntheticConfig
from synthetic_nuscenes.errors import FolderTakenError
from synthetic_nuscenes.files import write_json
from synthetic_nuscenes.progress import Progress
from synthetic_nuscenes.render import render_scene

DONE_MARKER = "synthetic.json"
STARTED_MARKER = "synthetic.started.json"
PARTS_FOLDER = "parts"


def _identity(config: SyntheticConfig) -> dict[str, Any]:
    identity = {"generator_version": GENERATOR_VERSION, "config": config.to_dict()}
    return {**identity, "version": config.version}  # for readers that do not know the config


def _flat(identity: dict[str, Any]) -> dict[str, Any]:
    version = {"generator_version": identity.get("generator_version")}
    return {**version, **NUSCENES_FIELDS, **identity.get("config", {})}


def _difference(marker: Path, config: SyntheticConfig) -> str:
    """What distinguishes the data set of a marker from the one asked for; "" if nothing."""
    found, wanted = _flat(json.loads(marker.read_text())), _flat(_identity(config))
    names = [n for n in {**wanted, **found} if found.get(n) != wanted.get(n)]
    return ", ".join(f"{n} is {found.get(n)}, asked for {wanted.get(n)}" for n in names)


def _clear(out: Path) -> None:
    """Removes a data set of ours, and nothing else."""
    # First, so that an interrupted removal never looks finished.
    if (out / DONE_MARKER).is_file():
        os.replace(out / DONE_MARKER, out / STARTED_MARKER)
    own_version = _flat(json.loads((out / STARTED_MARKER).read_text()))["own_version"]
    ours = (PARTS_FOLDER, "samples", "maps", "v1.0-mini", "v1.0-trainval", own_version)
    # Names of what is there, not paths from a file: nothing outside `out` can be meant.
    for folder in out.iterdir():
        if folder.name in ours:
            shutil.rmtree(folder, ignore_errors=True)
    (out / STARTED_MARKER).unlink(missing_ok=True)


def _is_finished(config: SyntheticConfig, out: Path, overwrite: bool) -> bool:
    """Decides what to do with a folder; leaves it ready to be filled unless it is finished."""
    done, started = out / DONE_MARKER, out / STARTED_MARKER
    # A marker of either kind says that the folder is ours.
    ours = [marker for marker in (done, started) if marker.is_file()]
    if out.exists() and not out.is_dir():
        raise FolderTakenError(f"{out} is a file; choose another --out")
    if out.exists() and not ours and any(out.iterdir()):
        raise FolderTakenError(
            f"{out} is not empty and was not made by this generator; choose another --out"
        )
    difference = _difference(ours[0], config) if ours else ""
    if difference and not overwrite:
        raise FolderTakenError(
            f"{out} holds a synthetic data set of another configuration: {difference}. "
            "Choose another --out, or replace it with --overwrite."
        )
    if difference:
        _clear(out)
    return done.is_file()


def _make_folders(out: Path, channels: Sequence[str]) -> None:
    for channel in channels:
        (out / "samples" / channel).mkdir(parents=True, exist_ok=True)
    (out / "maps").mkdir(exist_ok=True)
    (out / PARTS_FOLDER).mkdir(exist_ok=True)


def _usable_cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))  # may be fewer than the machine has
    return os.cpu_count() or 1


def _make_scene(config: SyntheticConfig, name: str, index: int, out: Path) -> str:
    """Work of one process: a scene's files, and then its rows as the sign of completion."""
    rows = render_scene(config, name, index, out)
    write_json(out / PARTS_FOLDER / f"{name}.json", rows)
    return name


def _make_scenes(
    config: SyntheticConfig, jobs: list[tuple[str, int]], out: Path, workers: int
) -> None:
    with Progress(len(jobs)) as bar:
        if workers <= 1 or len(jobs) <= 1:
            for name, index in jobs:
                _make_scene(config, name, index, out)
                bar.update()
            return
        # "spawn": a fork of a process that runs OpenCV's threads can hang.
        context = multiprocessing.get_context("spawn")
        # One OpenCV thread per process: the processes fill the cores already.
        with ProcessPoolExecutor(
            min(workers, len(jobs)), context, initializer=cv2.setNumThreads, initargs=(1,)
        ) as pool:
            waiting = [pool.submit(_make_scene, config, *job, out) for job in jobs]
            try:
                for future in as_completed(waiting):
                    future.result()
                    bar.update()
            except BaseException:  # Ctrl-C too: do not wait for scenes that have not started
                pool.shutdown(cancel_futures=True)
                raise


def _merge(config: SyntheticConfig, out: Path, names: list[str]) -> dict[str, list[tables.Row]]:
    categories = map(config.category_name, CATEGORY_NAMES)
    merged = tables.static_tables(config.channels, categories)
    for name in names:
        for table, rows in json.loads((out / PARTS_FOLDER / f"{name}.json").read_text()).items():
            merged.setdefault(table, []).extend(rows)
    return merged


def generate(
    config: SyntheticConfig, out: Path, workers: int | None = None, overwrite: bool = False
) -> Path:
    """Makes a synthetic data set in nuScenes format.

    A finished folder with the same config is left as it is. An interrupted one is continued: the
    scenes that are complete are kept. The files do not depend on the number of workers.

    Args:
        config: what to make.
        out: data root, made if absent.
        workers: processes; None takes one per usable CPU core. A script that asks for more than one
            needs `if __name__ == "__main__":`.
        overwrite: replace a synthetic data set of another config.

    Returns:
        `out`.

    Raises:
        FolderTakenError: it is a file, or a folder that holds something else, or another config
            without `overwrite`.
    """
    out = Path(out)
    if _is_finished(config, out, overwrite):
        return out
    out.mkdir(parents=True, exist_ok=True)
    write_json(out / STARTED_MARKER, _identity(config))
    _make_folders(out, config.channels)
    names = [name for split in config.scene_names() for name in split]
    # A scene's rows are its last file: with them it is complete.
    jobs = [
        (name, index)
        for index, name in enumerate(names)
        if not (out / PARTS_FOLDER / f"{name}.json").is_file()
    ]
    _make_scenes(config, jobs, out, workers or _usable_cores())
    folder = out / config.version
    tables.write_tables(folder, _merge(config, out, names))
    write_json(folder / "splits.json", config.splits())
    # Last of all that is written: with it the set is finished, whatever is interrupted below.
    write_json(out / DONE_MARKER, _identity(config))
    shutil.rmtree(out / PARTS_FOLDER)
    (out / STARTED_MARKER).unlink()
    return out

"""What a drive that is played leaves behind, so that a killed process can be made up for."""

from __future__ import annotations

import dataclasses
import fcntl
import glob
import json
import logging
import os
import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

from streampetr_vit.errors import InputError, UserError
from streampetr_vit.files import cannot_write, replacing
from streampetr_vit.inference.playing.scene_progress import ANEW, SceneProgress, progress_of
from streampetr_vit.inference.sinks.base import Scene, Sink
from streampetr_vit.json_files import read_json
from streampetr_vit.texts import file_name, name_list, shown

logger = logging.getLogger(__name__)

_TEMPORARY = re.compile(r"\.[0-9a-f]{12}\.tmp(\.\w+)?$")  # the names of `files.replacing`


class HasState(Protocol):
    """Such as a `Predictor`."""

    def load_state(self, path: Path) -> None:
        """Goes on from there."""


class PlayRecord:
    """The files beside the results: settings, and for each scene its progress and its state.

    Args:
        out: folder of the results.
    """

    def __init__(self, out: Path) -> None:
        self.out, self.parts = out, out / "parts"
        self._settings_file = out / "predict.json"

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Keeps others from playing into the same folder during the block.

        Raises:
            InputError: another program does so already.
            OutputError: the folder cannot be made.
        """
        try:
            self.out.mkdir(parents=True, exist_ok=True)
            folder = os.open(self.out, os.O_RDONLY)
        except OSError as error:
            raise cannot_write(self.out, error) from error
        try:
            _lock(folder, self.out)
            yield
        finally:
            os.close(folder)  # which ends the lock, as the end of a killed process does

    def begin(
        self, settings: Mapping[str, Any], sinks: Sequence[Sink], overwrite: bool = False
    ) -> SceneProgress | None:
        """Writes the settings, or compares them with those of an earlier start.

        Args:
            settings: plain values that decide what the results are.
            sinks: whose files are expected.
            overwrite: removes what an earlier start has written, and nothing else.

        Returns:
            The counts, if an earlier start has finished everything; else None.

        Raises:
            InputError: the folder has results of other settings, or of another program.
        """
        settings = json.loads(json.dumps(settings))  # as they are read again
        files = [path for sink in sinks for path in sink.outputs()]
        if overwrite and self._settings_file.exists():
            self._remove_earlier()
        if not self._settings_file.exists():
            found = [path.name for path in (self.parts, *files) if path.exists()]
            if found:
                raise InputError(
                    f"{self.out} has {name_list(found)}, and nothing says that this tool has "
                    "written it: choose another --out, or remove it"
                )
            self._write({"settings": settings, "files": [path.name for path in files]})
            return None
        values = self._values()
        old = values.get("settings")
        if not isinstance(old, dict):
            raise InputError(f"{self._settings_file} is none that this tool has written: {ANEW}")
        for key in {**settings, **old}:
            if settings.get(key) != old.get(key):
                raise InputError(
                    f"{self.out} was begun with {key} {shown(old.get(key))}, and now it is "
                    f"{shown(settings.get(key))}: {ANEW}"
                )
        if "counts" not in values:
            return None
        shutil.rmtree(self.parts, ignore_errors=True)  # where a process was killed in `end`
        return progress_of(values["counts"])

    def end(self, counts: SceneProgress) -> None:
        """Notes that all files are there, and removes what only a restart would need."""
        self._write({**self._values(), "counts": dataclasses.asdict(counts)})
        shutil.rmtree(self.parts, ignore_errors=True)

    def progress(self, scene: Scene) -> SceneProgress:
        """How far a scene is played."""
        path = self._progress_file(scene)
        return progress_of(read_json(path)) if path.is_file() else SceneProgress()

    def state_file(self, scene: Scene, frames: int) -> Path:
        """The file of the predictor's state after so many frames of a scene."""
        # The number is in its name: the progress is written later, and names this file by it.
        return self.parts / f"{scene.label}.{frames}.safetensors"

    def load_state(self, reader: HasState, scene: Scene, frames: int) -> None:
        """Lets a predictor go on behind so many frames of a scene.

        Raises:
            InputError: the file is missing, or is none of this predictor.
        """
        try:
            reader.load_state(self.state_file(scene, frames))
        except UserError as error:
            raise InputError(f"scene {shown(scene.name)} cannot go on: {error}; {ANEW}") from error

    def save(self, scene: Scene, progress: SceneProgress) -> None:
        """Writes how far a scene is played; the state of the predictor must be there already."""
        path = self._progress_file(scene)
        with replacing(path) as temporary:
            temporary.write_text(json.dumps(dataclasses.asdict(progress)), encoding="utf-8")
        kept = None if progress.complete else self.state_file(scene, progress.frames)
        for file in self.parts.iterdir():
            is_state = file.name.startswith(f"{scene.label}.") and file.suffix == ".safetensors"
            if is_state and file != kept:
                file.unlink(missing_ok=True)

    def _progress_file(self, scene: Scene) -> Path:
        return self.parts / f"{scene.label}.progress.json"

    def _remove_earlier(self) -> None:
        files = self._values().get("files")
        # Someone else may have written the file: nothing but what is in this folder.
        names = [name for name in files if _is_file_name(name)] if isinstance(files, list) else []
        # First, so that a kill in between leaves nothing that looks complete.
        self._write({"files": names})
        for path in (self.parts, *(self.out / name for name in names)):
            _remove(path)
        self._settings_file.unlink()

    def remove_temporary(self, sinks: Sequence[Sink]) -> None:
        """Removes what a killed process has not finished; only while no other process writes."""
        finals = [self._settings_file, *(path for sink in sinks for path in sink.outputs())]
        for path in finals:
            beside = path.parent.glob(f"{glob.escape(path.name)}.*") if path.parent.is_dir() else ()
            for file in [*beside, *(path.rglob("*") if path.is_dir() else ())]:
                if _TEMPORARY.search(file.name):
                    file.unlink(missing_ok=True)

    def _values(self) -> dict[str, Any]:
        """What was written; nothing where someone else has changed it beyond recognition."""
        try:
            values = read_json(self._settings_file)
        except UserError:
            return {}
        return values if isinstance(values, dict) else {}

    def _write(self, values: Mapping[str, Any]) -> None:
        with replacing(self._settings_file) as temporary:
            temporary.write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")


def _is_file_name(name: Any) -> bool:
    return isinstance(name, str) and bool(name) and name == file_name(name)


def _remove(path: Path) -> None:
    try:
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
    except OSError as error:
        raise cannot_write(path, error) from error


def _lock(folder: int, path: Path) -> None:
    try:
        fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise InputError(
            f"another program is playing into {path}: wait for its end, or choose another --out"
        ) from None
    except OSError as error:  # a file system without locks
        logger.info("%s cannot be locked: %s", path, error.strerror)

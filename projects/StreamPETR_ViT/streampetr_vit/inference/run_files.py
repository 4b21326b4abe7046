"""Which files make a detector: the configuration and the weights of a run's folder, or others."""

from __future__ import annotations

import os
from pathlib import Path

from streampetr_vit.checkpoint.manifest import ON_PURPOSE, damage, in_order, read_manifest
from streampetr_vit.errors import CheckpointError, InputError, MissingFileError
from streampetr_vit.export.interface import HEAD
from streampetr_vit.texts import name_list, nearest, shown

CONFIG, LAST = "config.yaml", "last_checkpoint"
_ENDINGS = (".pth", ".pt", ".safetensors")

StrPath = str | os.PathLike[str]


def config_of_run(run: StrPath) -> Path:
    """The configuration of a run's folder.

    Raises:
        MissingFileError, InputError: it is no folder of a run.
    """
    folder = Path(run).expanduser()
    if folder.is_file():
        raise InputError(
            f"run={_as_given(run)} is a file: give the folder of a training (its "
            "train.output_dir), or a configuration as config and a checkpoint as weights"
        )
    if not folder.is_dir():
        raise MissingFileError(
            f"run={_as_given(run)} does not exist: give the folder of a training (its "
            f"train.output_dir){_folders_like(folder)}"
        )
    path = folder / CONFIG
    if path.is_file():
        return path
    if checkpoints := _checkpoints(folder):
        raise MissingFileError(
            f"{folder} has no {CONFIG}, which says what model {checkpoints[-1]} is of: give the "
            "recipe of its training as config and the file as weights, without run"
        )
    runs = [sub.parent.name for sub in sorted(folder.glob(f"*/{CONFIG}"))]
    inside = f"; runs in it: {name_list(runs, 5)}" if runs else ""
    raise InputError(
        f"{folder} is no folder of a training: it has no {CONFIG} and no checkpoint{inside}. Give "
        "a training's train.output_dir"
    )


def weights_of_run(run: StrPath) -> Path:
    """The last checkpoint of a run's folder.

    Raises:
        CheckpointError: there is none, or what names it names nothing.
    """
    folder = Path(run).expanduser()
    others = _others(folder)
    if (folder / LAST).is_file():
        name = (folder / LAST).read_text(errors="replace").strip()
        path = os.path.join(folder, name)
        # The name stands in a file, which may be a stranger's: no folders.
        if name != os.path.basename(name) or not os.path.isfile(path):
            raise CheckpointError(
                f"{folder / LAST} names {shown(name)}, which is not in {folder}; {others}"
            )
        return Path(path)
    # A run that was killed when its first checkpoint was complete has a manifest already.
    if read_manifest(folder) and (listed := in_order(folder)):
        return listed[-1]
    if (folder / HEAD).is_file():
        raise CheckpointError(
            f"{folder} holds exported graphs, and no training: give it as onnx (--onnx), or give "
            "the run that was exported"
        )
    raise CheckpointError(f"{folder} has no {LAST}, which names its newest checkpoint; {others}")


def chosen_weights(weights: StrPath, run: StrPath | None = None) -> Path:
    """The file that a user names.

    Args:
        weights: a path; or a name alone, which is looked for in the run's folder first.
        run: folder of a run.

    Raises:
        MissingFileError, InputError: there is no such file.
    """
    path = Path(weights).expanduser()
    folder = path.parent
    if run is not None and path.name == str(path):
        folder = Path(run).expanduser()
        path = folder / path.name if os.path.isfile(folder / path.name) else path
    if path.is_dir():
        raise InputError(f"weights={_as_given(weights)} is a folder: {_others(path)}")
    if not os.path.isfile(path):
        raise MissingFileError(f"weights={_as_given(weights)} does not exist; {_others(folder)}")
    return path


def check_whole(path: Path) -> None:
    """Raises CheckpointError if a file is not as the manifest beside it says."""
    reason = damage(path)
    if reason is not None:  # torch reads altered numbers without an error
        others = _others(path.parent, but=path.name)
        raise CheckpointError(f"{path} is damaged: {reason}; {others}. {ON_PURPOSE}")


def _as_given(path: StrPath) -> str:
    return shown(str(path), limit=300)  # a path tells most at its end


def _others(folder: Path, but: str = "") -> str:
    """What to do instead: name one of the checkpoints of a folder."""
    names = [name for name in _checkpoints(folder) if name != but]
    there = name_list(names[-5:]) if names else "there is none"
    return f"name a checkpoint as weights ({there} in {folder})"


def _checkpoints(folder: Path) -> list[str]:
    """Names of the files of a folder that may hold weights."""
    if not folder.is_dir():
        return []
    return sorted(p.name for p in folder.iterdir() if p.suffix in _ENDINGS and p.is_file())


def _folders_like(folder: Path) -> str:
    beside = [p.name for p in folder.parent.iterdir()] if folder.parent.is_dir() else []
    near = nearest(folder.name, beside)
    return f"; in {folder.parent} there is {name_list(near)}" if near else ""

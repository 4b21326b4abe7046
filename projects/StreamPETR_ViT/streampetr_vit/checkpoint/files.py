"""Reading checkpoint files without executing them, and writing them.

A .pth file is a pickle: a program that says which functions to call. torch's restricted reader
calls a few known ones only, and refuses a file that asks for anything else.
"""

from __future__ import annotations

import hashlib
import json
import os
import pickle
import re
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from streampetr_vit.checkpoint.given_file import ENDINGS, check_given_file
from streampetr_vit.errors import CheckpointError, InputError, OutputError
from streampetr_vit.files import replacing

# detectron2's mark of a checkpoint whose names need no translation.
AUTHOR = "streampetr_vit"
# The entry that holds what `checkpoint.settings` knows of a detector.
SETTINGS = "settings"


class StandIn:
    """Takes the place of an object that is not a tensor; keeps nothing of it."""

    def __init__(self, *_: Any) -> None: ...

    def __setstate__(self, state: Any) -> None: ...


def _empty_dict(*_: Any) -> dict[Any, Any]:
    return {}


# What old training checkpoints store beside tensors. torch fills dict and OrderedDict only: objects
# that are mappings become these and keep their entries, all other objects become empty.
_OBJECTS = """
argparse.Namespace pathlib.PosixPath
numpy.dtype numpy.ndarray
numpy.core.multiarray.scalar numpy.core.multiarray._reconstruct
numpy._core.multiarray.scalar numpy._core.multiarray._reconstruct
mmcv.utils.config.Config mmengine.config.config.Config
mmengine.logging.history_buffer.HistoryBuffer
detectron2.solver.lr_scheduler.WarmupParamScheduler
fvcore.common.param_scheduler.CompositeParamScheduler
fvcore.common.param_scheduler.ConstantParamScheduler
fvcore.common.param_scheduler.CosineParamScheduler
fvcore.common.param_scheduler.LinearParamScheduler
fvcore.common.param_scheduler.MultiStepParamScheduler
"""
_MAPPINGS = """
addict.addict.Dict omegaconf.dictconfig.DictConfig
mmcv.utils.config.ConfigDict mmengine.config.config.ConfigDict
"""
_ALLOWED: list[Any] = [
    *((StandIn, name) for name in _OBJECTS.split()),
    *((OrderedDict, name) for name in _MAPPINGS.split()),
    (_empty_dict, "collections.defaultdict"),
    (dict, "builtins.dict"),
]


def read_checkpoint(
    path: str | os.PathLike[str], *, lazily: bool = False, advice: str = "correct the path"
) -> dict[str, Any]:
    """Reads a checkpoint file into memory on the CPU; nothing in it is executed.

    Args:
        path: a file of `torch.save`, or a .safetensors file ({"model": ..., "settings": ...}).
        lazily: where the file allows it, tensors are views of the file, read from the disk when
            they are used. The file must not be overwritten meanwhile.
        advice: what to do where there is no such file.

    Raises:
        CheckpointError: missing, unreadable or refused file, or one that does not hold a dict.
    """
    path = os.fspath(path)
    check_given_file(path, advice)
    try:
        is_safetensors = path.endswith(".safetensors")
        content = _read_safetensors(path) if is_safetensors else _read_torch(path, lazily)
    except pickle.UnpicklingError as error:
        raise CheckpointError(f"{path} {_refusal(path, str(error))}") from error
    except Exception as error:  # torch and safetensors raise many types for damaged files
        first_line = (str(error).splitlines() or [""])[0][:200]
        raise CheckpointError(
            f"{path} ({os.path.getsize(path)} bytes) cannot be read: it is damaged, incomplete or "
            f"not a checkpoint; copy or download it again. ({type(error).__name__}: {first_line})"
        ) from error
    if not isinstance(content, dict):
        raise CheckpointError(f"{path} holds a {type(content).__name__}, not a dict of tensors")
    return content


def _read_torch(path: str, lazily: bool) -> Any:
    mapped = lazily and _can_be_mapped(path)
    # torch's list of safe names is global, so ours is on it for this one call only.
    with torch.serialization.safe_globals(_ALLOWED):
        return torch.load(path, map_location="cpu", weights_only=True, mmap=mapped)


def _can_be_mapped(path: str) -> bool:
    """Whether the bytes of tensors lie in the file as they are: a zip file, not compressed."""
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return all(entry.compress_type == zipfile.ZIP_STORED for entry in archive.infolist())


def _read_safetensors(path: str) -> dict[str, Any]:
    with safe_open(path, framework="pt") as file:
        names = list(file.keys())
        content: dict[str, Any] = {"model": {name: file.get_tensor(name) for name in names}}
        metadata = file.metadata() or {}
    if SETTINGS in metadata:
        content[SETTINGS] = json.loads(metadata[SETTINGS])
    return content


def _refusal(path: str, message: str) -> str:
    """What to say of a pickle that torch's restricted reader stopped at."""
    with open(path, "rb") as file:
        is_pickle = file.read(1) == pickle.PROTO or zipfile.is_zipfile(path)
    found = re.search(r"GLOBAL ([\w.]+)", message)
    if found is not None:
        what = f"asks for {found[1]}, which is not among the objects that a checkpoint may hold"
    elif is_pickle:  # torch's own message would advise to run it
        what = "is a pickle of an unsupported kind, holding more than tensors and plain values"
    else:
        return "is not a checkpoint: neither torch's format nor, by its name, safetensors"
    return (
        f"{what}; it was not read, and nothing in it was run. If you know where the file comes "
        "from, save its tensors alone there: torch.save({'model': state_dict}, FILE)"
    )


def write_checkpoint(
    path: str | os.PathLike[str], tensors: Mapping[str, Tensor], settings: Mapping[str, Any]
) -> None:
    """Writes a checkpoint that detectron2's checkpointer reads, or a .safetensors file.

    The tensors may be views of the file that is replaced. What cannot be written is an OutputError.
    """
    if not os.fspath(path).endswith(".safetensors"):
        content = {"model": dict(tensors), "__author__": AUTHOR, SETTINGS: dict(settings)}
        write_torch(path, content)
        return
    with _writing(path) as temporary:
        # safetensors stores a tensor as one piece of memory, in its order.
        contiguous = {name: value.contiguous() for name, value in tensors.items()}
        metadata = {"__author__": AUTHOR, SETTINGS: json.dumps(dict(settings))}
        save_file(contiguous, temporary, metadata)


def write_mmcv_checkpoint(path: str | os.PathLike[str], tensors: Mapping[str, Tensor]) -> None:
    """Writes a .pth file in the layout of mmcv, for the reference; raises as `write_checkpoint`."""
    if os.fspath(path).endswith(".safetensors"):
        raise InputError(f"output {os.fspath(path)!r}: the reference reads .pth files only")
    write_torch(path, {"meta": {"author": AUTHOR}, "state_dict": OrderedDict(tensors)})


def write_torch(
    path: str | os.PathLike[str],
    content: Mapping[str, Any],
    before_replacing: Callable[[str], None] = lambda digest: None,
) -> str:
    """Writes a file of `torch.save`, whole or not at all; raises as `write_checkpoint`.

    Args:
        path: of the file.
        content: what it will hold.
        before_replacing: called with the digest when everything is written, and an old file still
            is at `path`.

    Returns:
        The file's SHA-256, in hexadecimal.
    """
    with _writing(path) as temporary, temporary.open("wb") as file:
        watched = _WatchedFile(file)
        try:
            torch.save(content, watched)  # type: ignore[arg-type]
        except RuntimeError as error:
            raise watched.error or error from error
        before_replacing(watched.digest.hexdigest())
    return watched.digest.hexdigest()


class _WatchedFile:
    """A binary file that keeps the error of a failed write, and the digest of what was written."""

    # On a full disk torch raises an error of its own in place of the file's, about a position that
    # it did not expect.

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.error: OSError | None = None
        self.digest = hashlib.sha256()

    def write(self, data: Any) -> int:
        try:
            count = self._file.write(data)
        except OSError as error:
            self.error = error
            raise
        self.digest.update(data)  # torch writes from the first to the last byte, and never back
        return count

    def flush(self) -> None:
        self._file.flush()


def check_output(path: str | os.PathLike[str]) -> None:
    """Raises InputError unless a checkpoint can have this name."""
    if not os.fspath(path).endswith(ENDINGS):
        raise InputError(f"output {os.fspath(path)!r} must end with .pth, .pt or .safetensors")


@contextmanager
def _writing(path: str | os.PathLike[str]) -> Iterator[Path]:
    check_output(path)
    with replacing(path) as temporary:
        try:
            yield temporary
        except SafetensorError as error:
            raise OutputError(
                f"cannot write {os.fspath(path)!r}: {error}; check the folder and the free space"
            ) from error

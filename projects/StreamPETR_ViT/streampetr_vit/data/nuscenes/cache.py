"""One safe file for many arrays: written whole or not at all, read by memory mapping.

The file has the safetensors layout (a length, a JSON header, the raw arrays), so that nothing in it
is executed on reading and other tools can open it. Reading maps it: an array costs memory only
where it is touched, and processes that open the same file share those pages.
"""

from __future__ import annotations

import hashlib
import json
import mmap
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import save_file

from streampetr_vit.errors import OutputError
from streampetr_vit.files import replacing

# Raise when the columns or their meaning change: older caches are then built again.
FORMAT_VERSION = 4  # 4: what the tables were checked for, and the key in the metadata

# Files up to this size enter the fingerprint by content, larger ones by size and time of change.
_HASHED_BYTES = 4 * 2**20
# What a header of the wrong form runs into.
_UNREADABLE = (ValueError, KeyError, TypeError, AttributeError, RecursionError, OverflowError)
_DTYPES = {"F64": "<f8", "F32": "<f4", "I64": "<i8", "I32": "<i4", "U8": "|u1", "BOOL": "|b1"}


class CacheError(ValueError):
    """A cache file cannot be used; it is built again."""


def fingerprint(files: Sequence[Path], settings: str = "") -> str:
    """16 hex digits that change with one of the files, the settings or the cache format."""
    digest = hashlib.sha256(f"format {FORMAT_VERSION} {settings}".encode())
    for path in files:
        status = path.stat()
        digest.update(f"\n{path.name} {status.st_size} ".encode())
        small = status.st_size <= _HASHED_BYTES
        digest.update(path.read_bytes() if small else str(status.st_mtime_ns).encode())
    return digest.hexdigest()[:16]


def write_arrays(path: Path, arrays: dict[str, np.ndarray], metadata: dict[str, str]) -> None:
    """Writes arrays into one file, whole or not at all.

    Args:
        path: the file; its folder is created.
        arrays: numeric arrays, or fixed-width byte strings (dtype S).
        metadata: short texts; the format version is added.
    """
    plain = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
    for name, array in plain.items():
        if array.dtype.kind == "S":  # safetensors has no strings: uint8 with one more axis
            plain[name] = array.view(np.uint8).reshape(*array.shape, array.itemsize)
    with replacing(path) as temporary:
        try:
            save_file(plain, temporary, {**metadata, "format_version": str(FORMAT_VERSION)})
        except SafetensorError as error:  # its form of an OSError
            raise OutputError(
                f"cannot write {str(path)!r}: {error}; free some space there, or name another "
                "folder as the data set's cache_dir"
            ) from error


def map_arrays(path: Path) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """Opens a cache file without reading its arrays.

    Returns:
        The arrays by name, read-only views of the mapped file, and the metadata.

    Raises:
        CacheError: the file is truncated, no cache file, or of another format version.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        header_bytes = int.from_bytes(file.read(8), "little")
        if size < 8 or header_bytes > size - 8:
            raise CacheError(f"{path} is truncated or no cache file ({size} bytes)")
        try:
            header = json.loads(file.read(header_bytes))
            metadata = header.pop("__metadata__")
            data_bytes = max(entry["data_offsets"][1] for entry in header.values())
        except _UNREADABLE as error:
            raise CacheError(f"{path} has no readable header ({error})") from error
        found = metadata.get("format_version")
        if found != str(FORMAT_VERSION):
            raise CacheError(
                f"{path} has format version {found}, this program needs {FORMAT_VERSION}"
            )
        start = 8 + header_bytes
        if size != start + data_bytes:
            raise CacheError(f"{path} has {size} bytes instead of {start + data_bytes}")
        mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    arrays = {}
    try:
        for name, entry in header.items():
            begin, end = entry["data_offsets"]
            dtype = np.dtype(_DTYPES[entry["dtype"]])
            count = (end - begin) // dtype.itemsize
            array = np.frombuffer(mapped, dtype, count, start + begin)
            arrays[name] = array.reshape(entry["shape"])
    except _UNREADABLE as error:
        raise CacheError(f"{path} does not hold what its header says ({error})") from error
    return arrays, metadata


def as_strings(array: np.ndarray) -> np.ndarray:
    """Views stored uint8 (..., width) as fixed-width byte strings (...)."""
    return array.view(f"S{array.shape[-1]}")[..., 0]

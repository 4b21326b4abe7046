"""Reads nuScenes JSON tables piece by piece, and turns their fields into arrays.

The large tables of the full data set hold 2.6 million records. Parsed at once, one of them needs
several gigabytes of Python objects; here a piece of the file is parsed, its wanted columns are
taken out, and the objects are gone before the next piece.
"""

from __future__ import annotations

import gc
import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np

from streampetr_vit.errors import MissingFileError, UserError

Row = dict[str, Any]

PIECE_BYTES = 16 * 2**20


class TableError(UserError, ValueError):
    """A nuScenes table holds something that the data set format does not allow."""


class TableFolder:
    """The tables of one version of a data set, `<root>/<version>/*.json`.

    Args:
        folder: the version's folder.
        progress: called with (table file name, bytes read so far, bytes of the file).
    """

    def __init__(self, folder: Path, progress: Callable[[str, int, int], None] | None = None):
        self.folder = folder
        self._progress = progress or (lambda name, done, total: None)

    def path(self, table: str) -> Path:
        """The file of a table."""
        return self.folder / f"{table}.json"

    def rows(self, table: str) -> list[Row]:
        """All records of a small table."""
        return [row for piece in self.pieces(table) for row in piece]

    def pieces(self, table: str, piece_bytes: int = PIECE_BYTES) -> Iterator[list[Row]]:
        """Yields the records of a table in file order, in lists of some ten thousand.

        Raises:
            MissingFileError: if the table does not exist.
            TableError: if the file is not a JSON list of records.
        """
        path = self.path(table)
        if not path.is_file():
            raise MissingFileError(
                f"table {path} is missing; a nuScenes version folder holds one JSON file for each "
                "table: extract the whole metadata archive, or generate the set again"
            )
        total, done = path.stat().st_size, 0
        with path.open("rb") as file:
            text = b""
            while not text and (block := file.read(piece_bytes)):
                text = block.lstrip()
            if text[:1] != b"[":
                raise TableError(f"{path} is not a JSON list: it starts with {text[:20]!r}")
            text = text[1:]
            while block := file.read(piece_bytes):
                done = file.tell()
                self._progress(path.name, done, total)
                rows, text = _complete_records(text)
                if rows:
                    yield rows
                text += block
        yield _last_records(text, path)
        self._progress(path.name, total, total)


def _complete_records(text: bytes) -> tuple[list[Row], bytes]:
    """Splits `{..}, {..}, {.` into its complete records and the unread rest.

    The cut is a "}" that a comma follows, as late as possible. A cut inside a string or a nested
    object leaves invalid JSON before it, so that a piece which parses was cut between two records.
    If no late cut does, the caller reads on and tries again with more text.
    """
    cut = len(text)
    for _ in range(4):
        cut = text.rfind(b"}", 0, cut)
        while cut >= 0 and text[cut + 1 : cut + 64].lstrip()[:1] != b",":
            cut = text.rfind(b"}", 0, cut)
        if cut < 0:
            break
        with suppress(json.JSONDecodeError):
            rows = json.loads(b"[" + text[: cut + 1] + b"]")
            return rows, text[text.index(b",", cut) + 1 :]
    return [], text


def _last_records(text: bytes, path: Path) -> list[Row]:
    try:
        return json.loads(b"[" + text)
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise TableError(
            f"{path} is not valid JSON near its end or after its last readable record ({error}); "
            "the file is probably truncated: copy or extract it again"
        ) from error


@contextmanager
def garbage_collection_paused() -> Iterator[None]:
    """Keeps the cyclic collector from scanning millions of fresh, acyclic records (1.6x faster)."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def column(rows: Sequence[Row], field: str, path: Path) -> list[Any]:
    """One field of every record.

    Raises:
        TableError: naming the file, the record and the field, if a record lacks it.
    """
    try:
        return [row[field] for row in rows]
    except (KeyError, TypeError):
        for row in rows:
            if not isinstance(row, dict):
                raise TableError(f"{path}: {str(row)[:60]!r} is not a record") from None
            if field not in row:
                raise TableError(
                    f"{path}: record {row.get('token', row)!r} has no field {field!r}; it has "
                    f"{sorted(row)}. The table is not in nuScenes format, or of another version"
                ) from None
        raise


def numbers(rows: Sequence[Row], field: str, path: Path, shape: tuple[int, ...] = ()) -> np.ndarray:
    """One numeric field of every record as (len(rows), *shape) float64.

    Raises:
        TableError: naming the file, the record and the field, if a value has another shape or is
            not finite.
    """
    if not rows:
        return np.zeros((0, *shape))
    values = column(rows, field, path)
    try:
        array = np.array(values, dtype=np.float64).reshape(len(rows), *shape)
        bad = ~np.isfinite(array).reshape(len(rows), -1).all(axis=1)
    except (ValueError, TypeError):
        bad = np.array([_shape_of(value) != shape for value in values])
    if bad.any():
        worst = int(bad.argmax())
        raise TableError(
            f"{path}: field {field!r} of record {rows[worst].get('token')!r} is "
            f"{values[worst]!r}; it must hold finite numbers of shape {shape}"
        )
    return array


def _shape_of(value: Any) -> tuple[int, ...] | None:
    try:
        return np.array(value, dtype=np.float64).shape
    except (ValueError, TypeError):
        return None


def quaternions(rows: Sequence[Row], field: str, path: Path) -> np.ndarray:
    """A field of (w, x, y, z) quaternions as (len(rows), 4) float64.

    Raises:
        TableError: if one is not of unit length, so that its matrix would not be orthonormal for a
            reader that does not normalise.
    """
    array = numbers(rows, field, path, (4,))
    bad = np.abs(np.linalg.norm(array, axis=1) - 1.0) > 1e-3
    if bad.any():
        worst = int(bad.argmax())
        raise TableError(
            f"{path}: field {field!r} of record {rows[worst].get('token')!r} is "
            f"{array[worst].tolist()}, no unit quaternion (w, x, y, z): its rotation is not "
            "orthonormal; normalise it"
        )
    return array


def index_by_token(tokens: Sequence[str], path: Path) -> dict[str, int]:
    """Row numbers by token.

    Raises:
        TableError: if a token occurs twice.
    """
    index = {token: row for row, token in enumerate(tokens)}
    if len(index) != len(tokens):
        seen: set[str] = set()
        twice = next(token for token in tokens if token in seen or seen.add(token))  # type: ignore[func-returns-value]
        raise TableError(f"{path}: token {twice!r} occurs more than once")
    return index


def lookup(
    index: dict[str, int], tokens: Sequence[str], field: str, path: Path, target: str
) -> np.ndarray:
    """Row numbers of references to another table, (len(tokens),) int64.

    Raises:
        TableError: if a reference points nowhere.
    """
    try:
        return np.fromiter((index[token] for token in tokens), np.int64, len(tokens))
    except KeyError as error:
        raise TableError(
            f"{path}: {field} {error.args[0]!r} is not in the table {target}; the tables do not "
            "belong together"
        ) from None

"""Reads nuScenes JSON tables piece by piece, and turns their fields into arrays."""

from __future__ import annotations

import gc
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np

from streampetr_vit.downloads import left_instead
from streampetr_vit.errors import MissingFileError, UserError
from streampetr_vit.texts import shown

Row = dict[str, Any]

# Names, tokens and paths are stored at one width for a whole column.
MAX_TEXT = 1000
# 100,000 km: more than any map has. Squares of it still fit float32.
MAX_METRES = 1e8
# Above it, float64 has no exact whole numbers; in microseconds it is the year 2255.
MAX_TIME_US = 2**53

# The large tables hold 2.6 million records, several gigabytes of Python objects if parsed at once.
# The wanted columns are taken out of one piece, whose objects are gone before the next one.
PIECE_BYTES = 16 * 2**20


class TableError(UserError, ValueError):
    """A nuScenes table holds something that the data set format does not allow."""


class Rows(list[Row]):
    """Records of a table, or of a piece of it, read by column.

    Every method raises a TableError that names the file, the record and the field.
    """

    def __init__(self, records: Iterable[Row], path: Path):
        super().__init__(records)
        self.path = path  # of the table

    def where(self, wanted: Iterable[Any]) -> Rows:
        """The records whose entry of `wanted` is true."""
        return Rows((row for row, keep in zip(self, wanted, strict=True) if keep), self.path)

    def column(self, field: str) -> list[Any]:
        """One field of every record."""
        try:
            return [row[field] for row in self]
        except (KeyError, TypeError):
            for row in self:  # find the record only now: the loop above is the hot one
                if not isinstance(row, dict):
                    raise TableError(f"{self.path}: {shown(row)} is not a record") from None
                if field not in row:
                    raise TableError(
                        f"{self.path}: record {shown(row.get('token', row))} has no field "
                        f"{field!r}; it has {shown(sorted(row), 300)}. The table is of another "
                        "version or another format"
                    ) from None
            raise

    def texts(self, field: str) -> list[str]:
        """One field of texts that can be stored, shown and logged."""
        values = self.column(field)
        # What is not printable (a line break, an escape of a terminal) is in no honest name.
        bad = [not (isinstance(v, str) and len(v) <= MAX_TEXT and v.isprintable()) for v in values]
        rule = f"it must be a text of at most {MAX_TEXT} printable characters; rename it"
        self.refuse(np.array(bad, dtype=bool), field, rule)
        return values

    def flags(self, field: str) -> np.ndarray:
        """One field of true and false as (len(self),) bool."""
        values = self.column(field)
        bad = np.array([value is not True and value is not False for value in values], dtype=bool)
        self.refuse(bad, field, "it must be true or false, without quotation marks")
        return np.array(values, dtype=bool)

    def numbers(self, field: str, shape: tuple[int, ...] = ()) -> np.ndarray:
        """One field of finite numbers of a shape as (len(self), *shape) float64."""
        if not self:
            return np.zeros((0, *shape))
        values = self.column(field)
        try:
            array = np.array(values, dtype=np.float64).reshape(len(self), *shape)
            bad = ~np.isfinite(array).reshape(len(self), -1).all(axis=1)
        # No number, lists of several lengths, an int that float64 cannot hold.
        except (ValueError, TypeError, OverflowError):
            bad = np.array([_shape_of(value) != shape for value in values])
        self.refuse(bad, field, f"it must hold finite numbers of shape {shape}")
        return array

    def counts(self, field: str) -> np.ndarray:
        """One field of numbers that count something as (len(self),) int32."""
        array = self.numbers(field)
        self.refuse((array < 0) | (array >= 2**31), field, "it must be a number from 0 to 2**31")
        return array.astype(np.int32)

    def microseconds(self, field: str) -> np.ndarray:
        """One field of times as (len(self),) int64."""
        array = self.numbers(field)
        bad = (array != np.floor(array)) | (np.abs(array) >= MAX_TIME_US)
        rule = "it must be a whole number of microseconds; seconds times 1000000, nanoseconds"
        self.refuse(bad, field, f"{rule} divided by 1000")
        return array.astype(np.int64)

    def positions(self, field: str) -> np.ndarray:
        """One field of (x, y, z) in metres as (len(self), 3) float64."""
        array = self.numbers(field, (3,))
        far = (np.abs(array) > MAX_METRES).any(axis=1)
        self.refuse(far, field, f"it must be metres, below {MAX_METRES:g}")
        return array

    def quaternions(self, field: str) -> np.ndarray:
        """A field of (w, x, y, z) unit quaternions as (len(self), 4) float64."""
        array = self.numbers(field, (4,))
        # A reader that does not normalise would make a matrix of it that is not orthonormal.
        bad = np.abs(np.linalg.norm(array, axis=1) - 1.0) > 1e-3
        rule = "no unit quaternion (w, x, y, z): its rotation is not orthonormal; normalise it"
        self.refuse(bad, field, rule)
        return array

    def refuse(self, bad: np.ndarray, field: str, rule: str) -> None:
        """Shows the first record that is marked as bad, if there is one, and the broken rule."""
        if bad.any():
            row = self[int(bad.argmax())]
            raise TableError(
                f"{self.path}: field {field!r} of record {shown(row.get('token'))} is "
                f"{shown(row[field])}; {rule}"
            )

    def poses(self) -> np.ndarray:
        """Their translation and rotation as (len(self), 7) float64."""
        return np.hstack((self.positions("translation"), self.quaternions("rotation")))

    def index(self) -> dict[str, int]:
        """Row numbers by token; a token that occurs twice is an error."""
        return index_by_token(self.column("token"), self.path)

    def references(self, field: str, index: dict[str, int], target: str) -> np.ndarray:
        """Row numbers in the table `target`, (len(self),) int64; one to nowhere is an error."""
        return lookup(index, self.column(field), field, self.path, target)


def _shape_of(value: Any) -> tuple[int, ...] | None:
    with suppress(ValueError, TypeError, OverflowError):
        return np.array(value, dtype=np.float64).shape
    return None


def index_by_token(tokens: Sequence[str], path: Path) -> dict[str, int]:
    """Row numbers by token; one that occurs twice is a TableError."""
    try:
        index = {token: row for row, token in enumerate(tokens)}
    except TypeError:  # a list or a dict is no key
        raise _no_text(tokens, "token", path) from None
    if len(index) != len(tokens):
        twice = next(token for row, token in enumerate(tokens) if index[token] != row)
        raise TableError(f"{path}: token {shown(twice)} occurs more than once")
    return index


def lookup(
    index: dict[str, int], tokens: Sequence[str], field: str, path: Path, target: str
) -> np.ndarray:
    """Row numbers in the table `target`, (len(tokens),) int64; one to nowhere is a TableError."""
    try:
        return np.fromiter((index[token] for token in tokens), np.int64, len(tokens))
    except KeyError as error:
        raise TableError(
            f"{path}: {field} {shown(error.args[0])} is not in the table {target}; the tables do "
            "not belong together"
        ) from None
    except TypeError:
        raise _no_text(tokens, field, path) from None


def _no_text(tokens: Sequence[Any], field: str, path: Path) -> TableError:
    wrong = next(token for token in tokens if not isinstance(token, str))
    return TableError(f"{path}: {field} {shown(wrong)} is no text; a token is one")


class TableFolder:
    """The tables in the folder of a data set's version, `<root>/<version>/*.json`.

    `progress` is called with the number of bytes that were read since the last call.
    """

    def __init__(self, folder: Path, progress: Callable[[int], None] | None = None):
        self.folder = folder
        self._progress = progress or (lambda count: None)

    def path(self, table: str) -> Path:
        """The file of a table."""
        return self.folder / f"{table}.json"

    def rows(self, table: str) -> Rows:
        """All records of a small table."""
        return Rows((row for piece in self.pieces(table) for row in piece), self.path(table))

    def pieces(self, table: str, piece_bytes: int = PIECE_BYTES) -> Iterator[Rows]:
        """Yields the records of a table in file order, some ten thousand at a time, at least once.

        Raises:
            MissingFileError: if the table does not exist.
            TableError: if the file is not a JSON list of records.
        """
        try:
            yield from self._pieces(self.path(table), piece_bytes)
        except RecursionError:
            raise TableError(
                f"{self.path(table)} holds lists within lists, thousands deep: it is no nuScenes "
                "table; copy or extract it again"
            ) from None

    def _pieces(self, path: Path, piece_bytes: int) -> Iterator[Rows]:
        if not path.is_file():
            raise MissingFileError(
                f"table {path} is missing; a nuScenes version folder holds one JSON file for each "
                "table: extract the whole metadata archive, or generate the set again"
            )
        with path.open("rb") as file:
            text = b""  # read, not yet parsed
            while not text and (block := file.read(piece_bytes)):
                self._progress(len(block))
                text = block.lstrip()
            if text[:1] != b"[":
                instead = left_instead(text[:512])
                found = f"it is {instead}" if instead else f"it starts with {text[:20]!r}"
                raise TableError(f"{path} is not a JSON list: {found}")
            text = text[1:]
            while block := file.read(piece_bytes):
                self._progress(len(block))
                records, text = _complete_records(text)
                if records:
                    yield Rows(records, path)
                text += block
        yield Rows(_last_records(text, path), path)


def _complete_records(text: bytes) -> tuple[list[Row], bytes]:
    """Splits `{..}, {..}, {.` into its complete records and the unread rest."""
    cut = len(text)
    # If no late cut parses, the caller reads on and tries again with more text.
    for _ in range(4):
        # A cut is a "}" that a comma follows, as late as possible.
        cut = text.rfind(b"}", 0, cut)
        while cut >= 0 and text[cut + 1 : cut + 64].lstrip()[:1] != b",":
            cut = text.rfind(b"}", 0, cut)
        if cut < 0:
            break
        # A cut inside a string or a nested object leaves invalid JSON before it: a piece that
        # parses was cut between two records. Other faults come up again at the end of the file.
        with suppress(ValueError):
            rows = json.loads(b"[" + text[: cut + 1] + b"]")
            return rows, text[text.index(b",", cut) + 1 :]
    return [], text


def _last_records(text: bytes, path: Path) -> list[Row]:
    try:
        return json.loads(b"[" + text)
    except ValueError as error:  # no JSON, no UTF-8, an int of more than 4300 digits
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

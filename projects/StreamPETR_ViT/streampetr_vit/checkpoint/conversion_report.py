"""The account of a conversion as text."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from torch import Tensor

from streampetr_vit.checkpoint.conversion import Conversion
from streampetr_vit.checkpoint.formats import FORMATS
from streampetr_vit.checkpoint.key_report import group_of

Row = tuple[str, int, int | None]  # title, tensors, parameters (None: not counted)


def describe(conversion: Conversion, title: str) -> str:
    """A table of the tensors read, mapped, resized, unused and missing.

    Args:
        conversion: whose.
        title: the file.
    """
    rows = list(_rows(conversion))
    width = max(len(row[0]) for row in rows)
    lines = [f"{title}: {FORMATS[conversion.source]}", ""]
    lines.append(f"{'':{width}}  tensors     parameters")
    for name, count, parameters in rows:
        size = "" if parameters is None else f"{parameters:>15,}"
        lines.append(f"{name:{width}}  {count:>7}{size}".rstrip())
    if conversion.fit is None:
        lines.append("missing: not checked, no configuration was given")
    lines += [f"note: {note}" for note in conversion.notes]
    return "\n".join(lines)


def _rows(conversion: Conversion) -> Iterable[Row]:
    yield _counted("read", conversion.read, conversion.read)
    out = conversion.tensors
    yield _counted("written" if conversion.target == "streampetr" else "mapped", out, out)
    by_group: dict[str, list[str]] = {}
    for name in out:
        by_group.setdefault(group_of(name), []).append(name)
    for group, names in by_group.items():
        yield _counted(f"  {group}", names, out)
    yield "resized", len(conversion.resized), None
    for name, old, new in conversion.resized:
        yield f"  {name} {_shape(old)} -> {_shape(new)}", 1, None
    unused = conversion.unused
    everything = [name for names in unused.values() for name in names]
    yield _counted("unused", everything, conversion.read)
    for why, names in unused.items():
        yield _counted(f"  {why}", names, conversion.read)
    if conversion.fit is not None:
        yield "not in the model", len(conversion.fit.unused), None
        yield from _by_group(conversion.fit.unused)
        yield "missing", len(conversion.fit.missing), None
        yield from _by_group(conversion.fit.missing)


def _by_group(names: Iterable[str]) -> Iterable[Row]:
    counts: dict[str, int] = {}
    for name in names:
        counts[group_of(name)] = counts.get(group_of(name), 0) + 1
    for group, count in counts.items():
        yield f"  {group}", count, None


def _counted(title: str, names: Iterable[str], tensors: Mapping[str, Tensor]) -> Row:
    listed = list(names)
    return title, len(listed), sum(tensors[name].numel() for name in listed if name in tensors)


def _shape(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape))

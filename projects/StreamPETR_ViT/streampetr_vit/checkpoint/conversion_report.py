"""The account of a conversion as text."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping

from torch import Tensor

from streampetr_vit.checkpoint.conversion import Conversion
from streampetr_vit.checkpoint.fit import group_of
from streampetr_vit.checkpoint.formats import FORMATS

Row = tuple[str, int, int | None]  # title, tensors, parameters (None: not counted)


def describe(conversion: Conversion, title: str) -> str:
    """A table of the tensors read, mapped, resized, unused and missing.

    Args:
        conversion: what is told.
        title: the file.
    """
    rows = list(_rows(conversion))
    width = max(len(name) for name, _, _ in rows)
    lines = [f"{title}: {FORMATS[conversion.source]}", "", f"{'':{width}}  tensors     parameters"]
    for name, count, parameters in rows:
        size = "" if parameters is None else f"{parameters:>15,}"
        lines.append(f"{name:{width}}  {count:>7}{size}".rstrip())
    if conversion.fit is None:
        lines.append("missing: not checked, no configuration was given")
    lines += [f"note: {note}" for note in conversion.notes]
    return "\n".join(lines)


def _rows(conversion: Conversion) -> Iterator[Row]:
    out, unused, fit = conversion.tensors, conversion.unused, conversion.fit
    yield _counted("read", conversion.read, conversion.read)
    yield _counted("written" if conversion.target == "streampetr" else "mapped", out, out)
    for group in dict.fromkeys(map(group_of, out)):
        yield _counted(f"  {group}", [name for name in out if group_of(name) == group], out)
    yield "resized", len(conversion.resized), None
    for name, old, new in conversion.resized:
        yield f"  {name} {'x'.join(map(str, old))} -> {'x'.join(map(str, new))}", 1, None
    yield _counted("unused", [n for names in unused.values() for n in names], conversion.read)
    for why, names in unused.items():
        yield _counted(f"  {why}", names, conversion.read)
    if fit is not None:
        for title, absent in (("not in the model", fit.unused), ("missing", fit.missing)):
            yield title, len(absent), None
            for group, count in Counter(map(group_of, absent)).items():
                yield f"  {group}", count, None


def _counted(title: str, names: Iterable[str], tensors: Mapping[str, Tensor]) -> Row:
    sizes = [tensors[name].numel() for name in names]
    return title, len(sizes), sum(sizes)

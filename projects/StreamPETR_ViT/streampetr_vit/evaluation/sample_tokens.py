"""The rule that an evaluation needs each sample of its data set, and no other."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence

from streampetr_vit.errors import InputError


def check_samples(
    tokens: Collection[str], expected: Iterable[str], missing: str, unknown: str, where: str = ""
) -> None:
    """Raises InputError unless the tokens are those that are expected, in any order.

    Args:
        tokens: of the samples that are there.
        expected: of the data set.
        missing, unknown: what is wrong with such samples, and the fix; they follow the number.
        where: stands before the number.
    """
    wanted, there = dict.fromkeys(expected), dict.fromkeys(tokens)  # ordered, and quick to search
    # The metric would count a missing sample as one without detections.
    require_none([token for token in wanted if token not in there], len(wanted), missing, where)
    require_none([token for token in there if token not in wanted], len(there), unknown, where)


def check_file_samples(
    results: Collection[str], expected: Iterable[str], where: str, verb: str = "evaluate"
) -> None:
    """Raises InputError unless a results file has each sample of a data set, and no other.

    Args:
        results: tokens of the file.
        expected: of the data set.
        where: stands before the number.
        verb: what is done with the split of the file.
    """
    check_samples(
        results,
        expected,
        "are not in it: give each sample of the data set an entry (a list of boxes, it may be "
        f"empty), or {verb} the split that the file is of",
        f"are not in the data set: take them out, or {verb} the split that the file is of",
        where=where,
    )


def require_none(found: Sequence[str], total: int, problem: str, where: str = "") -> None:
    """Raises InputError if samples with a problem were found."""
    if found:
        raise InputError(f"{where}{len(found)} of {total} samples (first: {found[0]}) {problem}")

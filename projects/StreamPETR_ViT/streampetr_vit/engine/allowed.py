"""What a setting may be: small values that test a value and say in words what is allowed."""

from __future__ import annotations

import math
import os
import re
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, is_dataclass
from typing import Any

from omegaconf import ListConfig

_LISTS = (list, tuple, ListConfig)


@dataclass(frozen=True)
class Allowed:
    """A test, and what passes it in words that follow "must be"."""

    text: str
    holds: Callable[[Any], bool]

    def __or__(self, other: Allowed) -> Allowed:
        is_said = other.text in self.text.split(", or ")  # such as that of two classes
        text = self.text if is_said else f"{self.text}, or {other.text}"
        return Allowed(text, lambda value: self.holds(value) or other.holds(value))


ANYTHING = Allowed("anything", lambda value: True)
FLAG = Allowed("True or False", lambda value: isinstance(value, bool))
TEXT = Allowed("a text", lambda value: isinstance(value, str))
SECTION = Allowed("a dict of settings", lambda value: isinstance(value, Mapping))
DESCRIBED = Allowed(
    "a dict with _target_, the class or function that makes it",
    lambda value: isinstance(value, Mapping) and "_target_" in value,
)


def null(meaning: str) -> Allowed:
    """No value, for settings where that means something."""
    return Allowed(f"null for {meaning}" if meaning else "null", lambda value: value is None)


def whole(least: int | None = None, most: int | None = None) -> Allowed:
    """A whole number between two ends; `most` needs `least`."""
    text = "a whole number" if least is None else f"a whole number, {least} or more"
    if most is not None:
        text = f"a whole number from {least} to {most}"
    low, high = -math.inf if least is None else least, math.inf if most is None else most
    return Allowed(text, lambda value: _is_whole(value) and low <= value <= high)


def number(text: str = "", holds: Callable[[float], bool] = lambda value: True) -> Allowed:
    """A finite number for which a condition holds; `text` says which."""
    return Allowed(f"a number {text}".rstrip(), lambda value: _is_number(value) and holds(value))


ABOVE_0 = number("above 0", lambda value: value > 0)
NOT_NEGATIVE = number("that is 0 or more", lambda value: value >= 0)
SHARE = number("from 0 to 1", lambda value: 0 <= value <= 1)
FACTOR = number("above 0 and up to 1", lambda value: 0 < value <= 1)


def one_of(*values: str) -> Allowed:
    """One of some words."""
    words = ", ".join(map(repr, values))
    return Allowed(words if len(values) == 1 else f"one of {words}", lambda value: value in values)


def matching(pattern: str, text: str) -> Allowed:
    """A text of a form."""
    return Allowed(
        text, lambda value: isinstance(value, str) and re.fullmatch(pattern, value) is not None
    )


def list_of(entry: Allowed, length: int | None = None) -> Allowed:
    """A list whose entries are allowed."""
    count = "" if length is None else f" of {length}"
    return Allowed(
        f"a list{count} in brackets, each {entry.text}",
        lambda value: (
            isinstance(value, _LISTS)
            and length in (None, len(value))
            and all(entry.holds(item) for item in value)
        ),
    )


def by_annotation(annotation: Any) -> Allowed:
    """What an argument may be by its type annotation, resolved; anything for unknown ones."""
    simple = {
        bool: FLAG,
        int: whole(),
        float: number(),
        str: TEXT,
        type(None): null(""),
        dict: SECTION,
        list: list_of(ANYTHING),
        tuple: list_of(ANYTHING),
    }
    if isinstance(annotation, type) and annotation in simple:
        return simple[annotation]
    origin, inner = typing.get_origin(annotation), typing.get_args(annotation)
    if origin in (typing.Union, types.UnionType):
        return _any_of([by_annotation(choice) for choice in inner])
    if origin is os.PathLike:
        return TEXT
    if origin is typing.Literal:
        return one_of(*inner)
    if origin is tuple and inner and inner[-1] is not Ellipsis:
        return list_of(_any_of([by_annotation(kind) for kind in inner]), len(inner))
    if isinstance(origin, type) and issubclass(origin, Mapping):
        return SECTION
    if isinstance(origin, type) and issubclass(origin, (Sequence, tuple)):
        return list_of(by_annotation(inner[0]))
    if isinstance(annotation, type) and annotation is not object:
        return _object_of(annotation)
    return ANYTHING


def _object_of(kind: type) -> Allowed:
    """A description of an object, or the object itself, which a .py recipe may have made."""
    if issubclass(kind, os.PathLike):
        return TEXT
    plain = (bool, int, float, str, *_LISTS, type(None))
    takes_dicts = is_dataclass(kind)  # DatasetSpec makes its classes of plain ones
    return Allowed(
        DESCRIBED.text,
        lambda value: (
            DESCRIBED.holds(value)
            or (takes_dicts if isinstance(value, Mapping) else not isinstance(value, plain))
        ),
    )


def _any_of(choices: list[Allowed]) -> Allowed:
    result, *others = dict.fromkeys(choices)
    for choice in others:
        result |= choice
    return result


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(value: Any) -> bool:
    # Not math.isfinite, which fails for a whole number of 400 digits.
    return (_is_whole(value) or isinstance(value, float)) and abs(value) < math.inf

"""Errors that a user can mend. The tools print them as one line."""

from __future__ import annotations


class SyntheticError(Exception):
    """What is wrong and how to mend it; each subclass also derives from the built-in that fits."""


class ConfigError(SyntheticError, ValueError):
    """A value of a `SyntheticConfig` is not allowed, or no scene can be made with it."""


class FolderTakenError(SyntheticError, FileExistsError):
    """The folder to fill holds something that must not be overwritten."""


class WriteError(SyntheticError, OSError):
    """A file of the set cannot be written."""

"""Packages of the extra `export`, which everything else of the project does without."""

from __future__ import annotations

import importlib
from types import ModuleType

from streampetr_vit.errors import InputError


def onnxruntime() -> ModuleType:
    """The package that runs ONNX graphs."""
    return _package("onnxruntime", "to run exported graphs")


def onnx() -> ModuleType:
    """The package that reads and writes ONNX files."""
    return _package("onnx", "to read exported graphs")


def need_exporter() -> None:
    """Raises InputError if what torch.onnx.export(dynamo=True) needs is missing."""
    _package("onnx", "to export")
    _package("onnxscript", "to export")


def _package(name: str, purpose: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    # Built for another numpy or system, a package is there and does not load.
    except (ImportError, OSError, AttributeError) as error:
        raise InputError(
            f"the package {name} is needed {purpose} and does not import ({error}): install it "
            "with pip install -e '.[export]'"
        ) from error

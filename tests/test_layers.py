"""Which part of the package may import which: no circles, and only downwards."""

from __future__ import annotations

import ast
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

PROJECT = Path(__file__).resolve().parents[1] / "projects" / "StreamPETR_ViT"
PACKAGE = "streampetr_vit"
FILES = sorted((PROJECT / PACKAGE).rglob("*.py"))

# Single files beside the rooms: every room may import them, and they import each other only.
SHARED = {"downloads", "errors", "files", "json_files", "logs", "progress", "texts"}
# room -> rooms that it may import, beside itself and the shared files.
BELOW = {
    "structures": set(),
    "modeling": {"structures"},
    "data": {"structures"},
    "solver": set(),
    "checkpoint": {"structures", "modeling"},
    "configuration": {"structures", "modeling", "data", "checkpoint"},
    "tracking": {"structures"},
    "export": {"structures", "modeling", "checkpoint", "configuration"},
    "evaluation": {"structures", "data", "tracking"},
    "visualization": {"structures", "data"},
    "inference": {
        "structures",
        "modeling",
        "data",
        "checkpoint",
        "configuration",
        "export",
        "evaluation",
        "visualization",
        "tracking",
    },
    "report": {"structures", "data", "tracking", "evaluation", "visualization"},
    "engine": {
        "structures",
        "modeling",
        "data",
        "solver",
        "checkpoint",
        "configuration",
        "export",
        "inference",
        "evaluation",
        "report",
        "tracking",
    },
    # It times the trainer's own step and the engine's own model.
    "benchmark": {
        "structures",
        "modeling",
        "data",
        "checkpoint",
        "configuration",
        "inference",
        "engine",
    },
}
# What the network may need beside torch, numpy and the standard library.
MODELING_LIBRARIES = {"torch", "numpy", "scipy", "detectron2", "fvcore", "flash_attn", "xformers"}


def module_of(path: Path) -> str:
    parts = path.relative_to(PROJECT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_of(path): path for path in FILES}


def imports(path: Path) -> set[str]:
    """Modules that a file imports anywhere, inside functions too; names of `from` as modules."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            assert node.level == 0, f"{path}: relative import"
            names = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= {name if name in MODULES else node.module for name in names}
    return found


def room_of(module: str) -> str:
    return module.split(".")[1] if "." in module else ""


@pytest.mark.parametrize("path", FILES, ids=lambda path: module_of(path))
def test_a_file_imports_rooms_below_its_own(path: Path) -> None:
    room = room_of(module_of(path))
    theirs = {room_of(name) for name in imports(path) if name.split(".")[0] == PACKAGE}
    if room in BELOW:
        assert theirs - {room} - SHARED <= BELOW[room]
    else:
        assert theirs <= SHARED  # a shared file, or the package itself
    assert "synthetic_nuscenes" not in {name.split(".")[0] for name in imports(path)}


def test_every_room_is_in_the_table() -> None:
    assert {room_of(name) for name, path in MODULES.items() if path.name == "__init__.py"} == {
        "",
        *BELOW,
    }


def test_no_module_imports_in_a_circle() -> None:
    # A package's __init__ is run by an import of any of its modules, but names nothing new.
    graph = {name: imports(path) & set(MODULES) - {name} for name, path in MODULES.items()}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        raise AssertionError(" -> ".join(error.args[1])) from error


def test_nothing_is_imported_for_type_checkers_alone() -> None:
    hidden = [str(path) for path in FILES if "TYPE_CHECKING" in path.read_text()]
    assert not hidden


def test_modeling_needs_torch_and_detectron2_layers_only() -> None:
    import sys

    for name, path in MODULES.items():
        if room_of(name) == "modeling":
            roots = {found.split(".")[0] for found in imports(path)}
            own = roots - set(sys.stdlib_module_names) - {PACKAGE}
            assert own <= MODELING_LIBRARIES, (name, own)
            assert "detectron2.config" not in imports(path) and "omegaconf" not in roots

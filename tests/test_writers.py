"""Every file is written beside its place and renamed: no writer leaves half a file."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = "projects/StreamPETR_ViT/streampetr_vit"
FOLDERS = (PACKAGE, "projects/StreamPETR_ViT/synthetic_nuscenes", "tools", "benchmarks")
FILES = sorted(path for folder in FOLDERS for path in (ROOT / folder).rglob("*.py"))
# Calls that write a file, by the last part of their name.
WRITERS = {"write_text", "write_bytes", "save_file", "imwrite", "VideoWriter", "savez", "dump"}
# Blocks that give a temporary name.
BLOCKS = {"replacing", "_writing"}
# File -> why its writers need none.
EXCEPTIONS = {
    "projects/StreamPETR_ViT/synthetic_nuscenes/files.py": "renames by itself; imports no detector",
    f"{PACKAGE}/benchmark/measuring.py": "resets a counter of the kernel in /proc",
    f"{PACKAGE}/visualization/video.py": "its `Encoder`s get a temporary name",
    f"{PACKAGE}/engine/processes.py": "last words of a process, in a temporary folder",
    "tools/install_detectron2.py": "in a temporary folder",
    "benchmarks/cost.py": "makes its input in a folder of its own",
    "benchmarks/crash_test.py": "the output of a command, in a temporary folder",
    "benchmarks/gpu_checks.py": "a log",
    "benchmarks/save_cost.py": "times the way in which checkpoints were written before",
}


class Finder(ast.NodeVisitor):
    """Collects the lines of calls that write outside of a block that renames."""

    def __init__(self) -> None:
        self.safe, self.lines = False, list[int]()

    def visit_With(self, node: ast.With) -> None:
        before = self.safe
        for item in node.items:
            self.visit(item)  # of several items, the later ones are inside the first
            self.safe |= _name(item.context_expr) in BLOCKS
        for statement in node.body:
            self.visit(statement)
        self.safe = before

    def visit_Call(self, node: ast.Call) -> None:
        # `write_bytes(path, data)` is synthetic_nuscenes' own, which renames.
        is_own = isinstance(node.func, ast.Name) and node.func.id == "write_bytes"
        # With one value, `dump` gives a text.
        is_own |= _name(node) == "dump" and len(node.args) < 2
        is_writer = _name(node) in WRITERS and not is_own
        if not self.safe and (is_writer or _saves(node) or _opens(node)):
            self.lines.append(node.lineno)
        self.generic_visit(node)


def _name(node: ast.expr) -> str:
    function = node.func if isinstance(node, ast.Call) else node
    return getattr(function, "attr", getattr(function, "id", ""))


def _saves(node: ast.Call) -> bool:
    owner = getattr(node.func, "value", None)
    return _name(node) == "save" and getattr(owner, "id", "") in ("torch", "np", "LazyConfig")


def _opens(node: ast.Call) -> bool:
    texts = [a.value for a in node.args if isinstance(a, ast.Constant)]
    modes = [text for text in texts if isinstance(text, str) and set(text) <= set("rwaxbt+")]
    return _name(node) == "open" and any(set(mode) & set("wx") for mode in modes)


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_files_are_written_through_a_block_that_renames(path: Path) -> None:
    finder = Finder()
    finder.visit(ast.parse(path.read_text()))
    is_exception = str(path.relative_to(ROOT)) in EXCEPTIONS
    assert bool(finder.lines) == is_exception, finder.lines


@pytest.mark.parametrize(
    ("code", "found"),
    [
        ("Path('a').write_text('b')", True),
        ("with open('a', 'w') as file: pass", True),
        ("path.open('wb')", True),
        ("torch.save(a, b)", True),
        ("with replacing('a') as t: t.write_text('b')", False),
        ("with replacing('a') as t, t.open('w') as file: pass", False),
        ("with t.open('w') as file, replacing('a') as t: pass", True),
        ("open('a')", False),
        ("json.dump(a, b)", True),
        ("yaml.dump(a, width=9)", False),
        ("checkpointer.save(a)", False),
    ],
)
def test_the_search_finds_what_writes(code: str, found: bool) -> None:
    finder = Finder()
    finder.visit(ast.parse(code))
    assert bool(finder.lines) == found

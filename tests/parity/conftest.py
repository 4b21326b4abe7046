"""Says which golden files were read, and which wait for a part that does not exist yet."""

from __future__ import annotations

import golden


def pytest_terminal_summary(terminalreporter) -> None:
    waiting = [p.stem for p in golden.all_files() if golden.kind_of(p) in golden.NOT_YET_COVERED]
    terminalreporter.write_line(f"golden files: {golden.golden_dir()}")
    if waiting:
        terminalreporter.write_line(f"not yet covered ({len(waiting)}): {', '.join(waiting)}")

"""Says which golden files were read."""

from __future__ import annotations

import golden


def pytest_terminal_summary(terminalreporter) -> None:
    files = golden.all_files()
    terminalreporter.write_line(f"golden files: {len(files)} in {golden.golden_dir()}")

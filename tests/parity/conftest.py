"""Says which golden files were read, and chooses between plain and fast forms."""

from __future__ import annotations

import golden
import pytest

from streampetr_vit.modeling.ops import linear


def pytest_terminal_summary(terminalreporter) -> None:
    files = golden.all_files()
    terminalreporter.write_line(f"golden files: {len(files)} in {golden.golden_dir()}")


@pytest.fixture(params=[False, True], ids=["plain", "fast"])
def fast(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Whether to use the fast forms, for `ViT(xattn=...)` among others.

    Linear layers follow by themselves: plain by torch's default library; fast by oneDNN where the
    processor has it, although recorded matrices are small.
    """
    if request.param:
        monkeypatch.setattr(linear, "_WORTH_IT", 0)
    else:
        monkeypatch.setattr(linear, "ONEDNN_USABLE", False)
    return request.param

"""What the documents link to and name exists."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PROJECT = ROOT / "projects" / "StreamPETR_ViT"
PAGES = sorted([*ROOT.glob("*.md"), *PROJECT.glob("**/*.md"), ROOT / "datasets" / "README.md"])


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    targets = re.findall(r"\]\(([^)\s]+)\)", page.read_text())
    local = [t.partition("#")[0] for t in targets if "://" not in t and not t.startswith("#")]
    missing = [target for target in local if not (page.parent / target).exists()]
    assert not missing


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_files_of_the_repository_that_are_named_exist(page: Path) -> None:
    text = re.sub(r"```.*?```", "", page.read_text(), flags=re.S)
    named = re.findall(r"`((?:tools|configs|benchmarks|tests)/[\w./-]+\.py)`", text)
    # my_*: what a reader is told to write.
    missing = [n for n in named if not (ROOT / n).exists() and "/my_" not in n]
    assert not missing

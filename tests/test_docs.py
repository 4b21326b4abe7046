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
def test_links_to_headings_lead_to_one(page: Path) -> None:
    links = re.findall(r"\]\(([^)\s:#]*\.md)?#([^)\s]+)\)", page.read_text())
    missing = [
        f"{file}#{anchor}"
        for file, anchor in links
        if anchor not in anchors(page.parent / file if file else page)
    ]
    assert not missing


def anchors(page: Path) -> set[str]:
    """The anchors that GitHub makes of the headings of a page."""
    text = re.sub(r"```.*?```", "", page.read_text(), flags=re.S)
    headings = re.findall(r"^#+ (.+)$", text, flags=re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_files_of_the_repository_that_are_named_exist(page: Path) -> None:
    if page.name == "CHANGELOG.md":  # which names what is gone
        return
    text = re.sub(r"```.*?```", "", page.read_text(), flags=re.S)
    named = re.findall(r"`((?:tools|configs|benchmarks|tests)/[\w./-]+\.py)`", text)
    # my_*: what a reader is told to write.
    missing = [n for n in named if not (ROOT / n).exists() and "/my_" not in n]
    assert not missing


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_files_and_modules_of_the_package_that_are_named_exist(page: Path) -> None:
    if page.name == "CHANGELOG.md":
        return
    text, package = page.read_text(), PROJECT / "streampetr_vit"
    rooms = "|".join(path.name for path in package.iterdir() if path.is_dir())
    named = re.findall(rf"`((?:{rooms})/[\w/]+\.py)`", text)
    missing = [name for name in named if not (package / name).exists()]
    for dotted in set(re.findall(rf"\bstreampetr_vit((?:\.(?:{rooms}))(?:\.[a-z_0-9]+)*)", text)):
        place = package.joinpath(*dotted.strip(".").split("."))
        # The last part may be a function of the module.
        if not any(p.with_suffix(".py").exists() or p.is_dir() for p in (place, place.parent)):
            missing.append(f"streampetr_vit{dotted}")
    assert not missing

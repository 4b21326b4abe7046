"""What docs/faq.md quotes exists: settings are accepted, messages are those of the code."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

import pytest
from omegaconf import DictConfig, OmegaConf

from streampetr_vit.engine import load_config

ROOT = Path(__file__).resolve().parents[1]
PROJECT = ROOT / "projects" / "StreamPETR_ViT"
PAGE = (PROJECT / "docs" / "faq.md").read_text()
SECTIONS = "train|model|dataloader|schedule|optimizer|dataset_spec"
RECIPES = ("streampetr_eva02_l_800x320_24ep", "streampetr_eva02_l_800x320_window8_24ep")


def spans() -> list[list[str]]:
    """The words of each code span of the page."""
    return [span.replace('"', "").split() for span in sorted(set(re.findall(r"`([^`]+)`", PAGE)))]


def settings_of(span: list[str]) -> list[str]:
    return [word for word in span if re.match(rf"(?:{SECTIONS})\.[\w.]+=", word)]


SETTINGS = [settings for span in spans() if (settings := settings_of(span))]
NAMES = [span[0] for span in spans() if re.fullmatch(rf"(?:{SECTIONS})(?:\.\w+)+", " ".join(span))]
# Of messages: what no value interrupts.
MESSAGES = (
    "was trained for another picture size",
    "no tensor matches the model",
    "is not a whole detector",
    "is a detector with another backbone than EVA-02's ViT",
    "tensors have another shape",
    "unknown data set",
    "is a plain value, it has no key",
    "belongs to versions that end in",
    "the official metric opens it",
    "has no category of dataset_spec.classes",
    "has no box to train on",
    "these are no microseconds",
    "outside its pictures",
    "is truncated",
    "does not fit pictures of",
    "steps in a row were not finite",
    "is malformed",
    "are not in the data set",
    "Mean over present classes",
    "and does not import",
)


@pytest.mark.parametrize("settings", SETTINGS, ids=" ".join)
def test_settings_are_accepted(settings: list[str]) -> None:
    load_config(ROOT / "configs" / f"{RECIPES[0]}.py", settings)


@cache
def recipe(name: str) -> DictConfig:
    return load_config(ROOT / "configs" / f"{name}.py")


@pytest.mark.parametrize("name", NAMES)
def test_settings_that_are_named_exist(name: str) -> None:
    parent, _, key = name.rpartition(".")
    assert any(key in OmegaConf.select(recipe(each), parent) for each in RECIPES)


@cache
def source() -> str:
    """The package's code, with texts that go over several lines in one piece."""
    files = sorted((PROJECT / "streampetr_vit").rglob("*.py"))
    return re.sub(r'["\']\s*\n\s*f?["\']', "", "\n".join(file.read_text() for file in files))


@pytest.mark.parametrize("message", MESSAGES)
def test_messages_are_those_of_the_code(message: str) -> None:
    page = " ".join(PAGE.split())
    assert message in page
    assert message in source()

"""The names that users' checkpoints and command lines hold: state-dict keys and config fields.

    python tests/frozen/names.py

writes both lists anew, after a change of them was decided and written into CHANGELOG.md.
"""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path
from typing import Any

import torch
from detectron2.config import instantiate
from omegaconf import DictConfig, ListConfig

from streampetr_vit.engine import load_config

HERE = Path(__file__).resolve().parent
RECIPES = sorted((HERE.parents[1] / "configs").glob("*.py"))


def state_dict_keys() -> list[str]:
    """Of the models of all recipes; numbers of blocks and layers are written as *.

    Beside each: how many recipes have it, and its values in all of them, so that a key that one
    recipe loses and a shape that changes are seen.
    """
    recipes: Counter[str] = Counter()
    values: Counter[str] = Counter()
    for recipe in RECIPES:
        with torch.device("meta"):
            model = instantiate(load_config(str(recipe)).model)
        found: Counter[str] = Counter()
        for key, value in model.state_dict().items():
            found[re.sub(r"(?<=\.)\d+(?=\.)", "*", key)] += value.numel()
        recipes.update(found.keys())
        values.update(found)
    return sorted(f"{key} recipes={recipes[key]} values={values[key]}" for key in recipes)


def config_fields() -> list[str]:
    """Of all recipes, as paths; the class behind each described part stands beside it."""
    fields: set[str] = set()
    for recipe in RECIPES:
        _collect(load_config(str(recipe)), "", fields)
    return sorted(fields)


def _collect(node: DictConfig, prefix: str, fields: set[str]) -> None:
    for key in node:
        child = node._get_node(key)  # an interpolation as it stands
        if key == "_target_":
            fields.add(f"{prefix}{key}={_dotted(child._value())}")
        elif isinstance(child, DictConfig) and not child._is_interpolation():
            _collect(child, f"{prefix}{key}.", fields)
        elif isinstance(child, ListConfig) and any(isinstance(c, DictConfig) for c in child):
            for entry in child:  # described parts; their places in the list are written as *
                _collect(entry, f"{prefix}{key}.*.", fields)
        else:
            fields.add(f"{prefix}{key}")


def _dotted(target: Any) -> str:
    return target if isinstance(target, str) else f"{target.__module__}.{target.__qualname__}"


LISTS = {"state_dict_keys.txt": state_dict_keys, "config_fields.txt": config_fields}

if __name__ == "__main__":
    for name, collect in LISTS.items():
        (HERE / name).write_text("\n".join(collect()) + "\n")

"""Reads a configuration in YAML as plain data: nothing in the file is executed.

detectron2's loader makes any Python object that a tag names, and OmegaConf calls any resolver that
a text names. A config.yaml may come from a stranger, so here both are refused.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml
from omegaconf import DictConfig, OmegaConf

from streampetr_vit.errors import ConfigError, one_line

# References to other values, such as ${..lr}, and the two resolvers that recipes use.
_REFERENCE = r"\$\{[\w.\[\]]+\}"
_PLAIN_TEXT = re.compile(
    rf"{_REFERENCE}|\$\{{count:{_REFERENCE}\}}|\$\{{labels:{_REFERENCE}(,[\w-]+)+\}}"
)
# A file of a recipe has 600 values and is 8 deep. Aliases can make a short file explode.
_MAX_VALUES, _MAX_DEPTH = 100_000, 50


class _PlainLoader(yaml.SafeLoader):
    """YAML's own types, tuples as detectron2 writes them, and 1e-3 as a number."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """A dict; a key that is there twice is an error, for one of its values would be lost."""
        seen: set[str] = set()
        for key, _ in node.value:
            if key.value in seen and isinstance(key, yaml.ScalarNode):
                raise yaml.constructor.ConstructorError(
                    problem=f"the key {key.value!r} is there twice", problem_mark=key.start_mark
                )
            if isinstance(key, yaml.ScalarNode):
                seen.add(key.value)
        return super().construct_mapping(node, deep)


_PlainLoader.add_constructor("tag:yaml.org,2002:python/tuple", yaml.SafeLoader.construct_yaml_seq)
_PlainLoader.add_implicit_resolver(  # YAML 1.1 takes 1e-3, without a dot, for a text
    "tag:yaml.org,2002:float", re.compile(r"[-+]?\d+[eE][-+]?\d+$"), list("-+0123456789")
)


def read_yaml(path: str) -> DictConfig:
    """The configuration in a YAML file.

    Raises:
        ConfigError: it cannot be read, or holds more than plain data.
    """
    try:
        data = yaml.load(Path(path).read_text(encoding="utf-8"), _PlainLoader)
    except yaml.MarkedYAMLError as error:
        raise ConfigError(_what_is_wrong(path, error)) from error
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError, ValueError) as error:
        raise ConfigError(f"{path} is no YAML that can be read: {one_line(error)}") from error
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}") from error
    if not isinstance(data, dict):
        raise ConfigError(f"{path} holds no configuration: it must have sections such as train:")
    _check(path, data)
    return OmegaConf.create(data, flags={"allow_objects": True})


def _what_is_wrong(path: str, error: yaml.MarkedYAMLError) -> str:
    mark = error.problem_mark
    where = path if mark is None else f"{path}, line {mark.line + 1}"
    tag = re.search(r"could not determine a constructor for the tag '(.*)'", error.problem or "")
    if tag is None:
        return f"{where}: no YAML that can be read: {error.problem or error.context}"
    name = tag[1].replace("tag:yaml.org,2002:", "!!")
    return (
        f"{where}: the tag {name} asks for a Python object; a YAML configuration is read as plain "
        "data. Write a value in its place"
    )


def _check(path: str, data: Any) -> None:
    """Raises ConfigError unless data is made of plain values, lists and dicts."""
    left = [("", data, 0)]
    seen = 0
    while left:
        where, value, depth = left.pop()
        seen += 1
        if seen > _MAX_VALUES or depth > _MAX_DEPTH:
            raise ConfigError(
                f"{path} has more than {_MAX_VALUES} values, or is more than {_MAX_DEPTH} deep: "
                "that is no configuration"
            )
        if isinstance(value, dict):
            for key in value:
                if not isinstance(key, str):
                    raise ConfigError(f"{path}: {where or 'the file'} has the key {key!r}, no text")
            left += [(f"{where}.{key}".lstrip("."), value[key], depth + 1) for key in value]
        elif isinstance(value, list):
            left += [(f"{where}.{index}", entry, depth + 1) for index, entry in enumerate(value)]
        elif isinstance(value, str):
            _check_text(path, where, value)
        elif not isinstance(value, (bool, int, float, type(None))):
            raise ConfigError(
                f"{path}: {where} is a {type(value).__name__}; allowed are numbers, texts, "
                "true, false, null, lists and dicts (quote a text)"
            )


def _check_text(path: str, where: str, text: str) -> None:
    if "${" in _PLAIN_TEXT.sub("", text):
        raise ConfigError(
            f"{path}: {where} is {text!r}; a YAML configuration may refer to other values, as "
            "${train.seed}, count lists, as ${count:${dataset_spec.classes}}, and number classes, "
            "as ${labels:${dataset_spec.classes},barrier}. Write the value in its place"
        )
    if text == "???":  # OmegaConf's sign for a value that is still to come
        raise ConfigError(f"{path}: {where} is '???', no value: write one")

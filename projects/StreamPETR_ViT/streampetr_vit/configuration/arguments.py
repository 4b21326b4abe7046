"""Which keys a part of a configuration may have: the arguments of what it describes."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

from detectron2.utils.registry import locate
from omegaconf import DictConfig, ListConfig

from streampetr_vit.errors import ConfigError, one_line


def target_of(node: DictConfig) -> Any:
    """The class or function that a described part calls.

    Raises:
        ConfigError: there is none of the name.
    """
    entry = node._get_node("_target_")
    target = entry._value() if hasattr(entry, "_value") else entry
    if not isinstance(target, str):
        return target
    try:
        return locate(target)
    # Whatever importing a module of the user's choice raises.
    except Exception as error:
        where = node._get_full_key("_target_")
        raise ConfigError(
            f"{where}={target} cannot be imported: {one_line(error)}. Write the full name of a "
            "class or function, such as torch.optim.AdamW"
        ) from error


def keys_of(node: Any) -> list[str]:
    """Keys that may be set in a node: those it has, and arguments of what it describes."""
    if isinstance(node, ListConfig):
        return [str(index) for index in range(len(node))]
    if not isinstance(node, Mapping):
        return []
    keys = [str(key) for key in node]
    if isinstance(node, DictConfig) and "_target_" in node:
        keys += [name for name in arguments_of(target_of(node))[0] if name not in keys]
    return keys


def arguments_of(target: Any) -> tuple[dict[str, inspect.Parameter], bool]:
    """Named arguments of a function or class; with **options also those of the base classes.

    Returns:
        The arguments, and whether it takes others as well.
    """
    found: dict[str, inspect.Parameter] = {}
    named = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    # A class whose __init__ takes **options passes them on to the next class.
    for place in inspect.getmro(target) if inspect.isclass(target) else (target,):
        if place is object:
            break
        try:
            parameters = inspect.signature(place).parameters.values()
        except (TypeError, ValueError):  # some built-in classes have none
            return found, True
        for parameter in parameters:
            if parameter.kind in named:
                found.setdefault(parameter.name, parameter)
        if not any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters):
            return found, False
    return found, True

"""The hooks that a configuration describes in train.hooks."""

from __future__ import annotations

from typing import Any

from detectron2.engine import HookBase
from omegaconf import DictConfig

from streampetr_vit.configuration.described import call
from streampetr_vit.engine.hook_states import plain
from streampetr_vit.errors import ConfigError


def configured_hooks(cfg: DictConfig) -> list[HookBase]:
    """Makes the hooks of train.hooks, in their order; on all ranks alike.

    Raises:
        ConfigError: one is no hook of detectron2's kind, or has a state that cannot be saved or
            restored.
        InputError: one cannot be made of its settings.
    """
    found = []
    for index, part in enumerate(cfg.train.get("hooks") or ()):  # an older config.yaml lacks it
        hook = call(part)
        where = f"train.hooks[{index}]"
        if not isinstance(hook, HookBase):
            raise ConfigError(
                f"{where} makes a {type(hook).__qualname__}, which is no hook: name a class that "
                "is derived from detectron2.engine.HookBase"
            )
        _check_state(where, hook)
        found.append(hook)
    return found


def has_state(hook: HookBase) -> bool:
    """Whether a hook saves a state with the trainer."""
    return type(hook).state_dict is not HookBase.state_dict


def _check_state(where: str, hook: Any) -> None:
    """Raises ConfigError where a resume, days later, would find no state, or no way to take it."""
    name = type(hook).__qualname__
    if has_state(hook) and not hasattr(hook, "load_state_dict"):
        raise ConfigError(
            f"{where}: {name} has state_dict and no load_state_dict, so that no resume can restore "
            "it: give it both or neither"
        )
    try:
        plain(hook.state_dict())
    except AttributeError:  # a state of the trainer, which the hook does not have yet
        return
    except TypeError as error:
        raise ConfigError(f"{where}: the state of {name} cannot be saved: {error}") from error

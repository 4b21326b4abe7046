"""The states of hooks in a checkpoint, and which of them belongs to which hook."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
from detectron2.engine import HookBase
from torch import Tensor

from streampetr_vit.errors import CheckpointError, UserError, one_line

logger = logging.getLogger(__name__)

_PLAIN = (type(None), bool, int, float, str, bytes)


def hooks_state(hooks: Iterable[HookBase]) -> dict[str, Any]:
    """The states of those hooks that have one.

    Not detectron2's way, which keeps the state of one hook of each class only.

    Returns:
        By the name of the class; of the second hook of a class, that name and "#2", and so on. A
        state is made of plain values and tensors, which a checkpoint can hold. One that is not is
        left out, with an error in the log.
    """
    found = {}
    for key, hook in _keys(hooks):
        state = hook.state_dict()
        if state:
            try:
                found[key] = plain(state)
            except TypeError as error:
                # No reason to lose the rest of the checkpoint.
                logger.error("the state of the hook %s is not saved: %s", key, error)
    return found


def load_hooks_state(hooks: Iterable[HookBase], states: Mapping[str, Any]) -> None:
    """Gives each hook its state; a warning names what does not go together.

    Args:
        hooks: in the order in which they were when the states were saved.
        states: of `hooks_state`, or of detectron2.

    Raises:
        CheckpointError: a hook cannot take its state.
    """
    left = dict(states)
    for key, hook in _keys(hooks):
        if key in left:
            with _named(key):
                hook.load_state_dict(left.pop(key))  # type: ignore[attr-defined]
        elif hook.state_dict():
            logger.warning("the checkpoint has no state of the hook %s: it begins anew", key)
    for key in left:
        logger.warning("this run has no hook %s: its state in the checkpoint is dropped", key)


@contextmanager
def _named(key: str) -> Iterator[None]:
    try:
        yield
    except UserError:
        raise
    except Exception as error:  # a hook of the user may raise anything
        raise CheckpointError(
            f"cannot resume: the hook {key} does not take its state in the checkpoint "
            f"({type(error).__name__}: {one_line(error)}). Correct its load_state_dict, or resume "
            "without this hook; if it is none of yours, the checkpoint is damaged: resume from an "
            "earlier one"
        ) from error


def plain(value: Any) -> Any:
    """The same value of lists, tuples and dicts; numpy's scalars become Python's numbers.

    Raises:
        TypeError: a checkpoint that holds it could not be read.
    """
    if type(value) in _PLAIN or isinstance(value, Tensor):
        return value
    if isinstance(value, np.generic):
        return plain(value.item())
    if isinstance(value, Mapping):
        return {plain(key): plain(entry) for key, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return (list if isinstance(value, list) else tuple)(plain(entry) for entry in value)
    raise TypeError(
        f"it holds a {type(value).__module__}.{type(value).__qualname__}; allowed are numbers, "
        "texts, tensors, and lists, tuples and dicts of them"
    )


def _keys(hooks: Iterable[HookBase]) -> Iterable[tuple[str, HookBase]]:
    """Each hook with the name of its state."""
    seen: Counter[str] = Counter()
    for hook in hooks:
        name = type(hook).__qualname__
        seen[name] += 1
        yield (name if seen[name] == 1 else f"{name}#{seen[name]}"), hook

"""Reading checkpoints without executing them, and saying plainly what did not fit.

A file that loads nothing, or half of a model, must not pass for a loaded one: evaluating a
backbone-only file "works" and gives mAP 0.
"""

from __future__ import annotations

import logging
import os
import pickle
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from detectron2.checkpoint import DetectionCheckpointer
from torch import Tensor, nn

from streampetr_vit.errors import UserError

logger = logging.getLogger(__name__)

_RENAME = "save a flat dict of tensors under our names first (see checkpoint/adapters.py)"


class CheckpointError(UserError, RuntimeError):
    """A checkpoint file is missing, unreadable, or does not fit the model."""


def read_checkpoint(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Reads a checkpoint file into memory on the CPU.

    Args:
        path: a file of `torch.save` (read with weights_only=True, so that nothing in it is
            executed) or a .safetensors file.

    Returns:
        What the file holds; a .safetensors file is a flat dict of tensors.

    Raises:
        CheckpointError: missing or unreadable file, or one that does not hold a dict.
    """
    path = os.fspath(path)
    if not os.path.isfile(path):
        raise CheckpointError(
            f"checkpoint {path!r} does not exist (current folder: {os.getcwd()}); correct "
            "train.init_checkpoint or, with --resume, the file last_checkpoint in the output folder"
        )
    try:
        if path.endswith(".safetensors"):
            from safetensors.torch import load_file

            return load_file(path)
        content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise CheckpointError(
            f"{path} is not a checkpoint, or holds Python objects beside tensors, which are not "
            f"loaded for safety; if you trust the file, {_RENAME}. ({_first_line(error)})"
        ) from error
    except Exception as error:  # torch and safetensors raise many types for damaged files
        raise CheckpointError(
            f"{path} ({os.path.getsize(path)} bytes) cannot be read: it is damaged, incomplete or "
            f"not a checkpoint; copy or download it again. ({_first_line(error)})"
        ) from error
    if not isinstance(content, dict):
        raise CheckpointError(f"{path} holds a {type(content).__name__}, not a dict of tensors")
    return content


@dataclass(frozen=True)
class KeyReport:
    """How the tensors of a checkpoint fit a model.

    Attributes:
        matched: names in both, with equal shapes.
        missing: names that only the model has.
        unused: names that only the checkpoint has.
        wrong_shape: (name, shape in the checkpoint, shape in the model).
    """

    matched: tuple[str, ...]
    missing: tuple[str, ...]
    unused: tuple[str, ...]
    wrong_shape: tuple[tuple[str, tuple[int, ...], tuple[int, ...]], ...]

    @staticmethod
    def compare(checkpoint: dict[str, Tensor], model: dict[str, Tensor]) -> KeyReport:
        """Compares two state dicts by name and shape."""
        common = [name for name in model if name in checkpoint]
        shapes = [
            (name, tuple(checkpoint[name].shape), tuple(model[name].shape)) for name in common
        ]
        return KeyReport(
            matched=tuple(name for name, theirs, ours in shapes if theirs == ours),
            missing=tuple(name for name in model if name not in checkpoint),
            unused=tuple(name for name in checkpoint if name not in model),
            wrong_shape=tuple(row for row in shapes if row[1] != row[2]),
        )

    def summary(self) -> str:
        """The counts, and what is missing or unused by group, on one line each."""
        lines = [f"{len(self.matched)} tensors loaded"]
        if self.missing:
            lines.append(f"not in the checkpoint, keep their start values: {groups(self.missing)}")
        if self.unused:
            lines.append(f"in the checkpoint, not used: {groups(self.unused)}")
        return "\n  ".join(lines)


def groups(names: Iterable[str]) -> str:
    """Names counted by their first two parts: "backbone.net (459), head.decoder (120)"."""
    counts = Counter(".".join(name.split(".")[:-1][:2]) or name for name in names)
    return ", ".join(f"{group} ({count})" for group, count in counts.items())


class SafeCheckpointer(DetectionCheckpointer):
    """detectron2's checkpointer with safe reading and checks before any weight is written.

    Args:
        model: the detector, wrapped for distribution or not.
        save_dir: folder of checkpoints.
        require_all: every tensor of the model must be in the file (evaluation, resume).
        allow_wrong_shape: tensors of another shape keep their start values, with a warning,
            instead of being an error (fine-tuning with another set of classes).
        checkpointables: as detectron2's.
    """

    def __init__(
        self,
        model: nn.Module,
        save_dir: str = "",
        *,
        require_all: bool = False,
        allow_wrong_shape: bool = False,
        **checkpointables: Any,
    ) -> None:
        super().__init__(model, save_dir, **checkpointables)
        self._require_all = require_all
        self._allow_wrong_shape = allow_wrong_shape
        self._file = ""

    def load(self, path: str, checkpointables: list[str] | None = None) -> dict[str, Any]:
        """Loads weights, and the named checkpointables (None: all that the file has).

        Args:
            path: a local file; "" loads nothing.
            checkpointables: names given at construction.

        Returns:
            What else the file holds.

        Raises:
            CheckpointError: see `read_checkpoint` and `fit`.
        """
        if path and "://" not in path and not os.path.isfile(path):
            read_checkpoint(path)  # raises, with the fix
        return super().load(path, checkpointables)

    def resume_or_load(self, path: str, *, resume: bool = True) -> dict[str, Any]:
        """Resumes from `save_dir`'s last checkpoint, completely, or starts from `path`."""
        if not (resume and self.has_checkpoint()):
            return self.load(path, checkpointables=[])
        self._require_all, required = True, self._require_all
        try:
            return self.load(self.get_checkpoint_file())
        finally:
            self._require_all = required

    def _load_file(self, filename: str) -> dict[str, Any]:
        self._file = filename
        content = read_checkpoint(filename)
        return content if isinstance(content.get("model"), dict) else {"model": content}

    def _load_model(self, checkpoint: dict[str, Any]) -> Any:
        state = _tensors_only(checkpoint["model"], self._file)
        if all(name.startswith("module.") for name in state):
            state = {name.removeprefix("module."): value for name, value in state.items()}
        checkpoint["model"] = state
        report = KeyReport.compare(state, self.model.state_dict())
        self._check(report)
        logger.info("%s:\n  %s", self._file, report.summary())
        return super()._load_model(checkpoint)

    def _check(self, report: KeyReport) -> None:
        """Raises CheckpointError if the file does not fit well enough."""
        if not report.matched:
            raise CheckpointError(
                f"{self._file}: no tensor matches the model. Names in the file: "
                f"{_examples(report.unused)}; names in the model: {_examples(report.missing)}. "
                f"Wrong prefix or another model? For weights of another project, {_RENAME}."
            )
        if report.wrong_shape:
            listed = "; ".join(
                f"{name} is {theirs} in the file, {ours} in the model"
                for name, theirs, ours in report.wrong_shape[:5]
            )
            count = len(report.wrong_shape)
            if not self._allow_wrong_shape or self._require_all:
                raise CheckpointError(
                    f"{self._file}: {count} tensors have another shape: {listed}. Use the model "
                    f"configuration of the file, or {_RENAME}. (To start a new training from the "
                    "rest: train.init_allow_wrong_shape=True.)"
                )
            logger.warning(
                "%s: %d tensors of another shape left out: %s", self._file, count, listed
            )
        if self._require_all and report.missing:
            raise CheckpointError(
                f"{self._file} is not a whole detector: {len(report.missing)} of the model's "
                f"tensors are not in it: {groups(report.missing)}. Evaluation and --resume need a "
                "checkpoint that was trained with this configuration (OUTPUT/model_final.pth); a "
                "backbone file can only start a training."
            )

    def _log_incompatible_keys(self, incompatible: Any) -> None:
        """Nothing: `_load_model` has reported by group, where detectron2 lists every name."""


def _tensors_only(state: dict[str, Any], path: str) -> dict[str, Tensor]:
    for name, value in state.items():
        if not isinstance(value, Tensor):
            raise CheckpointError(
                f"{path}: entry {name!r} is a {type(value).__name__}, not a tensor: the weights "
                f"are nested in a way of another project (top-level entries: {_examples(state)}); "
                f"{_RENAME}"
            )
    return state


def _examples(names: Iterable[str]) -> str:
    listed = list(names)
    return ", ".join(listed[:3]) + (", ..." if len(listed) > 3 else "") if listed else "none"


def _first_line(error: Exception) -> str:
    return f"{type(error).__name__}: {(str(error).splitlines() or [''])[0][:200]}"

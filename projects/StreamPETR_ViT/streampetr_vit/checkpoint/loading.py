"""Loading checkpoints into models, and saying plainly what did not fit.

A file that loads nothing, or half of a model, must not pass for a loaded one: evaluating a
backbone-only file "works" and gives mAP 0.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from typing import Any

import torch
from detectron2.checkpoint import DetectionCheckpointer
from torch import Tensor, nn

from streampetr_vit.checkpoint.files import SETTINGS, read_checkpoint
from streampetr_vit.checkpoint.fit import KeyReport, examples, groups
from streampetr_vit.checkpoint.formats import format_of, weights_of
from streampetr_vit.checkpoint.settings import differences, parse_settings, settings_of
from streampetr_vit.errors import CheckpointError

__all__ = ["CheckpointError", "SafeCheckpointer", "read_checkpoint"]

logger = logging.getLogger(__name__)


class SafeCheckpointer(DetectionCheckpointer):
    """detectron2's checkpointer with safe reading and checks before any weight is written.

    Args:
        model: the detector, wrapped for distribution or not.
        save_dir: folder of checkpoints.
        require_all: every tensor of the model must be in the file (evaluation), and what the file
            records of window sizes and ranges must be the model's. Resuming always asks for it.
        allow_wrong_shape: tensors of another shape keep their start values, with a warning,
            instead of being an error (fine-tuning with another set of classes).
        allow_partial: a file with half of the ViT's tensors is no error.
        checkpointables: as detectron2's.
    """

    def __init__(
        self,
        model: nn.Module,
        save_dir: str = "",
        *,
        require_all: bool = False,
        allow_wrong_shape: bool = False,
        allow_partial: bool = False,
        **checkpointables: Any,
    ) -> None:
        super().__init__(model, save_dir, **checkpointables)
        self._require_all = require_all
        self._allow_wrong_shape = allow_wrong_shape
        self._allow_partial = allow_partial
        self._resuming = False
        self._file = ""
        self._lazily = False

    def save(self, name: str, **kwargs: Any) -> None:
        """Saves a checkpoint as detectron2 does, with the settings of the model beside it."""
        super().save(name, **{SETTINGS: settings_of(self.model), **kwargs})

    def load(self, path: str, checkpointables: list[str] | None = None) -> dict[str, Any]:
        """Loads weights, and the named checkpointables (None: all that the file has).

        Args:
            path: a local file; "" loads nothing.
            checkpointables: names given at construction.

        Returns:
            What else the file holds.

        Raises:
            CheckpointError: see `read_checkpoint`; a file of another project; a file that does not
                fit (see the class); weights that are not finite.
        """
        if path and "://" not in path and not os.path.isfile(path):
            read_checkpoint(path)  # raises, with the fix
        # Weights are copied into the model. The state of an optimiser is not: it must not depend
        # on a file that training may overwrite.
        self._lazily = not (self.checkpointables if checkpointables is None else checkpointables)
        return super().load(path, checkpointables)

    def resume_or_load(self, path: str, *, resume: bool = True) -> dict[str, Any]:
        """Resumes from `save_dir`'s last checkpoint, completely, or starts from `path`.

        Raises:
            CheckpointError: as `load`; to resume from a file without every checkpointable.
        """
        if not (resume and self.has_checkpoint()):
            return self.load(path, checkpointables=[])
        self._resuming = True
        try:
            return self.load(self.get_checkpoint_file())
        finally:
            self._resuming = False

    @property
    def _needs_all(self) -> bool:
        return self._require_all or self._resuming

    def _load_file(self, filename: str) -> dict[str, Any]:
        self._file = filename
        content = read_checkpoint(filename, lazily=self._lazily)
        beside = content if isinstance(content.get("model"), Mapping) else {}
        return {**beside, "model": weights_of(content, filename)}

    def _load_model(self, checkpoint: dict[str, Any]) -> Any:
        state, model = checkpoint["model"], self.model.state_dict()
        report = KeyReport.compare(state, model)
        self._check(report, state)
        self._check_settings(checkpoint.get(SETTINGS))
        if self._resuming:
            self._check_state(checkpoint)
        else:
            self._check_finite(report, state)
        level = logging.WARNING if report.missing or report.unused else logging.INFO
        logger.log(level, "checkpoint %s: %s", self._file, report.summary())
        # The model's own values stand for what is missing: they stay, and neither torch nor
        # detectron2 finds anything to say that the report has not said.
        checkpoint["model"] = {**model, **{name: state[name] for name in report.matched}}
        return super()._load_model(checkpoint)

    def _check(self, report: KeyReport, state: Mapping[str, Tensor]) -> None:
        """Raises CheckpointError if the file does not fit well enough."""
        if not report.matched and not report.wrong_shape:
            raise CheckpointError(
                f"{self._file}: no tensor matches the model. Names in the file: {examples(state)}; "
                f"names in the model: {examples(report.missing)}. {self._what_to_do(state)}"
            )
        if report.wrong_shape:
            self._check_shapes(report)
        if self._needs_all and report.missing:
            hint = ""
            if all(name.startswith("image_head.") for name in report.missing):
                hint = (
                    " Inference does not need the 2D head: to go without it, model.image_head=null "
                    "model.criterion.image=null."
                )
            raise CheckpointError(
                f"{self._file} is not a whole detector: {len(report.missing)} of the model's "
                f"tensors are not in it: {groups(report.missing)}. Evaluation and --resume need a "
                "checkpoint that was trained with this configuration (OUTPUT/model_final.pth); a "
                f"backbone file can only start a training.{hint}"
            )
        half = report.half_backbone()
        if half is not None and not self._allow_partial:
            raise CheckpointError(
                f"{self._file} is {half}. {self._what_to_do(state)} (To start a new training from "
                "it all the same: train.init_allow_partial=True.)"
            )

    def _check_shapes(self, report: KeyReport) -> None:
        """Raises CheckpointError for tensors of another shape, or warns where they are allowed."""
        what = f"{self._file}: {len(report.wrong_shape)} tensors have another shape: " + "; ".join(
            f"{name} is {theirs} in the file, {ours} in the model"
            for name, theirs, ours in report.wrong_shape[:5]
        )
        if report.matched and self._allow_wrong_shape and not self._needs_all:
            logger.warning("%s. They keep their start values", what)
            return
        way_out = " (To start a new training from the rest: train.init_allow_wrong_shape=True.)"
        raise CheckpointError(f"{what}. {report.shape_hint()}.{'' if self._needs_all else way_out}")

    def _check_settings(self, recorded: object) -> None:
        """Compares what tensors do not tell: windows and ranges."""
        found = differences(parse_settings(recorded, self._file), settings_of(self.model))
        if found and self._needs_all:
            raise CheckpointError(
                f"{self._file}: {'; '.join(found)}. (To load it all the same, write it once more "
                "with tools/convert_checkpoint.py --allow-other-size.)"
            )
        for line in found:
            logger.warning("%s: %s", self._file, line)

    def _check_state(self, checkpoint: Mapping[str, Any]) -> None:
        """Raises CheckpointError if a file to resume from lacks what training needs."""
        absent = [name for name in self.checkpointables if name not in checkpoint]
        if absent:
            raise CheckpointError(
                f"{self._file} cannot be resumed from: it holds weights only, no state of the "
                f"{', '.join(absent)} (optimiser, iteration). To start a new training from it: "
                "train.init_checkpoint, without --resume"
            )

    def _check_finite(self, report: KeyReport, state: Mapping[str, Tensor]) -> None:
        """Raises CheckpointError if weights are NaN or infinite."""
        bad = next((n for n in report.matched if not torch.isfinite(state[n]).all()), None)
        if bad is not None:
            raise CheckpointError(
                f"{self._file}: {bad} holds NaN or infinite numbers; the training that wrote it "
                "had diverged, or the file is damaged. Take an earlier checkpoint"
            )

    def _what_to_do(self, state: Mapping[str, Tensor]) -> str:
        try:
            known = format_of(state, self._file)
        except CheckpointError as error:
            return f"Wrong prefix or another model? {error}."
        if known in ("ours", "eva02-det"):
            return "Its names need no conversion: use the model of the file."
        return (
            "Convert the file first: python tools/convert_checkpoint.py "
            f"--from {known} {self._file} CONVERTED.pth."
        )

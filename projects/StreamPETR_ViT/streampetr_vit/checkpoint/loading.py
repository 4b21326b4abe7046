"""Loading checkpoints into models, and saying plainly what did not fit."""

from __future__ import annotations

import functools
import logging
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from detectron2.checkpoint import DetectionCheckpointer
from torch import Tensor, nn

from streampetr_vit.checkpoint import manifest
from streampetr_vit.checkpoint.adapters.known_files import format_of
from streampetr_vit.checkpoint.adapters.renaming import examples
from streampetr_vit.checkpoint.files import SETTINGS, read_checkpoint, write_torch
from streampetr_vit.checkpoint.fit import KeyReport, groups
from streampetr_vit.checkpoint.formats import AVERAGE, weights_of
from streampetr_vit.checkpoint.given_file import NAMED_BY_SETTING
from streampetr_vit.checkpoint.settings import (
    LOSSES,
    Settings,
    differences,
    parse_settings,
    settings_of,
    take_over,
)
from streampetr_vit.errors import CheckpointError, UserError, one_line
from streampetr_vit.files import replacing

__all__ = ["CheckpointError", "SafeCheckpointer", "read_checkpoint"]

logger = logging.getLogger(__name__)

_FLOATS = (torch.float32, torch.float16, torch.bfloat16, torch.float64)
_WHOLE = (torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8, torch.bool)
# Parts that inference can do without, by how their tensors begin.
_DISPENSABLE = {
    "image_head.": (
        " Inference does not need the 2D head: to go without it, model.image_head=null "
        "model.criterion.image=null."
    ),
    "head.quality_branch.": (
        " To rank its detections by their class alone: model.head.with_quality=False "
        "model.head.remember_by_quality=False. (To teach it the quality, start a new training from "
        "it: train.init_checkpoint.)"
    ),
}


class SafeCheckpointer(DetectionCheckpointer):
    """detectron2's checkpointer with safe reading and checks before any weight is written.

    Args:
        model: the detector, wrapped for distribution or not.
        save_dir: folder of checkpoints.
        require_all: the file must have every tensor of the model, and be for its window sizes and
            ranges (evaluation). Resuming always asks for it.
        allow_wrong_shape: tensors of another shape keep their start values, with a warning,
            instead of being an error (fine-tuning with another set of classes).
        allow_partial: a file with half of the ViT's tensors is no error.
        weights: which of a file's weights `load` takes, "model" or "ema", their moving average.
            Resuming always takes the model's.
        optional: names of checkpointables that may be missing in a file to resume from. They keep
            their state then.
        leave_out: how names of tensors begin that the file may have and the model shall not.
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
        weights: str = "model",
        optional: Collection[str] = (),
        leave_out: tuple[str, ...] = (),
        **checkpointables: Any,
    ) -> None:
        super().__init__(model, save_dir, **checkpointables)
        self._require_all = require_all
        self._allow_wrong_shape = allow_wrong_shape
        self._allow_partial = allow_partial
        self._averaged, self._optional = weights == AVERAGE, optional
        self._leave_out = leave_out

    def save(self, name: str, **kwargs: Any) -> None:
        """Saves a checkpoint as detectron2 does, with the settings of the model beside it."""
        if self.save_dir and self.save_to_disk:
            self.write(name, self.content(**kwargs))

    def content(self, **more: Any) -> dict[str, Any]:
        """What a checkpoint holds now: the live tensors, which the next step changes."""
        states = {key: part.state_dict() for key, part in self.checkpointables.items()}
        return {
            "model": self.model.state_dict(),
            **states,
            SETTINGS: settings_of(self.model),
            **more,
        }

    def write(self, name: str, content: Mapping[str, Any], *, is_last: bool = True) -> None:
        """Writes a checkpoint and its checksum; safe to call in a thread.

        Args:
            name: of the file, without its ending.
            content: of `content`.
            is_last: whether a resume goes on from it.
        """
        path = Path(self.save_dir, f"{name}.pth")
        logger.info("Saving checkpoint to %s", path)
        note = functools.partial(manifest.note, self.save_dir, path.name)
        forget = functools.partial(manifest.forget, self.save_dir, path.name)
        # A kill at any moment leaves a manifest that is true of the files that are there.
        is_new = not path.exists()
        digest = write_torch(path, content, note if is_new else lambda digest: forget())
        if not is_new:  # a new one is listed already
            note(digest)
        if is_last:
            self.tag_last_checkpoint(path.name)

    def tag_last_checkpoint(self, last_filename_basename: str) -> None:
        """Notes the checkpoint to resume from."""
        with replacing(Path(self.save_dir, "last_checkpoint")) as temporary:
            temporary.write_text(last_filename_basename)

    def load(self, path: str, checkpointables: list[str] | None = None) -> dict[str, Any]:
        """Loads weights and the named checkpointables (None: all); returns what else the file has.

        Raises:
            CheckpointError: as `read_checkpoint`, a file that does not fit, weights not finite.
        """
        if not path:
            return super().load(path)  # says that the model starts from scratch
        names = self.checkpointables if checkpointables is None else checkpointables
        return self._load(path, list(names))

    def resume_or_load(self, path: str, *, resume: bool = True) -> dict[str, Any]:
        """Resumes from `save_dir`'s last checkpoint, completely, or starts from `path`."""
        if resume and self.has_checkpoint():
            return self.resume(self.get_checkpoint_file())
        return self.load(path, checkpointables=[])

    def resume(self, path: str) -> dict[str, Any]:
        """Loads a checkpoint with the state of everything that it was saved with.

        Raises:
            CheckpointError: as `load`; a part of the model or of the state is not in the file.
        """
        return self._load(path, list(self.checkpointables), resuming=True)

    def _load(self, path: str, names: list[str], resuming: bool = False) -> dict[str, Any]:
        path = self._local_path(path)
        # Weights are copied into the model. The state of an optimiser is not: it must not depend
        # on a file that training may overwrite.
        content = read_checkpoint(path, lazily=not names, advice=NAMED_BY_SETTING)
        weights = weights_of(content, path, averaged=self._averaged and not resuming)
        weights = {n: value for n, value in weights.items() if not n.startswith(self._leave_out)}
        model = self.model.state_dict()
        rest = dict(content) if isinstance(content.get("model"), Mapping) else {}
        rest.pop("model", None)
        # Half of a model must not pass for a loaded one: evaluating a backbone gives mAP 0.
        report = KeyReport.compare(weights, model)
        matched = {name: weights[name] for name in report.matched}
        self._check_names(path, report, weights, self._require_all or resuming)
        recorded = parse_settings(rest.get(SETTINGS), path)
        self._check_settings(path, recorded, self._require_all or resuming)
        if resuming:
            needed = [name for name in names if name not in self._optional]
            _check_state(path, [name for name in needed if name not in rest])
        _check_numbers(path, matched, model)
        level = logging.WARNING if report.missing or report.unused else logging.INFO
        logger.log(level, "checkpoint %s: %s", path, report.summary())
        # The model's own values stand for what is missing: the report has named it, and
        # `modeling.loading_warning` need not.
        self.model.load_state_dict({**model, **matched})
        if self._require_all or resuming:  # not of a file that another training begins from
            take_over(recorded, self.model)
        for name in names:
            if name in rest:
                with _damaged_state(path, name):
                    self.checkpointables[name].load_state_dict(rest.pop(name))
        return rest

    def _local_path(self, path: str) -> str:
        """The file of a path; that of an address on the network is fetched once."""
        try:
            return str(self.path_manager.get_local_path(path))
        except Exception as error:  # what the network can raise is not listed anywhere
            raise CheckpointError(
                f"checkpoint {path!r} cannot be fetched ({one_line(error)}): check the address and "
                "the network, or download the file and pass its path"
            ) from error

    def _check_names(
        self, path: str, report: KeyReport, weights: Mapping[str, Tensor], needs_all: bool
    ) -> None:
        if not report.matched and not report.wrong_shape:
            raise CheckpointError(
                f"{path}: no tensor matches the model. Names in the file: {examples(weights)}; "
                f"names in the model: {examples(report.missing)}. {_what_to_do(path, weights)}"
            )
        if report.wrong_shape:
            what = f"{path}: {report.wrong_shapes()}. {report.shape_hint()}."
            if needs_all or not report.matched:
                raise CheckpointError(what)
            if not self._allow_wrong_shape:
                raise CheckpointError(
                    f"{what} (To start a new training from the rest: "
                    "train.init_allow_wrong_shape=True.)"
                )
            logger.warning("%s: %s. They keep their start values", path, report.wrong_shapes())
        if needs_all and report.missing:
            raise CheckpointError(
                f"{path} is not a whole detector: {len(report.missing)} of the model's tensors are "
                f"not in it: {groups(report.missing)}. Evaluation and --resume need a checkpoint "
                "that was trained with this configuration (OUTPUT/model_final.pth); a backbone "
                f"file can only start a training.{_how_to_do_without(report.missing)}"
            )
        half = report.half_backbone()
        if half is not None and not self._allow_partial:
            raise CheckpointError(
                f"{path} is {half}. {_what_to_do(path, weights)} (To start a new training from it "
                "all the same: train.init_allow_partial=True.)"
            )

    def _check_settings(self, path: str, recorded: Settings, needs_all: bool) -> None:
        """Compares windows and ranges, which tensors do not tell."""
        found = differences(recorded, settings_of(self.model))
        lines = [line for name, line in found.items() if name not in LOSSES]
        if lines and needs_all:
            raise CheckpointError(
                f"{path}: {'; '.join(lines)}. (To load it all the same, write it once more with "
                "tools/convert_checkpoint.py --allow-other-size.)"
            )
        for line in lines:
            logger.warning("%s: %s", path, line)


def _how_to_do_without(missing: Collection[str]) -> str:
    """Settings of a detector without what is missing, if inference does not need it."""
    if not all(name.startswith(tuple(_DISPENSABLE)) for name in missing):
        return ""
    parts = {start for start in _DISPENSABLE if any(name.startswith(start) for name in missing)}
    return "".join(hint for start, hint in _DISPENSABLE.items() if start in parts)


def _check_state(path: str, absent: list[str]) -> None:
    if absent:
        raise CheckpointError(
            f"{path} cannot be resumed from: it holds weights only, no state of the "
            f"{', '.join(absent)} (optimiser, iteration). To start a new training from it: "
            "train.init_checkpoint, without --resume"
        )


def _check_numbers(path: str, weights: Mapping[str, Tensor], model: Mapping[str, Tensor]) -> None:
    """Refuses numbers of another kind than the model's, which copying would change, and NaN."""
    for name, value in weights.items():
        kinds = _FLOATS if model[name].is_floating_point() else _WHOLE
        if value.dtype not in kinds:
            raise CheckpointError(
                f"{path}: {name} holds {_name(value.dtype)}, the model's is "
                f"{_name(model[name].dtype)}; a quantised or converted file cannot be loaded. Take "
                "the file that it was made from"
            )
        if not torch.isfinite(value).all():
            raise CheckpointError(
                f"{path}: {name} holds NaN or infinite numbers; the training that wrote it had "
                "diverged, or the file is damaged. Take an earlier checkpoint"
            )


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


@contextmanager
def _damaged_state(path: str, name: str) -> Iterator[None]:
    """Says in one line that the state of a training is not what this package has written."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:  # the file may hold anything in any place
        raise CheckpointError(
            f"{path} cannot be resumed from: its state of the {name} is damaged, or of another "
            f"program ({type(error).__name__}: {one_line(error)}). Resume from an earlier "
            "checkpoint; or start a new training from its weights, with train.init_checkpoint and "
            "without --resume"
        ) from error


def _what_to_do(path: str, names: Iterable[str]) -> str:
    """How a file that does not fit could be loaded."""
    try:
        known = format_of(names, path)
    except CheckpointError as error:
        return f"Wrong prefix or another model? {error}."
    if known in ("ours", "eva02-det"):
        return "Its names need no conversion: use the model of the file."
    return (
        f"Convert the file first: python tools/convert_checkpoint.py --from {known} {path} "
        "CONVERTED.pth."
    )

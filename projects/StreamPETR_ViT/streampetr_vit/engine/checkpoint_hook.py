"""When checkpoints are written, and which of them stay."""

from __future__ import annotations

import os
import re
from pathlib import Path

from detectron2.engine import HookBase

from streampetr_vit.checkpoint.loading import SafeCheckpointer

FINAL_CHECKPOINT = "model_final"
_NUMBERED = re.compile(r"model_\d{7,}\.pth")


class CheckpointHook(HookBase):
    """Saves model_NNNNNNN.pth every period, and model_final.pth after the last step.

    Args:
        checkpointer: that writes them; what it saves holds the iteration that was just done.
        period: iterations from one to the next.
        max_to_keep: numbered files that stay in the folder, those of earlier starts included; None
            for all. model_final.pth does not count.
    """

    def __init__(
        self, checkpointer: SafeCheckpointer, period: int, max_to_keep: int | None = None
    ) -> None:
        self._checkpointer, self._period, self._max_to_keep = checkpointer, period, max_to_keep
        self._done: int | None = None  # the last step that is complete
        self._saved: int | None = None  # the step of the last checkpoint

    def after_step(self) -> None:
        """Saves if it is time to."""
        self._done = self.trainer.iter
        if (self.trainer.iter + 1) % self._period == 0:
            self._save(checkpoint_name(self.trainer.iter))
            self._remove_old()
        # max_iter is read now: `ScheduleHook` may have lowered it.
        if self.trainer.iter >= self.trainer.max_iter - 1:
            self._save(FINAL_CHECKPOINT)

    def save_now(self) -> str | None:
        """Saves the last complete step, unless that is done; the newest checkpoint's path.

        To be called between two steps. None if there was no step.
        """
        if self._done is None:
            return None
        if self._saved != self._done:
            self._save(checkpoint_name(self._done))
        return self._checkpointer.get_checkpoint_file()

    def _save(self, name: str) -> None:
        self._checkpointer.save(name, iteration=self._done)
        self._saved = self._done

    def _remove_old(self) -> None:
        """Removes the oldest numbered files. Not before the new one is whole."""
        if self._max_to_keep is None:
            return
        files = numbered_checkpoints(self._checkpointer.save_dir)
        last = os.path.basename(self._checkpointer.get_checkpoint_file())
        for path in files[: -self._max_to_keep]:
            if path.name != last:
                path.unlink(missing_ok=True)


def checkpoint_name(iteration: int) -> str:
    """Name of the checkpoint of a step, without its ending."""
    return f"model_{iteration:07d}"


def numbered_checkpoints(folder: str | os.PathLike[str]) -> list[Path]:
    """The checkpoints of single steps in a folder, in the order in which they were written."""
    files = [path for path in Path(folder).iterdir() if _NUMBERED.fullmatch(path.name)]
    # By time and not by number: a run that went back to an earlier checkpoint counts anew from it.
    return sorted(files, key=lambda path: (path.stat().st_mtime_ns, path.name))

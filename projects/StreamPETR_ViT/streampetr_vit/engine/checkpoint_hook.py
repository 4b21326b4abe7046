"""When checkpoints are written, and which of them stay."""

from __future__ import annotations

import logging
import os
from typing import Any

from detectron2.engine import HookBase
from detectron2.utils import comm

from streampetr_vit.checkpoint.background import BackgroundWriter, HostCopy
from streampetr_vit.checkpoint.loading import SafeCheckpointer
from streampetr_vit.checkpoint.manifest import forget, in_order, is_numbered
from streampetr_vit.errors import OutputError

logger = logging.getLogger(__name__)

FINAL_CHECKPOINT = "model_final"


class CheckpointHook(HookBase):
    """Saves model_NNNNNNN.pth every period, and after the last step model_final.pth alone.

    All ranks have this hook and save after the same step: what each of them owns is gathered (see
    `StreamingTrainer.gather`), and rank 0 writes. The step waits for a copy to host memory, and a
    thread writes that copy.

    Args:
        checkpointer: that writes them; what it saves holds the iteration that was just done.
        period: iterations from one to the next.
        max_to_keep: numbered files that stay in the folder, those of earlier starts included; None
            for all. model_final.pth does not count.
        background: False lets the step wait for the whole write, and needs no memory for a copy.
    """

    def __init__(
        self,
        checkpointer: SafeCheckpointer,
        period: int,
        max_to_keep: int | None = None,
        background: bool = True,
    ) -> None:
        self._checkpointer, self._period, self._max_to_keep = checkpointer, period, max_to_keep
        self.folder = checkpointer.save_dir
        self._copy = HostCopy() if background else None
        self._writer = BackgroundWriter()
        self._done: int | None = None  # the last step that is complete
        self._saved: int | None = None  # the step of the last checkpoint
        self._has_final = False
        # What the ranks gave after which step.
        self._gathered: tuple[int | None, dict[str, Any]] = (None, {})

    def before_train(self) -> None:
        """After a resume, the last step is that of the checkpoint, which is saved."""
        if self.trainer.iter > 0:
            self._done = self._saved = self.trainer.iter - 1

    def after_step(self) -> None:
        """Saves if it is time to."""
        self._writer.raise_error()  # of a write that failed meanwhile
        self._done = self.trainer.iter
        # max_iter is read now: `ScheduleHook` may have lowered it.
        if self.trainer.iter >= self.trainer.max_iter - 1:
            # This one alone: a kill between two would leave a run that is complete without it.
            self._save_final()
        elif (self.trainer.iter + 1) % self._period == 0:
            self.save_as(checkpoint_name(self.trainer.iter))

    def after_train(self) -> None:
        """Saves what a later hook has made the last step, and waits for the last write."""
        has_failed = self.trainer.iter < self.trainer.max_iter
        has_trained = self.trainer.iter > self.trainer.start_iter
        try:
            if has_trained and not has_failed and not self._has_final:
                self._save_final()
            self.wait()
        except OutputError as error:
            if not has_failed:
                raise
            # The error that ended the training is the one to see.
            logger.error("the last checkpoint was not written: %s", error)

    def wait(self) -> None:
        """Waits until everything that was saved is on the disk, and raises the error of a write."""
        self._writer.wait()

    def gather(self) -> None:
        """Gathers what `save_now` will need; on all ranks, after the same step."""
        if self._gathered[0] != self._done:
            self._gathered = (self._done, self.trainer.gather())

    def save_as(self, name: str, *, is_last: bool = True) -> None:
        """Saves the last complete step; on all ranks, after the same step.

        Args:
            name: of the file, without its ending.
            is_last: whether a resume goes on from it.

        Raises:
            OutputError: this file, or the one before, cannot be written.
        """
        self.gather()
        self._save(name, is_last)

    def save_now(self) -> str | None:
        """Saves the last complete step, unless that is done, and waits; the newest one's path.

        To be called between two steps, on rank 0 at least, after `gather` on all. None if there was
        no step, and on other ranks.
        """
        if self._done is None or not comm.is_main_process():
            return None
        if self._saved != self._done:
            self._save(checkpoint_name(self._done), is_last=True)
        self._writer.wait()
        return self._checkpointer.get_checkpoint_file()

    def _save_final(self) -> None:
        self._has_final = True
        self.save_as(FINAL_CHECKPOINT)

    def _save(self, name: str, is_last: bool) -> None:
        if is_last:
            self._saved = self._done
        if not comm.is_main_process():
            return
        self._writer.wait()  # one at a time: its copy is about to be overwritten
        content = self._checkpointer.content(iteration=self._done, **self._gathered[1])
        if self._copy is None:
            self._write(name, content, is_last)
        else:
            copy = self._copy.take(content)
            self._writer.start(lambda: self._write(name, copy, is_last))

    def _write(self, name: str, content: dict[str, Any], is_last: bool) -> None:
        self._checkpointer.write(name, content, is_last=is_last)
        self._remove_old()

    def _remove_old(self) -> None:
        """Removes the oldest numbered files. Not before the new one is whole."""
        if self._max_to_keep is None:
            return
        files = [path for path in in_order(self.folder) if is_numbered(path)]
        last = os.path.basename(self._checkpointer.get_checkpoint_file())
        for path in files[: -self._max_to_keep]:
            if path.name != last:
                path.unlink(missing_ok=True)
                forget(self.folder, path.name)  # sha256sum --check fails for what is not there


def checkpoint_name(iteration: int) -> str:
    """Name of the checkpoint of a step, without its ending."""
    return f"model_{iteration:07d}"

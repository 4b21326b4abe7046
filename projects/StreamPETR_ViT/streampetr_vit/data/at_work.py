"""What loading processes are reading, so that one that dies can be named with its sample.

Each process writes the frame and the picture that it begins into memory that it shares with the
process that uses the loader. A process that is killed says nothing more, but that memory stays.
"""

from __future__ import annotations

import os
import weakref
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.utils.data import get_worker_info

from streampetr_vit.data.nuscenes.records import FrameRecord

_NONE = -1
# Of all loaders of this process that are in use.
_TABLES: weakref.WeakSet[AtWork] = weakref.WeakSet()
# The row of this process, where it is a loading process that reads.
_own_row: Tensor | None = None


class AtWork:
    """One row for each loading process of a loader: (its pid, frame, camera).

    Args:
        records: the frames.
        workers: number of loading processes.
    """

    def __init__(self, records: Sequence[FrameRecord], workers: int) -> None:
        self._records = records
        self._rows = torch.full((workers, 3), _NONE, dtype=torch.int64)
        if workers:
            self._rows.share_memory_()  # workers get the same memory, and no copy
        _TABLES.add(self)

    def begin(self, frame: int) -> None:
        """Notes the frame that this process begins to read; does nothing outside of a worker."""
        self._note(frame)

    def end(self) -> None:
        """Notes that it reads none."""
        self._note(_NONE)

    def _note(self, frame: int) -> None:
        global _own_row
        worker = get_worker_info()
        if worker is not None:
            _own_row = self._rows[worker.id]
            _own_row.copy_(torch.tensor([os.getpid(), frame, _NONE]))

    def of(self, pid: int) -> str | None:
        """What a process of this loader is reading, or was when it died; None for another's."""
        for row_pid, frame, camera in self._rows.tolist():
            if row_pid == pid:
                return "no sample" if frame == _NONE else describe(self._records, frame, camera)
        return None


def begin_picture(camera: int) -> None:
    """Notes the picture that a loading process begins to read.

    Args:
        camera: its index in the frame.
    """
    if _own_row is not None:
        _own_row[2] = camera


def describe(records: Sequence[FrameRecord], frame: int, camera: int = _NONE) -> str:
    """A sample, and a picture of it, for messages.

    Args:
        records: the frames.
        frame: index of the frame.
        camera: index of a camera, or -1 for none.
    """
    record = records[frame]
    text = f"sample {record.token} (frame {frame} of the data set, {record.scene_name})"
    return text if camera == _NONE else f"{text}, picture {record.picture(camera)}"


def at_work(pid: int) -> str | None:
    """What a loading process of any loader was reading when it died; None if nothing is known."""
    found = [table.of(pid) for table in list(_TABLES)]
    return next((text for text in found if text is not None), None)

"""Data sets and loaders: what reads samples, counts broken pictures and knows its position."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from torch.utils.data import DataLoader, Dataset

from streampetr_vit.data.at_work import AtWork, describe
from streampetr_vit.data.batch import Batch
from streampetr_vit.data.mapper import NuScenesMapper
from streampetr_vit.data.nuscenes.records import FrameRecords
from streampetr_vit.data.streaming_sampler import StreamItem
from streampetr_vit.data.window_sampler import Window
from streampetr_vit.errors import UserError, one_line
from streampetr_vit.structures import Sample

_LOG = logging.getLogger(__name__)


class ReadingError(RuntimeError):
    """A sample cannot be read, by a fault of the program. The message names the sample."""


class FrameDataset(Dataset[Any]):
    """Samples by `StreamItem`, lists of samples by window.

    Attributes:
        records, mapper, seed: the frames, what reads them, and where its draws begin.
        at_work: notes what loading processes read.
    """

    def __init__(self, records: FrameRecords, mapper: NuScenesMapper, seed: int = 0):
        self.records, self.mapper, self.seed = records, mapper, seed
        self.at_work = AtWork(records, workers=0)

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, item: StreamItem | Window) -> Sample | list[Sample]:
        if isinstance(item, StreamItem):
            return self._sample(item, [])
        # A window may repeat a frame: the position gives each its own draws.
        return [self._sample(frame, [position]) for position, frame in enumerate(item)]

    def _sample(self, item: StreamItem, position: list[int]) -> Sample:
        # A draw depends on its place in the run alone: neither on the workers nor on a restart.
        rng = np.random.default_rng([self.seed, item.iteration, item.slot, *position])
        self.at_work.begin(item.frame)
        record = self.records[item.frame]
        try:
            return self.mapper(record, continues_stream=item.continues_stream, rng=rng)
        except UserError as error:
            if record.token in str(error):
                raise
            raise type(error)(f"{describe(self.records, item.frame)}: {error}") from error
        except Exception as error:
            name = describe(self.records, item.frame)
            raise ReadingError(f"{name}: {type(error).__name__}: {error}") from error
        finally:
            self.at_work.end()


class SampleLoader:
    """Iterates batches, and counts and logs pictures that were replaced."""

    def __init__(self, loader: DataLoader[Any]):
        self._loader = loader
        self.dataset: FrameDataset = loader.dataset  # type: ignore[assignment]
        self.dataset.at_work = AtWork(self.dataset.records, loader.num_workers)
        self.bad_images = 0  # pictures that were broken so far, see `NuScenesMapper`

    def __iter__(self) -> Iterator[Batch]:
        for batch in self._batches():
            for sample in batch.samples():
                for message in sample.bad_images:
                    self.bad_images += 1
                    count = self.bad_images
                    _LOG.warning("%s; black pixels instead (bad picture %d)", message, count)
            yield batch

    def _batches(self) -> Iterator[Batch]:
        try:
            yield from self._loader
        except UserError as error:
            raise type(error)(one_line(error)) from error  # of a worker, without its traceback


class EvaluationLoader(SampleLoader):
    """The frames of one rank in temporal order, one per batch."""

    def first_sample(self) -> Sample:
        """The first frame, read in this process, whatever the number of workers."""
        return self.dataset[next(iter(self._loader.sampler))]  # type: ignore[return-value]

    @property
    def tokens(self) -> list[str]:
        """Of the samples that this rank gives, in their order."""
        tokens = self.dataset.records.tokens
        return [tokens[item.frame] for item in self._loader.sampler]

    def __len__(self) -> int:
        return len(self._loader)


class TrainLoader(SampleLoader):
    """Endless training batches, row j always from lane j, resumable."""

    def __init__(self, loader: DataLoader[Any]):
        super().__init__(loader)
        self.sampler = loader.batch_sampler  # `StreamingBatchSampler` or `WindowBatchSampler`
        self.delivered = self.sampler.start_iteration  # batches since the very start of the run
        _LOG.info("training on %d frames: %s", len(self.dataset), self.sampler.signature())

    def __iter__(self) -> Iterator[Batch]:
        self.sampler.start_iteration = self.delivered  # not what workers fetched ahead
        for batch in super().__iter__():
            self.delivered += 1
            yield batch

    def state_dict(self) -> dict[str, int]:
        """The position in the order of the frames, and what it is a position in."""
        return {"delivered": self.delivered, **self.sampler.signature()}

    def load_state_dict(self, state: Mapping[str, int]) -> None:
        """Goes on where `state` was taken; the next iterator starts there."""
        here = self.state_dict()
        keys = [key for key in {**here, **state} if key != "delivered"]
        changed = [key for key in keys if state.get(key) != here.get(key)]
        if changed:  # the position would be one in another order of frames
            changes = ", ".join(f"{key} {state.get(key)} -> {here.get(key)}" for key in changed)
            _LOG.warning("the stream starts anew: %s changed since the checkpoint", changes)
            return
        self.delivered = int(state["delivered"])

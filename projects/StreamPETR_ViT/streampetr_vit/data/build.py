"""Loaders: plain torch DataLoaders whose batch order no number of workers can change."""

from __future__ import annotations

import logging
import random
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import cv2
import numpy as np
import torch
from detectron2.data import DatasetCatalog
from detectron2.utils import comm
from torch.utils.data import DataLoader, Dataset

from streampetr_vit.data.frame_records import FrameRecords
from streampetr_vit.data.image_io import BadImageError
from streampetr_vit.data.mapper import NuScenesMapper, Sample
from streampetr_vit.data.nuscenes import dataset_name
from streampetr_vit.data.streaming_sampler import (
    StreamingBatchSampler,
    StreamItem,
    cut_sequences,
    evaluation_shard,
)
from streampetr_vit.errors import InputError

_LOG = logging.getLogger(__name__)


class FrameDataset(Dataset[Sample]):
    """Samples by `StreamItem`. Attributes: records, mapper, seed."""

    def __init__(self, records: FrameRecords, mapper: NuScenesMapper, seed: int = 0):
        self.records, self.mapper, self.seed = records, mapper, seed

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, item: StreamItem) -> Sample:
        rng = np.random.default_rng([self.seed, item.iteration, item.slot])
        return self.mapper(
            self.records[item.frame], continues_stream=item.continues_stream, rng=rng
        )


class SampleLoader:
    """Iterates batches (lists of samples), and counts and logs pictures that were replaced.

    Attributes:
        dataset: the `FrameDataset`.
        bad_images: pictures that were broken so far, see `NuScenesMapper`.
    """

    def __init__(self, loader: DataLoader[Sample]):
        self._loader = loader
        self.dataset: FrameDataset = loader.dataset  # type: ignore[assignment]
        self.bad_images = 0

    def __iter__(self) -> Iterator[list[Sample]]:
        for batch in self._batches():
            for message in (message for sample in batch for message in sample["bad_images"]):
                self.bad_images += 1
                _LOG.warning("%s; black pixels instead (bad picture %d)", message, self.bad_images)
            yield batch

    def _batches(self) -> Iterator[list[Sample]]:
        try:
            yield from self._loader
        except BadImageError as error:
            # From a worker process the message comes behind the traceback in that process.
            raise BadImageError(str(error).rpartition("BadImageError: ")[2].strip()) from error


class EvaluationLoader(SampleLoader):
    """The frames of one rank in temporal order, one per batch."""

    def __len__(self) -> int:
        return len(self._loader)


class StreamingTrainLoader(SampleLoader):
    """Endless training batches, row j always from lane j, resumable.

    Attributes:
        sampler: the `StreamingBatchSampler`.
        delivered: batches delivered since the very start of the run.
    """

    def __init__(self, loader: DataLoader[Sample], sampler: StreamingBatchSampler):
        super().__init__(loader)
        self.sampler = sampler
        self.delivered = sampler.start_iteration

    def __iter__(self) -> Iterator[list[Sample]]:
        self.sampler.start_iteration = self.delivered
        for batch in super().__iter__():
            self.delivered += 1
            yield batch

    def state_dict(self) -> dict[str, int]:
        """The position of the stream, and what it is a position in."""
        return {
            "delivered": self.delivered,
            "sequences": len(self.sampler.sequences),
            "total_slots": self.sampler.total_slots,
            "seed": self.sampler.seed,
        }

    def load_state_dict(self, state: Mapping[str, int]) -> None:
        """Goes on where `state` was taken; the next iterator starts there."""
        here = self.state_dict()
        changed = [key for key in here if key != "delivered" and state[key] != here[key]]
        if changed:
            _LOG.warning(
                "the stream starts anew: %s changed since the checkpoint",
                ", ".join(f"{key} {state[key]} -> {here[key]}" for key in changed),
            )
            return
        self.delivered = int(state["delivered"])


def open_dataset(dataset: str | Mapping[str, Any]) -> FrameRecords:
    """The records of a data set that a config names or describes (see `nuscenes.dataset_name`)."""
    return DatasetCatalog.get(dataset_name(dataset))


def build_train_loader(
    dataset: str | Mapping[str, Any],
    mapper: NuScenesMapper,
    *,
    lanes_per_rank: int,
    num_workers: int = 4,
    sequence_split: int = 1,
    sequence_length: int | None = None,
    seed: int = 0,
    start_iteration: int = 0,
    rank: int | None = None,
    world_size: int | None = None,
) -> StreamingTrainLoader:
    """Builds the endless streaming loader of one rank.

    Args:
        dataset: catalog name, or a description as `nuscenes.dataset_name` takes it.
        mapper: a training mapper.
        lanes_per_rank: streams per rank, the batch size.
        num_workers: loading processes; 0 loads in this process.
        sequence_split, sequence_length: see `streaming_sampler.cut_sequences`.
        seed: of the order and of every random draw; the same on all ranks.
        start_iteration: batches to pass over (or use `load_state_dict`).
        rank, world_size: by default those of the process group.

    Raises:
        InputError: on an evaluation mapper, a negative seed, a data set without annotations, or
            one with fewer sequences than lanes.
    """
    rank = comm.get_rank() if rank is None else rank
    world_size = comm.get_world_size() if world_size is None else world_size
    if not mapper.training:
        raise InputError("build_train_loader needs a mapper with training=True")
    if seed < 0:
        raise InputError(f"seed must be 0 or more, not {seed}: the order and all draws follow it")
    records = open_dataset(dataset)
    if not records.has_annotations:
        raise InputError(f"{records.root / records.version} has no annotations to train on")
    sequences = cut_sequences(records.scene_lengths, sequence_split, sequence_length)
    sampler = StreamingBatchSampler(
        sequences, lanes_per_rank, rank, world_size, seed, start_iteration
    )
    _LOG.info(
        "training on %d frames of %d scenes as %d sequences in %d x %d lanes",
        len(records),
        len(records.scene_lengths),
        len(sequences),
        world_size,
        lanes_per_rank,
    )
    loader = DataLoader(
        FrameDataset(records, mapper, seed),
        batch_sampler=sampler,  # type: ignore[arg-type]
        **_worker_options(num_workers, rank, seed),
    )
    return StreamingTrainLoader(loader, sampler)


def build_test_loader(
    dataset: str | Mapping[str, Any],
    mapper: NuScenesMapper,
    *,
    num_workers: int = 4,
    rank: int | None = None,
    world_size: int | None = None,
    sharding: str = "scene",
) -> EvaluationLoader:
    """Builds the evaluation loader of one rank: batches of one sample in temporal order.

    Args:
        dataset: catalog name, or a description as `nuscenes.dataset_name` takes it.
        mapper: an evaluation mapper.
        num_workers: loading processes; 0 loads in this process.
        rank, world_size: by default those of the process group.
        sharding: "scene" or "reference", see `streaming_sampler.evaluation_shard`.

    Raises:
        InputError: on a training mapper.
    """
    rank = comm.get_rank() if rank is None else rank
    world_size = comm.get_world_size() if world_size is None else world_size
    if mapper.training:
        raise InputError("build_test_loader needs a mapper with training=False")
    records = open_dataset(dataset)
    items = evaluation_shard(records.scene_lengths, rank, world_size, sharding)
    loader = DataLoader(
        FrameDataset(records, mapper),
        batch_size=1,
        sampler=items,  # type: ignore[arg-type]
        **_worker_options(num_workers, rank, seed=0),
    )
    return EvaluationLoader(loader)


def _worker_options(num_workers: int, rank: int, seed: int) -> dict[str, Any]:
    return {
        "num_workers": num_workers,
        "collate_fn": _as_list,
        "pin_memory": torch.cuda.is_available(),
        "worker_init_fn": _WorkerSeed(num_workers * rank + seed),
    }


def _as_list(samples: Iterable[Sample]) -> list[Sample]:
    return list(samples)


class _WorkerSeed:
    """Seeds the global generators of a worker, and keeps OpenCV to the worker's own thread."""

    def __init__(self, first_seed: int):
        self._first_seed = first_seed

    def __call__(self, worker: int) -> None:
        cv2.setNumThreads(0)
        random.seed(self._first_seed + worker)
        np.random.seed(self._first_seed + worker)

"""Loaders: plain torch DataLoaders whose batch order no number of workers can change."""

from __future__ import annotations

import logging
import random
from collections.abc import Mapping
from typing import Any

import cv2
import numpy as np
import torch
from detectron2.data import DatasetCatalog
from detectron2.utils import comm
from torch.utils.data import DataLoader

from streampetr_vit.data.batch import Batch
from streampetr_vit.data.cores import usable_cores
from streampetr_vit.data.loaders import EvaluationLoader, FrameDataset, TrainLoader
from streampetr_vit.data.mapper import NuScenesMapper
from streampetr_vit.data.nuscenes.catalog import dataset_name
from streampetr_vit.data.nuscenes.records import FrameRecords
from streampetr_vit.data.streaming_sampler import (
    StreamingBatchSampler,
    cut_sequences,
    evaluation_shard,
)
from streampetr_vit.data.window_sampler import WindowBatchSampler
from streampetr_vit.errors import InputError

_LOG = logging.getLogger(__name__)


def open_dataset(dataset: str | Mapping[str, Any]) -> FrameRecords:
    """The records of a data set that a config names or describes (see `nuscenes.dataset_name`)."""
    return DatasetCatalog.get(dataset_name(dataset))


def build_train_loader(
    dataset: str | Mapping[str, Any],
    mapper: NuScenesMapper,
    *,
    lanes_per_rank: int,
    num_workers: int | None = None,
    prefetch_factor: int = 2,
    sequence_split: int = 1,
    sequence_length: int | None = None,
    seed: int = 0,
    start_iteration: int = 0,
    rank: int | None = None,
    world_size: int | None = None,
) -> TrainLoader:
    """Builds the endless streaming loader of one rank.

    Args:
        dataset: catalog name, or a description as `nuscenes.dataset_name` takes it.
        mapper: a training mapper.
        lanes_per_rank: streams per rank, the batch size.
        num_workers: loading processes; 0 loads in this process, None is `default_workers`.
        prefetch_factor: batches that each of them makes ahead.
        sequence_split, sequence_length: see `streaming_sampler.cut_sequences`.
        seed: of the order and of every random draw; the same on all ranks.
        start_iteration: batches to pass over (or use `load_state_dict`).
        rank, world_size: by default those of the process group.

    Raises:
        InputError: on an evaluation mapper, a negative seed, a data set without annotations, or
            one with fewer sequences than lanes.
    """
    rank, world_size = _place(rank, world_size)
    records = _training_records(dataset, mapper, seed, "build_train_loader")
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
    options = _worker_options(num_workers, prefetch_factor, rank, seed)
    return _train_loader(FrameDataset(records, mapper, seed), sampler, options)


def build_window_loader(
    dataset: str | Mapping[str, Any],
    mapper: NuScenesMapper,
    *,
    lanes_per_rank: int,
    window_length: int,
    window_drop: int = 1,
    num_workers: int | None = None,
    prefetch_factor: int = 2,
    seed: int = 0,
    start_iteration: int = 0,
    rank: int | None = None,
    world_size: int | None = None,
) -> TrainLoader:
    """Builds the endless sliding-window loader of one rank.

    An entry of its batches is a list of `window_length` samples in temporal order, each with its
    own random draws.

    Args:
        dataset: catalog name, or a description as `nuscenes.dataset_name` takes it.
        mapper: a training mapper.
        lanes_per_rank: windows per rank, the batch size.
        window_length, window_drop: see `window_sampler.WindowBatchSampler`.
        num_workers: loading processes; 0 loads in this process, None is `default_workers`.
        prefetch_factor: batches that each of them makes ahead.
        seed: of the order and of every random draw; the same on all ranks.
        start_iteration: batches to pass over (or use `load_state_dict`).
        rank, world_size: by default those of the process group.

    Raises:
        InputError: on an evaluation mapper, a negative seed, a data set without annotations, or
            numbers that make no window.
    """
    rank, world_size = _place(rank, world_size)
    records = _training_records(dataset, mapper, seed, "build_window_loader")
    sampler = WindowBatchSampler(
        records.scene_lengths,
        window_length,
        window_drop,
        lanes_per_rank,
        rank,
        world_size,
        seed,
        start_iteration,
    )
    _LOG.info(
        "training on %d windows of %d frames, %d dropped, in %d x %d lanes",
        len(records),
        window_length,
        window_drop,
        world_size,
        lanes_per_rank,
    )
    options = _worker_options(num_workers, prefetch_factor, rank, seed)
    return _train_loader(FrameDataset(records, mapper, seed), sampler, options)


def build_test_loader(
    dataset: str | Mapping[str, Any],
    mapper: NuScenesMapper,
    *,
    num_workers: int | None = None,
    prefetch_factor: int = 2,
    rank: int | None = None,
    world_size: int | None = None,
    sharding: str = "scene",
) -> EvaluationLoader:
    """Builds the evaluation loader of one rank: batches of one sample in temporal order.

    Args:
        dataset: catalog name, or a description as `nuscenes.dataset_name` takes it.
        mapper: an evaluation mapper.
        num_workers: loading processes; 0 loads in this process, None is `default_workers`.
        prefetch_factor: batches that each of them makes ahead.
        rank, world_size: by default those of the process group.
        sharding: "scene" or "reference", see `streaming_sampler.evaluation_shard`.

    Raises:
        InputError: on a training mapper.
    """
    rank, world_size = _place(rank, world_size)
    if mapper.training:
        raise InputError("build_test_loader needs a mapper with training=False")
    records = open_dataset(dataset)
    items = evaluation_shard(records.scene_lengths, rank, world_size, sharding)
    options = _worker_options(num_workers, prefetch_factor, rank, seed=0)
    loader = DataLoader(
        FrameDataset(records, mapper),
        batch_size=1,
        sampler=items,
        **options,
    )
    return EvaluationLoader(loader)


def _place(rank: int | None, world_size: int | None) -> tuple[int, int]:
    """Rank and number of processes, where not given those of the process group."""
    return (
        comm.get_rank() if rank is None else rank,
        comm.get_world_size() if world_size is None else world_size,
    )


def _training_records(
    dataset: str | Mapping[str, Any], mapper: NuScenesMapper, seed: int, caller: str
) -> FrameRecords:
    if not mapper.training:
        raise InputError(f"{caller} needs a mapper with training=True")
    if seed < 0:
        raise InputError(f"seed must be 0 or more, not {seed}: the order and all draws follow it")
    records = open_dataset(dataset)
    if not records.has_annotations:
        raise InputError(f"{records.root / records.version} has no annotations to train on")
    return records


def _train_loader(
    dataset: FrameDataset,
    sampler: StreamingBatchSampler | WindowBatchSampler,
    options: dict[str, Any],
) -> TrainLoader:
    # Its iterator is endless: the workers live as long as the run.
    return TrainLoader(DataLoader(dataset, batch_sampler=sampler, **options), sampler)


def default_workers() -> int:
    """Loading processes for each training process: the machine's usable cores, shared out.

    One core is left for the training process itself, and more than 8 wait for each other's turn.
    Where there is a GPU at least one loads beside it.
    """
    least = 1 if torch.cuda.is_available() else 0
    return max(least, min(8, usable_cores() // comm.get_local_size() - 1))


def _worker_options(
    num_workers: int | None, prefetch_factor: int, rank: int, seed: int
) -> dict[str, Any]:
    workers = default_workers() if num_workers is None else num_workers
    return {
        "num_workers": workers,
        "prefetch_factor": prefetch_factor if workers else None,
        "collate_fn": Batch,
        "pin_memory": torch.cuda.is_available(),
        "worker_init_fn": _WorkerSeed(workers * rank + seed),
    }


class _WorkerSeed:
    """Seeds the global generators of a worker, and keeps OpenCV to the worker's own thread."""

    def __init__(self, first_seed: int):
        self._first_seed = first_seed

    def __call__(self, worker: int) -> None:
        cv2.setNumThreads(0)
        random.seed(self._first_seed + worker)
        np.random.seed(self._first_seed + worker)

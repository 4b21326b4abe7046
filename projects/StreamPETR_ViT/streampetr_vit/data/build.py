"""Loaders: plain torch DataLoaders whose batch order no number of workers can change."""

from __future__ import annotations

import functools
import os
from collections.abc import Mapping
from typing import Any

import torch
from detectron2.utils import comm
from torch.utils.data import DataLoader

from streampetr_vit.data.batch import Batch
from streampetr_vit.data.loaders import EvaluationLoader, FrameDataset, TrainLoader
from streampetr_vit.data.mapper import NuScenesMapper
from streampetr_vit.data.nuscenes.catalog import open_dataset
from streampetr_vit.data.streaming_sampler import (
    StreamingBatchSampler,
    cut_sequences,
    evaluation_shard,
)
from streampetr_vit.data.training_checks import (
    check_boxes,
    check_class_names_2d,
    check_resize_range,
)
from streampetr_vit.data.window_sampler import WindowBatchSampler
from streampetr_vit.data.workers import start_worker, worker_context
from streampetr_vit.errors import InputError
from streampetr_vit.structures import DatasetSpec


def build_train_loader(
    dataset: str | Mapping[str, Any],
    mapper: NuScenesMapper,
    *,
    lanes_per_rank: int,
    spec: DatasetSpec | None = None,
    num_workers: int | None = None,
    prefetch_factor: int = 2,
    sequence_split: int = 1,
    sequence_length: int | None = None,
    seed: int = 0,
    start_iteration: int = 0,
    rank: int | None = None,
    world_size: int | None = None,
) -> TrainLoader:
    """Builds the endless streaming loader of one rank, see `StreamingBatchSampler`.

    Args:
        dataset: catalog name, or a description as `catalog.dataset_name` takes it.
        mapper: a training mapper.
        lanes_per_rank: streams per rank, the batch size.
        spec: classes and cameras of the data set; None as it was registered.
        num_workers: loading processes; 0 loads in this process, None is `default_workers`.
        prefetch_factor: batches that each of them makes ahead.
        sequence_split, sequence_length: see `streaming_sampler.cut_sequences`.
        seed: of the order and of every random draw; the same on all ranks.
        start_iteration: batches to pass over (or use `load_state_dict`).
        rank, world_size: by default those of the process group.

    Raises:
        InputError: on an evaluation mapper, a negative seed, a data set without a box to train on,
            or numbers that make no batch.
    """
    rank, world_size = _place(rank, world_size)
    data = _training_data(dataset, spec, mapper, seed)
    sequences = cut_sequences(data.records.scene_lengths, sequence_split, sequence_length)
    sampler = StreamingBatchSampler(
        sequences, lanes_per_rank, rank, world_size, seed, start_iteration
    )
    return TrainLoader(_loader(data, rank, num_workers, prefetch_factor, batch_sampler=sampler))


def build_window_loader(
    dataset: str | Mapping[str, Any],
    mapper: NuScenesMapper,
    *,
    lanes_per_rank: int,
    window_length: int,
    window_drop: int = 1,
    spec: DatasetSpec | None = None,
    num_workers: int | None = None,
    prefetch_factor: int = 2,
    seed: int = 0,
    start_iteration: int = 0,
    rank: int | None = None,
    world_size: int | None = None,
) -> TrainLoader:
    """Builds the endless sliding-window loader of one rank; its entries are lists of samples.

    Arguments and errors are those of `build_train_loader`, but for:

    Args:
        lanes_per_rank: windows per rank, the batch size.
        window_length, window_drop: see `window_sampler.WindowBatchSampler`.
    """
    rank, world_size = _place(rank, world_size)
    data = _training_data(dataset, spec, mapper, seed)
    sampler = WindowBatchSampler(
        data.records.scene_lengths,
        window_length,
        window_drop,
        lanes_per_rank,
        rank,
        world_size,
        seed,
        start_iteration,
    )
    return TrainLoader(_loader(data, rank, num_workers, prefetch_factor, batch_sampler=sampler))


def build_test_loader(
    dataset: str | Mapping[str, Any],
    mapper: NuScenesMapper,
    *,
    spec: DatasetSpec | None = None,
    num_workers: int | None = None,
    prefetch_factor: int = 2,
    rank: int | None = None,
    world_size: int | None = None,
    sharding: str = "scene",
) -> EvaluationLoader:
    """Builds the evaluation loader of one rank: batches of one sample in temporal order.

    Arguments are those of `build_train_loader`, but for:

    Args:
        mapper: an evaluation mapper; another is an InputError.
        sharding: "scene" or "reference", see `streaming_sampler.evaluation_shard`.
    """
    rank, world_size = _place(rank, world_size)
    if mapper.training:
        raise InputError("build_test_loader needs a mapper with training=False")
    data = FrameDataset(open_dataset(dataset, spec), mapper)
    items = evaluation_shard(data.records.scene_lengths, rank, world_size, sharding)
    # Batches of one: a stream plays frame after frame.
    order = {"sampler": items, "batch_size": 1}
    return EvaluationLoader(_loader(data, rank, num_workers, prefetch_factor, **order))


def _place(rank: int | None, world_size: int | None) -> tuple[int, int]:
    """Rank and number of processes; by default those of the process group."""
    rank = comm.get_rank() if rank is None else rank
    return rank, comm.get_world_size() if world_size is None else world_size


def _training_data(
    dataset: str | Mapping[str, Any], spec: DatasetSpec | None, mapper: NuScenesMapper, seed: int
) -> FrameDataset:
    if not mapper.training:
        raise InputError("a training loader needs a mapper with training=True")
    if seed < 0:
        raise InputError(f"seed must be 0 or more, not {seed}: the order and all draws follow it")
    records = open_dataset(dataset, spec)
    if not records.has_annotations:
        raise InputError(f"{records.root / records.version} has no annotations to train on")
    check_boxes(records, mapper)
    check_resize_range(records, mapper.image_aug)
    if mapper.boxes2d:
        check_class_names_2d(records, mapper.class_names_2d)
    return FrameDataset(records, mapper, seed)


def default_workers() -> int:
    """Loading processes for each training process: the machine's usable cores, shared out."""
    # More than 8 wait for each other's turn. One core is left for the training process itself, but
    # where there is a GPU, that process mostly waits for it, and one may load beside it.
    least = 1 if torch.cuda.is_available() else 0
    return max(least, min(8, _usable_cores() // comm.get_local_size() - 1))


def _usable_cores() -> int:
    """CPU cores that this process may run on; a quota of their time is not looked at."""
    if hasattr(os, "sched_getaffinity"):  # not on macOS
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _loader(
    data: FrameDataset, rank: int, num_workers: int | None, prefetch_factor: int, **order: Any
) -> DataLoader[Any]:
    """A loader of `Batch`es in the order that a sampler gives."""
    workers = default_workers() if num_workers is None else num_workers
    return DataLoader(
        data,
        num_workers=workers,
        multiprocessing_context=worker_context() if workers else None,
        prefetch_factor=prefetch_factor if workers else None,  # torch refuses one without workers
        collate_fn=Batch,
        pin_memory=torch.cuda.is_available(),
        worker_init_fn=functools.partial(start_worker, workers * rank + data.seed),
        **order,
    )
